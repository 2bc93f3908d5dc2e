/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series: runs put together in any order, gaps that stay gaps, rates, means and sums; and how they
 * are shown (golden).
 */
#include "cli/series.h"

#include <math.h>
#include <string.h>

#include "cli/render_series.h"
#include "tests/unit/cli/golden.h"

#define SECOND INT64_C(1000000)
#define NOW INT64_C(1795442520000000) /* 2026-11-23T14:02:00Z */
#define GAP INT64_MIN

static trawl_v1_Samples run_of(const char *host, const char *name, const char *instance,
                               trawl_v1_Kind kind, int64_t from_us, const int64_t *values,
                               size_t count)
{
    trawl_v1_Samples m = {.has_descriptor = true, .from_us = from_us, .step_us = SECOND};
    text_copy(m.host, sizeof m.host, host);
    text_copy(m.descriptor.name, sizeof m.descriptor.name, name);
    text_copy(m.descriptor.instance, sizeof m.descriptor.instance, instance);
    text_copy(m.descriptor.unit, sizeof m.descriptor.unit, "1");
    m.descriptor.kind = kind;
    m.descriptor.scale = 1;
    m.values_count = (pb_size_t)count;
    for (size_t i = 0; i < count; i++)
        m.values[i] = values[i];
    return m;
}

static void add(struct series_set *set, trawl_v1_Samples m)
{
    CHECK_EQ_INT(series_add(set, &m), 0);
}

