/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl.test.Echo over mTLS, for stock gRPC clients to try our protocol code on: proto/grpc.c
 * riding on common/conn.c as the programs use them, with no collector behind it. Started and
 * stopped (SIGTERM: drains) by 20_interop.sh. One invariant: no message is answered before the last
 * answer fitted into the queue.
 *
 * Methods (messages are raw bytes): Unary, ClientStream, ServerStream ("COUNT SIZE"), Bidi, Sleep
 * (never answers), Fail
 * ("STATUS TEXT"), LastEnd (how the last Sleep ended), Who (the caller's name), and the real health
 * and reflection.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/conn.h"
#include "common/list.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/grpc.h"
#include "proto/health.h"
#include "proto/reflect.h"

#define FILE_BYTES (64 * 1024)
#define MAX_MESSAGE (4 * 1024 * 1024)
#define DRAIN_LIMIT_MS 3000
#define LAST_TEXT_SIZE 160

struct server {
    uv_loop_t loop;
    uv_signal_t terminate;
    uv_timer_t limit; /* for draining */
    struct conn_listener *listener;
    struct list peers;
    char last_end[LAST_TEXT_SIZE];
};

/* One connection. */
struct peer {
    struct server *server;
    struct list link;
    struct conn *conn;
    struct grpc *grpc;
    uv_timer_t timer;
    bool timer_open, conn_open;
};

struct method;

/* One call. */
struct echo {
    struct peer *peer;
    const struct method *method;
    uint64_t messages, bytes;
    struct buf waiting; /* an answer that did not fit: the reader is paused until it does */
    bool holds, ended;
    uint64_t to_send, size;
};

struct method {
    const char *path;
    void (*message)(struct echo *e, struct grpc_call *call, struct span message);
    void (*end)(struct echo *e, struct grpc_call *call);
};

static uint64_t now_us(void)
{
    struct clock *clock = clock_system();
    return clock->mono_us(clock);
}

/* ---- the methods ---- */

static void send_or_hold(struct echo *e, struct grpc_call *call, struct span message)
{
    if (grpc_send(call, message) != ERR_LIMIT)
        return;
    buf_clear(&e->waiting);
    if (buf_append_span(&e->waiting, message) < 0)
        abort();
    e->holds = true;
    grpc_pause(call);
}

static void do_unary(struct echo *e, struct grpc_call *call, struct span message)
{
    (void)e;
    (void)grpc_send(call, message);
    grpc_finish(call, GRPC_OK, "");
}

static void do_count(struct echo *e, struct grpc_call *call)
{
    char text[64];
    text_format(text, sizeof text, "%llu messages, %llu bytes", (unsigned long long)e->messages,
                (unsigned long long)e->bytes);
    (void)grpc_send(call, span_str(text));
    grpc_finish(call, GRPC_OK, "");
}

static void send_more(struct echo *e, struct grpc_call *call)
{
    static const uint8_t zeros[MAX_MESSAGE];
    while (e->to_send > 0) {
        if (grpc_send(call, span_of(zeros, (size_t)e->size)) < 0)
            return;
        e->to_send--;
    }
    grpc_finish(call, GRPC_OK, "");
}

static void do_stream(struct echo *e, struct grpc_call *call, struct span message)
{
    struct failure f;
    struct span space;
    if (text_take_u64(&message, &e->to_send) < 0 || text_take_until(&message, ' ', &space) < 0 ||
        text_take_u64(&message, &e->size) < 0 || e->size > MAX_MESSAGE) {
        fail(&f, ERR_INVALID, "expected 'COUNT SIZE'");
        grpc_finish_failure(call, &f);
        return;
    }
    send_more(e, call);
}

static void do_finish(struct echo *e, struct grpc_call *call)
{
    e->ended = true;
    if (!e->holds)
        grpc_finish(call, GRPC_OK, "");
}

static void do_fail(struct echo *e, struct grpc_call *call, struct span message)
{
    char text[256];
    uint64_t status = GRPC_UNKNOWN;
    (void)e;
    (void)text_take_u64(&message, &status);
    if (message.size_bytes > 0)
        message = span_of(message.data + 1, message.size_bytes - 1);
    text_copy_span(text, sizeof text, message);
    grpc_finish(call, (enum grpc_status)status, text);
}

static void do_last_end(struct echo *e, struct grpc_call *call, struct span message)
{
    (void)message;
    (void)grpc_send(call, span_str(e->peer->server->last_end));
    grpc_finish(call, GRPC_OK, "");
}

static void do_who(struct echo *e, struct grpc_call *call, struct span message)
{
    char text[3 * PKI_NAME_SIZE + 16];
    (void)message;
    pki_uri_text(conn_peer(e->peer->conn), text, sizeof text);
    (void)grpc_send(call, span_str(text));
    grpc_finish(call, GRPC_OK, "");
}

static void do_reflect(struct echo *e, struct grpc_call *call, struct span message)
{
    struct buf reply;
    struct failure f;
    buf_init(&reply, MAX_MESSAGE);
    if (reflect_answer(message, &reply, &f) < 0)
        grpc_finish_failure(call, &f);
    else
        send_or_hold(e, call, buf_span(&reply));
    buf_done(&reply);
}

static void do_health(struct echo *e, struct grpc_call *call, struct span message)
{
    struct buf reply;
    struct failure f;
    (void)e;
    buf_init(&reply, 64);
    if (health_answer(message, true, &reply, &f) < 0) {
        grpc_finish_failure(call, &f);
    } else {
        (void)grpc_send(call, buf_span(&reply));
        grpc_finish(call, GRPC_OK, "");
    }
    buf_done(&reply);
}

static const struct method METHODS[] = {
    {"/trawl.test.Echo/Unary", do_unary, NULL},
    {"/trawl.test.Echo/ClientStream", NULL, do_count},
    {"/trawl.test.Echo/ServerStream", do_stream, NULL},
    {"/trawl.test.Echo/Bidi", send_or_hold, do_finish},
    {"/trawl.test.Echo/Sleep", NULL, NULL},
    {"/trawl.test.Echo/Fail", do_fail, NULL},
    {"/trawl.test.Echo/LastEnd", do_last_end, NULL},
    {"/trawl.test.Echo/Who", do_who, NULL},
    {"/grpc.health.v1.Health/Check", do_health, NULL},
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", do_reflect, do_finish},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", do_reflect, do_finish},
};
#define METHOD_COUNT (sizeof METHODS / sizeof METHODS[0])

