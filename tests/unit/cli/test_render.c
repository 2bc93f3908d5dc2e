/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables, short texts, pictures and JSON lines: widths, styles, and that nothing a host says
 * reaches a terminal as a command.
 */
#include "cli/render.h"

#include <math.h>
#include <string.h>

#include "cli/jsonl.h"
#include "tests/check.h"

#define LIMIT (1 << 16)
#define NOW INT64_C(1795442525000000) /* 2026-11-23T14:02:05Z */

static const struct render_column COLUMNS[] = {{"NAME", false}, {"SIZE", true}, {"TEXT", false}};

static const char *put(struct render_table *t, bool color, struct buf *out)
{
    buf_init(out, LIMIT);
    CHECK_EQ_INT(render_table_put(t, color, out), 0);
    return buf_str(out);
}

TEST(columns_are_as_wide_as_their_widest_cell)
{
    struct render_table t;
    struct buf out;
    render_table_init(&t, COLUMNS, 3);
    render_cell(&t, RENDER_PLAIN, "a");
    render_cell(&t, RENDER_PLAIN, "10");
    render_cell(&t, RENDER_PLAIN, "first");
    render_cell(&t, RENDER_PLAIN, "longer");
    render_cellf(&t, RENDER_PLAIN, "%d KiB", 1234);
    render_cell(&t, RENDER_PLAIN, " ");
    CHECK_EQ_INT(render_row_count(&t), 2);
    CHECK_EQ_STR(put(&t, false, &out), "NAME        SIZE  TEXT\n"
                                       "a             10  first\n"
                                       "longer  1234 KiB\n");
    buf_done(&out);
    render_table_done(&t);
}

TEST(an_empty_cell_is_shown_as_a_gap)
{
    struct render_table t;
    struct buf out;
    render_table_init(&t, COLUMNS, 3);
    render_cell(&t, RENDER_PLAIN, "");
    render_cell(&t, RENDER_PLAIN, "");
    render_cell(&t, RENDER_PLAIN, "");
    CHECK_EQ_STR(put(&t, false, &out), "NAME  SIZE  TEXT\n-        -  -\n");
    buf_done(&out);
    render_table_done(&t);
}

TEST(what_hosts_say_cannot_command_a_terminal)
{
    struct render_table t;
    struct buf out;
    render_table_init(&t, COLUMNS, 3);
    render_cell(&t, RENDER_PLAIN, "\033[2Jweb");
    render_cell(&t, RENDER_PLAIN, "a\nb");
    render_cell(&t, RENDER_PLAIN, "x\xe2\x80\xaey\xff");
    const char *text = put(&t, false, &out);
    CHECK(strchr(text, '\033') == NULL);
    CHECK(strstr(text, "\xe2\x80\xae") == NULL);
    CHECK(strchr(strchr(text, '\n') + 1, '\n')[1] == '\0');
    CHECK(strstr(text, "\\x1b[2Jweb") != NULL || strstr(text, "\\x1B[2Jweb") != NULL);
    buf_done(&out);
    render_table_done(&t);
}

TEST(colour_does_not_change_the_widths)
{
    struct render_table t;
    struct buf out;
    render_table_init(&t, COLUMNS, 3);
    render_cell(&t, RENDER_GOOD, "ok");
    render_cell(&t, RENDER_BAD, "5");
    render_cell(&t, RENDER_PLAIN, "z");
    CHECK_EQ_STR(put(&t, true, &out), "\033[1mNAME\033[0m  \033[1mSIZE\033[0m  \033[1mTEXT\033[0m\n"
                                      "\033[32mok\033[0m       \033[31m5\033[0m  z\n");
    buf_done(&out);
    render_table_done(&t);
}

TEST(characters_of_several_bytes_count_as_one_column)
{
    CHECK_EQ_INT(render_width(span_str("±µs")), 3);
    CHECK_EQ_INT(render_width(span_str("")), 0);
}

TEST(a_cleared_table_begins_anew)
{
    struct render_table t;
    struct buf out;
    render_table_init(&t, COLUMNS, 3);
    for (int i = 0; i < 300; i++)
        render_cell(&t, RENDER_PLAIN, "something long enough");
    render_table_clear(&t);
    CHECK_EQ_INT(render_row_count(&t), 0);
    CHECK_EQ_STR(put(&t, false, &out), "NAME  SIZE  TEXT\n");
    buf_done(&out);
    render_table_done(&t);
}

