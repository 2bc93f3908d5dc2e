/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One artifact to the collector: asks how much is there, sends the pieces behind it, hears that it
 * is sealed. Of one that is still being taken, one step: asks, or sends a run of pieces and hears
 * how many are stored. Invariant: at most one piece is in memory besides what the call's queue
 * holds. Started by uplink, one at a time.
 */
#ifndef TRAWL_AGENT_UPLOAD_H
#define TRAWL_AGENT_UPLOAD_H

#include <uv.h>

#include "agent/budget.h"
#include "agent/capture.h"
#include "proto/grpc.h"

struct upload;

/* Last; `why`->code 0: sealed, or, of a stream, on with the next step unless `sealed`. ERR_EXISTS:
 * another artifact is sealed under this number. */
typedef void (*upload_done_fn)(void *context, const struct failure *why, bool sealed);

/* `rate` is shared by all uploads and borrowed. `grpc` must outlive the upload, or be closed first.
 */
int upload_open(struct upload **out, uv_loop_t *loop, struct grpc *grpc,
                const struct capture_artifact *artifact, struct budget_rate *rate,
                upload_done_fn done, void *context, struct failure *f);
/* One step of what capture_peek_stream() gave. `capture` is borrowed until `done`. */
int upload_open_stream(struct upload **out, uv_loop_t *loop, struct grpc *grpc,
                       struct capture *capture, uint64_t stream_id, struct budget_rate *rate,
                       upload_done_fn done, void *context, struct failure *f);
/* Gives up; `done` follows with ERR_CANCELLED. */
void upload_cancel(struct upload *upload);

#endif
