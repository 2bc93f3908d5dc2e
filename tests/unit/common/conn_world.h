/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of connections over loopback, in one process and on one loop: a listener that accepts
 * into `ends`, and ends that send, echo, count, pause or misbehave as they are told. A test waits
 * for a condition; the runner's time limit ends a wait in vain. Used by test_conn*.c.
 */
#ifndef TESTS_UNIT_COMMON_CONN_WORLD_H
#define TESTS_UNIT_COMMON_CONN_WORLD_H

#include <stdlib.h>

#include "common/conn.h"
#include "tests/unit/common/fleet.h"

#define ENDS_MAX 64

struct world;

/* One end of a connection, and what it is told to do. */
struct end {
    struct world *world;
    struct conn *conn; /* NULL once closed */
    int opened, closed, pulls;
    struct failure why;
    char role[PKI_NAME_SIZE];
    char address[300];
    /* Sending. */
    const uint8_t *send;
    size_t send_bytes, sent_bytes, piece;
    size_t queued_max;
    bool echo;
    struct buf echoes;
    size_t echoed_bytes;
    /* Receiving. */
    struct buf got;
    bool keep; /* the bytes themselves in `got`; else only counted */
    size_t got_bytes;
    bool pause;
    /* Misbehaviour. */
    int opened_result, feed_result, pull_result;
    void (*on_opened)(struct end *e);
    void (*on_feed)(struct end *e);
};

struct world {
    uv_loop_t loop;
    struct fleet fleet;
    struct member collector, agent;
    struct tls_config *client, *server;
    struct conn_listener *listener;
    uint16_t port;
    struct end ends[ENDS_MAX], template; /* of accepted connections, in order; what they start as */
    unsigned accepted, turned_away, listener_closed;
    int accept_result;
    struct failure why; /* of the last one turned away */
    char address[300];
};

#define WAIT_FOR(world_, condition_)                    \
    do {                                                \
        while (!(condition_))                           \
            (void)uv_run(&(world_)->loop, UV_RUN_ONCE); \
        CHECK(condition_);                              \
    } while (0)

/* ---- what an end does ---- */

static inline int on_opened(void *owner, struct conn *conn)
{
    struct end *e = owner;
    e->opened++;
    CHECK(conn == e->conn);
    CHECK_EQ_INT(e->closed, 0);
    (void)text_copy(e->role, sizeof e->role, conn_peer(conn)->role);
    (void)text_copy(e->address, sizeof e->address, conn_address(conn));
    if (e->on_opened)
        e->on_opened(e);
    return e->opened_result;
}

static inline int on_feed(void *owner, struct span plain, struct failure *f)
{
    struct end *e = owner;
    CHECK_EQ_INT(e->opened, 1);
    CHECK_EQ_INT(e->closed, 0);
    e->got_bytes += plain.size_bytes;
    if (e->keep)
        REQUIRE(buf_append_span(&e->got, plain) == 0);
    if (e->echo) {
        REQUIRE(buf_append_span(&e->echoes, plain) == 0);
        conn_wake(e->conn);
    }
    if (e->on_feed)
        e->on_feed(e);
    if (e->feed_result)
        return fail(f, e->feed_result, "fed something bad");
    return e->pause;
}

static inline int on_pull(void *owner, struct buf *out, struct failure *f)
{
    struct end *e = owner;
    CHECK_EQ_INT(e->opened, 1);
    CHECK_EQ_INT(e->closed, 0);
    e->pulls++;
    if (conn_queued_bytes(e->conn) > e->queued_max)
        e->queued_max = conn_queued_bytes(e->conn);
    if (e->pull_result)
        return fail(f, e->pull_result, "pulled something bad");
    if (e->echo) {
        size_t left = e->echoes.size_bytes - e->echoed_bytes;
        size_t part = left < 65536 ? left : 65536;
        if (part)
            REQUIRE(buf_append(out, e->echoes.data + e->echoed_bytes, part) == 0);
        e->echoed_bytes += part;
        return 0;
    }
    size_t left = e->send_bytes - e->sent_bytes;
    size_t part = e->piece && e->piece < left ? e->piece : left;
    if (part > 65536)
        part = 65536;
    REQUIRE(buf_append(out, e->send + e->sent_bytes, part) == 0);
    e->sent_bytes += part;
    return 0;
}

