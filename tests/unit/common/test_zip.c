/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing and unpacking at every limit, and frames that are cut, damaged, followed by something, or
 * lying about what they hold. Unpacked bytes must never pass the limit.
 */
#include "tests/unit/common/failing_buf.h"

#include "common/zip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

#define SAMPLE_BYTES 300000

/* Compressible, but not trivially: a counter's text with some noise. */
static void fill_sample(uint8_t *out, size_t size_bytes)
{
    uint32_t noise = 12345;
    for (size_t i = 0; i < size_bytes; i++) {
        noise = noise * 1103515245U + 12345U;
        out[i] = i % 7 < 5 ? (uint8_t)("trawl"[i % 7]) : (uint8_t)(noise >> 24);
    }
}

static uint8_t sample[SAMPLE_BYTES];

static void pack_sample(struct buf *packed, size_t size_bytes, int level)
{
    fill_sample(sample, sizeof sample);
    buf_init(packed, 1 << 20);
    REQUIRE(zip_pack(span_of(sample, size_bytes), level, packed) == 0);
}

TEST(comes_back_the_same_at_every_level)
{
    for (int level = 1; level <= 19; level += 6) {
        struct buf packed, plain;
        pack_sample(&packed, SAMPLE_BYTES, level);
        CHECK(packed.size_bytes < SAMPLE_BYTES / 2);
        buf_init(&plain, SAMPLE_BYTES);
        CHECK_EQ_INT(zip_unpack(buf_span(&packed), &plain), 0);
        REQUIRE(plain.size_bytes == SAMPLE_BYTES);
        CHECK_EQ_MEM(plain.data, sample, SAMPLE_BYTES);
        buf_done(&packed);
        buf_done(&plain);
    }
}

TEST(nothing_is_something_too)
{
    struct buf packed, plain;
    buf_init(&packed, 100);
    buf_init(&plain, 1);
    REQUIRE(zip_pack(span_of(NULL, 0), 3, &packed) == 0);
    CHECK(packed.size_bytes > 0);
    CHECK_EQ_INT(zip_unpack(buf_span(&packed), &plain), 0);
    CHECK_EQ_INT(plain.size_bytes, 0);
    CHECK_EQ_INT(zip_unpack(span_of(NULL, 0), &plain), ERR_CORRUPT);
    /* A full buffer has room for nothing, which is enough. */
    REQUIRE(buf_append_byte(&plain, 'x') == 0);
    CHECK_EQ_INT(zip_unpack(buf_span(&packed), &plain), 0);
    CHECK_EQ_STR(buf_str(&plain), "x");
    buf_done(&packed);
    buf_done(&plain);
}

TEST(both_append)
{
    struct buf packed, plain;
    buf_init(&packed, 1000);
    buf_init(&plain, 1000);
    REQUIRE(buf_append_str(&packed, "head") == 0 && buf_append_str(&plain, "head ") == 0);
    REQUIRE(zip_pack(span_str("body"), 1, &packed) == 0);
    CHECK_EQ_MEM(packed.data, "head", 4);
    struct span frame = span_of(packed.data + 4, packed.size_bytes - 4);
    CHECK_EQ_INT(zip_unpack(frame, &plain), 0);
    CHECK_EQ_STR(buf_str(&plain), "head body");
    buf_done(&packed);
    buf_done(&plain);
}

TEST(packing_stops_at_the_limit_and_fits_when_it_is_exact)
{
    struct buf packed, tight;
    pack_sample(&packed, 5000, 3);
    size_t needed = packed.size_bytes;
    buf_init(&tight, needed - 1);
    CHECK_EQ_INT(zip_pack(span_of(sample, 5000), 3, &tight), ERR_LIMIT);
    CHECK_EQ_INT(tight.size_bytes, 0);
    buf_done(&tight);
    /* zstd wants some room to work in; with its own bound it must always fit. */
    buf_init(&tight, needed + 32);
    CHECK_EQ_INT(zip_pack(span_of(sample, 5000), 3, &tight), 0);
    CHECK_EQ_INT(tight.size_bytes, needed);
    buf_done(&tight);
    buf_done(&packed);
}

TEST(unpacking_stops_at_the_limit)
{
    struct buf packed, plain;
    pack_sample(&packed, 5000, 3);
    for (size_t limit = 4998; limit <= 5001; limit++) {
        buf_init(&plain, limit);
        CHECK_EQ_INT(zip_unpack(buf_span(&packed), &plain), limit < 5000 ? ERR_LIMIT : 0);
        CHECK_EQ_INT(plain.size_bytes, limit < 5000 ? 0 : 5000);
        CHECK(plain.capacity_bytes <= limit);
        buf_done(&plain);
    }
    buf_done(&packed);
}

