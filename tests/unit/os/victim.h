/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting the programs of tests/victims and looking at them from outside. A victim prints "ready",
 * answers each line on its input with one line, and dies with the test. Whoever checks where its
 * threads are, waits until they have settled first. Included by the tests of the os layer.
 */
#ifndef TESTS_UNIT_OS_VICTIM_H
#define TESTS_UNIT_OS_VICTIM_H

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/linux/stop.h"
#include "agent/os/process.h"
#include "tests/check.h"

struct victim {
    struct os_process process;
    pid_t pid;
    FILE *in, *out;
};

static inline void nap_ms(long ms)
{
    struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* Runs `path`; argument may be NULL. */
static inline void victim_run(struct victim *v, const char *path, const char *name,
                              const char *argument, const char *second)
{
    int in[2], out[2];
    char line[64];
    struct failure f = {0, ""};
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    v->pid = fork();
    REQUIRE(v->pid >= 0);
    if (v->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        for (int fd = 3; fd < 64; fd++)
            close(fd);
        execl(path, name, argument, second, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    v->in = fdopen(in[1], "w");
    v->out = fdopen(out[0], "r");
    REQUIRE(fgets(line, sizeof line, v->out) && strcmp(line, "ready\n") == 0);
    REQUIRE(os_process_get("", (uint32_t)v->pid, &v->process, &f) == 0);
}

static inline void victim_start(struct victim *v, const char *name, const char *argument,
                                const char *second)
{
    const char *dir = getenv("TRAWL_VICTIMS");
    char path[512];
#ifdef VICTIMS_DIR
    if (!dir)
        dir = VICTIMS_DIR;
#endif
    REQUIRE(dir != NULL);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    victim_run(v, path, name, argument, second);
}

/* Asks for a line. */
static inline void victim_ask(struct victim *v, char *line, int size)
{
    fputs("?\n", v->in);
    fflush(v->in);
    REQUIRE(fgets(line, size, v->out) != NULL);
}

static inline void victim_end(struct victim *v)
{
    fclose(v->in);
    fclose(v->out);
    kill(v->pid, SIGKILL);
    waitpid(v->pid, NULL, 0);
}

/* Calls for each thread: counts those that are traced and those in state `wanted`. */
static inline int victim_count(const struct victim *v, char wanted, int *traced)
{
    char path[64];
    int count = 0;
    *traced = 0;
    snprintf(path, sizeof path, "/proc/%d/task", v->pid);
    DIR *dir = opendir(path);
    REQUIRE(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10), tracer = 0;
        char state = '?';
        if (tid <= 0 || stop_thread_status(v->pid, tid, &tracer, &state) != 0)
            continue;
        *traced += tracer != 0;
        count += state == wanted;
    }
    closedir(dir);
    return count;
}

/* Neither traced nor in a tracing stop; that nothing is left of a capture. */
static inline void victim_check_free(const struct victim *v)
{
    int traced;
    CHECK_EQ_INT(victim_count(v, 't', &traced), 0);
    CHECK_EQ_INT(traced, 0);
}

/* Long enough for the busiest machine: what is waited for is certain to come. */
#define VICTIM_AWAIT_MS 30000

/* Waits until so many threads of the victim are in `state`. */
static inline void victim_await_many(const struct victim *v, char state, int count)
{
    int traced, found = 0;
    for (int i = 0; i < VICTIM_AWAIT_MS && found < count; i++) {
        found = victim_count(v, state, &traced);
        if (found < count)
            nap_ms(1);
    }
    REQUIRE(found >= count);
}

static inline void victim_await(const struct victim *v, char state)
{
    victim_await_many(v, state, 1);
}

/* What one look at the victim's threads saw. */
struct victim_look {
    int awake;
    unsigned long switches; /* of all that sleep together, voluntary and not */
};

static inline void victim_look_at(const struct victim *v, const char *thread,
                                  struct victim_look *look)
{
    char path[96], line[128];
    bool asleep = false;
    snprintf(path, sizeof path, "/proc/%d/task/%s/status", v->pid, thread);
    FILE *status = fopen(path, "r");
    if (!status)
        return; /* it has ended */
    while (fgets(line, sizeof line, status)) {
        char *value = strchr(line, ':');
        if (value && strncmp(line, "State:", 6) == 0)
            asleep = value[1 + strspn(value + 1, "\t ")] == 'S';
        if (value && asleep && strstr(line, "voluntary_ctxt_switches:"))
            look->switches += strtoul(value + 1, NULL, 10);
    }
    look->awake += !asleep;
    fclose(status);
}

static inline struct victim_look victim_look(const struct victim *v)
{
    struct victim_look look = {0, 0};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", v->pid);
    DIR *dir = opendir(path);
    REQUIRE(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.')
            victim_look_at(v, entry->d_name, &look);
    closedir(dir);
    return look;
}

/*
 * Waits until all threads but `awake`, which never sleep, stand where they will stay: those that
 * were only just born have not come there yet. A sleep of a moment, for a lock, does not pass for
 * it: such a thread has been switched to by the second look.
 */
static inline void victim_settle_but(const struct victim *v, int awake)
{
    struct victim_look before, now = {awake + 1, 0};
    for (int i = 0; i < VICTIM_AWAIT_MS; i++) {
        before = now;
        now = victim_look(v);
        if (now.awake == awake && before.awake == awake && now.switches == before.switches)
            return;
        nap_ms(1);
    }
    printf("      %d threads are awake, not %d\n", now.awake, awake);
    check_abort();
}

static inline void victim_settle(const struct victim *v)
{
    victim_settle_but(v, 0);
}

#endif
