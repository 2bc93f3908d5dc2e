/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC client and a gRPC server in one process, joined by memory and a clock that stands still
 * until told. The server serves a few methods named after what they do. Used by test_grpc.c and
 * test_grpc_hostile.c.
 */
#ifndef TESTS_PROTO_GRPC_PAIR_H
#define TESTS_PROTO_GRPC_PAIR_H

#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "proto/grpc.h"
#include "tests/check.h"

struct pair;

enum pair_kind {
    KIND_UNARY,
    KIND_CLIENT,
    KIND_SERVER,
    KIND_BIDI,
    KIND_HOLD,
    KIND_FAIL,
    KIND_PAUSED
};

/* What one side of one call saw. */
struct seen {
    struct pair *p;
    struct grpc_call *call;
    enum pair_kind kind;
    unsigned messages, ends, dones, writables;
    size_t bytes;
    uint64_t hash; /* of all bytes in order */
    enum grpc_status status;
    int error;
    char text[256];
    char last[64]; /* the beginning of the last message */
    size_t last_bytes;
    unsigned to_send;    /* KIND_SERVER: messages still to send */
    size_t message_size; /* of size */
    int refuse;          /* what `message` returns */
};

#define PAIR_CALLS 4096

struct pair {
    uint64_t now_us;
    struct grpc *client, *server;
    int client_failed, server_failed;
    struct failure client_why, server_why;
    size_t fragment;               /* at most this many bytes at a time; 0: all */
    bool client_mute, server_mute; /* bytes from that side are not carried */
    unsigned wakes;
    struct seen served[PAIR_CALLS];
    unsigned served_count;
    size_t most_queued;
    bool scarce; /* memory is: sending may fail */
};

static uint64_t pair_hash(uint64_t hash, struct span s)
{
    for (size_t i = 0; i < s.size_bytes; i++)
        hash = (hash ^ s.data[i]) * UINT64_C(1099511628211);
    return hash;
}

static void seen_message(struct seen *s, struct span message)
{
    s->messages++;
    s->bytes += message.size_bytes;
    s->hash = pair_hash(s->hash, message);
    s->last_bytes = message.size_bytes;
    size_t n = message.size_bytes < sizeof s->last - 1 ? message.size_bytes : sizeof s->last - 1;
    if (n > 0)
        memcpy(s->last, message.data, n);
    s->last[n] = '\0';
}

static void seen_done(struct seen *s, enum grpc_status status, const char *text)
{
    s->dones++;
    s->status = status;
    s->error = grpc_call_error(s->call);
    text_copy(s->text, sizeof s->text, text);
}

/* ---- the server's methods ---- */

static uint8_t *pair_bytes(size_t size)
{
    uint8_t *data = malloc(size + 1);
    REQUIRE(data != NULL);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    return data;
}

static void serve_more(struct seen *s)
{
    uint8_t *data = pair_bytes(s->message_size);
    int r = 0;
    while (s->to_send > 0 && (r = grpc_send(s->call, span_of(data, s->message_size))) == 0)
        s->to_send--;
    size_t queued = grpc_send_queued_bytes(s->call);
    if (queued > s->p->most_queued)
        s->p->most_queued = queued;
    free(data);
    if (r == 0)
        grpc_finish(s->call, GRPC_OK, "");
    else
        CHECK(r == ERR_LIMIT || r == ERR_CLOSED);
}

static int served_message(void *owner, struct grpc_call *call, struct span message)
{
    struct seen *s = owner;
    CHECK(call == s->call && s->dones == 0 && s->ends == 0);
    seen_message(s, message);
    if (s->kind == KIND_UNARY) {
        CHECK(grpc_send(call, message) == 0 || s->p->scarce);
        grpc_finish(call, GRPC_OK, "");
    } else if (s->kind == KIND_BIDI) {
        int r = grpc_send(call, message);
        CHECK(r == 0 || r == ERR_LIMIT || r == ERR_CLOSED);
    } else if (s->kind == KIND_SERVER && s->to_send > 0) {
        serve_more(s);
    }
    return s->refuse;
}

static void served_end(void *owner, struct grpc_call *call)
{
    struct seen *s = owner;
    CHECK(s->dones == 0);
    s->ends++;
    char text[32];
    text_format(text, sizeof text, "%u messages", s->messages);
    if (s->kind == KIND_CLIENT)
        CHECK(grpc_send(call, span_str(text)) == 0 || s->p->scarce);
    if (s->kind == KIND_CLIENT || s->kind == KIND_BIDI)
        grpc_finish(call, GRPC_OK, "");
}

static void served_writable(void *owner, struct grpc_call *call)
{
    struct seen *s = owner;
    (void)call;
    s->writables++;
    if (s->kind == KIND_SERVER)
        serve_more(s);
}

static void served_done(void *owner, struct grpc_call *call, enum grpc_status status,
                        const char *text)
{
    struct seen *s = owner;
    CHECK(call == s->call);
    seen_done(s, status, text);
}

static const struct grpc_call_events SERVED = {served_message, served_end, served_writable,
                                               served_done};

static const char *const PAIR_PATHS[] = {"/t/Unary", "/t/Client", "/t/Server", "/t/Bidi",
                                         "/t/Hold",  "/t/Fail",   "/t/Paused"};

