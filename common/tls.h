/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.2 sessions over memory: feed what came from the network, pull what goes to it. mTLS with a
 * private CA is the rule; the one exception is the join listener, which asks for no client
 * certificate. The version is fixed (minimum = maximum), curves and suites are set explicitly,
 * there is no renegotiation and no resumption. mbedTLS is known to tls*.c and pki*.c only.
 *
 * Threads: a `struct tls_config` is read-only after it was made and may be shared; one session is
 * used by one thread at a time (handshake steps run on a pool, see conn.h).
 */
#ifndef TRAWL_COMMON_TLS_H
#define TRAWL_COMMON_TLS_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/pki.h"

struct tls_config;
struct tls;

enum tls_side {
    TLS_CLIENT,      /* our certificate shown, the peer must be role "collector" of our fleet */
    TLS_SERVER,      /* client certificate required, any role of our fleet */
    TLS_JOIN_CLIENT, /* no certificate yet: the peer's CA is checked against a fingerprint */
    TLS_JOIN_SERVER  /* asks for no client certificate; shows the CA along with its own */
};

struct tls_settings {
    enum tls_side side;
    /* PEM texts; cert and key unused for TLS_JOIN_CLIENT, ca unused there too. */
    struct span ca_pem, cert_pem, key_pem;
    uint8_t ca_fingerprint[PKI_FINGERPRINT_SIZE]; /* TLS_JOIN_CLIENT: SHA-256 of the CA's DER */
    const char *alpn;                             /* "h2" */
    /* Called inside the verification of a peer (possibly on a pool thread): non-zero refuses the
     * serial (revocation). May be NULL. */
    int (*is_revoked)(void *context, const char *serial_hex);
    void *context;
};

/*
 * Copies everything out of `settings`; calls pki_start(). Errors: ERR_INVALID (bad PEM, key does
 * not fit, our own certificate names nobody or is not meant for that side), ERR_NOMEM.
 */
int tls_config_open(struct tls_config **out, const struct tls_settings *settings,
                    struct failure *f);
void tls_config_close(struct tls_config *config);

/*
 * A session. `server_name` (a host name or an address, under 256 bytes) is checked against the
 * peer's names: clients only, also joining ones, and ERR_INVALID without; NULL on servers.
 */
int tls_open(struct tls **out, struct tls_config *config, const char *server_name,
             struct failure *f);
void tls_close(struct tls *tls);

/* Takes a copy of bytes that came from the network. ERR_LIMIT when over 256 KiB wait unread. */
int tls_feed(struct tls *tls, struct span cipher);
/* Bytes to put on the network; the session forgets them with tls_sent(). */
struct span tls_pending(const struct tls *tls);
void tls_sent(struct tls *tls, size_t bytes);

/*
 * One step of the handshake over what was fed: ERR_AGAIN (needs more from the peer; pending bytes
 * may have to be sent), 0 (established), or a failure whose text says the true reason as a person
 * would: "certificate of 'spiffe://f/agent/web-1' expired 2026-11-01", "peer showed no
 * certificate", "certificate not signed by this fleet's CA", "peer offers only an older TLS
 * version", "peer refused our certificate: expired" (from its alert). Costs up to 3 ms of CPU:
 * never on a loop thread.
 */
int tls_handshake(struct tls *tls, struct failure *f);

/* After the handshake. The peer's identity; role "" when it showed no certificate (join). */
const struct pki_identity *tls_peer(const struct tls *tls);

/* Encrypts all of `plain` into pending bytes. */
int tls_write(struct tls *tls, struct span plain, struct failure *f);
/* Decrypts into out (appends). 0, ERR_AGAIN (nothing more now), ERR_CLOSED (peer said goodbye). */
int tls_read(struct tls *tls, struct buf *out, struct failure *f);
/* Queues a close_notify alert. */
void tls_goodbye(struct tls *tls);

#endif
