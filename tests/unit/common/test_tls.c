/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS sessions in memory: who is accepted, who is refused, and what each end says about it. Every
 * refusal differs from the positive control at the top in one thing only. Odd peers, which our own
 * code never makes, are in test_tls_odd.c; joining in test_tls_join.c; the bytes in
 * test_tls_bytes.c.
 */
#include "tests/unit/common/tls_pair.h"

/* ---- accepted ---- */

TEST(both_certificates_good)
{
    struct stage s;
    struct pair p;
    stage_init(&s);
    pair_open(&p, good_client(&s), good_server(&s), "localhost");
    CHECK_EQ_STR(tls_peer(p.server.tls)->role, "");
    shake(&p.client, &p.server);
    CHECK_EQ_STR(p.client.why.text, "");
    CHECK_EQ_STR(p.server.why.text, "");
    CHECK_EQ_INT(p.client.result, 0);
    CHECK_EQ_INT(p.server.result, 0);
    CHECK_EQ_STR(tls_peer(p.client.tls)->role, "collector");
    CHECK_EQ_STR(tls_peer(p.client.tls)->name, "c1");
    CHECK_EQ_STR(tls_peer(p.server.tls)->fleet, "prod");
    CHECK_EQ_STR(tls_peer(p.server.tls)->role, "agent");
    CHECK_EQ_STR(tls_peer(p.server.tls)->name, "web-1");
    CHECK_EQ_INT(strlen(tls_peer(p.server.tls)->serial_hex), 40);
    pair_close(&p);
    stage_done(&s);
}

TEST(every_name_and_address_of_the_certificate_will_do)
{
    static const char *const names[] = {"localhost", "collector.example", "127.0.0.1", "10.0.0.7",
                                        "::1"};
    struct stage s;
    stage_init(&s);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        expect(good_client(&s), good_server(&s), names[i], 0, NULL, 0, NULL);
    stage_done(&s);
}

TEST(any_role_of_the_fleet_may_connect)
{
    static const char *const roles[] = {"agent", "sre", "developer", "admin"};
    struct stage s;
    stage_init(&s);
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        fleet_member(&s.fleet, &s.odd, roles[i], "eve");
        expect(fleet_config(TLS_CLIENT, &s.fleet, &s.odd), good_server(&s), "localhost", 0, NULL, 0,
               NULL);
        member_done(&s.odd);
    }
    stage_done(&s);
}

TEST(handshake_one_byte_at_a_time)
{
    struct stage s;
    struct pair p;
    stage_init(&s);
    pair_open(&p, good_client(&s), good_server(&s), "localhost");
    for (int i = 0; i < 20000 && (p.client.result == ERR_AGAIN || p.server.result == ERR_AGAIN);
         i++) {
        struct end *to = i % 2 ? &p.client : &p.server, *from = i % 2 ? &p.server : &p.client;
        struct span bytes = tls_pending(from->tls);
        if (bytes.size_bytes) {
            REQUIRE(tls_feed(to->tls, span_of(bytes.data, 1)) == 0);
            tls_sent(from->tls, 1);
        }
        step(to);
    }
    CHECK_EQ_INT(p.client.result, 0);
    CHECK_EQ_INT(p.server.result, 0);
    pair_close(&p);
    stage_done(&s);
}

/* ---- refused by the client ---- */

TEST(server_of_another_ca)
{
    struct stage s;
    stage_init(&s);
    fleet_member(&s.other, &s.odd, "collector", "c1");
    expect(good_client(&s), fleet_config(TLS_SERVER, &s.fleet, &s.odd), "localhost", ERR_IDENTITY,
           "certificate not signed by this fleet's CA (it names 'spiffe://test/collector/c1')",
           ERR_IDENTITY, "peer refused our certificate: not signed by its fleet's CA");
    stage_done(&s);
}

TEST(server_of_another_name)
{
    struct stage s;
    stage_init(&s);
    static const char *const wrong[] = {"evil.example", "10.0.0.8", "::2", "localhost.example"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[FAILURE_TEXT_SIZE];
        REQUIRE(text_format(text, sizeof text,
                            "certificate of 'spiffe://prod/collector/c1' is not for '%s', but for: "
                            "localhost, collector.example, 127.0.0.1, 10.0.0.7, 0:0:0:0:0:0:0:1",
                            wrong[i]) == 0);
        expect(good_client(&s), good_server(&s), wrong[i], ERR_IDENTITY, text, ERR_IDENTITY,
               "peer refused our certificate: bad, or not for the name it asked for");
    }
    stage_done(&s);
}

