/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tls.c (sessions), tls_config.c and tls_verify.c (whom we believe, and what we say about it)
 * share: the two structures behind tls.h. Included by those three files only.
 */
#ifndef TRAWL_COMMON_TLS_MBED_H
#define TRAWL_COMMON_TLS_MBED_H

#include <mbedtls/ssl.h>

#include "common/pki_mbed.h"
#include "common/tls.h"

#define TLS_ALPN_SIZE 16
#define TLS_SERVER_NAME_SIZE 256

/* Read-only once made, so that sessions on several threads may share it. */
struct tls_config {
    enum tls_side side;
    mbedtls_ssl_config ssl;
    mbedtls_x509_crt ca;
    mbedtls_x509_crt own; /* our certificate; TLS_JOIN_SERVER: the CA behind it */
    mbedtls_pk_context key;
    char fleet[PKI_NAME_SIZE]; /* our own, from our certificate; "" for TLS_JOIN_CLIENT */
    uint8_t ca_fingerprint[PKI_FINGERPRINT_SIZE];
    char alpn[TLS_ALPN_SIZE];
    const char *alpn_list[2];
    int (*is_revoked)(void *context, const char *serial_hex);
    void *context;
};

struct tls {
    struct tls_config *config;
    mbedtls_ssl_context ssl;
    struct buf in, out;
    size_t in_at, out_at;        /* consumed, sent: what lies before is done with */
    struct pki_identity claimed; /* by the peer's certificate; believed once established */
    struct pki_identity peer;
    struct failure refusal; /* why the peer's certificate was refused; code 0: it was not */
    uint32_t chain_flags;   /* what mbedTLS found about the certificates above the leaf */
    int64_t ca_not_after_s; /* of an expired one above the leaf */
    char server_name[TLS_SERVER_NAME_SIZE]; /* "" on servers */
    bool verified; /* a certificate of the peer was judged, and found good */
    bool established;
};

/* P-256 and SHA-256 or better: what every certificate of a fleet uses. */
extern const mbedtls_x509_crt_profile tls_profile;

/* Whether a certificate says that it may be shown by that end of a connection. */
enum tls_usage { TLS_USAGE_CLIENT, TLS_USAGE_SERVER };
bool tls_has_usage(const mbedtls_x509_crt *crt, enum tls_usage usage);

/* mbedTLS's verification callback; `context` is the struct tls. */
int tls_verify(void *context, mbedtls_x509_crt *crt, int depth, uint32_t *flags);

/* Why a handshake failed, from mbedTLS's code, the peer's alert and what tls_verify() found. */
int tls_handshake_failure(struct tls *tls, int ret, struct failure *f);
/* Why an established session broke. */
int tls_session_failure(struct tls *tls, int ret, struct failure *f);

static inline bool tls_is_client(const struct tls_config *config)
{
    return config->side == TLS_CLIENT || config->side == TLS_JOIN_CLIENT;
}

#endif
