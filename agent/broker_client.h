/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's side of the broker: requests out, replies matched to them on the loop. Invariant:
 * every request that was accepted gets exactly one call back, also when the broker dies. Called by
 * capture and the sampler.
 */
#ifndef TRAWL_AGENT_BROKER_CLIENT_H
#define TRAWL_AGENT_BROKER_CLIENT_H

#include <uv.h>

#include "agent/broker_wire.h"

struct broker_client;

/* error 0 with the reply, or a failure whose text stands in `f`; reply is NULL when the broker
 * died. */
typedef void (*broker_done_fn)(void *context, const struct broker_reply *reply,
                               const struct failure *f);

/* Takes `fd`. */
int broker_client_open(struct broker_client **out, uv_loop_t *loop, int fd, struct failure *f);
/* Outstanding requests are dropped without a call. `closed` when the handle is gone; NULL is fine.
 */
void broker_client_close(struct broker_client *client, void (*closed)(void *context),
                         void *context);
/* During the call of `done`: the descriptor that came with the reply, now the caller's; -1: none.
 */
int broker_client_take_fd(struct broker_client *client);
bool broker_client_is_alive(const struct broker_client *client);

/*
 * Sends a request of `op` whose body is already in *request (magic, op and id are set here).
 * pass_fd -1: none; it stays the caller's. ERR_LIMIT: too many outstanding. ERR_CLOSED: the broker
 * has died.
 */
int broker_client_send(struct broker_client *client, enum broker_op op,
                       struct broker_request *request, int pass_fd, broker_done_fn done,
                       void *context, struct failure *f);

#endif