TEST(server_expired)
{
    char text[FAILURE_TEXT_SIZE], date[16];
    struct stage s;
    stage_init(&s);
    date_text(fleet_now() - 3600, date);
    fleet_issue(&s.fleet, &s.odd, "collector", "c1", -FLEET_DAY_S, -3600);
    REQUIRE(text_format(text, sizeof text, "certificate of 'spiffe://prod/collector/c1' expired %s",
                        date) == 0);
    expect(good_client(&s), fleet_config(TLS_SERVER, &s.fleet, &s.odd), "localhost", ERR_EXPIRED,
           text, ERR_EXPIRED, "peer refused our certificate: expired");
    stage_done(&s);
}

static int is_revoked(void *context, const char *serial_hex)
{
    return strcmp(context, serial_hex) == 0;
}

static struct tls_config *revoking(enum tls_side side, const struct fleet *fleet,
                                   const struct member *m, char *serial_hex)
{
    struct tls_config *config = NULL;
    struct tls_settings settings = fleet_settings(side, fleet, m);
    settings.is_revoked = is_revoked;
    settings.context = serial_hex;
    REQUIRE(tls_config_open(&config, &settings, NULL) == 0);
    return config;
}

TEST(revoked_on_either_side)
{
    char text[FAILURE_TEXT_SIZE];
    struct pki_identity agent, collector;
    char other_serial[] = "00";
    struct stage s;
    stage_init(&s);
    REQUIRE(pki_cert_identity(buf_span(&s.agent.cert), &agent, NULL) == 0);
    REQUIRE(pki_cert_identity(buf_span(&s.collector.cert), &collector, NULL) == 0);
    REQUIRE(text_format(text, sizeof text,
                        "certificate of 'spiffe://prod/agent/web-1' is revoked (serial %s)",
                        agent.serial_hex) == 0);
    expect(good_client(&s), revoking(TLS_SERVER, &s.fleet, &s.collector, agent.serial_hex),
           "localhost", ERR_IDENTITY, "peer refused our certificate: revoked", ERR_IDENTITY, text);
    REQUIRE(text_format(text, sizeof text,
                        "certificate of 'spiffe://prod/collector/c1' is revoked (serial %s)",
                        collector.serial_hex) == 0);
    expect(revoking(TLS_CLIENT, &s.fleet, &s.agent, collector.serial_hex), good_server(&s),
           "localhost", ERR_IDENTITY, text, ERR_IDENTITY, "peer refused our certificate: revoked");
    expect(good_client(&s), revoking(TLS_SERVER, &s.fleet, &s.collector, other_serial), "localhost",
           0, NULL, 0, NULL);
    stage_done(&s);
}

/* ---- refused by the server ---- */

TEST(client_of_another_ca)
{
    struct stage s;
    stage_init(&s);
    struct fleet forger = s.other;
    forger.name = "prod";
    fleet_member(&forger, &s.odd, "agent", "web-1");
    expect(fleet_config(TLS_CLIENT, &s.fleet, &s.odd), good_server(&s), "localhost", ERR_IDENTITY,
           "peer refused our certificate: not signed by its fleet's CA", ERR_IDENTITY,
           "certificate not signed by this fleet's CA (it names 'spiffe://prod/agent/web-1')");
    stage_done(&s);
}

TEST(server_of_another_fleet_under_the_same_ca)
{
    struct stage s;
    stage_init(&s);
    struct fleet same_ca = s.fleet;
    same_ca.name = "stage";
    fleet_member(&same_ca, &s.odd, "agent", "web-1");
    expect(fleet_config(TLS_CLIENT, &s.fleet, &s.odd), good_server(&s), "localhost", ERR_FOREIGN,
           "certificate of 'spiffe://prod/collector/c1' belongs to another fleet, ours is 'stage'",
           ERR_IDENTITY, "peer refused our certificate: its fleet or role is not accepted there");
    stage_done(&s);
}

TEST(client_expired)
{
    char text[FAILURE_TEXT_SIZE], date[16];
    struct stage s;
    stage_init(&s);
    date_text(fleet_now() - 2 * FLEET_DAY_S, date);
    fleet_issue(&s.fleet, &s.odd, "agent", "web-1", -5 * FLEET_DAY_S, -2 * FLEET_DAY_S);
    REQUIRE(text_format(text, sizeof text, "certificate of 'spiffe://prod/agent/web-1' expired %s",
                        date) == 0);
    expect(fleet_config(TLS_CLIENT, &s.fleet, &s.odd), good_server(&s), "localhost", ERR_EXPIRED,
           "peer refused our certificate: expired", ERR_EXPIRED, text);
    stage_done(&s);
}

