/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counter blocks: what goes in comes out, limits are kept, damage is found at every byte.
 */
#include "proto/block.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

#define SERIES 300
#define SAMPLES 10

static int64_t values[SERIES][SAMPLES];
static struct block_series series[SERIES];

static void fill(void)
{
    uint64_t random = 7;
    for (size_t i = 0; i < SERIES; i++) {
        for (size_t j = 0; j < SAMPLES; j++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            values[i][j] = i % 3 ? (int64_t)i : (int64_t)(random >> (i % 60));
        }
        if (i % 7 == 0)
            values[i][i % SAMPLES] = BLOCK_GAP;
        series[i] = (struct block_series){(uint32_t)(i * 3 + 1), values[i], i % 7 ? "" : "no file"};
    }
    for (size_t j = 0; j < SAMPLES; j++)
        values[14][j] = BLOCK_GAP;
    values[5][0] = INT64_MAX;
    values[5][1] = INT64_MIN + 1;
}

struct seen {
    size_t count;
    bool same;
};

static int compare(void *context, const struct block_view *view)
{
    struct seen *seen = context;
    const struct block_series *s = &series[seen->count++];
    seen->same = seen->same && view->id == s->id && view->sample_count == SAMPLES &&
                 memcmp(view->values, s->values, sizeof values[0]) == 0 &&
                 span_equal(view->reason, span_str(s->reason));
    return 0;
}

static int ignore(void *context, const struct block_view *view)
{
    (void)context;
    return view->sample_count > BLOCK_MAX_SAMPLES;
}

static void encode(struct buf *out)
{
    size_t taken = 0;
    fill();
    buf_init(out, 32768);
    REQUIRE(block_put(out, series, SERIES, SAMPLES, &taken) == 0);
    REQUIRE(taken == SERIES);
}

TEST(a_block_gives_back_every_value)
{
    struct buf b;
    struct seen seen = {0, true};
    struct failure f = {0};
    encode(&b);
    CHECK_EQ_INT(block_each(buf_span(&b), compare, &seen, &f), 0);
    CHECK_EQ_INT(seen.count, SERIES);
    CHECK(seen.same);
    size_t n = 0, samples = 0;
    CHECK_EQ_INT(block_check(buf_span(&b), &n, &samples, &f), 0);
    CHECK_EQ_INT(n, SERIES);
    CHECK_EQ_INT(samples, SAMPLES);
    buf_done(&b);
}

static int check_summary(void *context, const struct block_view *view)
{
    const int64_t *want = context;
    CHECK_EQ_INT(view->last, want[0]);
    CHECK_EQ_INT(view->minimum, want[1]);
    CHECK_EQ_INT(view->maximum, want[2]);
    CHECK_EQ_INT(view->gap_count, want[3]);
    return 77;
}

static void summary_of(const int64_t *v, size_t count, const int64_t *want)
{
    struct buf b;
    struct block_series one = {9, v, NULL};
    size_t taken;
    int64_t copy[4];
    memcpy(copy, want, sizeof copy);
    buf_init(&b, 1024);
    REQUIRE(block_put(&b, &one, 1, count, &taken) == 0);
    CHECK_EQ_INT(block_each(buf_span(&b), check_summary, copy, NULL), 77);
    buf_done(&b);
}

TEST(the_summary_is_of_the_present_values)
{
    summary_of((int64_t[]){5, -3, BLOCK_GAP, 8, 2}, 5, (int64_t[]){2, -3, 8, 1});
    summary_of((int64_t[]){4, 4, 4}, 3, (int64_t[]){4, 4, 4, 0});
    summary_of((int64_t[]){BLOCK_GAP, 6, BLOCK_GAP}, 3, (int64_t[]){6, 6, 6, 2});
    summary_of((int64_t[]){BLOCK_GAP, BLOCK_GAP}, 2,
               (int64_t[]){BLOCK_GAP, BLOCK_GAP, BLOCK_GAP, 2});
    summary_of((int64_t[]){INT64_MAX, INT64_MIN + 1}, 2,
               (int64_t[]){INT64_MIN + 1, INT64_MIN + 1, INT64_MAX, 0});
}

