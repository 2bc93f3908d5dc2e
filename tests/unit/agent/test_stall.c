/* SPDX-License-Identifier: Apache-2.0 */
/* Verdicts on standing still, second by second, without any process. */
#include "agent/watch_stall.h"

#include "tests/check.h"

#define SECOND UINT64_C(1000000)

static const struct os_peek waiting = {.has_syscall = true, .is_waiting = true},
                            reading = {.has_syscall = true}, unknown = {.error = ERR_DENIED};

static struct stall s;
static struct os_watch_runs runs;
static uint64_t now;

static void begin(void)
{
    s = (struct stall){0};
    runs = (struct os_watch_runs){1000, 10};
    now = SECOND;
    CHECK_EQ_INT(stall_feed(&s, &runs, now), STALL_ASK); /* is it a loop? */
    CHECK_EQ_INT(stall_answer(&s, &waiting, now), STALL_NONE);
    CHECK(s.is_loop);
}

static enum stall_verdict second(uint64_t run_ms, uint64_t switches)
{
    now += SECOND;
    runs.busy_ns += run_ms * 1000000;
    runs.switches += switches;
    return stall_feed(&s, &runs, now);
}

TEST(an_idle_loop_is_asked_once_and_is_no_hang)
{
    int asked = 0;
    begin();
    for (int i = 0; i < 3600; i++)
        if (second(0, 0) == STALL_ASK) {
            asked++;
            CHECK_EQ_INT(stall_answer(&s, &waiting, now), STALL_NONE);
        }
    CHECK_EQ_INT(asked, 1);
    CHECK_EQ_INT(second(1, 1), STALL_NONE);
}

TEST(a_loop_that_sleeps_elsewhere_is_told_once)
{
    int stuck = 0;
    begin();
    for (int i = 0; i < 60; i++)
        if (second(0, 0) == STALL_ASK)
            stuck += stall_answer(&s, &reading, now) == STALL_STUCK;
    CHECK_EQ_INT(stuck, 1);
    CHECK(now - s.stuck_since_us >= STALL_US);
    CHECK_EQ_INT(second(1, 1), STALL_GOES);
    CHECK_EQ_INT(second(1, 1), STALL_NONE);
}

TEST(what_is_not_known_is_no_hang)
{
    begin();
    for (int i = 0; i < 60; i++)
        if (second(0, 0) == STALL_ASK)
            CHECK_EQ_INT(stall_answer(&s, &unknown, now), STALL_NONE);
    CHECK(!s.is_told);
}

static int busy(uint64_t voluntary_each, uint64_t system_percent)
{
    struct os_watch_thread t = {.state = 'R'};
    int stuck = 0;
    begin();
    for (int i = 0; i < 40; i++) {
        t.voluntary += voluntary_each;
        t.system_us += system_percent * 10000;
        t.user_us += (100 - system_percent) * 10000;
        if (second(1000, 0) == STALL_LOOK)
            stuck += stall_looked(&s, &t, now) == STALL_STUCK;
    }
    return stuck;
}

TEST(a_loop_that_computes_without_end)
{
    CHECK_EQ_INT(busy(0, 0), 1);
    CHECK_EQ_INT(second(100, 5), STALL_GOES);
}

TEST(a_loop_that_is_busy_but_comes_round)
{
    CHECK_EQ_INT(busy(1, 0), 0);  /* it waits now and then */
    CHECK_EQ_INT(busy(0, 30), 0); /* a server under load */
}

TEST(what_is_no_loop_may_compute_and_sleep)
{
    s = (struct stall){0};
    runs = (struct os_watch_runs){1000, 10};
    now = SECOND;
    for (int i = 0; i < 200; i++) {
        enum stall_verdict v = second(i % 50 < 25 ? 1000 : 0, 0);
        CHECK(v != STALL_LOOK);
        if (v == STALL_ASK)
            CHECK_EQ_INT(stall_answer(&s, &reading, now), STALL_NONE);
    }
}

TEST(uninterruptible_sleep_in_one_wait)
{
    struct stall_blocked b = {.tid = 7, .switches = 5, .since_us = SECOND};
    struct os_watch_thread t = {.state = 'D', .switches = 5};
    uint64_t over;
    CHECK(!stall_blocked_feed(&b, &t, SECOND + STALL_US - 1, &over));
    CHECK(stall_blocked_feed(&b, &t, SECOND + STALL_US, &over));
    CHECK(!stall_blocked_feed(&b, &t, SECOND + STALL_US + 1, &over));
    t.switches++;
    CHECK(!stall_blocked_feed(&b, &t, SECOND + 2 * STALL_US, &over));
    CHECK_EQ_INT(over, 2 * STALL_US);
    CHECK_EQ_INT(b.tid, 0);
    b = (struct stall_blocked){.tid = 7, .switches = 5, .since_us = SECOND};
    CHECK(!stall_blocked_feed(&b, &t, SECOND + STALL_US, &over)); /* another wait */
    CHECK_EQ_INT(b.tid, 0);
}
