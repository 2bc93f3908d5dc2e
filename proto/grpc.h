/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC over HTTP/2, without I/O: feed received bytes, pull bytes to send, tick the clock. One
 * `struct grpc` is one connection, either side; a `struct grpc_call` is one call on it. Messages
 * are opaque bytes here (codec.h knows their types). nghttp2 is known to this module only.
 * Specification: gRPC over HTTP2 (PROTOCOL-HTTP2.md), RFC 9113.
 *
 * Invariants: `done` is called exactly once per call, last; after it the call is gone. Callbacks
 * come only out of grpc_feed(), grpc_pull(), grpc_tick() and grpc_close() (`wake` out of any
 * function), so a call is never gone when grpc_cancel() or grpc_finish() return. They may call any
 * function here except these four. Memory is bounded by the limits: a peer that sends too much is
 * stopped by flow control, one that reads too slowly makes grpc_send() return ERR_LIMIT.
 */
#ifndef TRAWL_PROTO_GRPC_H
#define TRAWL_PROTO_GRPC_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

/* https://grpc.io/docs/guides/status-codes/ */
enum grpc_status {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16
};

struct grpc;
struct grpc_call;

/* 0 in a member means the default behind it. */
struct grpc_limits {
    uint32_t max_calls;         /* concurrent, per connection: 16 */
    uint32_t max_message_bytes; /* received: 4 MiB, the usual gRPC limit */
    uint32_t send_queue_bytes;  /* per call, not yet taken by flow control: 1 MiB (a single message
                                   up to max_message_bytes is always accepted into an empty queue) */
    uint32_t window_bytes;      /* per call receive window: 256 KiB; connection: 4 times */
    uint32_t header_list_bytes; /* 8 KiB */
    uint32_t resets_per_s;      /* RST_STREAM from the peer: 20, then GOAWAY ENHANCE_YOUR_CALM */
    uint32_t pings_per_s;       /* PING and SETTINGS from the peer: 20 */
    uint32_t keepalive_ms;      /* send a PING after this long without a byte: 20,000 */
    uint32_t keepalive_timeout_ms; /* no answer to it for this long: connection dead: 10,000 */
};

/* What happens on a call. Any member may be NULL. `call` stays valid until `done` returned. */
struct grpc_call_events {
    /* One whole message, borrowed. Not called while paused. Non-zero return: the call ends with
     * that error's status (server) or is cancelled (client). */
    int (*message)(void *owner, struct grpc_call *call, struct span message);
    /* The peer will send no more (server: client's half-close). */
    void (*end)(void *owner, struct grpc_call *call);
    /* The send queue fell below half its limit after grpc_send() had refused. */
    void (*writable)(void *owner, struct grpc_call *call);
    /* Last. status: what the server said, or on the server what was sent or CANCELLED/
     * DEADLINE_EXCEEDED/UNAVAILABLE when the call died. `text` is borrowed, "" if none. */
    void (*done)(void *owner, struct grpc_call *call, enum grpc_status status, const char *text);
};

struct grpc_events {
    /*
     * Server: a call's headers arrived; `path` is "/trawl.v1.Fleet/Connect". Sets events and owner
     * and returns 0, or returns an enum err (text in f) and the call is refused with its status.
     * NULL on clients.
     */
    int (*call)(void *owner, struct grpc_call *call, const char *path,
                const struct grpc_call_events **events, void **call_owner, struct failure *f);
    /* There is something to pull (edge; may be called often). */
    void (*wake)(void *owner);
};

/* `mono_us`: the time now. Copies limits; borrows events. */
int grpc_open_server(struct grpc **out, const struct grpc_limits *limits,
                     const struct grpc_events *events, void *owner, uint64_t mono_us);
/* `authority`: "collector.example:7443". */
int grpc_open_client(struct grpc **out, const struct grpc_limits *limits,
                     const struct grpc_events *events, void *owner, const char *authority,
                     uint64_t mono_us);
/* Ends every call (done with UNAVAILABLE, `why`) and frees. NULL is fine. */
void grpc_close(struct grpc *g, const char *why);

/* Received bytes. A failure means that the connection must be closed after a last pull. */
int grpc_feed(struct grpc *g, struct span bytes, uint64_t mono_us, struct failure *f);
/* Appends bytes to send, until about `out` holds 64 KiB (17 KiB before its limit, if that is less)
 * or there is nothing more. A failure comes after the last bytes are out. */
int grpc_pull(struct grpc *g, struct buf *out, uint64_t mono_us, struct failure *f);
/* Runs deadlines and keepalive. *next_us: when to call again at the latest (UINT64_MAX: never). A
 * feed or a pull may bring that forward: tick after them too, it is cheap. ERR_TIMEOUT: the peer is
 * dead. */
int grpc_tick(struct grpc *g, uint64_t mono_us, uint64_t *next_us, struct failure *f);
/* GOAWAY: no new calls, present ones go on. */
void grpc_drain(struct grpc *g);
/* Draining (ours or the peer's) and no call left: the owner may close. */
bool grpc_is_idle_after_drain(const struct grpc *g);
size_t grpc_call_count(const struct grpc *g);
/* What limits turned away on this connection so far (for /metrics). */
uint64_t grpc_refused_count(const struct grpc *g);

/*
 * Client: starts a call. timeout_us 0: none; otherwise sent as grpc-timeout and enforced here too
 * (it begins with the next mono_us that is given). ERR_LIMIT (too many calls), ERR_CLOSED
 * (draining, or the connection failed), ERR_NOMEM. After success `done` will come.
 */
int grpc_start(struct grpc *g, const char *path, uint64_t timeout_us,
               const struct grpc_call_events *events, void *owner, struct grpc_call **out,
               struct failure *f);

/* Both sides: queues one message (copied). ERR_LIMIT: wait for `writable`. ERR_CLOSED: too late.
 * ERR_INVALID: larger than any message may be. ERR_NOMEM. */
int grpc_send(struct grpc_call *call, struct span message);
/* Client: no more messages from here (half-close). */
void grpc_end(struct grpc_call *call);
/* Server: ends the call with trailers once the queue is sent. Text is percent-encoded for the wire
 * (grpc-message), at most 1 KiB. No message may be sent after it. */
void grpc_finish(struct grpc_call *call, enum grpc_status status, const char *text);
/* Finishes with the status for an enum err and the failure's text; trailer "trawl-error: <number>"
 * carries the exact error so that the peer's grpc_call_error() has it. */
void grpc_finish_failure(struct grpc_call *call, const struct failure *f);
/* Client: RST_STREAM CANCEL; `done` follows with CANCELLED. Server: same as finish CANCELLED. */
void grpc_cancel(struct grpc_call *call);
/* Stops/starts delivering messages; while paused the window is not reopened, so the peer stops.
 * What was held back comes out of the next feed, pull or tick (`wake` asks for it). */
void grpc_pause(struct grpc_call *call);
void grpc_resume(struct grpc_call *call);
size_t grpc_send_queued_bytes(const struct grpc_call *call);
/* Client, inside `done`: the exact enum err of the failure (from trawl-error, else by status). */
int grpc_call_error(const struct grpc_call *call);
/* Server: what is left of the client's deadline now; UINT64_MAX: none was given. */
uint64_t grpc_deadline_us(const struct grpc_call *call); /* absolute, same clock as feed */

#endif
