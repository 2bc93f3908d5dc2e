/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters each second into blocks. Invariant: the samples of a block are exactly one second apart;
 * a second that was missed is a gap with a reason, a jump of the clock begins a new block. Owned by
 * the agent; looks at the operating system through os/counters.h only.
 */
#ifndef TRAWL_AGENT_SAMPLER_H
#define TRAWL_AGENT_SAMPLER_H

#include <uv.h>

#include "agent/broker_client.h"
#include "agent/series.h"
#include "agent/spool.h"
#include "common/clock.h"

#define SAMPLER_SERIES_MAX 4096

struct sampler;

struct sampler_settings {
    struct os_counter_settings counters; /* strings are borrowed for the sampler's life */
    struct clock *clock;
    struct spool *spool;
    struct broker_client *broker; /* for values that need privilege; may be NULL */
    uint64_t epoch;
    /* Hooks; any may be NULL. */
    void (*process_changed)(void *context, const struct os_process_change *change);
    void *process_context;
    void (*values)(void *context);  /* of each second, as long as they can be looked at */
    void (*sampled)(void *context); /* after each second */
    void (*cut)(void *context);     /* a block was pushed */
    void *context;
};

int sampler_open(struct sampler **out, const struct sampler_settings *settings, struct failure *f);
void sampler_close(struct sampler *sampler); /* after sampler_stop() */

/* The timer, aligned to the wall clock's seconds, so that all hosts sample together. */
int sampler_start(struct sampler *sampler, uv_loop_t *loop);
void sampler_stop(struct sampler *sampler, void (*stopped)(void *context), void *context);

/* One second now (what the timer calls). */
void sampler_sample(struct sampler *sampler);
/* Cuts what is there into a block now, so that the rings hold everything up to this second. */
void sampler_cut(struct sampler *sampler);
/* Blocks of one second while somebody looks. */
void sampler_set_watching(struct sampler *sampler, bool on);

/* The processes followed at present, by rising series: at most `max` pids. */
size_t sampler_processes(const struct sampler *sampler, uint32_t *pids, size_t max);

/* The series in each slot, within the hook `values`; as series_look() has it. */
size_t sampler_slots(const struct sampler *sampler);
bool sampler_look(const struct sampler *sampler, uint32_t slot, struct series_view *out);
/* Every process there is; `each` may be NULL. False: not all of them are known yet. */
bool sampler_each_process(const struct sampler *sampler,
                          void (*each)(void *context, const struct os_process_change *process),
                          void *context);

/* For --self-test: series at present, values read so far, and seconds sampled. */
void sampler_figures(const struct sampler *sampler, size_t *series, uint64_t *values,
                     uint64_t *seconds);

#endif
