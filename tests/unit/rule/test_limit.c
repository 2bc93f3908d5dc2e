/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits: how often a rule fires at most, over restarts, other rules and damaged records.
 */
#include <stdlib.h>

#include "tests/unit/rule/rule_kit.h"

#define HOUR_US (UINT64_C(3600) * KIT_SECOND_US)

static const char *const rules = "rule a on * when a.a > 10 then capture logs limit 2/h\n"
                                 "rule b on * when a.a > 10 then capture logs limit 3/d\n";

/* Up for a second, down until it is over. */
static void once(struct kit *k)
{
    kit_hold(k, 11, 1);
    kit_hold(k, 5, 11);
}

static size_t fired(const struct kit *k, const char *name, enum rule_verdict verdict)
{
    size_t count = 0;
    for (size_t i = 0; i < k->count && i < KIT_DECISIONS; i++)
        count += k->decided[i].verdict == verdict && strcmp(k->decided[i].rule->name, name) == 0;
    return count;
}

static void forget(struct kit *k)
{
    k->count = 0;
}

static void open_with_series(struct kit *k, const char *text)
{
    kit_open(k, text);
    kit_series(k, 0, "a.a", "", "1", false, 0);
}

TEST(no_more_than_its_limit)
{
    struct kit k;
    struct rule_status status;
    open_with_series(&k, rules);
    uint64_t began_us = k.now_us;
    for (int i = 0; i < 5; i++)
        once(&k);
    CHECK_EQ_INT(fired(&k, "a", RULE_FIRED), 2);
    CHECK_EQ_INT(fired(&k, "a", RULE_SUPPRESSED), 3);
    CHECK_EQ_INT(fired(&k, "a", RULE_QUIET), 5);
    CHECK_EQ_INT(fired(&k, "b", RULE_FIRED), 3);
    rule_engine_status(k.engine, 0, &status);
    CHECK(status.fired == 2 && status.total == 2 && status.suppressed == 3 && !status.is_firing);
    forget(&k);
    /* The first fired in the first second of the hour: it counts for a whole one. */
    uint64_t left_us = began_us + KIT_SECOND_US + HOUR_US - k.now_us;
    REQUIRE(kit_step_after(&k, left_us - 2 * KIT_SECOND_US) == 0);
    kit_hold(&k, 11, 1);
    CHECK_EQ_INT(fired(&k, "a", RULE_SUPPRESSED), 1);
    kit_hold(&k, 5, 11);
    once(&k);
    CHECK_EQ_INT(fired(&k, "a", RULE_FIRED), 1);
    CHECK_EQ_INT(fired(&k, "b", RULE_FIRED), 0); /* of its day there is much left */
    kit_close(&k);
}

/* Stops the engine, and starts another with other times on its clock. */
static void restart(struct kit *k, const char *text, uint64_t elapsed_us)
{
    struct buf record;
    struct failure f = {0};
    buf_init(&record, RULE_RECORD_MAX);
    REQUIRE(rule_engine_record(k->engine, k->now_us, &record) == 0);
    kit_close(k);
    open_with_series(k, text);
    k->now_us = 7 * KIT_SECOND_US; /* just booted: less than any age */
    REQUIRE(rule_engine_restore(k->engine, buf_span(&record), k->now_us, elapsed_us, &f) == 0);
    buf_done(&record);
}

TEST(limits_outlive_the_engine)
{
    struct kit k;
    open_with_series(&k, rules);
    once(&k);
    restart(&k, rules, 0);
    for (int i = 0; i < 3; i++)
        once(&k);
    CHECK_EQ_INT(fired(&k, "a", RULE_FIRED), 1);
    CHECK_EQ_INT(fired(&k, "b", RULE_FIRED), 2);
    restart(&k, rules, 0);
    for (int i = 0; i < 3; i++)
        once(&k);
    CHECK_EQ_INT(fired(&k, "a", RULE_FIRED), 0);
    CHECK_EQ_INT(fired(&k, "b", RULE_FIRED), 0);
    restart(&k, rules, HOUR_US); /* an hour was certainly between */
    for (int i = 0; i < 3; i++)
        once(&k);
    CHECK_EQ_INT(fired(&k, "a", RULE_FIRED), 2);
    CHECK_EQ_INT(fired(&k, "b", RULE_FIRED), 0);
    kit_close(&k);
}

