/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packed stream from a collector, in pieces whose size the first byte says. Checked: no more
 * comes out than the limit, and the size of the pieces changes nothing.
 */
#include <assert.h>
#include <stdlib.h>

#include "common/zip_unstream.h"

#define LIMIT 300000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sink {
    uint64_t bytes, sum;
};

static int take(void *context, struct span plain)
{
    struct sink *sink = context;
    sink->bytes += plain.size_bytes;
    assert(sink->bytes <= LIMIT);
    for (size_t i = 0; i < plain.size_bytes; i++)
        sink->sum = sink->sum * 31 + plain.data[i];
    return 0;
}

static int unpack(struct span packed, size_t step, struct sink *sink)
{
    struct zip_unstream *s;
    int r = 0;
    if (zip_unstream_open(&s, LIMIT, take, sink))
        abort();
    for (size_t at = 0; r == 0 && at < packed.size_bytes; at += step) {
        size_t left = packed.size_bytes - at;
        r = zip_unstream_feed(s, span_of(packed.data + at, left < step ? left : step));
    }
    if (r == 0)
        r = zip_unstream_end(s);
    zip_unstream_close(s);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct sink whole = {0}, pieces = {0};
    struct span packed = span_of(data + 1, size - 1);
    int r = unpack(packed, packed.size_bytes, &whole);
    int r2 = unpack(packed, (size_t)data[0] + 1, &pieces);
    assert((r == 0) == (r2 == 0));
    assert(r != 0 || (whole.bytes == pieces.bytes && whole.sum == pieces.sum));
    return 0;
}
