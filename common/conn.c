/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection from its first handshake byte to its end. Invariants: `closed` is the last call,
 * made once, from the loop, after every handle, write and pool step has come back; the TLS session
 * is touched by one thread at a time, because reading stops while a step is on the pool; an idle
 * connection has no active idle handle. Called by the uplink, the listener and the command line.
 */
#include "common/conn.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/conn_private.h"
#include "common/text.h"

#define READ_SIZE (64 * 1024)
/* `pull` should stop at 64 KiB; what it may overshoot. */
#define PULL_LIMIT (1024 * 1024)
/* One record of TLS at most. */
#define FEED_LIMIT (16 * 1024 + 256)
#define HANDSHAKE_TIMEOUT_MS 10000
/* For the last bytes of ours, and then for the peer to close its side too. */
#define DRAIN_TIMEOUT_MS 10000
#define LINGER_TIMEOUT_MS 1000
#define KEEPALIVE_S 60

struct write_request {
    uv_write_t req;
    struct conn *conn;
    size_t size_bytes;
    uint8_t data[];
};

static void read_on(struct conn *c);
static void begin_linger(struct conn *c);
static void pump_soon(struct conn *c);

/* ---- the end ---- */

static void conn_set_why(struct conn *conn, int code, const char *why)
{
    /* The first reason is the true one; what follows is its consequence. */
    if (conn->why.code == 0 && conn->state < CONN_CLOSING)
        (void)fail(&conn->why, code, "%s", why);
}

void conn_finish(struct conn *conn)
{
    if (conn->state != CONN_CLOSING || conn->handles || conn->stepping || conn->resolving)
        return;
    conn_listener_forget(conn);
    if (conn->events)
        conn->events->closed(conn->owner, &conn->why);
    tls_close(conn->tls);
    if (conn->addresses)
        uv_freeaddrinfo(conn->addresses);
    free(conn);
}

void conn_on_handle_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;
    c->handles--;
    conn_finish(c);
}

static void close_handle(void *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, conn_on_handle_closed);
}

void conn_begin_close(struct conn *conn)
{
    if (conn->state == CONN_CLOSING)
        return;
    conn->state = CONN_CLOSING;
    close_handle(&conn->tcp);
    close_handle(&conn->timer);
    close_handle(&conn->tick);
    /* Either is too late for a request that a pool thread has begun; then we wait for it. */
    if (conn->resolving)
        (void)uv_cancel((uv_req_t *)&conn->resolve);
    if (conn->stepping)
        (void)uv_cancel((uv_req_t *)&conn->step);
}

static void fail_with(struct conn *c, const struct failure *why)
{
    conn_set_why(c, why->code, why->text);
    conn_begin_close(c);
}

void conn_abort(struct conn *conn, int code, const char *why)
{
    conn_set_why(conn, code, why);
    conn_begin_close(conn);
}

/* ---- writing ---- */

/*
 * The peer may have said why it went before it closed its side: that is still to be read, and the
 * end of reading ends the connection. Only when nobody reads must the error do it.
 */
static void on_write_error(struct conn *c, int status)
{
    if (c->write_error)
        return;
    c->write_error = status;
    if (c->state == CONN_LINGERING)
        conn_begin_close(c);
    else if (c->state == CONN_DRAINING || c->paused)
        conn_abort(c, ERR_CLOSED, "connection reset by peer");
}

static void on_written(uv_write_t *req, int status)
{
    struct write_request *w = (struct write_request *)req;
    struct conn *c = w->conn;
    c->queued_bytes -= w->size_bytes;
    free(w);
    if (c->state == CONN_CLOSING)
        return;
    if (status < 0)
        on_write_error(c, status);
    else if (c->pull_waits && c->queued_bytes < CONN_QUEUE_BYTES / 2)
        pump_soon(c);
}

static int queue_write(struct conn *c, struct span bytes)
{
    struct write_request *w = malloc(sizeof *w + bytes.size_bytes);
    if (!w)
        return ERR_NOMEM;
    w->conn = c;
    w->size_bytes = bytes.size_bytes;
    memcpy(w->data, bytes.data, bytes.size_bytes);
    uv_buf_t b = uv_buf_init((char *)w->data, (unsigned)w->size_bytes);
    int ret = uv_write(&w->req, (uv_stream_t *)&c->tcp, &b, 1, on_written);
    if (ret < 0) {
        free(w);
        return ERR_IO;
    }
    c->queued_bytes += w->size_bytes;
    return 0;
}

