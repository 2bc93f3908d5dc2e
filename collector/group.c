/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One more exception of a group: counted, judged, and the first ones given their evidence.
 * Invariant: a count is only ever added to; what is granted is taken from its limit in the same
 * step, so that limits hold whatever is lost afterwards. Called by groups.c.
 */
#include "collector/group.h"

#include <string.h>

#include "common/text.h"
#include "common/xxh64.h"

#define MINUTE_US INT64_C(60000000)
#define HOUR_US (60 * MINUTE_US)

/* ---- quotas and state as rows ---- */

void group_quota_at(struct group_quota *quota, int64_t now_us)
{
    uint64_t hour = (uint64_t)(now_us > 0 ? now_us : 0) / HOUR_US;
    if (quota->hour != hour)
        *quota = (struct group_quota){.hour = hour};
}

int group_quota_put(const struct group_quota *quota, struct buf *out)
{
    int e = buf_append_u64(out, quota->hour);
    if (!e)
        e = buf_append_u32(out, quota->evidence);
    if (!e)
        e = buf_append_u32(out, quota->incidents);
    return e ? e : buf_append_u32(out, quota->groups);
}

int group_quota_get(struct group_quota *quota, struct span in)
{
    struct group_quota q;
    if (span_take_u64(&in, &q.hour) || span_take_u32(&in, &q.evidence) ||
        span_take_u32(&in, &q.incidents) || span_take_u32(&in, &q.groups))
        return ERR_CORRUPT;
    *quota = q;
    return 0;
}

int group_state_put(const struct group_state *s, struct buf *out)
{
    int e = 0;
    const uint32_t numbers[] = {s->samples_left, s->samples_put,  s->evidence_left,
                                s->want_tries,   s->arrival_next, s->gathered_next};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && !e; i++)
        e = buf_append_u32(out, numbers[i]);
    const uint64_t times[] = {(uint64_t)s->incident_us, (uint64_t)s->spread_told_us, s->minute};
    for (size_t i = 0; i < sizeof times / sizeof times[0] && !e; i++)
        e = buf_append_u64(out, times[i]);
    for (size_t i = 0; i < GROUP_MINUTES && !e; i++)
        e = buf_append_u32(out, s->minutes[i]);
    for (size_t i = 0; i < GROUP_ARRIVALS && !e; i++)
        e = buf_append_u64(out, (uint64_t)s->arrivals[i]);
    for (size_t i = 0; i < GROUP_GATHERED && !e; i++) {
        e = buf_append_u64(out, s->gathered[i].content);
        if (!e)
            e = buf_append_u64(out, (uint64_t)s->gathered[i].at_us);
        if (!e)
            e = buf_append_u32(out, s->gathered[i].kinds);
    }
    return e;
}

static int take_time(struct span *in, int64_t *out)
{
    uint64_t value;
    if (span_take_u64(in, &value))
        return ERR_CORRUPT;
    *out = (int64_t)value;
    return 0;
}

int group_state_get(struct group_state *state, struct span in)
{
    struct group_state s = {.minute = 0};
    uint32_t *const numbers[] = {&s.samples_left, &s.samples_put,  &s.evidence_left,
                                 &s.want_tries,   &s.arrival_next, &s.gathered_next};
    int e = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && !e; i++)
        e = span_take_u32(&in, numbers[i]);
    if (!e)
        e = take_time(&in, &s.incident_us);
    if (!e)
        e = take_time(&in, &s.spread_told_us);
    if (!e)
        e = span_take_u64(&in, &s.minute);
    for (size_t i = 0; i < GROUP_MINUTES && !e; i++)
        e = span_take_u32(&in, &s.minutes[i]);
    for (size_t i = 0; i < GROUP_ARRIVALS && !e; i++)
        e = take_time(&in, &s.arrivals[i]);
    for (size_t i = 0; i < GROUP_GATHERED && !e; i++) {
        e = span_take_u64(&in, &s.gathered[i].content);
        if (!e)
            e = take_time(&in, &s.gathered[i].at_us);
        if (!e)
            e = span_take_u32(&in, &s.gathered[i].kinds);
    }
    if (!e)
        *state = s;
    return e;
}

