/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS sessions in memory: who is accepted, who is refused, and what each end says about it. Every
 * refusal differs from the positive control at the top in one thing only.
 */
#include <stdlib.h>

#include <mbedtls/oid.h>
#include <mbedtls/ssl.h>

#include "common/pki_mbed.h"
#include "tests/unit/common/fleet.h"

struct end {
    struct tls *tls;
    int result;
    struct failure why;
};

static void carry(struct tls *from, struct tls *to)
{
    struct span bytes = tls_pending(from);
    if (bytes.size_bytes == 0)
        return;
    REQUIRE(tls_feed(to, bytes) == 0);
    tls_sent(from, bytes.size_bytes);
}

static void step(struct end *e)
{
    if (e->result == ERR_AGAIN)
        e->result = tls_handshake(e->tls, &e->why);
}

/* A failed end still gets its last bytes (the alert) across, and reads no more. */
static void shake(struct end *client, struct end *server)
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

static void pair_open(struct pair *p, struct tls_config *client, struct tls_config *server,
                      const char *name)
{
    struct failure f = {0};
    *p = (struct pair){.client_config = client, .server_config = server};
    p->client.result = p->server.result = ERR_AGAIN;
    REQUIRE(tls_open(&p->client.tls, client, name, &f) == 0);
    REQUIRE(tls_open(&p->server.tls, server, NULL, &f) == 0);
}

static void pair_close(struct pair *p)
{
    tls_close(p->client.tls);
    tls_close(p->server.tls);
    tls_config_close(p->client_config);
    tls_config_close(p->server_config);
}