static int pair_call(void *owner, struct grpc_call *call, const char *path,
                     const struct grpc_call_events **events, void **call_owner, struct failure *f)
{
    struct pair *p = owner;
    REQUIRE(p->served_count < PAIR_CALLS);
    struct seen *s = &p->served[p->served_count++];
    *s = (struct seen){.p = p, .call = call, .to_send = 100, .message_size = 20000};
    if (strcmp(path, "/t/Denied") == 0)
        return fail(f, ERR_DENIED, "role 'agent' may not call '%s'", path);
    while (s->kind <= KIND_PAUSED && strcmp(PAIR_PATHS[s->kind], path) != 0)
        s->kind++;
    if (s->kind > KIND_PAUSED)
        return fail(f, ERR_UNSUPPORTED, "unknown method '%s'", path);
    *events = &SERVED;
    *call_owner = s;
    if (s->kind == KIND_PAUSED)
        grpc_pause(call);
    if (s->kind == KIND_FAIL) {
        struct failure why = {0};
        fail(&why, ERR_EXPIRED, "50%% of 'x' \xc3\xa4 expired\nsecond line");
        grpc_finish_failure(call, &why);
    }
    return 0;
}

static void pair_wake(void *owner)
{
    struct pair *p = owner;
    p->wakes++;
}

static const struct grpc_events PAIR_EVENTS = {pair_call, pair_wake};
static const struct grpc_events PAIR_CLIENT_EVENTS = {NULL, pair_wake};

/* ---- the client's side ---- */

static int seen_client_message(void *owner, struct grpc_call *call, struct span message)
{
    struct seen *s = owner;
    CHECK(call == s->call && s->dones == 0 && s->ends == 0);
    seen_message(s, message);
    return s->refuse;
}

static void seen_client_end(void *owner, struct grpc_call *call)
{
    struct seen *s = owner;
    CHECK(call == s->call && s->dones == 0);
    s->ends++;
}

static void seen_client_writable(void *owner, struct grpc_call *call)
{
    struct seen *s = owner;
    (void)call;
    s->writables++;
}

static const struct grpc_call_events SEEN = {seen_client_message, seen_client_end,
                                             seen_client_writable, served_done};

static struct pair *pair_open(const struct grpc_limits *client, const struct grpc_limits *server)
{
    struct pair *p = calloc(1, sizeof *p);
    REQUIRE(p != NULL);
    p->now_us = 5000000;
    REQUIRE(grpc_open_server(&p->server, server, &PAIR_EVENTS, p, p->now_us) == 0);
    REQUIRE(grpc_open_client(&p->client, client, &PAIR_CLIENT_EVENTS, p, "c:1", p->now_us) == 0);
    return p;
}

static void pair_close(struct pair *p)
{
    grpc_close(p->client, "test over");
    grpc_close(p->server, "test over");
    for (unsigned i = 0; i < p->served_count; i++)
        CHECK(p->served[i].dones <= 1);
    free(p);
}

/* Carries what one side has to say to the other; returns how many bytes. */
static size_t pair_carry(struct pair *p, bool to_server)
{
    struct grpc *from = to_server ? p->client : p->server;
    struct grpc *to = to_server ? p->server : p->client;
    int *from_failed = to_server ? &p->client_failed : &p->server_failed;
    int *to_failed = to_server ? &p->server_failed : &p->client_failed;
    struct failure *from_why = to_server ? &p->client_why : &p->server_why;
    struct failure *to_why = to_server ? &p->server_why : &p->client_why;
    struct buf out;
    buf_init(&out, 128 * 1024);
    if (*from_failed == 0)
        *from_failed = grpc_pull(from, &out, p->now_us, from_why);
    CHECK(out.size_bytes <= 82 * 1024);
    struct span rest = buf_span(&out);
    size_t carried = rest.size_bytes;
    bool mute = to_server ? p->client_mute : p->server_mute;
    while (rest.size_bytes > 0 && *to_failed == 0 && !mute) {
        size_t n = p->fragment && p->fragment < rest.size_bytes ? p->fragment : rest.size_bytes;
        *to_failed = grpc_feed(to, span_of(rest.data, n), p->now_us, to_why);
        rest = span_of(rest.data + n, rest.size_bytes - n);
    }
    buf_done(&out);
    return carried;
}

static void pair_tick(struct pair *p)
{
    uint64_t next;
    if (p->client_failed == 0)
        p->client_failed = grpc_tick(p->client, p->now_us, &next, &p->client_why);
    if (p->server_failed == 0)
        p->server_failed = grpc_tick(p->server, p->now_us, &next, &p->server_why);
}

/* Until neither side has anything to say. */
static void pair_run(struct pair *p)
{
    for (unsigned i = 0; i < 100000; i++) {
        size_t a = pair_carry(p, true);
        size_t b = pair_carry(p, false);
        if (a + b == 0)
            return;
    }
    CHECK(!"the two sides never fall silent");
}

static void pair_advance(struct pair *p, uint64_t us)
{
    p->now_us += us;
    pair_tick(p);
    pair_run(p);
}

static int pair_start(struct pair *p, struct seen *s, const char *path, uint64_t timeout_us)
{
    struct failure f = {0};
    *s = (struct seen){.p = p};
    return grpc_start(p->client, path, timeout_us, &SEEN, s, &s->call, &f);
}

/* Starts a call, sends one message and half-closes. */
static void pair_ask(struct pair *p, struct seen *s, const char *path, struct span message)
{
    REQUIRE(pair_start(p, s, path, 0) == 0);
    REQUIRE(grpc_send(s->call, message) == 0);
    grpc_end(s->call);
}

#endif
