/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accepting connections within three limits: `max_conns` (who comes beyond is turned away and told
 * about) and the process's open files less 64 (who comes beyond waits in the backlog until another
 * connection closes); and as many whose handshake is under way as are served within about a second
 * (who comes beyond waits in the backlog). When thousands come at once, those that have begun are
 * finished first: served in turns, all would pass their time limit together. Invariant: libuv stops
 * accepting by itself as long as one waiting connection was not taken, so "full" is nothing but not
 * taking it. Used by the collector.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/conn_private.h"
#include "common/text.h"

#define BACKLOG 1024
#define FILES_KEPT_FREE 64
#define FRESH_MAX 128
#define STEPS_AT_ONCE 4 /* as many as libuv's pool has threads: who waits, waits in our order */

struct conn_listener {
    uv_tcp_t tcp;
    struct tls_config *config;
    struct conn_limits limits;
    const struct conn_listener_events *events;
    void *context;
    struct list conns;
    uint32_t count, max_conns;
    uint16_t port;
    intptr_t files_enough; /* a descriptor from here on means "full"; 0: there is no such limit */
    bool full;             /* of open files; until a connection closes */
    bool waiting;          /* libuv holds a connection that was not taken */
    bool closing, closed;
    uint32_t fresh;                       /* connections that are is_fresh */
    unsigned steps;                       /* on the pool */
    struct list first_steps, later_steps; /* waiting for it */
    bool rejecting; /* the spare handle is closing a connection that was turned away */
    uv_tcp_t spare;
};

static void accept_waiting(struct conn_listener *l);

static void put_peer(const uv_tcp_t *tcp, char *out, size_t size_bytes)
{
    struct sockaddr_storage address;
    int length = sizeof address;
    char ip[64] = "?";
    unsigned port = 0;
    if (uv_tcp_getpeername(tcp, (struct sockaddr *)&address, &length) == 0) {
        if (address.ss_family == AF_INET6) {
            const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;
            (void)uv_ip6_name(v6, ip, sizeof ip);
            /* An IPv4 peer of a listener on "::": as people know it. */
            if (strncmp(ip, "::ffff:", 7) == 0 && strchr(ip, '.'))
                memmove(ip, ip + 7, strlen(ip + 7) + 1);
            port = ntohs(v6->sin6_port);
        } else {
            const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;
            (void)uv_ip4_name(v4, ip, sizeof ip);
            port = ntohs(v4->sin_port);
        }
    }
    (void)text_format(out, size_bytes, strchr(ip, ':') ? "[%s]:%u" : "%s:%u", ip, port);
}

/* ---- turning away ---- */

static void on_spare_closed(uv_handle_t *handle)
{
    struct conn_listener *l = handle->data;
    l->rejecting = false;
    if (!l->closing)
        accept_waiting(l);
    else if (l->closed)
        free(l);
}

/* Without an allocation, so that it works when memory is what lacks. */
static void reject(struct conn_listener *l, int code, const char *why)
{
    char address[CONN_ADDRESS_SIZE];
    struct failure f;
    (void)uv_tcp_init(l->tcp.loop, &l->spare);
    l->spare.data = l;
    l->rejecting = true;
    bool taken = uv_accept((uv_stream_t *)&l->tcp, (uv_stream_t *)&l->spare) == 0;
    if (taken)
        put_peer(&l->spare, address, sizeof address);
    uv_close((uv_handle_t *)&l->spare, on_spare_closed);
    (void)fail(&f, code, "%s", why);
    if (taken)
        l->events->turned_away(l->context, address, &f);
}

/* ---- accepting ---- */

static void offer(struct conn_listener *l, struct conn *c)
{
    const struct conn_events *events = NULL;
    void *owner = NULL;
    if (l->events->accepted(l->context, c, &events, &owner)) {
        conn_abort(c, ERR_REFUSED, "connection refused");
        return;
    }
    c->events = events;
    c->owner = owner;
    if (c->state == CONN_REACHING)
        conn_secure(c, false);
}

