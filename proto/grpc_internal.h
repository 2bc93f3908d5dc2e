/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the grpc_*.c files share: the two structs and the steps between them. Private to
 * proto/grpc*.c and to their tests (the allocator seam).
 *
 * Invariants: nghttp2 never holds a pointer to a call, it is looked up by stream id; a call is
 * freed in grpc_call_retire() only, never inside a callback of nghttp2, so whoever holds one may go
 * on; no callback of the owner but `wake` runs inside an API function other than feed, pull, tick
 * and close.
 */
#ifndef TRAWL_PROTO_GRPC_INTERNAL_H
#define TRAWL_PROTO_GRPC_INTERNAL_H

#include <nghttp2/nghttp2.h>

#include "common/list.h"
#include "proto/grpc.h"

#define GRPC_PREFIX_BYTES 5 /* compressed flag and big-endian length before each message */
#define GRPC_PATH_SIZE 128
#define GRPC_TEXT_BYTES 1024
#define GRPC_TIMEOUT_SIZE 12 /* 8 digits, a unit, a zero */
#define GRPC_KEEP_BYTES 4096 /* an emptied buffer larger than this is given back */
#define GRPC_FAIL_SIZE 96
#define GRPC_OPAQUE_BYTES 8
#define GRPC_ENCODED_BYTES                                                \
    (3 * GRPC_TEXT_BYTES) /* text on the wire, at worst all of it escaped \
                           */

extern const uint8_t GRPC_DRAIN_PING[GRPC_OPAQUE_BYTES];

/* A leaky bucket: one second's worth may come at once. */
struct grpc_rate {
    uint64_t at_us, level_us;
};

struct grpc {
    nghttp2_session *h2;
    const nghttp2_mem *mem; /* NULL: malloc and friends */
    bool server;
    struct grpc_limits limits; /* no zeros */
    const struct grpc_events *events;
    void *owner;
    char *authority; /* clients */

    uint64_t now_us;
    unsigned busy;     /* inside feed, pull, tick or close */
    bool closing;      /* inside grpc_close() */
    bool clock_waits;  /* a timeout or a drain waits for the next now_us to begin */
    struct list calls; /* all; at most limits.max_calls */
    struct list todo;  /* calls to settle when nghttp2 has returned */
    size_t call_count; /* length of `calls` */
    uint64_t refused;
    struct grpc_rate resets, pings;
    bool
        ping_earned; /* we sent data since the peer's last PING: measuring the round trip is fair */

    uint64_t heard_us;  /* the last byte from the peer */
    uint64_t pinged_us; /* our unanswered PING, when `ping_out` */
    bool ping_out;

    bool draining, drain_is_final, peer_draining;
    uint64_t drain_us; /* when the shutdown notice becomes final at the latest; 0: not begun */

    int fail_code; /* not 0: the connection is finished */
    char fail_text[GRPC_FAIL_SIZE];
    char said[GRPC_FAIL_SIZE]; /* what nghttp2 last complained of */
};

struct grpc_call {
    struct grpc *g;
    struct list link, todo;
    int32_t id;
    const struct grpc_call_events *events;
    void *owner;
    bool announced; /* the owner knows it: `done` is due */

    struct buf in; /* received, from in_at: a partial message, or whole ones while paused */
    size_t in_at;
    size_t unconsumed; /* received bytes for which no window was given back yet */
    bool paused;
    bool peer_ended, end_told;

    struct buf out; /* queued messages with their prefixes, from out_at */
    size_t out_at;
    size_t front_left; /* bytes of a message of which a part was sent already */
    bool want_room, writable_due;
    bool started; /* server: response headers are submitted */
    bool ended;   /* no more messages from here: grpc_end() or grpc_finish() */
    bool trailers_submitted, trailers_sent;
    bool stream_closed, reset_submitted;

    bool over; /* status is final; to be retired */
    enum grpc_status status;
    int error; /* enum err, or 0: by status */
    struct buf text;

    uint64_t timeout_us;  /* deadline not begun: counts from the next now_us */
    uint64_t deadline_us; /* UINT64_MAX: none */

