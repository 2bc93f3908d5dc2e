/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a span: the bytes are at once the input and the choice of what to read from it. Checked:
 * a failing read moves nothing, a good one moves forward only, and what a number was read from is
 * no shorter than what it is written as.
 */
#include <assert.h>
#include <string.h>

#include "common/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_varint(struct span before, struct span after, uint64_t value)
{
    struct buf b;
    buf_init(&b, 16);
    assert(buf_append_varint(&b, value) == 0);
    size_t read_bytes = before.size_bytes - after.size_bytes;
    assert(read_bytes >= b.size_bytes && read_bytes <= 10);
    struct span s = buf_span(&b);
    uint64_t again;
    assert(span_take_varint(&s, &again) == 0 && again == value && s.size_bytes == 0);
    buf_done(&b);
}

static void check_fixed(struct span before, size_t size_bytes, uint64_t value)
{
    struct buf b;
    buf_init(&b, 8);
    assert((size_bytes == 4 ? buf_append_u32(&b, (uint32_t)value) : buf_append_u64(&b, value)) ==
           0);
    assert(span_equal(buf_span(&b), span_of(before.data, size_bytes)));
    buf_done(&b);
}

static void check_zigzag(struct span before, struct span after, int64_t value)
{
    struct buf b;
    buf_init(&b, 16);
    assert(buf_append_zigzag(&b, value) == 0);
    assert(before.size_bytes - after.size_bytes >= b.size_bytes);
    struct span s = buf_span(&b);
    int64_t again;
    assert(span_take_zigzag(&s, &again) == 0 && again == value && s.size_bytes == 0);
    buf_done(&b);
}

/* One read; 0 or ERR_CORRUPT. */
static int take(struct span *s, uint8_t what)
{
    struct span before = *s, part;
    uint64_t u64 = 0;
    uint32_t u32 = 0;
    int64_t i64 = 0;
    int r;
    switch (what % 5) {
    case 0:
        if ((r = span_take_varint(s, &u64)) == 0)
            check_varint(before, *s, u64);
        return r;
    case 1:
        if ((r = span_take_u32(s, &u32)) == 0)
            check_fixed(before, 4, u32);
        return r;
    case 2:
        if ((r = span_take_u64(s, &u64)) == 0)
            check_fixed(before, 8, u64);
        return r;
    case 3:
        if ((r = span_take_zigzag(s, &i64)) == 0)
            check_zigzag(before, *s, i64);
        return r;
    default:
        if ((r = span_take(s, what, &part)) == 0)
            assert(part.data == before.data && part.size_bytes == what);
        return r;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span s = span_of(data, size);
    uint8_t what;
    while (span_take_u8(&s, &what) == 0) {
        struct span before = s;
        int r = take(&s, what);
        assert(r == 0 || r == ERR_CORRUPT);
        if (r < 0)
            assert(s.data == before.data && s.size_bytes == before.size_bytes);
        assert(s.size_bytes <= before.size_bytes);
    }
    return 0;
}