static void accept_one(struct conn_listener *l)
{
    struct failure f;
    struct conn *c;
    char text[64];

    l->waiting = false;
    if (l->count >= l->max_conns) {
        (void)text_format(text, sizeof text, "limit of %u connections reached", l->max_conns);
        reject(l, ERR_LIMIT, text);
        return;
    }
    if (conn_new(&c, l->tcp.loop, l->config, NULL, &l->limits, &f)) {
        reject(l, f.code, f.text);
        return;
    }
    if (uv_accept((uv_stream_t *)&l->tcp, (uv_stream_t *)&c->tcp) < 0) {
        conn_begin_close(c);
        return;
    }
    put_peer(&c->tcp, c->address, sizeof c->address);
    c->listener = l;
    list_push(&l->conns, &c->in_listener);
    l->count++;
    c->is_fresh = true;
    l->fresh++;
    /* The lowest free number is given out, so a high one means that there are few left. */
    uv_os_fd_t fd;
    if (l->files_enough && uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0 &&
        (intptr_t)fd >= l->files_enough)
        l->full = true;
    offer(l, c);
}

static void accept_waiting(struct conn_listener *l)
{
    if (l->waiting && !l->full && !l->rejecting && !l->closing && l->fresh < FRESH_MAX)
        accept_one(l);
}

/* ---- handshakes in order ---- */

static struct conn *next_step(struct conn_listener *l)
{
    struct list *at = list_first(&l->later_steps);
    if (!at)
        at = list_first(&l->first_steps);
    return at ? LIST_ENTRY(at, struct conn, step_waits) : NULL;
}

static void run_steps(struct conn_listener *l)
{
    struct conn *c;
    while (l->steps < STEPS_AT_ONCE && (c = next_step(l)) != NULL) {
        list_remove(&c->step_waits);
        l->steps++;
        conn_queue_step(c);
    }
}

void conn_listener_step(struct conn *conn)
{
    struct conn_listener *l = conn->listener;
    list_push(conn->stepped ? &l->later_steps : &l->first_steps, &conn->step_waits);
    run_steps(l);
}

static void forget_fresh(struct conn *conn)
{
    conn->listener->fresh -= conn->is_fresh;
    conn->is_fresh = false;
}

void conn_listener_stepped(struct conn *conn)
{
    struct conn_listener *l = conn->listener;
    if (!l)
        return;
    l->steps--;
    if (conn->step_result != ERR_AGAIN)
        forget_fresh(conn);
    run_steps(l);
    accept_waiting(l);
}

void conn_listener_silent(struct conn *conn)
{
    if (!conn->listener) {
        conn->is_fresh = false;
        return;
    }
    forget_fresh(conn);
    accept_waiting(conn->listener);
}

static void on_connection(uv_stream_t *stream, int status)
{
    struct conn_listener *l = stream->data;
    struct failure f;
    if (status < 0) {
        /* The process has no file left in spite of our reserve; libuv has shed the connection. */
        (void)fail(&f, ERR_LIMIT, "cannot accept a connection: %s", uv_strerror(status));
        l->events->turned_away(l->context, "?", &f);
        return;
    }
    l->waiting = true;
    accept_waiting(l);
}

void conn_listener_forget(struct conn *conn)
{
    struct conn_listener *l = conn->listener;
    if (!l)
        return;
    forget_fresh(conn);
    conn->listener = NULL;
    list_remove(&conn->in_listener);
    list_remove(&conn->step_waits);
    l->count--;
    l->full = false;
    if (!conn->opened && conn->why.code)
        l->events->turned_away(l->context, conn->address, &conn->why);
    accept_waiting(l);
}

/* ---- the listener itself ---- */

static void on_listener_closed(uv_handle_t *handle)
{
    struct conn_listener *l = handle->data;
    l->closed = true;
    if (l->events)
        l->events->closed(l->context);
    if (!l->rejecting)
        free(l);
}

