/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fleet's certificate authority and the layout of a data directory:
 *
 *   DIR/pki/ca.crt ca.key          the CA (key 0600)
 *   DIR/pki/collector.crt .key     the collector's own
 *   DIR/store/                     see store.h
 *   DIR/admin/                     a context for the first admin: context.conf ca.crt cert.crt
 * key.pem DIR/collector.conf             settings, optional
 *
 * Also join tokens: only the SHA-256 of a secret is stored, a token works once.
 */
#ifndef TRAWL_COLLECTOR_AUTHORITY_H
#define TRAWL_COLLECTOR_AUTHORITY_H

#include "collector/store.h"
#include "common/pki.h"
#include "common/tls.h"
#include "proto/codec.h"

#define AUTHORITY_BACKDATE_S 300 /* certificates begin this long before they are made */

struct authority;
struct collector;

struct authority_init {
    const char *directory;
    const char *fleet;            /* text_is_name */
    const char *name;             /* of the collector */
    const char *const *addresses; /* names and addresses it is reached by; first: contexts */
    uint16_t port;
    int64_t now_s;
};
/* `trawl-collector init`: everything or nothing. ERR_EXISTS when DIR holds a fleet already. */
int authority_create(const struct authority_init *init, struct failure *f);

/* Loads; checks that keys are private (ERR_UNSAFE_KEY) and that certificate and key fit. */
int authority_open(struct authority **out, const char *directory, struct failure *f);
void authority_close(struct authority *authority);
const char *authority_fleet(const struct authority *authority);
const char *authority_name(const struct authority *authority);
struct span authority_ca_pem(const struct authority *authority);
void authority_ca_fingerprint(const struct authority *authority, uint8_t out[32]);

/* TLS configurations of the two listeners. */
int authority_tls(struct authority *authority, enum tls_side side,
                  int (*is_revoked)(void *context, const char *serial_hex), void *context,
                  struct tls_config **out, struct failure *f);

/* Signs a request for role and name; appends PEM. */
int authority_sign(struct authority *authority, const char *role, const char *name,
                   struct span request_der, int64_t now_s, int64_t lifetime_s, struct buf *pem,
                   struct failure *f);

/* `trawl-collector issue`: writes a context directory for a person. */
int authority_issue_context(struct authority *authority, const char *role, const char *name,
                            const char *collector_address, int64_t now_s, int64_t lifetime_s,
                            const char *out_directory, struct failure *f);

/* Join tokens. A new one, valid ten minutes; `done` when stored. *out: text of the token. */
int authority_token_new(struct collector *c, const trawl_v1_EnrollRequest *request, char *out,
                        size_t size_bytes, int64_t *expires_us, store_done_fn done, void *context,
                        struct failure *f);
/*
 * Takes the token with this secret for `host`: at most once, ever. `taken` gets err 0 and the
 * labels of the enrolment, or ERR_NOTFOUND, ERR_EXPIRED, ERR_USED with the sentence.
 */
typedef void (*token_taken_fn)(void *context, const struct failure *why,
                               const trawl_v1_EnrollRequest *request);
void authority_token_take(struct collector *c, const char *secret, const char *host,
                          token_taken_fn taken, void *context);

#endif
