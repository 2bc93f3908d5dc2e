/* SPDX-License-Identifier: Apache-2.0 */
/* Known values of XXH64, and that the size of the pieces changes nothing. */
#include "common/xxh64.h"

#include "tests/check.h"

TEST(values_are_those_of_the_reference)
{
    /* Of `xxhsum -H64` and of the reference implementation's self-test. */
    CHECK(xxh64(span_of(NULL, 0), 0) == UINT64_C(0xEF46DB3751D8E999));
    CHECK(xxh64(span_str("a"), 0) == UINT64_C(0xD24EC4F1A98C6E5B));
    CHECK(xxh64(span_str("abc"), 0) == UINT64_C(0x44BC2CF5AD770999));
    CHECK(xxh64(span_str("Nobody inspects the spammish repetition"), 0) ==
          UINT64_C(0xFBCEA83C8A378BF1));
}

TEST(pieces_of_every_size_give_the_same)
{
    uint8_t bytes[300];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 31 + 7);
    for (size_t size = 0; size <= sizeof bytes; size += 7) {
        uint64_t whole = xxh64(span_of(bytes, size), 42);
        for (size_t step = 1; step < 70; step++) {
            struct xxh64 x;
            xxh64_init(&x, 42);
            for (size_t at = 0; at < size; at += step) {
                xxh64_add(&x, span_of(bytes + at, size - at < step ? size - at : step));
                (void)xxh64_end(&x); /* changes nothing */
            }
            CHECK(xxh64_end(&x) == whole);
        }
    }
}

TEST(every_bit_and_the_seed_count)
{
    uint8_t bytes[100] = {0};
    uint64_t before = xxh64(span_of(bytes, sizeof bytes), 0);
    CHECK(before != xxh64(span_of(bytes, sizeof bytes), 1));
    CHECK(before != xxh64(span_of(bytes, sizeof bytes - 1), 0));
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(before != xxh64(span_of(bytes, sizeof bytes), 0));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}
