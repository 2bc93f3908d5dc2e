/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections on a real loop over loopback: bytes both ways, back-pressure, every way to end. Both
 * ends live in one process and one loop; the handshakes run on libuv's pool, so this file is also
 * what the thread sanitizer looks at. A test waits for a condition; the runner's time limit ends a
 * wait in vain.
 */
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

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

static int on_opened(void *owner, struct conn *conn)
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

static int on_feed(void *owner, struct span plain, struct failure *f)
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

static int on_pull(void *owner, struct buf *out, struct failure *f)
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

static void on_closed(void *owner, const struct failure *why)
{
    struct end *e = owner;
    e->closed++;
    e->why = *why;
    if (!why->code)
        e->why.text[0] = '\0';
    e->conn = NULL;
}

static const struct conn_events events = {on_opened, on_feed, on_pull, on_closed};

static void end_init(struct end *e, struct world *w)
{
    memset(e, 0, sizeof *e);
    e->world = w;
    buf_init(&e->got, 64 << 20);
    buf_init(&e->echoes, 64 << 20);
}

static void end_done(struct end *e)
{
    buf_done(&e->got);
    buf_done(&e->echoes);
}

/* ---- the world ---- */

static int on_accepted(void *context, struct conn *conn, const struct conn_events **out,
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

static void on_turned_away(void *context, const char *address, const struct failure *why)
{
    struct world *w = context;
    w->turned_away++;
    w->why = *why;
    (void)text_copy(w->address, sizeof w->address, address);
}

static void on_listener_closed(void *context)
{
    struct world *w = context;
    w->listener_closed++;
    w->listener = NULL;
}

static const struct conn_listener_events listener_events = {on_accepted, on_turned_away,
                                                            on_listener_closed};

static void world_listen(struct world *w, const char *address, uint32_t max_conns,
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

static void world_init(struct world *w)
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
static void world_done(struct world *w)
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

static void dial_with(struct world *w, struct end *e, struct tls_config *config, const char *host,
                      uint16_t port, const struct conn_limits *limits)
{
    struct failure f = {0};
    REQUIRE(conn_connect(&e->conn, &w->loop, config, host, port, "localhost", limits, &events, e,
                         &f) == 0);
    CHECK_EQ_INT(e->closed, 0);
}

static void dial(struct world *w, struct end *e)
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

/* ---- bytes ---- */

TEST_LIMIT(five_megabytes_there_and_back, 60)
{
    enum { SIZE = 5 << 20 };
    struct world w;
    struct end e;
    uint8_t *bytes = pattern(SIZE);
    world_init(&w);
    w.template.echo = true;
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    e.send = bytes;
    e.send_bytes = SIZE;
    e.keep = true;
    dial(&w, &e);
    WAIT_FOR(&w, e.closed || e.got_bytes == SIZE);
    REQUIRE(e.got.size_bytes == SIZE);
    CHECK_EQ_MEM(e.got.data, bytes, SIZE);
    CHECK_EQ_STR(e.role, "collector");
    CHECK_EQ_STR(w.ends[0].role, "agent");
    CHECK(strncmp(w.ends[0].address, "127.0.0.1:", 10) == 0);
    CHECK_EQ_INT(conn_listener_count(w.listener), 1);
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    CHECK_EQ_STR(e.why.text, "");
    CHECK_EQ_STR(w.ends[0].why.text, "");
    CHECK_EQ_INT(e.why.code, 0);
    CHECK_EQ_INT(w.ends[0].why.code, 0);
    CHECK_EQ_INT(w.turned_away, 0);
    CHECK_EQ_INT(conn_listener_count(w.listener), 0);
    end_done(&e);
    free(bytes);
    world_done(&w);
}

TEST_LIMIT(both_ends_send_five_megabytes_at_once, 60)
{
    enum { SIZE = 5 << 20 };
    struct world w;
    struct end e;
    uint8_t *bytes = pattern(SIZE);
    world_init(&w);
    w.template.send = bytes;
    w.template.send_bytes = SIZE;
    w.template.keep = true;
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    e.send = bytes;
    e.send_bytes = SIZE;
    e.keep = true;
    e.piece = 7777; /* small messages one way, large ones the other */
    dial(&w, &e);
    WAIT_FOR(&w, e.closed || (e.got_bytes == SIZE && w.ends[0].got_bytes == SIZE));
    CHECK_EQ_MEM(e.got.data, bytes, SIZE);
    CHECK_EQ_MEM(w.ends[0].got.data, bytes, SIZE);
    conn_close(w.ends[0].conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    CHECK_EQ_INT(e.why.code, 0);
    end_done(&e);
    free(bytes);
    world_done(&w);
}

TEST_LIMIT(a_slow_reader_bounds_the_queue, 60)
{
    enum { SIZE = 16 << 20 };
    struct world w;
    struct end e;
    uint8_t *bytes = pattern(SIZE);
    world_init(&w);
    w.template.pause = true;
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    e.send = bytes;
    e.send_bytes = SIZE;
    dial(&w, &e);
    WAIT_FOR(&w, e.conn && conn_queued_bytes(e.conn) >= CONN_QUEUE_BYTES);
    /* Whatever the kernel's buffers still take comes to rest within some ticks. */
    int pulls, quiet = 0;
    for (int i = 0; i < 20000 && quiet < 200; i++) {
        pulls = e.pulls;
        (void)uv_run(&w.loop, UV_RUN_NOWAIT);
        quiet = e.pulls == pulls ? quiet + 1 : 0;
    }
    CHECK_EQ_INT(quiet, 200);
    CHECK(e.sent_bytes < SIZE);
    CHECK(conn_queued_bytes(e.conn) >= CONN_QUEUE_BYTES / 2);
    CHECK(conn_queued_bytes(e.conn) <= CONN_QUEUE_BYTES + 70000);
    CHECK(e.queued_max < CONN_QUEUE_BYTES);
    CHECK(w.ends[0].got_bytes < 1 << 20);
    /* Waiting for the reader costs nothing: the loop would block. */
    CHECK(uv_backend_timeout(&w.loop) != 0);
    w.ends[0].pause = false;
    w.ends[0].keep = true;
    size_t before = w.ends[0].got_bytes;
    conn_wake(w.ends[0].conn);
    WAIT_FOR(&w, e.closed || w.ends[0].got_bytes == SIZE);
    REQUIRE(w.ends[0].got.size_bytes == SIZE - before);
    CHECK_EQ_MEM(w.ends[0].got.data, bytes + before, SIZE - before);
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    end_done(&e);
    free(bytes);
    world_done(&w);
}

TEST(paused_every_time_nothing_is_lost)
{
    enum { SIZE = 1 << 20 };
    struct world w;
    struct end e;
    uint8_t *bytes = pattern(SIZE);
    world_init(&w);
    w.template.pause = true;
    w.template.keep = true;
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    e.send = bytes;
    e.send_bytes = SIZE;
    dial(&w, &e);
    WAIT_FOR(&w, w.accepted);
    while (w.ends[0].got_bytes < SIZE) {
        size_t before = w.ends[0].got_bytes;
        conn_wake(w.ends[0].conn);
        WAIT_FOR(&w, w.ends[0].got_bytes > before);
    }
    CHECK_EQ_MEM(w.ends[0].got.data, bytes, SIZE);
    conn_close(e.conn);
    conn_wake(w.ends[0].conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    CHECK_EQ_INT(w.ends[0].why.code, 0);
    end_done(&e);
    free(bytes);
    world_done(&w);
}

TEST(close_delivers_what_is_pending)
{
    enum { SIZE = 3 << 20 };
    struct world w;
    struct end e;
    uint8_t *bytes = pattern(SIZE);
    world_init(&w);
    w.template.keep = true;
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    dial(&w, &e);
    WAIT_FOR(&w, e.opened);
    e.send = bytes;
    e.send_bytes = SIZE;
    conn_close(e.conn);
    conn_close(e.conn);
    CHECK_EQ_INT(e.closed, 0);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    REQUIRE(w.ends[0].got.size_bytes == SIZE);
    CHECK_EQ_MEM(w.ends[0].got.data, bytes, SIZE);
    CHECK_EQ_INT(e.why.code, 0);
    CHECK_EQ_INT(w.ends[0].why.code, 0);
    end_done(&e);
    free(bytes);
    world_done(&w);
}

/* A client that sends and closes at once, and a server that closes at once: nobody sees an error.
 */
TEST(both_close_at_once)
{
    struct world w;
    struct end e;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    e.send = (const uint8_t *)"bye";
    e.send_bytes = 3;
    dial(&w, &e);
    WAIT_FOR(&w, e.opened && w.accepted && w.ends[0].opened);
    conn_close(e.conn);
    conn_close(w.ends[0].conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    CHECK_EQ_STR(e.why.text, "");
    CHECK_EQ_STR(w.ends[0].why.text, "");
    end_done(&e);
    world_done(&w);
}

TEST(wakes_of_one_tick_are_one_pull)
{
    struct world w;
    struct end e;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    dial(&w, &e);
    WAIT_FOR(&w, e.opened && w.accepted && w.ends[0].opened);
    while (uv_run(&w.loop, UV_RUN_NOWAIT) && uv_backend_timeout(&w.loop) == 0) {
    }
    int before = e.pulls;
    for (int i = 0; i < 1000; i++)
        conn_wake(e.conn);
    CHECK_EQ_INT(e.pulls, before);
    (void)uv_run(&w.loop, UV_RUN_NOWAIT);
    CHECK_EQ_INT(e.pulls, before + 1);
    for (int i = 0; i < 10; i++)
        (void)uv_run(&w.loop, UV_RUN_NOWAIT);
    CHECK_EQ_INT(e.pulls, before + 1);
    /* Idle: the loop sleeps until something happens. */
    CHECK_EQ_INT(uv_backend_timeout(&w.loop), -1);
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    end_done(&e);
    world_done(&w);
}

TEST_LIMIT(fifty_connections_at_once, 60)
{
    enum { COUNT = 50, SIZE = 100000 };
    static struct end e[COUNT];
    struct world w;
    uint8_t *bytes = pattern(SIZE);
    unsigned done = 0;
    world_init(&w);
    w.template.echo = true;
    world_listen(&w, "127.0.0.1", COUNT, NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        end_init(&e[i], &w);
        e[i].send = bytes;
        e[i].send_bytes = SIZE;
        e[i].keep = true;
        dial(&w, &e[i]);
    }
    while (done < COUNT) {
        (void)uv_run(&w.loop, UV_RUN_ONCE);
        done = 0;
        for (unsigned i = 0; i < COUNT; i++)
            done += e[i].got_bytes == SIZE || e[i].closed;
    }
    CHECK_EQ_INT(conn_listener_count(w.listener), COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK_EQ_INT(e[i].closed, 0);
        REQUIRE(e[i].got.size_bytes == SIZE);
        CHECK_EQ_MEM(e[i].got.data, bytes, SIZE);
        conn_close(e[i].conn);
    }
    WAIT_FOR(&w, conn_listener_count(w.listener) == 0);
    free(bytes);
    world_done(&w);
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK_EQ_INT(e[i].closed, 1);
        end_done(&e[i]);
    }
}

/* ---- who does not get in ---- */

TEST(a_refused_client_is_reported_at_both_ends)
{
    static const char says[] =
        "certificate not signed by this fleet's CA (it names 'spiffe://prod/agent/eve')";
    struct world w;
    struct end e;
    struct fleet other;
    struct member eve;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    fleet_init(&other, "prod");
    fleet_member(&other, &eve, "agent", "eve");
    struct tls_config *config = fleet_config(TLS_CLIENT, &w.fleet, &eve);
    end_init(&e, &w);
    dial_with(&w, &e, config, "127.0.0.1", w.port, NULL);
    WAIT_FOR(&w, e.closed && w.accepted && w.ends[0].closed);
    CHECK_EQ_INT(w.turned_away, 1);
    CHECK_EQ_INT(w.why.code, ERR_IDENTITY);
    CHECK_EQ_STR(w.why.text, says);
    CHECK(strncmp(w.address, "127.0.0.1:", 10) == 0);
    CHECK_EQ_STR(w.ends[0].why.text, says);
    CHECK_EQ_INT(w.ends[0].opened, 0);
    CHECK_EQ_INT(e.opened, 0);
    CHECK_EQ_INT(e.why.code, ERR_IDENTITY);
    CHECK_EQ_STR(e.why.text, "peer refused our certificate: not signed by its fleet's CA");
    tls_config_close(config);
    member_done(&eve);
    fleet_done(&other);
    end_done(&e);
    world_done(&w);
}

TEST(a_client_refuses_a_server_of_another_name)
{
    struct world w;
    struct end e;
    struct failure f = {0};
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    REQUIRE(conn_connect(&e.conn, &w.loop, w.client, "127.0.0.1", w.port, "other.example", NULL,
                         &events, &e, &f) == 0);
    WAIT_FOR(&w, e.closed && w.accepted && w.ends[0].closed);
    CHECK_EQ_INT(e.why.code, ERR_IDENTITY);
    CHECK(strstr(e.why.text, "is not for 'other.example'") != NULL);
    CHECK_EQ_STR(w.why.text, "peer refused our certificate: bad, or not for the name it asked for");
    end_done(&e);
    world_done(&w);
}

TEST(joining)
{
    struct world w;
    struct end e;
    world_init(&w);
    tls_config_close(w.server);
    w.server = fleet_config(TLS_JOIN_SERVER, &w.fleet, &w.collector);
    world_listen(&w, "127.0.0.1", 10, NULL);
    struct tls_config *config = fleet_config(TLS_JOIN_CLIENT, &w.fleet, NULL);
    end_init(&e, &w);
    dial_with(&w, &e, config, "localhost", w.port, NULL);
    WAIT_FOR(&w, e.closed || (e.opened && w.accepted && w.ends[0].opened));
    CHECK_EQ_STR(e.role, "collector");
    CHECK_EQ_STR(w.ends[0].role, "");
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    tls_config_close(config);
    end_done(&e);
    world_done(&w);
}

TEST(over_the_limit_of_connections)
{
    struct world w;
    struct end e[4];
    world_init(&w);
    world_listen(&w, "127.0.0.1", 2, NULL);
    for (int i = 0; i < 4; i++)
        end_init(&e[i], &w);
    dial(&w, &e[0]);
    dial(&w, &e[1]);
    WAIT_FOR(&w, e[0].opened && e[1].opened && conn_listener_count(w.listener) == 2);
    dial(&w, &e[2]);
    WAIT_FOR(&w, e[2].closed && w.turned_away);
    CHECK_EQ_INT(w.why.code, ERR_LIMIT);
    CHECK_EQ_STR(w.why.text, "limit of 2 connections reached");
    CHECK(strncmp(w.address, "127.0.0.1:", 10) == 0);
    CHECK_EQ_INT(e[2].opened, 0);
    CHECK_EQ_INT(e[2].why.code, ERR_CLOSED);
    conn_close(e[0].conn);
    WAIT_FOR(&w, conn_listener_count(w.listener) == 1);
    dial(&w, &e[3]);
    WAIT_FOR(&w, e[3].opened || e[3].closed);
    CHECK_EQ_INT(e[3].opened, 1);
    conn_close(e[1].conn);
    conn_close(e[3].conn);
    WAIT_FOR(&w, e[0].closed && e[1].closed && e[3].closed);
    WAIT_FOR(&w, conn_listener_count(w.listener) == 0);
    for (int i = 0; i < 4; i++)
        end_done(&e[i]);
    world_done(&w);
}

TEST(many_over_the_limit_are_all_told)
{
    enum { COUNT = 20 };
    struct world w;
    struct end e[COUNT + 1];
    world_init(&w);
    world_listen(&w, "127.0.0.1", 1, NULL);
    for (int i = 0; i <= COUNT; i++)
        end_init(&e[i], &w);
    dial(&w, &e[COUNT]);
    WAIT_FOR(&w, e[COUNT].opened);
    for (int i = 0; i < COUNT; i++)
        dial(&w, &e[i]);
    for (int i = 0; i < COUNT; i++)
        WAIT_FOR(&w, e[i].closed);
    WAIT_FOR(&w, w.turned_away == COUNT);
    conn_close(e[COUNT].conn);
    WAIT_FOR(&w, e[COUNT].closed && conn_listener_count(w.listener) == 0);
    for (int i = 0; i <= COUNT; i++)
        end_done(&e[i]);
    world_done(&w);
}

TEST(refused_by_the_owner_of_the_listener)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.accept_result = -1;
    world_listen(&w, "127.0.0.1", 2, NULL);
    end_init(&e, &w);
    dial(&w, &e);
    WAIT_FOR(&w, e.closed && w.turned_away);
    CHECK_EQ_INT(e.why.code, ERR_CLOSED);
    CHECK_EQ_INT(w.why.code, ERR_REFUSED);
    end_done(&e);
    world_done(&w);
}

/* At the limit of open files peers wait, and get in when others leave: none is turned away. */
TEST_LIMIT(at_the_limit_of_open_files_peers_wait, 60)
{
    enum { COUNT = 60, LIMIT = 180 };
    static struct end e[COUNT];
    struct world w;
    struct rlimit limit;
    unsigned open = 0, before = COUNT;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = LIMIT;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    world_init(&w);
    world_listen(&w, "127.0.0.1", COUNT, NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        end_init(&e[i], &w);
        dial(&w, &e[i]);
    }
    WAIT_FOR(&w, conn_listener_count(w.listener) >= 40);
    for (unsigned quiet = 0; quiet < 300; quiet = open == before ? quiet + 1 : 0) {
        before = open;
        (void)uv_run(&w.loop, UV_RUN_NOWAIT);
        open = conn_listener_count(w.listener);
    }
    CHECK(open < COUNT);
    CHECK_EQ_INT(w.turned_away, 0);
    for (unsigned i = 0; i < COUNT; i++) {
        WAIT_FOR(&w, e[i].opened || e[i].closed);
        CHECK_EQ_INT(e[i].opened, 1);
        conn_close(e[i].conn);
    }
    for (unsigned i = 0; i < COUNT; i++)
        WAIT_FOR(&w, e[i].closed == 1);
    CHECK_EQ_INT(w.accepted, COUNT);
    CHECK_EQ_INT(w.turned_away, 0);
    for (unsigned i = 0; i < COUNT; i++)
        end_done(&e[i]);
    world_done(&w);
}

/* ---- silence, and nobody there ---- */

/* A socket without TLS at either end. */
struct raw {
    uv_tcp_t tcp, accepted;
    uv_connect_t connect;
    uv_buf_t said;
    uv_write_t write;
    unsigned connected, got_bytes, ended;
    int socket_error; /* at the end; libuv may report a reset as an end of input */
};

static void raw_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *b)
{
    static char bytes[65536];
    (void)handle;
    (void)suggested;
    *b = uv_buf_init(bytes, sizeof bytes);
}

static void raw_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *b)
{
    struct raw *raw = stream->data;
    (void)b;
    if (count > 0)
        raw->got_bytes += (unsigned)count;
    else if (count < 0) {
        raw->ended = 1;
        uv_os_fd_t fd;
        socklen_t size = sizeof raw->socket_error;
        REQUIRE(uv_fileno((uv_handle_t *)stream, &fd) == 0);
        REQUIRE(getsockopt(fd, SOL_SOCKET, SO_ERROR, &raw->socket_error, &size) == 0);
        (void)uv_read_stop(stream);
    }
}

static void raw_connected(uv_connect_t *req, int status)
{
    struct raw *raw = req->handle->data;
    CHECK_EQ_INT(status, 0);
    raw->connected = 1;
    (void)uv_read_start((uv_stream_t *)&raw->tcp, raw_alloc, raw_read);
    if (raw->said.len)
        REQUIRE(uv_write(&raw->write, (uv_stream_t *)&raw->tcp, &raw->said, 1, NULL) == 0);
}

static void raw_dial(struct raw *raw, struct world *w, struct span say)
{
    struct sockaddr_in address;
    memset(raw, 0, sizeof *raw);
    raw->said = uv_buf_init((char *)say.data, (unsigned)say.size_bytes);
    REQUIRE(uv_ip4_addr("127.0.0.1", w->port, &address) == 0);
    REQUIRE(uv_tcp_init(&w->loop, &raw->tcp) == 0);
    raw->tcp.data = raw;
    REQUIRE(uv_tcp_connect(&raw->connect, &raw->tcp, (const struct sockaddr *)&address,
                           raw_connected) == 0);
}

static void raw_accept(uv_stream_t *server, int status)
{
    struct raw *raw = server->data;
    CHECK_EQ_INT(status, 0);
    REQUIRE(uv_tcp_init(server->loop, &raw->accepted) == 0);
    REQUIRE(uv_accept(server, (uv_stream_t *)&raw->accepted) == 0);
    raw->accepted.data = raw;
    raw->connected = 1;
}

static uint16_t raw_listen(struct raw *raw, struct world *w)
{
    struct sockaddr_in address;
    int size = sizeof address;
    memset(raw, 0, sizeof *raw);
    REQUIRE(uv_ip4_addr("127.0.0.1", 0, &address) == 0);
    REQUIRE(uv_tcp_init(&w->loop, &raw->tcp) == 0);
    raw->tcp.data = raw;
    REQUIRE(uv_tcp_bind(&raw->tcp, (const struct sockaddr *)&address, 0) == 0);
    REQUIRE(uv_listen((uv_stream_t *)&raw->tcp, 8, raw_accept) == 0);
    REQUIRE(uv_tcp_getsockname(&raw->tcp, (struct sockaddr *)&address, &size) == 0);
    return ntohs(address.sin_port);
}

TEST(a_silent_client_is_turned_away)
{
    static const struct conn_limits limits = {.handshake_timeout_ms = 150};
    struct world w;
    struct raw raw;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, &limits);
    raw_dial(&raw, &w, (struct span){NULL, 0});
    WAIT_FOR(&w, w.turned_away && raw.ended);
    CHECK_EQ_INT(w.why.code, ERR_TIMEOUT);
    CHECK(strstr(w.why.text, "peer did not finish the TLS handshake within ") != NULL);
    CHECK_EQ_INT(w.ends[0].closed, 1);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    world_done(&w);
}

