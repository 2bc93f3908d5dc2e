/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames one behind the other, fed in pieces of every size; cut, damaged, followed by something,
 * and larger than allowed. Nothing is given out above the limit.
 */
#include "common/zip_unstream.h"

#include <string.h>

#include "common/zip.h"
#include "tests/check.h"

#define SAMPLE_BYTES 400000

static uint8_t sample[SAMPLE_BYTES];

struct sink {
    struct buf plain;
    int refuse;
};

static int take(void *context, struct span plain)
{
    struct sink *sink = context;
    CHECK(plain.size_bytes > 0 && plain.size_bytes <= 128 * 1024);
    return sink->refuse ? sink->refuse : buf_append_span(&sink->plain, plain);
}

/* Three frames: the sample in two, and an empty one. */
static void pack_frames(struct buf *packed)
{
    for (size_t i = 0; i < sizeof sample; i++)
        sample[i] = (uint8_t)(i % 4096 < 2000 ? 0 : i * 31 + i / 251);
    buf_init(packed, 1 << 20);
    REQUIRE(zip_pack(span_of(sample, 150000), 1, packed) == 0);
    REQUIRE(zip_pack(span_of(NULL, 0), 1, packed) == 0);
    REQUIRE(zip_pack(span_of(sample + 150000, SAMPLE_BYTES - 150000), 3, packed) == 0);
}

/* The first error, of feed or end. */
static int unpack(struct span packed, size_t step, uint64_t limit, struct sink *sink)
{
    struct zip_unstream *s;
    int r = 0;
    buf_init(&sink->plain, 1 << 20);
    REQUIRE(zip_unstream_open(&s, limit, take, sink) == 0);
    for (size_t at = 0; r == 0 && at < packed.size_bytes; at += step) {
        size_t left = packed.size_bytes - at;
        r = zip_unstream_feed(s, span_of(packed.data + at, left < step ? left : step));
    }
    if (r == 0)
        r = zip_unstream_end(s);
    zip_unstream_close(s);
    return r;
}

TEST(frames_in_pieces_of_every_size_come_back_the_same)
{
    static const size_t steps[] = {1, 3, 1000, 65536, 1 << 20};
    struct buf packed;
    pack_frames(&packed);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct sink sink = {.refuse = 0};
        CHECK_EQ_INT(unpack(buf_span(&packed), steps[i], SAMPLE_BYTES, &sink), 0);
        REQUIRE(sink.plain.size_bytes == SAMPLE_BYTES);
        CHECK_EQ_MEM(sink.plain.data, sample, SAMPLE_BYTES);
        buf_done(&sink.plain);
    }
    buf_done(&packed);
}

TEST(a_frame_that_fills_the_room_exactly_is_whole)
{
    static uint8_t zeros[256 * 1024];
    struct buf packed;
    buf_init(&packed, 1 << 20);
    for (int i = 0; i < 2; i++) {
        struct sink sink = {.refuse = 0};
        REQUIRE(zip_pack(span_of(zeros, sizeof zeros), 1, &packed) == 0);
        CHECK_EQ_INT(unpack(buf_span(&packed), 1 << 20, 2 * sizeof zeros, &sink), 0);
        CHECK_EQ_INT(sink.plain.size_bytes, (size_t)(i + 1) * sizeof zeros);
        buf_done(&sink.plain);
    }
    buf_done(&packed);
}

TEST(a_cut_stream_is_not_whole)
{
    struct buf packed;
    pack_frames(&packed);
    for (size_t size = 0; size < packed.size_bytes; size += size < 40 ? 1 : 997) {
        struct sink sink = {.refuse = 0};
        int r = unpack(span_of(packed.data, size), 500, SAMPLE_BYTES, &sink);
        CHECK(r == ERR_CORRUPT || (r == 0 && sink.plain.size_bytes == 150000));
        buf_done(&sink.plain);
    }
    buf_done(&packed);
}

TEST(every_changed_byte_is_found_or_changes_nothing)
{
    struct buf packed;
    pack_frames(&packed);
    for (size_t i = 0; i < packed.size_bytes; i += i < 100 ? 1 : 211) {
        struct sink sink = {.refuse = 0};
        packed.data[i] ^= 0x10;
        int r = unpack(buf_span(&packed), 4096, SAMPLE_BYTES, &sink);
        CHECK(r < 0 || (sink.plain.size_bytes == SAMPLE_BYTES &&
                        memcmp(sink.plain.data, sample, SAMPLE_BYTES) == 0));
        CHECK(sink.plain.size_bytes <= SAMPLE_BYTES);
        packed.data[i] ^= 0x10;
        buf_done(&sink.plain);
    }
    buf_done(&packed);
}

TEST(a_bomb_ends_at_the_limit)
{
    /* 64 blocks of 128 KiB, 4 bytes each: 8 MiB out of 262 bytes. */
    uint8_t bomb[6 + 64 * 4] = {0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x38};
    for (size_t i = 0; i < 64; i++) {
        uint32_t head = (uint32_t)(i == 63) | 1u << 1 | 131072u << 3;
        bomb[6 + 4 * i] = (uint8_t)head;
        bomb[7 + 4 * i] = (uint8_t)(head >> 8);
        bomb[8 + 4 * i] = (uint8_t)(head >> 16);
        bomb[9 + 4 * i] = 'x';
    }
    struct sink sink = {.refuse = 0};
    CHECK_EQ_INT(unpack(span_of(bomb, sizeof bomb), 100, 500000, &sink), ERR_LIMIT);
    CHECK(sink.plain.size_bytes <= 500000);
    buf_done(&sink.plain);
    /* A window of 2 GiB is not allocated. */
    bomb[5] = 0xA8;
    CHECK_EQ_INT(unpack(span_of(bomb, sizeof bomb), 100, 1 << 20, &sink), ERR_LIMIT);
    buf_done(&sink.plain);
}

TEST(what_the_taker_says_ends_it)
{
    struct buf packed;
    pack_frames(&packed);
    struct sink sink = {.refuse = ERR_FULL};
    CHECK_EQ_INT(unpack(buf_span(&packed), 4096, SAMPLE_BYTES, &sink), ERR_FULL);
    buf_done(&sink.plain);
    CHECK_EQ_INT(unpack(span_str("this is not zstd at all"), 4096, 100, &sink), ERR_CORRUPT);
    buf_done(&sink.plain);
    buf_done(&packed);
    zip_unstream_close(NULL);
}
