/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the collector has not acknowledged yet: a cursor over each of two rings, one for counters
 * and one for events, so that counters never push out events. What a ring had to overwrite before
 * it was delivered comes out as a gap. Invariant: every number is delivered once, in order, as a
 * record or inside a gap. The sampler and events push, the uplink session delivers; one thread.
 */
#ifndef TRAWL_AGENT_SPOOL_H
#define TRAWL_AGENT_SPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/ring.h"
#include "trawl.pb.h"

#define SPOOL_MIN_BYTES (1024 * 1024)

enum spool_lane { SPOOL_BLOCKS, SPOOL_EVENTS, SPOOL_LANES };

struct spool;

struct spool_opened {
    enum ring_found found[SPOOL_LANES];
};

/*
 * Opens both rings in `directory`: three quarters of `size_bytes` for counters, the rest for
 * events. `floor`: numbers below were given out before; used when a ring was lost. Errors as
 * ring_open().
 */
int spool_open(struct spool **out, const char *directory, size_t size_bytes,
               const uint64_t floor[SPOOL_LANES], struct spool_opened *how, struct failure *f);
void spool_close(struct spool *spool);

/* The record's number is filled in. ERR_LIMIT, ERR_INVALID: it was not kept. */
int spool_push_event(struct spool *spool, trawl_v1_Event *event);
/* In the same lane, by the same numbers. */
int spool_push_exception(struct spool *spool, trawl_v1_Exception *exception);
/* `seq` of the block is filled in. The struct is the caller's; 33 KB, so not on a stack. */
int spool_push_block(struct spool *spool, trawl_v1_AgentMessage *block);
/* Flags: RING_START for the first message of a full set, RING_REPEAT when it says known things
 * again. */
int spool_push_descriptors(struct spool *spool, unsigned flags, trawl_v1_AgentMessage *descriptors);
/* True when a full set of descriptors is due before the next block. */
bool spool_wants_descriptors(const struct spool *spool);

uint64_t spool_next_seq(const struct spool *spool, enum spool_lane lane);
uint64_t spool_oldest_seq(const struct spool *spool, enum spool_lane lane);
uint64_t spool_unacknowledged(const struct spool *spool, enum spool_lane lane);
/* After a burst of work: the rings' pages need not stay in our memory. */
void spool_release_pages(struct spool *spool);
/* For looking back; read only. */
const struct ring *spool_ring(const struct spool *spool, enum spool_lane lane);

/* What to send next on a lane. */
struct spool_item {
    bool is_gap;
    uint64_t first_seq, last_seq; /* of a gap */
    int64_t from_us, to_us;       /* about when, host wall time */
    struct span message;          /* an encoded AgentMessage, borrowed until the next push */
};

/* A connection begins: the collector has everything up to `last`. Both lanes start behind it. */
void spool_resume(struct spool *spool, const uint64_t last[SPOOL_LANES]);
/* ERR_NOTFOUND: nothing to send now. Without spool_advance() the same item comes again. */
int spool_peek(struct spool *spool, enum spool_lane lane, struct spool_item *out);
/* The item last peeked on this lane was sent. */
void spool_advance(struct spool *spool, enum spool_lane lane);
/* Stored for good up to `seq` (0: nothing new). */
void spool_acknowledge(struct spool *spool, enum spool_lane lane, uint64_t seq);

#endif