TEST(a_silent_server_is_given_up)
{
    static const struct conn_limits limits = {.handshake_timeout_ms = 150};
    struct world w;
    struct end e;
    struct raw raw;
    world_init(&w);
    uint16_t port = raw_listen(&raw, &w);
    end_init(&e, &w);
    dial_with(&w, &e, w.client, "127.0.0.1", port, &limits);
    WAIT_FOR(&w, e.closed);
    CHECK_EQ_INT(raw.connected, 1);
    CHECK_EQ_INT(e.why.code, ERR_TIMEOUT);
    CHECK_EQ_INT(e.opened, 0);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    uv_close((uv_handle_t *)&raw.accepted, NULL);
    end_done(&e);
    world_done(&w);
}

TEST(a_client_that_speaks_http)
{
    struct world w;
    struct raw raw;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    raw_dial(&raw, &w, span_str("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    WAIT_FOR(&w, raw.ended);
    /* It closes in turn, as clients do; else we would wait a second for that. */
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    WAIT_FOR(&w, w.turned_away);
    CHECK_EQ_STR(w.why.text, "peer does not speak TLS");
    world_done(&w);
}

TEST(a_client_that_goes_at_once)
{
    struct world w;
    struct raw raw;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    raw_dial(&raw, &w, (struct span){NULL, 0});
    WAIT_FOR(&w, raw.connected);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    WAIT_FOR(&w, w.turned_away);
    CHECK_EQ_INT(w.why.code, ERR_CLOSED);
    CHECK_EQ_STR(w.why.text, "peer closed the connection during the handshake");
    world_done(&w);
}

/* A peer that never closes its side gets the goodbye, and is not waited for long. */
TEST(a_peer_that_does_not_close_is_not_waited_for)
{
    struct world w;
    struct raw raw;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    raw_dial(&raw, &w, span_str("nonsense that is no TLS at all"));
    WAIT_FOR(&w, raw.ended);
    WAIT_FOR(&w, w.turned_away);
    CHECK_EQ_INT(w.why.code, ERR_PROTOCOL);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    world_done(&w);
}

/* A close with input unread would reset the connection, and the alert might be lost with it. */
TEST(the_reason_arrives_though_input_is_unread)
{
    /* More than one read takes, and little enough for the kernel to take from the client at once.
     */
    enum { SIZE = 150000 };
    /* A ClientHello of TLS 1.1, and much behind it that nobody will read. */
    static const uint8_t hello[] = {22, 3, 1,        0, 45, 1,    0, 0, 41,
                                    3,  2, [43] = 0, 0, 2,  0xc0, 9, 1, 0};
    struct world w;
    struct raw raw;
    uint8_t *bytes = pattern(SIZE);
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    memcpy(bytes, hello, sizeof hello);
    raw_dial(&raw, &w, span_of(bytes, SIZE));
    WAIT_FOR(&w, raw.ended);
    CHECK_EQ_INT(raw.got_bytes, 7);
    CHECK_EQ_INT(raw.socket_error, 0);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    WAIT_FOR(&w, w.turned_away);
    CHECK_EQ_STR(w.why.text, "peer offers only an older TLS version, not 1.2");
    free(bytes);
    world_done(&w);
}

TEST(nobody_listens)
{
    char text[FAILURE_TEXT_SIZE];
    struct world w;
    struct end e;
    struct raw raw;
    world_init(&w);
    uint16_t port = raw_listen(&raw, &w);
    uv_close((uv_handle_t *)&raw.tcp, NULL);
    (void)uv_run(&w.loop, UV_RUN_DEFAULT);
    end_init(&e, &w);
    dial_with(&w, &e, w.client, "127.0.0.1", port, NULL);
    WAIT_FOR(&w, e.closed);
    CHECK_EQ_INT(e.why.code, ERR_UNREACHABLE);
    REQUIRE(text_format(text, sizeof text,
                        "cannot reach collector '127.0.0.1:%u': connection refused", port) == 0);
    CHECK_EQ_STR(e.why.text, text);
    CHECK_EQ_INT(e.opened, 0);
    end_done(&e);
    world_done(&w);
}

/* 192.0.2.0/24 is nobody's (RFC 5737): no route, or no answer; either way the same code. */
TEST(an_address_without_an_answer)
{
    static const struct conn_limits limits = {.connect_timeout_ms = 200};
    struct world w;
    struct end e;
    world_init(&w);
    end_init(&e, &w);
    dial_with(&w, &e, w.client, "192.0.2.1", 7443, &limits);
    WAIT_FOR(&w, e.closed);
    CHECK_EQ_INT(e.why.code, ERR_UNREACHABLE);
    const char *head = "cannot reach collector '192.0.2.1:7443': ";
    CHECK(strncmp(e.why.text, head, strlen(head)) == 0);
    end_done(&e);
    world_done(&w);
}

TEST(ipv6)
{
    struct world w;
    struct end e;
    struct failure f = {0};
    world_init(&w);
    if (conn_listen(&w.listener, &w.loop, w.server, "::1", 0, 10, NULL, &listener_events, &w, &f)) {
        CHECK_EQ_INT(f.code, ERR_INVALID);
        SKIP("no IPv6 here");
    }
    w.port = conn_listener_port(w.listener);
    end_init(&e, &w);
    dial_with(&w, &e, w.client, "::1", w.port, NULL);
    WAIT_FOR(&w, e.closed || (e.opened && w.ends[0].opened));
    CHECK_EQ_INT(e.opened, 1);
    CHECK(strncmp(e.address, "[::1]:", 6) == 0);
    CHECK(strncmp(w.ends[0].address, "[::1]:", 6) == 0);
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    end_done(&e);
    world_done(&w);
}

TEST(an_ipv4_peer_of_an_ipv6_listener)
{
    struct world w;
    struct end e;
    struct failure f = {0};
    world_init(&w);
    if (conn_listen(&w.listener, &w.loop, w.server, "::", 0, 10, NULL, &listener_events, &w, &f))
        SKIP("no IPv6 here");
    w.port = conn_listener_port(w.listener);
    end_init(&e, &w);
    dial(&w, &e);
    WAIT_FOR(&w, e.closed || (e.opened && w.ends[0].opened));
    CHECK(strncmp(w.ends[0].address, "127.0.0.1:", 10) == 0);
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    end_done(&e);
    world_done(&w);
}

TEST(a_port_in_use)
{
    char text[FAILURE_TEXT_SIZE];
    struct world w;
    struct conn_listener *second = NULL;
    struct failure f = {0};
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    CHECK_EQ_INT(conn_listen(&second, &w.loop, w.server, "127.0.0.1", w.port, 10, NULL,
                             &listener_events, &w, &f),
                 ERR_INUSE);
    REQUIRE(text_format(text, sizeof text,
                        "port %u on 127.0.0.1 is in use: another collector runs there, or choose "
                        "another with --port",
                        w.port) == 0);
    CHECK_EQ_STR(f.text, text);
    CHECK(second == NULL);
    CHECK_EQ_INT(conn_listen(&second, &w.loop, w.server, "not an address", 0, 10, NULL,
                             &listener_events, &w, &f),
                 ERR_INVALID);
    CHECK_EQ_STR(f.text, "cannot listen on 'not an address': not an IP address");
    CHECK_EQ_INT(
        conn_listen(&second, &w.loop, w.server, "192.0.2.1", 0, 10, NULL, &listener_events, &w, &f),
        ERR_INVALID);
    CHECK_EQ_INT(w.listener_closed, 0);
    world_done(&w);
    CHECK_EQ_INT(w.listener_closed, 1);
}

/* ---- ways to end ---- */

TEST(abort_is_an_abrupt_end_for_the_peer)
{
    struct world w;
    struct end e;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    dial(&w, &e);
    WAIT_FOR(&w, e.opened && w.accepted && w.ends[0].opened);
    conn_abort(e.conn, ERR_CANCELLED, "had enough");
    conn_abort(e.conn, ERR_IO, "a later reason");
    conn_close(e.conn);
    conn_wake(e.conn);
    CHECK_EQ_INT(e.closed, 0);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    CHECK_EQ_INT(e.why.code, ERR_CANCELLED);
    CHECK_EQ_STR(e.why.text, "had enough");
    CHECK_EQ_INT(w.ends[0].why.code, ERR_CLOSED);
    CHECK_EQ_STR(w.ends[0].why.text, "peer closed the connection without a goodbye");
    end_done(&e);
    world_done(&w);
}

static void abort_in(struct end *e)
{
    conn_abort(e->conn, ERR_CANCELLED, "from inside");
}

static void close_in(struct end *e)
{
    conn_close(e->conn);
}

/* One connection whose server end is `template`; both ends must come to an end. */
static void run_to_the_end(struct world *w, struct end *e)
{
    world_listen(w, "127.0.0.1", 10, NULL);
    end_init(e, w);
    e->send = (const uint8_t *)"hello";
    e->send_bytes = 5;
    dial(w, e);
    WAIT_FOR(w, e->closed && w->accepted && w->ends[0].closed);
    CHECK_EQ_INT(e->closed, 1);
    end_done(e);
}

TEST(abort_from_inside_opened)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.template.on_opened = abort_in;
    run_to_the_end(&w, &e);
    CHECK_EQ_STR(w.ends[0].why.text, "from inside");
    CHECK_EQ_INT(w.turned_away, 0);
    world_done(&w);
}

TEST(abort_from_inside_feed)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.template.on_feed = abort_in;
    run_to_the_end(&w, &e);
    CHECK_EQ_STR(w.ends[0].why.text, "from inside");
    world_done(&w);
}