TEST(series_that_do_not_fit_are_left_for_the_next_block)
{
    fill();
    size_t done = 0, blocks = 0;
    struct seen seen = {0, true};
    while (done < SERIES) {
        struct buf b;
        size_t taken = 0;
        buf_init(&b, 1500);
        REQUIRE(block_put(&b, series + done, SERIES - done, SAMPLES, &taken) == 0);
        REQUIRE(taken > 0);
        CHECK_EQ_INT(block_each(buf_span(&b), compare, &seen, NULL), 0);
        done += taken;
        blocks++;
        buf_done(&b);
    }
    CHECK_EQ_INT(done, SERIES);
    CHECK(blocks > 1 && blocks < 20);
    CHECK(seen.same);
}

TEST(no_room_for_one_series_is_a_limit)
{
    struct buf b;
    size_t taken = 99;
    fill();
    buf_init(&b, 8);
    CHECK_EQ_INT(block_put(&b, series, SERIES, SAMPLES, &taken), ERR_LIMIT);
    CHECK_EQ_INT(taken, 99);
    CHECK_EQ_INT(b.size_bytes, 0);
    buf_done(&b);
}

TEST(a_long_reason_is_cut_at_a_character)
{
    char reason[200];
    memset(reason, 'x', sizeof reason);
    memcpy(reason + BLOCK_REASON_SIZE - 2, "\xC3\xA4", 2);
    reason[sizeof reason - 1] = '\0';
    int64_t gap = BLOCK_GAP;
    struct block_series one = {1, &gap, reason};
    struct buf b;
    size_t taken;
    buf_init(&b, 4096);
    REQUIRE(block_put(&b, &one, 1, 1, &taken) == 0);
    CHECK_EQ_INT(block_each(buf_span(&b), ignore, NULL, NULL), 0);
    CHECK(memchr(b.data, 0xC3, b.size_bytes) == NULL);
    buf_done(&b);
}

TEST(a_shortened_block_is_damaged)
{
    struct buf b;
    struct failure f;
    encode(&b);
    for (size_t size = 0; size < b.size_bytes; size++) {
        uint8_t *exact = malloc(size ? size : 1);
        REQUIRE(exact != NULL);
        memcpy(exact, b.data, size);
        int e = block_each(span_of(exact, size), ignore, NULL, &f);
        if (e != ERR_CORRUPT)
            CHECK_EQ_INT(e, ERR_CORRUPT);
        free(exact);
    }
    CHECK(b.size_bytes > 0);
    buf_done(&b);
}

TEST(no_changed_byte_harms_the_reader)
{
    struct buf b;
    size_t n, samples;
    encode(&b);
    for (size_t at = 0; at < b.size_bytes; at++) {
        b.data[at] ^= 0x55;
        int e = block_each(buf_span(&b), ignore, NULL, NULL);
        if (e && e != ERR_CORRUPT && e != ERR_LIMIT)
            CHECK_EQ_INT(e, ERR_CORRUPT);
        (void)block_check(buf_span(&b), &n, &samples, NULL);
        b.data[at] ^= 0x55;
    }
    CHECK_EQ_INT(block_each(buf_span(&b), ignore, NULL, NULL), 0);
    buf_done(&b);
}

TEST(a_lying_summary_is_damage)
{
    /* plain, version 1, one series, two samples: id 1, no flags, last 2, minimum -1 (off), maximum
     * 0 */
    const uint8_t honest[] = {0, 1, 1, 2, 1, 0, 4, 1, 0, 1, 2, 0};
    uint8_t lying[sizeof honest];
    memcpy(lying, honest, sizeof honest);
    CHECK_EQ_INT(block_each(span_of(honest, sizeof honest), ignore, NULL, NULL), 0);
    lying[7] = 3;
    CHECK_EQ_INT(block_each(span_of(lying, sizeof lying), ignore, NULL, NULL), ERR_CORRUPT);
}
