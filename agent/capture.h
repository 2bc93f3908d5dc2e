/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders on this host: accepted for good, run one at a time, their evidence kept until the
 * collector has it, their verdicts repeated until acknowledged. Invariants: an order is on disk
 * before anything is answered, runs at most once, never after its expiry, and ends in exactly one
 * final verdict. Fed by the uplink session; owned by the agent.
 */
#ifndef TRAWL_AGENT_CAPTURE_H
#define TRAWL_AGENT_CAPTURE_H

#include <uv.h>

#include "agent/broker_client.h"
#include "agent/events.h"
#include "agent/policy.h"
#include "agent/sampler.h"
#include "agent/spool.h"
#include "agent/state.h"
#include "agent/stream.h"
#include "common/clock.h"

#define CAPTURE_QUEUE_MAX 8

struct capture;

struct capture_settings {
    uv_loop_t *loop;
    struct clock *clock;
    struct state *state;
    struct spool *spool;
    struct sampler *sampler; /* may be NULL: nothing is cut before looking back */
    struct broker_client *broker;
    struct events *events;
    const struct policy *policy;
    const char *const *followed; /* names taken when an order names none; NULL-terminated or NULL */
    uint64_t space_bytes;        /* evidence that waits on disk, at most */
    void (*changed)(void *context); /* a verdict or an artifact waits */
    void *context;
};

/* Reads the journal: orders that were running end now, queued ones go on. All pointers are
 * borrowed. */
int capture_open(struct capture **out, const struct capture_settings *settings, struct failure *f);
/* Stops what runs (it ends as after a restart). `closed` when all handles are gone; NULL is fine.
 */
void capture_close(struct capture *capture, void (*closed)(void *context), void *context);
/* Once a second: expiry. */
void capture_tick(struct capture *capture);

/* ---- from the collector ---- */

uint64_t capture_last_order(const struct capture *capture);
void capture_order(struct capture *capture, const trawl_v1_Order *order);
void capture_cancel(struct capture *capture, const trawl_v1_CancelOrder *cancel);
/*
 * The fleet brake. While it is on, orders are refused and what runs is cancelled; the agent keeps
 * it over its restarts. A failure means that it is obeyed, but would be forgotten.
 */
int capture_set_brake(struct capture *capture, const trawl_v1_Brake *brake, struct failure *f);
/* The best known bound of this host's clock less the collector's. */
void capture_set_offset(struct capture *capture, int64_t offset_us);

/* ---- to the collector ---- */

/* A connection begins: every verdict not acknowledged is to be sent again. */
void capture_resume(struct capture *capture);
/* The next verdict to send on this connection, or ERR_NOTFOUND. */
int capture_peek_verdict(struct capture *capture, trawl_v1_Verdict *out);
void capture_verdict_sent(struct capture *capture, uint64_t order, uint32_t no);
void capture_verdict_acknowledged(struct capture *capture, uint64_t order, uint32_t no);

/* An artifact that is complete here and not sealed there. */
struct capture_artifact {
    uint64_t order;
    uint32_t no;
    char directory[STATE_PATH_SIZE];
};
int capture_peek_artifact(struct capture *capture, struct capture_artifact *out);
/* It is sealed (why->code 0), its number is taken (ERR_EXISTS), or it cannot be delivered. A lost
 * connection is not reported: the artifact simply comes again. */
void capture_artifact_ended(struct capture *capture, const struct capture_artifact *artifact,
                            const struct failure *why);
/* An artifact that is sent while it is taken, piece by piece (stream.h): a run of it waits. 0:
 * none.
 */
uint64_t capture_peek_stream(struct capture *capture);
/* NULL: it is no longer wanted. Borrowed until the next call of anything here. */
struct stream *capture_stream(struct capture *capture, uint64_t id);
/* Whether it is known where the collector stands: else ask (UploadStatus) before sending. */
bool capture_stream_is_known(const struct capture *capture);
/* A run is on its way. */
void capture_stream_sending(struct capture *capture, uint64_t id);
/* What the collector has of it. *sealed: all. ERR_CANCELLED: no longer wanted; ERR_CORRUPT,
 * ERR_PROTOCOL, ERR_EXISTS: it is lost. When its number was somebody else's, it gets another one
 * and is unknown again. */
int capture_stream_state(struct capture *capture, uint64_t id, const trawl_v1_UploadState *state,
                         bool *sealed, struct failure *f);
/* A call failed; whatever came of it, the collector is asked before the next. */
void capture_stream_unknown(struct capture *capture, uint64_t id);
/* It is sealed (why->code 0) or lost. */
void capture_stream_ended(struct capture *capture, uint64_t id, const struct failure *why);

/* Whether this artifact is still wanted (its order was not cancelled). */
bool capture_wants_artifact(const struct capture *capture, const struct capture_artifact *artifact);

#endif
