/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys, requests, certificates: round trips, what must be refused, and a foreign reader (openssl)
 * that must agree with us.
 */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/pki_mbed.h"
#include "common/port.h"
#include "tests/unit/common/fleet.h"

static int parse(const char *text, struct pki_identity *id)
{
    return pki_uri_parse(span_str(text), id, NULL);
}

TEST(uri_round_trip)
{
    struct pki_identity id = {0};
    char text[PKI_URI_SIZE];
    CHECK_EQ_INT(parse("spiffe://prod/agent/web-07.example", &id), 0);
    CHECK_EQ_STR(id.fleet, "prod");
    CHECK_EQ_STR(id.role, "agent");
    CHECK_EQ_STR(id.name, "web-07.example");
    CHECK_EQ_INT(pki_uri_text(&id, text, sizeof text), 0);
    CHECK_EQ_STR(text, "spiffe://prod/agent/web-07.example");
    CHECK_EQ_INT(pki_uri_text(&id, text, 10), ERR_LIMIT);
}

TEST(uri_of_the_greatest_length)
{
    struct pki_identity id = {0};
    char name[PKI_NAME_SIZE], text[PKI_URI_SIZE];
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    REQUIRE(text_format(text, sizeof text, "spiffe://%s/%s/%s", name, name, name) == 0);
    CHECK_EQ_INT(parse(text, &id), 0);
    CHECK_EQ_STR(id.name, name);
    char longer[PKI_URI_SIZE + 1];
    REQUIRE(text_format(longer, sizeof longer, "%sa", text) == 0);
    CHECK_EQ_INT(parse(longer, &id), ERR_INVALID);
}

TEST(uri_refused)
{
    static const char *const bad[] = {"",
                                      "spiffe://",
                                      "spiffe:///agent/a",
                                      "spiffe://f//a",
                                      "spiffe://f/agent/",
                                      "spiffe://f/agent",
                                      "spiffe://f/agent/a/b",
                                      "spiffe://f/agent/a/",
                                      "SPIFFE://f/agent/a",
                                      "https://f/agent/a",
                                      "spiffe://f/agent/a b",
                                      "spiffe://f/agent/.a",
                                      "spiffe://f/../a",
                                      "spiffe://f/agent/a?x",
                                      "spiffe://f/agent/\xc3\xa4"};
    struct pki_identity id;
    memset(&id, 0x5a, sizeof id);
    struct pki_identity before = id;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_EQ_INT(parse(bad[i], &id), ERR_INVALID);
    /* A zero inside must not hide what follows. */
    CHECK_EQ_INT(pki_uri_parse(span_of("spiffe://f/agent/a\0b", 20), &id, NULL), ERR_INVALID);
    CHECK_EQ_MEM(&id, &before, sizeof id);
}

TEST(calendar_agrees_with_the_c_library)
{
    static const int64_t moments[] = {0,          951782399,  951782400,  1709164799,
                                      1709164800, 4107542399, 4107542400, 253402300799,
                                      1795442400, -1,         -86401};
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        time_t t = (time_t)moments[i];
        struct tm tm;
        struct pki_date d = pki_date_of(moments[i]);
        REQUIRE(gmtime_r(&t, &tm));
        CHECK_EQ_INT(d.year, tm.tm_year + 1900);
        CHECK_EQ_INT(d.month, tm.tm_mon + 1);
        CHECK_EQ_INT(d.day, tm.tm_mday);
        CHECK_EQ_INT(d.hour, tm.tm_hour);
        CHECK_EQ_INT(d.minute, tm.tm_min);
        CHECK_EQ_INT(d.second, tm.tm_sec);
        CHECK_EQ_INT(pki_seconds_of(&d), moments[i]);
    }
}

TEST(calendar_every_day_of_four_centuries)
{
    int64_t wrong = 0;
    for (int64_t day = 0; day < 146097; day++) {
        struct pki_date d = pki_date_of(day * 86400 + 43200);
        wrong += pki_seconds_of(&d) != day * 86400 + 43200;
    }
    CHECK_EQ_INT(wrong, 0);
}

