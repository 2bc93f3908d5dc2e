/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The glue of conn (bytes), grpc (calls) and a loop. Invariant: a call is in `waiting` until the
 * connection is open, then in `running` until its `done`; when a connection ends, all of both lists
 * end with its reason and the next call makes a new one. Called by the commands.
 */
#include "cli/client.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/conn.h"
#include "common/list.h"
#include "common/port.h"
#include "common/text.h"
#include "common/tls.h"
#include "proto/grpc.h"

#define REQUEST_LIMIT (64 * 1024)
#define AUTHORITY_SIZE 300
#define TICK_MAX_MS 60000
#define KEEPALIVE_MS 5000
#define KEEPALIVE_TIMEOUT_MS 5000

struct client {
    uv_loop_t loop;
    uv_timer_t tick, every, wait;
    uv_signal_t interrupt;
    struct tls_config *tls;
    char host[256], authority[AUTHORITY_SIZE];
    uint16_t port;

    struct conn *conn;   /* NULL: none */
    struct grpc *grpc;   /* NULL until the connection is open */
    struct failure lost; /* why the last connection ended */
    struct list waiting, running;

    client_hook_fn every_hook, interrupt_hook;
    void *every_owner, *interrupt_owner;
    bool stopped, closing;
};

struct client_call {
    struct list link;
    struct client *client;
    enum method_id method;
    struct buf request;
    client_feed_fn feed; /* NULL: one request */
    uint64_t timeout_us;
    const struct client_events *events;
    void *owner;
    struct grpc_call *grpc; /* NULL while waiting */
    struct failure why;     /* what `reply` said */
    bool enough;            /* ... and that it wants no more */
};

static void on_tick(uv_timer_t *timer);

/* ---- calls ---- */

static void end_call(struct client_call *call, const struct failure *why)
{
    const struct client_events *events = call->events;
    void *owner = call->owner;
    struct failure kept = *why;
    bool is_closing = call->client->closing;
    list_remove(&call->link);
    buf_done(&call->request);
    free(call);
    if (!is_closing)
        events->done(owner, &kept);
}

static int on_message(void *owner, struct grpc_call *grpc, struct span message)
{
    struct client_call *call = owner;
    (void)grpc;
    if (call->why.code || call->enough || !call->events->reply || call->client->closing)
        return call->why.code;
    int r = call->events->reply(call->owner, message, &call->why);
    if (r < 0 && call->why.code == 0)
        fail(&call->why, r, "%s", err_text(r));
    call->enough = r > 0;
    return r == 0 ? 0 : r < 0 ? r : ERR_CANCELLED;
}

/* The first true reason: what our side said, how the connection died, what the collector said. */
static void on_done(void *owner, struct grpc_call *grpc, enum grpc_status status, const char *text)
{
    struct client_call *call = owner;
    struct failure why = call->why;
    if (why.code == 0 && !call->enough && status != GRPC_OK) {
        int code = grpc_call_error(grpc);
        if (call->client->lost.code)
            why = call->client->lost;
        else
            fail(&why, code, "%s", text[0] ? text : err_text(code));
    }
    end_call(call, &why);
}

/* The first of a list, taken out of it; NULL when there is none. */
static struct client_call *pop_call(struct list *head)
{
    struct list *link = head->next;
    if (link == head)
        return NULL;
    head->next = link->next;
    link->next->prev = head;
    list_init(link);
    return LIST_ENTRY(link, struct client_call, link);
}

/* Requests, as long as they fit; one that does not waits for on_writable(). */
static void feed_call(struct client_call *call)
{
    int r = 1;
    while (r > 0 && call->why.code == 0) {
        if (!call->request.size_bytes)
            r = call->feed(call->owner, &call->request, &call->why);
        if (r <= 0)
            break;
        int sent = grpc_send(call->grpc, buf_span(&call->request));
        if (sent == ERR_LIMIT)
            return;
        if (sent < 0)
            r = fail(&call->why, sent, "cannot send the request: %s", err_text(sent));
        buf_clear(&call->request);
    }
    call->feed = NULL;
    if (r < 0 && call->why.code == 0)
        fail(&call->why, r, "%s", err_text(r));
    if (r < 0)
        grpc_cancel(call->grpc);
    else
        grpc_end(call->grpc);
}

