/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What pki*.c and tls*.c share of mbedTLS: the random generator, PEM reading, names out of a parsed
 * certificate, and the translation of mbedTLS error codes. Included by those files only, so that no
 * other file ever sees an mbedTLS type.
 */
#ifndef TRAWL_COMMON_PKI_MBED_H
#define TRAWL_COMMON_PKI_MBED_H

#include <mbedtls/build_info.h>
#include <mbedtls/pk.h>
#include <mbedtls/x509_crt.h>

#include "common/pki.h"

#if MBEDTLS_VERSION_NUMBER < 0x03060600
#error "mbedTLS >= 3.6.6 is needed (older ones have known holes): run deploy/deps.sh"
#endif
#if !defined(MBEDTLS_THREADING_C)
#error "mbedTLS must be built with MBEDTLS_THREADING_C: handshakes run on a pool (deploy/deps.sh)"
#endif
#if !defined(MBEDTLS_HAVE_TIME_DATE)
#error "mbedTLS must be built with MBEDTLS_HAVE_TIME_DATE, or expired certificates are accepted"
#endif

/* The longest PEM text that is read. */
#define PKI_PEM_LIMIT (64 * 1024)
/* "spiffe://" and three names with their slashes. */
#define PKI_URI_SIZE (9 + 3 * PKI_NAME_SIZE)

/* Random bytes in the form mbedTLS asks for (f_rng); `unused` is NULL. Thread-safe. */
int pki_random(void *unused, unsigned char *out, size_t size_bytes);

/* Appends the certificates of `pem` to an initialised chain; at least one. */
int pki_parse_certs(mbedtls_x509_crt *chain, struct span pem, struct failure *f);
/* Reads a private key into an initialised context. ERR_INVALID also when it is not P-256. */
int pki_parse_key(mbedtls_pk_context *key, struct span pem, struct failure *f);
/* True for a key on the curve P-256, the only one that this fleet's certificates use. */
bool pki_is_p256(const mbedtls_pk_context *key);

/* Who a parsed certificate says it is; as pki_cert_identity(). */
int pki_identity_of(const mbedtls_x509_crt *crt, struct pki_identity *out, struct failure *f);

/* As fail(), with ": " and mbedTLS's own words for `mbed_code` appended; ERR_NOMEM when it was
 * that. */
int pki_fail(struct failure *f, int code, int mbed_code, const char *what);

/* Seconds since 1970 to and from the calendar (proleptic Gregorian, UTC). */
struct pki_date {
    int year, month, day, hour, minute, second;
};
struct pki_date pki_date_of(int64_t seconds);
int64_t pki_seconds_of(const struct pki_date *date);

#endif
