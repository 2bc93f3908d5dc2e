/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing and reading the circle. The order of a push is what keeps it whole: the cursor that gives
 * up the oldest records, then the bytes that overwrite them, then the cursor that shows the new
 * record. Called by the spool; what was found after a crash is judged in ring_repair.c.
 */
#include "agent/ring.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/io.h"
#include "agent/ring_layout.h"

#define CRC_POLYNOMIAL 0xEDB88320u /* CRC-32 of IEEE 802.3, reflected */

static void make_crc_table(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? (c >> 1) ^ CRC_POLYNOMIAL : c >> 1;
        table[i] = c;
    }
}

uint32_t ring_crc(const struct ring *ring, uint32_t crc, const void *data, size_t size_bytes)
{
    const uint8_t *at = data;
    crc = ~crc;
    for (size_t i = 0; i < size_bytes; i++)
        crc = (crc >> 8) ^ ring->crc_table[(crc ^ at[i]) & 0xFF];
    return ~crc;
}

/* Every byte that reaches the area goes through here. The fences keep the order of the stores. */
static void store(struct ring *ring, size_t offset, const void *data, size_t size_bytes)
{
    size_t bytes = size_bytes < ring->bytes_to_live ? size_bytes : ring->bytes_to_live;
    if (ring->bytes_to_live != SIZE_MAX)
        ring->bytes_to_live -= bytes;
    atomic_signal_fence(memory_order_seq_cst);
    memcpy(ring->area + offset, data, bytes);
    atomic_signal_fence(memory_order_seq_cst);
}

void ring_write_cursor(struct ring *ring)
{
    struct ring_cursor *c = &ring->cursor;
    c->generation++;
    c->crc = ring_crc(ring, 0, c, offsetof(struct ring_cursor, crc));
    store(ring, (c->generation & 1) * RING_SLOT_STRIDE, c, sizeof *c);
}

/* ---- places ---- */

static size_t place_of(const struct ring *ring, uint64_t position)
{
    return (size_t)(position % ring->capacity);
}

static size_t to_end(const struct ring *ring, uint64_t position)
{
    return ring->capacity - place_of(ring, position);
}

uint64_t ring_record_bytes(const struct ring_head *head)
{
    return RING_ALIGN(sizeof *head + (size_t)head->size_bytes);
}

static uint32_t crc_of(const struct ring *ring, const struct ring_head *head, const void *payload)
{
    const uint8_t *after_crc = (const uint8_t *)head + sizeof head->crc;
    uint32_t crc = ring_crc(ring, 0, after_crc, sizeof *head - sizeof head->crc);
    return ring_crc(ring, crc, payload, head->size_bytes);
}

bool ring_head_at(const struct ring *ring, uint64_t position, struct ring_head *out)
{
    size_t room = to_end(ring, position);
    const uint8_t *at = ring->area + RING_DATA_OFFSET + place_of(ring, position);
    struct ring_head head;
    if (room < sizeof head)
        return false;
    memcpy(&head, at, sizeof head);
    if (head.magic != RING_RECORD_MAGIC || head.position != position ||
        head.size_bytes > room - sizeof head)
        return false;
    if (head.crc != crc_of(ring, &head, at + sizeof head))
        return false;
    *out = head;
    return true;
}

/* ---- giving up the oldest ---- */

/* Steps the tail over one record, or over the scrap at the end of the circle. */
static void evict_one(struct ring *ring)
{
    struct ring_cursor *c = &ring->cursor;
    struct ring_head head;
    if (to_end(ring, c->tail) < sizeof head) {
        c->tail += to_end(ring, c->tail);
        return;
    }
    bool is_whole = ring_head_at(ring, c->tail, &head);
    if (!is_whole) { /* damaged while we ran: give up everything rather than guess */
        c->tail = c->head;
        return;
    }
    if (head.seq) {
        c->evicted_seq = head.seq;
        c->evicted_us = head.time_us;
    }
    c->tail += ring_record_bytes(&head);
}

