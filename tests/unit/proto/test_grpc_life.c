/* SPDX-License-Identifier: Apache-2.0 */
/* How gRPC connections live and end: drain, keepalive, loss, and every allocation failing once. */
#include "grpc_pair.h"

#include "proto/grpc_internal.h"

#define THREE_MB (3u * 1024 * 1024)

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
