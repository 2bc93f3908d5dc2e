/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of series: numbers never used twice, slots used again, gaps with reasons.
 */
#include "agent/series.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"

static trawl_v1_Descriptors described;

static struct series_table *open_table(size_t limit)
{
    struct series_table *t = NULL;
    REQUIRE(series_open(&t, limit) == 0);
    return t;
}

static int define(struct series_table *t, const char *name, uint32_t pid)
{
    struct os_counter c = {name, pid ? "redis" : "", "us", OS_COUNT, 1, pid};
    return series_define(t, &c);
}

TEST(samples_become_rows)
{
    struct series_table *t = open_table(100);
    struct block_series rows[4];
    int a = define(t, "cpu.user", 0), b = define(t, "cpu.system", 0);
    for (int i = 0; i < 3; i++) {
        series_next_sample(t, NULL);
        series_value(t, a, i);
        if (i == 1)
            series_gap(t, b, "permission denied");
        else
            series_value(t, b, 10 * i);
        CHECK_EQ_INT(series_values_set(t), i == 1 ? 1 : 2);
    }
    REQUIRE(series_rows(t, 0, rows, 4) == 2);
    CHECK_EQ_INT(rows[0].id, 1);
    CHECK_EQ_MEM(rows[0].values, ((int64_t[]){0, 1, 2}), 24);
    CHECK_EQ_STR(rows[0].reason, "");
    CHECK_EQ_MEM(rows[1].values, ((int64_t[]){0, BLOCK_GAP, 20}), 24);
    CHECK_EQ_STR(rows[1].reason, "permission denied");
    CHECK_EQ_INT(series_rows(t, 2, rows, 4), 1);
    series_close(t);
}

TEST(a_retired_series_is_in_its_last_block_and_then_gone)
{
    struct series_table *t = open_table(100);
    struct block_series rows[4];
    int a = define(t, "process.rss", 7);
    series_next_sample(t, NULL);
    series_value(t, a, 5);
    series_next_sample(t, NULL);
    series_retire(t, a);
    REQUIRE(series_rows(t, 0, rows, 4) == 1);
    CHECK_EQ_STR(rows[0].reason, "the process has ended");
    series_clear(t);
    CHECK_EQ_INT(series_count(t), 0);
    int b = define(t, "process.rss", 8);
    CHECK_EQ_INT(b, a); /* the slot is used again, the number is not */
    CHECK_EQ_INT(series_last_id(t), 2);
    series_close(t);
}

TEST(a_series_that_never_spoke_is_left_out)
{
    struct series_table *t = open_table(100);
    struct block_series rows[4];
    int a = define(t, "process.rss", 7);
    series_next_sample(t, NULL);
    series_retire(t, a);
    CHECK_EQ_INT(series_rows(t, 0, rows, 4), 0);
    series_close(t);
}

TEST(the_limit_is_kept_and_freed_places_count)
{
    struct series_table *t = open_table(100);
    int last = 0;
    for (int i = 0; i < 100; i++)
        CHECK((last = define(t, "x", 0)) >= 0);
    CHECK_EQ_INT(define(t, "x", 0), ERR_LIMIT);
    series_retire(t, last);
    CHECK_EQ_INT(define(t, "x", 0), ERR_LIMIT); /* until the block is cut */
    series_clear(t);
    CHECK_EQ_INT(define(t, "x", 0), last);
    series_close(t);
}

TEST(descriptors_come_in_lists_by_number)
{
    struct series_table *t = open_table(1000);
    for (int i = 0; i < 150; i++)
        define(t, "disk.reads", (uint32_t)i);
    uint32_t after = 0;
    CHECK_EQ_INT(series_describe(t, &after, false, &described), 64);
    CHECK_EQ_INT(described.list[63].id, 64);
    CHECK_EQ_STR(described.list[63].instance, "redis");
    CHECK_EQ_STR(described.list[63].unit, "us");
    CHECK_EQ_INT(described.list[63].pid, 63);
    CHECK_EQ_INT(series_describe(t, &after, false, &described), 64);
    CHECK_EQ_INT(series_describe(t, &after, false, &described), 22);
    CHECK_EQ_INT(described.list[21].id, 150);
    CHECK_EQ_INT(series_describe(t, &after, false, &described), 0);
    series_close(t);
}

TEST(names_from_outside_are_made_printable)
{
    struct series_table *t = open_table(10);
    struct os_counter c = {"process.rss", "a\x1b[31m\xff", "bytes", OS_GAUGE, 1, 3};
    REQUIRE(series_define(t, &c) == 0);
    uint32_t after = 0;
    REQUIRE(series_describe(t, &after, false, &described) == 1);
    CHECK(strchr(described.list[0].instance, 0x1b) == NULL);
    CHECK(memchr(described.list[0].instance, 0xff, strlen(described.list[0].instance)) == NULL);
    series_close(t);
}
