/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a ring's file: opening finds only whole records, and afterwards the ring works. The
 * input is laid over a real ring at a place it names, so that damage meets structure.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/ring.h"

#define SIZE RING_MIN_BYTES

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t area[SIZE] __attribute__((aligned(8)));

static int count(void *context, const struct ring_record *record)
{
    size_t *records = context;
    uint8_t sum = 0;
    for (size_t i = 0; i < record->payload.size_bytes; i++)
        sum = (uint8_t)(sum + record->payload.data[i]);
    *records += 1 + (sum & 0u);
    return 0;
}

static void push(struct ring *ring, uint8_t fill, size_t size)
{
    uint8_t payload[512];
    memset(payload, fill, sizeof payload);
    struct ring_record record = {
        .type = RING_EVENT,
        .flags = fill % 3 ? RING_START : 0,
        .seq = ring_next_seq(ring),
        .time_us = fill,
        .payload = span_of(payload, size % sizeof payload),
    };
    int e = ring_push(ring, &record);
    assert(!e);
}

static void use(bool fresh, int pushes)
{
    struct ring *ring;
    enum ring_found found;
    size_t records = 0;
    int e = ring_attach(&ring, area, SIZE, fresh, &found);
    assert(!e);
    ring_each(ring, INT64_MIN, INT64_MAX, count, &records);
    for (int i = 0; i < pushes; i++)
        push(ring, (uint8_t)i, (size_t)i * 29);
    records = 0;
    ring_each(ring, INT64_MIN, INT64_MAX, count, &records);
    assert(pushes == 0 || records > 0);
    ring_close(ring);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(area, 0, sizeof area);
    if (size < 3)
        return 0;
    use(true, data[0]);
    size_t at = ((size_t)data[1] << 8 | data[2]) % SIZE;
    size -= 3;
    memcpy(area + at, data + 3, size < SIZE - at ? size : SIZE - at);
    use(false, 5);
    use(false, 0);
    return 0;
}
