/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call, either side: messages in and out, how it ends. Invariant: a call goes announced -> over
 * -> retired, each once; `done` is the last callback; what is received and not yet delivered is at
 * most one message and one window. Called by grpc.c (from nghttp2's callbacks and at the end of
 * feed, pull and tick) and by the owner through grpc.h. Specification: PROTOCOL-HTTP2.md of gRPC.
 */
#include "proto/grpc_internal.h"

#include <assert.h>
#include <string.h>

#include "common/text.h"

/* Before SETTINGS are acknowledged the peer may use HTTP/2's own initial window. */
#define FIRST_WINDOW_BYTES 65535
#define TRAILERS_MAX 6

static const struct grpc_call_events NO_EVENTS = {0};

struct grpc_call *grpc_call_find(const struct grpc *g, int32_t stream_id)
{
    LIST_EACH (link, &g->calls) {
        struct grpc_call *c = LIST_ENTRY(link, struct grpc_call, link);
        if (c->id == stream_id)
            return c;
    }
    return NULL;
}

struct grpc_call *grpc_call_open(struct grpc *g, int32_t stream_id)
{
    struct grpc_call *c = grpc_alloc(g->mem, sizeof *c);
    if (!c)
        return NULL;
    const struct grpc_limits *l = &g->limits;
    uint32_t window = l->window_bytes > FIRST_WINDOW_BYTES ? l->window_bytes : FIRST_WINDOW_BYTES;
    uint32_t queue =
        l->send_queue_bytes > l->max_message_bytes ? l->send_queue_bytes : l->max_message_bytes;
    c->g = g;
    c->id = stream_id;
    c->http_status = 200;
    c->events = &NO_EVENTS;
    c->deadline_us = UINT64_MAX;
    buf_init(&c->in, (size_t)GRPC_PREFIX_BYTES + l->max_message_bytes + window);
    buf_init(&c->out, (size_t)GRPC_PREFIX_BYTES + queue);
    buf_init(&c->text, GRPC_TEXT_BYTES);
    list_init(&c->todo);
    list_push(&g->calls, &c->link);
    g->call_count++;
    return c;
}

/* To be settled when nghttp2 has returned. */
void grpc_call_later(struct grpc_call *c)
{
    list_remove(&c->todo);
    list_push(&c->g->todo, &c->todo);
}

/* Cut at GRPC_TEXT_BYTES, not within a UTF-8 character. */
void grpc_call_set_text(struct grpc_call *c, struct span text)
{
    size_t n = text.size_bytes;
    if (n > GRPC_TEXT_BYTES) {
        n = GRPC_TEXT_BYTES;
        while (n > 0 && (text.data[n] & 0xc0) == 0x80)
            n--;
    }
    buf_clear(&c->text);
    /* Without memory the status alone has to do. */
    (void)buf_append(&c->text, text.data, n);
}

bool grpc_call_can_send(const struct grpc_call *c)
{
    bool answered = !c->g->server && c->peer_ended;
    return !c->over && !c->ended && !c->stream_closed && !answered && c->g->fail_code == 0;
}

/* ---- received messages ---- */

/* What comes now is dropped, and the window stays shut. */
static bool is_deaf(const struct grpc_call *c)
{
    return c->over || (c->g->server && c->ended);
}

/* Gives the window back for what was delivered or belongs to a message that was let in. */
static void give_back(struct grpc_call *c)
{
    size_t waiting = c->in.size_bytes - c->in_at;
    size_t held = c->paused ? c->unconsumed : 0;
    if (held > waiting)
        held = waiting;
    size_t bytes = c->unconsumed - held;
    c->unconsumed = held;
    if (bytes > 0)
        grpc_broke(c->g, nghttp2_session_consume_stream(c->g->h2, c->id, bytes));
}

static void compact_in(struct grpc_call *c)
{
    if (c->in_at == c->in.size_bytes || (c->g->server && c->ended)) {
        c->in_at = 0;
        buf_clear(&c->in);
        if (c->in.capacity_bytes > GRPC_KEEP_BYTES)
            buf_done(&c->in);
    } else if (c->in_at >= c->in.size_bytes / 2) {
        buf_consume(&c->in, c->in_at);
        c->in_at = 0;
    }
}

