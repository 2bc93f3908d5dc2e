/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes from outside that pki and tls read. The first byte of an input chooses the reader: a name,
 * a certificate as PEM, one as DER, a request to be signed, the first flight of a client, the
 * answer of a server. What is accepted must hold what the headers promise.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/pki.h"
#include "common/tls.h"

#define PEM_LIMIT 65536

static struct {
    struct buf ca, ca_key, cert, key;
    struct tls_config *server, *join;
} world;

static const struct pki_issue issue = {.identity = {.fleet = "f",
                                                    .role = "collector",
                                                    .name = "c1",
                                                    .not_before_s = 1700000000,
                                                    .not_after_s = 4000000000}};

static void set_up(void)
{
    struct failure f = {0};
    struct buf request;
    int err = pki_start(&f);
    buf_init(&world.ca, PEM_LIMIT);
    buf_init(&world.ca_key, PEM_LIMIT);
    buf_init(&world.cert, PEM_LIMIT);
    buf_init(&world.key, PEM_LIMIT);
    buf_init(&request, PEM_LIMIT);
    err |= pki_key_new(&world.ca_key, &f);
    err |= pki_ca_new("f", buf_span(&world.ca_key), 1700000000, 10000, &world.ca, &f);
    err |= pki_key_new(&world.key, &f);
    err |= pki_request_new("c1", buf_span(&world.key), &request, &f);
    err |= pki_sign(buf_span(&world.ca), buf_span(&world.ca_key), buf_span(&request), &issue,
                    &world.cert, &f);
    struct tls_settings s = {.side = TLS_SERVER,
                             .ca_pem = buf_span(&world.ca),
                             .cert_pem = buf_span(&world.cert),
                             .key_pem = buf_span(&world.key),
                             .alpn = "h2"};
    err |= tls_config_open(&world.server, &s, &f);
    s = (struct tls_settings){.side = TLS_JOIN_CLIENT, .alpn = "h2"};
    err |= tls_config_open(&world.join, &s, &f);
    assert(err == 0);
    buf_done(&request);
}

static void check_name(const char *name)
{
    assert(memchr(name, '\0', PKI_NAME_SIZE));
    assert(name[0] && !strchr(name, '/'));
}

static void read_uri(struct span uri)
{
    struct pki_identity id;
    char text[256];
    if (pki_uri_parse(uri, &id, NULL))
        return;
    check_name(id.fleet);
    check_name(id.role);
    check_name(id.name);
    int err = pki_uri_text(&id, text, sizeof text);
    assert(err == 0 && span_equal(span_str(text), uri));
    (void)err;
}

static void read_cert(struct span pem)
{
    struct pki_identity id;
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
    struct failure f;
    int err = pki_cert_identity(pem, &id, &f);
    if (!err) {
        check_name(id.name);
        assert(memchr(id.serial_hex, '\0', sizeof id.serial_hex));
    } else {
        assert(err == ERR_INVALID && f.code == err && f.text[0]);
    }
    (void)pki_cert_fingerprint(pem, fingerprint, NULL);
}

/* As PEM, so that libFuzzer need not learn base64. */
static void read_der(struct span der)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf pem;
    buf_init(&pem, PEM_LIMIT);
    (void)buf_append_str(&pem, "-----BEGIN CERTIFICATE-----\n");
    for (size_t i = 0; i < der.size_bytes; i += 3) {
        size_t left = der.size_bytes - i;
        uint32_t v = (uint32_t)der.data[i] << 16 | (left > 1 ? (uint32_t)der.data[i + 1] << 8 : 0) |
                     (left > 2 ? der.data[i + 2] : 0);
        char quad[] = {digits[v >> 18], digits[v >> 12 & 63], left > 1 ? digits[v >> 6 & 63] : '=',
                       left > 2 ? digits[v & 63] : '='};
        (void)buf_append(&pem, quad, 4);
        if (i % 48 == 45)
            (void)buf_append_byte(&pem, '\n');
    }
    (void)buf_append_str(&pem, "\n-----END CERTIFICATE-----\n");
    read_cert(buf_span(&pem));
    buf_done(&pem);
}

static void read_request(struct span der)
{
    struct buf cert;
    buf_init(&cert, PEM_LIMIT);
    int err = pki_sign(buf_span(&world.ca), buf_span(&world.ca_key), der, &issue, &cert, NULL);
    assert(err == 0 || (err == ERR_INVALID && cert.size_bytes == 0));
    (void)err;
    buf_done(&cert);
}

static void shake(struct tls_config *config, struct span bytes)
{
    struct failure f = {0};
    struct tls *tls;
    if (tls_open(&tls, config, "localhost", &f))
        return;
    int err = tls_handshake(tls, &f);
    if (tls_feed(tls, bytes) == 0)
        err = tls_handshake(tls, &f);
    /* Nobody gets in without the random numbers of this very session. */
    assert(err == ERR_AGAIN || (err < 0 && f.code == err && f.text[0]));
    (void)err;
    tls_close(tls);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!world.server)
        set_up();
    if (size == 0)
        return 0;
    struct span rest = span_of(data + 1, size - 1);
    switch (data[0] % 6) {
    case 0:
        read_uri(rest);
        break;
    case 1:
        read_cert(rest);
        break;
    case 2:
        read_der(rest);
        break;
    case 3:
        read_request(rest);
        break;
    case 4:
        shake(world.server, rest);
        break;
    default:
        shake(world.join, rest);
        break;
    }
    return 0;
}