static int bind_to(struct conn_listener *l, const char *address, uint16_t port)
{
    struct sockaddr_in6 v6;
    struct sockaddr_in v4;
    if (uv_ip4_addr(address, port, &v4) == 0)
        return uv_tcp_bind(&l->tcp, (const struct sockaddr *)&v4, 0);
    int ret = uv_ip6_addr(address, port, &v6);
    return ret ? ret : uv_tcp_bind(&l->tcp, (const struct sockaddr *)&v6, 0);
}

static int listen_failure(int ret, const char *address, uint16_t port, struct failure *f)
{
    switch (ret) {
    case UV_EADDRINUSE:
        return fail(f, ERR_INUSE,
                    "port %u on %s is in use: another collector runs there, or choose another with "
                    "--port",
                    port, address);
    case UV_EACCES:
        return fail(f, ERR_DENIED, "cannot listen on port %u of %s: permission denied", port,
                    address);
    case UV_EADDRNOTAVAIL:
        return fail(f, ERR_INVALID, "cannot listen on '%s': this host has no such address",
                    address);
    case UV_EINVAL:
        return fail(f, ERR_INVALID, "cannot listen on '%s': not an IP address", address);
    default:
        return fail(f, ERR_IO, "cannot listen on port %u of %s: %s", port, address,
                    uv_strerror(ret));
    }
}

static uint16_t bound_port(const uv_tcp_t *tcp)
{
    struct sockaddr_storage address;
    int length = sizeof address;
    if (uv_tcp_getsockname(tcp, (struct sockaddr *)&address, &length))
        return 0;
    if (address.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((const struct sockaddr_in *)&address)->sin_port);
}

static intptr_t enough_files(void)
{
#if defined(_SC_OPEN_MAX)
    long limit = sysconf(_SC_OPEN_MAX);
    if (limit > 0)
        return limit > 2 * FILES_KEPT_FREE ? limit - FILES_KEPT_FREE : limit / 2;
#endif
    return 0;
}

int conn_listen(struct conn_listener **out, uv_loop_t *loop, struct tls_config *config,
                const char *address, uint16_t port, uint32_t max_conns,
                const struct conn_limits *limits, const struct conn_listener_events *events,
                void *context, struct failure *f)
{
    struct conn_listener *l = calloc(1, sizeof *l);
    if (!l)
        return fail(f, ERR_NOMEM, "cannot listen: out of memory");
    (void)uv_tcp_init(loop, &l->tcp);
    l->tcp.data = l;
    l->config = config;
    l->max_conns = max_conns;
    l->files_enough = enough_files();
    if (limits)
        l->limits = *limits;
    list_init(&l->conns);
    list_init(&l->first_steps);
    list_init(&l->later_steps);
    int ret = bind_to(l, address, port);
    if (!ret)
        ret = uv_listen((uv_stream_t *)&l->tcp, BACKLOG, on_connection);
    if (ret) {
        /* `events` is not set yet: the memory goes by itself when the loop runs. */
        uv_close((uv_handle_t *)&l->tcp, on_listener_closed);
        return listen_failure(ret, address, port, f);
    }
    l->port = bound_port(&l->tcp);
    l->events = events;
    l->context = context;
    *out = l;
    return 0;
}

uint16_t conn_listener_port(const struct conn_listener *listener)
{
    return listener->port;
}

uint32_t conn_listener_count(const struct conn_listener *listener)
{
    return listener->count;
}

void conn_listener_close(struct conn_listener *listener)
{
    if (!listener || listener->closing)
        return;
    listener->closing = true;
    LIST_EACH (link, &listener->conns) {
        struct conn *c = LIST_ENTRY(link, struct conn, in_listener);
        bool step_waits = !list_empty(&c->step_waits);
        c->listener = NULL;
        list_remove(link);
        list_remove(&c->step_waits);
        if (step_waits && c->state == CONN_SECURING)
            conn_queue_step(c);
    }
    listener->count = 0;
    uv_close((uv_handle_t *)&listener->tcp, on_listener_closed);
}