static void on_writable(void *owner, struct grpc_call *grpc)
{
    struct client_call *call = owner;
    (void)grpc;
    if (call->feed && !call->client->closing)
        feed_call(call);
}

static const struct grpc_call_events CALL_EVENTS = {
    .message = on_message, .writable = on_writable, .done = on_done};

static void begin_call(struct client_call *call)
{
    struct client *c = call->client;
    struct failure f = {0};
    list_remove(&call->link);
    list_push(&c->running, &call->link);
    int r = grpc_start(c->grpc, method_by_id(call->method)->path, call->timeout_us, &CALL_EVENTS,
                       call, &call->grpc, &f);
    if (r < 0) {
        end_call(call, &f);
        return;
    }
    if (call->feed) {
        feed_call(call);
    } else {
        r = grpc_send(call->grpc, buf_span(&call->request));
        if (r < 0) {
            fail(&call->why, r, "cannot send the request: %s", err_text(r));
            grpc_cancel(call->grpc);
            return;
        }
        grpc_end(call->grpc);
    }
    /* Its deadline counts from here; not at once, for this may be inside a callback of grpc. */
    (void)uv_timer_start(&c->tick, on_tick, 0, 0);
}

/* ---- the connection ---- */

static void arm_tick(struct client *c)
{
    uint64_t now = port_mono_us(), next = UINT64_MAX;
    struct failure f = {0};
    if (!c->grpc || uv_is_closing((uv_handle_t *)&c->tick))
        return;
    if (grpc_tick(c->grpc, now, &next, &f) < 0) {
        conn_abort(c->conn, f.code, f.text);
        return;
    }
    uint64_t wait_ms = next == UINT64_MAX ? TICK_MAX_MS : next <= now ? 1 : (next - now) / 1000 + 1;
    (void)uv_timer_start(&c->tick, on_tick, wait_ms < TICK_MAX_MS ? wait_ms : TICK_MAX_MS, 0);
}

static void on_tick(uv_timer_t *timer)
{
    arm_tick(timer->data);
}

static void on_wake(void *owner)
{
    struct client *c = owner;
    if (c->conn)
        conn_wake(c->conn);
}

static const struct grpc_events GRPC_EVENTS = {.wake = on_wake};

static int on_opened(void *owner, struct conn *conn)
{
    struct client *c = owner;
    struct grpc_limits limits = {
        .max_calls = CLIENT_CALLS_MAX,
        .window_bytes = 1024 * 1024,
        .keepalive_ms = KEEPALIVE_MS,
        .keepalive_timeout_ms = KEEPALIVE_TIMEOUT_MS,
    };
    (void)conn;
    int r = grpc_open_client(&c->grpc, &limits, &GRPC_EVENTS, c, c->authority, port_mono_us());
    if (r < 0)
        return r;
    struct client_call *call;
    while ((call = pop_call(&c->waiting)) != NULL)
        begin_call(call);
    arm_tick(c);
    return 0;
}

static int on_feed(void *owner, struct span plain, struct failure *f)
{
    struct client *c = owner;
    return grpc_feed(c->grpc, plain, port_mono_us(), f);
}

static int on_pull(void *owner, struct buf *out, struct failure *f)
{
    struct client *c = owner;
    return grpc_pull(c->grpc, out, port_mono_us(), f);
}

/* Calls that `done` starts from here wait for a new connection. */
static void on_closed(void *owner, const struct failure *why)
{
    struct client *c = owner;
    struct grpc *grpc = c->grpc;
    struct failure reason = *why;
    if (reason.code == 0)
        fail(&reason, ERR_CLOSED, "the collector closed the connection");
    c->conn = NULL;
    c->grpc = NULL;
    (void)uv_timer_stop(&c->tick);
    c->lost = reason;
    struct list waiting;
    struct client_call *call;
    list_init(&waiting);
    while ((call = pop_call(&c->waiting)) != NULL)
        list_push(&waiting, &call->link);
    grpc_close(grpc, reason.text);
    while ((call = pop_call(&waiting)) != NULL)
        end_call(call, &reason);
    c->lost = (struct failure){.code = 0};
}

