/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nghttp2 session of a connection: how it is set up, what it tells us, and what of that is too
 * much. Invariant: nothing here calls the owner but through grpc_head.c (a new call) and
 * grpc_call.c (a message); a limit that is passed ends the connection with GOAWAY
 * ENHANCE_YOUR_CALM. Called by grpc.c. Specification: RFC 9113.
 */
#include "proto/grpc_internal.h"

#include <string.h>

#include "common/text.h"

#define DEFLATE_BYTES 1024 /* our side's HPACK table: a few repeated paths */

const uint8_t GRPC_DRAIN_PING[GRPC_OPAQUE_BYTES] = "trawl-d";

void grpc_calm(struct grpc *g, const char *why)
{
    if (g->fail_code != 0)
        return;
    g->refused++;
    grpc_broke(g, nghttp2_session_terminate_session(g->h2, NGHTTP2_ENHANCE_YOUR_CALM));
    grpc_fail(g, ERR_LIMIT, why);
}

/* ---- what nghttp2 tells ---- */

/* nghttp2 has refused already what is over MAX_CONCURRENT_STREAMS, also before we hear its ack. */
static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *user_data)
{
    (void)h2;
    struct grpc *g = user_data;
    if (!g->server || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    return grpc_call_open(g, frame->hd.stream_id) ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_bytes, const uint8_t *value, size_t value_bytes, uint8_t flags,
                     void *user_data)
{
    (void)h2, (void)flags;
    struct grpc_call *c = grpc_call_find(user_data, frame->hd.stream_id);
    if (c)
        grpc_head_field(c, span_of(name, name_bytes), span_of(value, value_bytes));
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *data,
                   size_t length, void *user_data)
{
    (void)flags;
    struct grpc *g = user_data;
    /* The connection's window is given back at once: a paused call must not stop the others. What a
     * call may hold is bounded by its own window. */
    if (grpc_broke(g, nghttp2_session_consume_connection(h2, length)))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    struct grpc_call *c = grpc_call_find(g, stream_id);
    if (c)
        grpc_call_receive(c, span_of(data, length));
    return 0;
}

static void got_stream_frame(struct grpc *g, const nghttp2_frame *frame)
{
    bool last = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    struct grpc_call *c = grpc_call_find(g, frame->hd.stream_id);
    if (!c)
        return;
    if (frame->hd.type == NGHTTP2_HEADERS) {
        if (!g->server)
            grpc_head_response_done(c, last);
        else if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            grpc_head_request_done(c);
    }
    if (last)
        grpc_call_peer_ended(c);
}

/* Clients end calls that were answered early with NO_ERROR; every other reset costs us work. */
static void got_reset(struct grpc *g, const nghttp2_frame *frame)
{
    const struct grpc_call *c = grpc_call_find(g, frame->hd.stream_id);
    bool fair = frame->rst_stream.error_code == NGHTTP2_NO_ERROR && (!c || c->ended);
    if (g->server && !fair && !grpc_rate_take(&g->resets, g->limits.resets_per_s, g->now_us))
        grpc_calm(g, "peer resets calls too often");
}

static void got_ping(struct grpc *g, const nghttp2_frame *frame)
{
    if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
        if (g->draining && memcmp(frame->ping.opaque_data, GRPC_DRAIN_PING, GRPC_OPAQUE_BYTES) == 0)
            grpc_drain_finally(g);
        return;
    }
    bool earned = g->ping_earned;
    g->ping_earned = false;
    if (!earned && !grpc_rate_take(&g->pings, g->limits.pings_per_s, g->now_us))
        grpc_calm(g, "peer sends too many PING frames");
}

/* Without an error: no new calls, please. With one the peer is about to close. */
static void got_goaway(struct grpc *g, const nghttp2_frame *frame)
{
    struct failure f;
    g->peer_draining = true;
    if (frame->goaway.error_code == NGHTTP2_NO_ERROR)
        return;
    fail(&f, ERR_CLOSED, "peer ended the connection: %s",
         nghttp2_http2_strerror(frame->goaway.error_code));
    grpc_fail(g, ERR_CLOSED, f.text);
}

static int on_frame_recv(nghttp2_session *h2, const nghttp2_frame *frame, void *user_data)
{
    (void)h2;
    struct grpc *g = user_data;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        got_stream_frame(g, frame);
        break;
    case NGHTTP2_RST_STREAM:
        got_reset(g, frame);
        break;
    case NGHTTP2_PING:
        got_ping(g, frame);
        break;
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK) &&
            !grpc_rate_take(&g->pings, g->limits.pings_per_s, g->now_us))
            grpc_calm(g, "peer sends too many SETTINGS frames");
        break;
    case NGHTTP2_GOAWAY:
        got_goaway(g, frame);
        break;
    default:
        break;
    }
    return 0;
}

