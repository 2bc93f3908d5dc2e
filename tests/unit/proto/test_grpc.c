/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC between our own two sides: the four kinds of call, how calls end, flow control, drain,
 * keepalive, loss. What hostile peers do is in test_grpc_hostile.c, what other implementations do
 * in tests/e2e/20_interop.sh.
 */
#include "grpc_pair.h"

#include "proto/grpc_internal.h"

#define THREE_MB (3u * 1024 * 1024)

TEST(unary_call_answers_with_the_message)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    pair_ask(p, &s, "/t/Unary", span_str("hello"));
    CHECK(p->wakes > 0);
    pair_run(p);
    CHECK_EQ_INT(s.messages, 1);
    CHECK_EQ_STR(s.last, "hello");
    CHECK_EQ_INT(s.ends, 1);
    CHECK_EQ_INT(s.dones, 1);
    CHECK_EQ_INT(s.status, GRPC_OK);
    CHECK_EQ_INT(s.error, 0);
    CHECK_EQ_STR(s.text, "");
    CHECK_EQ_INT(p->served[0].dones, 1);
    CHECK_EQ_INT(p->served[0].status, GRPC_OK);
    CHECK_EQ_INT(grpc_call_count(p->client), 0);
    CHECK_EQ_INT(grpc_call_count(p->server), 0);
    pair_close(p);
}

TEST(unary_call_leaves_in_one_pull)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    struct buf out;
    pair_run(p);
    buf_init(&out, 65536);
    pair_ask(p, &s, "/t/Unary", span_str("hello"));
    REQUIRE(grpc_pull(p->client, &out, p->now_us, NULL) == 0);
    REQUIRE(grpc_feed(p->server, buf_span(&out), p->now_us, NULL) == 0);
    CHECK(out.size_bytes < 250);
    buf_clear(&out);
    REQUIRE(grpc_pull(p->server, &out, p->now_us, NULL) == 0);
    REQUIRE(grpc_feed(p->client, buf_span(&out), p->now_us, NULL) == 0);
    CHECK_EQ_INT(s.dones, 1);
    buf_done(&out);
    pair_close(p);
}

TEST(empty_messages_are_messages)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    pair_ask(p, &s, "/t/Unary", span_of(NULL, 0));
    pair_run(p);
    CHECK_EQ_INT(s.messages, 1);
    CHECK_EQ_INT(s.last_bytes, 0);
    CHECK_EQ_INT(s.status, GRPC_OK);
    pair_close(p);
}

TEST(client_stream_is_counted_and_answered)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    REQUIRE(pair_start(p, &s, "/t/Client", 0) == 0);
    for (int i = 0; i < 1000; i++)
        REQUIRE(grpc_send(s.call, span_str("piece")) == 0);
    grpc_end(s.call);
    CHECK_EQ_INT(grpc_send(s.call, span_str("late")), ERR_CLOSED);
    pair_run(p);
    CHECK_EQ_STR(s.last, "1000 messages");
    CHECK_EQ_INT(s.status, GRPC_OK);
    pair_close(p);
}

TEST(server_stream_waits_for_room)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    pair_ask(p, &s, "/t/Server", span_str("go"));
    pair_run(p);
    CHECK_EQ_INT(s.messages, 100);
    CHECK_EQ_INT(s.bytes, 2000000);
    CHECK_EQ_INT(s.status, GRPC_OK);
    CHECK(p->served[0].writables > 0);
    CHECK(p->most_queued <= 1024 * 1024);
    pair_close(p);
}

TEST(bidirectional_stream_echoes_each)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    REQUIRE(pair_start(p, &s, "/t/Bidi", 0) == 0);
    for (unsigned i = 1; i <= 50; i++) {
        REQUIRE(grpc_send(s.call, span_str("ping")) == 0);
        pair_run(p);
        CHECK_EQ_INT(s.messages, i);
    }
    CHECK_EQ_INT(s.dones, 0);
    grpc_end(s.call);
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_OK);
    CHECK_EQ_INT(s.dones, 1);
    pair_close(p);
}