static bool may_be_oldest(const struct ring *ring)
{
    struct ring_head head;
    return ring_head_at(ring, ring->cursor.tail, &head) && (head.flags & RING_START) &&
           head.type != RING_PADDING;
}

/* Makes `bytes` free behind the head. True when something was given up. */
static bool evict(struct ring *ring, uint64_t bytes)
{
    struct ring_cursor *c = &ring->cursor;
    uint64_t before = c->tail;
    while (c->head - c->tail + bytes > ring->capacity)
        evict_one(ring);
    if (c->tail == before)
        return false;
    while (c->tail < c->head && !may_be_oldest(ring))
        evict_one(ring);
    return true;
}

/* ---- pushing ---- */

static void put_record(struct ring *ring, const struct ring_record *record, unsigned type)
{
    struct ring_head head = {
        .size_bytes = (uint32_t)record->payload.size_bytes,
        .position = ring->cursor.head,
        .seq = record->seq,
        .time_us = record->time_us,
        .type = (uint16_t)type,
        .flags = (uint16_t)record->flags,
        .magic = RING_RECORD_MAGIC,
    };
    head.crc = crc_of(ring, &head, record->payload.data);
    size_t offset = RING_DATA_OFFSET + place_of(ring, head.position);
    store(ring, offset, &head, sizeof head);
    if (head.size_bytes > 0)
        store(ring, offset + sizeof head, record->payload.data, head.size_bytes);
    ring->cursor.head += ring_record_bytes(&head);
}

/* Fills the rest of the circle, so that the next record lies in one piece at its beginning. */
static void put_padding(struct ring *ring)
{
    size_t room = to_end(ring, ring->cursor.head);
    if (room < sizeof(struct ring_head)) {
        ring->cursor.head += room;
        return;
    }
    const uint8_t *there = ring->area + RING_DATA_OFFSET + place_of(ring, ring->cursor.head);
    size_t payload = room - sizeof(struct ring_head);
    struct ring_record filler = {.payload = span_of(there + sizeof(struct ring_head), payload)};
    /* The bytes that lie there already are the payload: only the head is written. */
    struct ring_head head = {
        .size_bytes = (uint32_t)payload,
        .position = ring->cursor.head,
        .type = RING_PADDING,
        .magic = RING_RECORD_MAGIC,
    };
    head.crc = crc_of(ring, &head, filler.payload.data);
    store(ring, RING_DATA_OFFSET + place_of(ring, head.position), &head, sizeof head);
    ring->cursor.head += room;
}

int ring_push(struct ring *ring, const struct ring_record *record)
{
    struct ring_head head = {.size_bytes = (uint32_t)record->payload.size_bytes};
    if (record->payload.size_bytes > ring->capacity / 4)
        return ERR_LIMIT;
    assert(record->seq == 0 || record->seq == ring->cursor.next_seq);
    uint64_t bytes = ring_record_bytes(&head);
    size_t end = to_end(ring, ring->cursor.head);
    bool wraps = bytes > end;
    if (evict(ring, wraps ? bytes + end : bytes))
        ring_write_cursor(ring);
    if (wraps)
        put_padding(ring);
    put_record(ring, record, record->type);
    if (record->seq)
        ring->cursor.next_seq = record->seq + 1;
    ring_write_cursor(ring);
    return 0;
}

/* ---- numbers ---- */

uint64_t ring_next_seq(const struct ring *ring)
{
    return ring->cursor.next_seq;
}

void ring_skip_to_seq(struct ring *ring, uint64_t seq)
{
    if (seq <= ring->cursor.next_seq)
        return;
    ring->cursor.next_seq = seq;
    ring_write_cursor(ring);
}

uint64_t ring_oldest_seq(const struct ring *ring)
{
    struct ring_record record;
    for (uint64_t at = ring_tail(ring); !ring_read(ring, at, &record); at = record.next)
        if (record.seq)
            return record.seq;
    return ring->cursor.next_seq;
}