/* Gives what TLS has ready to the kernel, and what that does not take now to libuv's queue. */
static void flush(struct conn *c)
{
    struct span bytes = tls_pending(c->tls);
    if (bytes.size_bytes == 0 || c->state == CONN_CLOSING)
        return;
    if (c->write_error) {
        tls_sent(c->tls, bytes.size_bytes);
        return;
    }
    if (c->queued_bytes == 0) {
        uv_buf_t b = uv_buf_init((char *)bytes.data, (unsigned)bytes.size_bytes);
        int taken = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
        if (taken > 0) {
            tls_sent(c->tls, (size_t)taken);
            bytes = tls_pending(c->tls);
        } else if (taken < 0 && taken != UV_EAGAIN) {
            on_write_error(c, taken);
            return;
        }
    }
    if (bytes.size_bytes == 0)
        return;
    int err = queue_write(c, bytes);
    if (err)
        conn_abort(c, err, err == ERR_NOMEM ? "cannot send: out of memory" : "cannot send");
    else
        tls_sent(c->tls, bytes.size_bytes);
}

static void say_goodbye(struct conn *c)
{
    tls_goodbye(c->tls);
    flush(c);
    begin_linger(c);
}

/* Once per tick: asks the owner for bytes. Whoever gave some is asked again in the next tick. */
static void pump(struct conn *c)
{
    struct failure f = {0};
    struct buf plain;

    c->pull_waits = c->queued_bytes >= CONN_QUEUE_BYTES;
    if (c->pull_waits || c->write_error)
        return;
    buf_init(&plain, PULL_LIMIT);
    int err = c->events->pull(c->owner, &plain, &f);
    if (c->state != CONN_OPEN && c->state != CONN_DRAINING)
        goto out;
    if (err < 0) {
        fail_with(c, f.code ? &f : &(struct failure){err, "cannot make bytes to send"});
    } else if (plain.size_bytes == 0) {
        if (c->state == CONN_DRAINING)
            say_goodbye(c);
    } else if (tls_write(c->tls, buf_span(&plain), &f)) {
        fail_with(c, &f);
    } else {
        flush(c);
        pump_soon(c);
    }
out:
    buf_done(&plain);
}

/* ---- reading ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *b)
{
    (void)handle;
    (void)suggested;
    b->base = malloc(READ_SIZE);
    b->len = b->base ? READ_SIZE : 0;
}

static void on_session_end(struct conn *c, int err, const struct failure *f)
{
    if (err == ERR_CLOSED) {
        say_goodbye(c);
        return;
    }
    /* Best effort: the alert that mbedTLS made for a damaged record. */
    flush(c);
    fail_with(c, f);
}

/* Decrypts what was fed and hands it on, until there is no more or the owner has enough. */
static void deliver(struct conn *c)
{
    struct failure f = {0};
    struct buf plain;
    int err = 0;

    buf_init(&plain, FEED_LIMIT);
    while (c->state == CONN_OPEN && !c->paused) {
        buf_clear(&plain);
        err = tls_read(c->tls, &plain, &f);
        if (err)
            break;
        int said = c->events->feed(c->owner, buf_span(&plain), &f);
        if (said < 0) {
            tls_goodbye(c->tls);
            flush(c);
            fail_with(c, f.code ? &f : &(struct failure){said, "received bytes were refused"});
        }
        c->paused = said > 0;
        c->resume = false;
    }
    buf_done(&plain);
    if (c->state != CONN_OPEN)
        return;
    if (err && err != ERR_AGAIN)
        on_session_end(c, err, &f);
    else
        flush(c);
}

static void on_end_of_input(struct conn *c, ssize_t status)
{
    static const char *const reset = "connection reset by peer";
    bool orderly = status == UV_EOF && !c->write_error;
    c->eof = true;
    switch (c->state) {
    case CONN_SECURING:
        conn_abort(c, ERR_CLOSED,
                   orderly ? "peer closed the connection during the handshake" : reset);
        break;
    case CONN_OPEN:
        conn_abort(c, ERR_CLOSED, orderly ? "peer closed the connection without a goodbye" : reset);
        break;
    case CONN_DRAINING:
        /* It may have closed its side only, and still read ours. */
        if (!orderly)
            conn_abort(c, ERR_CLOSED, reset);
        break;
    case CONN_LINGERING:
        if (c->shutdown_done || !orderly)
            conn_begin_close(c);
        break;
    case CONN_REACHING:
    case CONN_CLOSING:
        break;
    }
}

