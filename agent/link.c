/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Glue: bytes from conn into grpc, bytes from grpc into conn, a timer for grpc's clock. A wish to
 * close that arises inside grpc is carried out when grpc has returned. Called by uplink and join.
 */
#include "agent/link.h"

#include <stdlib.h>

#include "common/port.h"
#include "common/text.h"

#define TICK_MS 1000
#define SEND_QUEUE_BYTES (128 * 1024)
#define WINDOW_BYTES (64 * 1024)

struct link {
    struct conn *conn;
    struct grpc *grpc;
    uv_timer_t timer;
    char authority[300];
    const struct link_events *events;
    void *owner;
    unsigned depth; /* inside grpc */
    bool wants_close;
    struct failure why;
};

static void enter(struct link *l)
{
    l->depth++;
}

static void leave(struct link *l)
{
    if (--l->depth == 0 && l->wants_close && l->conn) {
        l->wants_close = false;
        conn_close(l->conn);
    }
}

static void on_wake(void *owner)
{
    struct link *l = owner;
    if (l->conn)
        conn_wake(l->conn);
}

static const struct grpc_events grpc_events = {NULL, on_wake};

/* ---- conn events ---- */

static int on_opened(void *owner, struct conn *conn)
{
    static const struct grpc_limits limits = {
        .send_queue_bytes = SEND_QUEUE_BYTES,
        .window_bytes = WINDOW_BYTES,
    };
    struct link *l = owner;
    l->conn = conn;
    int e = grpc_open_client(&l->grpc, &limits, &grpc_events, l, l->authority, port_mono_us());
    if (e)
        return e;
    enter(l);
    l->events->opened(l->owner, l);
    leave(l);
    return 0;
}

static int on_feed(void *owner, struct span plain, struct failure *f)
{
    struct link *l = owner;
    enter(l);
    int e = grpc_feed(l->grpc, plain, port_mono_us(), f);
    leave(l);
    return e;
}

static int on_pull(void *owner, struct buf *out, struct failure *f)
{
    struct link *l = owner;
    if (!l->grpc)
        return 0;
    l->depth++; /* a close is not carried out inside a pull: conn asks again anyway */
    int e = grpc_pull(l->grpc, out, port_mono_us(), f);
    l->depth--;
    return e;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct link *l = handle->data;
    l->events->closed(l->owner, &l->why);
    free(l);
}

static void on_closed(void *owner, const struct failure *why)
{
    struct link *l = owner;
    l->conn = NULL;
    l->why = *why;
    struct grpc *grpc = l->grpc;
    l->grpc = NULL; /* calls that end now find no connection */
    grpc_close(grpc, why->code ? why->text : "connection closed");
    uv_close((uv_handle_t *)&l->timer, on_timer_closed);
}

static const struct conn_events conn_events = {on_opened, on_feed, on_pull, on_closed};

/* ---- clock ---- */

static void on_tick(uv_timer_t *timer)
{
    struct link *l = timer->data;
    struct failure f = {0};
    uint64_t next_us;
    if (!l->grpc || !l->conn)
        return;
    enter(l);
    int e = grpc_tick(l->grpc, port_mono_us(), &next_us, &f);
    leave(l);
    if (e && l->conn)
        conn_abort(l->conn, e, f.text);
    else if (l->wants_close && l->conn)
        conn_close(l->conn);
}

/* ---- opening ---- */

static void on_unused_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int link_open(struct link **out, uv_loop_t *loop, struct tls_config *config, const char *host,
              uint16_t port, const char *server_name, const struct link_events *events, void *owner,
              struct failure *f)
{
    struct link *l = calloc(1, sizeof *l);
    if (!l)
        return fail(f, ERR_NOMEM, "out of memory");
    l->events = events;
    l->owner = owner;
    l->timer.data = l;
    bool is_v6 = false;
    for (const char *at = host; *at; at++)
        is_v6 = is_v6 || *at == ':';
    text_format(l->authority, sizeof l->authority, is_v6 ? "[%s]:%u" : "%s:%u", host,
                (unsigned)port);
    if (uv_timer_init(loop, &l->timer)) {
        free(l);
        return fail(f, ERR_IO, "cannot make a timer");
    }
    int e = conn_connect(&l->conn, loop, config, host, port, server_name, NULL, &conn_events, l, f);
    if (e) {
        uv_close((uv_handle_t *)&l->timer, on_unused_closed);
        return e;
    }
    uv_timer_start(&l->timer, on_tick, TICK_MS, TICK_MS);
    *out = l;
    return 0;
}

void link_close(struct link *l)
{
    if (!l->conn)
        return;
    if (l->depth > 0)
        l->wants_close = true;
    else
        conn_close(l->conn);
}

struct grpc *link_grpc(struct link *l)
{
    return l->grpc;
}
