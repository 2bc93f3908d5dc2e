/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listeners, peers and calls: glue between conn (bytes), grpc (calls) and the handlers' tables.
 * Invariant: a call reaches a handler only if method_allowed() said yes for the role in the peer's
 * certificate; a peer of the join listener has the joining role and no other.
 */
#include "collector/serve.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "collector/authority.h"
#include "collector/roster.h"
#include "common/conn.h"
#include "common/log.h"

#define MAX_CALLS_AGENT 16
#define MAX_CALLS_PERSON 100
#define DRAIN_LOOK_MS 20
/* The largest request is a piece with its description. Who joins has no certificate yet. */
#define REQUEST_MAX_BYTES (256 * 1024)
#define AGENT_QUEUE_BYTES (4u * 1024 * 1024)
#define JOIN_REQUEST_MAX_BYTES (16 * 1024)
#define JOIN_MAX_CALLS 2
#define JOIN_MAX_CONNECTIONS 256
#define JOIN_MAX_US 30000000ull

struct peer {
    struct list link; /* listener->peers */
    struct listener *listener;
    struct conn *conn;
    struct grpc *grpc;
    uv_timer_t timer;
    unsigned role;
    bool joining;
    uint64_t opened_us;
    struct list calls;
};

struct door { /* one listening socket */
    struct listener *listener;
    struct conn_listener *socket;
    struct tls_config *tls;
    bool joining;
};

struct listener {
    struct collector *collector;
    struct door main, join;
    struct list peers;
    uint32_t peer_count;
    bool draining;
    uv_timer_t grace;
    void (*stopped)(void *context);
    void *stopped_context;
    int open_handles;
};

static const struct handler *const tables[] = {fleet_handlers, upload_handlers,  join_handlers,
                                               host_handlers,  counter_handlers, incident_handlers,
                                               tool_handlers,  symbol_handlers,  exception_handlers,
                                               group_handlers, brake_handlers,   rule_handlers};

/* Tables end with a row without functions. */
static const struct handler *find_handler(enum method_id id)
{
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        for (const struct handler *h = tables[i]; h->message; h++)
            if (h->method == id)
                return h;
    return NULL;
}

/* ---- calls ---- */

/* What was sent is taken off the queue once, at the end: it may be long. */
static int send_queued(struct call *call)
{
    struct span rest = buf_span(&call->queue), message;
    size_t sent = 0;
    uint32_t size;
    int e = 0;
    while (!e && !span_take_u32(&rest, &size) && !span_take(&rest, size, &message)) {
        e = grpc_send(call->grpc, message);
        if (!e)
            sent += 4 + (size_t)size;
    }
    buf_consume(&call->queue, sent);
    return e;
}

static void flush_queue(struct call *call)
{
    int e = send_queued(call);
    if (e == ERR_LIMIT)
        return;
    if (e) {
        buf_clear(&call->queue);
        if (!call->verdict.code)
            fail(&call->verdict, e, "the answer could not be sent: %s", err_text(e));
        call->finishing = true;
    }
    if (!call->finishing)
        return;
    if (call->verdict.code)
        grpc_finish_failure(call->grpc, &call->verdict);
    else
        grpc_finish(call->grpc, GRPC_OK, "");
}

bool call_is_full(const struct call *call)
{
    return call->queue.size_bytes > 0;
}

int call_reply(struct call *call, struct span message)
{
    if (call->finishing)
        return ERR_CLOSED;
    if (!call->queue.size_bytes) {
        int e = grpc_send(call->grpc, message);
        if (e != ERR_LIMIT)
            return e;
    }
    int e = buf_append_u32(&call->queue, (uint32_t)message.size_bytes);
    if (!e)
        e = buf_append_span(&call->queue, message);
    if (e) {
        struct failure f;
        fail(&f, ERR_LIMIT, "answer is too large: ask for fewer hosts, counters or a shorter time");
        buf_clear(&call->queue);
        call_finish(call, &f);
    }
    return e;
}

void call_finish(struct call *call, const struct failure *f)
{
    if (call->finishing)
        return;
    call->finishing = true;
    if (f)
        call->verdict = *f;
    flush_queue(call);
}