TEST(messages_of_3_mb_pass_whole)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s, again;
    uint8_t *data = pair_bytes(THREE_MB);
    uint64_t expected = pair_hash(0, span_of(data, THREE_MB));
    pair_ask(p, &s, "/t/Unary", span_of(data, THREE_MB));
    pair_ask(p, &again, "/t/Unary", span_of(data, THREE_MB));
    pair_run(p);
    CHECK_EQ_INT(s.bytes, THREE_MB);
    CHECK(s.hash == expected && again.hash == expected);
    CHECK_EQ_INT(s.status, GRPC_OK);
    CHECK_EQ_INT(again.status, GRPC_OK);
    free(data);
    pair_close(p);
}

TEST(one_byte_at_a_time_makes_no_difference)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s[4];
    p->fragment = 1;
    for (int i = 0; i < 4; i++)
        pair_ask(p, &s[i], PAIR_PATHS[i], span_str("hello"));
    pair_run(p);
    CHECK_EQ_STR(s[0].last, "hello");
    CHECK_EQ_STR(s[1].last, "1 messages");
    CHECK_EQ_INT(s[2].bytes, 2000000);
    CHECK_EQ_STR(s[3].last, "hello");
    for (int i = 0; i < 4; i++)
        CHECK_EQ_INT(s[i].status, GRPC_OK);
    pair_close(p);
}

TEST(twenty_calls_run_side_by_side)
{
    struct grpc_limits limits = {.max_calls = 20};
    struct pair *p = pair_open(&limits, &limits);
    struct seen s[21];
    uint8_t *data = pair_bytes(200000);
    for (int i = 0; i < 20; i++)
        pair_ask(p, &s[i], "/t/Unary", span_of(data, 200000 - (size_t)i));
    CHECK_EQ_INT(pair_start(p, &s[20], "/t/Unary", 0), ERR_LIMIT);
    pair_run(p);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ_INT(s[i].bytes, 200000 - i);
        CHECK_EQ_INT(s[i].status, GRPC_OK);
    }
    free(data);
    pair_close(p);
}

/* The server allows 4; the client waits with the others and loses none. */
TEST(calls_over_the_peers_limit_wait)
{
    struct grpc_limits many = {.max_calls = 40}, few = {.max_calls = 4};
    struct pair *p = pair_open(&many, &few);
    struct seen s[40];
    pair_run(p);
    for (int i = 0; i < 40; i++)
        pair_ask(p, &s[i], "/t/Unary", span_str("x"));
    pair_run(p);
    for (int i = 0; i < 40; i++)
        CHECK_EQ_INT(s[i].status, GRPC_OK);
    pair_close(p);
}

TEST(a_waiting_call_can_be_cancelled)
{
    struct grpc_limits many = {.max_calls = 10}, one = {.max_calls = 1};
    struct pair *p = pair_open(&many, &one);
    struct seen first, s[3];
    pair_run(p);
    REQUIRE(pair_start(p, &first, "/t/Hold", 0) == 0);
    for (int i = 0; i < 3; i++)
        pair_ask(p, &s[i], "/t/Unary", span_str("x"));
    pair_run(p);
    grpc_cancel(s[1].call);
    pair_run(p);
    CHECK_EQ_INT(s[1].status, GRPC_CANCELLED);
    CHECK_EQ_INT(s[0].dones, 0);
    grpc_cancel(first.call);
    pair_run(p);
    CHECK_EQ_INT(s[0].status, GRPC_OK);
    CHECK_EQ_INT(s[2].status, GRPC_OK);
    CHECK_EQ_INT(p->served_count, 3);
    pair_close(p);
}

/* ---- status ---- */