/* 64 MiB of zeros are a few KiB: refused after 1 KiB of them, without room for more. */
TEST(a_bomb_is_refused_early)
{
    struct buf packed, plain;
    size_t size_bytes = (size_t)64 << 20;
    uint8_t *zeros = calloc(size_bytes, 1);
    REQUIRE(zeros != NULL);
    buf_init(&packed, 1 << 20);
    REQUIRE(zip_pack(span_of(zeros, size_bytes), 1, &packed) == 0);
    free(zeros);
    CHECK(packed.size_bytes < 10000);
    buf_init(&plain, 1024);
    CHECK_EQ_INT(zip_unpack(buf_span(&packed), &plain), ERR_LIMIT);
    CHECK(plain.size_bytes == 0 && plain.capacity_bytes <= 1024);
    buf_done(&plain);
    buf_done(&packed);
}

TEST(a_cut_frame_is_damage_at_every_length)
{
    struct buf packed, plain;
    pack_sample(&packed, 1000, 3);
    buf_init(&plain, 2000);
    REQUIRE(buf_append_str(&plain, "kept") == 0);
    for (size_t cut = 0; cut < packed.size_bytes; cut++) {
        CHECK_EQ_INT(zip_unpack(span_of(packed.data, cut), &plain), ERR_CORRUPT);
        CHECK_EQ_STR(buf_str(&plain), "kept");
    }
    buf_done(&plain);
    buf_done(&packed);
}

/* The checksum finds what the format alone would not; the header may also ask for too much. */
TEST(a_changed_byte_never_gives_other_bytes)
{
    struct buf packed, plain;
    pack_sample(&packed, 1000, 3);
    buf_init(&plain, 1 << 20);
    unsigned refused = 0, same = 0, wrong = 0;
    for (size_t at = 0; at < packed.size_bytes; at++) {
        packed.data[at] ^= 0x10;
        int r = zip_unpack(buf_span(&packed), &plain);
        if (r < 0)
            refused++;
        else if (span_equal(buf_span(&plain), span_of(sample, 1000)))
            same++;
        else
            wrong++;
        packed.data[at] ^= 0x10;
        buf_clear(&plain);
    }
    CHECK_EQ_INT(wrong, 0);
    CHECK(refused > packed.size_bytes - 5);
    CHECK_EQ_INT(refused + same, packed.size_bytes);
    buf_done(&plain);
    buf_done(&packed);
}

TEST(one_frame_and_nothing_behind_it)
{
    struct buf packed, plain;
    pack_sample(&packed, 100, 3);
    size_t one = packed.size_bytes;
    buf_init(&plain, 1000);
    REQUIRE(buf_append_byte(&packed, 0) == 0);
    CHECK_EQ_INT(zip_unpack(buf_span(&packed), &plain), ERR_CORRUPT);
    packed.size_bytes = one;
    REQUIRE(zip_pack(span_str("second"), 3, &packed) == 0);
    CHECK_EQ_INT(zip_unpack(buf_span(&packed), &plain), ERR_CORRUPT);
    CHECK_EQ_INT(plain.size_bytes, 0);
    CHECK_EQ_INT(zip_unpack(span_str("this is no frame"), &plain), ERR_CORRUPT);
    buf_done(&plain);
    buf_done(&packed);
}

/* A frame header (RFC 8878, 3.1.1.1) with a window of 2 GiB: memory that we will not give. */
TEST(a_frame_may_not_ask_for_a_large_window)
{
    static const uint8_t frame[] = {0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA8, 0x01, 0x00, 0x00};
    struct buf plain;
    buf_init(&plain, 1000);
    CHECK_EQ_INT(zip_unpack(span_of(frame, sizeof frame), &plain), ERR_LIMIT);
    buf_done(&plain);
}

TEST(without_memory_nothing_is_appended)
{
    struct buf packed, plain;
    pack_sample(&packed, 1000, 3);
    buf_init(&plain, 2000);
    failing_buf_after(0);
    CHECK_EQ_INT(zip_unpack(buf_span(&packed), &plain), ERR_NOMEM);
    CHECK_EQ_INT(zip_pack(span_of(sample, 1000), 3, &plain), ERR_NOMEM);
    failing_buf_after(-1);
    CHECK_EQ_INT(plain.size_bytes, 0);
    buf_done(&plain);
    buf_done(&packed);
}

/* ---- streams ---- */

#define STREAM_BYTES ((size_t)40 << 20) /* more than two frames */

struct sink {
    struct buf packed;
    size_t largest;
    int refuse_after; /* writes; negative: never */
};

static int take_packed(void *context, struct span packed)
{
    struct sink *sink = context;
    if (sink->refuse_after == 0)
        return ERR_CLOSED;
    sink->refuse_after -= sink->refuse_after > 0;
    if (packed.size_bytes > sink->largest)
        sink->largest = packed.size_bytes;
    return buf_append_span(&sink->packed, packed);
}

