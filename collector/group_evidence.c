/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which evidence one more exception of a group is worth. Invariant: nothing is granted above a
 * limit; the same words of the same host do not gather the same kinds twice within the window, but
 * for a new group, a regression and what somebody wants. Called through group_decide() by groups.c.
 */
#include "collector/group.h"

#include <string.h>

#include "common/text.h"
#include "common/xxh64.h"

/* ---- kinds ---- */

/* Bits of masks in stored rows: names are only ever added, at the end. */
static const char *const BITS[] = {"triage",   "stacks", "stacks0", "profile", "mini",  "core",
                                   "counters", "events", "logs",    "net",     "crash", NULL};

static void add_kind(struct group_kinds *kinds, const char *kind)
{
    for (size_t i = 0; i < kinds->count; i++)
        if (!strcmp(kinds->list[i], kind))
            return;
    if (kinds->count < GROUP_KINDS)
        kinds->list[kinds->count++] = kind;
}

static bool is_saved(const trawl_v1_Exception *e, const char *kind)
{
    for (pb_size_t i = 0; i < e->saved_count; i++)
        if (!strcmp(e->saved[i], kind))
            return true;
    return false;
}

bool group_process_lives(const trawl_v1_Exception *e)
{
    switch (e->source) {
    case trawl_v1_ExceptionSource_LOG_TRACE:
    case trawl_v1_ExceptionSource_CPP_THROW:
    case trawl_v1_ExceptionSource_HANG:
    case trawl_v1_ExceptionSource_REPORTED:
        return e->pid != 0 || e->unit[0];
    default:
        return false;
    }
}

void group_kinds_first(const trawl_v1_Exception *e, struct group_kinds *out)
{
    out->count = 0;
    if (is_saved(e, "crash"))
        add_kind(out, "crash");
    if (group_process_lives(e)) {
        add_kind(out, "triage");
        add_kind(out, "stacks");
        add_kind(out, "logs");
    }
    if (out->count)
        return;
    add_kind(out, "events");
    if (e->unit[0])
        add_kind(out, "logs");
}

void group_kinds_around(const trawl_v1_Exception *e, struct group_kinds *out)
{
    out->count = 0;
    add_kind(out, "counters");
    add_kind(out, "events");
    if (e->unit[0] || group_process_lives(e))
        add_kind(out, "logs");
}

static const char *known_kind(const char *name)
{
    for (const char *const *kind = BITS; *kind; kind++)
        if (!strcmp(*kind, name))
            return *kind;
    return NULL;
}

static bool is_host_kind(const char *kind)
{
    return !strcmp(kind, "counters") || !strcmp(kind, "events");
}

void group_kinds_wanted(const trawl_v1_Group *group, const trawl_v1_Exception *e,
                        struct group_kinds *out)
{
    bool lives = group_process_lives(e);
    out->count = 0;
    for (pb_size_t i = 0; i < group->want_count; i++) {
        const char *kind = known_kind(group->want[i]);
        if (!kind)
            continue;
        bool memory = !strcmp(kind, "core") || !strcmp(kind, "crash");
        if (lives ? strcmp(kind, "crash") != 0
                  : is_saved(e, kind) || is_host_kind(kind) ||
                        (!strcmp(kind, "logs") && e->unit[0])) {
            add_kind(out, kind);
        } else if (memory && !lives) { /* this one cannot: the next one may */
            out->count = 0;
            return;
        }
    }
}

uint32_t group_kinds_mask(const struct group_kinds *kinds)
{
    uint32_t mask = 0;
    for (size_t i = 0; i < kinds->count; i++)
        for (uint32_t k = 0; k < 32 && BITS[k]; k++)
            if (!strcmp(BITS[k], kinds->list[i]))
                mask |= 1u << k;
    return mask;
}

void group_kinds_of(uint32_t mask, struct group_kinds *out)
{
    out->count = 0;
    for (uint32_t k = 0; k < 32 && BITS[k]; k++)
        if (mask & 1u << k)
            add_kind(out, BITS[k]);
}

/* ---- content ---- */

static uint64_t add_text(uint64_t hash, const char *text)
{
    return xxh64(span_of(text, strlen(text) + 1), hash);
}

static uint64_t group_content(const trawl_v1_Exception *e)
{
    uint64_t h = add_text(0, e->host);
    h = add_text(h, e->type);
    h = add_text(h, e->template);
    h = add_text(h, e->process);
    h = add_text(h, e->unit);
    h = xxh64(span_of(e->build_id.bytes, e->build_id.size), h);
    for (pb_size_t i = 0; i < e->frames_count; i++) {
        const trawl_v1_Frame *frame = &e->frames[i];
        const uint64_t numbers[] = {frame->offset, frame->line};
        h = add_text(h, frame->module);
        h = add_text(h, frame->function);
        h = add_text(h, frame->file);
        h = xxh64(span_of(frame->build_id.bytes, frame->build_id.size), h);
        h = xxh64(span_of(numbers, sizeof numbers), h);
    }
    return h;
}

static bool gathered_before(const struct group_state *state, uint64_t content, uint32_t kinds,
                            int64_t now_us, int64_t window_us)
{
    for (size_t i = 0; i < GROUP_GATHERED; i++) {
        const struct group_gathered *g = &state->gathered[i];
        if (g->at_us && g->content == content && !(kinds & ~g->kinds) &&
            now_us - g->at_us < window_us)
            return true;
    }
    return false;
}

