/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's directory: what must be remembered between runs. A small text file of numbers, and
 * after joining the identity: key.pem (owner only), cert.pem, ca.pem and collector.conf. Invariant:
 * every file is replaced whole; cert.pem is written last, so a directory with it is joined and one
 * without is not. Called by main, agent, join, capture.
 */
#ifndef TRAWL_AGENT_STATE_H
#define TRAWL_AGENT_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/pki.h"

#define STATE_PATH_SIZE 512
#define STATE_HOST_SIZE 256

struct state {
    char directory[STATE_PATH_SIZE];
    uint8_t id[16];
    uint64_t last_order;  /* highest order accepted for good */
    uint64_t ceilings[2]; /* of block and event numbers: none at or above was ever given out */
};

/*
 * Makes the directory if needed, takes its lock (ERR_BUSY: another agent runs on it), reads or
 * makes the numbers. A numbers file that cannot be read is set aside and a new id is made:
 * *was_lost.
 */
int state_open(struct state *state, const char *directory, bool *was_lost, struct failure *f);
/* Saves when a next number comes near its ceiling, or `last_order` rose. */
int state_reserve(struct state *state, const uint64_t next_seq[2], struct failure *f);
int state_accept_order(struct state *state, uint64_t order, struct failure *f);

/* "DIR/name" into `out`. ERR_LIMIT: too long. */
int state_path(const struct state *state, const char *name, char out[STATE_PATH_SIZE],
               struct failure *f);

struct identity {
    struct buf key_pem, cert_pem, ca_pem;
    struct pki_identity who;
    char collector[STATE_HOST_SIZE]; /* host of the collector this agent joined */
    uint64_t port;
};
void identity_init(struct identity *identity);
void identity_done(struct identity *identity); /* wipes the key */

/* ERR_NOTFOUND: not joined. ERR_UNSAFE_KEY, ERR_INVALID, ERR_CORRUPT with the remedy. */
int identity_load(struct identity *identity, const char *directory, struct failure *f);
bool identity_exists(const char *directory);
/* All or nothing: on failure what was written is removed. */
int identity_save(const struct identity *identity, const char *directory, struct failure *f);
/* Only the certificate (renewal). */
int identity_save_cert(const struct identity *identity, const char *directory, struct failure *f);

#endif