/* ---- counting ---- */

void group_begin(trawl_v1_Group *group, struct group_state *state, const char *id,
                 const struct group_signature *signature, const trawl_v1_Exception *e,
                 const struct group_limits *limits)
{
    memset(group, 0, sizeof *group);
    text_copy(group->id, sizeof group->id, id);
    group->signature.size = GROUP_SIGNATURE_SIZE;
    memcpy(group->signature.bytes, signature->bytes, GROUP_SIGNATURE_SIZE);
    group->state = trawl_v1_GroupState_GROUP_NEW;
    group->source = e->source;
    text_copy(group->type, sizeof group->type, e->type);
    text_copy(group->template, sizeof group->template, e->template);
    text_copy(group->language, sizeof group->language, e->language);
    text_copy(group->process, sizeof group->process, e->process[0] ? e->process : e->unit);
    text_clean(group->process);
    group->frames_count = (pb_size_t)signature->frame_count;
    for (size_t i = 0; i < signature->frame_count; i++)
        group->frames[i] = signature->frames[i];
    group->first_us = group->last_us = e->wall_us;
    *state = (struct group_state){.samples_left = GROUP_SAMPLES_FIRST,
                                  .evidence_left = limits->evidence};
}

static uint64_t add_up(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static trawl_v1_GroupVersion *find_version(trawl_v1_Group *group, const trawl_v1_Exception *e)
{
    for (pb_size_t i = 0; i < group->versions_count; i++) {
        trawl_v1_GroupVersion *v = &group->versions[i];
        if (v->build_id.size == e->build_id.size &&
            !memcmp(v->build_id.bytes, e->build_id.bytes, e->build_id.size))
            return v;
    }
    return NULL;
}

/* When there is no room the one that was seen longest ago goes. */
static trawl_v1_GroupVersion *add_version(trawl_v1_Group *group, const trawl_v1_Exception *e)
{
    const pb_size_t max = sizeof group->versions / sizeof group->versions[0];
    trawl_v1_GroupVersion *v = &group->versions[0];
    if (group->versions_count < max) {
        v = &group->versions[group->versions_count++];
    } else {
        for (pb_size_t i = 1; i < max; i++)
            if (group->versions[i].last_us < v->last_us)
                v = &group->versions[i];
    }
    memset(v, 0, sizeof *v);
    v->build_id.size = e->build_id.size;
    memcpy(v->build_id.bytes, e->build_id.bytes, e->build_id.size);
    v->first_us = e->wall_us;
    return v;
}

static void count_version(trawl_v1_Group *group, const struct group_occurrence *o)
{
    if (!o->exception->build_id.size)
        return;
    trawl_v1_GroupVersion *v = find_version(group, o->exception);
    if (!v)
        v = add_version(group, o->exception);
    v->count = add_up(v->count, o->count);
    if (o->exception->last_us > v->last_us)
        v->last_us = o->exception->last_us;
}

static void count_minute(struct group_state *state, int64_t at_us, uint64_t count)
{
    uint64_t minute = (uint64_t)(at_us > 0 ? at_us : 0) / MINUTE_US;
    if (minute + GROUP_MINUTES <= state->minute)
        return; /* too long ago for the rate */
    for (uint64_t m = state->minute + 1; m <= minute && m <= state->minute + GROUP_MINUTES; m++)
        state->minutes[m % GROUP_MINUTES] = 0;
    if (minute > state->minute) {
        if (minute - state->minute > GROUP_MINUTES)
            memset(state->minutes, 0, sizeof state->minutes);
        state->minute = minute;
    }
    uint32_t *slot = &state->minutes[minute % GROUP_MINUTES];
    *slot = count > UINT32_MAX - *slot ? UINT32_MAX : *slot + (uint32_t)count;
}

uint64_t group_per_hour(const struct group_state *state)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < GROUP_MINUTES; i++)
        sum += state->minutes[i];
    return sum;
}