static const struct conn_events CONN_EVENTS = {on_opened, on_feed, on_pull, on_closed};

static int connect_now(struct client *c, struct failure *f)
{
    return conn_connect(&c->conn, &c->loop, c->tls, c->host, c->port, c->host, NULL, &CONN_EVENTS,
                        c, f);
}

static int start(struct client *client, const struct client_call *wanted, struct span request,
                 struct client_call **out, struct failure *f)
{
    struct client_call *call = calloc(1, sizeof *call);
    if (!call)
        return fail(f, ERR_NOMEM, "out of memory");
    *call = *wanted;
    call->client = client;
    buf_init(&call->request, REQUEST_LIMIT);
    int r = buf_append_span(&call->request, request);
    if (r < 0)
        fail(f, r, "request too large");
    else if (!client->conn)
        r = connect_now(client, f);
    if (r < 0) {
        buf_done(&call->request);
        free(call);
        return r;
    }
    list_push(&client->waiting, &call->link);
    if (out)
        *out = call;
    if (client->grpc)
        begin_call(call);
    return 0;
}

int client_start(struct client *client, enum method_id method, struct span request,
                 uint64_t timeout_us, const struct client_events *events, void *owner,
                 struct client_call **out, struct failure *f)
{
    struct client_call call = {
        .method = method, .timeout_us = timeout_us, .events = events, .owner = owner};
    return start(client, &call, request, out, f);
}

int client_start_feed(struct client *client, enum method_id method, uint64_t timeout_us,
                      client_feed_fn feed, const struct client_events *events, void *owner,
                      struct client_call **out, struct failure *f)
{
    struct client_call call = {
        .method = method, .timeout_us = timeout_us, .feed = feed, .events = events, .owner = owner};
    return start(client, &call, span_of(NULL, 0), out, f);
}

static void client_cancel(struct client_call *call)
{
    if (call->grpc) {
        grpc_cancel(call->grpc);
        return;
    }
    struct failure why;
    fail(&why, ERR_CANCELLED, "cancelled");
    end_call(call, &why);
}

static void on_nothing(void *owner, const struct failure *why)
{
    (void)owner;
    (void)why;
}

void client_abandon(struct client_call *call)
{
    static const struct client_events silent = {.done = on_nothing};
    call->events = &silent;
    client_cancel(call);
}

/* ---- waiting ---- */

void client_run(struct client *client)
{
    client->stopped = false;
    while (!client->stopped && uv_run(&client->loop, UV_RUN_ONCE) != 0)
        ;
}

void client_stop(struct client *client)
{
    client->stopped = true;
}

struct waiting_call {
    struct client *client;
    client_reply_fn reply;
    void *owner;
    struct failure why;
    bool ended;
};

static int on_waited_reply(void *owner, struct span message, struct failure *f)
{
    struct waiting_call *w = owner;
    return w->reply ? w->reply(w->owner, message, f) : 0;
}

static void on_waited_done(void *owner, const struct failure *why)
{
    struct waiting_call *w = owner;
    w->why = *why;
    w->ended = true;
    client_stop(w->client);
}

int client_call(struct client *client, enum method_id method, struct span request,
                uint64_t timeout_us, client_reply_fn reply, void *owner, struct failure *f)
{
    static const struct client_events events = {on_waited_reply, on_waited_done};
    struct waiting_call w = {.client = client, .reply = reply, .owner = owner};
    int r = client_start(client, method, request, timeout_us, &events, &w, NULL, f);
    if (r < 0)
        return r;
    while (!w.ended)
        client_run(client);
    return w.why.code ? fail(f, w.why.code, "%s", w.why.text) : 0;
}

static void on_every(uv_timer_t *timer)
{
    struct client *c = timer->data;
    if (c->every_hook)
        c->every_hook(c->every_owner);
}