/* The whole of a test: both ends' results and words. NULL: established. */
static void expect(struct tls_config *client, struct tls_config *server, const char *name,
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

static void stage_init(struct stage *s)
{
    fleet_init(&s->fleet, "prod");
    fleet_init(&s->other, "test");
    fleet_member(&s->fleet, &s->collector, "collector", "c1");
    fleet_member(&s->fleet, &s->agent, "agent", "web-1");
    member_init(&s->odd);
}

static void stage_done(struct stage *s)
{
    fleet_done(&s->fleet);
    fleet_done(&s->other);
    member_done(&s->collector);
    member_done(&s->agent);
    member_done(&s->odd);
}

static struct tls_config *good_client(const struct stage *s)
{
    return fleet_config(TLS_CLIENT, &s->fleet, &s->agent);
}

static struct tls_config *good_server(const struct stage *s)
{
    return fleet_config(TLS_SERVER, &s->fleet, &s->collector);
}

static void date_text(int64_t s, char out[16])
{
    struct pki_date d = pki_date_of(s);
    REQUIRE(text_format(out, 16, "%04d-%02d-%02d", d.year % 10000, d.month % 100, d.day % 100) ==
            0);
}

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

/* ---- odd certificates, which pki.h cannot make ---- */

struct oddity {
    const char *uris[2];
    bool self_signed, no_usage, server;
    mbedtls_md_type_t md;
};

static void odd_extensions(mbedtls_x509write_cert *cert, const struct oddity *odd)
{
    static unsigned char client[] = MBEDTLS_OID_CLIENT_AUTH, server[] = MBEDTLS_OID_SERVER_AUTH;
    mbedtls_asn1_sequence usage = {.buf = {.tag = MBEDTLS_ASN1_OID,
                                           .len = sizeof client - 1,
                                           .p = odd->server ? server : client}};
    mbedtls_x509_san_list names[2];
    memset(names, 0, sizeof names);
    for (size_t i = 0; i < 2 && odd->uris[i]; i++) {
        names[i].node.type = MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER;
        names[i].node.san.unstructured_name.p = (unsigned char *)(uintptr_t)odd->uris[i];
        names[i].node.san.unstructured_name.len = strlen(odd->uris[i]);
        if (i > 0)
            names[i - 1].next = &names[i];
    }
    if (odd->uris[0])
        REQUIRE(mbedtls_x509write_crt_set_subject_alternative_name(cert, names) == 0);
    if (!odd->no_usage)
        REQUIRE(mbedtls_x509write_crt_set_ext_key_usage(cert, &usage) == 0);
}

static void odd_member(const struct fleet *fleet, struct member *m, const struct oddity *odd)
{
    unsigned char pem[8192];
    const char *subject = "CN=odd,O=prod";
    char issuer[128];
    mbedtls_pk_context key, ca_key;
    mbedtls_x509write_cert cert;
    mbedtls_pk_init(&key);
    mbedtls_pk_init(&ca_key);
    mbedtls_x509write_crt_init(&cert);
    REQUIRE(pki_key_new(&m->key, NULL) == 0);
    REQUIRE(pki_parse_key(&key, buf_span(&m->key), NULL) == 0);
    REQUIRE(pki_parse_key(&ca_key, buf_span(&fleet->key), NULL) == 0);
    REQUIRE(text_format(issuer, sizeof issuer, "CN=%s CA,O=%s", fleet->name, fleet->name) == 0);
    mbedtls_x509write_crt_set_version(&cert, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&cert, odd->md ? odd->md : MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&cert, &key);
    mbedtls_x509write_crt_set_issuer_key(&cert, odd->self_signed ? &key : &ca_key);
    REQUIRE(mbedtls_x509write_crt_set_subject_name(&cert, subject) == 0);
    REQUIRE(mbedtls_x509write_crt_set_issuer_name(&cert, odd->self_signed ? subject : issuer) == 0);
    REQUIRE(mbedtls_x509write_crt_set_validity(&cert, "20200101000000", "20990101000000") == 0);
    unsigned char serial[] = {7};
    REQUIRE(mbedtls_x509write_crt_set_serial_raw(&cert, serial, 1) == 0);
    odd_extensions(&cert, odd);
    REQUIRE(mbedtls_x509write_crt_pem(&cert, pem, sizeof pem, pki_random, NULL) == 0);
    REQUIRE(buf_append_str(&m->cert, (char *)pem) == 0);
    mbedtls_x509write_crt_free(&cert);
    mbedtls_pk_free(&ca_key);
    mbedtls_pk_free(&key);
}

/* A client of bare mbedTLS, which shows what ours would never show. */
struct bare {
    mbedtls_ssl_config config;
    mbedtls_ssl_context ssl;
    mbedtls_x509_crt cert;
    mbedtls_pk_context key;
    struct tls *server;
    int result, alert;
};

static int bare_send(void *context, const unsigned char *data, size_t size_bytes)
{
    struct bare *b = context;
    return tls_feed(b->server, span_of(data, size_bytes)) ? -1 : (int)size_bytes;
}

static int bare_receive(void *context, unsigned char *data, size_t size_bytes)
{
    struct bare *b = context;
    struct span bytes = tls_pending(b->server);
    if (bytes.size_bytes == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    if (size_bytes > bytes.size_bytes)
        size_bytes = bytes.size_bytes;
    memcpy(data, bytes.data, size_bytes);
    tls_sent(b->server, size_bytes);
    return (int)size_bytes;
}

static void bare_open(struct bare *b, const struct member *m)
{
    memset(b, 0, sizeof *b);
    mbedtls_ssl_config_init(&b->config);
    mbedtls_ssl_init(&b->ssl);
    mbedtls_x509_crt_init(&b->cert);
    mbedtls_pk_init(&b->key);
    REQUIRE(mbedtls_ssl_config_defaults(&b->config, MBEDTLS_SSL_IS_CLIENT,
                                        MBEDTLS_SSL_TRANSPORT_STREAM,
                                        MBEDTLS_SSL_PRESET_DEFAULT) == 0);
    mbedtls_ssl_conf_max_tls_version(&b->config, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_authmode(&b->config, MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_rng(&b->config, pki_random, NULL);
    if (m) {
        REQUIRE(pki_parse_certs(&b->cert, buf_span(&m->cert), NULL) == 0);
        REQUIRE(pki_parse_key(&b->key, buf_span(&m->key), NULL) == 0);
        REQUIRE(mbedtls_ssl_conf_own_cert(&b->config, &b->cert, &b->key) == 0);
    }
}

/* Against a good server; returns what that says. */
static void bare_run(struct bare *b, const struct stage *s, struct end *server)
{
    struct tls_config *config = good_server(s);
    memset(server, 0, sizeof *server);
    server->result = ERR_AGAIN;
    REQUIRE(tls_open(&server->tls, config, NULL, NULL) == 0);
    b->server = server->tls;
    REQUIRE(mbedtls_ssl_setup(&b->ssl, &b->config) == 0);
    mbedtls_ssl_set_bio(&b->ssl, b, bare_send, bare_receive, NULL);
    b->result = MBEDTLS_ERR_SSL_WANT_READ;
    for (int round = 0; round < 20; round++) {
        if (b->result == MBEDTLS_ERR_SSL_WANT_READ)
            b->result = mbedtls_ssl_handshake(&b->ssl);
        step(server);
    }
    b->alert =
        b->result == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE ? b->ssl.MBEDTLS_PRIVATE(in_msg)[1] : -1;
    mbedtls_ssl_free(&b->ssl);
    mbedtls_ssl_config_free(&b->config);
    mbedtls_x509_crt_free(&b->cert);
    mbedtls_pk_free(&b->key);
    tls_close(server->tls);
    tls_config_close(config);
}

static const char *const h2_only[] = {"h2", NULL};

static void expect_bare(const struct stage *s, const struct member *m, int alert, int code,
                        const char *says)
{
    struct bare b;
    struct end server;
    bare_open(&b, m);
    REQUIRE(mbedtls_ssl_conf_alpn_protocols(&b.config, (const char **)(uintptr_t)h2_only) == 0);
    bare_run(&b, s, &server);
    CHECK_EQ_INT(b.alert, alert);
    CHECK_EQ_INT(server.result, code);
    CHECK_EQ_STR(server.why.text, says);
}

TEST(a_bare_client_with_a_good_certificate_gets_in)
{
    struct stage s;
    stage_init(&s);
    expect_bare(&s, &s.agent, -1, 0, "");
    stage_done(&s);
}

TEST(no_certificate)
{
    struct stage s;
    stage_init(&s);
    expect_bare(&s, NULL, MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE, ERR_IDENTITY,
                "peer showed no certificate");
    stage_done(&s);
}

static void expect_odd(const struct oddity *odd, int alert, int code, const char *says)
{
    struct stage s;
    stage_init(&s);
    odd_member(&s.fleet, &s.odd, odd);
    expect_bare(&s, &s.odd, alert, code, says);
    stage_done(&s);
}

TEST(odd_certificate_otherwise_good)
{
    expect_odd(&(struct oddity){.uris = {"spiffe://prod/agent/odd"}}, -1, 0, "");
}

TEST(self_signed)
{
    expect_odd(&(struct oddity){.uris = {"spiffe://prod/agent/odd"}, .self_signed = true},
               MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA, ERR_IDENTITY,
               "certificate is self-signed, not signed by this fleet's CA (it names "
               "'spiffe://prod/agent/odd')");
}

TEST(no_extended_key_usage)
{
    expect_odd(&(struct oddity){.uris = {"spiffe://prod/agent/odd"}, .no_usage = true},
               MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT, ERR_IDENTITY,
               "certificate of 'spiffe://prod/agent/odd' is not meant for a client (extended key "
               "usage)");
}

TEST(two_names)
{
    expect_odd(&(struct oddity){.uris = {"spiffe://prod/agent/odd", "spiffe://prod/admin/eve"}},
               MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED, ERR_IDENTITY,
               "certificate does not carry exactly one SAN URI");
}

TEST(no_name)
{
    expect_odd(&(struct oddity){.uris = {NULL}}, MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED, ERR_IDENTITY,
               "certificate does not carry exactly one SAN URI");
}

TEST(a_name_that_is_not_spiffe)
{
    expect_odd(&(struct oddity){.uris = {"https://prod/agent/odd"}},
               MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED, ERR_IDENTITY,
               "not a name of the form 'spiffe://FLEET/ROLE/NAME'");
}

TEST(weak_hash)
{
    struct stage s;
    struct bare b;
    struct end server;
    stage_init(&s);
    odd_member(&s.fleet, &s.odd,
               &(struct oddity){.uris = {"spiffe://prod/agent/odd"}, .md = MBEDTLS_MD_SHA1});
    bare_open(&b, &s.odd);
    bare_run(&b, &s, &server);
    CHECK_EQ_INT(server.result, ERR_IDENTITY);
    const char *head = "certificate of 'spiffe://prod/agent/odd' is not ECDSA P-256 with SHA-256";
    CHECK(strncmp(server.why.text, head, strlen(head)) == 0);
    stage_done(&s);
}

TEST(client_that_is_a_collector)
{
    struct stage s;
    stage_init(&s);
    expect_bare(&s, &s.collector, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT, ERR_IDENTITY,
                "certificate of 'spiffe://prod/collector/c1' is not meant for a client (extended "
                "key usage)");
    stage_done(&s);
}

TEST(client_of_another_fleet_under_the_same_ca)
{
    struct stage s;
    stage_init(&s);
    struct fleet same_ca = s.fleet;
    same_ca.name = "stage";
    fleet_member(&same_ca, &s.odd, "agent", "web-1");
    expect_bare(&s, &s.odd, MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED, ERR_FOREIGN,
                "certificate of 'spiffe://stage/agent/web-1' belongs to another fleet, ours is "
                "'prod'");
    stage_done(&s);
}

/* An agent whose certificate would do for a server in every other respect. */
TEST(server_that_is_an_agent)
{
    static const struct oddity agent = {.uris = {"spiffe://prod/agent/web-1"}, .server = true};
    static const char says[] = "certificate of 'spiffe://prod/agent/web-1' is not a collector's";
    static const char hears[] = "peer refused our certificate: its fleet or role is not accepted "
                                "there";
    struct stage s;
    stage_init(&s);
    odd_member(&s.fleet, &s.odd, &agent);
    expect(good_client(&s), fleet_config(TLS_SERVER, &s.fleet, &s.odd), "localhost", ERR_IDENTITY,
           says, ERR_IDENTITY, hears);
    expect(fleet_config(TLS_JOIN_CLIENT, &s.fleet, NULL),
           fleet_config(TLS_JOIN_SERVER, &s.fleet, &s.odd), "localhost", ERR_IDENTITY, says,
           ERR_IDENTITY, hears);
    stage_done(&s);
}

/* ---- no common ground ---- */

TEST(no_common_suite)
{
    static const int old[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, 0};
    struct stage s;
    struct bare b;
    struct end server;
    stage_init(&s);
    bare_open(&b, &s.agent);
    mbedtls_ssl_conf_ciphersuites(&b.config, old);
    bare_run(&b, &s, &server);
    CHECK_EQ_INT(b.alert, MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
    CHECK_EQ_INT(server.result, ERR_PROTOCOL);
    CHECK_EQ_STR(server.why.text,
                 "peer has no cipher suite in common with us (TLS 1.2, ECDHE-ECDSA, P-256)");
    stage_done(&s);
}

TEST(other_suites_and_curves_of_ours_work)
{
    static const int list[][2] = {{MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, 0},
                                  {MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, 0},
                                  {MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, 0}};
    struct stage s;
    stage_init(&s);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct bare b;
        struct end server;
        bare_open(&b, &s.agent);
        mbedtls_ssl_conf_ciphersuites(&b.config, list[i]);
        REQUIRE(mbedtls_ssl_conf_alpn_protocols(&b.config, (const char **)(uintptr_t)h2_only) == 0);
        bare_run(&b, &s, &server);
        CHECK_EQ_STR(server.why.text, "");
        CHECK_EQ_INT(server.result, 0);
    }
    stage_done(&s);
}

TEST(no_application_protocol)
{
    static const char *const http1[] = {"http/1.1", NULL};
    struct stage s;
    struct bare b;
    struct end server;
    stage_init(&s);
    for (int offer = 0; offer < 2; offer++) {
        bare_open(&b, &s.agent);
        if (offer)
            REQUIRE(mbedtls_ssl_conf_alpn_protocols(&b.config, (const char **)(uintptr_t)http1) ==
                    0);
        bare_run(&b, &s, &server);
        CHECK_EQ_INT(server.result, ERR_PROTOCOL);
        CHECK_EQ_STR(server.why.text, "peer does not offer the protocol 'h2'");
    }
    stage_done(&s);
}

/* What a single end says to bytes that no good peer sends. */
static void expect_bytes(struct tls_config *config, const void *bytes, size_t size_bytes, int code,
                         const char *says, int alert)
{
    struct end e = {.result = ERR_AGAIN};
    REQUIRE(tls_open(&e.tls, config, "localhost", NULL) == 0);
    step(&e);
    tls_sent(e.tls, tls_pending(e.tls).size_bytes);
    REQUIRE(tls_feed(e.tls, span_of(bytes, size_bytes)) == 0);
    step(&e);
    CHECK_EQ_INT(e.result, code);
    CHECK_EQ_STR(e.why.text, says);
    struct span out = tls_pending(e.tls);
    if (alert >= 0) {
        REQUIRE(out.size_bytes == 7);
        CHECK_EQ_INT(out.data[0], 21);
        CHECK_EQ_INT(out.data[6], alert);
    }
    tls_close(e.tls);
    tls_config_close(config);
}

TEST(older_version_offered)
{
    /* A ClientHello of TLS 1.1 as OpenSSL 1.0 sends it, cut to its needed parts. */
    static const uint8_t hello[] = {
        22, 3,  1,  0,    45,   1,  0,  0,  41, 3,  2,                      /* version 1.1 */
        1,  2,  3,  4,    5,    6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, /* random */
        17, 18, 19, 20,   21,   22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, /* random */
        0,  0,  2,  0xc0, 0x09, 1,  0};
    struct stage s;
    stage_init(&s);
    expect_bytes(good_server(&s), hello, sizeof hello, ERR_VERSION,
                 "peer offers only an older TLS version, not 1.2",
                 MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION);
    stage_done(&s);
}

TEST(alerts_at_the_start_are_explained)
{
    static const struct {
        uint8_t level, alert;
        int code;
        const char *says;
    } table[] = {
        {2, 70, ERR_VERSION, "peer speaks no TLS version that we speak (1.2)"},
        {2, 40, ERR_PROTOCOL, "peer has no cipher suite in common with us"},
        {2, 48, ERR_IDENTITY, "peer refused our certificate: not signed by its fleet's CA"},
        {2, 120, ERR_PROTOCOL, "peer does not speak our application protocol"},
        {2, 80, ERR_PROTOCOL, "peer broke off the handshake (TLS alert 80)"},
        {1, 0, ERR_CLOSED, "peer closed the connection during the handshake"},
    };
    struct stage s;
    stage_init(&s);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint8_t record[] = {21, 3, 3, 0, 2, table[i].level, table[i].alert};
        expect_bytes(good_client(&s), record, sizeof record, table[i].code, table[i].says, -1);
    }
    stage_done(&s);
}

TEST(something_else_than_tls)
{
    static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    static const char redis[] = "-ERR unknown command\r\n";
    struct stage s;
    stage_init(&s);
    expect_bytes(good_server(&s), http, sizeof http - 1, ERR_PROTOCOL, "peer does not speak TLS",
                 -1);
    expect_bytes(good_client(&s), redis, sizeof redis - 1, ERR_PROTOCOL, "peer does not speak TLS",
                 -1);
    stage_done(&s);
}

/* ---- joining ---- */

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

/* ---- bytes ---- */

static void pair_established(struct pair *p, const struct stage *s)
{
    pair_open(p, good_client(s), good_server(s), "localhost");
    shake(&p->client, &p->server);
    REQUIRE(p->client.result == 0 && p->server.result == 0);
}

/* Bytes that differ at every place, so that a swap or a gap is seen. */
static uint8_t *pattern(size_t size_bytes)
{
    uint8_t *bytes = malloc(size_bytes);
    REQUIRE(bytes);
    uint32_t x = 12345;
    for (size_t i = 0; i < size_bytes; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(x >> 24);
    }
    return bytes;
}

/* Sends all of `bytes` in writes of uneven sizes and network pieces of others. */
static void transfer(struct tls *from, struct tls *to, const uint8_t *bytes, size_t size_bytes)
{
    struct buf got;
    struct failure f = {0};
    size_t sent = 0;
    buf_init(&got, size_bytes + 65536);
    for (size_t round = 1; got.size_bytes < size_bytes && round < 100000; round++) {
        size_t part = round * 7919 % 70000;
        if (part > size_bytes - sent)
            part = size_bytes - sent;
        REQUIRE(tls_write(from, span_of(bytes + sent, part), &f) == 0);
        sent += part;
        for (struct span s = tls_pending(from); s.size_bytes; s = tls_pending(from)) {
            size_t piece = s.size_bytes < 5003 ? s.size_bytes : 5003;
            REQUIRE(tls_feed(to, span_of(s.data, piece)) == 0);
            tls_sent(from, piece);
            int err;
            while ((err = tls_read(to, &got, &f)) == 0) {
            }
            REQUIRE(err == ERR_AGAIN);
        }
    }
    REQUIRE(got.size_bytes == size_bytes);
    CHECK_EQ_MEM(got.data, bytes, size_bytes);
    buf_done(&got);
}

TEST(three_megabytes_each_way)
{
    enum { SIZE = 3 * 1024 * 1024 };
    struct stage s;
    struct pair p;
    uint8_t *bytes = pattern(SIZE);
    stage_init(&s);
    pair_established(&p, &s);
    transfer(p.client.tls, p.server.tls, bytes, SIZE);
    transfer(p.server.tls, p.client.tls, bytes, SIZE);
    free(bytes);
    pair_close(&p);
    stage_done(&s);
}

TEST(a_small_output_takes_a_record_in_parts)
{
    struct stage s;
    struct pair p;
    struct buf got;
    struct failure f = {0};
    uint8_t *bytes = pattern(10000);
    stage_init(&s);
    pair_established(&p, &s);
    REQUIRE(tls_write(p.client.tls, span_of(bytes, 10000), &f) == 0);
    carry(p.client.tls, p.server.tls);
    buf_init(&got, 3000);
    for (size_t at = 0; at < 10000; at += got.size_bytes) {
        buf_clear(&got);
        REQUIRE(tls_read(p.server.tls, &got, &f) == 0);
        CHECK_EQ_MEM(got.data, bytes + at, got.size_bytes);
    }
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), ERR_AGAIN);
    REQUIRE(buf_append(&got, bytes, 2000) == 0);
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), ERR_LIMIT);
    buf_done(&got);
    free(bytes);
    pair_close(&p);
    stage_done(&s);
}

