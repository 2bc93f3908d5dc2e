/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running SHA-256 of artifacts that are not whole yet, kept from one call of Upload to the
 * next, so that an artifact that comes in many calls is hashed once. Invariant: the hash covers
 * exactly the first pieces that are in the store for good: it is made of what is read back, a
 * little at a time (after a restart that is all of it), never in one go on the loop. One call at a
 * time has an artifact. Called by upload.c. Loop thread.
 */
#ifndef TRAWL_COLLECTOR_PARTIAL_H
#define TRAWL_COLLECTOR_PARTIAL_H

#include "collector/collector.h"

struct partials;
struct partial;

/* Who has it; told through these. */
struct partial_owner {
    /* Everything stored is in the hash; once for each partial_want(). err: a stored piece cannot
     * be read; of a damaged one the whole artifact was deleted. */
    void (*ready)(void *context, int err);
    /* Let go: another call came, or the order is over. False: it cannot, it is being sealed. */
    bool (*interrupt)(void *context, const struct failure *why);
    void *context;
};

int partials_open(struct partials **out, struct collector *c, struct failure *f);
void partials_stop(struct partials *partials); /* closes its handle of the loop */
void partials_close(struct partials *partials);
/* Once a second: forgets what nobody went on with. */
void partials_tick(struct partials *partials);

/* `stored` pieces are in the store for good. ERR_BUSY: an earlier call has it and was asked to let
 * go. `host` bounds what one host can keep. */
int partial_take(struct partial **out, struct partials *partials, const char *blob,
                 const char *host, uint32_t stored, const struct partial_owner *owner,
                 struct failure *f);
void partial_stored(struct partial *p); /* one more is */
/* `ready` is called, now or later, when the hash has what is stored. */
void partial_want(struct partial *p);
/* Ends the hash; only when ready. */
void partial_finish(struct partial *p, uint8_t sha256[32]);
/* The call is over: kept for the next one, or (it is sealed or deleted) not. */
void partial_give(struct partial *p, bool keep);
/* The artifact is going to be deleted. False: it must not be now. */
bool partials_forget(struct partials *partials, const char *blob, const struct failure *why);

#endif
