/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC between our own two sides: the four kinds of call, how calls end, flow control. How
 * connections end is in test_grpc_life.c, what hostile peers do in test_grpc_hostile.c, what other
 * implementations do in tests/e2e/20_interop.sh.
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

/* Trailers behind half a message would make it look whole: that call is reset instead. */
TEST(a_message_sent_in_part_is_cut_off_by_a_reset)
{
    struct pair *p = pair_open(NULL, NULL);
    struct seen s;
    uint8_t *data = pair_bytes(THREE_MB);
    REQUIRE(pair_start(p, &s, "/t/Hold", 0) == 0);
    grpc_pause(s.call);
    pair_run(p);
    REQUIRE(grpc_send(p->served[0].call, span_of(data, THREE_MB)) == 0);
    pair_run(p);
    grpc_finish(p->served[0].call, GRPC_OK, "");
    pair_run(p);
    CHECK_EQ_INT(p->served[0].dones, 0);
    grpc_call_abort(p->served[0].call, GRPC_DEADLINE_EXCEEDED, ERR_TIMEOUT, "too late");
    pair_run(p);
    CHECK_EQ_INT(p->served[0].status, GRPC_DEADLINE_EXCEEDED);
    CHECK_EQ_INT(s.status, GRPC_CANCELLED);
    CHECK_EQ_STR(s.text, "call reset by the peer: CANCEL");
    CHECK_EQ_INT(s.messages, 0);
    free(data);
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