static void start_step(struct conn *c);

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *b)
{
    struct conn *c = stream->data;
    if (count > 0 && (c->state == CONN_SECURING || c->state == CONN_OPEN)) {
        int err = tls_feed(c->tls, span_of(b->base, (size_t)count));
        if (err)
            conn_abort(c, err, err == ERR_LIMIT ? "peer sends more than is read" : err_text(err));
        else if (c->state == CONN_SECURING)
            start_step(c);
        else
            deliver(c);
    } else if (count < 0) {
        (void)uv_read_stop(stream);
        if (count == UV_ENOBUFS)
            conn_abort(c, ERR_NOMEM, "cannot receive: out of memory");
        else
            on_end_of_input(c, count);
    }
    free(b->base);
    if (c->state == CONN_OPEN && c->paused)
        (void)uv_read_stop(stream);
}

static void read_on(struct conn *c)
{
    if (!c->eof)
        (void)uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

/* ---- once per tick ---- */

static void on_tick(uv_idle_t *tick)
{
    struct conn *c = tick->data;
    (void)uv_idle_stop(tick);
    if (c->paused && c->resume && c->state == CONN_OPEN) {
        c->paused = false;
        deliver(c);
        if (c->state == CONN_OPEN && !c->paused)
            read_on(c);
    }
    if (c->state == CONN_OPEN || c->state == CONN_DRAINING)
        pump(c);
}

/* An active idle handle also keeps the loop from blocking before it has run. */
static void pump_soon(struct conn *c)
{
    if (c->state == CONN_OPEN || c->state == CONN_DRAINING)
        (void)uv_idle_start(&c->tick, on_tick);
}

void conn_wake(struct conn *conn)
{
    conn->resume = true;
    pump_soon(conn);
}

/* ---- the handshake ---- */

static void on_step_work(uv_work_t *work)
{
    struct conn *c = work->data;
    c->step_result = tls_handshake(c->tls, &c->step_failure);
}

static void established(struct conn *c)
{
    (void)uv_timer_stop(&c->timer);
    c->state = CONN_OPEN;
    c->opened = true;
    int err = c->events->opened(c->owner, c);
    if (err && c->state == CONN_OPEN)
        conn_abort(c, err < 0 ? err : ERR_REFUSED, "connection refused after the handshake");
    if (c->state == CONN_OPEN) {
        pump_soon(c);
        /* The peer may have sent its first bytes together with its last of the handshake. */
        deliver(c);
    }
    if (c->state == CONN_DRAINING || (c->state == CONN_OPEN && !c->paused))
        read_on(c);
}

static void on_step_done(uv_work_t *work, int status)
{
    struct conn *c = work->data;
    c->stepping = false;
    c->stepped = true;
    conn_listener_stepped(c);
    if (c->state == CONN_CLOSING) {
        conn_finish(c);
        return;
    }
    assert(status == 0 && c->state == CONN_SECURING);
    flush(c);
    if (c->state == CONN_CLOSING)
        return;
    if (c->step_result == ERR_AGAIN) {
        read_on(c);
    } else if (c->step_result == 0) {
        established(c);
    } else {
        /* The alert that tells the peer why must arrive: no close with input unread. */
        conn_set_why(c, c->step_failure.code, c->step_failure.text);
        begin_linger(c);
    }
}

static void start_step(struct conn *c)
{
    (void)uv_read_stop((uv_stream_t *)&c->tcp);
    if (c->listener)
        conn_listener_step(c);
    else
        conn_queue_step(c);
}

void conn_queue_step(struct conn *c)
{
    c->step.data = c;
    c->stepping = true;
    int ret = uv_queue_work(c->tcp.loop, &c->step, on_step_work, on_step_done);
    assert(ret == 0); /* it can only mistrust its arguments */
    (void)ret;
}

void conn_secure(struct conn *conn, bool speak_first)
{
    uint32_t limit = conn->limits.handshake_timeout_ms;
    conn->state = CONN_SECURING;
    (void)uv_tcp_nodelay(&conn->tcp, 1);
    (void)uv_tcp_keepalive(&conn->tcp, 1, KEEPALIVE_S);
    if (conn->is_fresh && limit > CONN_SILENT_MS)
        limit = CONN_SILENT_MS;
    else if (conn->is_fresh)
        conn_listener_silent(conn);
    (void)uv_timer_start(&conn->timer, conn_on_timer, limit ? limit : HANDSHAKE_TIMEOUT_MS, 0);
    if (speak_first)
        start_step(conn);
    else
        read_on(conn);
}

/* ---- closing in order ---- */

static void on_shutdown(uv_shutdown_t *req, int status)
{
    struct conn *c = req->data;
    if (c->state == CONN_CLOSING)
        return;
    c->shutdown_done = true;
    if (status < 0 || c->eof)
        conn_begin_close(c);
    else
        (void)uv_timer_start(&c->timer, conn_on_timer, LINGER_TIMEOUT_MS, 0);
}

/*
 * Everything of ours is with libuv. Closes our side behind it, then throws away what still comes
 * until the peer closes too: closing with unread input would reset the connection and might take
 * our last bytes (an alert, a goodbye) away from the peer.
 */
static void begin_linger(struct conn *c)
{
    if (c->state >= CONN_LINGERING)
        return;
    c->state = CONN_LINGERING;
    c->shutdown.data = c;
    if (c->write_error || uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shutdown) < 0) {
        conn_begin_close(c);
        return;
    }
    (void)uv_timer_start(&c->timer, conn_on_timer, DRAIN_TIMEOUT_MS, 0);
    read_on(c);
}

