/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions of agents: the server side of Fleet.Connect (docs/protocol.md). A session takes in
 * blocks and events (ingest), measures the skew, and is the way orders reach a host. Loop thread.
 */
#ifndef TRAWL_COLLECTOR_FLEET_H
#define TRAWL_COLLECTOR_FLEET_H

#include "collector/roster.h"
#include "collector/serve.h"

struct session;

/* Queues a message for the agent. ERR_LIMIT: it reads too slowly; try again later. */
int session_send(struct session *session, const trawl_v1_CollectorMessage *message);
/* Ends the connection of the agent. */
void session_abort(struct session *session, const char *why);
/* Announced and welcomed: orders may be sent. */
bool session_is_ready(const struct session *session);
uint64_t session_last_order(const struct session *session); /* what the agent has accepted */
/* Tells every agent whether somebody looks at `top`. */
void fleet_watch(struct collector *c, bool on);

#endif