TEST(close_from_inside_feed)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.template.on_feed = close_in;
    w.template.echo = true;
    run_to_the_end(&w, &e);
    CHECK_EQ_INT(w.ends[0].why.code, 0);
    CHECK_EQ_INT(e.why.code, 0);
    /* The echo was still pulled and sent. */
    CHECK_EQ_INT(e.got_bytes, 5);
    world_done(&w);
}

TEST(close_from_inside_opened)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.template.on_opened = close_in;
    run_to_the_end(&w, &e);
    CHECK_EQ_INT(w.ends[0].why.code, 0);
    CHECK_EQ_INT(e.why.code, 0);
    world_done(&w);
}

TEST(opened_says_no)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.template.opened_result = ERR_DENIED;
    run_to_the_end(&w, &e);
    CHECK_EQ_INT(w.ends[0].why.code, ERR_DENIED);
    world_done(&w);
}

TEST(feed_fails)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.template.feed_result = ERR_PROTOCOL;
    run_to_the_end(&w, &e);
    CHECK_EQ_INT(w.ends[0].why.code, ERR_PROTOCOL);
    CHECK_EQ_STR(w.ends[0].why.text, "fed something bad");
    world_done(&w);
}

TEST(pull_fails)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.template.pull_result = ERR_NOMEM;
    run_to_the_end(&w, &e);
    CHECK_EQ_INT(w.ends[0].why.code, ERR_NOMEM);
    CHECK_EQ_STR(w.ends[0].why.text, "pulled something bad");
    world_done(&w);
}

