/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flight recorder: a bounded mapped file of records in a circle, the newest overwriting the
 * oldest. What was pushed survives kill -9 at any instant; after a power cut every record that
 * reads whole is kept. Invariant: the records from the oldest to the newest lie without a hole, and
 * the oldest one is always a record pushed with RING_START. Called by the spool, on one thread.
 */
#ifndef TRAWL_AGENT_RING_H
#define TRAWL_AGENT_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

#define RING_MIN_BYTES (64 * 1024)

enum ring_type { RING_BLOCK = 1, RING_DESCRIPTORS = 2, RING_EVENT = 3 };

/* Flags of a record. */
#define RING_START \
    1u /* may become the oldest: what follows can be understood without what was before */
#define RING_REPEAT 2u /* says again what an earlier record said */

struct ring_record {
    enum ring_type type;
    unsigned flags;
    uint64_t seq; /* 0: not numbered */
    int64_t time_us;
    uint64_t position;   /* of this record; rises for ever */
    uint64_t next;       /* of the one behind it */
    struct span payload; /* borrowed until the next push */
};

/* How an opened ring was found. */
enum ring_found {
    RING_FOUND_WHOLE,
    RING_FOUND_NEW,      /* there was none, or one of another size */
    RING_FOUND_REPAIRED, /* some records were damaged and are gone; numbers go on */
    RING_FOUND_LOST      /* nothing could be read: emptied, numbers begin at 1 again */
};

struct ring;

/*
 * Opens or makes the file. ERR_BUSY: another process has it; ERR_FULL, ERR_DENIED, ERR_IO.
 * `size_bytes` at least RING_MIN_BYTES. ring_close(NULL) is fine.
 */
int ring_open(struct ring **out, const char *path, size_t size_bytes, enum ring_found *found,
              struct failure *f);
/* The same over memory that the caller keeps alive and aligned to 8 bytes (tests, fuzzing). */
int ring_attach(struct ring **out, uint8_t *area, size_t size_bytes, bool fresh,
                enum ring_found *found);
void ring_close(struct ring *ring);

/*
 * Appends a record, overwriting the oldest as needed. A numbered one (seq > 0) must have
 * ring_next_seq(). ERR_LIMIT: larger than a quarter of the ring.
 */
int ring_push(struct ring *ring, const struct ring_record *record);

uint64_t ring_next_seq(const struct ring *ring);
/* Numbers below `seq` are never used again. Ignored when smaller than what is next already. */
void ring_skip_to_seq(struct ring *ring, uint64_t seq);
/* The smallest number still held, or ring_next_seq() when none is. */
uint64_t ring_oldest_seq(const struct ring *ring);

/* The highest number that was delivered for good, and its time; kept in the file. */
void ring_acknowledge(struct ring *ring, uint64_t seq, int64_t time_us);
uint64_t ring_acknowledged(const struct ring *ring, int64_t *time_us);
/* The number and time of the last numbered record that was overwritten. 0: none yet. */
uint64_t ring_evicted(const struct ring *ring, int64_t *time_us);

/* Walking: positions of the oldest record and behind the newest. */
uint64_t ring_tail(const struct ring *ring);
uint64_t ring_head(const struct ring *ring);
/* The record at a position from ring_tail() or a record's `next`. ERR_NOTFOUND: at the head, or
 * overwritten since. */
int ring_read(const struct ring *ring, uint64_t position, struct ring_record *out);

/*
 * Oldest first: records with from_us <= time_us <= to_us, and every RING_DESCRIPTORS record
 * whatever its time. Non-zero return of `each` stops and is returned. `each` must not push.
 */
typedef int (*ring_each_fn)(void *context, const struct ring_record *record);
int ring_each(const struct ring *ring, int64_t from_us, int64_t to_us, ring_each_fn each,
              void *context);

/* Gives the file's pages back to the system, so that they are not counted as ours. Cheap. */
void ring_release_pages(struct ring *ring);

/* Tests: after this many more bytes written, writing silently stops, as if the process had died. */
void ring_die_after(struct ring *ring, size_t bytes);

#endif
