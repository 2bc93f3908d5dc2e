/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TLS connection on the loop: uv_tcp_t + tls + back-pressure. The owner gets plain bytes by
 * `feed` and is asked for plain bytes by `pull`, at most once per loop tick however often
 * conn_wake() was called, so small messages leave in one record. Handshake steps run on libuv's
 * pool. `closed` is called exactly once, last, also for a connection that never opened; after it
 * the conn is gone.
 *
 * Limits: at most CONN_QUEUE_BYTES wait for the socket before `pull` stops being asked; a
 * connection not established in `handshake_timeout_ms` is closed; reading stops while `feed` said
 * so.
 */
#ifndef TRAWL_COMMON_CONN_H
#define TRAWL_COMMON_CONN_H

#include <uv.h>

#include "common/buf.h"
#include "common/tls.h"

#define CONN_QUEUE_BYTES (512 * 1024)

struct conn;

struct conn_events {
    /* Handshake done; tls_peer-identity by conn_peer(). Non-zero return closes. */
    int (*opened)(void *owner, struct conn *conn);
    /* Plain bytes. A negative return (with text in f) closes the connection as a failure; a
     * positive one: taken, but no more (and no more reading) until conn_wake(). */
    int (*feed)(void *owner, struct span plain, struct failure *f);
    /* Append plain bytes to send, at most until out->size_bytes reaches about 64 KiB per call;
     * append nothing when there is nothing. Negative closes. */
    int (*pull)(void *owner, struct buf *out, struct failure *f);
    /* Last call. why->code 0: ended in order (peer's or our conn_close); else the reason. */
    void (*closed)(void *owner, const struct failure *why);
};

struct conn_limits {
    uint32_t connect_timeout_ms;   /* name resolution and TCP, clients only; 0: 5000 */
    uint32_t handshake_timeout_ms; /* 0: 10000 */
};

/*
 * Connects to host:port (name or address; resolved off the loop). `config` is borrowed and must
 * outlive the connection. `*out` is NULL on a failure (nothing will be called then).
 */
int conn_connect(struct conn **out, uv_loop_t *loop, struct tls_config *config, const char *host,
                 uint16_t port, const char *server_name, const struct conn_limits *limits,
                 const struct conn_events *events, void *owner, struct failure *f);

/* There is something to pull: asked for once at the end of this loop tick. Cheap, idempotent. */
void conn_wake(struct conn *conn);
/* Sends what is pending (pulling to the end), says goodbye, then closes. Idempotent. */
void conn_close(struct conn *conn);
/* Closes at once with a reason. Idempotent. */
void conn_abort(struct conn *conn, int code, const char *why);

const struct pki_identity *conn_peer(const struct conn *conn);
const char *
conn_address(const struct conn *conn); /* "10.0.0.7:41234", or "host:port" for clients */
size_t conn_queued_bytes(const struct conn *conn); /* cipher text not yet taken by the kernel */

/* Accepting. */
struct conn_listener;
struct conn_listener_events {
    /* A connection arrived (not yet secured): fill events and owner for it; non-zero refuses. */
    int (*accepted)(void *context, struct conn *conn, const struct conn_events **events,
                    void **owner);
    /* A peer was turned away before `opened` (handshake failed, limit, refused by `accepted`): for
     * the log and metrics. Comes before `closed` of that connection. */
    void (*turned_away)(void *context, const char *address, const struct failure *why);
    void (*closed)(void *context); /* after conn_listener_close: the handle is gone */
};
/*
 * Listens on address ("0.0.0.0", "::", "127.0.0.1") and port (0: any; see conn_listener_port).
 * At most max_conns at once; stops accepting (peers wait in the backlog) at the limit of open files
 * less 64. ERR_INUSE names the port and the remedy.
 */
int conn_listen(struct conn_listener **out, uv_loop_t *loop, struct tls_config *config,
                const char *address, uint16_t port, uint32_t max_conns,
                const struct conn_limits *limits, const struct conn_listener_events *events,
                void *context, struct failure *f);
uint16_t conn_listener_port(const struct conn_listener *listener);
uint32_t conn_listener_count(const struct conn_listener *listener); /* open connections */
void conn_listener_close(struct conn_listener *listener);           /* open connections stay */

#endif
