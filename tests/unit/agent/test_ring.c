/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flight recorder: wrapping, the oldest record, death at every byte of a write, damage,
 * reopening.
 */
#include "agent/ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/check.h"

#define SIZE RING_MIN_BYTES

static uint8_t area[SIZE] __attribute__((aligned(8)));

static struct ring *attach(bool fresh, enum ring_found *found)
{
    struct ring *ring = NULL;
    REQUIRE(ring_attach(&ring, area, SIZE, fresh, found) == 0);
    return ring;
}

static struct ring *attach_new(void)
{
    enum ring_found found;
    memset(area, 0, sizeof area);
    struct ring *ring = attach(true, &found);
    CHECK_EQ_INT(found, RING_FOUND_NEW);
    return ring;
}

/* A payload that its number tells: seq, then bytes that follow from it. */
static size_t payload_of(uint64_t seq, uint8_t *out)
{
    size_t size = 16 + (size_t)(seq * 37 % 900);
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(seq * 131 + i);
    memcpy(out, &seq, sizeof seq);
    return size;
}

static int push_numbered(struct ring *ring, unsigned flags)
{
    uint8_t payload[1024];
    uint64_t seq = ring_next_seq(ring);
    struct ring_record record = {
        .type = RING_EVENT,
        .flags = flags,
        .seq = seq,
        .time_us = (int64_t)seq * 1000,
        .payload = span_of(payload, payload_of(seq, payload)),
    };
    return ring_push(ring, &record);
}

struct walk {
    uint64_t first, last;
    size_t count;
    bool whole;
};

static int look(void *context, const struct ring_record *record)
{
    struct walk *walk = context;
    uint8_t payload[1024];
    struct span want = span_of(payload, payload_of(record->seq, payload));
    walk->whole = walk->whole && span_equal(record->payload, want) &&
                  (walk->count == 0 || record->seq == walk->last + 1);
    if (walk->count++ == 0)
        walk->first = record->seq;
    walk->last = record->seq;
    return 0;
}

static struct walk walk_all(const struct ring *ring)
{
    struct walk walk = {.whole = true};
    ring_each(ring, INT64_MIN, INT64_MAX, look, &walk);
    return walk;
}

TEST(a_new_ring_is_empty)
{
    struct ring *ring = attach_new();
    CHECK_EQ_INT(walk_all(ring).count, 0);
    CHECK_EQ_INT(ring_next_seq(ring), 1);
    CHECK_EQ_INT(ring_oldest_seq(ring), 1);
    ring_close(ring);
}

TEST(the_newest_overwrite_the_oldest)
{
    struct ring *ring = attach_new();
    for (int i = 0; i < 1000; i++) {
        CHECK(push_numbered(ring, RING_START) == 0);
        struct walk walk = walk_all(ring);
        CHECK(walk.whole && walk.last == (uint64_t)i + 1 && walk.first == ring_oldest_seq(ring));
    }
    int64_t time_us;
    struct walk walk = walk_all(ring);
    CHECK(walk.count > 80 && walk.count < 140);
    CHECK_EQ_INT(ring_evicted(ring, &time_us), walk.first - 1);
    CHECK_EQ_INT(time_us, (walk.first - 1) * 1000);
    ring_close(ring);
}

TEST(the_oldest_is_one_that_may_be)
{
    struct ring *ring = attach_new();
    for (int i = 0; i < 1000; i++)
        CHECK(push_numbered(ring, i % 10 ? 0 : RING_START) == 0);
    struct walk walk = walk_all(ring);
    CHECK(walk.whole);
    CHECK_EQ_INT(walk.first % 10, 1);
    ring_close(ring);
}

TEST(too_large_a_record_is_refused)
{
    struct ring *ring = attach_new();
    uint8_t *big = calloc(1, SIZE);
    REQUIRE(big != NULL);
    struct ring_record record = {.type = RING_EVENT, .payload = span_of(big, SIZE / 4 + 1)};
    CHECK_EQ_INT(ring_push(ring, &record), ERR_LIMIT);
    record.payload.size_bytes = SIZE / 5;
    for (int i = 0; i < 40; i++)
        CHECK_EQ_INT(ring_push(ring, &record), 0);
    free(big);
    ring_close(ring);
}

TEST(a_reopened_ring_goes_on)
{
    enum ring_found found;
    int64_t time_us;
    struct ring *ring = attach_new();
    for (int i = 0; i < 333; i++)
        push_numbered(ring, RING_START);
    ring_acknowledge(ring, 320, 320000);
    struct walk before = walk_all(ring);
    ring_close(ring);
    ring = attach(false, &found);
    CHECK_EQ_INT(found, RING_FOUND_WHOLE);
    struct walk after = walk_all(ring);
    CHECK(after.whole && after.first == before.first && after.last == before.last);
    CHECK_EQ_INT(ring_next_seq(ring), 334);
    CHECK_EQ_INT(ring_acknowledged(ring, &time_us), 320);
    CHECK_EQ_INT(time_us, 320000);
    ring_close(ring);
}

TEST(a_range_of_time_is_given)
{
    struct ring *ring = attach_new();
    for (int i = 0; i < 50; i++)
        push_numbered(ring, RING_START);
    struct walk walk = {.whole = true};
    ring_each(ring, 10000, 20000, look, &walk);
    CHECK_EQ_INT(walk.first, 10);
    CHECK_EQ_INT(walk.last, 20);
    CHECK_EQ_INT(walk.count, 11);
    ring_close(ring);
}

