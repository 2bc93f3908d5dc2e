/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct buf at and around its limit, with an allocator that fails, and the readers of a span at
 * every length of every encoding. A failing call must leave everything as it was.
 */
#include "tests/unit/common/failing_buf.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

TEST(an_empty_buffer_allocates_nothing)
{
    struct buf b;
    buf_init(&b, 10);
    CHECK(b.data == NULL);
    CHECK_EQ_STR(buf_str(&b), "");
    CHECK_EQ_INT(buf_span(&b).size_bytes, 0);
    CHECK_EQ_INT(buf_append(&b, NULL, 0), 0);
    CHECK(b.data == NULL);
    buf_consume(&b, 0);
    buf_done(&b);
    struct buf zeroed = {0};
    buf_done(&zeroed);
    CHECK_EQ_INT(buf_append_byte(&zeroed, 1), ERR_LIMIT);
}

TEST(the_limit_is_exact)
{
    struct buf b;
    buf_init(&b, 10);
    CHECK_EQ_INT(buf_append_str(&b, "0123456789"), 0);
    CHECK_EQ_INT(buf_append_byte(&b, 'x'), ERR_LIMIT);
    CHECK_EQ_INT(buf_append(&b, "", 0), 0);
    CHECK_EQ_STR(buf_str(&b), "0123456789");
    CHECK_EQ_INT(b.size_bytes, 10);
    CHECK(b.capacity_bytes <= 10);
    buf_done(&b);
    CHECK_EQ_INT(buf_append_str(&b, "0123456789x"), ERR_LIMIT);
    CHECK_EQ_INT(b.size_bytes, 0);
    CHECK_EQ_INT(buf_append_str(&b, "again"), 0);
    CHECK_EQ_STR(buf_str(&b), "again");
    buf_done(&b);
}

TEST(a_size_that_would_overflow_is_over_the_limit)
{
    struct buf b;
    uint8_t *room = NULL;
    buf_init(&b, SIZE_MAX - 1);
    REQUIRE(buf_append_str(&b, "abc") == 0);
    CHECK_EQ_INT(buf_reserve(&b, SIZE_MAX, &room), ERR_LIMIT);
    CHECK_EQ_INT(buf_reserve(&b, SIZE_MAX - 3, &room), ERR_LIMIT);
    CHECK(room == NULL);
    failing_buf_after(0);
    CHECK_EQ_INT(buf_reserve(&b, SIZE_MAX - 4, &room), ERR_NOMEM);
    CHECK(room == NULL);
    CHECK_EQ_STR(buf_str(&b), "abc");
    buf_done(&b);
}

TEST(it_grows_by_doubling_and_keeps_its_bytes)
{
    struct buf b;
    buf_init(&b, 100000);
    size_t moves = 0, capacity = 0;
    for (int i = 0; i < 100000; i++) {
        REQUIRE(buf_append_byte(&b, (uint8_t)(i * 7)) == 0);
        moves += b.capacity_bytes != capacity;
        capacity = b.capacity_bytes;
    }
    CHECK(moves < 15);
    CHECK_EQ_INT(b.capacity_bytes, 100000);
    size_t wrong = 0;
    for (int i = 0; i < 100000; i++)
        wrong += b.data[i] != (uint8_t)(i * 7);
    CHECK_EQ_INT(wrong, 0);
    buf_done(&b);
}

TEST(without_memory_nothing_is_appended)
{
    struct buf b;
    buf_init(&b, 1000);
    failing_buf_after(0);
    CHECK_EQ_INT(buf_append_str(&b, "abc"), ERR_NOMEM);
    CHECK_EQ_INT(buf_printf(&b, "%d", 5), ERR_NOMEM);
    CHECK(b.data == NULL && b.size_bytes == 0 && b.capacity_bytes == 0);
    failing_buf_after(1);
    CHECK_EQ_INT(buf_append_str(&b, "abc"), 0);
    char big[500];
    memset(big, 'z', sizeof big);
    CHECK_EQ_INT(buf_append(&b, big, sizeof big), ERR_NOMEM);
    CHECK_EQ_STR(buf_str(&b), "abc");
    failing_buf_after(-1);
    CHECK_EQ_INT(buf_append(&b, big, sizeof big), 0);
    CHECK_EQ_INT(b.size_bytes, 503);
    buf_done(&b);
}

TEST(printf_fits_exactly_or_not_at_all)
{
    struct buf b;
    buf_init(&b, 8);
    CHECK_EQ_INT(buf_printf(&b, "%s-%03d", "ab", 7), 0);
    CHECK_EQ_STR(buf_str(&b), "ab-007");
    CHECK_EQ_INT(buf_printf(&b, "%s", "xyz"), ERR_LIMIT);
    CHECK_EQ_STR(buf_str(&b), "ab-007");
    CHECK_EQ_INT(buf_printf(&b, "%s", "xy"), 0);
    CHECK_EQ_STR(buf_str(&b), "ab-007xy");
    CHECK_EQ_INT(buf_printf(&b, "%s", ""), 0);
    buf_done(&b);
}