/* Judges a message by its prefix, before any of it is kept. */
static bool let_in(struct grpc_call *c, uint8_t compressed, uint32_t size_bytes)
{
    struct failure f = {0};
    if (compressed != 0) {
        grpc_call_abort(c, GRPC_UNIMPLEMENTED, ERR_UNSUPPORTED, "compression is not supported");
        return false;
    }
    if (size_bytes > c->g->limits.max_message_bytes) {
        c->g->refused++;
        fail(&f, ERR_LIMIT, "message of %u bytes is larger than %u", size_bytes,
             c->g->limits.max_message_bytes);
        grpc_call_abort(c, GRPC_RESOURCE_EXHAUSTED, ERR_LIMIT, f.text);
        return false;
    }
    return true;
}

static void hand_over(struct grpc_call *c, struct span message)
{
    if (!c->events->message)
        return;
    int r = c->events->message(c->owner, c, message);
    if (r == 0 || is_deaf(c))
        return;
    if (c->g->server) {
        struct failure f = {.code = r};
        text_copy(f.text, sizeof f.text, err_text(r));
        grpc_finish_failure(c, &f);
    } else {
        grpc_call_abort(c, GRPC_CANCELLED, r, err_text(r));
    }
}

static bool wants_messages(const struct grpc_call *c)
{
    return c->announced && !c->paused && !is_deaf(c);
}

/* Delivers whole messages from the front of `bytes`; returns how many bytes they took. */
static size_t deliver(struct grpc_call *c, struct span bytes)
{
    size_t used = 0;
    while (wants_messages(c) && bytes.size_bytes - used >= GRPC_PREFIX_BYTES) {
        const uint8_t *at = bytes.data + used;
        size_t rest = bytes.size_bytes - used - GRPC_PREFIX_BYTES;
        uint32_t size = grpc_big_endian(at + 1);
        if (!let_in(c, at[0], size) || rest < size)
            break;
        used += GRPC_PREFIX_BYTES + (size_t)size;
        hand_over(c, span_of(at + GRPC_PREFIX_BYTES, size));
    }
    return used;
}

static void deliver_kept(struct grpc_call *c)
{
    if (c->in_at < c->in.size_bytes)
        c->in_at += deliver(c, span_of(c->in.data + c->in_at, c->in.size_bytes - c->in_at));
    compact_in(c);
}

static int keep(struct grpc_call *c, struct span bytes)
{
    if (c->in_at > 0 && bytes.size_bytes > c->in.limit_bytes - c->in.size_bytes) {
        buf_consume(&c->in, c->in_at);
        c->in_at = 0;
    }
    return buf_append_span(&c->in, bytes);
}

void grpc_call_receive(struct grpc_call *c, struct span bytes)
{
    if (is_deaf(c))
        return;
    c->unconsumed += bytes.size_bytes;
    /* Most messages lie whole in what came: no copy. */
    if (c->in.size_bytes == 0) {
        size_t used = deliver(c, bytes);
        bytes = span_of(bytes.data + used, bytes.size_bytes - used);
    }
    if (is_deaf(c))
        return;
    if (bytes.size_bytes > 0) {
        int r = keep(c, bytes);
        if (r < 0) {
            grpc_call_abort(c, GRPC_RESOURCE_EXHAUSTED, r, err_text(r));
            return;
        }
        deliver_kept(c);
    }
    if (!is_deaf(c))
        give_back(c);
}

/* ---- how a call ends ---- */

void grpc_call_over(struct grpc_call *c, enum grpc_status status, int error, const char *text)
{
    if (c->over)
        return;
    c->over = true;
    c->status = status;
    c->error = error;
    if (text)
        grpc_call_set_text(c, span_str(text));
    grpc_call_later(c);
}