TEST(issued_certificate_says_what_was_asked)
{
    struct fleet fleet;
    struct member agent;
    struct pki_identity id = {0};
    struct pki_issue issue = {.identity = {.fleet = "prod",
                                           .role = "agent",
                                           .name = "web-07",
                                           .not_before_s = 1795442400,
                                           .not_after_s = 4107542400}};
    fleet_init(&fleet, "prod");
    fleet_sign(&fleet, &agent, &issue);
    CHECK_EQ_INT(pki_cert_identity(buf_span(&agent.cert), &id, NULL), 0);
    CHECK_EQ_STR(id.fleet, "prod");
    CHECK_EQ_STR(id.role, "agent");
    CHECK_EQ_STR(id.name, "web-07");
    CHECK_EQ_INT(id.not_before_s, 1795442400);
    CHECK_EQ_INT(id.not_after_s, 4107542400);
    CHECK_EQ_INT(strlen(id.serial_hex), 40);
    member_done(&agent);
    fleet_done(&fleet);
}

TEST(serials_differ)
{
    struct fleet fleet;
    struct member one, two;
    struct pki_identity a = {0}, b = {0};
    fleet_init(&fleet, "f");
    fleet_member(&fleet, &one, "agent", "same");
    fleet_member(&fleet, &two, "agent", "same");
    CHECK_EQ_INT(pki_cert_identity(buf_span(&one.cert), &a, NULL), 0);
    CHECK_EQ_INT(pki_cert_identity(buf_span(&two.cert), &b, NULL), 0);
    CHECK(strcmp(a.serial_hex, b.serial_hex) != 0);
    member_done(&one);
    member_done(&two);
    fleet_done(&fleet);
}

TEST(ca_names_nobody)
{
    struct fleet fleet;
    struct pki_identity id;
    struct failure f = {0};
    fleet_init(&fleet, "f");
    CHECK_EQ_INT(pki_cert_identity(buf_span(&fleet.cert), &id, &f), ERR_INVALID);
    CHECK_EQ_STR(f.text, "certificate does not carry exactly one SAN URI");
    fleet_done(&fleet);
}

TEST(bad_pem_is_refused)
{
    static const char *const bad[] = {
        "", "hello", "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n"};
    struct pki_identity id;
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ_INT(pki_cert_identity(span_str(bad[i]), &id, NULL), ERR_INVALID);
        CHECK_EQ_INT(pki_cert_fingerprint(span_str(bad[i]), fingerprint, NULL), ERR_INVALID);
    }
    struct buf big;
    buf_init(&big, 1 << 20);
    for (int i = 0; i < 5000; i++)
        REQUIRE(buf_append_str(&big, "-----BEGIN CERTIFICATE-----\n") == 0);
    CHECK_EQ_INT(pki_cert_identity(buf_span(&big), &id, NULL), ERR_INVALID);
    buf_done(&big);
}

/* A request and a CA, for what can be wrong with either. */
struct desk {
    struct fleet fleet;
    struct buf key, request, cert;
    struct pki_issue issue;
};

static void desk_init(struct desk *d)
{
    struct failure f = {0};
    *d = (struct desk){.issue = {.identity = {.fleet = "f",
                                              .role = "agent",
                                              .name = "web-1",
                                              .not_before_s = 1700000000,
                                              .not_after_s = 1800000000}}};
    fleet_init(&d->fleet, "f");
    buf_init(&d->key, 4096);
    buf_init(&d->request, 4096);
    buf_init(&d->cert, FLEET_PEM_LIMIT);
    REQUIRE(pki_key_new(&d->key, &f) == 0);
    REQUIRE(pki_request_new("web-1", buf_span(&d->key), &d->request, &f) == 0);
}

static void desk_done(struct desk *d)
{
    fleet_done(&d->fleet);
    buf_done(&d->key);
    buf_done(&d->request);
    buf_done(&d->cert);
}

static int desk_sign(struct desk *d, struct failure *f)
{
    return pki_sign(buf_span(&d->fleet.cert), buf_span(&d->fleet.key), buf_span(&d->request),
                    &d->issue, &d->cert, f);
}

TEST(every_flipped_bit_of_a_request_is_refused)
{
    struct desk d;
    desk_init(&d);
    CHECK_EQ_INT(desk_sign(&d, NULL), 0);
    buf_clear(&d.cert);
    int passed = 0;
    for (size_t i = 0; i < d.request.size_bytes; i++) {
        d.request.data[i] ^= (uint8_t)(1u << (i % 8));
        passed += desk_sign(&d, NULL) == 0;
        d.request.data[i] ^= (uint8_t)(1u << (i % 8));
    }
    CHECK_EQ_INT(passed, 0);
    CHECK_EQ_INT(d.cert.size_bytes, 0);
    CHECK_EQ_INT(desk_sign(&d, NULL), 0);
    desk_done(&d);
}

