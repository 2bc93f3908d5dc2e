/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a ring lies in its file; private to ring.c and ring_repair.c. Two copies of the cursor,
 * written in turns, then the circle. Invariant: at every instant at least one copy is whole and
 * what lies between its tail and head is not being written. Numbers are in the machine's byte
 * order: the file never leaves its host.
 */
#ifndef TRAWL_AGENT_RING_LAYOUT_H
#define TRAWL_AGENT_RING_LAYOUT_H

#include "agent/ring.h"
#include "common/port.h"

#define RING_MAGIC 0x676E6952u /* "Ring" */
#define RING_VERSION 1u
#define RING_RECORD_MAGIC 0x5243u /* "CR" */
#define RING_SLOT_STRIDE 512
#define RING_DATA_OFFSET 4096
#define RING_PADDING 0xFFFFu /* type of what fills the end of the circle */
#define RING_ALIGN(n) (((n) + 7) & ~(size_t)7)

/* A cursor as it stands in the file. `crc` is over everything before it. */
struct ring_cursor {
    uint32_t magic, version;
    uint64_t generation; /* the higher of two whole copies counts */
    uint64_t capacity;
    uint64_t tail,
        head; /* positions: bytes ever written; modulo capacity the place in the circle */
    uint64_t next_seq;
    uint64_t acked_seq;
    int64_t acked_us;
    uint64_t evicted_seq;
    int64_t evicted_us;
    uint32_t crc;
    uint32_t reserved;
};

/* In front of each payload. `crc` is over the rest of the head and the payload. */
struct ring_head {
    uint32_t crc;
    uint32_t size_bytes; /* of the payload */
    uint64_t position;
    uint64_t seq;
    int64_t time_us;
    uint16_t type, flags;
    uint16_t magic, reserved;
};

struct ring {
    struct port_map map; /* unused over foreign memory */
    uint8_t *area;
    size_t capacity; /* of the circle */
    struct ring_cursor cursor;
    size_t bytes_to_live; /* SIZE_MAX but in tests */
    uint32_t crc_table[256];
};

uint32_t ring_crc(const struct ring *ring, uint32_t crc, const void *data, size_t size_bytes);
/* Writes the cursor into the copy that is not the newest. */
void ring_write_cursor(struct ring *ring);
/* The head at a position when a whole record of that position lies there, else false. */
bool ring_head_at(const struct ring *ring, uint64_t position, struct ring_head *out);
/* Bytes from one record's position to the next one's. */
uint64_t ring_record_bytes(const struct ring_head *head);

/* Fills ring->cursor from what is in the area. In ring_repair.c. */
enum ring_found ring_recover(struct ring *ring);
/* For a file known to be all zeros: touches nothing but the cursors. */
void ring_start_empty(struct ring *ring);

#endif
