/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection: the nghttp2 session, its clock, its limits and how it ends. Invariant: nghttp2 is
 * entered from feed and pull only, and when it has returned every call that something happened to
 * is settled, so the owner's callbacks find no half-made state. Called by whoever owns the bytes:
 * listener, uplink, cli client. Specifications: RFC 9113, PROTOCOL-HTTP2.md of gRPC.
 */
#include "proto/grpc_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#ifndef TRAWL_VERSION
#define TRAWL_VERSION "0"
#endif

#define PULL_BYTES (64 * 1024)
#define PULL_FRAME_BYTES (17 * 1024) /* no frame that nghttp2 hands out is larger */
#define QUEUED_FRAMES 512            /* replies that the peer does not read */
#define DRAIN_NOTICE_US 1000000

static const uint8_t KEEPALIVE_PING[GRPC_OPAQUE_BYTES] = "trawl-k";

/* ---- memory ---- */

void *grpc_alloc(const nghttp2_mem *mem, size_t size_bytes)
{
    return mem ? mem->calloc(1, size_bytes, mem->mem_user_data) : calloc(1, size_bytes);
}

void grpc_free(const nghttp2_mem *mem, void *data)
{
    if (mem)
        mem->free(data, mem->mem_user_data);
    else
        free(data);
}

/* ---- how a connection fails ---- */

void grpc_fail(struct grpc *g, int code, const char *why)
{
    if (g->fail_code != 0)
        return;
    g->fail_code = code;
    text_copy(g->fail_text, sizeof g->fail_text, why);
}

static int report_failure(const struct grpc *g, struct failure *f)
{
    return fail(f, g->fail_code, "%s", g->fail_text);
}

bool grpc_broke(struct grpc *g, int rv)
{
    if (!nghttp2_is_fatal(rv))
        return false;
    switch (rv) {
    case NGHTTP2_ERR_NOMEM:
        grpc_fail(g, ERR_NOMEM, err_text(ERR_NOMEM));
        break;
    case NGHTTP2_ERR_FLOODED:
        g->refused++;
        grpc_fail(g, ERR_LIMIT, "peer floods the connection with control frames");
        break;
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
        grpc_fail(g, ERR_PROTOCOL, "peer does not speak HTTP/2");
        break;
    default:
        grpc_fail(g, ERR_PROTOCOL, nghttp2_strerror(rv));
    }
    return true;
}

void grpc_wake(struct grpc *g)
{
    if (g->busy == 0 && !g->closing && g->events->wake)
        g->events->wake(g->owner);
}

/* ---- open and close ---- */

static void or_default(uint32_t *member, uint32_t value)
{
    if (*member == 0)
        *member = value;
}

static void set_limits(struct grpc_limits *l, const struct grpc_limits *given)
{
    const uint32_t rate_max = 1000000;
    if (given)
        *l = *given;
    or_default(&l->max_calls, 16);
    or_default(&l->max_message_bytes, 4 * 1024 * 1024);
    or_default(&l->send_queue_bytes, 1024 * 1024);
    or_default(&l->window_bytes, 256 * 1024);
    or_default(&l->header_list_bytes, 8 * 1024);
    or_default(&l->resets_per_s, 20);
    or_default(&l->pings_per_s, 20);
    or_default(&l->keepalive_ms, 20000);
    or_default(&l->keepalive_timeout_ms, 10000);
    assert(l->window_bytes <= INT32_MAX / 4 && l->max_message_bytes <= INT32_MAX);
    assert(l->resets_per_s <= rate_max && l->pings_per_s <= rate_max);
}

int grpc_open_with(struct grpc **out, bool server, const struct grpc_limits *limits,
                   const struct grpc_events *events, void *owner, const char *authority,
                   uint64_t mono_us, const nghttp2_mem *mem)
{
    struct grpc *g = grpc_alloc(mem, sizeof *g);
    if (!g)
        return ERR_NOMEM;
    g->mem = mem;
    g->server = server;
    g->events = events;
    g->owner = owner;
    g->now_us = g->heard_us = mono_us;
    list_init(&g->calls);
    list_init(&g->todo);
    set_limits(&g->limits, limits);
    size_t length = strlen(authority) + 1;
    g->authority = grpc_alloc(mem, length);
    if (!g->authority)
        goto out;
    memcpy(g->authority, authority, length);
    if (grpc_session_open(g) != 0)
        goto out;
    *out = g;
    grpc_wake(g);
    return 0;
out:
    nghttp2_session_del(g->h2);
    grpc_free(mem, g->authority);
    grpc_free(mem, g);
    return ERR_NOMEM;
}

int grpc_open_server(struct grpc **out, const struct grpc_limits *limits,
                     const struct grpc_events *events, void *owner, uint64_t mono_us)
{
    return grpc_open_with(out, true, limits, events, owner, "", mono_us, NULL);
}