TEST(unknown_and_denied_methods_say_so)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen unknown, denied;
    pair_ask(p, &unknown, "/t/Nothing", span_str("x"));
    pair_ask(p, &denied, "/t/Denied", span_str("x"));
    pair_run(p);
    CHECK_EQ_INT(unknown.status, GRPC_UNIMPLEMENTED);
    CHECK_EQ_INT(unknown.error, ERR_UNSUPPORTED);
    CHECK_EQ_STR(unknown.text, "unknown method '/t/Nothing'");
    CHECK_EQ_INT(denied.status, GRPC_PERMISSION_DENIED);
    CHECK_EQ_INT(denied.error, ERR_DENIED);
    CHECK_EQ_STR(denied.text, "role 'agent' may not call '/t/Denied'");
    CHECK_EQ_INT(p->served[0].dones + p->served[1].dones, 0);
    CHECK_EQ_INT(grpc_call_count(p->server), 0);
    pair_close(p);
}

TEST(a_failure_travels_unchanged)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    REQUIRE(pair_start(p, &s, "/t/Fail", 0) == 0);
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_FAILED_PRECONDITION);
    CHECK_EQ_INT(s.error, ERR_EXPIRED);
    CHECK_EQ_STR(s.text, "50% of 'x' \xc3\xa4 expired\nsecond line");
    CHECK_EQ_INT(s.dones, 1);
    CHECK_EQ_INT(p->served[0].status, GRPC_FAILED_PRECONDITION);
    pair_close(p);
}

TEST(long_texts_are_cut_between_characters)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    char text[2000];
    REQUIRE(pair_start(p, &s, "/t/Hold", 0) == 0);
    pair_run(p);
    memset(text, ' ', sizeof text);
    memcpy(text + 1023, "\xc3\xa4", 2);
    text[1999] = '\0';
    grpc_finish(p->served[0].call, GRPC_ABORTED, text);
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_ABORTED);
    CHECK_EQ_INT(strlen(s.text), sizeof s.text - 1);
    pair_close(p);
}

TEST(a_message_handler_can_refuse)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen up, down;
    REQUIRE(pair_start(p, &up, "/t/Client", 0) == 0);
    pair_run(p);
    p->served[0].refuse = ERR_CORRUPT;
    REQUIRE(grpc_send(up.call, span_str("a")) == 0);
    REQUIRE(grpc_send(up.call, span_str("b")) == 0);
    pair_run(p);
    CHECK_EQ_INT(up.status, GRPC_DATA_LOSS);
    CHECK_EQ_INT(up.error, ERR_CORRUPT);
    CHECK_EQ_INT(p->served[0].messages, 1);

    pair_ask(p, &down, "/t/Server", span_str("go"));
    down.refuse = ERR_CORRUPT;
    pair_run(p);
    CHECK_EQ_INT(down.status, GRPC_CANCELLED);
    CHECK_EQ_INT(down.error, ERR_CORRUPT);
    CHECK_EQ_INT(down.messages, 1);
    CHECK_EQ_INT(p->served[1].status, GRPC_CANCELLED);
    pair_close(p);
}

TEST(finishing_early_stops_the_sender)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    uint8_t *data = pair_bytes(900000);
    REQUIRE(pair_start(p, &s, "/t/Paused", 0) == 0);
    REQUIRE(grpc_send(s.call, span_of(data, 900000)) == 0);
    pair_run(p);
    grpc_finish(p->served[0].call, GRPC_ALREADY_EXISTS, "have it");
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_ALREADY_EXISTS);
    CHECK_EQ_STR(s.text, "have it");
    CHECK_EQ_INT(p->served[0].status, GRPC_ALREADY_EXISTS);
    CHECK_EQ_INT(grpc_call_count(p->server), 0);
    CHECK_EQ_INT(grpc_refused_count(p->server), 0);
    free(data);
    pair_close(p);
}

/* ---- deadlines and cancel ---- */

TEST(deadline_ends_the_call_on_both_sides)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    uint64_t next;
    REQUIRE(pair_start(p, &s, "/t/Hold", 1500000) == 0);
    pair_run(p);
    CHECK_EQ_INT(grpc_deadline_us(p->served[0].call), p->now_us + 1500000);
    REQUIRE(grpc_tick(p->client, p->now_us, &next, NULL) == 0);
    CHECK_EQ_INT(next, p->now_us + 1500000);
    pair_advance(p, 1499999);
    CHECK_EQ_INT(s.dones, 0);
    pair_advance(p, 1);
    CHECK_EQ_INT(s.status, GRPC_DEADLINE_EXCEEDED);
    CHECK_EQ_INT(s.error, ERR_TIMEOUT);
    CHECK_EQ_INT(p->served[0].status, GRPC_DEADLINE_EXCEEDED);
    CHECK_EQ_INT(grpc_call_count(p->server), 0);
    pair_close(p);
}