void call_answer(struct call *call, struct span message)
{
    if (!call_reply(call, message))
        call_finish(call, NULL);
}

static bool takes_one_request(const struct call *call)
{
    return call->method->streaming == METHOD_UNARY || call->method->streaming == METHOD_SERVER;
}

static int on_message(void *owner, struct grpc_call *grpc, struct span message)
{
    (void)grpc;
    struct call *call = owner;
    if (call->finishing)
        return 0;
    struct failure f = {0};
    int e = 0;
    if (call->messages++ && takes_one_request(call))
        fail(&f, ERR_PROTOCOL, "'%s' takes one request", call->method->path);
    else
        e = call->handler->message(call, message, &f);
    if (e < 0 && !f.code) /* no call may hang for want of a text */
        fail(&f, e, "'%s' failed: %s", call->method->path, err_text(e));
    if (f.code)
        call_finish(call, &f);
    return 0;
}

static void on_end(void *owner, struct grpc_call *grpc)
{
    (void)grpc;
    struct call *call = owner;
    struct failure f = {0};
    if (call->finishing)
        return;
    if (!call->messages && takes_one_request(call))
        fail(&f, ERR_PROTOCOL, "'%s' came without its request", call->method->path);
    else if (call->handler->end)
        call->handler->end(call, &f);
    if (f.code)
        call_finish(call, &f);
}

static void on_writable(void *owner, struct grpc_call *grpc)
{
    (void)grpc;
    struct call *call = owner;
    flush_queue(call);
    if (call->handler->more && !call->finishing && !call_is_full(call))
        call->handler->more(call);
}

static void on_done(void *owner, struct grpc_call *grpc, enum grpc_status status, const char *text)
{
    (void)grpc, (void)status, (void)text;
    struct call *call = owner;
    if (call->handler->ended)
        call->handler->ended(call);
    list_remove(&call->link);
    buf_done(&call->queue);
    free(call);
}

static const struct grpc_call_events call_events = {on_message, on_end, on_writable, on_done};

static int on_call(void *owner, struct grpc_call *grpc, const char *path,
                   const struct grpc_call_events **events, void **call_owner, struct failure *f)
{
    struct peer *peer = owner;
    const struct pki_identity *who = conn_peer(peer->conn);
    const struct method *method = method_find(path);
    if (!method)
        return fail(f, ERR_UNSUPPORTED, "no method '%s' here", path);
    if (!method_allowed(method, peer->role)) {
        log_warn("denied: role '%s' name '%s' at %s may not call %s", who->role, who->name,
                 conn_address(peer->conn), path);
        return fail(f, ERR_DENIED, "role '%s' may not call '%s'",
                    peer->joining ? "joining" : who->role, path);
    }
    struct call *call = calloc(1, sizeof(*call));
    if (!call)
        return fail(f, ERR_NOMEM, "out of memory");
    call->collector = peer->listener->collector;
    call->peer = peer;
    call->who = who;
    call->address = conn_address(peer->conn);
    call->grpc = grpc;
    call->method = method;
    call->handler = find_handler(method->id);
    buf_init(&call->queue, peer->role == METHOD_ROLE_AGENT ? AGENT_QUEUE_BYTES : CALL_QUEUE_BYTES);
    assert(call->handler);
    list_push(&peer->calls, &call->link);
    *events = &call_events;
    *call_owner = call;
    return 0;
}

/* ---- peers ---- */

static void arm_timer(struct peer *peer);

static void on_timer(uv_timer_t *timer)
{
    struct peer *peer = timer->data;
    arm_timer(peer);
}

static void arm_timer(struct peer *peer)
{
    uint64_t now = peer->listener->collector->clock->mono_us(peer->listener->collector->clock);
    uint64_t next = UINT64_MAX;
    struct failure f = {0};
    if (grpc_tick(peer->grpc, now, &next, &f)) {
        conn_abort(peer->conn, f.code, f.text);
        return;
    }
    bool overdue = peer->joining && now - peer->opened_us >= JOIN_MAX_US;
    if (overdue || (peer->listener->draining && grpc_is_idle_after_drain(peer->grpc))) {
        conn_close(peer->conn);
        return;
    }
    if (peer->joining && peer->opened_us + JOIN_MAX_US < next)
        next = peer->opened_us + JOIN_MAX_US;
    uint64_t wait_ms = next == UINT64_MAX ? 60000 : next <= now ? 1 : (next - now) / 1000 + 1;
    if (peer->listener->draining && wait_ms > DRAIN_LOOK_MS)
        wait_ms = DRAIN_LOOK_MS;
    uv_timer_start(&peer->timer, on_timer, wait_ms, 0);
}

