/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replaying rules on stored series: they fire in the second in which the agent's engine would, gaps
 * are gaps, limits hold, and what is not replayed is said to be unknown.
 */
#include "cli/rules_replay.h"

#include <string.h>

#include "common/text.h"
#include "tests/check.h"

#define SECOND INT64_C(1000000)
#define FROM INT64_C(1795442520250000)
#define GAP INT64_MIN

static struct {
    int64_t at_us[64];
    struct rule_decision decision[64];
    char rule[64][RULE_WORD_SIZE];
    size_t count;
} got;

static void on_decided(void *context, int64_t at_us, const struct rule_decision *decision)
{
    (void)context;
    REQUIRE(got.count < 64);
    got.at_us[got.count] = at_us;
    text_copy(got.rule[got.count], RULE_WORD_SIZE, decision->rule->name);
    got.decision[got.count++] = *decision;
}

static void add_run(struct series_set *set, const char *host, const char *name, int64_t from_us,
                    uint32_t scale, int64_t value, size_t count)
{
    trawl_v1_Samples m = {.has_descriptor = true, .from_us = from_us, .step_us = SECOND};
    text_copy(m.host, sizeof m.host, host);
    text_copy(m.descriptor.name, sizeof m.descriptor.name, name);
    text_copy(m.descriptor.unit, sizeof m.descriptor.unit, "bytes");
    m.descriptor.kind = trawl_v1_Kind_GAUGE;
    m.descriptor.scale = scale;
    m.values_count = (pb_size_t)count;
    for (size_t i = 0; i < count; i++)
        m.values[i] = value;
    REQUIRE(series_add(set, &m) == 0);
}

static void run(const struct series_set *set, const struct replay_event *events, size_t count,
                const char *rules)
{
    struct rule_set *parsed = NULL;
    struct failure f;
    struct replay replay = {"a", set, events, count, FROM - 250000, FROM + 400 * SECOND};
    got.count = 0;
    REQUIRE(rule_parse(span_str(rules), NULL, &parsed, &f) == 0);
    REQUIRE(replay_run(&replay, parsed, on_decided, NULL) == 0);
}

static size_t of(enum rule_verdict verdict)
{
    size_t count = 0;
    for (size_t i = 0; i < got.count; i++)
        count += got.decision[i].verdict == verdict;
    return count;
}

#define RULE "rule r on * when memory.used > 1.5K for 3s then capture counters limit 2/h"

TEST(it_fires_in_the_second_in_which_the_condition_has_held)
{
    struct series_set set = {.list = NULL};
    add_run(&set, "a", "memory.used", FROM, 1, 100, 20);
    add_run(&set, "a", "memory.used", FROM + 20 * SECOND, 1, 2000, 10);
    add_run(&set, "a", "memory.used", FROM + 30 * SECOND, 1, 100, 20);
    add_run(&set, "b", "memory.used", FROM, 1, 9000, 50); /* another host */
    run(&set, NULL, 0, RULE);
    REQUIRE(of(RULE_FIRED) == 1 && got.decision[0].verdict == RULE_FIRED);
    CHECK_EQ_INT(got.at_us[0], FROM + 23 * SECOND);
    CHECK_EQ_INT(of(RULE_QUIET), 1);
    run(&set, NULL, 0, "rule r on * when memory.used > 4K for 3s then capture counters limit 2/h");
    CHECK_EQ_INT(of(RULE_FIRED), 0);
    series_done(&set);
}

TEST(limits_hold_and_fractions_are_kept)
{
    struct series_set set = {.list = NULL};
    for (int i = 0; i < 4; i++) {
        add_run(&set, "a", "memory.used", FROM + i * 30 * SECOND, 1000, 1536001, 10);
        add_run(&set, "a", "memory.used", FROM + (i * 30 + 10) * SECOND, 1000, 1536000, 20);
    }
    run(&set, NULL, 0, RULE);
    CHECK_EQ_INT(of(RULE_FIRED), 2);
    CHECK_EQ_INT(of(RULE_SUPPRESSED), 2);
    series_done(&set);
}

TEST(a_gap_is_unknown_and_said)
{
    struct series_set set = {.list = NULL};
    add_run(&set, "a", "memory.used", FROM, 1, 2000, 2);
    add_run(&set, "a", "memory.used", FROM + 2 * SECOND, 1, GAP, 90);
    add_run(&set, "a", "memory.used", FROM + 92 * SECOND, 1, 2000, 2);
    run(&set, NULL, 0, RULE);
    CHECK_EQ_INT(of(RULE_FIRED), 0); /* two seconds and two seconds are not three */
    CHECK(of(RULE_BLIND) >= 1);
    series_done(&set);
}

TEST(exceptions_are_replayed_and_what_is_not_is_blind)
{
    struct series_set set = {.list = NULL};
    struct replay_event events[3];
    for (int i = 0; i < 3; i++)
        events[i] = (struct replay_event){
            FROM + (10 + i) * SECOND, {trawl_v1_ExceptionSource_CRASH, "SIGSEGV", "nginx", 7, 1}};
    run(&set, events, 3,
        "rule r on * when exception crash of nginx 3 times in 5m then capture logs limit 1/h\n"
        "rule p on * when process nginx not running then capture logs limit 1/h\n");
    REQUIRE(of(RULE_FIRED) == 1 && got.count >= 2);
    CHECK_EQ_STR(got.rule[0], "r");
    CHECK(got.at_us[0] >= FROM + 12 * SECOND - 250000 && got.at_us[0] <= FROM + 13 * SECOND);
    CHECK_EQ_INT(of(RULE_BLIND), 1);
}