/* ---- calls ---- */

static int on_message(void *owner, struct grpc_call *call, struct span message)
{
    struct echo *e = owner;
    e->messages++;
    e->bytes += message.size_bytes;
    if (e->method->message)
        e->method->message(e, call, message);
    return 0;
}

static void on_end(void *owner, struct grpc_call *call)
{
    struct echo *e = owner;
    if (e->method->end)
        e->method->end(e, call);
}

static void on_writable(void *owner, struct grpc_call *call)
{
    struct echo *e = owner;
    if (e->method->message == do_stream) {
        send_more(e, call);
    } else if (e->holds && grpc_send(call, buf_span(&e->waiting)) == 0) {
        e->holds = false;
        grpc_resume(call);
    }
}

static void on_done(void *owner, struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct echo *e = owner;
    (void)call;
    if (strcmp(e->method->path, "/trawl.test.Echo/Sleep") == 0)
        text_format(e->peer->server->last_end, LAST_TEXT_SIZE, "%d %s", (int)status, text);
    buf_done(&e->waiting);
    free(e);
}

static const struct grpc_call_events CALL_EVENTS = {on_message, on_end, on_writable, on_done};

static int on_call(void *owner, struct grpc_call *call, const char *path,
                   const struct grpc_call_events **events, void **call_owner, struct failure *f)
{
    (void)call;
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (strcmp(METHODS[i].path, path) != 0)
            continue;
        struct echo *e = calloc(1, sizeof *e);
        if (!e)
            return fail(f, ERR_NOMEM, "out of memory");
        e->peer = owner;
        e->method = &METHODS[i];
        buf_init(&e->waiting, MAX_MESSAGE);
        *events = &CALL_EVENTS;
        *call_owner = e;
        return 0;
    }
    return fail(f, ERR_UNSUPPORTED, "unknown method '%s'", path);
}

static void on_wake(void *owner)
{
    struct peer *p = owner;
    conn_wake(p->conn);
}

static const struct grpc_events GRPC_EVENTS = {on_call, on_wake};

/* ---- connections ---- */

static void free_peer(struct peer *p)
{
    if (p->timer_open || p->conn_open)
        return;
    list_remove(&p->link);
    free(p);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct peer *p = handle->data;
    p->timer_open = false;
    free_peer(p);
}

static void on_timer(uv_timer_t *timer);

/* Deadlines and keepalive, and when to look again. */
static void run_clock(struct peer *p)
{
    struct failure f;
    uint64_t now = now_us(), next;
    if (grpc_tick(p->grpc, now, &next, &f) < 0) {
        fprintf(stderr, "%s: %s\n", conn_address(p->conn), f.text);
        conn_close(p->conn);
        return;
    }
    uint64_t ms = next > now ? (next - now + 999) / 1000 : 0;
    uv_timer_start(&p->timer, on_timer, ms, 0);
    if (grpc_is_idle_after_drain(p->grpc))
        conn_close(p->conn);
}

static void on_timer(uv_timer_t *timer)
{
    run_clock(timer->data);
}

static int on_opened(void *owner, struct conn *conn)
{
    struct peer *p = owner;
    p->conn = conn;
    return grpc_open_server(&p->grpc, NULL, &GRPC_EVENTS, p, now_us());
}