static void on_wake(void *owner)
{
    struct peer *peer = owner;
    conn_wake(peer->conn);
}

static const struct grpc_events grpc_server_events = {on_call, on_wake};

static int on_opened(void *owner, struct conn *conn)
{
    struct peer *peer = owner;
    struct collector *c = peer->listener->collector;
    const struct pki_identity *who = conn_peer(conn);
    peer->role = peer->joining ? METHOD_ROLE_JOINING : method_role(who->role);
    bool agent = peer->role == METHOD_ROLE_AGENT;
    struct grpc_limits limits = {.max_calls = agent ? MAX_CALLS_AGENT : MAX_CALLS_PERSON,
                                 .max_message_bytes = REQUEST_MAX_BYTES,
                                 .resets_per_s = agent ? 0 : MAX_CALLS_PERSON};
    if (peer->joining)
        limits = (struct grpc_limits){.max_calls = JOIN_MAX_CALLS,
                                      .max_message_bytes = JOIN_REQUEST_MAX_BYTES};
    peer->opened_us = c->clock->mono_us(c->clock);
    if (grpc_open_server(&peer->grpc, &limits, &grpc_server_events, peer, peer->opened_us))
        return -1;
    log_debug("connected: role '%s' name '%s' at %s", who->role, who->name, conn_address(conn));
    arm_timer(peer);
    if (peer->listener->draining)
        grpc_drain(peer->grpc);
    conn_wake(conn);
    return 0;
}

static int on_feed(void *owner, struct span plain, struct failure *f)
{
    struct peer *peer = owner;
    struct collector *c = peer->listener->collector;
    int e = grpc_feed(peer->grpc, plain, c->clock->mono_us(c->clock), f);
    if (!e && grpc_is_idle_after_drain(peer->grpc))
        conn_close(peer->conn);
    if (!e && uv_timer_get_due_in(&peer->timer) > 1000)
        arm_timer(peer); /* a call with a deadline may have begun */
    return e;
}

static int on_pull(void *owner, struct buf *out, struct failure *f)
{
    struct peer *peer = owner;
    struct collector *c = peer->listener->collector;
    return grpc_pull(peer->grpc, out, c->clock->mono_us(c->clock), f);
}

static void maybe_stopped(struct listener *l)
{
    if (l->draining && !l->peer_count && !l->open_handles && l->stopped) {
        void (*stopped)(void *) = l->stopped;
        l->stopped = NULL;
        stopped(l->stopped_context);
    }
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct peer *peer = handle->data;
    struct listener *l = peer->listener;
    l->peer_count--;
    free(peer);
    maybe_stopped(l);
}

static void on_closed(void *owner, const struct failure *why)
{
    struct peer *peer = owner;
    if (peer->grpc) {
        const struct pki_identity *who = conn_peer(peer->conn);
        if (why->code)
            log_debug("connection of '%s' at %s ended: %s", who->name, conn_address(peer->conn),
                      why->text);
        grpc_close(peer->grpc, why->code ? why->text : "connection closed");
    }
    peer->grpc = NULL;
    list_remove(&peer->link);
    uv_close((uv_handle_t *)&peer->timer, on_timer_closed);
}

static const struct conn_events peer_events = {on_opened, on_feed, on_pull, on_closed};

/* ---- listeners ---- */

static int on_accepted(void *context, struct conn *conn, const struct conn_events **events,
                       void **owner)
{
    struct door *door = context;
    struct listener *l = door->listener;
    struct peer *peer = calloc(1, sizeof(*peer));
    if (!peer || l->draining) {
        free(peer);
        return -1;
    }
    peer->listener = l;
    peer->conn = conn;
    peer->joining = door->joining;
    list_init(&peer->calls);
    uv_timer_init(l->collector->loop, &peer->timer);
    peer->timer.data = peer;
    list_push(&l->peers, &peer->link);
    l->peer_count++;
    *events = &peer_events;
    *owner = peer;
    return 0;
}

