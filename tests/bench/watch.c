/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What watching eight processes and probing eight ports costs: processor time of the sources alone,
 * in percent of a core, over some seconds.
 *
 *     bench_watch VICTIM [SECONDS]      VICTIM: <build>/victims/watched
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/sources.h"
#include "agent/watch_probe.h"
#include "agent/watch_process.h"
#include "common/text.h"

#define MANY 8
#define FIRST_PORT 17400

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
