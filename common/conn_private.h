/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What conn.c (life of a connection), conn_connect.c (reaching a collector) and conn_listen.c
 * (accepting) share. Included by those three files only. Everything here runs on the loop thread,
 * but one handshake step at a time, which alone touches `tls` while `stepping`.
 */
#ifndef TRAWL_COMMON_CONN_PRIVATE_H
#define TRAWL_COMMON_CONN_PRIVATE_H

#include "common/conn.h"
#include "common/list.h"

/* A client that has not said a word by then does not keep others waiting (conn_listen.c). */
#define CONN_SILENT_MS 1000
#define CONN_ADDRESS_SIZE 288 /* a host name of 253, a port, brackets */

/* In order: a connection only ever moves down this list (any state may go to CONN_CLOSING). */
enum conn_state {
    CONN_REACHING,  /* resolving and connecting (clients) */
    CONN_SECURING,  /* TLS handshake, a step at a time on the pool */
    CONN_OPEN,      /* bytes both ways */
    CONN_DRAINING,  /* conn_close(): pulling and sending what is left */
    CONN_LINGERING, /* last bytes on their way; input is thrown away until the peer is done too */
    CONN_CLOSING    /* handles are closing; then `closed` and the memory */
};

struct conn {
    enum conn_state state;
    struct tls *tls;
    const struct conn_events *events; /* NULL: nobody to tell */
    void *owner;
    struct failure why; /* the first reason; code 0: ended in order */
    char address[CONN_ADDRESS_SIZE];
    struct conn_limits limits;

    uv_tcp_t tcp;
    uv_timer_t timer; /* the one time limit that fits the state */
    uv_idle_t tick; /* active only between conn_wake() and the end of the tick: else no spinning */
    unsigned handles; /* of those three, how many are not closed */

    uv_work_t step;
    int step_result;
    struct failure step_failure;
    bool stepping;          /* a handshake step is on the pool */
    bool stepped;           /* at least one came back */
    bool had_second;        /* servers: the first part of the time for the handshake is over */
    bool is_fresh;          /* servers: counted by the listener until its handshake is done */
    struct list step_waits; /* in the listener, for a place on the pool */

    bool opened;        /* `opened` was called */
    bool paused;        /* `feed` wants no more until conn_wake() */
    bool resume;        /* ... which was called since */
    bool pull_waits;    /* `pull` is not asked before the queue has drained */
    bool eof;           /* the peer sends no more */
    bool shutdown_done; /* everything of ours is with the kernel, and our side closed */
    int write_error;    /* of libuv; what the peer said last is still read */
    size_t queued_bytes;
    uv_shutdown_t shutdown;

    /* Clients, while reaching. */
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    struct addrinfo *addresses, *next_address;
    bool resolving;

    /* Servers. */
    struct conn_listener *listener; /* NULL for clients, and after the listener has closed */
    struct list in_listener;
};

/* Allocates and opens the handles; `*out` then ends by conn_begin_close() only. */
int conn_new(struct conn **out, uv_loop_t *loop, struct tls_config *config, const char *server_name,
             const struct conn_limits *limits, struct failure *f);
/* TCP is there: starts the handshake. A client speaks first. */
void conn_secure(struct conn *conn, bool speak_first);
/* Closes all handles; the rest follows by itself. Idempotent. */
void conn_begin_close(struct conn *conn);
/* Frees the connection if nothing is in flight any more; else does nothing. */
void conn_finish(struct conn *conn);
void conn_on_handle_closed(uv_handle_t *handle);
void conn_on_timer(uv_timer_t *timer);

/* Servers: puts the connection's next handshake step on the pool, now or when its turn comes. */
void conn_listener_step(struct conn *conn);
/* A step of it came back. */
void conn_listener_stepped(struct conn *conn);
/* It has been silent for a while: it no longer keeps others from being accepted. */
void conn_listener_silent(struct conn *conn);
/* Puts a step on libuv's pool. */
void conn_queue_step(struct conn *conn);
/* Takes a closed connection out of its listener and tells it. */
void conn_listener_forget(struct conn *conn);

#endif
