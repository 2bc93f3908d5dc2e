/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reaching a collector: resolve the name off the loop, then try one address after the other within
 * one time limit. Invariant: nothing is called from inside conn_connect(); what fails there fails
 * by its return value, what fails later by `closed`.
 */
#include <string.h>

#include "common/conn_private.h"
#include "common/text.h"

#define CONNECT_TIMEOUT_MS 5000

static void unreachable(struct conn *c, const char *reason)
{
    char text[FAILURE_TEXT_SIZE];
    (void)text_format(text, sizeof text, "cannot reach collector '%s': %s", c->address, reason);
    conn_abort(c, ERR_UNREACHABLE, text);
}

static void try_next(struct conn *c, int last_error);

/* A socket that failed to connect is of no further use: it is closed, and opened for the next. */
static void on_retry_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;
    if (c->state == CONN_CLOSING) {
        conn_on_handle_closed(handle);
        return;
    }
    (void)uv_tcp_init(handle->loop, &c->tcp);
    c->tcp.data = c;
    try_next(c, UV_ECONNREFUSED);
}

static void on_connected(uv_connect_t *req, int status)
{
    struct conn *c = req->data;
    if (c->state == CONN_CLOSING)
        return;
    if (status == 0) {
        uv_freeaddrinfo(c->addresses);
        c->addresses = c->next_address = NULL;
        conn_secure(c, true);
    } else if (c->next_address) {
        uv_close((uv_handle_t *)&c->tcp, on_retry_closed);
    } else {
        unreachable(c, uv_strerror(status));
    }
}

static void try_next(struct conn *c, int last_error)
{
    while (c->next_address) {
        const struct addrinfo *address = c->next_address;
        c->next_address = address->ai_next;
        c->connect.data = c;
        int ret = uv_tcp_connect(&c->connect, &c->tcp, address->ai_addr, on_connected);
        if (ret == 0)
            return;
        last_error = ret;
        if (c->next_address) {
            uv_close((uv_handle_t *)&c->tcp, on_retry_closed);
            return;
        }
    }
    unreachable(c, uv_strerror(last_error));
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *addresses)
{
    struct conn *c = req->data;
    c->resolving = false;
    c->addresses = c->next_address = addresses;
    if (c->state == CONN_CLOSING)
        conn_finish(c);
    else if (status == UV_EAI_NONAME || status == UV_EAI_NODATA)
        unreachable(c, "no such host name");
    else if (status)
        unreachable(c, uv_strerror(status));
    else
        try_next(c, UV_EAI_NONAME);
}

int conn_connect(struct conn **out, uv_loop_t *loop, struct tls_config *config, const char *host,
                 uint16_t port, const char *server_name, const struct conn_limits *limits,
                 const struct conn_events *events, void *owner, struct failure *f)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char service[8];
    struct conn *c;

    int err = conn_new(&c, loop, config, server_name, limits, f);
    if (err)
        return err;
    (void)text_format(c->address, sizeof c->address, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
                      port);
    (void)text_format(service, sizeof service, "%u", port);
    c->resolve.data = c;
    int ret = uv_getaddrinfo(loop, &c->resolve, on_resolved, host, service, &hints);
    if (ret) {
        /* `events` is not set yet: the memory goes by itself, and nothing is called. */
        err = fail(f, ret == UV_ENOMEM ? ERR_NOMEM : ERR_INVALID, "cannot reach collector '%s': %s",
                   c->address, uv_strerror(ret));
        conn_begin_close(c);
        return err;
    }
    c->resolving = true;
    c->events = events;
    c->owner = owner;
    if (c->limits.connect_timeout_ms == 0)
        c->limits.connect_timeout_ms = CONNECT_TIMEOUT_MS;
    /* The loop's idea of now may be old: it may have been built long before it runs. */
    uv_update_time(loop);
    (void)uv_timer_start(&c->timer, conn_on_timer, c->limits.connect_timeout_ms, 0);
    *out = c;
    return 0;
}
