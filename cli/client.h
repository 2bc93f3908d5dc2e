/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to the collector, for a program that waits for their end. One client is one loop and at
 * most one connection, made when the first call needs it and made again when a call comes after its
 * loss. Invariant: `done` is called exactly once per call, last, from client_run(); a call that
 * could not reach the collector ends with the connection's own reason (ERR_UNREACHABLE,
 * ERR_IDENTITY...), not with a general one. Used by every command.
 */
#ifndef TRAWL_CLI_CLIENT_H
#define TRAWL_CLI_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "proto/methods.h"

#define CLIENT_CALLS_MAX 16        /* at once */
#define CLIENT_TIMEOUT_US 30000000 /* for calls that answer at once */
#define CLIENT_FOREVER 0

struct client;
struct client_call;

struct client_settings {
    const char *host; /* name or address; also the name that the collector must prove */
    uint16_t port;
    struct span ca_pem, cert_pem, key_pem;
};

/* Copies the settings. Connects to nothing yet. ERR_INVALID (certificate or key), ERR_NOMEM. */
int client_open(struct client **out, const struct client_settings *settings, struct failure *f);
/* Says goodbye and frees; calls that still run end without `done`. NULL is fine. */
void client_close(struct client *client);

/* One message of the reply. Negative ends the call with that error and f's text; positive ends it
 * in order: enough was seen. */
typedef int (*client_reply_fn)(void *owner, struct span message, struct failure *f);
/* The end; why->code 0: the collector ended the call in order. May start calls. */
typedef void (*client_done_fn)(void *owner, const struct failure *why);

struct client_events {
    client_reply_fn reply;
    client_done_fn done;
};

/* Starts a call with one request message (copied). `done` will come, also when this cannot connect.
 */
int client_start(struct client *client, enum method_id method, struct span request,
                 uint64_t timeout_us, const struct client_events *events, void *owner,
                 struct client_call **out, struct failure *f);
/*
 * The same for a call that takes a stream of requests: `feed` is asked for the next one whenever it
 * fits, and puts it into `message` (empty, at most 64 KiB). 1: there it is, 0: there is no more,
 * negative (with f's text): the call ends with that.
 */
typedef int (*client_feed_fn)(void *owner, struct buf *message, struct failure *f);
int client_start_feed(struct client *client, enum method_id method, uint64_t timeout_us,
                      client_feed_fn feed, const struct client_events *events, void *owner,
                      struct client_call **out, struct failure *f);

/* The same, but nothing of the call is called any more: its owner goes away. */
void client_abandon(struct client_call *call);

/* Runs the loop until client_stop() or until no call, timer or hook is left. */
void client_run(struct client *client);
void client_stop(struct client *client);

/* One call from start to end. ERR_CORRUPT etc. of the collector or of `reply`. */
int client_call(struct client *client, enum method_id method, struct span request,
                uint64_t timeout_us, client_reply_fn reply, void *owner, struct failure *f);

/* `each` every `interval_ms` within client_run(); NULL stops it. One per client. */
typedef void (*client_hook_fn)(void *owner);
void client_every(struct client *client, uint64_t interval_ms, client_hook_fn each, void *owner);
/* Ctrl-C calls `hook` instead of ending the program; NULL gives it back. */
void client_on_interrupt(struct client *client, client_hook_fn hook, void *owner);
/* Waits within client_run(), with calls going on. */
void client_wait(struct client *client, uint64_t ms);

/* Whether a failure may be cured by trying again: the collector restarts, the network is away. */
bool client_may_retry(int code);

#endif
