/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rules cost: 100 rules of several forms on 1,000 counters, nanoseconds for each rule and
 * second, beside a plain loop that compares as many values with as many limits in the same run.
 *
 *     bench_rule [SECONDS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/text.h"
#include "rule/engine.h"

#define RULES 100
#define COUNTERS 1000
#define SECONDS 20000

static uint64_t fired;

static void decided(void *context, const struct rule_decision *d)
{
    (void)context;
    fired += d->verdict == RULE_FIRED;
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Thresholds, rates, ratios, changes over a minute, and two of them together. */
static struct rule_set *make_rules(void)
{
    static const char *const forms[] = {
        "c.n%d > 1000000 until < 5 for 30s",      "c.n%d > 1000000/s for 10s",
        "c.n%d / c.n5 > 1000000%% for 30s",       "c.n%d > 1000000/m",
        "c.n%d > 1000000 and not c.n7 > 2000000",
    };
    static char text[RULE_TEXT_MAX];
    char condition[128];
    size_t at = 0;
    struct rule_set *set = NULL;
    struct failure f = {0};
    for (int i = 0; i < RULES; i++) {
        const char *form = forms[i % 5], *number = strstr(form, "%d");
        (void)text_format(condition, sizeof condition, "%.*s%d%s", (int)(number - form), form,
                          i * 9, number + 2);
        char *twice = strstr(condition, "%%");
        if (twice)
            memmove(twice, twice + 1, strlen(twice));
        at +=
            (size_t)snprintf(text + at, sizeof text - at,
                             "rule r%d on * when %s then capture stacks limit 2/h\n", i, condition);
    }
    if (rule_parse(span_of(text, at), NULL, &set, &f)) {
        fprintf(stderr, "%s\n", f.text);
        exit(1);
    }
    return set;
}

static void define_all(struct rule_engine *e)
{
    char name[32];
    for (uint32_t i = 0; i < COUNTERS; i++) {
        (void)text_format(name, sizeof name, "c.n%u", (unsigned)i);
        struct rule_series s = {name, "", "1", false, 1, 0};
        if (rule_engine_define(e, i, &s) < 0)
            exit(1);
    }
}

static double run_engine(struct rule_engine *e, int64_t *values, uint64_t seconds)
{
    double before = now_ns();
    for (uint64_t s = 1; s <= seconds; s++) {
        for (size_t i = 0; i < COUNTERS; i += 10)
            values[i] += (int64_t)(s & 1);
        struct rule_moment m = {.mono_us = s * 1000000, .values = values, .count = COUNTERS};
        if (rule_engine_step(e, &m))
            exit(1);
    }
    return now_ns() - before;
}

static double run_plain(int64_t *values, uint64_t seconds)
{
    static double limits[RULES];
    uint64_t above = 0;
    for (size_t i = 0; i < RULES; i++)
        limits[i] = 1e6 + (double)i;
    double before = now_ns();
    for (uint64_t s = 1; s <= seconds; s++) {
        for (size_t i = 0; i < COUNTERS; i += 10)
            values[i] += (int64_t)(s & 1);
        for (size_t i = 0; i < RULES; i++) {
            volatile double value = (double)values[i * 9];
            above += value > limits[i];
        }
    }
    double taken = now_ns() - before;
    if (above)
        printf("(%llu above)\n", (unsigned long long)above);
    return taken;
}

int main(int argc, char **argv)
{
    static int64_t values[COUNTERS];
    uint64_t seconds = SECONDS;
    struct rule_engine *e;
    if (argc > 1 && text_u64_in(argv[1], 1, 10000000, &seconds))
        return 2;
    if (rule_engine_open(&e, make_rules(), decided, NULL))
        return 1;
    double began = now_ns();
    define_all(e);
    double defined = now_ns() - began;
    for (size_t i = 0; i < COUNTERS; i++)
        values[i] = 1;
    double ours = run_engine(e, values, seconds) / (double)seconds;
    double plain = run_plain(values, seconds) / (double)seconds;
    printf("%d rules, %d counters: %.2f us a second of samples, %.1f ns a rule and second; plain "
           "comparisons %.2f us, ratio %.1f; defining a series %.0f ns; %llu fired\n",
           RULES, COUNTERS, ours / 1000, ours / RULES, plain / 1000, ours / plain,
           defined / COUNTERS, (unsigned long long)fired);
    rule_engine_close(e);
    return 0;
}
