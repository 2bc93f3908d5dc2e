/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conditions on what happens: each firing and not firing, with the process that is to be captured.
 */
#include "tests/unit/rule/rule_kit.h"

#define CRASH 1
#define LOG_TRACE 8

static void exception(struct kit *k, uint32_t source, const char *type, const char *process,
                      uint64_t count)
{
    struct rule_event e = {source, type, process, 42, count};
    rule_engine_exception(k->engine, &e, k->now_us);
}

TEST(an_exception_of_a_source_type_and_process)
{
    struct kit k;
    kit_when(&k, "exception log-trace type java.lang.*Error of shop-*");
    exception(&k, CRASH, "java.lang.OutOfMemoryError", "shop-1", 1);
    exception(&k, LOG_TRACE, "java.lang.Exception", "shop-1", 1);
    exception(&k, LOG_TRACE, "java.lang.OutOfMemoryError", "cart", 1);
    kit_seconds(&k, 3);
    CHECK_EQ_INT(k.count, 0);
    exception(&k, LOG_TRACE, "java.lang.OutOfMemoryError", "shop-1", 1);
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_INT(kit_last(&k)->verdict, RULE_FIRED);
    CHECK_EQ_STR(kit_last(&k)->sentence, "exception java.lang.OutOfMemoryError of shop-1");
    CHECK_EQ_STR(kit_last(&k)->process, "shop-1");
    CHECK_EQ_INT(kit_last(&k)->pid, 42);
    kit_close(&k);
}

TEST(so_many_times_in_so_long)
{
    struct kit k;
    kit_when(&k, "exception crash of nginx 3 times in 10s");
    exception(&k, CRASH, "SIGSEGV", "nginx", 2);
    kit_seconds(&k, 10);
    exception(&k, CRASH, "SIGSEGV", "nginx", 1);
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 0); /* the first two are 10 s away by now */
    exception(&k, CRASH, "SIGSEGV", "nginx", 1);
    kit_seconds(&k, 8);
    exception(&k, CRASH, "SIGSEGV", "nginx", 1);
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "exception SIGSEGV of nginx 3 times in 10 s");
    kit_seconds(&k, 30);
    CHECK_EQ_INT(kit_told(&k, RULE_QUIET), 1);
    kit_close(&k);
    kit_when(&k, "exception crash 3 times in 10s");
    exception(&k, CRASH, "SIGSEGV", "nginx", UINT64_MAX); /* many, told at once */
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

/* Told right after a step, looked at more than its second later. */
TEST(nothing_falls_between_two_steps)
{
    struct kit k;
    kit_when(&k, "exception crash");
    kit_seconds(&k, 1);
    exception(&k, CRASH, "SIGSEGV", "nginx", 1);
    REQUIRE(kit_step_after(&k, 2400000) == 0);
    CHECK_EQ_INT(kit_told(&k, RULE_FIRED), 1);
    kit_close(&k);
}

TEST(lines_of_a_log)
{
    struct kit k;
    kit_when(&k, "log /var/log/shop/*.log has \"refused by *:6379\" 2 times in 1m");
    CHECK(rule_engine_wants_log(k.engine, "/var/log/shop/a.log", ""));
    CHECK(!rule_engine_wants_log(k.engine, "/var/log/syslog", ""));
    const char *line = "14:02 connection refused by 10.0.0.1:6379 (3)";
    rule_engine_log(k.engine, "/var/log/shop/a.log", "", 0, span_str(line), k.now_us);
    rule_engine_log(k.engine, "/var/log/syslog", "", 0, span_str(line), k.now_us);
    rule_engine_log(k.engine, "/var/log/shop/a.log", "", 0, span_str("refused by 6379"), k.now_us);
    rule_engine_log(k.engine, "/var/log/shop/a.log", "", 0, span_of("", 0), k.now_us);
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 0);
    rule_engine_log(k.engine, "/var/log/shop/b.log", "", 0, span_str(line), k.now_us);
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence,
                 "log /var/log/shop/*.log has \"refused by *:6379\" 2 times in 1m");
    kit_close(&k);
}