/* On a quiet connection our last idea of the time is old; the timeout must not begin there. */
TEST(deadline_begins_when_the_clock_is_next_read)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    pair_run(p);
    p->now_us += 15000000;
    REQUIRE(pair_start(p, &s, "/t/Hold", 1000000) == 0);
    pair_run(p);
    pair_tick(p);
    CHECK_EQ_INT(s.dones, 0);
    pair_advance(p, 1000000);
    CHECK_EQ_INT(s.status, GRPC_DEADLINE_EXCEEDED);
    pair_close(p);
}

TEST(server_keeps_the_deadline_of_a_silent_client)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    uint64_t next;
    REQUIRE(pair_start(p, &s, "/t/Server", 2000000) == 0);
    pair_run(p);
    p->now_us += 2000000;
    REQUIRE(grpc_tick(p->server, p->now_us, &next, NULL) == 0);
    CHECK_EQ_INT(p->served[0].status, GRPC_DEADLINE_EXCEEDED);
    CHECK_EQ_INT(grpc_call_count(p->server), 0);
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_DEADLINE_EXCEEDED);
    CHECK_EQ_STR(s.text, "deadline exceeded");
    pair_close(p);
}

/* The client stopped reading: no window for the queue, but the call ends all the same. */
TEST(deadline_ends_a_call_whose_reader_stalls)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    REQUIRE(pair_start(p, &s, "/t/Server", 2000000) == 0);
    grpc_pause(s.call);
    REQUIRE(grpc_send(s.call, span_str("go")) == 0);
    grpc_end(s.call);
    pair_run(p);
    CHECK(p->served[0].to_send > 0);
    pair_advance(p, 2000000);
    CHECK_EQ_INT(s.status, GRPC_DEADLINE_EXCEEDED);
    CHECK_EQ_INT(p->served[0].status, GRPC_DEADLINE_EXCEEDED);
    CHECK_EQ_INT(grpc_call_count(p->server) + grpc_call_count(p->client), 0);
    pair_close(p);
}

TEST(cancel_by_the_client_reaches_the_server)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    pair_ask(p, &s, "/t/Hold", span_str("x"));
    pair_run(p);
    grpc_cancel(s.call);
    CHECK_EQ_INT(s.dones, 0);
    CHECK_EQ_INT(grpc_send(s.call, span_str("x")), ERR_CLOSED);
    grpc_cancel(s.call);
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_CANCELLED);
    CHECK_EQ_INT(s.dones, 1);
    CHECK_EQ_INT(p->served[0].status, GRPC_CANCELLED);
    CHECK_EQ_INT(p->served[0].error, ERR_CANCELLED);
    CHECK_EQ_INT(grpc_call_count(p->server), 0);
    pair_close(p);
}

TEST(cancel_by_the_server_reaches_the_client)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    pair_ask(p, &s, "/t/Hold", span_str("x"));
    pair_run(p);
    grpc_cancel(p->served[0].call);
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_CANCELLED);
    CHECK_EQ_STR(s.text, "cancelled");
    CHECK_EQ_INT(p->served[0].dones, 1);
    pair_close(p);
}

/* ---- flow control ---- */

/* The server does not read: the client's queue fills to its limit, the server holds one window. */
TEST(a_paused_reader_stops_the_sender)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    uint8_t *data = pair_bytes(10000);
    unsigned sent = 0;
    int r = 0;
    REQUIRE(pair_start(p, &s, "/t/Paused", 0) == 0);
    for (int round = 0; round < 50; round++) {
        while ((r = grpc_send(s.call, span_of(data, 10000))) == 0)
            sent++;
        pair_run(p);
    }
    CHECK_EQ_INT(r, ERR_LIMIT);
    CHECK_EQ_INT(p->served[0].messages, 0);
    CHECK(grpc_send_queued_bytes(s.call) <= 1024 * 1024);
    CHECK(sent * 10005 <= (1024 + 256 + 64) * 1024);
    CHECK(p->served[0].call->in.capacity_bytes <= 2 * 256 * 1024);
    grpc_resume(p->served[0].call);
    pair_run(p);
    CHECK_EQ_INT(p->served[0].messages, sent);
    CHECK(s.writables > 0);
    free(data);
    pair_close(p);
}

