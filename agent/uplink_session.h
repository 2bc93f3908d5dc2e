/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol of one connection (docs/protocol.md, "Connect"), without I/O: a grpc client call,
 * the spool and the orders. Invariant: nothing but Announce is sent before Welcome; events and
 * verdicts go before blocks. Driven by uplink.c, and in tests by a collector in the same process.
 */
#ifndef TRAWL_AGENT_UPLINK_SESSION_H
#define TRAWL_AGENT_UPLINK_SESSION_H

#include "agent/capture.h"
#include "agent/spool.h"
#include "common/clock.h"
#include "proto/grpc.h"

/* What this host says of itself. */
struct uplink_profile {
    trawl_v1_Fact facts[24];
    size_t fact_count;
    trawl_v1_Cap caps[24];
    size_t cap_count;
};

struct uplink_session_settings {
    struct clock *clock;
    struct spool *spool;
    struct capture *capture;
    const struct uplink_profile *profile;
    const uint8_t *state_id; /* 16 bytes */
    uint64_t epoch;
    /* Hooks. `ended` is the last one; the session may be closed in it or later. */
    void (*welcomed)(void *context, const trawl_v1_Welcome *welcome);
    void (*watching)(void *context, bool on);
    void (*wants)(void *context, const trawl_v1_Wants *wants);     /* may be NULL */
    void (*rules)(void *context, const trawl_v1_RulePiece *piece); /* may be NULL */
    void (*ended)(void *context, const struct failure *why);
    void *context;
};

struct uplink_session;

/* Starts Connect and announces. The grpc connection outlives the call, not necessarily the session.
 */
int uplink_session_open(struct uplink_session **out, struct grpc *grpc,
                        const struct uplink_session_settings *settings, struct failure *f);
/* Only after `ended`, or after the grpc connection was closed. NULL is fine. */
void uplink_session_close(struct uplink_session *session);
/* There may be something new to send. Cheap. */
void uplink_session_kick(struct uplink_session *session);
/* No more from us: half-closes after what is queued (the agent stops). */
void uplink_session_finish(struct uplink_session *session);
bool uplink_session_is_welcome(const struct uplink_session *session);

#endif
