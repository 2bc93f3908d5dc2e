/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sampler for tests of the reader of counters: remembers the last sample and complains when a
 * slot gets other than exactly one value or gap. Included by tests/unit/os/test_counters*.c.
 */
#ifndef TESTS_UNIT_OS_SAMPLER_H
#define TESTS_UNIT_OS_SAMPLER_H

#include "agent/os/counters.h"
#include "common/port.h"
#include "common/text.h"
#include "tests/unit/os/tree.h"

#define SERIES_MAX 4096
#define SECOND UINT64_C(1000000)
#define START (3600 * SECOND)

struct row {
    char name[64], instance[64], unit[16], reason[256];
    enum os_counter_kind kind;
    uint32_t scale, pid;
    int64_t value;
    bool has_value, has_gap, retired;
};

/* A sampler that remembers the last sample, and complains of misuse. */
struct sampler {
    struct row rows[SERIES_MAX];
    int count, limit;
    char events[1024];
};

static struct sampler sampler;
static struct os_counters *counters;
static uint64_t now_us;

static int define(void *context, const struct os_counter *c)
{
    struct sampler *s = context;
    if (s->count == (s->limit ? s->limit : SERIES_MAX))
        return ERR_LIMIT;
    struct row *row = &s->rows[s->count];
    *row = (struct row){.kind = c->kind, .scale = c->scale, .pid = c->pid};
    (void)text_copy(row->name, sizeof row->name, c->name);
    (void)text_copy(row->instance, sizeof row->instance, c->instance);
    (void)text_copy(row->unit, sizeof row->unit, c->unit);
    CHECK(c->scale >= 1);
    return s->count++;
}

static struct row *at(void *context, int slot)
{
    struct sampler *s = context;
    REQUIRE(slot >= 0 && slot < s->count);
    REQUIRE(!s->rows[slot].retired);
    return &s->rows[slot];
}

static void value(void *context, int slot, int64_t v)
{
    struct row *row = at(context, slot);
    REQUIRE(!row->has_value && !row->has_gap); /* once in a sample */
    row->value = v;
    row->has_value = true;
}

static void gap(void *context, int slot, const char *reason)
{
    struct row *row = at(context, slot);
    REQUIRE(!row->has_value && !row->has_gap);
    REQUIRE(reason && reason[0]);
    (void)text_copy(row->reason, sizeof row->reason, reason);
    row->has_gap = true;
}

static void retire(void *context, int slot)
{
    at(context, slot)->retired = true;
}

static void changed(void *context, const struct os_process_change *change)
{
    struct sampler *s = context;
    size_t length = strlen(s->events);
    (void)text_format(s->events + length, sizeof s->events - length, "%c%u %s;",
                      change->started ? '+' : '-', change->pid, change->name);
}

__attribute__((unused)) static void open_counters(const char *root, const char *const *names,
                                                  uint32_t busiest)
{
    struct os_counter_settings settings = {.root = root, .processes = names, .busiest = busiest};
    struct os_counter_sink sink = {define, value, gap, retire, &sampler};
    struct failure f;
    REQUIRE(os_counters_open(&counters, &settings, &sink, &f) == 0);
    os_counters_on_process(counters, changed, &sampler);
    now_us = START;
}

__attribute__((unused)) static void sample(void)
{
    for (int i = 0; i < sampler.count; i++)
        sampler.rows[i].has_value = sampler.rows[i].has_gap = false;
    sampler.events[0] = '\0';
    now_us += SECOND;
    os_counters_sample(counters, now_us);
    for (int i = 0; i < sampler.count; i++) /* each exactly one */
        REQUIRE(sampler.rows[i].has_value + sampler.rows[i].has_gap + sampler.rows[i].retired == 1);
}

__attribute__((unused)) static struct row *find_of(const char *name, const char *instance,
                                                   uint32_t pid)
{
    for (int i = sampler.count - 1; i >= 0; i--) {
        struct row *row = &sampler.rows[i];
        if (!row->retired && row->pid == pid && strcmp(row->name, name) == 0 &&
            strcmp(row->instance, instance) == 0)
            return row;
    }
    return NULL;
}

__attribute__((unused)) static struct row *find(const char *name, const char *instance)
{
    return find_of(name, instance, 0);
}

__attribute__((unused)) static int64_t number(const char *name, const char *instance)
{
    struct row *row = find(name, instance);
    return row && row->has_value ? row->value : -1;
}

__attribute__((unused)) static const char *reason(const char *name, const char *instance)
{
    struct row *row = find(name, instance);
    return row && row->has_gap ? row->reason : "";
}

__attribute__((unused)) static bool is_followed(const char *name, uint32_t pid)
{
    return find_of("process.threads", name, pid) != NULL;
}

#endif
