/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining a fleet: a key made here, a request signed with it, one call to the collector's join
 * listener, the identity written to the state directory. Invariant: a failure leaves no identity
 * and the key never leaves the host. Called by main and agent, before the agent's own loop runs.
 */
#ifndef TRAWL_AGENT_JOIN_H
#define TRAWL_AGENT_JOIN_H

#include <stdint.h>

#include "common/pki.h"

#define JOIN_SECRET_SIZE 64

struct join_token {
    uint16_t port;
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
    char secret[JOIN_SECRET_SIZE];
};

/* "PORT.FINGERPRINT.SECRET". ERR_INVALID says what one looks like, never what was given. */
int join_token_parse(const char *text, struct join_token *out, struct failure *f);

/*
 * Joins. `collector`: host[:port] (the port for later; the token has the one for joining). `token`
 * may be
 * "@FILE". `name` "": the machine's. Blocks. Errors are whole sentences with the remedy.
 */
int join_run(const char *collector, const char *token, const char *name, const char *state_dir,
             struct failure *f);

#endif