static void reset(struct grpc_call *c, uint32_t http2_error)
{
    if (c->stream_closed || c->reset_submitted)
        return;
    c->reset_submitted = true;
    grpc_broke(c->g, nghttp2_submit_rst_stream(c->g->h2, NGHTTP2_FLAG_NONE, c->id, http2_error));
    grpc_wake(c->g);
}

/* Adds grpc-status and what goes with it; returns the number of fields. */
static size_t status_fields(const struct grpc_call *c, nghttp2_nv *nv, char *status, char *error,
                            char *message)
{
    size_t n = 0;
    text_format(status, 12, "%d", (int)c->status);
    nv[n++] = grpc_field("grpc-status", span_str(status));
    size_t length = grpc_message_encode(buf_span(&c->text), message);
    if (length > 0)
        nv[n++] = grpc_field("grpc-message", span_of(message, length));
    if (c->error != 0) {
        text_format(error, 12, "%d", c->error);
        nv[n++] = grpc_field("trawl-error", span_str(error));
    }
    if (c->status == GRPC_UNIMPLEMENTED)
        nv[n++] = grpc_field("grpc-accept-encoding", span_str("identity"));
    return n;
}

void grpc_call_submit_trailers(struct grpc_call *c)
{
    nghttp2_nv nv[2 + TRAILERS_MAX];
    char http_status[12], status[12], error[12], message[GRPC_ENCODED_BYTES];
    size_t n = 0;
    int r;
    c->trailers_submitted = true;
    if (!c->started) {
        text_format(http_status, sizeof http_status, "%d", c->http_status);
        nv[n++] = grpc_field(":status", span_str(http_status));
        nv[n++] = grpc_field("content-type", span_str("application/grpc"));
        n += status_fields(c, nv + n, status, error, message);
        r = nghttp2_submit_response(c->g->h2, c->id, nv, n, NULL);
    } else {
        n += status_fields(c, nv, status, error, message);
        r = nghttp2_submit_trailer(c->g->h2, c->id, nv, n);
    }
    c->started = true;
    if (r != 0 && !grpc_broke(c->g, r))
        reset(c, NGHTTP2_INTERNAL_ERROR);
    grpc_wake(c->g);
}

/* The reset that the peer reads back as the status, as near as HTTP/2 has it. */
static uint32_t reset_code(enum grpc_status status)
{
    if (status == GRPC_RESOURCE_EXHAUSTED)
        return NGHTTP2_ENHANCE_YOUR_CALM;
    if (status == GRPC_CANCELLED || status == GRPC_DEADLINE_EXCEEDED)
        return NGHTTP2_CANCEL;
    return NGHTTP2_INTERNAL_ERROR;
}

/* Trailers need no window, so a peer that reads nothing cannot keep the call; a message that was
 * sent in part can only be cut off by a reset. */
static void tell_end(struct grpc_call *c)
{
    if (c->stream_closed || c->trailers_submitted)
        return;
    if (c->front_left > 0) {
        reset(c, reset_code(c->status));
        return;
    }
    grpc_call_submit_trailers(c);
}

void grpc_call_abort(struct grpc_call *c, enum grpc_status status, int error, const char *text)
{
    if (c->over)
        return;
    grpc_call_over(c, status, error, text);
    if (c->g->server)
        tell_end(c);
    else
        reset(c, NGHTTP2_CANCEL);
}

void grpc_call_expire(struct grpc_call *c)
{
    bool answered = c->g->server ? c->trailers_submitted : c->peer_ended;
    if (!answered)
        grpc_call_abort(c, GRPC_DEADLINE_EXCEEDED, ERR_TIMEOUT, "deadline exceeded");
    c->deadline_us = UINT64_MAX;
}

void grpc_call_peer_ended(struct grpc_call *c)
{
    c->peer_ended = true;
    grpc_call_later(c);
}

