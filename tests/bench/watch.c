/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What watching eight processes and probing eight ports costs: processor time of the sources alone,
 * in percent of a core, over some seconds; and what finding out who listens costs, by netlink and
 * where that is refused.
 *
 *     bench_watch VICTIM [SECONDS]      VICTIM: <build>/victims/watched
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/watch.h"
#include "agent/sources.h"
#include "agent/watch_probe.h"
#include "agent/watch_process.h"
#include "common/text.h"

#define MANY 8
#define FIRST_PORT 17400
#define LOOKS 200

static pid_t victims[MANY];

static void run_victims(const char *path, const char *word)
{
    char port[16];
    for (int i = 0; i < MANY; i++) {
        snprintf(port, sizeof port, "%d", FIRST_PORT + i);
        fflush(stdout);
        victims[i] = fork();
        if (victims[i] == 0) {
            if (!freopen("/dev/null", "w", stdout))
                _exit(1);
            execl(path, "watched", "listen", port, word, "600000", (char *)NULL);
            _exit(127);
        }
    }
    usleep(500000);
}

static void end_victims(void)
{
    for (int i = 0; i < MANY; i++) {
        kill(victims[i], SIGKILL);
        waitpid(victims[i], NULL, 0);
    }
}

static uint64_t used_us(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (uint64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

static uint64_t settled_us;

static void on_settled(uv_timer_t *timer)
{
    (void)timer;
    settled_us = used_us();
}

static void on_over(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void on_second(uv_timer_t *timer)
{
    if (timer->data)
        watch_process_second(timer->data);
}

/* The first seconds hold what is done once. */
static void measure(const char *what, struct source_context *c, void *watched, unsigned seconds)
{
    uv_timer_t settled, over, second;
    uv_timer_init(c->loop, &settled);
    uv_timer_init(c->loop, &over);
    uv_timer_init(c->loop, &second);
    second.data = watched;
    uv_timer_start(&settled, on_settled, 6000, 0);
    uv_timer_start(&over, on_over, 6000 + seconds * 1000, 0);
    uv_timer_start(&second, on_second, 1000, 1000);
    uv_run(c->loop, UV_RUN_DEFAULT);
    printf("%-28s %.4f %% of a core\n", what, (double)(used_us() - settled_us) / seconds / 1e4);
    uv_close((uv_handle_t *)&settled, NULL);
    uv_close((uv_handle_t *)&over, NULL);
    uv_close((uv_handle_t *)&second, NULL);
    uv_run(c->loop, UV_RUN_NOWAIT);
}

/* socket(AF_NETLINK, ...) fails from now on. */
static int refuse_netlink(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* One look for the ports of a process, and one whether anybody listens on a port. */
static void measure_listeners(const char *what)
{
    struct os_peek peek;
    unsigned found = 0;
    uint64_t began_us = used_us();
    for (int i = 0; i < LOOKS; i++) {
        os_peek((uint32_t)victims[0], 0, true, &peek);
        found += peek.port_count;
    }
    uint64_t peeked_us = used_us();
    for (int i = 0; i < LOOKS; i++)
        found += os_watch_listens(FIRST_PORT);
    printf("%-28s %.1f us a process, %.1f us a port%s\n", what,
           (double)(peeked_us - began_us) / LOOKS, (double)(used_us() - peeked_us) / LOOKS,
           found == 2 * LOOKS ? "" : " (not all found)");
}

/* The filter cannot be taken off again. */
static void measure_refused(void)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (refuse_netlink() == 0)
            measure_listeners("who listens, from /proc");
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
    static const char *const followed[] = {"watched", NULL};
    static struct settings settings;
    char directory[] = "/tmp/trawl-bench-XXXXXX";
    uint64_t seconds = 20;
    uv_loop_t loop;
    struct spool_opened how;
    const uint64_t floors[SPOOL_LANES] = {1, 1};
    struct source_context c = {
        .loop = &loop, .clock = clock_system(), .settings = &settings, .followed = followed};
    struct spool *spool;
    struct failure f = {0, ""};
    void *source = NULL;
    if (argc < 2 || (argc > 2 && text_u64_in(argv[2], 1, 600, &seconds)) || !mkdtemp(directory) ||
        uv_loop_init(&loop) || spool_open(&spool, directory, SPOOL_MIN_BYTES, floors, &how, &f) ||
        events_open(&c.events, spool, c.clock, NULL, NULL, NULL) ||
        watcher_open(&c.watcher, spool, c.clock, NULL, NULL))
        return 2;
    run_victims(argv[1], "loop");
    measure_refused();
    measure_listeners("who listens, by netlink");
    measure("nothing", &c, NULL, (unsigned)seconds);
    if (watch_process_open(&source, &c, &f) == 0 && source)
        measure("8 followed event loops", &c, source, (unsigned)seconds);
    watch_process_close(source);
    end_victims();
    run_victims(argv[1], "serve");
    for (int i = 0; i < MANY; i++)
        snprintf(settings.probe + strlen(settings.probe), 64, "%stcp:127.0.0.1:%d", i ? "," : "",
                 FIRST_PORT + i);
    source = NULL;
    if (watch_probe_open(&source, &c, &f) == 0 && source)
        measure("8 probes, each 5 s", &c, NULL, (unsigned)seconds);
    watch_probe_close(source);
    end_victims();
    uv_run(&loop, UV_RUN_NOWAIT);
    return 0;
}