static void on_turned_away(void *context, const char *address, const struct failure *why)
{
    (void)context;
    log_warn("turned away %s: %s", address, why->text);
}

static void on_door_closed(void *context)
{
    struct door *door = context;
    door->listener->open_handles--;
    maybe_stopped(door->listener);
}

static const struct conn_listener_events door_events = {on_accepted, on_turned_away,
                                                        on_door_closed};

static int open_door(struct door *door, enum tls_side side, uint64_t port, struct failure *f)
{
    struct collector *c = door->listener->collector;
    uint32_t most = (uint32_t)c->settings->max_connections;
    if (door->joining && most > JOIN_MAX_CONNECTIONS)
        most = JOIN_MAX_CONNECTIONS;
    int e = authority_tls(c->authority, side, roster_is_revoked, c->roster, &door->tls, f);
    if (e)
        return e;
    e = conn_listen(&door->socket, c->loop, door->tls, c->settings->listen, (uint16_t)port, most,
                    NULL, &door_events, door, f);
    if (!e)
        door->listener->open_handles++;
    return e;
}

static void on_grace_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;
    tls_config_close(l->main.tls);
    tls_config_close(l->join.tls);
    free(l);
}

int listener_open(struct listener **out, struct collector *c, struct failure *f)
{
    struct listener *l = calloc(1, sizeof(*l));
    if (!l)
        return fail(f, ERR_NOMEM, "out of memory");
    l->collector = c;
    list_init(&l->peers);
    uv_timer_init(c->loop, &l->grace);
    l->grace.data = l;
    l->main = (struct door){.listener = l};
    l->join = (struct door){.listener = l, .joining = true};
    int e = open_door(&l->main, TLS_SERVER, c->settings->port, f);
    if (!e && c->settings->join_port)
        e = open_door(&l->join, TLS_JOIN_SERVER, c->settings->join_port, f);
    if (e) {
        if (l->main.socket)
            conn_listener_close(l->main.socket);
        uv_run(c->loop, UV_RUN_NOWAIT);
        listener_close(l);
        return e;
    }
    *out = l;
    return 0;
}

static void on_grace(uv_timer_t *timer)
{
    struct listener *l = timer->data;
    LIST_EACH (at, &l->peers)
        conn_close(LIST_ENTRY(at, struct peer, link)->conn);
}

/* Calls that would go on for ever end now; the others get the grace. */
static void end_streams(struct peer *peer)
{
    struct failure f;
    fail(&f, ERR_CLOSED, "the collector stops");
    LIST_EACH (at, &peer->calls) {
        struct call *call = LIST_ENTRY(at, struct call, link);
        if (call->method->streaming == METHOD_BIDI || call->method->id == METHOD_OPS_WATCH ||
            call->method->id == METHOD_OPS_TOP || call->method->id == METHOD_OPS_EXCEPTIONS ||
            call->method->id == METHOD_HEALTH_WATCH)
            call_finish(call, &f);
    }
}

void listener_stop(struct listener *l, uint32_t grace_ms, void (*done)(void *context),
                   void *context)
{
    l->draining = true;
    l->stopped = done;
    l->stopped_context = context;
    conn_listener_close(l->main.socket);
    if (l->join.socket)
        conn_listener_close(l->join.socket);
    LIST_EACH (at, &l->peers) {
        struct peer *peer = LIST_ENTRY(at, struct peer, link);
        if (!peer->grpc) {
            conn_abort(peer->conn, ERR_CLOSED, "the collector stops");
            continue;
        }
        end_streams(peer);
        grpc_drain(peer->grpc);
        conn_wake(peer->conn);
        arm_timer(peer);
    }
    uv_timer_start(&l->grace, on_grace, grace_ms, 0);
}

void listener_close(struct listener *l)
{
    if (l)
        uv_close((uv_handle_t *)&l->grace, on_grace_closed);
}