    /* Headers, while they come. */
    size_t header_bytes;
    bool headers_too_large, content_type_ok, te_ok, post_ok, encoding_bad, timeout_bad, path_bad;
    bool status_seen;
    int http_status;
    char path[GRPC_PATH_SIZE]; /* server */
};

/* grpc_wire.c: pure. */
bool grpc_timeout_parse(struct span value, uint64_t *out_us);
void grpc_timeout_format(uint64_t us, char out[GRPC_TIMEOUT_SIZE]);
/* Percent-encodes at most GRPC_TEXT_BYTES of `text`; returns the length written, no zero. */
size_t grpc_message_encode(struct span text, char out[GRPC_ENCODED_BYTES]);
void grpc_message_decode(struct span value, struct buf *out);
bool grpc_content_type_ok(struct span value);
enum grpc_status grpc_status_from_http(int http_status);
enum grpc_status grpc_status_from_reset(uint32_t http2_error);
uint32_t grpc_big_endian(const uint8_t *p); /* 4 bytes */
/* A header field; the name is a literal, the value is copied when it is submitted. */
nghttp2_nv grpc_field(const char *name, struct span value);
bool grpc_rate_take(struct grpc_rate *rate, uint32_t per_s, uint64_t now_us);

/* grpc_head.c: header fields of a request or response. */
void grpc_head_field(struct grpc_call *c, struct span name, struct span value);
void grpc_head_request_done(struct grpc_call *c);
void grpc_head_response_done(struct grpc_call *c, bool last);

/* grpc_send.c: the queue of messages out. */
void grpc_call_resume_data(struct grpc_call *c);
ssize_t grpc_call_read(nghttp2_session *h2, int32_t stream_id, uint8_t *out, size_t length,
                       uint32_t *flags, nghttp2_data_source *source, void *user_data);

/* grpc_call.c: messages in, and how a call ends. */
struct grpc_call *grpc_call_find(const struct grpc *g, int32_t stream_id);
struct grpc_call *grpc_call_open(struct grpc *g, int32_t stream_id); /* NULL: no memory */
bool grpc_call_can_send(const struct grpc_call *c);
void grpc_call_receive(struct grpc_call *c, struct span bytes);
void grpc_call_peer_ended(struct grpc_call *c);
void grpc_call_stream_closed(struct grpc_call *c, uint32_t http2_error);
void grpc_call_expire(struct grpc_call *c);
void grpc_call_set_text(struct grpc_call *c, struct span text);
/* Server: trailers, or headers and trailers in one when no message was sent. */
void grpc_call_submit_trailers(struct grpc_call *c);
/* Ends the call now: the peer is told (trailers or RST_STREAM), nothing more is delivered. */
void grpc_call_abort(struct grpc_call *c, enum grpc_status status, int error, const char *text);
/* The call's status is final. Tells the peer nothing. The first one wins. */
void grpc_call_over(struct grpc_call *c, enum grpc_status status, int error, const char *text);
/* To be settled when nghttp2 has returned. */
void grpc_call_later(struct grpc_call *c);
/* Delivers what is due: kept messages, `end`, `writable`, `done`. May free the call. */
void grpc_call_settle(struct grpc_call *c);
void grpc_call_retire(struct grpc_call *c);

/* grpc_session.c: nghttp2's side. */
int grpc_session_open(struct grpc *g);
/* Ends the connection because of what the peer does too often. */
void grpc_calm(struct grpc *g, const char *why);

/* grpc.c: the connection. */
int grpc_open_with(struct grpc **out, bool server, const struct grpc_limits *limits,
                   const struct grpc_events *events, void *owner, const char *authority,
                   uint64_t mono_us, const nghttp2_mem *mem);
void grpc_wake(struct grpc *g);
/* The connection is finished; the first reason stays. */
void grpc_fail(struct grpc *g, int code, const char *why);
/* Notes a failure of nghttp2 that ends the connection; true when `rv` was one. */
bool grpc_broke(struct grpc *g, int rv);
void grpc_drain_finally(struct grpc *g);
void *grpc_alloc(const nghttp2_mem *mem, size_t size_bytes); /* zeroed */
void grpc_free(const nghttp2_mem *mem, void *data);

#endif