/* Other calls go on beside any number of paused ones. */
TEST(paused_calls_do_not_stop_the_others)
{
    struct grpc_limits limits = {.max_calls = 17};
    struct pair *p = pair_open(&limits, &limits);
    struct seen held[16], s;
    uint8_t *data = pair_bytes(1000000);
    for (int i = 0; i < 16; i++) {
        REQUIRE(pair_start(p, &held[i], "/t/Paused", 0) == 0);
        REQUIRE(grpc_send(held[i].call, span_of(data, 1000000)) == 0);
    }
    pair_run(p);
    pair_ask(p, &s, "/t/Unary", span_of(data, 1000000));
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_OK);
    for (unsigned i = 0; i < 16; i++)
        CHECK(p->served[i].call->in.size_bytes <= 256 * 1024);
    free(data);
    pair_close(p);
}

TEST(pausing_within_a_message_holds_the_next)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    REQUIRE(pair_start(p, &s, "/t/Paused", 0) == 0);
    for (int i = 0; i < 3; i++)
        REQUIRE(grpc_send(s.call, span_str("m")) == 0);
    grpc_end(s.call);
    pair_run(p);
    CHECK_EQ_INT(p->served[0].messages, 0);
    CHECK_EQ_INT(p->served[0].ends, 0);
    grpc_resume(p->served[0].call);
    CHECK_EQ_INT(p->served[0].messages, 0);
    pair_run(p);
    CHECK_EQ_INT(p->served[0].messages, 3);
    CHECK_EQ_INT(p->served[0].ends, 1);
    pair_close(p);
}

/* The answer is complete, but the client has not taken it yet: `done` waits. */
TEST(a_paused_client_gets_everything_later)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    pair_ask(p, &s, "/t/Unary", span_str("hello"));
    grpc_pause(s.call);
    pair_run(p);
    CHECK_EQ_INT(s.messages, 0);
    CHECK_EQ_INT(s.dones, 0);
    pair_advance(p, 1000);
    grpc_resume(s.call);
    pair_run(p);
    CHECK_EQ_STR(s.last, "hello");
    CHECK_EQ_INT(s.ends, 1);
    CHECK_EQ_INT(s.status, GRPC_OK);
    pair_close(p);
}

TEST(the_queue_takes_one_large_message)
{
    struct grpc_limits limits = {.send_queue_bytes = 1000, .max_message_bytes = 50000};
    struct pair *p = pair_open(&limits, &limits);
    struct seen s;
    uint8_t *data = pair_bytes(60000);
    REQUIRE(pair_start(p, &s, "/t/Bidi", 0) == 0);
    CHECK_EQ_INT(grpc_send(s.call, span_of(data, 50001)), ERR_INVALID);
    CHECK_EQ_INT(grpc_send(s.call, span_of(data, 50000)), 0);
    CHECK_EQ_INT(grpc_send(s.call, span_of(data, 1)), ERR_LIMIT);
    pair_run(p);
    CHECK_EQ_INT(s.writables, 1);
    CHECK_EQ_INT(s.bytes, 50000);
    CHECK_EQ_INT(grpc_send(s.call, span_of(data, 1)), 0);
    free(data);
    pair_close(p);
}

TEST(an_idle_connection_keeps_little)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    uint8_t *data = pair_bytes(THREE_MB);
    REQUIRE(pair_start(p, &s, "/t/Bidi", 0) == 0);
    REQUIRE(grpc_send(s.call, span_of(data, THREE_MB)) == 0);
    pair_run(p);
    CHECK_EQ_INT(s.bytes, THREE_MB);
    CHECK_EQ_INT(s.call->in.capacity_bytes + s.call->out.capacity_bytes, 0);
    const struct grpc_call *served = p->served[0].call;
    CHECK_EQ_INT(served->in.capacity_bytes + served->out.capacity_bytes, 0);
    free(data);
    pair_close(p);
}