static bool still_spreads(const struct group_state *state, const struct group_limits *limits,
                          int64_t now_us)
{
    if (!state->spread_told_us)
        return false;
    for (size_t i = 0; i < GROUP_ARRIVALS; i++)
        if (state->arrivals[i] && now_us - state->arrivals[i] < limits->spread_us)
            return true;
    return false;
}

/* True when the group begins to spread with this host. */
static bool count_host(trawl_v1_Group *group, struct group_state *state,
                       const struct group_limits *limits, const struct group_occurrence *o)
{
    uint32_t recent = 0;
    if (!still_spreads(state, limits, o->now_us))
        state->spread_told_us = 0;
    if (o->first_on_host) {
        group->hosts++;
        state->arrivals[state->arrival_next++ % GROUP_ARRIVALS] = o->now_us;
    }
    for (size_t i = 0; i < GROUP_ARRIVALS; i++)
        recent += state->arrivals[i] && o->now_us - state->arrivals[i] < limits->spread_us;
    bool begins = o->first_on_host && !state->spread_told_us && recent >= limits->spread_hosts;
    if (begins)
        state->spread_told_us = o->now_us;
    group->spreading = state->spread_told_us != 0;
    return begins;
}

static bool is_regression(trawl_v1_Group *group, const trawl_v1_Exception *e)
{
    bool new_build = e->build_id.size && group->versions_count && !find_version(group, e);
    if (!group->count || !group->resolved_us)
        return false;
    if (group->state == trawl_v1_GroupState_GROUP_RESOLVED)
        return new_build || e->last_us > group->resolved_us;
    return new_build; /* it had come back; now it does in another build */
}

static void regress(trawl_v1_Group *group, struct group_state *state,
                    const struct group_limits *limits, const trawl_v1_Exception *e)
{
    bool new_build = e->build_id.size && group->versions_count && !find_version(group, e);
    group->state = trawl_v1_GroupState_GROUP_REGRESSED;
    state->samples_left = GROUP_SAMPLES_FIRST;
    state->evidence_left = limits->evidence;
    text_format(group->note, sizeof group->note, "seen again after %s marked it resolved%s",
                group->resolved_by[0] ? group->resolved_by : "somebody",
                new_build ? ", in a build that was not seen before" : "");
    text_clean(group->note);
}

struct group_change group_count(trawl_v1_Group *group, struct group_state *state,
                                const struct group_limits *limits, const struct group_occurrence *o)
{
    const trawl_v1_Exception *e = o->exception;
    struct group_change change = {.is_new = !group->count};
    change.regressed = is_regression(group, e);
    if (change.regressed)
        regress(group, state, limits, e);
    else if (group->state == trawl_v1_GroupState_GROUP_NEW &&
             o->now_us - group->first_us > GROUP_NEW_US)
        group->state = trawl_v1_GroupState_GROUP_KNOWN;
    group->count = add_up(group->count, o->count);
    if (e->wall_us < group->first_us)
        group->first_us = e->wall_us;
    if (e->last_us > group->last_us)
        group->last_us = e->last_us;
    count_version(group, o);
    count_minute(state, e->last_us, o->count);
    change.spreads = count_host(group, state, limits, o);
    return change;
}

void group_view(trawl_v1_Group *group, const struct group_state *state,
                const struct group_limits *limits, int64_t now_us)
{
    group->per_hour = group_per_hour(state);
    group->spreading = still_spreads(state, limits, now_us);
    if (group->state == trawl_v1_GroupState_GROUP_NEW && now_us - group->first_us > GROUP_NEW_US)
        group->state = trawl_v1_GroupState_GROUP_KNOWN;
}