int grpc_open_client(struct grpc **out, const struct grpc_limits *limits,
                     const struct grpc_events *events, void *owner, const char *authority,
                     uint64_t mono_us)
{
    return grpc_open_with(out, false, limits, events, owner, authority, mono_us, NULL);
}

void grpc_close(struct grpc *g, const char *why)
{
    if (!g)
        return;
    assert(g->busy == 0);
    g->busy++;
    g->closing = true;
    struct list *link;
    while ((link = list_first(&g->calls)) != NULL) {
        struct grpc_call *c = LIST_ENTRY(link, struct grpc_call, link);
        grpc_call_over(c, GRPC_UNAVAILABLE, ERR_CLOSED, why ? why : err_text(ERR_CLOSED));
        grpc_call_retire(c);
    }
    nghttp2_session_del(g->h2);
    grpc_free(g->mem, g->authority);
    grpc_free(g->mem, g);
}

/* ---- draining ---- */

void grpc_drain_finally(struct grpc *g)
{
    if (g->drain_is_final)
        return;
    g->drain_is_final = true;
    int32_t last = g->server ? nghttp2_session_get_last_proc_stream_id(g->h2) : 0;
    grpc_broke(g, nghttp2_submit_goaway(g->h2, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0));
}

void grpc_drain(struct grpc *g)
{
    if (g->draining || g->fail_code != 0)
        return;
    g->draining = true;
    if (g->server) {
        /* RFC 9113 section 6.8: a notice first, so that calls already on their way are served. */
        g->clock_waits = true;
        grpc_broke(g, nghttp2_submit_shutdown_notice(g->h2));
        grpc_broke(g, nghttp2_submit_ping(g->h2, NGHTTP2_FLAG_NONE, GRPC_DRAIN_PING));
    } else {
        grpc_drain_finally(g);
    }
    grpc_wake(g);
}

bool grpc_is_idle_after_drain(const struct grpc *g)
{
    return g->call_count == 0 && ((g->draining && g->drain_is_final) || g->peer_draining);
}

/* ---- feed, pull, tick ---- */

/* A timeout given since the last time begins now; time never goes back. */
static void enter(struct grpc *g, uint64_t mono_us)
{
    assert(g->busy == 0);
    g->busy++;
    if (mono_us > g->now_us)
        g->now_us = mono_us;
    if (!g->clock_waits)
        return;
    g->clock_waits = false;
    LIST_EACH (link, &g->calls) {
        struct grpc_call *c = LIST_ENTRY(link, struct grpc_call, link);
        if (c->timeout_us > 0)
            c->deadline_us = g->now_us + c->timeout_us;
        c->timeout_us = 0;
    }
    if (g->draining && g->drain_us == 0)
        g->drain_us = g->now_us + DRAIN_NOTICE_US;
}

static void settle_all(struct grpc *g)
{
    struct list *link;
    while ((link = list_first(&g->todo)) != NULL) {
        list_remove(link);
        grpc_call_settle(LIST_ENTRY(link, struct grpc_call, todo));
    }
}

static void leave(struct grpc *g)
{
    settle_all(g);
    g->busy--;
    if (nghttp2_session_want_write(g->h2))
        grpc_wake(g);
}

int grpc_feed(struct grpc *g, struct span bytes, uint64_t mono_us, struct failure *f)
{
    if (g->fail_code != 0)
        return report_failure(g, f);
    enter(g, mono_us);
    if (bytes.size_bytes > 0) {
        g->heard_us = g->now_us;
        g->ping_out = false;
        ssize_t n = nghttp2_session_mem_recv(g->h2, bytes.data, bytes.size_bytes);
        if (n < 0)
            grpc_broke(g, (int)n);
        if (nghttp2_session_get_outbound_queue_size(g->h2) > QUEUED_FRAMES)
            grpc_calm(g, "peer does not read the answers to what it sends");
    }
    leave(g);
    return g->fail_code != 0 ? report_failure(g, f) : 0;
}

static bool has_room(const struct buf *out)
{
    return out->size_bytes < PULL_BYTES && out->limit_bytes - out->size_bytes >= PULL_FRAME_BYTES;
}

/* Moves frames until there is no more or no room; whether it ended for want of frames. */
static bool pull_frames(struct grpc *g, struct buf *out)
{
    while (has_room(out)) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(g->h2, &data);
        if (n < 0)
            grpc_broke(g, (int)n);
        if (n <= 0)
            return true;
        /* The frame is lost, and with it the connection. */
        int r = buf_append(out, data, (size_t)n);
        if (r < 0) {
            grpc_fail(g, r, err_text(r));
            return true;
        }
    }
    return false;
}

int grpc_pull(struct grpc *g, struct buf *out, uint64_t mono_us, struct failure *f)
{
    size_t before = out->size_bytes;
    enter(g, mono_us);
    do
        settle_all(g);
    while (pull_frames(g, out) && !list_empty(&g->todo));
    leave(g);
    /* The last words go out first; the next call reports. */
    if (g->fail_code != 0 && out->size_bytes == before)
        return report_failure(g, f);
    return 0;
}