static inline void on_closed(void *owner, const struct failure *why)
{
    struct end *e = owner;
    e->closed++;
    e->why = *why;
    if (!why->code)
        e->why.text[0] = '\0';
    e->conn = NULL;
}

static const struct conn_events events = {on_opened, on_feed, on_pull, on_closed};

static inline void end_init(struct end *e, struct world *w)
{
    memset(e, 0, sizeof *e);
    e->world = w;
    buf_init(&e->got, 64 << 20);
    buf_init(&e->echoes, 64 << 20);
}

static inline void end_done(struct end *e)
{
    buf_done(&e->got);
    buf_done(&e->echoes);
}

/* ---- the world ---- */

static inline int on_accepted(void *context, struct conn *conn, const struct conn_events **out,
                              void **owner)
{
    struct world *w = context;
    struct end *e = &w->ends[w->accepted % ENDS_MAX];
    if (w->accept_result)
        return w->accept_result;
    REQUIRE(w->accepted < ENDS_MAX);
    *e = w->template;
    e->conn = conn;
    w->accepted++;
    *out = &events;
    *owner = e;
    return 0;
}

static inline void on_turned_away(void *context, const char *address, const struct failure *why)
{
    struct world *w = context;
    w->turned_away++;
    w->why = *why;
    (void)text_copy(w->address, sizeof w->address, address);
}

static inline void on_listener_closed(void *context)
{
    struct world *w = context;
    w->listener_closed++;
    w->listener = NULL;
}

static const struct conn_listener_events listener_events = {on_accepted, on_turned_away,
                                                            on_listener_closed};

static inline void world_listen(struct world *w, const char *address, uint32_t max_conns,
                                const struct conn_limits *limits)
{
    struct failure f = {0};
    int err = conn_listen(&w->listener, &w->loop, w->server, address, 0, max_conns, limits,
                          &listener_events, w, &f);
    CHECK_EQ_STR(f.text, "");
    REQUIRE(err == 0);
    w->port = conn_listener_port(w->listener);
    CHECK(w->port != 0);
}

static inline void world_init(struct world *w)
{
    memset(w, 0, sizeof *w);
    REQUIRE(uv_loop_init(&w->loop) == 0);
    fleet_init(&w->fleet, "prod");
    fleet_member(&w->fleet, &w->collector, "collector", "c1");
    fleet_member(&w->fleet, &w->agent, "agent", "web-1");
    w->client = fleet_config(TLS_CLIENT, &w->fleet, &w->agent);
    w->server = fleet_config(TLS_SERVER, &w->fleet, &w->collector);
    end_init(&w->template, w);
}

/* Everything must have closed by itself when the listener goes: nothing is left on the loop. */
static inline void world_done(struct world *w)
{
    if (w->listener)
        conn_listener_close(w->listener);
    REQUIRE(uv_run(&w->loop, UV_RUN_DEFAULT) == 0);
    CHECK_EQ_INT(uv_loop_close(&w->loop), 0);
    for (unsigned i = 0; i < w->accepted; i++) {
        CHECK_EQ_INT(w->ends[i].closed, 1);
        end_done(&w->ends[i]);
    }
    tls_config_close(w->client);
    tls_config_close(w->server);
    fleet_done(&w->fleet);
    member_done(&w->collector);
    member_done(&w->agent);
}

static inline void dial_with(struct world *w, struct end *e, struct tls_config *config,
                             const char *host, uint16_t port, const struct conn_limits *limits)
{
    struct failure f = {0};
    REQUIRE(conn_connect(&e->conn, &w->loop, config, host, port, "localhost", limits, &events, e,
                         &f) == 0);
    CHECK_EQ_INT(e->closed, 0);
}

static inline void dial(struct world *w, struct end *e)
{
    dial_with(w, e, w->client, "127.0.0.1", w->port, NULL);
}

/* Repeats after a prime number of bytes, so that a swap or a gap is seen; cheap to make when
 * sanitized. */
static uint8_t *pattern(size_t size_bytes)
{
    enum { PERIOD = 65521 };
    uint8_t *bytes = malloc(size_bytes);
    REQUIRE(bytes);
    uint32_t x = 99;
    for (size_t i = 0; i < size_bytes && i < PERIOD; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(x >> 24);
    }
    for (size_t have = PERIOD; have < size_bytes; have += PERIOD)
        memcpy(bytes + have, bytes, size_bytes - have < PERIOD ? size_bytes - have : PERIOD);
    return bytes;
}

#endif
