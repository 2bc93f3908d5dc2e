/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replay of one host. Time of the engine is time of the samples, counted from a second before
 * the window, so that the first step has a time above 0. Called by cmd_rules_test.c.
 */
#include "cli/rules_replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_US INT64_C(1000000)
#define FRACTION 1000  /* values are kept to a thousandth, as a rule's numbers */
#define WHOLE_MAX 9e15 /* whole numbers up to here are exact in a double */

struct slot {
    const struct series *series;
    uint32_t scale;
    bool is_defined;
};

struct replaying {
    const struct replay *replay;
    struct rule_engine *engine;
    struct slot *slots;
    int64_t *values;
    size_t slot_count;
    size_t next_event;
    replay_fn decided;
    void *context;
};

static int64_t time_of(const struct replaying *r, uint64_t mono_us)
{
    return r->replay->from_us + (int64_t)mono_us - SECOND_US;
}

static void on_decided(void *context, const struct rule_decision *decision)
{
    struct replaying *r = context;
    r->decided(r->context, time_of(r, decision->mono_us), decision);
}

static bool is_number(double value)
{
    return !isnan(value) && value < WHOLE_MAX && value > -WHOLE_MAX;
}

/* Whole numbers stay as they are; others, and none so large that it would be cut, by FRACTION. */
static uint32_t scale_of(const struct series *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (is_number(s->values[i]) && s->values[i] != (double)(int64_t)s->values[i])
            return FRACTION;
    return 1;
}

static int64_t end_of(const struct series *s)
{
    return s->from_us + (int64_t)s->count * s->step_us;
}

/* The sample nearest to the moment, at most half a step away. */
static int64_t value_at(const struct slot *slot, int64_t at_us)
{
    const struct series *s = slot->series;
    int64_t after_us = at_us - s->from_us + s->step_us / 2;
    if (after_us < 0 || after_us / s->step_us >= (int64_t)s->count)
        return RULE_GAP;
    double value = s->values[after_us / s->step_us];
    if (!is_number(value))
        return RULE_GAP;
    return (int64_t)(value * slot->scale + (value < 0 ? -0.5 : 0.5));
}

/* Series come and go with their processes, as they did on the host. */
static int define_due(struct replaying *r, size_t i, int64_t at_us)
{
    struct slot *slot = &r->slots[i];
    const struct series *s = slot->series;
    bool is_there = at_us >= s->from_us - s->step_us / 2 && at_us < end_of(s) + s->step_us / 2;
    if (slot->is_defined && !is_there && s->pid)
        rule_engine_retire(r->engine, (uint32_t)i);
    if (slot->is_defined || !is_there) {
        slot->is_defined = slot->is_defined && (is_there || !s->pid);
        return 0;
    }
    struct rule_series series = {.name = s->name,
                                 .instance = s->instance,
                                 .unit = s->unit,
                                 .is_count = s->kind == trawl_v1_Kind_COUNT,
                                 .scale = slot->scale,
                                 .pid = s->pid};
    slot->is_defined = true;
    int e = rule_engine_define(r->engine, (uint32_t)i, &series);
    return e < 0 ? e : 0;
}

static void give_events(struct replaying *r, int64_t until_us, uint64_t mono_us)
{
    const struct replay *replay = r->replay;
    while (r->next_event < replay->event_count) {
        const struct replay_event *event = &replay->events[r->next_event];
        if (event->at_us > until_us)
            return;
        r->next_event++;
        if (event->at_us >= replay->from_us)
            rule_engine_exception(r->engine, &event->event, mono_us);
    }
}

static int step(struct replaying *r, int64_t at_us)
{
    uint64_t mono_us = (uint64_t)(at_us - r->replay->from_us + SECOND_US);
    int e = 0;
    for (size_t i = 0; !e && i < r->slot_count; i++) {
        e = define_due(r, i, at_us);
        r->values[i] = value_at(&r->slots[i], at_us);
    }
    give_events(r, at_us, mono_us);
    struct rule_moment moment = {.mono_us = mono_us, .values = r->values, .count = r->slot_count};
    return e ? e : rule_engine_step(r->engine, &moment);
}

/* Where the host's samples lie within their second. */
static int64_t first_moment(const struct replaying *r)
{
    int64_t from_us = r->replay->from_us;
    if (!r->slot_count)
        return from_us;
    int64_t phase_us = (r->slots[0].series->from_us - from_us) % SECOND_US;
    return from_us + (phase_us < 0 ? phase_us + SECOND_US : phase_us);
}

static void say_unavailable(struct rule_engine *engine)
{
    static const enum rule_term_kind kinds[] = {RULE_NOT_RUNNING, RULE_RESTARTED, RULE_THREADS,
                                                RULE_LOG,         RULE_PROBE,     RULE_LOOP};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        rule_engine_unavailable(engine, kinds[i], "counters and exceptions alone are replayed");
}

static int gather(struct replaying *r)
{
    const struct series_set *set = r->replay->series;
    r->slots = calloc(set->count + 1, sizeof *r->slots);
    r->values = calloc(set->count + 1, sizeof *r->values);
    if (!r->slots || !r->values)
        return ERR_NOMEM;
    for (size_t i = 0; i < set->count; i++) {
        const struct series *s = &set->list[i];
        if (strcmp(s->host, r->replay->host) == 0 && s->count)
            r->slots[r->slot_count++] = (struct slot){.series = s, .scale = scale_of(s)};
    }
    return r->slot_count > RULE_SLOTS_MAX ? ERR_LIMIT : 0;
}

int replay_run(const struct replay *replay, struct rule_set *set, replay_fn decided, void *context)
{
    struct replaying r = {.replay = replay, .decided = decided, .context = context};
    int e = rule_engine_open(&r.engine, set, on_decided, &r);
    if (e)
        return e;
    say_unavailable(r.engine);
    e = gather(&r);
    int64_t at_us = e ? 0 : first_moment(&r);
    for (; !e && at_us <= replay->to_us; at_us += SECOND_US)
        e = step(&r, at_us);
    rule_engine_close(r.engine);
    free(r.slots);
    free(r.values);
    return e;
}
