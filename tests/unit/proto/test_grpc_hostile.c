/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC against peers that break rules or take too much: hand-made HTTP/2 frames into a server,
 * whose answers our own client reads. The client's own bytes never arrive. Random bytes are the
 * business of tests/fuzz/fuzz_grpc.c.
 */
#include "grpc_pair.h"

#include "proto/grpc_internal.h"

enum {
    DATA = 0,
    HEADERS = 1,
    RST_STREAM = 3,
    SETTINGS = 4,
    PING = 6,
    GOAWAY = 7,
    WINDOW = 8,
    CONT = 9
};
enum { END_STREAM = 1, END_HEADERS = 4 };

static void raw_frame(struct buf *b, uint8_t type, uint8_t flags, uint32_t id, struct span payload)
{
    uint8_t head[9] = {(uint8_t)(payload.size_bytes >> 16),
                       (uint8_t)(payload.size_bytes >> 8),
                       (uint8_t)payload.size_bytes,
                       type,
                       flags,
                       (uint8_t)(id >> 24),
                       (uint8_t)(id >> 16),
                       (uint8_t)(id >> 8),
                       (uint8_t)id};
    REQUIRE(buf_append(b, head, sizeof head) == 0 && buf_append_span(b, payload) == 0);
}

/* RFC 7541 section 6.2.2: literal without indexing, new name; lengths below 127, or two bytes more.
 */
static void raw_length(struct buf *b, size_t n)
{
    if (n < 127) {
        buf_append_byte(b, (uint8_t)n);
        return;
    }
    buf_append_byte(b, 127);
    buf_append_varint(b, n - 127);
}

static void raw_field(struct buf *b, const char *name, const char *value)
{
    buf_append_byte(b, 0);
    raw_length(b, strlen(name));
    buf_append_str(b, name);
    raw_length(b, strlen(value));
    buf_append_str(b, value);
}

struct request {
    const char *method, *path, *content_type, *te, *name, *value;
};

static void raw_request(struct buf *b, uint32_t id, uint8_t flags, struct request q)
{
    struct buf h;
    buf_init(&h, 65536);
    raw_field(&h, ":method", q.method ? q.method : "POST");
    raw_field(&h, ":scheme", "https");
    raw_field(&h, ":authority", "c");
    raw_field(&h, ":path", q.path ? q.path : "/t/Hold");
    raw_field(&h, "content-type", q.content_type ? q.content_type : "application/grpc");
    if (!q.te)
        raw_field(&h, "te", "trailers");
    if (q.name)
        raw_field(&h, q.name, q.value);
    raw_frame(b, HEADERS, (uint8_t)(END_HEADERS | flags), id, buf_span(&h));
    buf_done(&h);
}

static void raw_reset(struct buf *b, uint32_t id, uint8_t code)
{
    const uint8_t payload[4] = {0, 0, 0, code};
    raw_frame(b, RST_STREAM, 0, id, span_of(payload, 4));
}

/* A server that has got the preface, a client with `*s` waiting on stream 1, and an empty buffer.
 */