/* ---- drain, keepalive, loss ---- */

TEST(draining_server_finishes_what_runs)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s, late;
    REQUIRE(pair_start(p, &s, "/t/Bidi", 0) == 0);
    pair_run(p);
    CHECK(!grpc_is_idle_after_drain(p->server));
    grpc_drain(p->server);
    pair_run(p);
    CHECK(!grpc_is_idle_after_drain(p->server) && !grpc_is_idle_after_drain(p->client));
    CHECK_EQ_INT(pair_start(p, &late, "/t/Unary", 0), ERR_CLOSED);
    REQUIRE(grpc_send(s.call, span_str("still here")) == 0);
    grpc_end(s.call);
    pair_run(p);
    CHECK_EQ_STR(s.last, "still here");
    CHECK_EQ_INT(s.status, GRPC_OK);
    CHECK(grpc_is_idle_after_drain(p->server) && grpc_is_idle_after_drain(p->client));
    CHECK_EQ_INT(p->server_failed, 0);
    pair_close(p);
}

/* A call that was on its way when the drain began is served; the notice gives it the time. */
TEST(drain_serves_calls_on_their_way)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    pair_run(p);
    pair_ask(p, &s, "/t/Unary", span_str("x"));
    grpc_drain(p->server);
    CHECK(!grpc_is_idle_after_drain(p->server));
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_OK);
    CHECK(grpc_is_idle_after_drain(p->server));
    pair_close(p);
}

TEST(drain_does_not_wait_for_a_deaf_client)
{
    struct pair *p = pair_open(NULL, NULL);
    pair_run(p);
    p->server_mute = true;
    grpc_drain(p->server);
    pair_run(p);
    CHECK(!grpc_is_idle_after_drain(p->server));
    pair_advance(p, 1000000);
    CHECK(grpc_is_idle_after_drain(p->server));
    pair_close(p);
}

TEST(draining_client_starts_nothing)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s, late;
    REQUIRE(pair_start(p, &s, "/t/Bidi", 0) == 0);
    pair_run(p);
    grpc_drain(p->client);
    CHECK_EQ_INT(pair_start(p, &late, "/t/Unary", 0), ERR_CLOSED);
    grpc_end(s.call);
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_OK);
    CHECK(grpc_is_idle_after_drain(p->client));
    CHECK(grpc_is_idle_after_drain(p->server));
    pair_close(p);
}

TEST(keepalive_holds_a_quiet_connection)
{
    struct pair *p = pair_open(NULL, NULL);
    uint64_t next;
    pair_run(p);
    for (int i = 0; i < 100; i++) {
        REQUIRE(grpc_tick(p->client, p->now_us, &next, NULL) == 0);
        CHECK(next > p->now_us && next <= p->now_us + 20000000);
        pair_advance(p, 7000000);
    }
    CHECK_EQ_INT(p->client_failed, 0);
    CHECK_EQ_INT(p->server_failed, 0);
    pair_close(p);
}

TEST(keepalive_finds_a_dead_peer)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    REQUIRE(pair_start(p, &s, "/t/Hold", 0) == 0);
    pair_run(p);
    p->server_mute = true;
    pair_advance(p, 20000000);
    CHECK_EQ_INT(p->client_failed, 0);
    pair_advance(p, 9999999);
    CHECK_EQ_INT(p->client_failed, 0);
    pair_advance(p, 1);
    CHECK_EQ_INT(p->client_failed, ERR_TIMEOUT);
    CHECK_EQ_STR(p->client_why.text, "peer does not answer");
    CHECK_EQ_INT(s.dones, 0);
    grpc_close(p->client, p->client_why.text);
    p->client = NULL;
    CHECK_EQ_INT(s.status, GRPC_UNAVAILABLE);
    CHECK_EQ_STR(s.text, "peer does not answer");
    pair_close(p);
}

