/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving calls: the listener accepts connections and, per call, finds the method, checks the
 * peer's role (the only place where authority is decided) and hands the call to its handler in
 * serve.c's table. Handlers answer through the functions below, which keep what does not fit into
 * the send window and stop at a limit. Invariant: a handler's `ended` is called exactly once per
 * call.
 */
#ifndef TRAWL_COLLECTOR_SERVE_H
#define TRAWL_COLLECTOR_SERVE_H

#include "collector/collector.h"
#include "common/buf.h"
#include "common/list.h"
#include "common/pki.h"
#include "proto/grpc.h"
#include "proto/methods.h"

struct peer; /* one connection */

struct call {
    struct collector *collector;
    struct peer *peer;
    const struct pki_identity *who; /* role "" on the join listener */
    const char *address;
    struct grpc_call *grpc;
    const struct method *method;
    const struct handler *handler;
    void *state;       /* the handler's own; freed by its `ended` */
    struct buf queue;  /* replies that wait for the window, each with a length in front */
    uint32_t messages; /* received */
    bool finishing;
    struct failure verdict; /* sent once the queue is empty */
    struct list link;       /* the peer's calls */
};

struct handler {
    enum method_id method;
    /* One request. A failure (always with text in f) ends the call with it. */
    int (*message)(struct call *call, struct span request, struct failure *f);
    /* The client sends no more (streams of requests). May be NULL. */
    int (*end)(struct call *call, struct failure *f);
    /* More replies fit; for handlers that produce piece by piece. May be NULL. */
    void (*more)(struct call *call);
    /* The call is over, for whatever reason: free `state`, forget the call. May be NULL. */
    void (*ended)(struct call *call);
};

/* Queues one reply (encoded). ERR_LIMIT above CALL_QUEUE_BYTES: the call was ended with it. */
#define CALL_QUEUE_BYTES (64u * 1024 * 1024)
int call_reply(struct call *call, struct span message);
/* True while replies wait: a producing handler should stop until `more`. */
bool call_is_full(const struct call *call);
/* Ends the call with OK (f NULL or f->code 0) or a failure, after what was queued. */
void call_finish(struct call *call, const struct failure *f);
/* reply + OK. */
void call_answer(struct call *call, struct span message);

/* Tables of the service files; serve.c knows them all. */
extern const struct handler fleet_handlers[], upload_handlers[], join_handlers[], host_handlers[],
    counter_handlers[], incident_handlers[], tool_handlers[], symbol_handlers[], brake_handlers[],
    exception_handlers[], group_handlers[], rule_handlers[];

struct listener;
int listener_open(struct listener **out, struct collector *c, struct failure *f);
/* Drains: no new calls, present ones get `grace_ms`, then closed. `done` when nothing is left. */
void listener_stop(struct listener *listener, uint32_t grace_ms, void (*done)(void *context),
                   void *context);
void listener_close(struct listener *listener);

#endif