#define RUN(host, name, instance, kind, from, ...)                                           \
    run_of(host, name, instance, trawl_v1_Kind_##kind, from, (const int64_t[]){__VA_ARGS__}, \
           sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

TEST(runs_come_together_in_any_order_with_gaps_between)
{
    struct series_set set = {.list = NULL};
    add(&set, RUN("a", "x", "", GAUGE, NOW + 5 * SECOND, 5, 6));
    add(&set, RUN("a", "x", "", GAUGE, NOW, 0, 1));
    add(&set, RUN("a", "x", "", GAUGE, NOW + 3 * SECOND + 200000, 3, GAP));
    CHECK_EQ_INT(set.count, 1);
    const struct series *s = &set.list[0];
    CHECK_EQ_INT(s->from_us, NOW);
    CHECK_EQ_INT(s->count, 7);
    static const double wanted[] = {0, 1, NAN, 3, NAN, 5, 6};
    for (size_t i = 0; i < 7; i++)
        CHECK(isnan(wanted[i]) ? isnan(s->values[i]) : s->values[i] == wanted[i]);
    struct series_summary m = series_summarise(s);
    CHECK_EQ_INT(m.present, 5);
    CHECK_EQ_INT(m.gaps, 2);
    CHECK(m.last == 6 && m.least == 0 && m.most == 6 && m.mean == 3);
    series_done(&set);
}

TEST(a_gap_does_not_wipe_what_was_there)
{
    struct series_set set = {.list = NULL};
    add(&set, RUN("a", "x", "", GAUGE, NOW, 1, 2));
    add(&set, RUN("a", "x", "", GAUGE, NOW, GAP, 3));
    CHECK(set.list[0].values[0] == 1 && set.list[0].values[1] == 3);
    series_done(&set);
}

TEST(the_scale_divides)
{
    struct series_set set = {.list = NULL};
    trawl_v1_Samples m = RUN("a", "load", "", GAUGE, NOW, 150);
    m.descriptor.scale = 100;
    add(&set, m);
    CHECK(set.list[0].values[0] == 1.5);
    series_done(&set);
}

TEST(a_run_without_step_or_descriptor_or_far_away_is_refused)
{
    struct series_set set = {.list = NULL};
    trawl_v1_Samples m = RUN("a", "x", "", GAUGE, NOW, 1);
    m.step_us = 0;
    CHECK_EQ_INT(series_add(&set, &m), ERR_INVALID);
    m = RUN("a", "x", "", GAUGE, NOW, 1);
    m.has_descriptor = false;
    CHECK_EQ_INT(series_add(&set, &m), ERR_INVALID);
    add(&set, RUN("a", "x", "", GAUGE, NOW, 1));
    m = RUN("a", "x", "", GAUGE, NOW + 2000000 * SECOND, 1);
    CHECK_EQ_INT(series_add(&set, &m), ERR_LIMIT);
    m = RUN("a", "x", "", GAUGE, 1, 1);
    CHECK_EQ_INT(series_add(&set, &m), ERR_LIMIT);
    CHECK_EQ_INT(set.list[0].count, 1);
    series_done(&set);
}

TEST(a_count_becomes_a_rate_and_a_restart_a_gap)
{
    struct series_set set = {.list = NULL};
    add(&set, RUN("a", "x", "", COUNT, NOW, 10, 15, GAP, 30, 2, 4));
    series_rates(&set);
    const struct series *s = &set.list[0];
    CHECK(s->is_rate);
    CHECK_EQ_INT(s->from_us, NOW + SECOND);
    CHECK_EQ_INT(s->count, 5);
    CHECK(s->values[0] == 5 && isnan(s->values[1]) && isnan(s->values[2]) && isnan(s->values[3]) &&
          s->values[4] == 2);
    series_rates(&set);
    CHECK_EQ_INT(set.list[0].count, 5);
    series_done(&set);
}

TEST(a_mean_over_a_step_is_aligned_and_a_bin_without_samples_a_gap)
{
    struct series_set set = {.list = NULL};
    add(&set, RUN("a", "x", "", GAUGE, NOW + 8 * SECOND, 1, 3, GAP, GAP, GAP, GAP, GAP, 9));
    CHECK_EQ_INT(series_resample(&set, 5 * SECOND), 0);
    const struct series *s = &set.list[0];
    CHECK_EQ_INT(s->from_us, NOW + 5 * SECOND);
    CHECK_EQ_INT(s->step_us, 5 * SECOND);
    CHECK_EQ_INT(s->count, 3);
    CHECK(s->values[0] == 2 && isnan(s->values[1]) && s->values[2] == 9);
    CHECK_EQ_INT(series_resample(&set, SECOND), ERR_INVALID);
    CHECK_EQ_INT(series_resample(&set, 0), ERR_INVALID);
    series_done(&set);
}

TEST(a_sum_has_a_gap_where_a_part_has_one_and_none_before_it_began)
{
    struct series_set set = {.list = NULL};
    add(&set, RUN("a", "x", "1", GAUGE, NOW, 1, 1, 1, 1));
    add(&set, RUN("a", "x", "2", GAUGE, NOW + 2 * SECOND, 10, GAP, 10));
    add(&set, RUN("b", "x", "1", GAUGE, NOW, 7));
    CHECK_EQ_INT(series_sum_by_host(&set), 0);
    CHECK_EQ_INT(set.count, 2);
    const struct series *s = &set.list[0];
    CHECK_EQ_STR(s->host, "a");
    CHECK_EQ_STR(s->instance, "");
    CHECK_EQ_INT(s->count, 5);
    CHECK(s->values[0] == 1 && s->values[1] == 1 && s->values[2] == 11 && isnan(s->values[3]) &&
          s->values[4] == 10);
    CHECK(set.list[1].values[0] == 7);
    series_done(&set);
}

/* ---- how they look ---- */

static void fill(struct series_set *set)
{
    add(set, RUN("web-1", "cpu.busy", "", COUNT, NOW, 0, 500000, 1000000, GAP, 2000000, 2125000));
    set->list[0].unit[0] = 'u', set->list[0].unit[1] = 's', set->list[0].unit[2] = '\0';
    add(set, RUN("web-2", "memory.used", "", GAUGE, NOW, 1024, 2048, 4096));
    text_copy(set->list[1].unit, sizeof set->list[1].unit, "bytes");
    text_copy(set->list[1].gap_reason, sizeof set->list[1].gap_reason, "permission\033 denied");
    add(set, RUN("web-2", "disk.read", "sda,\"1\"", COUNT, NOW, 7));
}

TEST(series_for_people)
{
    struct series_set set = {.list = NULL};
    struct buf out;
    buf_init(&out, GOLDEN_LIMIT);
    fill(&set);
    series_rates(&set);
    series_sort(&set);
    CHECK_EQ_INT(render_series_summary(&set, false, false, &out), 0);
    CHECK_EQ_INT(render_series_summary(&set, true, false, &out), 0);
    CHECK_EQ_INT(render_series_plot(&set, 100, false, &out), 0);
    CHECK_EQ_INT(render_series_times(&set, NOW, false, &out), 0);
    CHECK_EQ_INT(series_resample(&set, 2 * SECOND), 0);
    CHECK_EQ_INT(render_series_times(&set, NOW, false, &out), 0);
    golden_check("series", buf_str(&out));
    buf_done(&out);
    series_done(&set);
}

TEST(many_series_are_shown_one_below_the_other)
{
    struct series_set set = {.list = NULL};
    struct buf out;
    char host[16];
    buf_init(&out, GOLDEN_LIMIT);
    for (int i = 0; i < 9; i++) {
        text_format(host, sizeof host, "h%d", i);
        add(&set, RUN(host, "x", "", GAUGE, NOW, i, GAP));
    }
    CHECK_EQ_INT(render_series_times(&set, NOW, false, &out), 0);
    CHECK(strstr(buf_str(&out), "TIME      HOST  COUNTER  INSTANCE  PID  VALUE\n") != NULL);
    CHECK(strstr(buf_str(&out), "14:02:01  h8    x"
                                "                           -\n") != NULL);
    buf_done(&out);
    series_done(&set);
}

TEST(series_for_programs)
{
    struct series_set set = {.list = NULL};
    struct buf out;
    buf_init(&out, GOLDEN_LIMIT);
    fill(&set);
    for (size_t i = 0; i < set.count; i++)
        CHECK_EQ_INT(render_series_json(&set.list[i], &out), 0);
    for (size_t i = 0; i < set.count; i++)
        CHECK_EQ_INT(render_series_csv(&set.list[i], i == 0, &out), 0);
    golden_check("series_json", buf_str(&out));
    buf_done(&out);
    series_done(&set);
}
