/* SPDX-License-Identifier: Apache-2.0 */
/* Counting what comes too fast. See trace_flood.h. */
#include "agent/trace_flood.h"

#include <stdlib.h>
#include <string.h>

#include "common/xxh64.h"

#define SECOND_US UINT64_C(1000000)

/* The first of one content, and how many there were. */
struct trace_kind {
    uint64_t key, begin;
    struct os_exception e;
};

void trace_flood_init(struct trace_flood *flood, trace_told_fn told, void *context)
{
    *flood = (struct trace_flood){.told = told, .context = context};
}

void trace_flood_done(struct trace_flood *flood)
{
    for (size_t i = 0; i < TRACE_KINDS; i++)
        free(flood->kinds[i]);
    memset(flood->kinds, 0, sizeof flood->kinds);
}

static uint64_t add(uint64_t hash, const char *text)
{
    return xxh64(span_str(text), hash);
}

static uint64_t key_of(const struct os_exception *e)
{
    uint64_t hash = add(add(0, e->language), e->type);
    hash = add(hash, e->process);
    if (e->frame_count == 0)
        hash = add(hash, e->message);
    for (uint32_t i = 0; i < e->frame_count; i++) {
        const struct os_frame *frame = &e->frames[i];
        hash = add(add(hash + frame->line, frame->function), frame->file);
    }
    return hash;
}

static void tell_kind(struct trace_flood *flood, size_t i)
{
    struct trace_kind *kind = flood->kinds[i];
    flood->kinds[i] = NULL;
    flood->told(flood->context, &kind->e, kind->begin);
    free(kind);
}

/* The place of this content, or a free one, or that of the one with the smallest count. */
static size_t place_of(const struct trace_flood *flood, uint64_t key)
{
    size_t best = 0;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < TRACE_KINDS; i++) {
        const struct trace_kind *kind = flood->kinds[i];
        uint64_t count = kind ? kind->e.count : 0;
        if (kind && kind->key == key)
            return i;
        if (count < least) {
            least = count;
            best = i;
        }
    }
    return best;
}

static void count(struct trace_flood *flood, const struct os_exception *e, uint64_t begin)
{
    uint64_t key = key_of(e);
    size_t i = place_of(flood, key);
    struct trace_kind *kind = flood->kinds[i];
    if (kind && kind->key == key) {
        kind->e.count++;
        kind->e.last_us = e->wall_us;
        return;
    }
    if (kind)
        tell_kind(flood, i);
    kind = malloc(sizeof *kind);
    if (!kind) {
        flood->told(flood->context, e, begin);
        return;
    }
    kind->key = key;
    kind->begin = begin;
    kind->e = *e;
    flood->kinds[i] = kind;
}

void trace_flood_tell(struct trace_flood *flood, const struct os_exception *e, uint64_t begin,
                      uint64_t mono_us)
{
    trace_flood_tick(flood, mono_us);
    flood->traces++;
    if (flood->whole < TRACE_WHOLE_PER_SECOND) {
        flood->whole++;
        flood->told(flood->context, e, begin);
    } else {
        count(flood, e, begin);
    }
}

void trace_flood_tick(struct trace_flood *flood, uint64_t mono_us)
{
    if (flood->since_mono_us && mono_us - flood->since_mono_us < SECOND_US)
        return;
    trace_flood_flush(flood);
    flood->since_mono_us = mono_us ? mono_us : 1;
    flood->whole = 0;
}

void trace_flood_flush(struct trace_flood *flood)
{
    for (size_t i = 0; i < TRACE_KINDS; i++)
        if (flood->kinds[i])
            tell_kind(flood, i);
}

bool trace_flood_waits(const struct trace_flood *flood)
{
    for (size_t i = 0; i < TRACE_KINDS; i++)
        if (flood->kinds[i])
            return true;
    return false;
}