static uint8_t *find(const struct buf *in, const void *what, size_t size_bytes)
{
    for (size_t i = 0; i + size_bytes <= in->size_bytes; i++)
        if (memcmp(in->data + i, what, size_bytes) == 0)
            return in->data + i;
    return NULL;
}

TEST(a_request_with_anothers_key_is_refused)
{
    struct desk d;
    struct failure f = {0};
    struct buf key, other;
    desk_init(&d);
    buf_init(&key, 4096);
    buf_init(&other, 4096);
    REQUIRE(pki_key_new(&key, &f) == 0);
    REQUIRE(pki_request_new("web-1", buf_span(&key), &other, &f) == 0);
    /* The public point is the only run of 65 bytes that begins with 03 42 00 04. */
    static const uint8_t mark[] = {0x03, 0x42, 0x00, 0x04};
    uint8_t *to = find(&d.request, mark, sizeof mark);
    uint8_t *from = find(&other, mark, sizeof mark);
    REQUIRE(to && from);
    memcpy(to, from, sizeof mark + 64);
    CHECK_EQ_INT(desk_sign(&d, &f), ERR_INVALID);
    CHECK(strstr(f.text, "its signature does not fit") != NULL);
    buf_done(&key);
    buf_done(&other);
    desk_done(&d);
}

TEST(truncated_and_padded_requests_are_refused)
{
    struct desk d;
    desk_init(&d);
    size_t whole = d.request.size_bytes;
    int passed = 0;
    for (d.request.size_bytes = 0; d.request.size_bytes < whole; d.request.size_bytes++)
        passed += desk_sign(&d, NULL) == 0;
    CHECK_EQ_INT(passed, 0);
    CHECK_EQ_INT(buf_append_byte(&d.request, 0), 0);
    CHECK_EQ_INT(desk_sign(&d, NULL), ERR_INVALID);
    desk_done(&d);
}

TEST(bad_orders_are_refused)
{
    struct desk d;
    struct failure f = {0};
    desk_init(&d);
    struct pki_issue good = d.issue;
    REQUIRE(text_copy(d.issue.identity.name, PKI_NAME_SIZE, "a,O=other") == 0);
    CHECK_EQ_INT(desk_sign(&d, NULL), ERR_INVALID);
    d.issue = good;
    d.issue.identity.role[0] = '\0';
    CHECK_EQ_INT(desk_sign(&d, NULL), ERR_INVALID);
    d.issue = good;
    d.issue.identity.not_after_s = d.issue.identity.not_before_s;
    CHECK_EQ_INT(desk_sign(&d, &f), ERR_INVALID);
    CHECK_EQ_STR(f.text, "cannot make a certificate: bad validity");
    d.issue.identity.not_after_s = 253402300800; /* the year 10000 */
    CHECK_EQ_INT(desk_sign(&d, NULL), ERR_INVALID);
    static const char *const bad[] = {"ok.example", "not ok", NULL};
    d.issue = good;
    d.issue.dns_names = bad;
    CHECK_EQ_INT(desk_sign(&d, &f), ERR_INVALID);
    CHECK_EQ_STR(f.text, "cannot sign: name 2 is neither a host name nor an address");
    CHECK_EQ_INT(d.cert.size_bytes, 0);
    desk_done(&d);
}

TEST(too_many_names_are_refused)
{
    struct desk d;
    const char *names[64];
    desk_init(&d);
    for (size_t i = 0; i < 63; i++)
        names[i] = "name.example";
    names[63] = NULL;
    d.issue.dns_names = names;
    CHECK_EQ_INT(desk_sign(&d, NULL), ERR_LIMIT);
    d.issue.dns_names = names + 63 - 32;
    CHECK_EQ_INT(desk_sign(&d, NULL), 0);
    desk_done(&d);
}

TEST(only_a_ca_with_its_own_key_signs)
{
    struct desk d;
    struct member collector;
    struct failure f = {0};
    desk_init(&d);
    fleet_member(&d.fleet, &collector, "collector", "c1");
    CHECK_EQ_INT(pki_sign(buf_span(&collector.cert), buf_span(&collector.key), buf_span(&d.request),
                          &d.issue, &d.cert, &f),
                 ERR_INVALID);
    CHECK_EQ_STR(f.text, "cannot sign: the certificate is not a CA's");
    CHECK_EQ_INT(pki_sign(buf_span(&d.fleet.cert), buf_span(&collector.key), buf_span(&d.request),
                          &d.issue, &d.cert, &f),
                 ERR_INVALID);
    CHECK(strstr(f.text, "the key does not fit the CA") != NULL);
    member_done(&collector);
    desk_done(&d);
}