static void expire_calls(struct grpc *g)
{
    LIST_EACH (link, &g->calls) {
        struct grpc_call *c = LIST_ENTRY(link, struct grpc_call, link);
        if (c->deadline_us <= g->now_us)
            grpc_call_expire(c);
    }
}

/* Returns whether the peer is still there. */
static bool keep_alive(struct grpc *g)
{
    uint64_t timeout_us = g->limits.keepalive_timeout_ms * UINT64_C(1000);
    if (g->ping_out)
        return g->now_us - g->pinged_us < timeout_us;
    if (g->now_us - g->heard_us >= g->limits.keepalive_ms * UINT64_C(1000)) {
        g->ping_out = true;
        g->pinged_us = g->now_us;
        grpc_broke(g, nghttp2_submit_ping(g->h2, NGHTTP2_FLAG_NONE, KEEPALIVE_PING));
    }
    return true;
}

static uint64_t next_event_us(const struct grpc *g)
{
    uint64_t next = g->ping_out ? g->pinged_us + g->limits.keepalive_timeout_ms * UINT64_C(1000)
                                : g->heard_us + g->limits.keepalive_ms * UINT64_C(1000);
    if (g->draining && !g->drain_is_final && g->drain_us < next)
        next = g->drain_us;
    LIST_EACH (link, &g->calls) {
        const struct grpc_call *c = LIST_ENTRY(link, struct grpc_call, link);
        if (c->deadline_us < next)
            next = c->deadline_us;
    }
    return next;
}

int grpc_tick(struct grpc *g, uint64_t mono_us, uint64_t *next_us, struct failure *f)
{
    enter(g, mono_us);
    expire_calls(g);
    if (g->draining && g->drain_us <= g->now_us)
        grpc_drain_finally(g);
    if (!keep_alive(g))
        grpc_fail(g, ERR_TIMEOUT, "peer does not answer");
    leave(g);
    if (g->fail_code != 0)
        return report_failure(g, f);
    *next_us = next_event_us(g);
    return 0;
}

size_t grpc_call_count(const struct grpc *g)
{
    return g->call_count;
}

uint64_t grpc_refused_count(const struct grpc *g)
{
    return g->refused;
}

/* ---- starting a call ---- */

static int submit_request(struct grpc *g, const char *path, uint64_t timeout_us)
{
    char timeout[GRPC_TIMEOUT_SIZE];
    nghttp2_nv nv[] = {
        grpc_field(":method", span_str("POST")),
        grpc_field(":scheme", span_str("https")),
        grpc_field(":path", span_str(path)),
        grpc_field(":authority", span_str(g->authority)),
        grpc_field("te", span_str("trailers")),
        grpc_field("content-type", span_str("application/grpc")),
        grpc_field("user-agent", span_str("trawl/" TRAWL_VERSION)),
        {0},
    };
    size_t n = sizeof nv / sizeof nv[0] - 1;
    if (timeout_us > 0) {
        grpc_timeout_format(timeout_us, timeout);
        nv[n++] = grpc_field("grpc-timeout", span_str(timeout));
    }
    nghttp2_data_provider provider = {.read_callback = grpc_call_read};
    return nghttp2_submit_request(g->h2, NULL, nv, n, &provider, NULL);
}

static int may_start(struct grpc *g, struct failure *f)
{
    if (g->fail_code != 0)
        return fail(f, ERR_CLOSED, "connection is closing: %s", g->fail_text);
    if (g->closing || g->draining || g->peer_draining ||
        !nghttp2_session_check_request_allowed(g->h2))
        return fail(f, ERR_CLOSED, "connection is closing");
    if (g->call_count >= g->limits.max_calls)
        return fail(f, ERR_LIMIT, "more than %u calls at once", g->limits.max_calls);
    return 0;
}

int grpc_start(struct grpc *g, const char *path, uint64_t timeout_us,
               const struct grpc_call_events *events, void *owner, struct grpc_call **out,
               struct failure *f)
{
    assert(!g->server);
    int r = may_start(g, f);
    if (r < 0)
        return r;
    struct grpc_call *c = grpc_call_open(g, 0);
    if (!c)
        return fail(f, ERR_NOMEM, "cannot start a call: %s", err_text(ERR_NOMEM));
    c->id = submit_request(g, path, timeout_us);
    if (c->id <= 0) {
        grpc_broke(g, c->id);
        grpc_call_retire(c);
        return fail(f, ERR_CLOSED, "cannot start a call: connection is used up");
    }
    c->events = events;
    c->owner = owner;
    c->announced = true;
    c->timeout_us = timeout_us;
    g->clock_waits = true;
    *out = c;
    grpc_wake(g);
    return 0;
}
