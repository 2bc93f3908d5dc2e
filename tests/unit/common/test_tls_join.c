/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining a fleet: the client has no certificate and knows only the fingerprint of the CA. What
 * must not help an impostor: another CA, a borrowed one, a certificate that is not a collector's.
 */
#include "tests/unit/common/tls_pair.h"

TEST(join_by_fingerprint)
{
    struct stage s;
    struct pair p;
    stage_init(&s);
    pair_open(&p, fleet_config(TLS_JOIN_CLIENT, &s.fleet, NULL),
              fleet_config(TLS_JOIN_SERVER, &s.fleet, &s.collector), "localhost");
    shake(&p.client, &p.server);
    CHECK_EQ_STR(p.client.why.text, "");
    CHECK_EQ_INT(p.client.result, 0);
    CHECK_EQ_INT(p.server.result, 0);
    CHECK_EQ_STR(tls_peer(p.client.tls)->role, "collector");
    CHECK_EQ_STR(tls_peer(p.client.tls)->fleet, "prod");
    CHECK_EQ_STR(tls_peer(p.server.tls)->role, "");
    pair_close(&p);
    stage_done(&s);
}

static const char no_ca[] = "peer shows no CA certificate with the expected fingerprint";
static const char not_its_ca[] = "peer refused our certificate: not signed by its fleet's CA";

TEST(join_with_another_fingerprint)
{
    struct stage s;
    stage_init(&s);
    expect(fleet_config(TLS_JOIN_CLIENT, &s.other, NULL),
           fleet_config(TLS_JOIN_SERVER, &s.fleet, &s.collector), "localhost", ERR_IDENTITY, no_ca,
           ERR_IDENTITY, not_its_ca);
    stage_done(&s);
}

TEST(join_with_the_leafs_fingerprint)
{
    struct stage s;
    stage_init(&s);
    struct fleet leaf_as_ca = s.fleet;
    leaf_as_ca.cert = s.collector.cert;
    expect(fleet_config(TLS_JOIN_CLIENT, &leaf_as_ca, NULL),
           fleet_config(TLS_JOIN_SERVER, &s.fleet, &s.collector), "localhost", ERR_IDENTITY, no_ca,
           ERR_IDENTITY, not_its_ca);
    stage_done(&s);
}

TEST(join_at_the_wrong_port)
{
    struct stage s;
    stage_init(&s);
    expect(fleet_config(TLS_JOIN_CLIENT, &s.fleet, NULL), good_server(&s), "localhost",
           ERR_IDENTITY, no_ca, ERR_IDENTITY, not_its_ca);
    stage_done(&s);
}

/* The right CA is shown, but the leaf before it was signed by another: the classic forgery. */
TEST(join_with_a_borrowed_ca)
{
    struct stage s;
    stage_init(&s);
    struct fleet forger = s.other;
    forger.name = "prod";
    fleet_member(&forger, &s.odd, "collector", "c1");
    expect(fleet_config(TLS_JOIN_CLIENT, &s.fleet, NULL),
           fleet_config(TLS_JOIN_SERVER, &s.fleet, &s.odd), "localhost", ERR_IDENTITY,
           "certificate not signed by this fleet's CA (it names 'spiffe://prod/collector/c1')",
           ERR_IDENTITY, not_its_ca);
    stage_done(&s);
}

/* The forger also shows its own CA behind the right one: nothing but the right one may be trusted.
 */
TEST(join_with_a_second_ca_behind_the_right_one)
{
    struct stage s;
    struct buf both;
    stage_init(&s);
    fleet_member(&s.other, &s.odd, "collector", "c1");
    buf_init(&both, FLEET_PEM_LIMIT);
    REQUIRE(buf_append_span(&both, buf_span(&s.fleet.cert)) == 0);
    REQUIRE(buf_append_span(&both, buf_span(&s.other.cert)) == 0);
    struct fleet shown = s.fleet;
    shown.cert = both;
    expect(fleet_config(TLS_JOIN_CLIENT, &s.fleet, NULL),
           fleet_config(TLS_JOIN_SERVER, &shown, &s.odd), "localhost", ERR_IDENTITY,
           "certificate not signed by this fleet's CA (it names 'spiffe://test/collector/c1')",
           ERR_IDENTITY, not_its_ca);
    /* Control: by the fingerprint of the one that did sign, the same server is fine. */
    expect(fleet_config(TLS_JOIN_CLIENT, &s.other, NULL),
           fleet_config(TLS_JOIN_SERVER, &shown, &s.odd), "localhost", 0, NULL, 0, NULL);
    buf_done(&both);
    stage_done(&s);
}

TEST(join_with_an_expired_collector)
{
    struct stage s;
    struct pair p;
    stage_init(&s);
    fleet_issue(&s.fleet, &s.odd, "collector", "c1", -FLEET_DAY_S, -3600);
    pair_open(&p, fleet_config(TLS_JOIN_CLIENT, &s.fleet, NULL),
              fleet_config(TLS_JOIN_SERVER, &s.fleet, &s.odd), "localhost");
    shake(&p.client, &p.server);
    CHECK_EQ_INT(p.client.result, ERR_EXPIRED);
    CHECK_EQ_STR(p.server.why.text, "peer refused our certificate: expired");
    pair_close(&p);
    stage_done(&s);
}

TEST(join_at_another_name)
{
    struct stage s;
    struct pair p;
    stage_init(&s);
    pair_open(&p, fleet_config(TLS_JOIN_CLIENT, &s.fleet, NULL),
              fleet_config(TLS_JOIN_SERVER, &s.fleet, &s.collector), "other.example");
    shake(&p.client, &p.server);
    CHECK_EQ_INT(p.client.result, ERR_IDENTITY);
    CHECK(strstr(p.client.why.text, "is not for 'other.example'") != NULL);
    pair_close(&p);
    stage_done(&s);
}

/* A joined client has no certificate for the other port. */
TEST(a_joining_client_is_no_member)
{
    struct stage s;
    struct tls_config *server;
    stage_init(&s);
    /* So that the client is content, the chain shows the CA too. */
    struct buf chain;
    buf_init(&chain, FLEET_PEM_LIMIT);
    REQUIRE(buf_append_span(&chain, buf_span(&s.collector.cert)) == 0);
    REQUIRE(buf_append_span(&chain, buf_span(&s.fleet.cert)) == 0);
    struct member with_ca = {.cert = chain, .key = s.collector.key};
    server = fleet_config(TLS_SERVER, &s.fleet, &with_ca);
    expect(fleet_config(TLS_JOIN_CLIENT, &s.fleet, NULL), server, "localhost", ERR_IDENTITY,
           "peer wants a certificate, and we showed none", ERR_IDENTITY,
           "peer showed no certificate");
    buf_done(&chain);
    stage_done(&s);
}