TEST(ca_orders_are_checked)
{
    struct buf key, cert;
    buf_init(&key, 4096);
    buf_init(&cert, FLEET_PEM_LIMIT);
    REQUIRE(pki_start(NULL) == 0 && pki_start(NULL) == 0);
    REQUIRE(pki_key_new(&key, NULL) == 0);
    CHECK_EQ_INT(pki_ca_new("bad name", buf_span(&key), 0, 10, &cert, NULL), ERR_INVALID);
    CHECK_EQ_INT(pki_ca_new("f", buf_span(&key), fleet_now(), 0, &cert, NULL), ERR_INVALID);
    CHECK_EQ_INT(pki_ca_new("f", span_str("x"), fleet_now(), 10, &cert, NULL), ERR_INVALID);
    CHECK_EQ_INT(pki_ca_new("f", buf_span(&key), fleet_now(), 10, &cert, NULL), 0);
    buf_done(&key);
    buf_done(&cert);
}

TEST(an_output_that_does_not_fit_is_an_error)
{
    struct buf small;
    struct failure f = {0};
    REQUIRE(pki_start(NULL) == 0);
    buf_init(&small, 16);
    CHECK_EQ_INT(pki_key_new(&small, &f), ERR_LIMIT);
    CHECK_EQ_INT(small.size_bytes, 0);
    buf_done(&small);
}

TEST(foreign_keys_are_refused)
{
    unsigned char pem[1024];
    mbedtls_pk_context key;
    struct failure f = {0};
    struct buf request;
    buf_init(&request, 4096);
    REQUIRE(pki_start(NULL) == 0);
    mbedtls_pk_init(&key);
    REQUIRE(mbedtls_pk_setup(&key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)) == 0);
    REQUIRE(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP384R1, mbedtls_pk_ec(key), pki_random, NULL) ==
            0);
    REQUIRE(mbedtls_pk_write_key_pem(&key, pem, sizeof pem) == 0);
    CHECK_EQ_INT(pki_request_new("a", span_str((char *)pem), &request, &f), ERR_INVALID);
    CHECK_EQ_STR(f.text, "bad private key: not ECDSA P-256");
    CHECK_EQ_INT(pki_request_new("a", span_str(""), &request, NULL), ERR_INVALID);
    CHECK_EQ_INT(pki_request_new("", span_str(""), &request, NULL), ERR_INVALID);
    mbedtls_pk_free(&key);
    buf_done(&request);
}

