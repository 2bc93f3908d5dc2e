/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each thread of a process is doing: its state, where the kernel has it wait, its system call.
 * Threads that do the same are shown as one line with their number. Called by triage.c.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define THREADS_MAX 8192
#define GROUPS_MAX 256
#define TIDS_SHOWN 6
#define NAME_SIZE (PROC_COMM_CUT + 1)
#define WAIT_SIZE 64
#define CALL_SIZE 240

struct group {
    char state;
    char name[NAME_SIZE];
    char wait[WAIT_SIZE];
    char call[CALL_SIZE];
    uint64_t ticks;
    uint32_t count;
    uint32_t tids[TIDS_SHOWN];
};

struct threads {
    struct triage *t;
    struct group *groups;
    size_t count;
    uint32_t over; /* threads in groups that had no room */
    uint32_t ended;
    struct failure wait_failure, call_failure;
};

static bool target_of(void *context, uint64_t fd, char *out, size_t size_bytes)
{
    const struct triage *t = context;
    char leaf[48];
    (void)text_format(leaf, sizeof leaf, "fd/%llu", (unsigned long long)fd);
    return proc_link_pid(t->root, t->process->pid, leaf, out, size_bytes, NULL) == 0;
}

static int read_leaf(const struct triage *t, uint32_t tid, const char *leaf, char *data,
                     size_t size_bytes, struct span *out, struct failure *f)
{
    char path[64];
    (void)text_format(path, sizeof path, "task/%u/%s", tid, leaf);
    return proc_read_pid(t->root, t->process->pid, path, data, size_bytes, out, f);
}

static void read_wait(struct threads *threads, uint32_t tid, struct group *group)
{
    char data[WAIT_SIZE];
    struct span text;
    if (read_leaf(threads->t, tid, "wchan", data, sizeof data, &text, &threads->wait_failure) < 0)
        return;
    if (span_equal(text, span_str("0")))
        text.size_bytes = 0;
    (void)text_copy_span(group->wait, sizeof group->wait, text);
}

static void read_call(struct threads *threads, uint32_t tid, struct group *group)
{
    char data[256];
    struct span text;
    if (read_leaf(threads->t, tid, "syscall", data, sizeof data, &text, &threads->call_failure) ==
        0)
        (void)triage_describe_syscall(text, target_of, threads->t, group->call, sizeof group->call);
}

static int read_thread(struct threads *threads, uint32_t tid, struct group *group)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat;
    *group = (struct group){.count = 1, .tids = {tid}};
    if (read_leaf(threads->t, tid, "stat", data, sizeof data, &text, NULL) < 0 ||
        proc_parse_stat(text, &stat) < 0)
        return ERR_GONE;
    group->state = stat.state;
    group->ticks = stat.user_ticks + stat.system_ticks;
    (void)text_copy(group->name, sizeof group->name, stat.name);
    read_wait(threads, tid, group);
    read_call(threads, tid, group);
    return 0;
}

static bool does_the_same(const struct group *a, const struct group *b)
{
    return a->state == b->state && strcmp(a->name, b->name) == 0 && strcmp(a->wait, b->wait) == 0 &&
           strcmp(a->call, b->call) == 0;
}

static void add_thread(struct threads *threads, const struct group *one)
{
    for (size_t i = 0; i < threads->count; i++) {
        struct group *group = &threads->groups[i];
        if (!does_the_same(group, one))
            continue;
        if (group->count < TIDS_SHOWN)
            group->tids[group->count] = one->tids[0];
        group->count++;
        group->ticks += one->ticks;
        return;
    }
    if (threads->count < GROUPS_MAX)
        threads->groups[threads->count++] = *one;
    else
        threads->over++;
}

static void put_group(struct triage *t, const struct group *group)
{
    if (group->count > 1)
        triage_put(t, "  %u x ", group->count);
    else
        triage_put(t, "  ");
    triage_put_safe(t, span_str(group->name));
    for (uint32_t i = 0; i < group->count && i < TIDS_SHOWN; i++)
        triage_put(t, "%s%u", i ? "," : " ", group->tids[i]);
    triage_put(t, "%s: %s", group->count > TIDS_SHOWN ? ",..." : "", triage_state(group->state));
    if (group->call[0]) {
        triage_put(t, ", ");
        triage_put_safe(t, span_str(group->call));
    }
    if (group->wait[0]) {
        triage_put(t, ", waits in ");
        triage_put_safe(t, span_str(group->wait));
    }
    triage_put(t, ", %llu.%02llu s of CPU\n", (unsigned long long)(group->ticks / 100),
               (unsigned long long)(group->ticks % 100));
}

static void read_all(struct threads *threads, const uint32_t *tids, size_t count)
{
    struct group one;
    for (size_t i = 0; i < count; i++) {
        if (read_thread(threads, tids[i], &one) == 0)
            add_thread(threads, &one);
        else
            threads->ended++;
    }
}

static void put_all(struct threads *threads, size_t count)
{
    struct triage *t = threads->t;
    triage_put(t, "\nthreads (%zu)\n", count);
    for (size_t i = 0; i < threads->count; i++)
        put_group(t, &threads->groups[i]);
    if (threads->over > 0)
        triage_put(t, "  %u more, each doing something else\n", threads->over);
    if (threads->ended > 0)
        triage_put(t, "  %u ended while they were looked at\n", threads->ended);
    if (threads->wait_failure.code != 0 && threads->wait_failure.code != ERR_GONE)
        triage_miss(t, "wait channels", threads->wait_failure.text);
    if (threads->call_failure.code != 0 && threads->call_failure.code != ERR_GONE)
        triage_miss(t, "system calls", threads->call_failure.text);
}

void triage_put_threads(struct triage *t)
{
    struct threads threads = {.t = t};
    char path[PROC_PATH_SIZE];
    uint32_t *tids = NULL;
    size_t count = 0;
    struct failure f;
    proc_path(path, t->root, t->process->pid, "task");
    int result = proc_numbers(path, &tids, &count, THREADS_MAX, &f);
    if (result < 0)
        triage_miss(t, "threads", f.text);
    threads.groups = calloc(GROUPS_MAX, sizeof *threads.groups);
    if (!threads.groups) {
        triage_miss(t, "threads", "out of memory");
    } else if (count > 0) {
        read_all(&threads, tids, count);
        put_all(&threads, count);
    }
    free(threads.groups);
    free(tids);
}
