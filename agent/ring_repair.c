/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a ring holds after whatever happened to its file. First the cursor is believed and its
 * records are walked; when that fails the whole circle is searched for records that read whole.
 * Invariant: a record is believed only when its checksum holds and it lies where its own position
 * says. Called by ring_attach().
 */
#include "agent/ring_layout.h"

#include <string.h>

#define STEP 8 /* every record begins at a multiple of this */

static bool cursor_copy(const struct ring *ring, int which, struct ring_cursor *out)
{
    memcpy(out, ring->area + which * RING_SLOT_STRIDE, sizeof *out);
    return out->magic == RING_MAGIC && out->version == RING_VERSION &&
           out->capacity == ring->capacity && out->tail <= out->head &&
           out->head - out->tail <= ring->capacity && out->next_seq > 0 &&
           out->crc == ring_crc(ring, 0, out, offsetof(struct ring_cursor, crc));
}

static bool newest_cursor(const struct ring *ring, struct ring_cursor *out)
{
    struct ring_cursor a, b;
    bool has_a = cursor_copy(ring, 0, &a), has_b = cursor_copy(ring, 1, &b);
    if (!has_a && !has_b)
        return false;
    *out = has_a && (!has_b || a.generation > b.generation) ? a : b;
    return true;
}

/* The next place where a record may begin when nothing whole lies at `position`. */
static uint64_t skip_scrap(const struct ring *ring, uint64_t position)
{
    uint64_t left = ring->capacity - position % ring->capacity;
    return left < sizeof(struct ring_head) ? position + left : 0;
}

/* Behind the known head only the record that was being pushed is new; others are of an earlier
 * repair. */
static bool is_stale(const struct ring *ring, uint64_t position, const struct ring_head *head)
{
    return position >= ring->cursor.head && head->seq && head->seq < ring->cursor.next_seq;
}

/* Walks whole records from `position` on; returns where they end. */
static uint64_t walk(struct ring *ring, uint64_t position, uint64_t limit)
{
    struct ring_head head;
    while (position < limit) {
        uint64_t scrap = skip_scrap(ring, position);
        if (scrap && scrap <= limit && ring_head_at(ring, scrap, &head)) {
            position = scrap;
            continue;
        }
        if (scrap || !ring_head_at(ring, position, &head) ||
            position + ring_record_bytes(&head) > limit)
            break;
        if (is_stale(ring, position, &head))
            break;
        position += ring_record_bytes(&head);
        if (head.seq >= ring->cursor.next_seq)
            ring->cursor.next_seq = head.seq + 1;
    }
    return position;
}

/* ---- the search ---- */

/* The end of the newest whole record anywhere in the circle; 0 when there is none. */
static uint64_t newest_end(const struct ring *ring)
{
    uint64_t end = 0;
    for (uint64_t place = 0; place + sizeof(struct ring_head) <= ring->capacity; place += STEP) {
        struct ring_head head;
        memcpy(&head, ring->area + RING_DATA_OFFSET + place, sizeof head);
        if (head.magic != RING_RECORD_MAGIC || head.position % ring->capacity != place ||
            head.position > UINT64_MAX / 2 || head.position < end)
            continue;
        if (ring_head_at(ring, head.position, &head))
            end = head.position + ring_record_bytes(&head);
    }
    return end;
}

/* The beginning of the unbroken run of records that ends at `end`, from a record that may be
 * oldest. */
static uint64_t oldest_before(const struct ring *ring, uint64_t end)
{
    uint64_t position = end > ring->capacity ? end - ring->capacity : 0;
    uint64_t start = end;
    struct ring_head head;
    position = (position + STEP - 1) / STEP * STEP;
    while (position < end) {
        uint64_t scrap = skip_scrap(ring, position);
        if (scrap) {
            position = scrap;
            continue;
        }
        if (!ring_head_at(ring, position, &head) || position + ring_record_bytes(&head) > end) {
            start = end;
            position += STEP;
            continue;
        }
        if (start == end && (head.flags & RING_START) && head.type != RING_PADDING)
            start = position;
        position += ring_record_bytes(&head);
    }
    return start;
}

static bool salvage(struct ring *ring)
{
    uint64_t end = newest_end(ring);
    if (end == 0)
        return false;
    ring->cursor.head = end;
    ring->cursor.tail = oldest_before(ring, end);
    (void)walk(ring, ring->cursor.tail, end);
    return true;
}

/* ---- the verdict ---- */

static void make_empty(struct ring *ring)
{
    memset(&ring->cursor, 0, sizeof ring->cursor);
    ring->cursor.magic = RING_MAGIC;
    ring->cursor.version = RING_VERSION;
    ring->cursor.capacity = ring->capacity;
    ring->cursor.next_seq = 1;
}

/* The cursor is whole. Its records, and perhaps one more that was written just before the end. */
static enum ring_found believe(struct ring *ring)
{
    struct ring_cursor *c = &ring->cursor;
    uint64_t limit = c->tail + ring->capacity;
    uint64_t end = walk(ring, c->tail, limit);
    if (end >= c->head) {
        c->head = end;
        return RING_FOUND_WHOLE;
    }
    if (!salvage(ring))
        c->tail = c->head;
    return RING_FOUND_REPAIRED;
}

void ring_start_empty(struct ring *ring)
{
    make_empty(ring);
    ring_write_cursor(ring);
    ring_write_cursor(ring);
}

enum ring_found ring_recover(struct ring *ring)
{
    enum ring_found found;
    struct ring_cursor cursor;
    make_empty(ring);
    if (newest_cursor(ring, &cursor)) {
        ring->cursor = cursor;
        found = believe(ring);
    } else {
        /* Records without a cursor: what was acknowledged is unknown, the numbers are in the
         * records. */
        found = salvage(ring) && ring->cursor.next_seq > 1 ? RING_FOUND_REPAIRED : RING_FOUND_LOST;
        if (found == RING_FOUND_LOST)
            make_empty(ring);
    }
    ring_write_cursor(ring);
    ring_write_cursor(ring);
    return found;
}
