/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holding a process does to it: nothing that it can notice but the moment. Each promise of stop.h, with a
 * control that breaks it where one can be built.
 */
#include "agent/os/linux/stop.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>

#include "tests/unit/os/victim.h"

#define PAUSE_MAX_US 2000000
#define HOLDS        100
#define KILLS        100

static int do_nothing(void *context, struct stop *stop)
{
    (void)context;
    (void)stop;
    return 0;
}

static size_t count_state(const struct stop *stop, enum stop_state state)
{
    size_t count = 0;
    for (size_t i = 0; i < stop->count; i++)
        count += stop->threads[i].state == state;
    return count;
}

/* One hold from beginning to end; returns how many threads were held. */
static size_t hold_once(const struct victim *v, struct stop_controls controls,
                        stop_held_fn held, struct stop *totals)
{
    struct stop stop;
    struct failure f = {0, ""};
    size_t count = 0;
    int rc = stop_open(&stop, &v->process, &f);
    CHECK_EQ_INT(rc, 0);
    if (rc)
        return 0;
    stop.controls = controls;
    CHECK_EQ_INT(stop_run(&stop, PAUSE_MAX_US, held, NULL, &f), 0);
    CHECK(stop.pause_us > 0);
    count = count_state(&stop, STOP_HELD);
    CHECK_EQ_INT(count_state(&stop, STOP_MISSED), 0);
    if (totals) {
        totals->signals_passed += stop.signals_passed;
        totals->calls_restarted += stop.calls_restarted;
        totals->born += stop.born;
        if (stop.pause_us > totals->pause_us)
            totals->pause_us = stop.pause_us;
    }
    stop_close(&stop);
    return count;
}

static const struct stop_controls as_shipped;

TEST(all_threads_are_held_and_let_go)
{
    struct victim v;
    struct stop totals = {.pause_us = 0};
    victim_start(&v, "threads", "3", NULL);
    CHECK_EQ_INT(hold_once(&v, as_shipped, do_nothing, &totals), 4);
    victim_check_free(&v);
    printf("      pause of 4 threads: %llu us\n", (unsigned long long)totals.pause_us);
    victim_end(&v);
}

TEST_LIMIT(two_hundred_threads_are_held, 60)
{
    struct victim v;
    struct stop totals = {.pause_us = 0};
    victim_start(&v, "threads", "199", NULL);
    for (int i = 0; i < 20; i++)
        CHECK_EQ_INT(hold_once(&v, as_shipped, do_nothing, &totals), 200);
    victim_check_free(&v);
    printf("      longest pause of 200 threads: %llu us\n", (unsigned long long)totals.pause_us);
    victim_end(&v);
}

/* The target's own view: the longest time in which a thread that only reads the clock did not run. */
TEST_LIMIT(the_pause_is_what_the_process_sees, 60)
{
    struct victim v;
    struct stop totals = {.pause_us = 0};
    char line[64];
    victim_start(&v, "threads", "3", "1");
    victim_ask(&v, line, sizeof line);
    for (int i = 0; i < 20; i++)
        hold_once(&v, as_shipped, do_nothing, &totals);
    victim_ask(&v, line, sizeof line);
    CHECK(strtoull(line, NULL, 10) > 0);
    printf("      longest pause measured %llu us, longest gap seen inside %s",
           (unsigned long long)totals.pause_us, line);
    victim_end(&v);
}

struct storm {
    unsigned long sent, received, out_of_order, children;
};

static void end_storm(struct victim *v, struct storm *storm)
{
    char line[128], *at = line;
    victim_ask(v, line, sizeof line);
    storm->sent = strtoul(at, &at, 10);
    storm->received = strtoul(at, &at, 10);
    storm->out_of_order = strtoul(at, &at, 10);
    storm->children = strtoul(at, &at, 10);
    victim_end(v);
}

TEST_LIMIT(no_signal_is_lost, 60)
{
    struct victim v;
    struct storm storm;
    struct stop totals = {.pause_us = 0};
    victim_start(&v, "storm", NULL, NULL);
    for (int i = 0; i < HOLDS; i++)
        hold_once(&v, as_shipped, do_nothing, &totals);
    victim_check_free(&v);
    end_storm(&v, &storm);
    CHECK(storm.sent > 1000);
    CHECK(totals.signals_passed > 0);
    CHECK_EQ_INT(storm.received, storm.sent);
    CHECK_EQ_INT(storm.out_of_order, 0);
    CHECK_EQ_INT(storm.children, 0);
    printf("      %lu signals, %u of them met a hold\n", storm.sent, totals.signals_passed);
}

TEST_LIMIT(control_swallowed_signals_are_seen, 60)
{
    struct victim v;
    struct storm storm;
    struct stop totals = {.pause_us = 0};
    struct stop_controls swallow = {.swallow_signals = true};
    victim_start(&v, "storm", NULL, NULL);
    for (int i = 0; i < HOLDS && totals.signals_passed < 10; i++)
        hold_once(&v, swallow, do_nothing, &totals);
    end_storm(&v, &storm);
    CHECK(storm.received < storm.sent);
}

struct calls {
    unsigned long kinds, interrupted, other;
    char names[2048];
};

static void ask_calls(struct victim *v, struct calls *calls)
{
    char line[2200], *at = line;
    /* The calls that were interrupted have returned when their threads sleep again. */
    nap_ms(100);
    victim_ask(v, line, sizeof line);
    calls->kinds = strtoul(at, &at, 10);
    calls->interrupted = strtoul(at, &at, 10);
    calls->other = strtoul(at, &at, 10);
    snprintf(calls->names, sizeof calls->names, "%.*s", (int)strcspn(at, "\n"), at);
}

TEST_LIMIT(no_system_call_is_interrupted, 60)
{
    struct victim v;
    struct calls calls;
    struct stop totals = {.pause_us = 0};
    victim_start(&v, "syscalls", NULL, NULL);
    for (int i = 0; i < HOLDS / 2; i++)
        hold_once(&v, as_shipped, do_nothing, &totals);
    victim_check_free(&v);
    ask_calls(&v, &calls);
    CHECK(calls.kinds >= 30);
    CHECK_EQ_INT(calls.interrupted, 0);
    CHECK_EQ_INT(calls.other, 0);
    CHECK_EQ_STR(calls.names, "");
    CHECK(totals.calls_restarted > 0);
    printf("      %lu kinds, %u calls begun anew\n", calls.kinds, totals.calls_restarted);
    victim_end(&v);
}

TEST_LIMIT(control_interrupted_calls_are_seen, 60)
{
    struct victim v;
    struct calls calls;
    struct stop_controls keep = {.keep_eintr = true};
    victim_start(&v, "syscalls", NULL, NULL);
    for (int i = 0; i < 3; i++)
        hold_once(&v, keep, do_nothing, NULL);
    ask_calls(&v, &calls);
    CHECK(calls.interrupted >= 8);
    printf("      without repair:%s\n", calls.names);
    victim_end(&v);
}

/* A signal that comes while the call is being mended must still interrupt it. */
static int send_signal(void *context, struct stop *stop)
{
    (void)context;
    return kill((pid_t)stop->process.pid, SIGUSR1) == 0 ? 0 : ERR_IO;
}

TEST(a_true_signal_still_interrupts)
{
    int out[2];
    REQUIRE(pipe(out) == 0);
    struct victim v = {.pid = fork()};
    if (v.pid == 0) {
        struct sigaction action = {.sa_handler = check_signal_handler};
        (void)action;
        _exit(0);
    }
    victim_end(&v);
}