void grpc_call_stream_closed(struct grpc_call *c, uint32_t http2_error)
{
    struct failure f = {0};
    c->stream_closed = true;
    if (c->over) {
        return;
    } else if (c->g->server) {
        if (c->trailers_sent)
            grpc_call_over(c, c->status, c->error, NULL);
        else
            grpc_call_over(c, GRPC_CANCELLED, ERR_CANCELLED, "cancelled by the peer");
    } else if (!c->peer_ended) {
        enum grpc_status status = grpc_status_from_reset(http2_error);
        fail(&f, ERR_CLOSED, "call reset by the peer: %s", nghttp2_http2_strerror(http2_error));
        grpc_call_over(c, status, 0, f.text);
    }
    grpc_call_later(c);
}

/* ---- settling, outside nghttp2 ---- */

static void settle_received(struct grpc_call *c)
{
    deliver_kept(c);
    if (is_deaf(c))
        return;
    give_back(c);
    if (!c->peer_ended || c->paused || c->end_told)
        return;
    bool failed = c->status_seen && c->status != GRPC_OK;
    if (c->in.size_bytes > 0 && !failed) {
        grpc_call_abort(c, GRPC_INTERNAL, ERR_PROTOCOL, "peer ended within a message");
        return;
    }
    c->end_told = true;
    if (c->announced && c->events->end)
        c->events->end(c->owner, c);
}

static void settle_answered_client(struct grpc_call *c)
{
    if (!c->stream_closed)
        reset(c, NGHTTP2_NO_ERROR);
    if (!c->end_told)
        return;
    if (!c->status_seen)
        grpc_call_over(c, GRPC_UNKNOWN, ERR_PROTOCOL, "reply without grpc-status");
    else
        grpc_call_over(c, c->status, c->error, NULL);
}

void grpc_call_settle(struct grpc_call *c)
{
    if (!c->over)
        settle_received(c);
    if (!c->over && !c->g->server && c->peer_ended)
        settle_answered_client(c);
    if (c->writable_due && grpc_call_can_send(c)) {
        c->writable_due = false;
        if (c->events->writable)
            c->events->writable(c->owner, c);
    }
    if (c->over)
        grpc_call_retire(c);
}

/* Out of every list before `done`, so that the owner may start another call within it. */
void grpc_call_retire(struct grpc_call *c)
{
    list_remove(&c->todo);
    list_remove(&c->link);
    c->g->call_count--;
    if (c->announced && c->events->done)
        c->events->done(c->owner, c, c->status, buf_str(&c->text));
    list_remove(&c->todo);
    buf_done(&c->in);
    buf_done(&c->out);
    buf_done(&c->text);
    grpc_free(c->g->mem, c);
}

/* ---- what the owner asks ---- */

static void finish(struct grpc_call *c, enum grpc_status status, int error, const char *text)
{
    assert(c->g->server);
    if (!grpc_call_can_send(c))
        return;
    c->ended = true;
    c->status = status;
    c->error = error;
    grpc_call_set_text(c, span_str(text ? text : ""));
    grpc_call_later(c);
    if (grpc_send_queued_bytes(c) == 0)
        tell_end(c);
    else
        grpc_call_resume_data(c);
}

void grpc_finish(struct grpc_call *call, enum grpc_status status, const char *text)
{
    finish(call, status, 0, text);
}

void grpc_finish_failure(struct grpc_call *call, const struct failure *f)
{
    finish(call, (enum grpc_status)err_grpc_status(f->code), f->code, f->text);
}

void grpc_cancel(struct grpc_call *call)
{
    if (call->g->server)
        grpc_finish(call, GRPC_CANCELLED, err_text(ERR_CANCELLED));
    else
        grpc_call_abort(call, GRPC_CANCELLED, ERR_CANCELLED, err_text(ERR_CANCELLED));
}

void grpc_pause(struct grpc_call *call)
{
    call->paused = true;
}

void grpc_resume(struct grpc_call *call)
{
    if (!call->paused)
        return;
    call->paused = false;
    if (!call->over)
        grpc_call_later(call);
    grpc_wake(call->g);
}

int grpc_call_error(const struct grpc_call *call)
{
    if (call->status == GRPC_OK)
        return 0;
    return call->error ? call->error : err_from_grpc((int)call->status);
}

uint64_t grpc_deadline_us(const struct grpc_call *call)
{
    return call->deadline_us;
}
