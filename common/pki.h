/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys, certificate requests and certificates of a fleet's private CA (ECDSA P-256, X.509 v3). A
 * certificate says who it is in one SAN URI, "spiffe://FLEET/ROLE/NAME" (SPIFFE-ID 2), and what it
 * may be on a connection in its extended key usage. Keys leave this module only as PEM text in a
 * caller's buffer, which pki_wipe() clears. mbedTLS is known to tls*.c and pki*.c only.
 */
#ifndef TRAWL_COMMON_PKI_H
#define TRAWL_COMMON_PKI_H

#include <stdint.h>

#include "common/buf.h"

#define PKI_FINGERPRINT_SIZE 32 /* SHA-256 of the DER form */
#define PKI_NAME_SIZE 64        /* fleet, role, name: each at most 63 characters (text_is_name) */
#define PKI_SERIAL_HEX_SIZE 41  /* 20 bytes and the terminating zero */

struct pki_identity {
    char fleet[PKI_NAME_SIZE];
    char role[PKI_NAME_SIZE]; /* "agent", "collector", "sre", "developer", "admin"; "" unknown */
    char name[PKI_NAME_SIZE];
    char serial_hex[PKI_SERIAL_HEX_SIZE];
    int64_t not_before_s, not_after_s; /* seconds since 1970 */
};

/* "spiffe://FLEET/ROLE/NAME" in and out; anything else is ERR_INVALID. */
int pki_uri_parse(struct span uri, struct pki_identity *out, struct failure *f);
int pki_uri_text(const struct pki_identity *identity, char *out, size_t size_bytes);

/* Must be called once, before threads; never fork afterwards (psa_crypto_init). Idempotent. */
int pki_start(struct failure *f);

/* A new P-256 key, PEM (PKCS#8 or SEC1), appended. */
int pki_key_new(struct buf *key_pem, struct failure *f);

/* A self-signed CA certificate for `fleet`, valid now - 5 min .. now + days. */
int pki_ca_new(const char *fleet, struct span key_pem, int64_t now_s, int days,
               struct buf *cert_pem, struct failure *f);

/* A request (PKCS#10) for a name, signed by the key. DER, appended. */
int pki_request_new(const char *name, struct span key_pem, struct buf *request_der,
                    struct failure *f);

struct pki_issue {
    struct pki_identity identity; /* fleet, role, name, not_before_s, not_after_s are used */
    /* Collectors' extra names and addresses (as iPAddress), at most 32; NULL-terminated or NULL. */
    const char *const *dns_names;
};

/*
 * Signs the request's public key for the identity given by us (nothing of the request's own subject
 * or extensions is believed; its self-signature is checked). Serial: 20 random bytes. Role
 * collector gets EKU serverAuth, the rest clientAuth. PEM, appended. ERR_INVALID for a bad request
 * or key that is not P-256.
 */
int pki_sign(struct span ca_cert_pem, struct span ca_key_pem, struct span request_der,
             const struct pki_issue *issue, struct buf *cert_pem, struct failure *f);

/* Who a certificate (first of the PEM) says it is. ERR_INVALID without exactly one SAN URI. */
int pki_cert_identity(struct span cert_pem, struct pki_identity *out, struct failure *f);
int pki_cert_fingerprint(struct span cert_pem, uint8_t out[PKI_FINGERPRINT_SIZE],
                         struct failure *f);

/* SHA-256, in one go and in pieces. */
void pki_sha256(struct span data, uint8_t out[32]);
struct pki_sha256;
struct pki_sha256 *pki_sha256_open(void);
void pki_sha256_add(struct pki_sha256 *h, struct span data);
void pki_sha256_close(struct pki_sha256 *h, uint8_t out[32]);   /* out may be NULL */
int pki_equal(const void *a, const void *b, size_t size_bytes); /* constant time; 1 equal */
void pki_wipe(void *data, size_t size_bytes);                   /* not optimised away */

#endif
