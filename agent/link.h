/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC client connection: common/conn carrying proto/grpc. Invariant: `closed` comes exactly
 * once, last, after every call's `done`; grpc is never re-entered. Called by uplink and join.
 */
#ifndef TRAWL_AGENT_LINK_H
#define TRAWL_AGENT_LINK_H

#include <uv.h>

#include "common/conn.h"
#include "proto/grpc.h"

struct link;

struct link_events {
    void (*opened)(void *owner, struct link *link); /* calls may be started */
    void (*closed)(void *owner, const struct failure *why);
};

/* `config` is borrowed and outlives the link. On failure nothing will be called. */
int link_open(struct link **out, uv_loop_t *loop, struct tls_config *config, const char *host,
              uint16_t port, const char *server_name, const struct link_events *events, void *owner,
              struct failure *f);
/* Sends what is queued, then closes. Idempotent; may be called from a call's callback. */
void link_close(struct link *link);
struct grpc *
link_grpc(struct link *link); /* NULL before `opened` and when the connection has ended */

#endif