TEST(a_lost_connection_ends_every_call_once)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s[3];
    uint8_t *data = pair_bytes(THREE_MB);
    pair_ask(p, &s[0], "/t/Server", span_str("go"));
    pair_ask(p, &s[1], "/t/Unary", span_of(data, THREE_MB));
    REQUIRE(pair_start(p, &s[2], "/t/Hold", 0) == 0);
    for (int i = 0; i < 6; i++)
        pair_carry(p, i % 2 == 0);
    grpc_close(p->client, "cable cut");
    grpc_close(p->server, "cable cut");
    p->client = p->server = NULL;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ_INT(s[i].dones, 1);
        CHECK_EQ_INT(s[i].status, GRPC_UNAVAILABLE);
        CHECK_EQ_STR(s[i].text, "cable cut");
    }
    for (unsigned i = 0; i < p->served_count; i++)
        CHECK_EQ_INT(p->served[i].dones, 1);
    CHECK(p->served_count == 3);
    free(data);
    pair_close(p);
}

struct restart {
    struct pair *p;
    struct seen next;
    int result;
    unsigned dones;
};

static void restart_done(void *owner, struct grpc_call *call, enum grpc_status status,
                         const char *text)
{
    struct restart *r = owner;
    (void)call, (void)status, (void)text;
    r->dones++;
    r->result = pair_start(r->p, &r->next, "/t/Unary", 0);
    if (r->result == 0) {
        grpc_send(r->next.call, span_str("again"));
        grpc_end(r->next.call);
    }
}

TEST(done_may_start_another_call)
{
    struct grpc_limits one = {.max_calls = 1};
    struct pair *p = pair_open(&one, NULL);
    static const struct grpc_call_events events = {.done = restart_done};
    struct restart r = {.p = p};
    struct grpc_call *call;
    REQUIRE(grpc_start(p->client, "/t/Nothing", 0, &events, &r, &call, NULL) == 0);
    pair_run(p);
    CHECK_EQ_INT(r.dones, 1);
    CHECK_EQ_INT(r.result, 0);
    CHECK_EQ_STR(r.next.last, "again");
    CHECK_EQ_INT(r.next.status, GRPC_OK);
    REQUIRE(grpc_start(p->client, "/t/Hold", 0, &events, &r, &call, NULL) == 0);
    grpc_close(p->client, "over");
    p->client = NULL;
    CHECK_EQ_INT(r.dones, 2);
    CHECK_EQ_INT(r.result, ERR_CLOSED);
    pair_close(p);
}

/* ---- values on the wire ---- */

static uint64_t timeout_us(const char *text)
{
    uint64_t us = 12345678901;
    return grpc_timeout_parse(span_str(text), &us) ? us : UINT64_MAX;
}