TEST(the_listener_goes_connections_stay)
{
    struct world w;
    struct end e;
    world_init(&w);
    w.template.echo = true;
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    dial(&w, &e);
    WAIT_FOR(&w, e.opened && w.accepted && w.ends[0].opened);
    conn_listener_close(w.listener);
    WAIT_FOR(&w, w.listener_closed);
    e.send = (const uint8_t *)"still here";
    e.send_bytes = 10;
    conn_wake(e.conn);
    WAIT_FOR(&w, e.got_bytes == 10 || e.closed);
    CHECK_EQ_INT(e.closed, 0);
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
    end_done(&e);
    world_done(&w);
    CHECK_EQ_INT(w.listener_closed, 1);
}

/* Ended after any number of steps of the loop, at either end: resolving, connecting, while a step
 * of the handshake is on the pool, open. `closed` comes exactly once, and nothing is left. */
static void end_after(int steps, int how)
{
    struct world w;
    struct end e;
    world_init(&w);
    world_listen(&w, "127.0.0.1", 10, NULL);
    end_init(&e, &w);
    e.send = (const uint8_t *)"hello";
    e.send_bytes = 5;
    dial(&w, &e);
    for (int i = 0; i < steps; i++)
        (void)uv_run(&w.loop, UV_RUN_ONCE);
    struct end *victim = how & 1 ? &e : &w.ends[0];
    if (victim->conn && (how & 2))
        conn_abort(victim->conn, ERR_CANCELLED, "enough");
    else if (victim->conn)
        conn_close(victim->conn);
    else
        conn_abort(e.conn, ERR_CANCELLED, "enough");
    conn_listener_close(w.listener);
    WAIT_FOR(&w, e.closed && (!w.accepted || w.ends[0].closed));
    CHECK_EQ_INT(e.closed, 1);
    end_done(&e);
    world_done(&w);
}

TEST_LIMIT(ended_at_any_moment, 60)
{
    for (int steps = 0; steps < 14; steps++)
        for (int how = 0; how < 4; how++)
            end_after(steps, how);
}
