/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading keys and certificates: PEM in, an identity out. What is read here comes from outside, so
 * everything unexpected is refused: a certificate that names nobody, two names, an odd serial.
 * Invariant: a copy of key material is wiped before its memory is given back. Used by pki_issue.c
 * and tls*.c.
 */
#include <stdlib.h>
#include <string.h>

#include <mbedtls/ecp.h>

#include "common/pki_mbed.h"
#include "common/text.h"

/* mbedTLS wants PEM with its terminating zero. Free with pem_free(). NULL: out of memory. */
static char *pem_text(struct span pem)
{
    char *text = malloc(pem.size_bytes + 1);
    if (!text)
        return NULL;
    if (pem.size_bytes)
        memcpy(text, pem.data, pem.size_bytes);
    text[pem.size_bytes] = '\0';
    return text;
}

static void pem_free(char *text, size_t size_bytes)
{
    pki_wipe(text, size_bytes);
    free(text);
}

int pki_parse_certs(mbedtls_x509_crt *chain, struct span pem, struct failure *f)
{
    int err = 0;
    if (pem.size_bytes > PKI_PEM_LIMIT)
        return fail(f, ERR_INVALID, "bad certificate: over %d bytes", PKI_PEM_LIMIT);
    char *text = pem_text(pem);
    if (!text)
        return fail(f, ERR_NOMEM, "cannot read a certificate: out of memory");
    if (!strstr(text, "-----BEGIN CERTIFICATE-----")) {
        err = fail(f, ERR_INVALID, "no PEM certificate");
    } else {
        /* A positive result counts certificates that could not be read. */
        int ret = mbedtls_x509_crt_parse(chain, (unsigned char *)text, pem.size_bytes + 1);
        if (ret > 0)
            err = fail(f, ERR_INVALID, "bad certificate: %d of them cannot be read", ret);
        else if (ret)
            err = pki_fail(f, ERR_INVALID, ret, "bad certificate");
    }
    pem_free(text, pem.size_bytes);
    return err;
}

bool pki_is_p256(const mbedtls_pk_context *key)
{
    return mbedtls_pk_get_type(key) == MBEDTLS_PK_ECKEY &&
           mbedtls_ecp_keypair_get_group_id(mbedtls_pk_ec(*key)) == MBEDTLS_ECP_DP_SECP256R1;
}

int pki_parse_key(mbedtls_pk_context *key, struct span pem, struct failure *f)
{
    if (pem.size_bytes > PKI_PEM_LIMIT)
        return fail(f, ERR_INVALID, "bad private key: over %d bytes", PKI_PEM_LIMIT);
    char *text = pem_text(pem);
    if (!text)
        return fail(f, ERR_NOMEM, "cannot read a private key: out of memory");
    int ret = mbedtls_pk_parse_key(key, (unsigned char *)text, pem.size_bytes + 1, NULL, 0,
                                   pki_random, NULL);
    pem_free(text, pem.size_bytes);
    if (ret)
        return pki_fail(f, ERR_INVALID, ret, "bad private key");
    if (!pki_is_p256(key))
        return fail(f, ERR_INVALID, "bad private key: not ECDSA P-256");
    return 0;
}

/* ---- who a certificate says it is ---- */

static int64_t seconds_of(const mbedtls_x509_time *t)
{
    struct pki_date date = {t->year, t->mon, t->day, t->hour, t->min, t->sec};
    return pki_seconds_of(&date);
}

static int serial_text(const mbedtls_x509_buf *serial, char out[PKI_SERIAL_HEX_SIZE])
{
    struct span s = {serial->p, serial->len};
    while (s.size_bytes > 1 && s.data[0] == 0) {
        s.data++;
        s.size_bytes--;
    }
    if (s.size_bytes == 0 || s.size_bytes * 2 + 1 > PKI_SERIAL_HEX_SIZE)
        return ERR_INVALID;
    text_put_hex(s.data, s.size_bytes, out);
    return 0;
}

/* The one SAN URI. SPIFFE-ID 2 and X509-SVID 2 allow exactly one. */
static int find_uri(const mbedtls_x509_crt *crt, struct span *out)
{
    int count = 0;
    for (const mbedtls_x509_sequence *san = &crt->subject_alt_names; san; san = san->next) {
        if (!san->buf.p || (san->buf.tag & MBEDTLS_ASN1_TAG_VALUE_MASK) !=
                               MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER)
            continue;
        out->data = san->buf.p;
        out->size_bytes = san->buf.len;
        count++;
    }
    return count == 1 ? 0 : ERR_INVALID;
}

int pki_identity_of(const mbedtls_x509_crt *crt, struct pki_identity *out, struct failure *f)
{
    struct span uri = {NULL, 0};
    struct pki_identity id;
    if (find_uri(crt, &uri))
        return fail(f, ERR_INVALID, "certificate does not carry exactly one SAN URI");
    int err = pki_uri_parse(uri, &id, f);
    if (err)
        return err;
    if (serial_text(&crt->serial, id.serial_hex))
        return fail(f, ERR_INVALID, "certificate serial is longer than 20 bytes");
    id.not_before_s = seconds_of(&crt->valid_from);
    id.not_after_s = seconds_of(&crt->valid_to);
    *out = id;
    return 0;
}

int pki_cert_identity(struct span cert_pem, struct pki_identity *out, struct failure *f)
{
    mbedtls_x509_crt crt;
    mbedtls_x509_crt_init(&crt);
    int err = pki_parse_certs(&crt, cert_pem, f);
    if (!err)
        err = pki_identity_of(&crt, out, f);
    mbedtls_x509_crt_free(&crt);
    return err;
}

int pki_cert_fingerprint(struct span cert_pem, uint8_t out[PKI_FINGERPRINT_SIZE], struct failure *f)
{
    mbedtls_x509_crt crt;
    mbedtls_x509_crt_init(&crt);
    int err = pki_parse_certs(&crt, cert_pem, f);
    if (!err)
        pki_sha256(span_of(crt.raw.p, crt.raw.len), out);
    mbedtls_x509_crt_free(&crt);
    return err;
}