/* ---- the decision ---- */

/* Limits in the way, in words; 0 when none is. */
static int check_limits(trawl_v1_Group *group, const struct group_limits *limits,
                        const struct group_quota *host, const struct group_quota *fleet,
                        const struct group_decision *d)
{
    struct failure f = {0};
    if (host->evidence >= limits->evidence_host_hour)
        fail(&f, ERR_LIMIT,
             "only counted: the host gave evidence %u times in this hour (evidence-host-hour)",
             limits->evidence_host_hour);
    else if (fleet->evidence >= limits->evidence_fleet_hour)
        fail(&f, ERR_LIMIT,
             "only counted: the fleet gave evidence %u times in this hour (evidence-fleet-hour)",
             limits->evidence_fleet_hour);
    else if (d->opens && fleet->incidents >= limits->incidents_hour)
        fail(&f, ERR_LIMIT,
             "only counted: %u incidents were opened by themselves in this hour (incidents-hour)",
             limits->incidents_hour);
    if (f.code)
        text_copy(group->note, sizeof group->note, f.text);
    return f.code;
}

static const char *reason_for(const struct group_state *state, const struct group_occurrence *o,
                              const struct group_change *change)
{
    bool dies = o->exception->source == trawl_v1_ExceptionSource_CRASH ||
                o->exception->source == trawl_v1_ExceptionSource_OOM_KILL ||
                o->exception->source == trawl_v1_ExceptionSource_FAULT_LINE ||
                o->exception->source == trawl_v1_ExceptionSource_UNIT_RESULT ||
                o->exception->source == trawl_v1_ExceptionSource_PROCESS_EXIT;
    if (change->is_new && state->evidence_left)
        return "new";
    if (change->regressed && state->evidence_left)
        return "regressed";
    if (change->spreads)
        return "spreading";
    if (o->important && dies)
        return "important";
    return state->evidence_left ? "seen again" : NULL;
}

/* A record of many, or one that nobody looked at by itself, has nothing of its own to gather. */
static bool is_single(const struct group_occurrence *o)
{
    return o->count == 1 && o->exception->count <= 1 && !o->exception->by_site &&
           !o->exception->cut_off;
}

static void decide_sample(struct group_state *state, const struct group_occurrence *o,
                          const struct group_change *change, struct group_decision *out)
{
    if (!o->count)
        return;
    bool worth = is_single(o) || !state->samples_put || change->regressed;
    out->sample = out->wanted || (worth && state->samples_left > 0);
    if (!out->sample)
        return;
    if (state->samples_left && !out->wanted)
        state->samples_left--;
    state->samples_put++;
}

static void grant(trawl_v1_Group *group, struct group_state *state,
                  const struct group_occurrence *o, struct group_quota *host,
                  struct group_quota *fleet, struct group_decision *out)
{
    out->evidence = true;
    group->evidence++;
    host->evidence++;
    fleet->evidence++;
    fleet->incidents += out->opens;
    if (out->wanted)
        group->want_left--;
    else if (state->evidence_left)
        state->evidence_left--;
    state->incident_us = o->now_us;
    state->gathered[state->gathered_next++ % GROUP_GATHERED] = (struct group_gathered){
        group_content(o->exception), o->now_us, group_kinds_mask(&out->kinds)};
    if (!strncmp(group->note, "only counted", 12))
        group->note[0] = '\0';
}

static void decide_evidence(trawl_v1_Group *group, struct group_state *state,
                            const struct group_limits *limits, const struct group_occurrence *o,
                            const struct group_change *change, struct group_quota *host,
                            struct group_quota *fleet, struct group_decision *out)
{
    if (group->want_left)
        group_kinds_wanted(group, o->exception, &out->more);
    out->wanted = out->more.count > 0;
    out->because = out->wanted ? "wanted" : reason_for(state, o, change);
    if (!out->because)
        return;
    group_kinds_first(o->exception, &out->kinds);
    for (size_t i = 0; i < out->more.count; i++)
        add_kind(&out->kinds, out->more.list[i]);
    bool fresh = change->is_new || change->regressed || out->wanted;
    if (!fresh && gathered_before(state, group_content(o->exception), group_kinds_mask(&out->kinds),
                                  o->now_us, limits->window_us))
        return;
    bool within = state->incident_us && o->now_us - state->incident_us < limits->window_us;
    bool apart = strcmp(out->because, "seen again") != 0 && !out->wanted;
    out->opens = !group->incidents_count ? !within : apart && !within;
    if (!out->wanted && check_limits(group, limits, host, fleet, out))
        return;
    grant(group, state, o, host, fleet, out);
}

void group_decide(trawl_v1_Group *group, struct group_state *state,
                  const struct group_limits *limits, const struct group_occurrence *o,
                  const struct group_change *change, struct group_quota *host,
                  struct group_quota *fleet, struct group_decision *out)
{
    *out = (struct group_decision){.sample = false};
    if (is_single(o))
        decide_evidence(group, state, limits, o, change, host, fleet, out);
    if (!out->evidence)
        out->wanted = out->opens = false;
    decide_sample(state, o, change, out);
    group->samples =
        state->samples_put < GROUP_SAMPLES_MAX ? state->samples_put : GROUP_SAMPLES_MAX;
}
