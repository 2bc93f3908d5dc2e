/* SPDX-License-Identifier: Apache-2.0 */
/*
 * So many traces a second are told whole; what comes beyond is counted by content (type and frames;
 * the message only where there are no frames) and told once a second with its count. Invariant: the
 * counts add up to what was given. Private to trace.c.
 */
#ifndef TRAWL_AGENT_TRACE_FLOOD_H
#define TRAWL_AGENT_TRACE_FLOOD_H

#include "agent/trace.h"

struct trace_kind;

struct trace_flood {
    trace_told_fn told;
    void *context;
    uint64_t since_mono_us, traces;
    uint32_t whole; /* told since then */
    struct trace_kind *kinds[TRACE_KINDS];
};

void trace_flood_init(struct trace_flood *flood, trace_told_fn told, void *context);
void trace_flood_done(struct trace_flood *flood);
void trace_flood_tell(struct trace_flood *flood, const struct os_exception *e, uint64_t begin,
                      uint64_t mono_us);
void trace_flood_tick(struct trace_flood *flood, uint64_t mono_us);
void trace_flood_flush(struct trace_flood *flood);
bool trace_flood_waits(const struct trace_flood *flood);

#endif
