/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conditions on counters: each form firing and not firing, the edges of `for`, what gaps and falls
 * do, hysteresis, several series.
 */
#include "tests/unit/rule/rule_kit.h"

#define MIB (INT64_C(1) << 20)

TEST(a_level_and_its_sentence)
{
    struct kit k;
    kit_when(&k, "process.rss of redis-* > 2G for 30s");
    CHECK_EQ_INT(kit_series(&k, 0, "process.rss", "redis-server", "bytes", false, 4711), 1);
    CHECK_EQ_INT(kit_series(&k, 1, "process.rss", "nginx", "bytes", false, 4712), 0);
    k.values[1] = 5000 * MIB;
    kit_hold(&k, 2048 * MIB, 60);
    CHECK_EQ_INT(k.count, 0); /* at the limit is not above it */
    kit_hold(&k, 3174 * MIB, 30);
    CHECK_EQ_INT(k.count, 0); /* from the first to the 30th are 29 s */
    kit_hold(&k, 3174 * MIB, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_INT(kit_last(&k)->verdict, RULE_FIRED);
    CHECK_EQ_STR(kit_last(&k)->sentence, "redis-server process.rss 3.1 GiB > 2 GiB for 30 s");
    CHECK_EQ_STR(kit_last(&k)->process, "redis-server");
    CHECK_EQ_INT(kit_last(&k)->pid, 4711);
    CHECK_EQ_INT(k.now_us - kit_last(&k)->since_us, 30 * KIT_SECOND_US);
    CHECK_EQ_STR(kit_last(&k)->rule->name, "x");
    kit_hold(&k, 3174 * MIB, 300);
    CHECK_EQ_INT(k.count, 1); /* once */
    kit_close(&k);
}

TEST(one_second_below_begins_anew)
{
    struct kit k;
    kit_when(&k, "a.a > 10 for 10s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 11, 10);
    kit_hold(&k, 10, 1);
    kit_hold(&k, 11, 10);
    CHECK_EQ_INT(k.count, 0);
    kit_hold(&k, 11, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(every_comparison_at_its_edge)
{
    static const struct {
        const char *text;
        bool below, at, above;
    } rows[] = {{"a.a > 5", false, false, true},
                {"a.a >= 5", false, true, true},
                {"a.a < 5", true, false, false},
                {"a.a <= 5", true, true, false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool wants[] = {rows[i].below, rows[i].at, rows[i].above};
        for (int64_t v = 4; v <= 6; v++) {
            struct kit k;
            kit_when(&k, rows[i].text);
            kit_series(&k, 0, "a.a", "", "1", false, 0);
            kit_hold(&k, v, 1);
            CHECK_EQ_INT(k.count, wants[v - 4]);
            kit_close(&k);
        }
    }
}

TEST(a_rate_in_a_second)
{
    struct kit k;
    kit_when(&k, "tcp.retransmits > 100/s");
    kit_series(&k, 0, "tcp.retransmits", "", "1", true, 0);
    kit_rise(&k, 1000000, 1);
    CHECK_EQ_INT(k.count, 0); /* one value is no rate */
    kit_rise(&k, 100, 3);
    CHECK_EQ_INT(k.count, 0);
    kit_rise(&k, 101, 1);
    CHECK_EQ_INT(k.count, 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "tcp.retransmits 101/s > 100/s");
    kit_close(&k);
}

/* From the largest number to the smallest it has risen by one, were it unsigned; here it fell. */
TEST(a_count_that_falls_is_a_restart)
{
    struct kit k;
    kit_when(&k, "a.a < 1/s or a.a > 100/s");
    kit_series(&k, 0, "a.a", "", "1", true, 0);
    kit_hold(&k, 1000, 1);
    kit_rise(&k, 50, 5);
    kit_hold(&k, 3, 1);
    CHECK_EQ_INT(k.count, 0); /* neither negative nor huge */
    kit_rise(&k, 50, 5);
    CHECK_EQ_INT(k.count, 0);
    kit_hold(&k, INT64_MAX, 1);
    CHECK_EQ_INT(k.count, 1); /* a true jump is one */
    kit_close(&k);

    kit_when(&k, "a.a > 1000/m");
    kit_series(&k, 0, "a.a", "", "1", true, 0);
    k.values[0] = 0;
    kit_rise(&k, 10, 70);
    kit_hold(&k, 0, 1);
    kit_rise(&k, 30, 59);
    CHECK_EQ_INT(k.count, 0); /* what was before the fall is no part of the minute */
    kit_rise(&k, 30, 3);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(share_of_time)
{
    struct kit k;
    kit_when(&k, "pressure.memory.some >= 10% for 2s");
    kit_series(&k, 0, "pressure.memory.some", "", "us", true, 0);
    k.values[0] = 0;
    kit_rise(&k, 99000, 10);
    CHECK_EQ_INT(k.count, 0);
    kit_rise(&k, 100000, 3);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "pressure.memory.some 10 % >= 10 % for 2 s");
    kit_close(&k);
}

TEST(share_of_all_processors)
{
    struct kit k;
    kit_when(&k, "cpu.busy > 90% or cpu.core.busy > 95%");
    kit_series(&k, 0, "cpu.busy", "", "us", true, 0);
    kit_series(&k, 1, "cpu.core.busy", "cpu3", "us", true, 0);
    CHECK_EQ_INT(kit_series(&k, 2, "cpu.count", "", "1", false, 0), 1);
    k.values[0] = k.values[1] = 0;
    kit_rise(&k, 3500000, 5);
    CHECK_EQ_INT(k.count, 0); /* cpu.count has no value: nothing is known */
    k.values[2] = 4;
    kit_rise(&k, 3500000, 5);
    CHECK_EQ_INT(k.count, 0); /* 87.5 % of four */
    kit_rise(&k, 3650000, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "cpu.busy 91.2 % > 90 %");
    kit_close(&k);
    kit_when(&k, "cpu.core.busy > 95%");
    kit_series(&k, 0, "cpu.core.busy", "cpu3", "us", true, 0);
    kit_series(&k, 2, "cpu.count", "", "1", false, 0);
    k.values[0] = 0;
    k.values[2] = 4;
    kit_rise(&k, 960000, 2);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(a_change_in_a_minute)
{
    struct kit k;
    kit_when(&k, "memory.available < -60M/m");
    kit_series(&k, 0, "memory.available", "", "bytes", false, 0);
    k.values[0] = 100000 * MIB;
    kit_rise(&k, -1 * MIB, 200);
    CHECK_EQ_INT(k.count, 0); /* exactly 60 MiB in each minute */
    kit_rise(&k, -2 * MIB, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "memory.available -61 MiB/m < -60 MiB/m");
    kit_close(&k);
}

TEST(a_change_in_an_hour)
{
    struct kit k;
    kit_when(&k, "tcp.listen_overflows >= 36/h");
    kit_series(&k, 0, "tcp.listen_overflows", "", "1", true, 0);
    kit_hold(&k, 0, 3500);
    CHECK_EQ_INT(k.count, 1); /* blind only */
    CHECK_EQ_INT(kit_told(&k, RULE_BLIND), 1);
    kit_hold(&k, 35, 200);
    CHECK_EQ_INT(kit_told(&k, RULE_FIRED), 0);
    kit_hold(&k, 36, 1);
    CHECK_EQ_INT(kit_told(&k, RULE_FIRED), 1);
    kit_hold(&k, 36, 3300);
    CHECK_EQ_INT(kit_told(&k, RULE_QUIET), 0);
    kit_hold(&k, 36, 400);
    CHECK_EQ_INT(kit_told(&k, RULE_QUIET), 1);
    kit_close(&k);
}

TEST(a_ratio_of_two)
{
    struct kit k;
    kit_when(&k, "memory.available / memory.total < 10%");
    kit_series(&k, 0, "memory.available", "", "bytes", false, 0);
    kit_hold(&k, 5, 5);
    CHECK_EQ_INT(k.count, 0); /* the other one is not there */
    kit_series(&k, 1, "memory.total", "", "bytes", false, 0);
    kit_seconds(&k, 5);
    CHECK_EQ_INT(k.count, 0); /* nor has it a value */
    k.values[1] = 0;
    kit_seconds(&k, 5);
    CHECK_EQ_INT(k.count, 0); /* nothing is divided by 0 */
    k.values[1] = 50;
    kit_seconds(&k, 5);
    CHECK_EQ_INT(k.count, 0);
    k.values[1] = 51;
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "memory.available / memory.total 9.8 % < 10 %");
    kit_close(&k);
}

TEST(ratios_pair_what_belongs_together)
{
    struct kit k;
    kit_when(&k, "filesystem.free / filesystem.size < 10%");
    kit_series(&k, 3, "filesystem.size", "/data", "bytes", false, 0);
    kit_series(&k, 0, "filesystem.free", "/", "bytes", false, 0);
    kit_series(&k, 1, "filesystem.free", "/data", "bytes", false, 0);
    kit_series(&k, 2, "filesystem.size", "/", "bytes", false, 0);
    k.values[0] = 5, k.values[2] = 10;   /* 50 % */
    k.values[1] = 50, k.values[3] = 100; /* 50 %; crosswise 5 % */
    kit_seconds(&k, 5);
    CHECK_EQ_INT(k.count, 0);
    k.values[1] = 9;
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "/data filesystem.free / filesystem.size 9 % < 10 %");
    rule_engine_retire(k.engine, 3);
    kit_seconds(&k, 1); /* without its partner it is unknown, and no other is taken */
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
    kit_when(&k, "process.rss / memory.total > 50%");
    kit_series(&k, 0, "process.rss", "redis", "bytes", false, 7);
    kit_series(&k, 1, "memory.total", "", "bytes", false, 0);
    k.values[0] = 51, k.values[1] = 100;
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 1); /* the host's, where there is none of its own */
    kit_close(&k);
}

TEST(a_ratio_of_counts_is_one_of_their_rates)
{
    struct kit k;
    kit_when(&k, "tcp.retransmits / tcp.segments > 5%");
    kit_series(&k, 0, "tcp.retransmits", "", "1", true, 0);
    kit_series(&k, 1, "tcp.segments", "", "1", true, 0);
    k.values[0] = 900, k.values[1] = 1000; /* what was before does not count */
    kit_seconds(&k, 1);
    for (int i = 0; i < 5; i++) {
        k.values[0] += 5;
        k.values[1] += 100;
        kit_seconds(&k, 1);
    }
    CHECK_EQ_INT(k.count, 0);
    k.values[0] += 6;
    k.values[1] += 100;
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(what_it_was_ten_minutes_ago)
{
    struct kit k;
    kit_when(&k, "sessions.open < 0.5x 10m ago");
    kit_series(&k, 0, "sessions.open", "", "1", false, 0);
    kit_hold(&k, 1000, 590);
    CHECK_EQ_INT(kit_told(&k, RULE_FIRED), 0);
    kit_hold(&k, 500, 30);
    CHECK_EQ_INT(kit_told(&k, RULE_FIRED), 0);
    kit_hold(&k, 499, 1);
    REQUIRE(kit_told(&k, RULE_FIRED) == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "sessions.open 499 < 0.5x 10 m ago (1000)");
    kit_close(&k);

    kit_when(&k, "net.receive_bytes > 3x 10m ago");
    kit_series(&k, 0, "net.receive_bytes", "eth0", "bytes", true, 0);
    k.values[0] = 0;
    kit_rise(&k, 1024, 650);
    kit_rise(&k, 3 * 1024, 30);
    CHECK_EQ_INT(kit_told(&k, RULE_FIRED), 0);
    kit_rise(&k, 4 * 1024, 25);
    REQUIRE(kit_told(&k, RULE_FIRED) == 1);
    CHECK(strstr(kit_last(&k)->sentence, "eth0 net.receive_bytes 3.") != NULL);
    CHECK(strstr(kit_last(&k)->sentence, "KiB/s > 3x 10 m ago (1 KiB/s)") != NULL);
    kit_close(&k);
}

TEST(what_was_nothing_is_not_compared)
{
    struct kit k;
    kit_when(&k, "sessions.open > 2x 1m ago");
    kit_series(&k, 0, "sessions.open", "", "1", false, 0);
    kit_hold(&k, 0, 65);
    kit_hold(&k, 5, 58);
    CHECK_EQ_INT(kit_told(&k, RULE_FIRED), 0);
    CHECK_EQ_INT(kit_told(&k, RULE_BLIND), 1);
    CHECK_EQ_STR(k.decided[0].sentence,
                 "sessions.open is unknown: it was 0 1 m ago, which nothing compares with");
    kit_hold(&k, 5, 10);
    kit_hold(&k, 11, 1);
    CHECK_EQ_INT(kit_told(&k, RULE_FIRED), 1);
    kit_close(&k);
}

/* ---- hysteresis ---- */

TEST(until_keeps_a_rule_firing)
{
    struct kit k;
    kit_when(&k, "a.a > 90 until < 70");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 91, 1);
    CHECK_EQ_INT(k.count, 1);
    for (int i = 0; i < 5; i++) {
        kit_hold(&k, 70, 20); /* between both, and at the lower one */
        kit_hold(&k, 95, 3);
    }
    CHECK_EQ_INT(k.count, 1);
    kit_hold(&k, 69, 10);
    CHECK_EQ_INT(k.count, 1);
    kit_hold(&k, 69, 1);
    REQUIRE(k.count == 2);
    CHECK_EQ_INT(kit_last(&k)->verdict, RULE_QUIET);
    CHECK_EQ_STR(kit_last(&k)->sentence, "a.a 69, not > 90");
    kit_hold(&k, 89, 20);
    CHECK_EQ_INT(k.count, 2); /* once quiet, only the limit itself counts */
    kit_hold(&k, 91, 1);
    CHECK_EQ_INT(k.count, 3);
    kit_close(&k);
}

TEST(without_until_it_is_over_after_for_without)
{
    struct kit k;
    kit_when(&k, "a.a > 90 for 30s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 91, 31);
    CHECK_EQ_INT(k.count, 1);
    kit_hold(&k, 50, 30);
    kit_hold(&k, 91, 1);
    kit_hold(&k, 50, 30);
    CHECK_EQ_INT(k.count, 1);
    kit_hold(&k, 50, 1);
    CHECK_EQ_INT(k.count, 2);
    CHECK_EQ_INT(kit_last(&k)->verdict, RULE_QUIET);
    kit_close(&k);
}

/* ---- gaps ---- */

TEST(a_gap_stops_the_clock_of_for)
{
    struct kit k;
    kit_when(&k, "a.a > 10 for 10s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 11, 6);
    kit_hold(&k, RULE_GAP, 9);
    kit_hold(&k, 11, 5);
    CHECK_EQ_INT(k.count, 0); /* 19 s have passed, 10 of them unknown */
    kit_hold(&k, 11, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(a_long_gap_begins_anew)
{
    struct kit k;
    kit_when(&k, "a.a > 10 for 10s");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 11, 10);
    kit_hold(&k, RULE_GAP, 11);
    kit_hold(&k, 11, 10);
    CHECK_EQ_INT(k.count, 0);
    kit_hold(&k, 11, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}

TEST(a_gap_is_neither_true_nor_over)
{
    struct kit k;
    kit_when(&k, "a.a < 10");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, RULE_GAP, 30);
    CHECK_EQ_INT(k.count, 0); /* it is not 0 */
    kit_hold(&k, 5, 1);
    CHECK_EQ_INT(k.count, 1);
    kit_hold(&k, RULE_GAP, 50);
    CHECK_EQ_INT(k.count, 1); /* nor is it over */
    kit_hold(&k, 20, 11);
    CHECK_EQ_INT(k.count, 2);
    kit_close(&k);
    kit_when(&k, "not a.a > 10");
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, RULE_GAP, 30);
    CHECK_EQ_INT(k.count, 0);
    kit_close(&k);
}

static const char *why(void *context, uint32_t slot)
{
    (void)context;
    return slot == 0 ? "cannot read '/proc/12/io': permission denied" : NULL;
}

TEST(a_rule_that_cannot_be_evaluated_says_why)
{
    struct kit k;
    kit_when(&k, "process.read_bytes of redis > 1M/s");
    kit_seconds(&k, 60);
    CHECK_EQ_INT(k.count, 0);
    kit_seconds(&k, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_INT(kit_last(&k)->verdict, RULE_BLIND);
    CHECK_EQ_STR(kit_last(&k)->sentence, "redis process.read_bytes is not there");
    kit_series(&k, 0, "process.read_bytes", "redis", "bytes", true, 9);
    kit_seconds(&k, 100);
    CHECK_EQ_INT(k.count, 1); /* said once */
    k.values[0] = 1;
    kit_seconds(&k, 2);
    REQUIRE(k.count == 2);
    CHECK_EQ_INT(kit_last(&k)->verdict, RULE_SEES);
    for (int i = 0; i < 61; i++) {
        struct rule_moment m = {.mono_us = k.now_us += KIT_SECOND_US, .reason = why};
        REQUIRE(rule_engine_step(k.engine, &m) == 0);
    }
    REQUIRE(k.count == 3);
    CHECK_EQ_STR(kit_last(&k)->sentence, "redis process.read_bytes is unknown: cannot read "
                                         "'/proc/12/io': permission denied");
    kit_close(&k);
}

TEST(a_comparison_that_does_not_fit_says_so)
{
    struct kit k;
    kit_when(&k, "tcp.retransmits > 5");
    kit_series(&k, 0, "tcp.retransmits", "", "1", true, 0);
    kit_hold(&k, 100, 61);
    REQUIRE(k.count == 1);
    CHECK_EQ_INT(kit_last(&k)->verdict, RULE_BLIND);
    CHECK_EQ_STR(kit_last(&k)->sentence, "tcp.retransmits is unknown: only rises: '100/s', '10/m' "
                                         "or '5/h' would be right");
    kit_close(&k);
}

/* ---- several series ---- */

TEST(one_of_several_series_suffices_but_all_the_time)
{
    struct kit k;
    kit_when(&k, "disk.busy_time > 95% for 10s");
    kit_series(&k, 0, "disk.busy_time", "sda", "us", true, 0);
    kit_series(&k, 1, "disk.busy_time", "sdb", "us", true, 0);
    k.values[0] = k.values[1] = 0;
    kit_seconds(&k, 1);
    for (int i = 0; i < 40; i++) { /* in turns: none of them for 10 s */
        k.values[i / 8 % 2] += 1000000;
        kit_seconds(&k, 1);
    }
    CHECK_EQ_INT(k.count, 0);
    for (int i = 0; i < 11; i++) {
        k.values[1] += 1000000;
        kit_seconds(&k, 1);
    }
    REQUIRE(k.count == 1);
    CHECK_EQ_STR(kit_last(&k)->sentence, "sdb disk.busy_time 100 % > 95 % for 10 s");
    CHECK_EQ_STR(kit_last(&k)->process, ""); /* a disk is no process */
    kit_close(&k);
}

TEST(a_new_process_is_a_new_series)
{
    struct kit k;
    kit_when(&k, "process.rss of redis > 10 for 10s");
    kit_series(&k, 0, "process.rss", "redis", "bytes", false, 100);
    kit_hold(&k, 11, 10);
    rule_engine_retire(k.engine, 0);
    kit_series(&k, 0, "process.rss", "redis", "bytes", false, 101);
    kit_hold(&k, 11, 10);
    CHECK_EQ_INT(k.count, 0);
    kit_hold(&k, 11, 1);
    REQUIRE(k.count == 1);
    CHECK_EQ_INT(kit_last(&k)->pid, 101);
    kit_close(&k);
}

TEST(who_has_no_value_does_not_blind_the_others)
{
    struct kit k;
    kit_when(&k, "process.fds > 100");
    kit_series(&k, 0, "process.fds", "a", "1", false, 1);
    kit_series(&k, 1, "process.fds", "b", "1", false, 2);
    k.values[1] = 50;
    kit_seconds(&k, 100);
    CHECK_EQ_INT(k.count, 0);
    k.values[1] = 101;
    kit_seconds(&k, 1);
    CHECK_EQ_INT(k.count, 1);
    k.values[1] = RULE_GAP;
    k.values[0] = 1;
    kit_seconds(&k, 10); /* b may be above still */
    k.values[1] = 101;
    kit_seconds(&k, 10);
    CHECK_EQ_INT(k.count, 1);
    kit_close(&k);
}