TEST(sha256_in_pieces)
{
    static const uint8_t abc[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                    0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                    0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                    0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    uint8_t out[32] = {0};
    pki_sha256(span_str("abc"), out);
    CHECK_EQ_MEM(out, abc, 32);
    memset(out, 0, sizeof out);
    struct pki_sha256 *h = pki_sha256_open();
    REQUIRE(h);
    pki_sha256_add(h, span_str("a"));
    pki_sha256_add(h, (struct span){NULL, 0});
    pki_sha256_add(h, span_str("bc"));
    pki_sha256_close(h, out);
    CHECK_EQ_MEM(out, abc, 32);
    pki_sha256_close(pki_sha256_open(), NULL);
    pki_sha256_close(NULL, NULL);
    CHECK(pki_equal("abcd", "abcd", 4));
    CHECK(!pki_equal("abcd", "abce", 4));
}

TEST(wipe)
{
    char secret[] = "secret";
    pki_wipe(secret, sizeof secret);
    CHECK_EQ_MEM(secret, "\0\0\0\0\0\0", sizeof secret);
    pki_wipe(NULL, 0);
}

/* ---- openssl as a foreign reader ---- */

static int run(const char *const *argv, char *out, size_t size_bytes)
{
    int fd[2], status;
    size_t have = 0;
    REQUIRE(pipe(fd) == 0);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        dup2(fd[1], 1);
        dup2(fd[1], 2);
        close(fd[0]);
        close(fd[1]);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(fd[1]);
    for (ssize_t n;
         have + 1 < size_bytes && (n = read(fd[0], out + have, size_bytes - 1 - have)) > 0;)
        have += (size_t)n;
    out[have] = '\0';
    close(fd[0]);
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(openssl_agrees)
{
    char dir[] = "/tmp/trawl-pki-XXXXXX", out[16384], ca[64], leaf[64];
    static const char *const version[] = {"openssl", "version", NULL};
    if (run(version, out, sizeof out) != 0)
        SKIP("no openssl");
    struct fleet fleet;
    struct member c;
    fleet_init(&fleet, "prod");
    fleet_member(&fleet, &c, "collector", "c1");
    REQUIRE(mkdtemp(dir));
    REQUIRE(text_format(ca, sizeof ca, "%s/ca.pem", dir) == 0);
    REQUIRE(text_format(leaf, sizeof leaf, "%s/leaf.pem", dir) == 0);
    REQUIRE(port_write_file(ca, buf_span(&fleet.cert), false, NULL) == 0);
    REQUIRE(port_write_file(leaf, buf_span(&c.cert), false, NULL) == 0);

    const char *const verify[] = {"openssl", "verify", "-x509_strict", "-purpose", "sslserver",
                                  "-CAfile", ca,       leaf,           NULL};
    CHECK_EQ_INT(run(verify, out, sizeof out), 0);
    CHECK(strstr(out, "OK") != NULL);
    const char *const as_client[] = {"openssl", "verify", "-purpose", "sslclient",
                                     "-CAfile", ca,       leaf,       NULL};
    CHECK(run(as_client, out, sizeof out) != 0);

    const char *const show[] = {"openssl", "x509", "-noout", "-text", "-in", leaf, NULL};
    CHECK_EQ_INT(run(show, out, sizeof out), 0);
    static const char *const expected[] = {"Subject: CN = c1, O = prod",
                                           "Issuer: CN = prod CA, O = prod",
                                           "URI:spiffe://prod/collector/c1",
                                           "DNS:localhost",
                                           "DNS:collector.example",
                                           "IP Address:127.0.0.1",
                                           "IP Address:10.0.0.7",
                                           "IP Address:0:0:0:0:0:0:0:1",
                                           "TLS Web Server Authentication",
                                           "CA:FALSE",
                                           "Digital Signature",
                                           "prime256v1",
                                           "ecdsa-with-SHA256"};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        check_true(strstr(out, expected[i]) != NULL, expected[i], __FILE__, __LINE__);
    CHECK(strstr(out, "TLS Web Client") == NULL);
    unlink(ca);
    unlink(leaf);
    rmdir(dir);
    member_done(&c);
    fleet_done(&fleet);
}

TEST(openssl_requests_are_signed_without_their_wishes)
{
    char dir[] = "/tmp/trawl-pki-XXXXXX", out[16384], key[64], request[64], der[64];
    static const char *const version[] = {"openssl", "version", NULL};
    if (run(version, out, sizeof out) != 0)
        SKIP("no openssl");
    REQUIRE(mkdtemp(dir));
    REQUIRE(text_format(key, sizeof key, "%s/key", dir) == 0);
    REQUIRE(text_format(request, sizeof request, "%s/request", dir) == 0);
    REQUIRE(text_format(der, sizeof der, "%s/der", dir) == 0);
    const char *const make[] = {"openssl",
                                "req",
                                "-new",
                                "-newkey",
                                "ec",
                                "-pkeyopt",
                                "ec_paramgen_curve:P-256",
                                "-nodes",
                                "-keyout",
                                key,
                                "-outform",
                                "DER",
                                "-out",
                                der,
                                "-subj",
                                "/CN=admin",
                                "-addext",
                                "subjectAltName=URI:spiffe://f/admin/root",
                                NULL};
    REQUIRE(run(make, out, sizeof out) == 0);
    struct desk d;
    struct pki_identity id = {0};
    desk_init(&d);
    buf_clear(&d.request);
    REQUIRE(port_read_file(der, &d.request, NULL) == 0);
    CHECK_EQ_INT(desk_sign(&d, NULL), 0);
    CHECK_EQ_INT(pki_cert_identity(buf_span(&d.cert), &id, NULL), 0);
    CHECK_EQ_STR(id.role, "agent");
    CHECK_EQ_STR(id.name, "web-1");

    const char *const rsa[] = {"openssl", "req",     "-new",  "-newkey",  "rsa:2048",
                               "-nodes",  "-keyout", key,     "-outform", "DER",
                               "-out",    der,       "-subj", "/CN=a",    NULL};
    REQUIRE(run(rsa, out, sizeof out) == 0);
    struct failure f = {0};
    buf_clear(&d.request);
    REQUIRE(port_read_file(der, &d.request, NULL) == 0);
    CHECK_EQ_INT(desk_sign(&d, &f), ERR_INVALID);
    CHECK_EQ_STR(f.text, "bad certificate request: key is not ECDSA P-256");
    unlink(key);
    unlink(der);
    rmdir(dir);
    desk_done(&d);
}