TEST(short_forms_of_times)
{
    char out[RENDER_TEXT_SIZE];
    render_clock(NOW, NOW, out);
    CHECK_EQ_STR(out, "14:02:05");
    render_clock(NOW - INT64_C(86400000000), NOW, out);
    CHECK_EQ_STR(out, "2026-11-22 14:02:05");
    render_clock(0, NOW, out);
    CHECK_EQ_STR(out, "-");
    render_ago(NOW - 2100000, NOW, out);
    CHECK_EQ_STR(out, "2.1 s ago");
    render_ago(NOW + 5, NOW, out);
    CHECK_EQ_STR(out, "0 us ago");
    render_ago(0, NOW, out);
    CHECK_EQ_STR(out, "-");
    render_skew(300, 100, out);
    CHECK_EQ_STR(out, "+0.3 ms ±0.1 ms");
    render_skew(-2000000, 40, out);
    CHECK_EQ_STR(out, "-2.0 s ±40 us");
}

TEST(values_are_shown_in_their_unit)
{
    char out[RENDER_TEXT_SIZE];
    render_value(1536, "bytes", out);
    CHECK_EQ_STR(out, "1.5 KiB");
    render_value(2100000, "us", out);
    CHECK_EQ_STR(out, "2.1 s");
    render_value(17, "1", out);
    CHECK_EQ_STR(out, "17");
    render_value(0.125, "1", out);
    CHECK_EQ_STR(out, "0.125");
    render_value(-3, "bytes", out);
    CHECK_EQ_STR(out, "-3");
    render_value(1e300, "us", out);
    CHECK_EQ_STR(out, "1e+300");
}

TEST(a_bar_is_full_only_at_the_end)
{
    struct buf out;
    buf_init(&out, LIMIT);
    render_bar(&out, 0, 4, 8);
    render_bar(&out, 2, 4, 8);
    render_bar(&out, 4, 4, 8);
    render_bar(&out, 9, 4, 8);
    render_bar(&out, 0, 0, 4);
    CHECK_EQ_STR(buf_str(&out), "[        ][====>   ][========][========][====]");
    buf_done(&out);
}

TEST(a_sparkline_leaves_gaps_blank)
{
    struct buf out;
    const double values[] = {0, 1, NAN, 7};
    const bool gaps[] = {false, false, true, false};
    buf_init(&out, LIMIT);
    CHECK_EQ_INT(render_sparkline(&out, values, gaps, 4, 10), 0);
    CHECK_EQ_STR(buf_str(&out), "▁▂ █");
    buf_clear(&out);
    CHECK_EQ_INT(render_sparkline(&out, values, gaps, 4, 2), 0);
    CHECK_EQ_STR(buf_str(&out), "▁█");
    buf_clear(&out);
    CHECK_EQ_INT(render_sparkline(&out, values, gaps, 0, 2), 0);
    CHECK_EQ_STR(buf_str(&out), "");
    buf_done(&out);
}

/* ---- JSON lines ---- */

TEST(a_json_line_has_every_kind_of_value)
{
    struct buf out;
    struct jsonl j = {.out = &out};
    buf_init(&out, LIMIT);
    jsonl_object(&j, NULL);
    jsonl_str(&j, "text", "a\"b\n");
    jsonl_int(&j, "int", -5);
    jsonl_u64(&j, "u64", UINT64_MAX);
    jsonl_bool(&j, "bool", true);
    jsonl_null(&j, "null");
    jsonl_real(&j, "half", 0.5);
    jsonl_real(&j, "whole", 1048576);
    jsonl_real(&j, "gap", NAN);
    jsonl_time(&j, "time", NOW + 123456);
    jsonl_time(&j, "unknown", 0);
    jsonl_hex(&j, "hex", (const uint8_t *)"\x01\xff", 2);
    jsonl_list(&j, "list");
    jsonl_int(&j, NULL, 1);
    jsonl_object(&j, NULL);
    jsonl_end(&j);
    jsonl_end(&j);
    jsonl_object(&j, "labels");
    jsonl_member(&j, "ro\"le", "web");
    CHECK_EQ_INT(jsonl_line(&j), 0);
    CHECK_EQ_STR(buf_str(&out),
                 "{\"text\":\"a\\\"b\\n\",\"int\":-5,\"u64\":18446744073709551615,\"bool\":true,"
                 "\"null\":null,\"half\":0.5,\"whole\":1048576,\"gap\":null,"
                 "\"time\":\"2026-11-23T14:02:05.123456Z\",\"unknown\":null,\"hex\":\"01ff\","
                 "\"list\":[1,{}],\"labels\":{\"ro\\\"le\":\"web\"}}\n");
    buf_done(&out);
}

TEST(a_json_line_keeps_its_first_error)
{
    struct buf out;
    struct jsonl j = {.out = &out};
    buf_init(&out, 8);
    jsonl_object(&j, NULL);
    jsonl_str(&j, "a", "far too long for this buffer");
    jsonl_int(&j, "b", 1);
    CHECK_EQ_INT(jsonl_line(&j), ERR_LIMIT);
    CHECK(out.size_bytes <= 8);
    buf_done(&out);
}