TEST(reserve_and_commit)
{
    struct buf b;
    uint8_t *room;
    buf_init(&b, 100);
    REQUIRE(buf_append_str(&b, "ab") == 0);
    REQUIRE(buf_reserve(&b, 98, &room) == 0);
    memset(room, 'c', 98);
    CHECK_EQ_INT(b.size_bytes, 2);
    buf_commit(&b, 3);
    CHECK_EQ_STR(buf_str(&b), "abccc");
    buf_done(&b);
}

TEST(consume_take_and_clear)
{
    struct buf b;
    buf_init(&b, 100);
    REQUIRE(buf_append_str(&b, "hello world") == 0);
    buf_consume(&b, 6);
    CHECK_EQ_STR(buf_str(&b), "world");
    size_t size;
    uint8_t *taken = buf_take(&b, &size);
    CHECK_EQ_INT(size, 5);
    CHECK_EQ_MEM(taken, "world", 5);
    free(taken);
    CHECK(b.data == NULL && b.limit_bytes == 100);
    REQUIRE(buf_append_str(&b, "x") == 0);
    buf_consume(&b, 1);
    CHECK_EQ_STR(buf_str(&b), "");
    REQUIRE(buf_append_str(&b, "yy") == 0);
    buf_clear(&b);
    CHECK_EQ_INT(b.size_bytes, 0);
    CHECK(b.capacity_bytes > 0);
    buf_done(&b);
}

TEST(spans_compare_by_bytes)
{
    CHECK(span_equal(span_str("ab"), span_of("ab", 2)));
    CHECK(!span_equal(span_str("ab"), span_str("abc")));
    CHECK(!span_equal(span_str("ab"), span_str("ac")));
    CHECK(!span_equal(span_of("a\0b", 3), span_of("a\0c", 3)));
    CHECK(span_equal(span_of(NULL, 0), span_str("")));
}

TEST(fixed_numbers_are_little_endian)
{
    struct buf b;
    buf_init(&b, 100);
    REQUIRE(buf_append_u32(&b, 0x01020304U) == 0);
    REQUIRE(buf_append_u64(&b, UINT64_C(0x1112131415161718)) == 0);
    CHECK_EQ_INT(b.size_bytes, 12);
    CHECK_EQ_MEM(b.data, "\x04\x03\x02\x01\x18\x17\x16\x15\x14\x13\x12\x11", 12);
    struct span s = buf_span(&b);
    uint32_t u32 = 0;
    uint64_t u64 = 0;
    CHECK_EQ_INT(span_take_u32(&s, &u32), 0);
    CHECK_EQ_INT(u32, 0x01020304);
    CHECK_EQ_INT(span_take_u64(&s, &u64), 0);
    CHECK_EQ_INT(u64, UINT64_C(0x1112131415161718));
    CHECK_EQ_INT(s.size_bytes, 0);
    buf_done(&b);
}

TEST(what_is_too_short_moves_nothing)
{
    static const uint8_t bytes[7] = {1, 2, 3, 4, 5, 6, 7};
    struct span s = span_of(bytes, 7), out = span_of(bytes, 1);
    uint64_t u64 = 99;
    uint32_t u32 = 98;
    uint8_t u8 = 97;
    CHECK_EQ_INT(span_take_u64(&s, &u64), ERR_CORRUPT);
    CHECK_EQ_INT(span_take(&s, 8, &out), ERR_CORRUPT);
    CHECK(s.data == bytes && s.size_bytes == 7 && out.size_bytes == 1);
    s = span_of(bytes, 3);
    CHECK_EQ_INT(span_take_u32(&s, &u32), ERR_CORRUPT);
    s = span_of(bytes, 0);
    CHECK_EQ_INT(span_take_u8(&s, &u8), ERR_CORRUPT);
    CHECK_EQ_INT(span_take_varint(&s, &u64), ERR_CORRUPT);
    CHECK(u64 == 99 && u32 == 98 && u8 == 97);
    CHECK_EQ_INT(span_take(&s, 0, &out), 0);
    s = span_of(bytes, 2);
    CHECK_EQ_INT(span_take_u8(&s, &u8), 0);
    CHECK_EQ_INT(u8, 1);
    CHECK_EQ_INT(span_take_u8(&s, &u8), 0);
    CHECK(u8 == 2 && s.size_bytes == 0);
    s = span_of(bytes, 2);
    CHECK_EQ_INT(span_take(&s, 2, &out), 0);
    CHECK(out.data == bytes && out.size_bytes == 2 && s.size_bytes == 0);
}