/* After a failure the last words (GOAWAY) still go out, so the connection is closed in order. */
static int on_feed(void *owner, struct span plain, struct failure *f)
{
    struct peer *p = owner;
    if (grpc_feed(p->grpc, plain, now_us(), f) < 0) {
        fprintf(stderr, "%s: %s\n", conn_address(p->conn), f->text);
        conn_close(p->conn);
        return 0;
    }
    run_clock(p);
    return 0;
}

static int on_pull(void *owner, struct buf *out, struct failure *f)
{
    struct peer *p = owner;
    if (grpc_pull(p->grpc, out, now_us(), f) < 0)
        conn_close(p->conn);
    else if (out->size_bytes > 0)
        run_clock(p);
    return 0;
}

static void on_conn_closed(void *owner, const struct failure *why)
{
    struct peer *p = owner;
    if (why->code != 0)
        fprintf(stderr, "closed: %s\n", why->text);
    grpc_close(p->grpc, why->code ? why->text : "connection closed");
    p->grpc = NULL;
    p->conn_open = false;
    if (p->timer_open)
        uv_close((uv_handle_t *)&p->timer, on_timer_closed);
    else
        free_peer(p);
}

static const struct conn_events CONN_EVENTS = {on_opened, on_feed, on_pull, on_conn_closed};

static int on_accepted(void *context, struct conn *conn, const struct conn_events **events,
                       void **owner)
{
    struct server *s = context;
    struct peer *p = calloc(1, sizeof *p);
    if (!p)
        return ERR_NOMEM;
    p->server = s;
    p->conn = conn;
    p->conn_open = p->timer_open = true;
    uv_timer_init(&s->loop, &p->timer);
    p->timer.data = p;
    list_push(&s->peers, &p->link);
    *events = &CONN_EVENTS;
    *owner = p;
    return 0;
}

static void on_turned_away(void *context, const char *address, const struct failure *why)
{
    (void)context;
    fprintf(stderr, "turned away %s: %s\n", address, why->text);
}

static void on_listener_closed(void *context)
{
    (void)context;
}

static const struct conn_listener_events LISTENER_EVENTS = {on_accepted, on_turned_away,
                                                            on_listener_closed};

/* ---- the program ---- */

static void on_limit(uv_timer_t *timer)
{
    struct server *s = timer->data;
    LIST_EACH (link, &s->peers)
        conn_abort(LIST_ENTRY(link, struct peer, link)->conn, ERR_TIMEOUT, "drained too long");
    uv_close((uv_handle_t *)timer, NULL);
}

static void on_terminate(uv_signal_t *signal, int number)
{
    struct server *s = signal->data;
    (void)number;
    conn_listener_close(s->listener);
    uv_close((uv_handle_t *)signal, NULL);
    LIST_EACH (link, &s->peers) {
        struct peer *p = LIST_ENTRY(link, struct peer, link);
        if (p->grpc) {
            grpc_drain(p->grpc);
            run_clock(p);
        } else {
            conn_abort(p->conn, ERR_CLOSED, "stopping");
        }
    }
    uv_timer_start(&s->limit, on_limit, DRAIN_LIMIT_MS, 0);
    uv_unref((uv_handle_t *)&s->limit);
}

static void die(const struct failure *f)
{
    fprintf(stderr, "interop_echo_server: %s\n", f->text);
    exit(1);
}

static struct span read_pem(struct buf *b, const char *path)
{
    struct failure f;
    buf_init(b, FILE_BYTES);
    if (port_read_file(path, b, &f) < 0)
        die(&f);
    return buf_span(b);
}

int main(int argc, char **argv)
{
    static struct server server;
    struct server *s = &server;
    struct failure f;
    struct buf ca, cert, key;
    struct tls_config *config;
    uint64_t port;
    if (argc != 5 || text_u64_in(argv[1], 0, 65535, &port) < 0) {
        fprintf(stderr, "usage: %s PORT CA.pem CERT.pem KEY.pem\n", argv[0]);
        return 2;
    }
    struct tls_settings settings = {.side = TLS_SERVER,
                                    .ca_pem = read_pem(&ca, argv[2]),
                                    .cert_pem = read_pem(&cert, argv[3]),
                                    .key_pem = read_pem(&key, argv[4]),
                                    .alpn = "h2"};
    list_init(&s->peers);
    uv_loop_init(&s->loop);
    if (pki_start(&f) < 0 || tls_config_open(&config, &settings, &f) < 0 ||
        conn_listen(&s->listener, &s->loop, config, "127.0.0.1", (uint16_t)port, 100, NULL,
                    &LISTENER_EVENTS, s, &f) < 0)
        die(&f);
    signal(SIGPIPE, SIG_IGN);
    uv_timer_init(&s->loop, &s->limit);
    uv_signal_init(&s->loop, &s->terminate);
    s->limit.data = s->terminate.data = s;
    uv_signal_start(&s->terminate, on_terminate, SIGTERM);
    printf("listening %u\n", conn_listener_port(s->listener));
    fflush(stdout);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    tls_config_close(config);
    buf_done(&ca);
    buf_done(&cert);
    buf_done(&key);
    return 0;
}