TEST(limits)
{
    struct stage s;
    struct pair p;
    struct failure f = {0};
    uint8_t *bytes = pattern(256 * 1024 + 1);
    stage_init(&s);
    pair_open(&p, good_client(&s), good_server(&s), "localhost");
    CHECK_EQ_INT(tls_feed(p.server.tls, span_of(bytes, 256 * 1024 + 1)), ERR_LIMIT);
    CHECK_EQ_INT(tls_feed(p.server.tls, span_of(bytes, 256 * 1024)), 0);
    CHECK_EQ_INT(tls_feed(p.server.tls, span_of(bytes, 1)), ERR_LIMIT);
    pair_close(&p);
    pair_established(&p, &s);
    int err = 0;
    for (int i = 0; i < 64 && !err; i++)
        err = tls_write(p.client.tls, span_of(bytes, 256 * 1024), &f);
    CHECK_EQ_INT(err, ERR_LIMIT);
    CHECK(tls_pending(p.client.tls).size_bytes <= 4 * 1024 * 1024);
    free(bytes);
    pair_close(&p);
    stage_done(&s);
}

TEST(goodbye_comes_after_the_bytes)
{
    struct stage s;
    struct pair p;
    struct buf got;
    struct failure f = {0};
    stage_init(&s);
    pair_established(&p, &s);
    buf_init(&got, 65536);
    REQUIRE(tls_write(p.client.tls, span_str("last words"), &f) == 0);
    tls_goodbye(p.client.tls);
    carry(p.client.tls, p.server.tls);
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), 0);
    CHECK_EQ_STR(buf_str(&got), "last words");
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), ERR_CLOSED);
    CHECK_EQ_STR(f.text, "peer closed the connection");
    buf_done(&got);
    pair_close(&p);
    stage_done(&s);
}

TEST(a_damaged_record_is_refused_and_reported)
{
    struct stage s;
    struct pair p;
    struct buf got;
    struct failure f = {0};
    uint8_t record[256];
    stage_init(&s);
    pair_established(&p, &s);
    buf_init(&got, 65536);
    REQUIRE(tls_write(p.client.tls, span_str("pay 100 to alice"), &f) == 0);
    struct span sent = tls_pending(p.client.tls);
    REQUIRE(sent.size_bytes < sizeof record);
    memcpy(record, sent.data, sent.size_bytes);
    record[sent.size_bytes - 20] ^= 1;
    REQUIRE(tls_feed(p.server.tls, span_of(record, sent.size_bytes)) == 0);
    CHECK_EQ_INT(tls_read(p.server.tls, &got, &f), ERR_PROTOCOL);
    CHECK_EQ_INT(got.size_bytes, 0);
    carry(p.server.tls, p.client.tls);
    CHECK_EQ_INT(tls_read(p.client.tls, &got, &f), ERR_PROTOCOL);
    CHECK_EQ_STR(f.text, "peer broke off (TLS alert 20)");
    buf_done(&got);
    pair_close(&p);
    stage_done(&s);
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