TEST(timeouts_are_read_in_all_units)
{
    CHECK_EQ_INT(timeout_us("1H"), 3600000000);
    CHECK_EQ_INT(timeout_us("2M"), 120000000);
    CHECK_EQ_INT(timeout_us("3S"), 3000000);
    CHECK_EQ_INT(timeout_us("4m"), 4000);
    CHECK_EQ_INT(timeout_us("5u"), 5);
    CHECK_EQ_INT(timeout_us("1n"), 1);
    CHECK_EQ_INT(timeout_us("2001n"), 3);
    CHECK_EQ_INT(timeout_us("0S"), 0);
    CHECK_EQ_INT(timeout_us("99999999H"), 359999996400000000);
    static const char *const bad[] = {"",    "S",   "1",   "1s",         "-1S",  "+1S",
                                      " 1S", "1 S", "1SS", "123456789S", "1.5S", "0x1S"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(timeout_us(bad[i]) == UINT64_MAX);
}

TEST(timeouts_are_written_so_that_they_come_back)
{
    static const uint64_t values[] = {1,         1000,        99999999,      100000000,
                                      100000001, 99999999999, 3600000000001, UINT64_C(1) << 56,
                                      UINT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[GRPC_TIMEOUT_SIZE];
        grpc_timeout_format(values[i], text);
        uint64_t back = timeout_us(text);
        CHECK(strlen(text) <= 9);
        CHECK(back >= values[i] || values[i] == UINT64_MAX);
        CHECK(values[i] >= 100000000 || back == values[i]);
    }
}

TEST(messages_are_percent_encoded)
{
    char wire[GRPC_ENCODED_BYTES];
    struct buf back;
    const char *text = " 100% \xc3\xa4\n\x7f ";
    size_t n = grpc_message_encode(span_str(text), wire);
    CHECK_EQ_INT(n, strlen("%20100%25 %C3%A4%0A%7F%20"));
    CHECK_EQ_MEM(wire, "%20100%25 %C3%A4%0A%7F%20", n);
    buf_init(&back, GRPC_TEXT_BYTES);
    grpc_message_decode(span_of(wire, n), &back);
    CHECK_EQ_STR(buf_str(&back), text);
    grpc_message_decode(span_str("%zz %2 %00 %"), &back);
    CHECK_EQ_STR(buf_str(&back), "%zz %2 %00 %");
    buf_done(&back);
}

TEST(content_types_are_judged)
{
    CHECK(grpc_content_type_ok(span_str("application/grpc")));
    CHECK(grpc_content_type_ok(span_str("application/grpc+proto")));
    CHECK(grpc_content_type_ok(span_str("application/grpc;charset=utf-8")));
    CHECK(!grpc_content_type_ok(span_str("application/grpc+json")));
    CHECK(!grpc_content_type_ok(span_str("application/grpcx")));
    CHECK(!grpc_content_type_ok(span_str("application/json")));
    CHECK(!grpc_content_type_ok(span_str("")));
}

/* ---- no memory ---- */

struct scarce {
    unsigned left; /* allocations that still succeed */
    bool failed;
};

static bool scarce_take(struct scarce *s)
{
    if (s->left == 0) {
        s->failed = true;
        return false;
    }
    s->left--;
    return true;
}

static void *scarce_malloc(size_t size, void *user_data)
{
    return scarce_take(user_data) ? malloc(size) : NULL;
}

static void scarce_free(void *data, void *user_data)
{
    (void)user_data;
    free(data);
}

static void *scarce_calloc(size_t count, size_t size, void *user_data)
{
    return scarce_take(user_data) ? calloc(count, size) : NULL;
}

static void *scarce_realloc(void *data, size_t size, void *user_data)
{
    return scarce_take(user_data) ? realloc(data, size) : NULL;
}

/* One call of each kind, with the n-th allocation of the server failing: refused or served, no
 * crash. */
static bool run_scarce(unsigned allocations, bool server_side)
{
    struct scarce scarce = {.left = allocations};
    const nghttp2_mem mem = {&scarce, scarce_malloc, scarce_free, scarce_calloc, scarce_realloc};
    struct pair *p = calloc(1, sizeof *p);
    struct seen s[4];
    unsigned started = 0;
    REQUIRE(p != NULL);
    p->scarce = true;
    int r =
        grpc_open_with(&p->server, true, NULL, &PAIR_EVENTS, p, "", 0, server_side ? &mem : NULL);
    if (r == 0)
        r = grpc_open_with(&p->client, false, NULL, &PAIR_CLIENT_EVENTS, p, "c", 0,
                           server_side ? NULL : &mem);
    for (; r == 0 && started < 4; started++) {
        if (pair_start(p, &s[started], PAIR_PATHS[started], 0) != 0)
            break;
        grpc_send(s[started].call, span_str("x"));
        grpc_end(s[started].call);
    }
    if (r == 0)
        pair_run(p);
    grpc_close(p->client, "over");
    grpc_close(p->server, "over");
    for (unsigned i = 0; i < started; i++)
        CHECK_EQ_INT(s[i].dones, 1);
    free(p);
    return scarce.failed;
}

TEST(every_allocation_may_fail)
{
    for (int side = 0; side < 2; side++) {
        unsigned n = 0;
        while (run_scarce(n, side == 0))
            n++;
        CHECK(n > 20);
    }
}
