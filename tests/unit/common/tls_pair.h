/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two TLS sessions in memory and a stage of good members to put on them. `expect` is a whole test:
 * who meets whom, and what both ends say. Used by test_tls*.c.
 */
#ifndef TESTS_UNIT_COMMON_TLS_PAIR_H
#define TESTS_UNIT_COMMON_TLS_PAIR_H

#include "common/pki_mbed.h"
#include "tests/unit/common/fleet.h"

struct end {
    struct tls *tls;
    int result;
    struct failure why;
};

static inline void carry(struct tls *from, struct tls *to)
{
    struct span bytes = tls_pending(from);
    if (bytes.size_bytes == 0)
        return;
    REQUIRE(tls_feed(to, bytes) == 0);
    tls_sent(from, bytes.size_bytes);
}

static inline void step(struct end *e)
{
    if (e->result == ERR_AGAIN)
        e->result = tls_handshake(e->tls, &e->why);
}

/* A failed end still gets its last bytes (the alert) across, and reads no more. */
static inline void shake(struct end *client, struct end *server)
{
    for (int round = 0; round < 20; round++) {
        step(client);
        carry(client->tls, server->tls);
        step(server);
        carry(server->tls, client->tls);
    }
}

struct pair {
    struct tls_config *client_config, *server_config;
    struct end client, server;
};

static inline void pair_open(struct pair *p, struct tls_config *client, struct tls_config *server,
                             const char *name)
{
    struct failure f = {0};
    *p = (struct pair){.client_config = client, .server_config = server};
    p->client.result = p->server.result = ERR_AGAIN;
    REQUIRE(tls_open(&p->client.tls, client, name, &f) == 0);
    REQUIRE(tls_open(&p->server.tls, server, NULL, &f) == 0);
}

static inline void pair_close(struct pair *p)
{
    tls_close(p->client.tls);
    tls_close(p->server.tls);
    tls_config_close(p->client_config);
    tls_config_close(p->server_config);
}

/* The whole of a test: both ends' results and words. NULL: established. */
static inline void expect(struct tls_config *client, struct tls_config *server, const char *name,
                          int client_code, const char *client_says, int server_code,
                          const char *server_says)
{
    struct pair p;
    pair_open(&p, client, server, name);
    shake(&p.client, &p.server);
    CHECK_EQ_INT(p.client.result, client_code);
    CHECK_EQ_STR(p.client.why.text, client_says ? client_says : "");
    CHECK_EQ_INT(p.server.result, server_code);
    CHECK_EQ_STR(p.server.why.text, server_says ? server_says : "");
    pair_close(&p);
}

/* A fleet with a good collector and a good agent; a test replaces one of them. */
struct stage {
    struct fleet fleet, other;
    struct member collector, agent, odd;
};

static inline void stage_init(struct stage *s)
{
    fleet_init(&s->fleet, "prod");
    fleet_init(&s->other, "test");
    fleet_member(&s->fleet, &s->collector, "collector", "c1");
    fleet_member(&s->fleet, &s->agent, "agent", "web-1");
    member_init(&s->odd);
}

static inline void stage_done(struct stage *s)
{
    fleet_done(&s->fleet);
    fleet_done(&s->other);
    member_done(&s->collector);
    member_done(&s->agent);
    member_done(&s->odd);
}

static inline struct tls_config *good_client(const struct stage *s)
{
    return fleet_config(TLS_CLIENT, &s->fleet, &s->agent);
}

static inline struct tls_config *good_server(const struct stage *s)
{
    return fleet_config(TLS_SERVER, &s->fleet, &s->collector);
}

static inline void date_text(int64_t s, char out[16])
{
    struct pki_date d = pki_date_of(s);
    REQUIRE(text_format(out, 16, "%04d-%02d-%02d", d.year % 10000, d.month % 100, d.day % 100) ==
            0);
}

#endif