void conn_close(struct conn *conn)
{
    if (conn->state < CONN_OPEN) {
        conn_begin_close(conn);
    } else if (conn->state == CONN_OPEN) {
        conn->state = CONN_DRAINING;
        (void)uv_timer_start(&conn->timer, conn_on_timer, DRAIN_TIMEOUT_MS, 0);
        if (conn->paused)
            read_on(conn);
        pump_soon(conn);
    }
}

void conn_on_timer(uv_timer_t *timer)
{
    struct conn *c = timer->data;
    char text[FAILURE_TEXT_SIZE], limit[32];
    switch (c->state) {
    case CONN_REACHING:
        text_put_duration((int64_t)c->limits.connect_timeout_ms * 1000, limit, sizeof limit);
        (void)text_format(text, sizeof text, "cannot reach collector '%s': no answer within %s",
                          c->address, limit);
        conn_set_why(c, ERR_UNREACHABLE, text);
        break;
    case CONN_SECURING:
        if (c->is_fresh && !c->had_second) {
            c->had_second = true;
            if (list_empty(&c->step_waits) && !c->stepping)
                conn_listener_silent(c);
            /* what is left of the time */
            (void)uv_timer_start(&c->timer, conn_on_timer,
                                 c->limits.handshake_timeout_ms - CONN_SILENT_MS, 0);
            return;
        }
        text_put_duration((int64_t)c->limits.handshake_timeout_ms * 1000, limit, sizeof limit);
        (void)text_format(text, sizeof text, "peer did not finish the TLS handshake within %s",
                          limit);
        conn_set_why(c, ERR_TIMEOUT, text);
        break;
    case CONN_DRAINING:
    case CONN_LINGERING:
        /* Once our bytes are out, a peer that does not close in turn is no failure. */
        if (!c->shutdown_done)
            conn_set_why(c, ERR_TIMEOUT, "peer did not take the last bytes in time");
        break;
    case CONN_OPEN:
    case CONN_CLOSING:
        break;
    }
    conn_begin_close(c);
}

/* ---- the rest ---- */

int conn_new(struct conn **out, uv_loop_t *loop, struct tls_config *config, const char *server_name,
             const struct conn_limits *limits, struct failure *f)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        return fail(f, ERR_NOMEM, "cannot open a connection: out of memory");
    int err = tls_open(&c->tls, config, server_name, f);
    if (err) {
        free(c);
        return err;
    }
    if (limits)
        c->limits = *limits;
    if (c->limits.handshake_timeout_ms == 0)
        c->limits.handshake_timeout_ms = HANDSHAKE_TIMEOUT_MS;
    list_init(&c->in_listener);
    list_init(&c->step_waits);
    /* None of these can fail without a socket to make. */
    (void)uv_tcp_init(loop, &c->tcp);
    (void)uv_timer_init(loop, &c->timer);
    (void)uv_idle_init(loop, &c->tick);
    c->tcp.data = c->timer.data = c->tick.data = c;
    c->handles = 3;
    *out = c;
    return 0;
}

const struct pki_identity *conn_peer(const struct conn *conn)
{
    return tls_peer(conn->tls);
}

const char *conn_address(const struct conn *conn)
{
    return conn->address;
}

size_t conn_queued_bytes(const struct conn *conn)
{
    return conn->queued_bytes;
}