TEST(long_lines_and_zeros)
{
    struct kit k;
    static char line[RULE_LINE_MAX + 100];
    kit_when(&k, "log of node has OOM");
    memset(line, 'O', sizeof line);
    memcpy(line + RULE_LINE_MAX - 1, "OOM", 3); /* beyond what is looked at */
    rule_engine_log(k.engine, "journal", "node", 7, span_of(line, sizeof line), k.now_us);
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 0);
    line[0] = '\0';
    memcpy(line + RULE_LINE_MAX - 3, "OOM", 3);
    rule_engine_log(k.engine, "journal", "node", 7, span_of(line, sizeof line), k.now_us);
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_INT(kit_last(&k)->pid, 7);
    kit_close(&k);
}

TEST(a_process_that_does_not_run)
{
    struct kit k;
    kit_when(&k, "process redis not running for 10s");
    kit_seconds(&k, 30);
    CHECK_EQ_INT(k.count, 0); /* nobody has listed them yet */
    rule_engine_process(k.engine, "redis", 5, true, k.now_us);
    rule_engine_process(k.engine, "redis", 6, true, k.now_us);
    rule_engine_processes_known(k.engine);
    kit_seconds(&k, 30);
    rule_engine_process(k.engine, "redis", 5, false, k.now_us);
    rule_engine_process(k.engine, "nginx", 9, false, k.now_us);
    kit_seconds(&k, 30);
    CHECK_EQ_INT(k.count, 0);
    rule_engine_process(k.engine, "redis", 6, false, k.now_us);
    kit_seconds(&k, 10);
    CHECK_EQ_INT(k.count, 0);
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "redis is not running for 10 s");
    rule_engine_process(k.engine, "redis", 7, true, k.now_us);
    kit_seconds(&k, 11);
    CHECK_EQ_INT(kit_told(&k, RULE_QUIET), 1);
    kit_close(&k);
}

TEST(a_process_that_restarts)
{
    struct kit k;
    kit_when(&k, "process worker restarted 2 times in 1m");
    for (uint32_t pid = 1; pid <= 9; pid++) /* starting is not restarting */
        rule_engine_process(k.engine, "worker", pid, true, k.now_us);
    rule_engine_processes_known(k.engine);
    kit_seconds(&k, 1);
    rule_engine_process(k.engine, "worker", 3, false, k.now_us);
    kit_seconds(&k, 1);
    rule_engine_process(k.engine, "worker", 10, true, k.now_us);
    rule_engine_process(k.engine, "worker", 11, true, k.now_us); /* one more, for nobody */
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 0);
    rule_engine_process(k.engine, "worker", 4, false, k.now_us);
    rule_engine_process(k.engine, "worker", 12, true, k.now_us);
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "worker restarted 2 times in 1 m");
    CHECK_EQ_INT(kit_last(&k)->pid, 12);
    kit_close(&k);
}

static void threads(struct kit *k, uint32_t pid, uint32_t blocked)
{
    uint32_t counts[RULE_THREAD_STATES] = {50, 50, blocked, 50, 50};
    rule_engine_threads(k->engine, "mysqld", pid, counts, k->now_us);
}

TEST(threads_in_a_state)
{
    struct kit k;
    kit_when(&k, "process mysqld threads in uninterruptible > 10 for 5s");
    for (int i = 0; i < 20; i++) {
        threads(&k, 1, 10);
        threads(&k, 2, i % 4 ? 11 : 0);
        kit_seconds(&k, 1);
    }
    CHECK_EQ_INT(k.count, 0);
    for (int i = 0; i < 6; i++) {
        threads(&k, 1, 10);
        threads(&k, 2, 11);
        kit_seconds(&k, 1);
    }
    REQUIRE(kit_told(&k, RULE_FIRED) == 1);
    CHECK(strncmp(kit_last(&k)->sentence, "mysqld threads in uninterruptible 11 > 10 for ", 46) ==
          0);
    CHECK_EQ_INT(kit_last(&k)->pid, 2);
    rule_engine_process(k.engine, "mysqld", 2, false, k.now_us);
    for (int i = 0; i < 12; i++) {
        threads(&k, 1, 10);
        kit_seconds(&k, 1);
    }
    CHECK_EQ_INT(kit_told(&k, RULE_QUIET), 1);
    kit_seconds(&k, 75); /* not looked at any more */
    CHECK_EQ_INT(kit_told(&k, RULE_BLIND), 1);
    kit_close(&k);
}