TEST(a_rule_that_fired_goes_on_firing)
{
    struct kit k;
    open_with_series(&k, rules);
    kit_hold(&k, 11, 1);
    restart(&k, rules, 0);
    kit_hold(&k, 11, 20);
    CHECK_EQ_INT(k.count, 0); /* it has fired for this already */
    kit_hold(&k, 5, 11);
    CHECK_EQ_INT(fired(&k, "a", RULE_QUIET), 1);
    kit_hold(&k, 11, 1);
    restart(&k, "rule a on * when a.a > 10.5 then capture logs limit 5/h", 0);
    kit_hold(&k, 11, 1);
    CHECK_EQ_INT(fired(&k, "a", RULE_FIRED), 1); /* another condition, other news */
    kit_close(&k);
}

TEST(a_changed_rule_keeps_its_count)
{
    struct kit k;
    open_with_series(&k, rules);
    once(&k);
    once(&k);
    forget(&k);
    REQUIRE(rule_engine_replace(
                k.engine, kit_set("rule a on * when a.a > 9 then capture logs limit 2/h\n"
                                  "rule new on * when a.a > 9 then capture logs limit 2/h\n")) ==
            0);
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    once(&k);
    CHECK_EQ_INT(fired(&k, "a", RULE_SUPPRESSED), 1);
    CHECK_EQ_INT(fired(&k, "new", RULE_FIRED), 1);
    /* Taken out and put in again is no way around either. */
    REQUIRE(rule_engine_replace(k.engine, kit_set("")) == 0);
    kit_seconds(&k, 5);
    restart(&k, rules, 0);
    forget(&k);
    once(&k);
    CHECK_EQ_INT(fired(&k, "a", RULE_SUPPRESSED), 1);
    CHECK_EQ_INT(fired(&k, "b", RULE_FIRED), 1);
    once(&k);
    CHECK_EQ_INT(fired(&k, "b", RULE_SUPPRESSED), 1); /* twice before, once now */
    kit_close(&k);
}

TEST(an_unchanged_rule_stays_as_it_is)
{
    struct kit k;
    open_with_series(&k, rules);
    kit_hold(&k, 11, 1);
    forget(&k);
    REQUIRE(rule_engine_replace(k.engine, kit_set(rules)) == 0);
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    kit_hold(&k, 11, 5);
    CHECK_EQ_INT(k.count, 0);
    kit_hold(&k, 5, 11);
    CHECK_EQ_INT(fired(&k, "a", RULE_QUIET), 1);
    kit_close(&k);
}

TEST(the_revision_says_when_to_keep_the_record)
{
    struct kit k;
    open_with_series(&k, rules);
    uint64_t at = rule_engine_revision(k.engine);
    kit_hold(&k, 5, 5);
    CHECK(rule_engine_revision(k.engine) == at);
    kit_hold(&k, 11, 1);
    CHECK(rule_engine_revision(k.engine) > at);
    at = rule_engine_revision(k.engine);
    kit_hold(&k, 11, 5);
    CHECK(rule_engine_revision(k.engine) == at);
    kit_hold(&k, 5, 11);
    CHECK(rule_engine_revision(k.engine) > at);
    kit_close(&k);
}

/* Each bit, each length: refused, and then nothing fires for as long as a limit reaches. */
TEST_LIMIT(a_damaged_record_never_makes_a_burst, 60)
{
    struct kit k;
    struct buf record;
    struct failure f = {0};
    buf_init(&record, RULE_RECORD_MAX);
    open_with_series(&k, rules);
    once(&k);
    REQUIRE(rule_engine_record(k.engine, k.now_us, &record) == 0);
    kit_close(&k);
    size_t size = record.size_bytes;
    CHECK(size > 40 && size < 100);
    uint8_t *copy = malloc(size);
    REQUIRE(copy != NULL);
    for (size_t bit = 0; bit < 9 * size; bit++) {
        size_t length = bit < 8 * size ? size : bit - 8 * size;
        memcpy(copy, record.data, size);
        if (bit < 8 * size)
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        open_with_series(&k, rules);
        int e = rule_engine_restore(k.engine, span_of(copy, length), k.now_us, 0, &f);
        CHECK(e == ERR_CORRUPT || e == ERR_VERSION);
        kit_hold(&k, 11, 1);
        CHECK(fired(&k, "a", RULE_FIRED) == 0 && fired(&k, "b", RULE_FIRED) == 0);
        kit_close(&k);
    }
    /* The control: undamaged, both fire. */
    open_with_series(&k, rules);
    CHECK_EQ_INT(rule_engine_restore(k.engine, buf_span(&record), k.now_us, 0, &f), 0);
    kit_hold(&k, 11, 1);
    CHECK(fired(&k, "a", RULE_FIRED) == 1 && fired(&k, "b", RULE_FIRED) == 1);
    kit_close(&k);
    /* And after a refusal, an hour later. */
    open_with_series(&k, rules);
    CHECK_EQ_INT(rule_engine_restore(k.engine, span_of("", 0), k.now_us, 0, &f), ERR_CORRUPT);
    kit_hold(&k, 5, 1);
    REQUIRE(kit_step_after(&k, HOUR_US) == 0);
    kit_hold(&k, 11, 1);
    CHECK(fired(&k, "a", RULE_FIRED) == 1 && fired(&k, "b", RULE_FIRED) == 0);
    kit_close(&k);
    free(copy);
    buf_done(&record);
}

