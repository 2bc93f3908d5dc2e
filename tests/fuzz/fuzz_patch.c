/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as differences: the target is never asked for what the base has not, nor for more than
 * the limit, and what is told is told in the order of the file.
 */
#include <assert.h>
#include <stdint.h>

#include "common/patch.h"

#define BASE_BYTES 1000
#define LIMIT_BYTES 100000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int step(uint64_t *told, uint64_t at, uint64_t count)
{
    assert(at == *told && count <= LIMIT_BYTES - at);
    *told += count;
    return 0;
}

static int on_copy(void *context, uint64_t at, uint64_t base_at, uint64_t count, struct failure *f)
{
    (void)f;
    assert(base_at <= BASE_BYTES && count <= BASE_BYTES - base_at);
    return step(context, at, count);
}

static int on_data(void *context, uint64_t at, struct span bytes, struct failure *f)
{
    (void)f;
    return step(context, at, bytes.size_bytes);
}

static int on_zero(void *context, uint64_t at, uint64_t count, struct failure *f)
{
    (void)f;
    return step(context, at, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t told = 0;
    struct patch patch;
    struct failure f = {0, ""};
    struct patch_target target = {on_copy, on_data, on_zero, &told};
    patch_init(&patch, &target, BASE_BYTES, LIMIT_BYTES);
    size_t first = size / 3;
    int e = patch_feed(&patch, span_of(data, first), &f);
    if (!e)
        e = patch_feed(&patch, span_of(data + first, size - first), &f);
    if (!e)
        e = patch_end(&patch, &f);
    assert((e == 0) == (f.code == 0));
    return 0;
}