struct varint {
    uint64_t value;
    size_t size_bytes;
    const char *bytes;
};

static const struct varint varints[] = {
    {0, 1, "\x00"},
    {1, 1, "\x01"},
    {127, 1, "\x7F"},
    {128, 2, "\x80\x01"},
    {300, 2, "\xAC\x02"},
    {16383, 2, "\xFF\x7F"},
    {16384, 3, "\x80\x80\x01"},
    {UINT32_MAX, 5, "\xFF\xFF\xFF\xFF\x0F"},
    {(uint64_t)1 << 63, 10, "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"},
    {UINT64_MAX, 10, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"},
};

TEST(varints_are_those_of_protobuf)
{
    for (size_t i = 0; i < sizeof varints / sizeof varints[0]; i++) {
        const struct varint *v = &varints[i];
        struct buf b;
        buf_init(&b, 16);
        REQUIRE(buf_append_varint(&b, v->value) == 0);
        REQUIRE(b.size_bytes == v->size_bytes);
        CHECK_EQ_MEM(b.data, v->bytes, v->size_bytes);
        uint64_t value = 77;
        for (size_t cut = 0; cut < v->size_bytes; cut++) {
            struct span s = span_of(v->bytes, cut);
            CHECK_EQ_INT(span_take_varint(&s, &value), ERR_CORRUPT);
            CHECK(value == 77 && s.size_bytes == cut);
        }
        struct span s = buf_span(&b);
        CHECK_EQ_INT(span_take_varint(&s, &value), 0);
        CHECK(value == v->value && s.size_bytes == 0);
        buf_done(&b);
    }
}

TEST(a_varint_over_64_bits_is_damage)
{
    uint64_t value = 77;
    struct span s = span_of("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02", 10);
    CHECK_EQ_INT(span_take_varint(&s, &value), ERR_CORRUPT);
    s = span_of("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11);
    CHECK_EQ_INT(span_take_varint(&s, &value), ERR_CORRUPT);
    CHECK(value == 77 && s.size_bytes == 11);
}

TEST(zigzag_goes_both_ways)
{
    static const int64_t values[] = {0, -1, 1, -2, 63, -64, 64, INT64_MAX, INT64_MIN};
    static const size_t sizes[] = {1, 1, 1, 1, 1, 1, 2, 10, 10};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct buf b;
        buf_init(&b, 16);
        REQUIRE(buf_append_zigzag(&b, values[i]) == 0);
        CHECK_EQ_INT(b.size_bytes, sizes[i]);
        struct span s = buf_span(&b);
        int64_t value = 5;
        CHECK_EQ_INT(span_take_zigzag(&s, &value), 0);
        CHECK_EQ_INT(value, values[i]);
        buf_done(&b);
    }
    struct span s = span_of("\x03", 1);
    int64_t value = 0;
    REQUIRE(span_take_zigzag(&s, &value) == 0);
    CHECK_EQ_INT(value, -2);
}

TEST(a_number_that_does_not_fit_is_not_begun)
{
    struct buf b;
    buf_init(&b, 9);
    CHECK_EQ_INT(buf_append_varint(&b, UINT64_MAX), ERR_LIMIT);
    CHECK_EQ_INT(b.size_bytes, 0);
    CHECK_EQ_INT(buf_append_u64(&b, 1), 0);
    CHECK_EQ_INT(buf_append_u32(&b, 1), ERR_LIMIT);
    CHECK_EQ_INT(b.size_bytes, 8);
    buf_done(&b);
}

TEST(lists_grow_by_doubling)
{
    uint32_t *list = NULL;
    size_t capacity = 0;
    for (uint32_t i = 0; i < 100; i++) {
        REQUIRE(BUF_GROW(list, i, &capacity, 6) == 0);
        CHECK_EQ_INT(capacity, i < 6    ? 6
                               : i < 12 ? 12
                               : i < 24 ? 24
                               : i < 48 ? 48
                               : i < 96 ? 96
                                        : 192);
        list[i] = i;
    }
    for (uint32_t i = 0; i < 100; i++)
        CHECK_EQ_INT(list[i], i);
    free(list);
}

TEST(a_list_that_only_grows_needs_no_capacity)
{
    uint64_t *list = NULL;
    for (size_t i = 0; i < 1000; i++) { /* a place too few is found by the sanitizer */
        REQUIRE(BUF_GROW(list, i, NULL, 1) == 0);
        list[i] = i;
    }
    CHECK_EQ_INT(list[0] + list[999], 999);
    free(list);
}

TEST(a_list_that_cannot_grow_stays)
{
    char *list = NULL;
    size_t capacity = 0;
    CHECK_EQ_INT(buf_grow(&list, 0, &capacity, SIZE_MAX / 2, 8), ERR_NOMEM);
    CHECK(!list && capacity == 0);
}