void client_every(struct client *client, uint64_t interval_ms, client_hook_fn each, void *owner)
{
    client->every_hook = each;
    client->every_owner = owner;
    if (each)
        (void)uv_timer_start(&client->every, on_every, interval_ms, interval_ms);
    else
        (void)uv_timer_stop(&client->every);
}

static void on_interrupt(uv_signal_t *handle, int number)
{
    struct client *c = handle->data;
    (void)number;
    if (c->interrupt_hook)
        c->interrupt_hook(c->interrupt_owner);
}

void client_on_interrupt(struct client *client, client_hook_fn hook, void *owner)
{
    client->interrupt_hook = hook;
    client->interrupt_owner = owner;
    if (hook)
        (void)uv_signal_start(&client->interrupt, on_interrupt, SIGINT);
    else
        (void)uv_signal_stop(&client->interrupt);
}

static void on_waited(uv_timer_t *timer)
{
    client_stop(timer->data);
}

void client_wait(struct client *client, uint64_t ms)
{
    uv_update_time(&client->loop);
    (void)uv_timer_start(&client->wait, on_waited, ms, 0);
    client_run(client);
    (void)uv_timer_stop(&client->wait);
}

bool client_may_retry(int code)
{
    return code == ERR_UNREACHABLE || code == ERR_CLOSED || code == ERR_TIMEOUT ||
           code == ERR_AGAIN;
}

/* ---- open and close ---- */

static void keep_handle(struct client *c, uv_handle_t *handle)
{
    handle->data = c;
}

static int init_loop(struct client *c)
{
    int r = uv_loop_init(&c->loop);
    if (r < 0)
        return r;
    (void)uv_timer_init(&c->loop, &c->tick);
    (void)uv_timer_init(&c->loop, &c->every);
    (void)uv_timer_init(&c->loop, &c->wait);
    (void)uv_signal_init(&c->loop, &c->interrupt);
    keep_handle(c, (uv_handle_t *)&c->tick);
    keep_handle(c, (uv_handle_t *)&c->every);
    keep_handle(c, (uv_handle_t *)&c->wait);
    keep_handle(c, (uv_handle_t *)&c->interrupt);
    return 0;
}

int client_open(struct client **out, const struct client_settings *settings, struct failure *f)
{
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return fail(f, ERR_NOMEM, "out of memory");
    list_init(&c->waiting);
    list_init(&c->running);
    c->port = settings->port;
    struct tls_settings tls = {
        .side = TLS_CLIENT,
        .ca_pem = settings->ca_pem,
        .cert_pem = settings->cert_pem,
        .key_pem = settings->key_pem,
        .alpn = "h2",
    };
    int r = text_copy(c->host, sizeof c->host, settings->host);
    if (r < 0)
        r = fail(f, ERR_INVALID, "collector's name is too long");
    else
        r = tls_config_open(&c->tls, &tls, f);
    text_format(c->authority, sizeof c->authority, strchr(c->host, ':') ? "[%s]:%u" : "%s:%u",
                c->host, c->port);
    if (r == 0 && init_loop(c) < 0) {
        tls_config_close(c->tls);
        r = fail(f, ERR_NOMEM, "cannot make an event loop");
    }
    if (r < 0) {
        free(c);
        return r;
    }
#ifdef SIGPIPE
    /* A collector that goes away is an error of a write, not the end of the program. */
    (void)signal(SIGPIPE, SIG_IGN);
#endif
    *out = c;
    return 0;
}

void client_close(struct client *client)
{
    if (!client)
        return;
    client->closing = true;
    client->every_hook = client->interrupt_hook = NULL;
    if (client->conn)
        conn_close(client->conn);
    uv_close((uv_handle_t *)&client->tick, NULL);
    uv_close((uv_handle_t *)&client->every, NULL);
    uv_close((uv_handle_t *)&client->wait, NULL);
    uv_close((uv_handle_t *)&client->interrupt, NULL);
    (void)uv_run(&client->loop, UV_RUN_DEFAULT);
    assert(list_empty(&client->waiting) && list_empty(&client->running));
    (void)uv_loop_close(&client->loop);
    tls_config_close(client->tls);
    free(client);
}