/* Dies in every possible place of one push, at a given fill, and looks at what is left. */
static void die_everywhere(int records)
{
    static uint8_t before[SIZE];
    enum ring_found found;
    struct ring *ring = attach_new();
    for (int i = 0; i < records; i++)
        push_numbered(ring, i % 4 ? 0 : RING_START);
    struct walk old = walk_all(ring);
    ring_close(ring);
    memcpy(before, area, SIZE);
    size_t wrong = 0;
    for (size_t bytes = 0; bytes < 1400; bytes++) {
        memcpy(area, before, SIZE);
        ring = attach(false, &found);
        ring_die_after(ring, bytes);
        push_numbered(ring, records % 4 ? 0 : RING_START);
        ring_close(ring);
        ring = attach(false, &found);
        struct walk walk = walk_all(ring);
        bool is_right = found == RING_FOUND_WHOLE && walk.whole && walk.first >= old.first &&
                        (walk.last == old.last || walk.last == old.last + 1) &&
                        ring_next_seq(ring) == walk.last + 1;
        wrong += !is_right;
        push_numbered(ring, RING_START);
        wrong += !walk_all(ring).whole;
        ring_close(ring);
    }
    CHECK_EQ_INT(wrong, 0);
}

TEST(death_at_any_byte_of_a_push_loses_nothing_else)
{
    die_everywhere(1);
    die_everywhere(20);
    die_everywhere(300);
    die_everywhere(301);
}

/* The first number of records whose successor does not fit behind them in the circle. */
static int records_before_the_close(void)
{
    struct ring *ring = attach_new();
    struct ring_record record;
    uint64_t capacity = SIZE - 4096, at = 0;
    int records = 0;
    do {
        push_numbered(ring, RING_START);
        records++;
        at = ring_head(ring);
    } while (at < capacity);
    REQUIRE(ring_read(ring, ring_tail(ring), &record) == 0);
    ring_close(ring);
    return records - 1;
}

TEST_LIMIT(death_where_the_circle_closes, 60)
{
    int records = records_before_the_close();
    CHECK(records > 80);
    die_everywhere(records - 1);
    die_everywhere(records);
    die_everywhere(records + 1);
}

TEST(a_damaged_cursor_is_rebuilt_from_the_records)
{
    enum ring_found found;
    struct ring *ring = attach_new();
    for (int i = 0; i < 500; i++)
        push_numbered(ring, RING_START);
    struct walk before = walk_all(ring);
    ring_close(ring);
    memset(area, 0x5A, 1024);
    ring = attach(false, &found);
    CHECK_EQ_INT(found, RING_FOUND_REPAIRED);
    struct walk after = walk_all(ring);
    CHECK(after.whole && after.last == before.last && after.count + 2 >= before.count);
    CHECK_EQ_INT(ring_next_seq(ring), 501);
    ring_close(ring);
}

TEST(a_damaged_record_costs_what_is_older)
{
    enum ring_found found;
    struct ring *ring = attach_new();
    struct ring_record middle;
    for (int i = 0; i < 60; i++)
        push_numbered(ring, RING_START);
    uint64_t at = ring_tail(ring);
    for (int i = 0; i < 30; i++, at = middle.next)
        REQUIRE(ring_read(ring, at, &middle) == 0);
    size_t offset = (size_t)(middle.payload.data - area);
    ring_close(ring);
    area[offset] ^= 1;
    ring = attach(false, &found);
    CHECK_EQ_INT(found, RING_FOUND_REPAIRED);
    struct walk walk = walk_all(ring);
    CHECK(walk.whole);
    CHECK_EQ_INT(walk.first, 31);
    CHECK_EQ_INT(walk.last, 60);
    CHECK_EQ_INT(ring_next_seq(ring), 61);
    ring_close(ring);
}

TEST(rubbish_is_emptied)
{
    enum ring_found found;
    for (size_t i = 0; i < sizeof area; i++)
        area[i] = (uint8_t)(i * 7 + i / 256);
    struct ring *ring = attach(false, &found);
    CHECK_EQ_INT(found, RING_FOUND_LOST);
    CHECK_EQ_INT(push_numbered(ring, RING_START), 0);
    CHECK_EQ_INT(walk_all(ring).count, 1);
    ring_close(ring);
}

TEST(a_position_that_was_overwritten_is_not_read)
{
    struct ring *ring = attach_new();
    struct ring_record record;
    push_numbered(ring, RING_START);
    uint64_t first = ring_tail(ring);
    CHECK_EQ_INT(ring_read(ring, first, &record), 0);
    CHECK_EQ_INT(ring_read(ring, record.next, &record), ERR_NOTFOUND);
    for (int i = 0; i < 300; i++)
        push_numbered(ring, RING_START);
    CHECK_EQ_INT(ring_read(ring, first, &record), ERR_NOTFOUND);
    ring_close(ring);
}

TEST(a_file_survives_its_process_and_is_not_shared)
{
    char path[] = "/tmp/trawl-ring-XXXXXX";
    struct failure f;
    enum ring_found found;
    struct ring *ring = NULL, *second = NULL;
    REQUIRE(mkdtemp(path) != NULL);
    char file[64];
    snprintf(file, sizeof file, "%s/events.ring", path);
    REQUIRE(ring_open(&ring, file, SIZE, &found, &f) == 0);
    CHECK_EQ_INT(found, RING_FOUND_NEW);
    push_numbered(ring, RING_START);
    CHECK_EQ_INT(ring_open(&second, file, SIZE, &found, &f), ERR_BUSY);
    ring_close(ring);
    REQUIRE(ring_open(&ring, file, SIZE, &found, &f) == 0);
    CHECK_EQ_INT(found, RING_FOUND_WHOLE);
    CHECK_EQ_INT(walk_all(ring).count, 1);
    ring_close(ring);
    REQUIRE(ring_open(&ring, file, 2 * SIZE, &found, &f) == 0);
    CHECK_EQ_INT(found, RING_FOUND_NEW);
    ring_close(ring);
    unlink(file);
    rmdir(path);
}