TEST(client_not_yet_valid)
{
    struct stage s;
    struct pair p;
    stage_init(&s);
    fleet_issue(&s.fleet, &s.odd, "agent", "web-1", 3600, FLEET_DAY_S);
    pair_open(&p, fleet_config(TLS_CLIENT, &s.fleet, &s.odd), good_server(&s), "localhost");
    shake(&p.client, &p.server);
    CHECK_EQ_INT(p.server.result, ERR_CLOCK);
    const char *head = "certificate of 'spiffe://prod/agent/web-1' is not valid before 20";
    CHECK(strncmp(p.server.why.text, head, strlen(head)) == 0);
    CHECK(strstr(p.server.why.text, " UTC; check the clocks of both hosts") != NULL);
    CHECK_EQ_INT(p.client.result, ERR_CLOCK);
    CHECK_EQ_STR(p.client.why.text, "peer refused our certificate: not valid there now; check the "
                                    "clocks of both hosts");
    pair_close(&p);
    stage_done(&s);
}

TEST(the_ca_itself_expired)
{
    char text[FAILURE_TEXT_SIZE], date[16];
    struct fleet old;
    struct member collector, agent;
    fleet_init_aged(&old, "prod", 20, 10);
    fleet_member(&old, &collector, "collector", "c1");
    fleet_member(&old, &agent, "agent", "web-1");
    date_text(fleet_now() - 10 * FLEET_DAY_S, date);
    REQUIRE(text_format(text, sizeof text, "the fleet's CA certificate expired %s", date) == 0);
    expect(fleet_config(TLS_CLIENT, &old, &agent), fleet_config(TLS_SERVER, &old, &collector),
           "localhost", ERR_EXPIRED, text, ERR_EXPIRED, "peer refused our certificate: expired");
    expect(fleet_config(TLS_JOIN_CLIENT, &old, NULL),
           fleet_config(TLS_JOIN_SERVER, &old, &collector), "localhost", ERR_EXPIRED, text,
           ERR_EXPIRED, "peer refused our certificate: expired");
    member_done(&collector);
    member_done(&agent);
    fleet_done(&old);
}

/* ---- settings ---- */

static int config_error(const struct tls_settings *settings, char *text, size_t size_bytes)
{
    struct tls_config *config = NULL;
    struct failure f = {0};
    int err = tls_config_open(&config, settings, &f);
    CHECK(config == NULL);
    (void)text_copy(text, size_bytes, f.text);
    return err;
}

TEST(bad_settings)
{
    char text[FAILURE_TEXT_SIZE];
    struct stage s;
    stage_init(&s);
    struct tls_settings good = fleet_settings(TLS_SERVER, &s.fleet, &s.collector), bad = good;
    bad.key_pem = buf_span(&s.agent.key);
    CHECK_EQ_INT(config_error(&bad, text, sizeof text), ERR_INVALID);
    CHECK_EQ_STR(text, "our key does not fit our certificate");
    bad = good;
    bad.cert_pem = buf_span(&s.fleet.cert);
    CHECK_EQ_INT(config_error(&bad, text, sizeof text), ERR_INVALID);
    CHECK_EQ_STR(text, "certificate does not carry exactly one SAN URI");
    bad = good;
    bad.ca_pem = span_str("nothing");
    CHECK_EQ_INT(config_error(&bad, text, sizeof text), ERR_INVALID);
    CHECK_EQ_STR(text, "no PEM certificate");
    bad = good;
    bad.key_pem = span_str("");
    CHECK_EQ_INT(config_error(&bad, text, sizeof text), ERR_INVALID);
    bad = fleet_settings(TLS_SERVER, &s.fleet, &s.agent);
    CHECK_EQ_INT(config_error(&bad, text, sizeof text), ERR_INVALID);
    CHECK_EQ_STR(text, "our certificate, 'agent/web-1', is not meant for a server");
    bad = fleet_settings(TLS_CLIENT, &s.fleet, &s.collector);
    CHECK_EQ_INT(config_error(&bad, text, sizeof text), ERR_INVALID);
    CHECK_EQ_STR(text, "our certificate, 'collector/c1', is not meant for a client");
    bad = good;
    bad.alpn = "a protocol with a long name";
    CHECK_EQ_INT(config_error(&bad, text, sizeof text), ERR_INVALID);
    stage_done(&s);
}

TEST(a_client_must_say_whom_it_expects)
{
    char longest[512];
    struct stage s;
    struct tls *tls = NULL;
    stage_init(&s);
    struct tls_config *config = good_client(&s);
    CHECK_EQ_INT(tls_open(&tls, config, NULL, NULL), ERR_INVALID);
    CHECK_EQ_INT(tls_open(&tls, config, "", NULL), ERR_INVALID);
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    CHECK_EQ_INT(tls_open(&tls, config, longest, NULL), ERR_INVALID);
    CHECK(tls == NULL);
    tls_close(NULL);
    tls_config_close(config);
    tls_config_close(NULL);
    stage_done(&s);
}
