/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections on a real loop: bytes both ways, back-pressure, every way to end. The handshakes run
 * on libuv's pool, so this file is also what the thread sanitizer looks at.
 */
#include "tests/unit/common/conn_world.h"

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

/* Sending does not lift the pause: only the owner's own wake does. */
TEST(a_paused_end_sends_and_is_fed_nothing)
{
    enum { SIZE = 3 << 20 };
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
    WAIT_FOR(&w, w.accepted && w.ends[0].got_bytes > 0);
    w.ends[0].send = bytes;
    w.ends[0].send_bytes = SIZE;
    conn_wake(w.ends[0].conn);
    WAIT_FOR(&w, e.closed || e.got_bytes == SIZE);
    /* One record before the pause, and at most one for the wake. */
    CHECK(w.ends[0].got_bytes <= 2 * 16384);
    w.ends[0].pause = false;
    conn_wake(w.ends[0].conn);
    WAIT_FOR(&w, w.ends[0].got_bytes == SIZE);
    conn_close(e.conn);
    WAIT_FOR(&w, e.closed && w.ends[0].closed);
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

TEST_LIMIT(fifty_connections_at_once, 300)
{
    enum { COUNT = 50, SIZE = 100000 };
    static struct end e[COUNT];
    struct world w;
    uint8_t *bytes = pattern(SIZE);
    unsigned done = 0;
    /* A hundred handshakes on a busy machine. */
    const struct conn_limits patient = {.handshake_timeout_ms = 250000};
    world_init(&w);
    w.template.echo = true;
    world_listen(&w, "127.0.0.1", COUNT, &patient);
    for (unsigned i = 0; i < COUNT; i++) {
        end_init(&e[i], &w);
        e[i].send = bytes;
        e[i].send_bytes = SIZE;
        e[i].keep = true;
        dial_with(&w, &e[i], w.client, "127.0.0.1", w.port, &patient);
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
