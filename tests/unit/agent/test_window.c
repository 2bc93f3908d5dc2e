/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The window of an artifact that is sent while it is taken: what it holds, what leaves it, how it
 * ends.
 */
#include "kit.h"

#include "agent/stream.h"

static struct stream *open_window(void)
{
    trawl_v1_Artifact meta = trawl_v1_Artifact_init_zero;
    struct stream *s;
    struct failure f;
    meta.no = 3;
    REQUIRE(stream_open(&s, &meta, &f) == 0);
    return s;
}

static void fill(struct stream *s, size_t size_bytes, uint64_t *noise)
{
    static uint8_t block[65536];
    while (size_bytes > 0) {
        size_t some = size_bytes < sizeof block ? size_bytes : sizeof block;
        kit_noise(noise, block, (some + 7) / 8 * 8);
        REQUIRE(stream_write(s, span_of(block, some)) == 0);
        size_bytes -= some;
    }
}

TEST(a_window_takes_no_more_than_it_holds)
{
    struct stream *s = open_window();
    struct failure f;
    uint64_t noise = KIT_NOISE_SEED;
    size_t whole = stream_room_bytes(s);
    CHECK_EQ_INT(whole, (size_t)STREAM_WINDOW_PIECES * CODEC_PIECE_SIZE);
    CHECK(!stream_has_run(s));
    fill(s, STREAM_RUN_PIECES * CODEC_PIECE_SIZE - 1, &noise);
    CHECK(!stream_has_run(s));
    fill(s, 1, &noise);
    CHECK(stream_has_run(s));
    fill(s, whole - STREAM_RUN_PIECES * CODEC_PIECE_SIZE, &noise);
    CHECK_EQ_INT(stream_room_bytes(s), 0);
    CHECK_EQ_INT(stream_write(s, span_str("x")), ERR_LIMIT);
    struct stream_run run = stream_next_run(s);
    CHECK(run.first == 0 && run.count == STREAM_RUN_PIECES && !run.is_last);
    CHECK_EQ_INT(stream_stored(s, 2, &f), 0);
    CHECK_EQ_INT(stream_room_bytes(s), 2 * CODEC_PIECE_SIZE);
    struct span piece;
    CHECK_EQ_INT(stream_piece(s, 1, &piece), ERR_NOTFOUND);
    CHECK_EQ_INT(stream_piece(s, 2, &piece), 0);
    CHECK_EQ_INT(piece.size_bytes, CODEC_PIECE_SIZE);
    CHECK_EQ_INT(stream_piece(s, STREAM_WINDOW_PIECES, &piece), ERR_NOTFOUND);
    CHECK_EQ_INT(stream_stored(s, 1, &f), ERR_CORRUPT);
    CHECK_EQ_INT(stream_stored(s, STREAM_WINDOW_PIECES + 1, &f), ERR_PROTOCOL);
    stream_close(s);
    stream_close(NULL);
}

TEST(the_end_is_a_last_piece_of_any_size)
{
    const size_t sizes[] = {0, 1, CODEC_PIECE_SIZE - 1, CODEC_PIECE_SIZE, CODEC_PIECE_SIZE + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct stream *s = open_window();
        trawl_v1_Artifact meta = trawl_v1_Artifact_init_zero;
        struct span piece;
        struct failure f;
        uint64_t noise = KIT_NOISE_SEED;
        fill(s, sizes[i], &noise);
        stream_end(s, &meta);
        CHECK_EQ_INT(meta.size_bytes, sizes[i]);
        CHECK_EQ_INT(meta.no, 3);
        CHECK_EQ_INT(meta.sha256.size, 32);
        struct stream_run run = stream_next_run(s);
        CHECK(run.is_last);
        CHECK_EQ_INT(run.count, sizes[i] > CODEC_PIECE_SIZE ? 2 : 1);
        REQUIRE(stream_piece(s, run.count - 1, &piece) == 0);
        CHECK_EQ_INT(piece.size_bytes, sizes[i] - (run.count - 1) * CODEC_PIECE_SIZE);
        /* All stored, but not sealed: an empty piece says that it is complete; pairs are counted.
         */
        REQUIRE(stream_stored(s, 2, &f) == 0);
        run = stream_next_run(s);
        CHECK(run.first == 2 && run.count == 1 && run.is_last);
        REQUIRE(stream_piece(s, 2, &piece) == 0);
        CHECK_EQ_INT(piece.size_bytes, 0);
        stream_close(s);
    }
}
