/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers that our own code never makes: odd certificates, other suites and protocols, bytes that are
 * no TLS. They come from a client of bare mbedTLS, or are written down here.
 */
#include <mbedtls/oid.h>
#include <mbedtls/ssl.h>

#include "tests/unit/common/tls_pair.h"

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
