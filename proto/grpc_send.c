/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages out: the queue of a call and how nghttp2 drains it. Invariant: the queue holds whole
 * messages but for the front one, of which front_left bytes are still to go; it is never longer
 * than the limit, or than one message. Called by the owner (grpc_send) and by nghttp2
 * (grpc_call_read).
 */
#include "proto/grpc_internal.h"

#include <assert.h>
#include <string.h>

/* Notes the message borders in `bytes` about to leave from the front of the queue. */
static void pass_front(struct grpc_call *c, size_t bytes)
{
    while (bytes > 0) {
        if (c->front_left == 0)
            c->front_left =
                GRPC_PREFIX_BYTES + (size_t)grpc_big_endian(c->out.data + c->out_at + 1);
        size_t part = bytes < c->front_left ? bytes : c->front_left;
        c->front_left -= part;
        c->out_at += part;
        bytes -= part;
    }
}

static size_t take_queued(struct grpc_call *c, uint8_t *out, size_t length)
{
    size_t n = grpc_send_queued_bytes(c) < length ? grpc_send_queued_bytes(c) : length;
    if (n > 0)
        memcpy(out, c->out.data + c->out_at, n);
    pass_front(c, n);
    if (grpc_send_queued_bytes(c) == 0) {
        c->out_at = 0;
        buf_clear(&c->out);
        if (c->out.capacity_bytes > GRPC_KEEP_BYTES)
            buf_done(&c->out);
    }
    if (c->want_room && grpc_send_queued_bytes(c) <= c->g->limits.send_queue_bytes / 2) {
        c->want_room = false;
        c->writable_due = true;
        grpc_call_later(c);
    }
    return n;
}

/* nghttp2 asks for DATA of a stream. */
ssize_t grpc_call_read(nghttp2_session *h2, int32_t stream_id, uint8_t *out, size_t length,
                       uint32_t *flags, nghttp2_data_source *source, void *user_data)
{
    (void)h2, (void)source;
    struct grpc_call *c = grpc_call_find(user_data, stream_id);
    if (!c || c->over)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t n = take_queued(c, out, length);
    if (grpc_send_queued_bytes(c) > 0)
        return (ssize_t)n;
    if (!c->ended)
        return n > 0 ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (c->g->server) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (!c->trailers_submitted)
            grpc_call_submit_trailers(c);
    }
    return (ssize_t)n;
}

/* Fails harmlessly when the stream was not waiting. */
void grpc_call_resume_data(struct grpc_call *c)
{
    grpc_broke(c->g, nghttp2_session_resume_data(c->g->h2, c->id));
    grpc_wake(c->g);
}

static int start_response(struct grpc_call *c)
{
    nghttp2_nv nv[] = {
        grpc_field(":status", span_str("200")),
        grpc_field("content-type", span_str("application/grpc")),
    };
    nghttp2_data_provider provider = {.read_callback = grpc_call_read};
    int r = nghttp2_submit_response(c->g->h2, c->id, nv, 2, &provider);
    if (r != 0) {
        grpc_broke(c->g, r);
        return ERR_CLOSED;
    }
    c->started = true;
    return 0;
}

static int append_message(struct grpc_call *c, struct span message)
{
    size_t bytes = GRPC_PREFIX_BYTES + message.size_bytes;
    if (c->out_at > 0 && (c->out_at >= grpc_send_queued_bytes(c) ||
                          bytes > c->out.limit_bytes - c->out.size_bytes)) {
        buf_consume(&c->out, c->out_at);
        c->out_at = 0;
    }
    uint8_t *room;
    int r = buf_reserve(&c->out, bytes, &room);
    if (r < 0)
        return r;
    uint32_t size = (uint32_t)message.size_bytes;
    const uint8_t prefix[GRPC_PREFIX_BYTES] = {0, (uint8_t)(size >> 24), (uint8_t)(size >> 16),
                                               (uint8_t)(size >> 8), (uint8_t)size};
    memcpy(room, prefix, sizeof prefix);
    if (size > 0)
        memcpy(room + sizeof prefix, message.data, size);
    buf_commit(&c->out, bytes);
    return 0;
}

int grpc_send(struct grpc_call *call, struct span message)
{
    const struct grpc_limits *l = &call->g->limits;
    if (!grpc_call_can_send(call))
        return ERR_CLOSED;
    if (message.size_bytes > call->out.limit_bytes - GRPC_PREFIX_BYTES)
        return ERR_INVALID;
    if (grpc_send_queued_bytes(call) > 0 &&
        grpc_send_queued_bytes(call) + GRPC_PREFIX_BYTES + message.size_bytes >
            l->send_queue_bytes) {
        call->want_room = true;
        return ERR_LIMIT;
    }
    int r = 0;
    if (call->g->server && !call->started)
        r = start_response(call);
    if (r == 0)
        r = append_message(call, message);
    if (r == 0)
        grpc_call_resume_data(call);
    return r;
}

void grpc_end(struct grpc_call *call)
{
    assert(!call->g->server);
    if (!grpc_call_can_send(call))
        return;
    call->ended = true;
    grpc_call_resume_data(call);
}

size_t grpc_send_queued_bytes(const struct grpc_call *call)
{
    return call->out.size_bytes - call->out_at;
}
