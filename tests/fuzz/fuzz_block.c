/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a counter block: never a crash, and what is accepted can be encoded again and then
 * reads the same. Run by the fuzz preset, and over its corpus by every other.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "proto/block.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct first {
    uint32_t id;
    size_t count;
    int64_t values[BLOCK_MAX_SAMPLES];
};

static int keep_first(void *context, const struct block_view *view)
{
    struct first *first = context;
    assert(view->sample_count <= BLOCK_MAX_SAMPLES && view->gap_count <= view->sample_count);
    if (first->count == 0) {
        first->id = view->id;
        first->count = view->sample_count;
        memcpy(first->values, view->values, view->sample_count * sizeof view->values[0]);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct first first = {0}, again = {0};
    size_t series, samples, taken;
    struct span in = span_of(data, size);
    (void)block_check(in, &series, &samples, NULL);
    if (block_each(in, keep_first, &first, NULL))
        return 0;
    struct block_series one = {first.id, first.values, ""};
    struct buf out;
    buf_init(&out, 32768);
    int e = block_put(&out, &one, 1, first.count, &taken);
    assert(!e);
    e = block_each(buf_span(&out), keep_first, &again, NULL);
    assert(!e && again.id == first.id && again.count == first.count);
    assert(memcmp(again.values, first.values, first.count * sizeof first.values[0]) == 0);
    buf_done(&out);
    return 0;
}
