/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way to the collector: connects, comes back after a loss with full-jitter back-off, runs the
 * session and the uploads over it, renews the certificate in time. Invariant: an unreachable
 * collector costs one warning, then silence, and nothing of what is spooled. Owned by the agent.
 */
#ifndef TRAWL_AGENT_UPLINK_H
#define TRAWL_AGENT_UPLINK_H

#include <uv.h>

#include "agent/events.h"
#include "agent/sampler.h"
#include "agent/state.h"
#include "agent/uplink_session.h"

struct uplink;

struct uplink_settings {
    uv_loop_t *loop;
    struct clock *clock;
    struct state *state;
    struct identity *identity; /* renewed in place */
    struct spool *spool;
    struct capture *capture;
    struct events *events;
    struct sampler *sampler;
    void (*rules)(void *context, const trawl_v1_RulePiece *piece); /* may be NULL */
    void *rules_context;
    const struct uplink_profile *profile;
    uint64_t epoch;
    uint64_t upload_bytes_per_s;
};

int uplink_open(struct uplink **out, const struct uplink_settings *settings, struct failure *f);
/* Connects now. */
void uplink_start(struct uplink *uplink);
/* Sends what is there, waits at most a second for it, closes. NULL is fine. */
void uplink_close(struct uplink *uplink, void (*closed)(void *context), void *context);
/* There is something new to deliver. Cheap. */
void uplink_kick(struct uplink *uplink);
/* Once a second: renewal. */
void uplink_tick(struct uplink *uplink);

/* The back-off before attempt number `attempt` (from 0): random in [0, min(30 s, 0.5 s *
 * 2^attempt)). */
uint64_t uplink_backoff_us(unsigned attempt, uint64_t random);

#endif