TEST(a_probe)
{
    struct kit k;
    kit_when(&k, "hang tcp:127.0.0.1:6379 for 10s");
    kit_seconds(&k, 20);
    CHECK_EQ_INT(k.count, 0); /* not asked: not known */
    rule_engine_probe(k.engine, 0, RULE_ANSWERS, "", 0, NULL, k.now_us);
    kit_seconds(&k, 20);
    rule_engine_probe(k.engine, 0, RULE_HANGS, "redis", 77, NULL, k.now_us);
    kit_seconds(&k, 10);
    CHECK_EQ_INT(k.count, 0);
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "tcp:127.0.0.1:6379 does not answer for 10 s");
    CHECK_EQ_STR(kit_last(&k)->process, "redis");
    rule_engine_probe(k.engine, 0, RULE_UNKNOWN, "", 0, "no route", k.now_us);
    kit_seconds(&k, 61);
    REQUIRE(k.count == 2);
    CHECK_EQ_STR(kit_last(&k)->sentence, "tcp:127.0.0.1:6379 is unknown: no route");
    rule_engine_probe(k.engine, 0, RULE_ANSWERS, "", 0, NULL, k.now_us);
    kit_seconds(&k, 12);
    CHECK_EQ_INT(kit_told(&k, RULE_SEES), 1);
    CHECK_EQ_INT(kit_told(&k, RULE_QUIET), 1);
    rule_engine_probe(k.engine, 99, RULE_HANGS, "", 0, NULL, k.now_us); /* nobody's */
    kit_close(&k);
}

TEST(an_event_loop)
{
    struct kit k;
    kit_when(&k, "hang loop of node");
    kit_seconds(&k, 3);
    rule_engine_loop(k.engine, "nodejs", 3, RULE_HANGS, k.now_us);
    kit_seconds(&k, 3);
    CHECK_EQ_INT(k.count, 0);
    rule_engine_loop(k.engine, "node", 3, RULE_HANGS, k.now_us);
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "event loop of node stands still");
    rule_engine_loop(k.engine, "node", 3, RULE_ANSWERS, k.now_us);
    kit_seconds(&k, 11);
    CHECK_EQ_INT(kit_told(&k, RULE_QUIET), 1);
    kit_close(&k);
}

TEST(what_cannot_be_told_here)
{
    struct kit k;
    kit_when(&k, "not log of node has alive");
    rule_engine_unavailable(k.engine, RULE_LOG, "no permission to read the journal");
    kit_seconds(&k, 61);
    REQUIRE(k.count == 1);
    CHECK_EQ_INT(kit_last(&k)->verdict, RULE_BLIND);
    CHECK_EQ_STR(kit_last(&k)->sentence,
                 "log of node has alive is unknown: no permission to read the journal");
    rule_engine_unavailable(k.engine, RULE_LOG, NULL);
    kit_seconds(&k, 1);
    CHECK_EQ_INT(kit_told(&k, RULE_FIRED), 1);
    kit_close(&k);
}

TEST(whom_to_capture)
{
    struct kit k;
    kit_open(&k, "rule a on * when cpu.busy > 1/s then capture stacks of redis limit 1/h "
                 "rule b on * when exception then capture stacks of re* limit 1/h "
                 "rule c on * when exception then capture stacks of other limit 1/h");
    kit_series(&k, 0, "cpu.busy", "", "us", true, 0);
    k.values[0] = 0;
    exception(&k, CRASH, "SIGSEGV", "redis", 1);
    kit_rise(&k, 5, 2);
    REQUIRE(k.count == 3);
    for (size_t i = 0; i < 3; i++) {
        const struct rule_decision *d = &k.decided[i];
        const char *wants = d->rule->name[0] == 'c' ? "other" : "redis";
        CHECK_EQ_STR(d->process, wants);
        CHECK_EQ_INT(d->pid, d->rule->name[0] == 'b' ? 42 : 0);
    }
    kit_close(&k);
}
