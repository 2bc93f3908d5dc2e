/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small world for the engine: a set of rules, a few series by slot, seconds that pass, and what
 * was decided. Times begin at KIT_BEGIN_US. Used by tests/unit/rule and the benchmark of rules.
 */
#ifndef TESTS_RULE_KIT_H
#define TESTS_RULE_KIT_H

#include <stdio.h>
#include <string.h>

#include "rule/engine.h"
#include "tests/check.h"

#define KIT_BEGIN_US UINT64_C(5000000000)
#define KIT_SECOND_US UINT64_C(1000000)
#define KIT_SLOTS 64
#define KIT_DECISIONS 64

struct kit {
    struct rule_engine *engine;
    uint64_t now_us;
    int64_t values[KIT_SLOTS];
    struct rule_decision decided[KIT_DECISIONS];
    size_t count; /* of decisions, all */
};

static inline void kit_decided(void *context, const struct rule_decision *d)
{
    struct kit *k = context;
    if (k->count < KIT_DECISIONS)
        k->decided[k->count] = *d;
    k->count++;
}

static inline struct rule_set *kit_set(const char *text)
{
    struct rule_set *set = NULL;
    struct failure f = {0};
    if (rule_parse(span_str(text), NULL, &set, &f)) {
        printf("  %s\n", f.text);
        check_abort();
    }
    return set;
}

static inline void kit_open(struct kit *k, const char *text)
{
    memset(k, 0, sizeof *k);
    k->now_us = KIT_BEGIN_US;
    for (size_t i = 0; i < KIT_SLOTS; i++)
        k->values[i] = RULE_GAP;
    REQUIRE(rule_engine_open(&k->engine, kit_set(text), kit_decided, k) == 0);
}

/* A rule "x" with this condition (and `for`), 20 captures an hour. */
static inline void kit_when(struct kit *k, const char *condition)
{
    char text[1024];
    (void)snprintf(text, sizeof text, "rule x on * when %s then capture counters limit 20/h",
                   condition);
    kit_open(k, text);
}

static inline void kit_close(struct kit *k)
{
    rule_engine_close(k->engine);
}

static inline int kit_series(struct kit *k, uint32_t slot, const char *name, const char *instance,
                             const char *unit, bool is_count, uint32_t pid)
{
    struct rule_series s = {name, instance, unit, is_count, 1, pid};
    return rule_engine_define(k->engine, slot, &s);
}

/* Time passes, then a step. */
static inline int kit_step_after(struct kit *k, uint64_t us)
{
    k->now_us += us;
    struct rule_moment m = {.mono_us = k->now_us, .values = k->values, .count = KIT_SLOTS};
    return rule_engine_step(k->engine, &m);
}

static inline void kit_seconds(struct kit *k, size_t seconds)
{
    for (size_t i = 0; i < seconds; i++)
        REQUIRE(kit_step_after(k, KIT_SECOND_US) == 0);
}

/* The same value of slot 0 for some seconds. */
static inline void kit_hold(struct kit *k, int64_t value, size_t seconds)
{
    k->values[0] = value;
    kit_seconds(k, seconds);
}

/* Slot 0 rises by so much each second. */
static inline void kit_rise(struct kit *k, int64_t by, size_t seconds)
{
    for (size_t i = 0; i < seconds; i++) {
        k->values[0] += by;
        kit_seconds(k, 1);
    }
}

static inline size_t kit_told(const struct kit *k, enum rule_verdict verdict)
{
    size_t count = 0;
    for (size_t i = 0; i < k->count && i < KIT_DECISIONS; i++)
        count += k->decided[i].verdict == verdict;
    return count;
}

static inline const struct rule_decision *kit_last(const struct kit *k)
{
    REQUIRE(k->count > 0 && k->count <= KIT_DECISIONS);
    return &k->decided[k->count - 1];
}

#endif