/* All rules there can be, each as often as it may: the record still fits, and comes back the same.
 */
TEST(the_largest_record)
{
    static char text[RULE_TEXT_MAX];
    size_t at = 0;
    struct buf one, two;
    struct failure f = {0};
    for (int i = 0; i < RULES_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at,
                               "rule a-rule-with-a-long-name-%034d on * when a.a > 10 then capture "
                               "logs limit 20/h\n",
                               i);
    struct kit k;
    open_with_series(&k, text);
    for (int i = 0; i < RULE_LIMIT_MAX; i++)
        once(&k);
    buf_init(&one, RULE_RECORD_MAX);
    buf_init(&two, RULE_RECORD_MAX);
    REQUIRE(rule_engine_record(k.engine, k.now_us, &one) == 0);
    kit_close(&k);
    open_with_series(&k, text);
    REQUIRE(rule_engine_restore(k.engine, buf_span(&one), k.now_us, 0, &f) == 0);
    REQUIRE(rule_engine_record(k.engine, k.now_us, &two) == 0);
    CHECK(span_equal(buf_span(&one), buf_span(&two)));
    kit_close(&k);
    buf_done(&one);
    buf_done(&two);
}

/* Hundreds of other rules, one set after the other: memory is bounded, and nothing is mixed up. */
TEST(names_come_and_go)
{
    static char text[RULE_TEXT_MAX];
    struct kit k;
    open_with_series(&k, "");
    for (int round = 0; round < 6; round++) {
        size_t at = 0;
        for (int i = 0; i < RULES_MAX; i++)
            at += (size_t)snprintf(text + at, sizeof text - at,
                                   "rule r%d-%d on * when a.a > 10 then capture logs limit 1/d\n",
                                   round, i);
        REQUIRE(rule_engine_replace(k.engine, kit_set(text)) == 0);
        kit_series(&k, 0, "a.a", "", "1", false, 0);
        forget(&k);
        once(&k);
        CHECK_EQ_INT(k.count, 2 * RULES_MAX); /* fired, then quiet */
        forget(&k);
        once(&k);
        CHECK_EQ_INT(k.count, 2 * RULES_MAX);
        CHECK_EQ_INT(k.decided[0].verdict, RULE_SUPPRESSED);
    }
    kit_close(&k);
}

/* An hour to the microsecond. */
TEST(the_edge_of_an_hour)
{
    for (uint64_t early_us = 0; early_us <= 1; early_us++) {
        struct kit k;
        open_with_series(&k, "rule a on * when a.a > 10 then capture logs limit 1/h");
        once(&k);
        k.values[0] = 11;
        REQUIRE(kit_step_after(&k, HOUR_US - 11 * KIT_SECOND_US - early_us) == 0);
        CHECK_EQ_INT(fired(&k, "a", RULE_FIRED), early_us ? 1 : 2);
        CHECK_EQ_INT(fired(&k, "a", RULE_SUPPRESSED), early_us);
        kit_close(&k);
    }
}

TEST(out_and_in_again_within_one_life)
{
    struct kit k;
    open_with_series(&k, rules);
    kit_hold(&k, 11, 1);
    REQUIRE(rule_engine_replace(k.engine, kit_set("")) == 0);
    REQUIRE(rule_engine_replace(k.engine, kit_set(rules)) == 0);
    kit_series(&k, 0, "a.a", "", "1", false, 0);
    forget(&k);
    kit_hold(&k, 11, 1); /* it is another one now, with the count of the first */
    CHECK_EQ_INT(fired(&k, "a", RULE_FIRED), 1);
    kit_hold(&k, 5, 11);
    once(&k);
    CHECK_EQ_INT(fired(&k, "a", RULE_SUPPRESSED), 1);
    kit_close(&k);
}

/* What fired more than a day ago counts against nothing, but it has fired. */
TEST(a_rule_that_fires_for_days)
{
    struct kit k;
    open_with_series(&k, rules);
    kit_hold(&k, 11, 1);
    REQUIRE(kit_step_after(&k, 25 * HOUR_US) == 0);
    restart(&k, rules, 0);
    kit_hold(&k, 11, 5);
    CHECK_EQ_INT(k.count, 0);
    kit_close(&k);
}