static struct pair *hostile_open(struct seen *s, struct buf *b, const struct grpc_limits *limits)
{
    struct pair *p = pair_open(NULL, limits);
    p->client_mute = true;
    REQUIRE(pair_start(p, s, "/t/Hold", 0) == 0);
    buf_init(b, 16 * 1024 * 1024);
    buf_append_str(b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    raw_frame(b, SETTINGS, 0, 0, span_of(NULL, 0));
    pair_run(p);
    return p;
}

static void hostile_send(struct pair *p, struct buf *b)
{
    if (p->server_failed == 0)
        p->server_failed = grpc_feed(p->server, buf_span(b), p->now_us, &p->server_why);
    buf_clear(b);
}

static void hostile_close(struct pair *p, struct buf *b)
{
    buf_done(b);
    pair_close(p);
}

/* ---- requests that are no calls ---- */

static void refused_as(struct request q, enum grpc_status status, const char *text)
{
    struct seen s;
    struct buf b;
    struct pair *p = hostile_open(&s, &b, NULL);
    raw_request(&b, 1, 0, q);
    hostile_send(p, &b);
    CHECK_EQ_INT(grpc_call_count(p->server), 0);
    pair_run(p);
    CHECK_EQ_INT(s.dones, 1);
    CHECK_EQ_INT(s.status, status);
    CHECK_EQ_STR(s.text, text);
    CHECK_EQ_INT(p->server_failed, 0);
    CHECK_EQ_INT(p->served_count, 0);
    hostile_close(p, &b);
}

TEST(requests_that_are_no_calls_are_answered)
{
    refused_as((struct request){.content_type = "application/json"}, GRPC_INVALID_ARGUMENT,
               "content-type is not application/grpc");
    refused_as((struct request){.method = "GET"}, GRPC_INTERNAL, "method is not POST");
    refused_as((struct request){.te = "none"}, GRPC_INTERNAL, "header 'te: trailers' is missing");
    refused_as((struct request){.name = "grpc-timeout", .value = "5x"}, GRPC_INTERNAL,
               "malformed grpc-timeout");
    refused_as((struct request){.name = "grpc-encoding", .value = "gzip"}, GRPC_UNIMPLEMENTED,
               "compression is not supported");
}

TEST(paths_and_headers_have_a_size)
{
    char path[300], huge[9000];
    memset(path, 'a', sizeof path);
    path[0] = '/';
    path[299] = '\0';
    memset(huge, 'h', sizeof huge);
    huge[8999] = '\0';
    refused_as((struct request){.path = path}, GRPC_UNIMPLEMENTED, "unknown method");
    refused_as((struct request){.name = "x", .value = huge}, GRPC_RESOURCE_EXHAUSTED,
               "headers larger than 8192 bytes");
}

TEST(a_timeout_of_nothing_ends_at_once)
{
    struct seen s;
    struct buf b;
    struct pair *p = hostile_open(&s, &b, NULL);
    raw_request(&b, 1, 0, (struct request){.name = "grpc-timeout", .value = "0n"});
    hostile_send(p, &b);
    pair_advance(p, 0);
    CHECK_EQ_INT(s.status, GRPC_DEADLINE_EXCEEDED);
    hostile_close(p, &b);
}

TEST(what_is_not_http2_is_turned_away)
{
    static const char *const hello[] = {"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02",
                                        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxxxxxx"};
    for (size_t i = 0; i < 3; i++) {
        struct grpc *g;
        struct failure f = {0};
        struct buf out;
        struct pair *p = calloc(1, sizeof *p);
        buf_init(&out, 65536);
        REQUIRE(grpc_open_server(&g, NULL, &PAIR_EVENTS, p, 0) == 0);
        int r = grpc_feed(g, span_str(hello[i]), 0, &f);
        for (int n = 0; n < 3 && r == 0; n++)
            r = grpc_pull(g, &out, 0, &f);
        CHECK_EQ_INT(r, ERR_PROTOCOL);
        CHECK(f.text[0] != '\0');
        CHECK_EQ_INT(grpc_feed(g, span_str("x"), 0, &f), ERR_PROTOCOL);
        grpc_close(g, f.text);
        buf_done(&out);
        free(p);
    }
}

/* ---- messages ---- */

/* The answer to one DATA frame on a call of the method. */
static void answered(const char *path, struct span data, uint8_t flags, enum grpc_status status,
                     const char *text)
{
    struct seen s;
    struct buf b;
    struct pair *p = hostile_open(&s, &b, NULL);
    raw_request(&b, 1, 0, (struct request){.path = path});
    raw_frame(&b, DATA, flags, 1, data);
    hostile_send(p, &b);
    if (p->served[0].dones == 0)
        CHECK(p->served[0].call->in.capacity_bytes <= 4096);
    pair_run(p);
    CHECK_EQ_INT(s.status, status);
    CHECK_EQ_STR(s.text, text);
    CHECK_EQ_INT(p->served[0].dones, 1);
    CHECK_EQ_INT(p->served[0].status, status);
    CHECK_EQ_INT(p->served[0].messages, 0);
    CHECK_EQ_INT(p->server_failed, 0);
    hostile_close(p, &b);
}

TEST(oversized_messages_are_refused_by_their_prefix)
{
    answered("/t/Hold", span_of("\0\0\x40\0\1", 5), 0, GRPC_RESOURCE_EXHAUSTED,
             "message of 4194305 bytes is larger than 4194304");
    answered("/t/Bidi", span_of("\0\xff\xff\xff\xffxxxxxxxx", 13), 0, GRPC_RESOURCE_EXHAUSTED,
             "message of 4294967295 bytes is larger than 4194304");
}

TEST(compressed_and_cut_messages_are_refused)
{
    answered("/t/Hold", span_of("\1\0\0\0\1x", 6), 0, GRPC_UNIMPLEMENTED,
             "compression is not supported");
    answered("/t/Hold", span_of("\0\0\0\0\7cut", 8), END_STREAM, GRPC_INTERNAL,
             "peer ended within a message");
    answered("/t/Hold", span_of("\0\0", 2), END_STREAM, GRPC_INTERNAL,
             "peer ended within a message");
}

TEST(a_client_refuses_oversized_replies)
{
    struct grpc_limits small = {.max_message_bytes = 1000};
    struct pair *p = pair_open(&small, NULL);
    struct seen s;
    pair_ask(p, &s, "/t/Server", span_str("go"));
    pair_run(p);
    CHECK_EQ_INT(s.status, GRPC_RESOURCE_EXHAUSTED);
    CHECK_EQ_INT(s.messages, 0);
    CHECK_EQ_INT(p->served[0].status, GRPC_CANCELLED);
    CHECK_EQ_INT(grpc_refused_count(p->client), 1);
    pair_close(p);
}

TEST(ignoring_the_window_ends_the_call)
{
    struct seen s;
    struct buf b;
    struct pair *p = hostile_open(&s, &b, NULL);
    static const uint8_t data[16384];
    raw_request(&b, 1, 0, (struct request){.path = "/t/Paused"});
    for (int i = 0; i < 17; i++)
        raw_frame(&b, DATA, 0, 1, span_of(data, sizeof data));
    hostile_send(p, &b);
    CHECK(p->served[0].call->in.size_bytes <= 256 * 1024);
    pair_run(p);
    CHECK_EQ_INT(p->served[0].status, GRPC_CANCELLED);
    CHECK_EQ_INT(s.status, GRPC_INTERNAL);
    CHECK_EQ_STR(s.text, "call reset by the peer: FLOW_CONTROL_ERROR");
    hostile_close(p, &b);
}

/* ---- floods ---- */

/* The last frame that the server says is GOAWAY with ENHANCE_YOUR_CALM (11). */
static void ends_calmly(struct pair *p, const char *why)
{
    struct buf out;
    buf_init(&out, 256 * 1024);
    CHECK_EQ_INT(p->server_failed, ERR_LIMIT);
    CHECK_EQ_STR(p->server_why.text, why);
    CHECK(grpc_refused_count(p->server) > 0);
    REQUIRE(grpc_pull(p->server, &out, p->now_us, NULL) == 0);
    REQUIRE(out.size_bytes >= 17);
    const uint8_t *last = out.data + out.size_bytes - 17;
    CHECK_EQ_INT(last[3], GOAWAY);
    CHECK_EQ_INT(last[16], 11);
    struct failure f = {0};
    CHECK_EQ_INT(grpc_pull(p->server, &out, p->now_us, &f), ERR_LIMIT);
    CHECK_EQ_STR(f.text, why);
    buf_done(&out);
}

TEST(rapid_resets_end_the_connection)
{
    struct seen s;
    struct buf b;
    struct pair *p = hostile_open(&s, &b, NULL);
    uint32_t id = 1;
    for (int second = 0; second < 3; second++) {
        for (int i = 0; i < 20; i++, id += 2) {
            raw_request(&b, id, 0, (struct request){0});
            raw_reset(&b, id, 8);
        }
        hostile_send(p, &b);
        CHECK_EQ_INT(p->server_failed, 0);
        pair_advance(p, 1000000);
    }
    CHECK_EQ_INT(p->served_count, 60);
    for (unsigned i = 0; i < p->served_count; i++)
        CHECK_EQ_INT(p->served[i].status, GRPC_CANCELLED);
    for (int i = 0; i < 1000; i++, id += 2) {
        raw_request(&b, id, 0, (struct request){0});
        raw_reset(&b, id, 8);
    }
    hostile_send(p, &b);
    CHECK(p->served_count <= 81);
    ends_calmly(p, "peer resets calls too often");
    hostile_close(p, &b);
}

/* Made to reset: each call breaks by itself (DATA after its end). */
TEST(resets_that_the_peer_provokes_count_too)
{
    struct seen s;
    struct buf b;
    struct pair *p = hostile_open(&s, &b, NULL);
    for (uint32_t id = 1; id < 101; id += 2) {
        raw_request(&b, id, 0, (struct request){0});
        raw_frame(&b, WINDOW, 0, id, span_of("\0\0\0\0", 4));
        hostile_send(p, &b);
        pair_carry(p, false);
    }
    pair_run(p);
    CHECK(p->server_failed == ERR_LIMIT || p->server_failed == ERR_PROTOCOL);
    CHECK(p->served_count <= 40);
    hostile_close(p, &b);
}

TEST(ping_and_settings_floods_end_the_connection)
{
    static const struct {
        uint8_t type;
        size_t size;
        const char *why;
    } floods[] = {{PING, 8, "peer sends too many PING frames"},
                  {SETTINGS, 0, "peer sends too many SETTINGS frames"}};
    for (size_t k = 0; k < 2; k++) {
        struct seen s;
        struct buf b;
        struct pair *p = hostile_open(&s, &b, NULL);
        for (int i = 0; i < 19; i++)
            raw_frame(&b, floods[k].type, 0, 0, span_of("12345678", floods[k].size));
        hostile_send(p, &b);
        CHECK_EQ_INT(p->server_failed, 0);
        for (int i = 0; i < 19; i++)
            raw_frame(&b, floods[k].type, 0, 0, span_of("12345678", floods[k].size));
        hostile_send(p, &b);
        ends_calmly(p, floods[k].why);
        hostile_close(p, &b);
    }
}

/* Stock clients measure the round trip with a PING after data: those are not counted. */
TEST(pings_that_follow_our_data_are_fair)
{
    struct seen s;
    struct buf b;
    struct pair *p = hostile_open(&s, &b, NULL);
    raw_request(&b, 1, 0, (struct request){.path = "/t/Bidi"});
    for (int i = 0; i < 500; i++) {
        raw_frame(&b, DATA, 0, 1, span_of("\0\0\0\0\1x", 6));
        raw_frame(&b, PING, 0, 0, span_str("12345678"));
        hostile_send(p, &b);
        pair_run(p);
    }
    CHECK_EQ_INT(p->server_failed, 0);
    CHECK_EQ_INT(s.messages, 500);
    hostile_close(p, &b);
}

TEST(a_peer_that_reads_no_answers_is_ended)
{
    struct seen s;
    struct buf b;
    struct pair *p = hostile_open(&s, &b, NULL);
    for (uint32_t id = 1; id < 4001 && p->server_failed == 0; id += 2) {
        raw_request(&b, id, END_STREAM, (struct request){.path = "/t/Nothing"});
        hostile_send(p, &b);
    }
    CHECK(p->server_failed != 0);
    CHECK_EQ_INT(grpc_call_count(p->server), 0);
    hostile_close(p, &b);
}

TEST(calls_over_the_limit_are_refused_one_by_one)
{
    struct seen s;
    struct buf b;
    struct grpc_limits limits = {.max_calls = 4};
    struct pair *p = hostile_open(&s, &b, &limits);
    for (uint32_t id = 1; id < 21; id += 2)
        raw_request(&b, id, 0, (struct request){0});
    hostile_send(p, &b);
    pair_run(p);
    CHECK_EQ_INT(p->server_failed, 0);
    CHECK_EQ_INT(p->served_count, 4);
    CHECK_EQ_INT(grpc_call_count(p->server), 4);
    CHECK_EQ_INT(grpc_refused_count(p->server), 6);
    hostile_close(p, &b);
}

TEST(endless_continuations_end_the_connection)
{
    struct seen s;
    struct buf b;
    struct pair *p = hostile_open(&s, &b, NULL);
    raw_frame(&b, HEADERS, 0, 1, span_of(NULL, 0));
    for (int i = 0; i < 10000; i++)
        raw_frame(&b, CONT, 0, 1, span_of(NULL, 0));
    hostile_send(p, &b);
    pair_run(p);
    CHECK(p->server_failed != 0);
    hostile_close(p, &b);
}

/* ---- what a server may do to a client ---- */

/* Feeds the client a reply on stream 1 made of literal fields; returns what it concluded in *s. */
static void reply(struct seen *s, uint8_t flags, const struct request *fields, size_t count,
                  struct span data)
{
    struct buf b, h;
    struct pair *p = pair_open(NULL, NULL);
    REQUIRE(pair_start(p, s, "/t/Hold", 0) == 0);
    buf_init(&b, 65536);
    buf_init(&h, 65536);
    REQUIRE(grpc_pull(p->client, &b, p->now_us, NULL) == 0);
    buf_clear(&b);
    for (size_t i = 0; i < count; i++)
        raw_field(&h, fields[i].name, fields[i].value);
    raw_frame(&b, SETTINGS, 0, 0, span_of(NULL, 0));
    raw_frame(&b, HEADERS, (uint8_t)(END_HEADERS | flags), 1, buf_span(&h));
    if (data.size_bytes > 0)
        raw_frame(&b, DATA, END_STREAM, 1, data);
    CHECK_EQ_INT(grpc_feed(p->client, buf_span(&b), p->now_us, NULL), 0);
    buf_done(&b);
    buf_done(&h);
    pair_close(p);
}

TEST(replies_that_are_not_grpc_have_a_status)
{
    struct seen s;
    const struct request proxy[] = {{.name = ":status", .value = "503"},
                                    {.name = "content-type", .value = "text/html"}};
    reply(&s, END_STREAM, proxy, 2, span_of(NULL, 0));
    CHECK_EQ_INT(s.status, GRPC_UNAVAILABLE);
    CHECK_EQ_STR(s.text, "peer answered with HTTP status 503");

    const struct request html[] = {{.name = ":status", .value = "200"},
                                   {.name = "content-type", .value = "text/html"}};
    reply(&s, 0, html, 2, span_of(NULL, 0));
    CHECK_EQ_INT(s.status, GRPC_UNKNOWN);
    CHECK_EQ_STR(s.text, "reply is not application/grpc");

    const struct request bare[] = {{.name = ":status", .value = "200"},
                                   {.name = "content-type", .value = "application/grpc"}};
    reply(&s, END_STREAM, bare, 2, span_of(NULL, 0));
    CHECK_EQ_INT(s.status, GRPC_UNKNOWN);
    CHECK_EQ_STR(s.text, "reply without grpc-status");
    reply(&s, 0, bare, 2, span_of("\0\0\0\0\1x", 6));
    CHECK_EQ_INT(s.messages, 1);
    CHECK_EQ_INT(s.status, GRPC_UNKNOWN);
}

TEST(strange_trailers_are_read_strictly)
{
    struct seen s;
    struct request r[] = {{.name = ":status", .value = "200"},
                          {.name = "content-type", .value = "application/grpc"},
                          {.name = "grpc-status", .value = "99"},
                          {.name = "grpc-message", .value = "%41%00%4"},
                          {.name = "trawl-error", .value = "-99999"}};
    reply(&s, END_STREAM, r, 5, span_of(NULL, 0));
    CHECK_EQ_INT(s.status, GRPC_UNKNOWN);
    CHECK_EQ_STR(s.text, "A%00%4");
    r[2].value = "5";
    r[4].value = "-16";
    reply(&s, END_STREAM, r, 5, span_of(NULL, 0));
    CHECK_EQ_INT(s.status, GRPC_NOT_FOUND);
    CHECK_EQ_INT(s.error, ERR_GONE);
    r[4].value = "16";
    reply(&s, END_STREAM, r, 5, span_of(NULL, 0));
    CHECK_EQ_INT(s.error, ERR_NOTFOUND);
}

TEST(an_angry_goodbye_gives_its_reason)
{
    struct seen s;
    struct buf b;
    struct failure f;
    struct pair *p = pair_open(NULL, NULL);
    REQUIRE(pair_start(p, &s, "/t/Hold", 0) == 0);
    buf_init(&b, 65536);
    REQUIRE(grpc_pull(p->client, &b, p->now_us, NULL) == 0);
    buf_clear(&b);
    raw_frame(&b, SETTINGS, 0, 0, span_of(NULL, 0));
    raw_frame(&b, GOAWAY, 0, 0, span_of("\0\0\0\1\0\0\0\x0b", 8));
    CHECK_EQ_INT(grpc_feed(p->client, buf_span(&b), p->now_us, &f), ERR_CLOSED);
    CHECK_EQ_STR(f.text, "peer ended the connection: ENHANCE_YOUR_CALM");
    grpc_close(p->client, f.text);
    p->client = NULL;
    CHECK_EQ_INT(s.status, GRPC_UNAVAILABLE);
    CHECK_EQ_STR(s.text, f.text);
    buf_done(&b);
    pair_close(p);
}

TEST(resets_are_told_apart)
{
    static const struct {
        uint8_t code;
        enum grpc_status status;
    } cases[] = {{8, GRPC_CANCELLED},
                 {7, GRPC_UNAVAILABLE},
                 {11, GRPC_RESOURCE_EXHAUSTED},
                 {12, GRPC_PERMISSION_DENIED},
                 {2, GRPC_INTERNAL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct seen s;
        struct buf b;
        struct pair *p = pair_open(NULL, NULL);
        REQUIRE(pair_start(p, &s, "/t/Hold", 0) == 0);
        buf_init(&b, 65536);
        REQUIRE(grpc_pull(p->client, &b, p->now_us, NULL) == 0);
        buf_clear(&b);
        raw_frame(&b, SETTINGS, 0, 0, span_of(NULL, 0));
        raw_reset(&b, 1, cases[i].code);
        CHECK_EQ_INT(grpc_feed(p->client, buf_span(&b), p->now_us, NULL), 0);
        CHECK_EQ_INT(s.status, cases[i].status);
        buf_done(&b);
        pair_close(p);
    }
}