/* Resets that the peer makes us send cost as much as those it sends itself. */
static void sent_reset(struct grpc *g, uint32_t http2_error)
{
    if (http2_error == NGHTTP2_REFUSED_STREAM)
        g->refused++;
    bool ours = http2_error == NGHTTP2_NO_ERROR || http2_error == NGHTTP2_CANCEL ||
                http2_error == NGHTTP2_REFUSED_STREAM;
    if (g->server && !ours && !grpc_rate_take(&g->resets, g->limits.resets_per_s, g->now_us))
        grpc_calm(g, "peer breaks calls too often");
}

/* The answer is complete; a peer that still sends is told to stop, without blame. */
static void sent_trailers(struct grpc *g, int32_t stream_id)
{
    struct grpc_call *c = grpc_call_find(g, stream_id);
    if (c)
        c->trailers_sent = true;
    if (nghttp2_session_get_stream_remote_close(g->h2, stream_id) == 0)
        grpc_broke(
            g, nghttp2_submit_rst_stream(g->h2, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_NO_ERROR));
}

static int on_frame_send(nghttp2_session *h2, const nghttp2_frame *frame, void *user_data)
{
    (void)h2;
    struct grpc *g = user_data;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        g->ping_earned = true;
        if (g->server && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
            sent_trailers(g, frame->hd.stream_id);
        break;
    case NGHTTP2_DATA:
        g->ping_earned = true;
        break;
    case NGHTTP2_RST_STREAM:
        sent_reset(g, frame->rst_stream.error_code);
        break;
    case NGHTTP2_GOAWAY:
        /* nghttp2 found a violation by itself; the text came through on_error(). */
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR)
            grpc_fail(g, ERR_PROTOCOL, g->said[0] ? g->said : "peer broke the HTTP/2 protocol");
        break;
    default:
        break;
    }
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t stream_id, uint32_t http2_error,
                           void *user_data)
{
    (void)h2;
    struct grpc_call *c = grpc_call_find(user_data, stream_id);
    if (c)
        grpc_call_stream_closed(c, http2_error);
    return 0;
}

static int on_error(nghttp2_session *h2, int code, const char *text, size_t length, void *user_data)
{
    (void)h2, (void)code;
    struct grpc *g = user_data;
    text_copy_span(g->said, sizeof g->said, span_of(text, length));
    return 0;
}

/* ---- setting up ---- */

static int new_callbacks(nghttp2_session_callbacks **out)
{
    nghttp2_session_callbacks *cb;
    int r = nghttp2_session_callbacks_new(&cb);
    if (r != 0)
        return r;
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_error_callback2(cb, on_error);
    *out = cb;
    return 0;
}

static int new_options(nghttp2_option **out, const struct grpc_limits *l)
{
    nghttp2_option *o;
    int r = nghttp2_option_new(&o);
    if (r != 0)
        return r;
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_deflate_dynamic_table_size(o, DEFLATE_BYTES);
    nghttp2_option_set_max_reserved_remote_streams(o, 0);
    nghttp2_option_set_max_outbound_ack(o, 4 * (size_t)l->pings_per_s);
    /* nghttp2's own limit reads the machine's clock; resets_per_s is stricter and uses ours. */
    nghttp2_option_set_stream_reset_rate_limit(o, UINT64_MAX, UINT64_MAX);
    *out = o;
    return 0;
}

static int submit_settings(struct grpc *g)
{
    const struct grpc_limits *l = &g->limits;
    const nghttp2_settings_entry iv[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, g->server ? l->max_calls : 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, l->window_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, l->header_list_bytes},
    };
    /* ENABLE_PUSH is the client's to send. */
    size_t first = g->server ? 1 : 0;
    int r = nghttp2_submit_settings(g->h2, NGHTTP2_FLAG_NONE, iv + first, 4 - first);
    if (r == 0)
        r = nghttp2_session_set_local_window_size(g->h2, NGHTTP2_FLAG_NONE, 0,
                                                  (int32_t)(4 * l->window_bytes));
    return r;
}

int grpc_session_open(struct grpc *g)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *option = NULL;
    nghttp2_mem *mem = (nghttp2_mem *)g->mem; /* not changed, only not const there */
    int r = new_callbacks(&cb);
    if (r == 0)
        r = new_options(&option, &g->limits);
    if (r == 0)
        r = g->server ? nghttp2_session_server_new3(&g->h2, cb, g, option, mem)
                      : nghttp2_session_client_new3(&g->h2, cb, g, option, mem);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    return r == 0 ? submit_settings(g) : r;
}