void ring_acknowledge(struct ring *ring, uint64_t seq, int64_t time_us)
{
    ring->cursor.acked_seq = seq;
    ring->cursor.acked_us = time_us;
    ring_write_cursor(ring);
}

uint64_t ring_acknowledged(const struct ring *ring, int64_t *time_us)
{
    *time_us = ring->cursor.acked_us;
    return ring->cursor.acked_seq;
}

uint64_t ring_evicted(const struct ring *ring, int64_t *time_us)
{
    *time_us = ring->cursor.evicted_us;
    return ring->cursor.evicted_seq;
}

/* ---- walking ---- */

uint64_t ring_tail(const struct ring *ring)
{
    return ring->cursor.tail;
}

uint64_t ring_head(const struct ring *ring)
{
    return ring->cursor.head;
}

int ring_read(const struct ring *ring, uint64_t position, struct ring_record *out)
{
    const struct ring_cursor *c = &ring->cursor;
    struct ring_head head;
    for (;;) {
        if (position < c->tail || position >= c->head)
            return ERR_NOTFOUND;
        if (to_end(ring, position) < sizeof head) {
            position += to_end(ring, position);
            continue;
        }
        if (!ring_head_at(ring, position, &head))
            return ERR_NOTFOUND;
        if (head.type != RING_PADDING)
            break;
        position += ring_record_bytes(&head);
    }
    const uint8_t *at = ring->area + RING_DATA_OFFSET + place_of(ring, position);
    *out = (struct ring_record){
        .type = (enum ring_type)head.type,
        .flags = head.flags,
        .seq = head.seq,
        .time_us = head.time_us,
        .position = position,
        .next = position + ring_record_bytes(&head),
        .payload = span_of(at + sizeof head, head.size_bytes),
    };
    return 0;
}

int ring_each(const struct ring *ring, int64_t from_us, int64_t to_us, ring_each_fn each,
              void *context)
{
    struct ring_record record;
    for (uint64_t at = ring_tail(ring); !ring_read(ring, at, &record); at = record.next) {
        bool is_inside = record.time_us >= from_us && record.time_us <= to_us;
        if (!is_inside && record.type != RING_DESCRIPTORS)
            continue;
        int stop = each(context, &record);
        if (stop)
            return stop;
    }
    return 0;
}

/* ---- opening ---- */

int ring_attach(struct ring **out, uint8_t *area, size_t size_bytes, bool fresh,
                enum ring_found *found)
{
    assert(size_bytes >= RING_MIN_BYTES);
    enum ring_found how = RING_FOUND_NEW;
    struct ring *ring = calloc(1, sizeof *ring);
    if (!ring)
        return ERR_NOMEM;
    make_crc_table(ring->crc_table);
    ring->area = area;
    ring->capacity = (size_bytes - RING_DATA_OFFSET) & ~(size_t)7;
    ring->bytes_to_live = SIZE_MAX;
    if (fresh)
        ring_start_empty(ring);
    else
        how = ring_recover(ring);
    *found = how;
    *out = ring;
    return 0;
}

int ring_open(struct ring **out, const char *path, size_t size_bytes, enum ring_found *found,
              struct failure *f)
{
    struct port_map map = {0};
    bool fresh;
    int e = port_map_open(&map, path, size_bytes, &fresh, f);
    if (e)
        return e;
    e = ring_attach(out, map.data, size_bytes, fresh, found);
    if (e) {
        port_map_close(&map);
        return fail(f, e, "cannot open '%s': out of memory", path);
    }
    (*out)->map = map;
    return 0;
}

void ring_close(struct ring *ring)
{
    if (!ring)
        return;
    port_map_close(&ring->map);
    free(ring);
}

void ring_release_pages(struct ring *ring)
{
    if (ring->map.data)
        os_pages_release(ring->map.data, ring->map.size_bytes);
}

void ring_die_after(struct ring *ring, size_t bytes)
{
    ring->bytes_to_live = bytes;
}