static struct zip_stream *open_stream(struct sink *sink)
{
    struct zip_stream *stream;
    *sink = (struct sink){.refuse_after = -1};
    buf_init(&sink->packed, 2 * STREAM_BYTES);
    REQUIRE(zip_stream_open(&stream, 1, take_packed, sink) == 0);
    return stream;
}

/* The bytes of the first frame (RFC 8878, 3.1.1): head, blocks up to the last, checksum. */
static size_t frame_bytes(const uint8_t *data, size_t size_bytes)
{
    REQUIRE(size_bytes > 6 && data[0] == 0x28 && data[1] == 0xB5 && data[2] == 0x2F &&
            data[3] == 0xFD);
    CHECK((data[4] & 0x04) != 0); /* the checksum is there */
    CHECK((data[4] & 0x03) == 0); /* no dictionary */
    /* Then one byte: the window, 1 MiB at most, or, of the empty frame, its size. */
    CHECK_EQ_INT(data[4] >> 6, 0);
    CHECK((data[4] & 0x20) ? data[5] == 0 : data[5] <= (20 - 10) << 3);
    size_t at = 6;
    for (;;) {
        REQUIRE(at + 3 <= size_bytes);
        uint32_t head = data[at] | (uint32_t)data[at + 1] << 8 | (uint32_t)data[at + 2] << 16;
        at += 3 + ((head >> 1 & 3) == 1 ? 1 : head >> 3);
        if (head & 1)
            return at + 4;
    }
}

/* Unpacks frame by frame and compares with what noise() gives. */
static size_t unpack_all(const struct buf *packed, const uint8_t *wanted, size_t *frames)
{
    struct buf plain;
    size_t at = 0, done = 0;
    buf_init(&plain, ZIP_STREAM_FRAME_BYTES);
    for (*frames = 0; at < packed->size_bytes; ++*frames) {
        size_t size = frame_bytes(packed->data + at, packed->size_bytes - at);
        REQUIRE(at + size <= packed->size_bytes);
        buf_clear(&plain);
        REQUIRE(zip_unpack(span_of(packed->data + at, size), &plain) == 0);
        CHECK_EQ_MEM(plain.data, wanted + done, plain.size_bytes);
        done += plain.size_bytes;
        at += size;
    }
    buf_done(&plain);
    return done;
}

TEST(a_stream_gives_frames_that_come_back_the_same)
{
    struct sink sink;
    size_t frames;
    struct zip_stream *stream = open_stream(&sink);
    uint8_t *plain = malloc(STREAM_BYTES);
    REQUIRE(plain != NULL);
    fill_sample(plain, STREAM_BYTES);
    for (size_t at = 0, some = 1; at < STREAM_BYTES; at += some, some = some * 3 % 1000003) {
        if (some > STREAM_BYTES - at)
            some = STREAM_BYTES - at;
        REQUIRE(zip_stream_feed(stream, span_of(plain + at, some)) == 0);
    }
    REQUIRE(zip_stream_end(stream) == 0);
    CHECK_EQ_INT(unpack_all(&sink.packed, plain, &frames), STREAM_BYTES);
    CHECK_EQ_INT(frames, 3);
    CHECK(sink.packed.size_bytes < STREAM_BYTES / 2);
    CHECK(sink.largest <= ZIP_STREAM_OUT_BYTES);
    CHECK(zip_stream_memory_bytes(stream) < (size_t)4 << 20);
    printf("      a stream holds %zu KiB\n", zip_stream_memory_bytes(stream) >> 10);
    zip_stream_close(stream);
    buf_done(&sink.packed);
    free(plain);
}

TEST(a_stream_of_nothing_is_one_empty_frame)
{
    struct sink sink;
    size_t frames;
    struct zip_stream *stream = open_stream(&sink);
    CHECK_EQ_INT(sink.packed.size_bytes, 0);
    CHECK_EQ_INT(zip_stream_end(stream), 0);
    CHECK_EQ_INT(unpack_all(&sink.packed, sample, &frames), 0);
    CHECK_EQ_INT(frames, 1);
    size_t size = sink.packed.size_bytes;
    CHECK_EQ_INT(zip_stream_end(stream), 0); /* nothing more to end */
    CHECK_EQ_INT(sink.packed.size_bytes, size);
    zip_stream_close(stream);
    zip_stream_close(NULL);
    buf_done(&sink.packed);
}

TEST(a_stream_ends_with_its_reader)
{
    struct sink sink;
    uint8_t noise[65536];
    uint32_t state = 7;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    struct zip_stream *stream = open_stream(&sink);
    sink.refuse_after = 1;
    int e = 0;
    for (int i = 0; i < 100 && !e; i++)
        e = zip_stream_feed(stream, span_of(noise, sizeof noise));
    CHECK_EQ_INT(e, ERR_CLOSED);
    zip_stream_close(stream);
    buf_done(&sink.packed);
}
