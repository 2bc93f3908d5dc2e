/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error traces from recorded logs: what is found in each, however the bytes are cut, whatever
 * stands before each line, between lines and around the whole; floods; what a later reader goes on
 * from.
 */
#include "agent/trace.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/port.h"
#include "common/text.h"
#include "tests/check.h"
#include "tests/unit/agent/kit_trace.h"

#define FIXTURES TESTS_DIR "/fixtures/traces"
#define NOW_US UINT64_C(1000000)

#define KINDS 40

struct told {
    struct buf text;
    uint64_t records, sum, begin;
    uint64_t of_line[KINDS]; /* by the line of the innermost frame */
};

static void on_trace(void *context, const struct os_exception *e, uint64_t begin)
{
    struct told *told = context;
    kit_trace_text(&told->text, e);
    told->records++;
    told->sum += e->count;
    told->begin = begin;
    told->of_line[e->frame_count ? e->frames[0].line % KINDS : 0] += e->count;
    CHECK(e->frame_count <= OS_EXCEPTION_FRAMES && e->type[0] && e->source == OS_LOG_TRACE);
}

static void init(struct told *told)
{
    memset(told, 0, sizeof *told);
    buf_init(&told->text, 64 << 20);
}

static struct trace *open_trace(struct told *told)
{
    struct trace *trace = NULL;
    init(told);
    REQUIRE(trace_open(&trace, on_trace, told) == 0);
    return trace;
}

static void run(struct told *told, struct span log, size_t piece)
{
    struct trace *trace = open_trace(told);
    for (size_t at = 0; at < log.size_bytes; at += piece) {
        size_t size = log.size_bytes - at < piece ? log.size_bytes - at : piece;
        trace_feed(trace, span_of(log.data + at, size), 1, NOW_US);
    }
    trace_end(trace);
    CHECK_EQ_INT(trace_safe(trace), trace_fed(trace));
    trace_close(trace);
}

static void read_fixture(struct buf *out, const char *name, const char *ending)
{
    char path[512];
    REQUIRE(text_format(path, sizeof path, "%s/%s%s", FIXTURES, name, ending) == 0);
    buf_init(out, 4 << 20);
    REQUIRE(port_read_file(path, out, NULL) == 0);
}

/* Calls `each` for every recorded log. */
static unsigned each_fixture(void (*each)(const char *name, struct span log, const char *want))
{
    DIR *dir = opendir(FIXTURES);
    unsigned count = 0;
    REQUIRE(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char name[256];
        size_t length = strlen(entry->d_name);
        if (length < 5 || strcmp(entry->d_name + length - 4, ".txt") != 0)
            continue;
        struct buf log, want;
        REQUIRE(text_copy_span(name, sizeof name, span_of(entry->d_name, length - 4)) == 0);
        read_fixture(&log, name, ".txt");
        read_fixture(&want, name, ".want");
        each(name, buf_span(&log), buf_str(&want));
        buf_done(&log);
        buf_done(&want);
        count++;
    }
    closedir(dir);
    return count;
}

/* ---- what is found ---- */

static void check_whole(const char *name, struct span log, const char *want)
{
    struct told told;
    run(&told, log, log.size_bytes);
    if (strcmp(buf_str(&told.text), want) != 0)
        printf("  of %s:\n", name);
    CHECK_EQ_STR(buf_str(&told.text), want);
    buf_done(&told.text);
}

TEST(every_recorded_log_gives_what_is_expected)
{
    CHECK(each_fixture(check_whole) > 80);
}

static void check_pieces(const char *name, struct span log, const char *want)
{
    static const size_t pieces[] = {1, 7, 100, 4093};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        struct told told;
        run(&told, log, pieces[i]);
        if (strcmp(buf_str(&told.text), want) != 0)
            printf("  of %s in pieces of %zu:\n", name, pieces[i]);
        CHECK_EQ_STR(buf_str(&told.text), want);
        buf_done(&told.text);
    }
}

TEST_LIMIT(pieces_make_no_difference, 60)
{
    CHECK(each_fixture(check_pieces) > 80);
}

/* Each line with `before` and `after`; a `foreign` one behind each. */
static void dress(struct buf *out, struct span log, const char *before, const char *after,
                  const char *foreign)
{
    struct span line;
    buf_init(out, 16 << 20);
    for (unsigned i = 0; !text_take_until(&log, '\n', &line); i++) {
        REQUIRE(buf_printf(out, "Nov 23 14:%02u:%02u %s", i / 60 % 60, i % 60, before) == 0);
        REQUIRE(buf_append_span(out, line) == 0 && buf_append_str(out, after) == 0);
        REQUIRE(buf_append_str(out, foreign) == 0);
    }
}

/* Those whose own lines bear prefixes of two writers are not made of one. */
static bool is_of_one_writer(const char *name)
{
    static const char *const several[] = {"python_syslog", "java_cri", "none_ordinary"};
    for (size_t i = 0; i < sizeof several / sizeof several[0]; i++)
        if (strcmp(several[i], name) == 0)
            return false;
    return true;
}

static unsigned count_heads(const char *text)
{
    unsigned count = 0;
    for (const char *at = text; at && *at; at = strchr(at, '\n'), at += at != NULL)
        count += *at != ' ';
    return count;
}

static void check_dressed(const char *name, struct span log, const char *want, const char *after,
                          const char *foreign)
{
    struct buf dressed;
    struct told told;
    if (!is_of_one_writer(name))
        return;
    dress(&dressed, log, "web-1 shop[701]: ", after, foreign);
    run(&told, buf_span(&dressed), 65536);
    if (told.records != count_heads(want))
        printf("  of %s: %s", name, buf_str(&told.text));
    CHECK_EQ_INT(told.records, count_heads(want));
    buf_done(&dressed);
    buf_done(&told.text);
}

static void check_prefixed(const char *name, struct span log, const char *want)
{
    check_dressed(name, log, want, "\n", "");
}

TEST(a_prefix_on_every_line_is_taken_off)
{
    CHECK(each_fixture(check_prefixed) > 80);
}

static void check_interleaved(const char *name, struct span log, const char *want)
{
    check_dressed(name, log, want, "\r\n",
                  "Nov 23 14:00:00 web-1 shop[702]: GET /cart/17 200\n"
                  "Nov 23 14:00:00 web-1 sshd[99]: Accepted publickey for root\n");
}

TEST(lines_of_others_between_do_not_break_it)
{
    CHECK(each_fixture(check_interleaved) > 80);
}

static void check_twice(const char *name, struct span log, const char *want)
{
    struct buf twice;
    struct told told;
    buf_init(&twice, 16 << 20);
    for (int i = 0; i < 2; i++) {
        REQUIRE(buf_append_span(&twice, log) == 0);
        if (twice.data[twice.size_bytes - 1] != '\n')
            REQUIRE(buf_append_byte(&twice, '\n') == 0);
    }
    run(&told, buf_span(&twice), 65536);
    if (told.sum != 2 * count_heads(want))
        printf("  of %s: %s", name, buf_str(&told.text));
    CHECK_EQ_INT(told.sum, 2 * count_heads(want));
    buf_done(&twice);
    buf_done(&told.text);
}

/* A crash loop: nothing stands between one and the next. */
TEST(one_right_behind_the_other_are_two)
{
    CHECK(each_fixture(check_twice) > 80);
}

/* ---- bytes that are no text ---- */

TEST(garbage_around_it_is_no_trace_and_hides_none)
{
    static uint8_t noise[300000];
    uint64_t state = 88172645463325252u;
    struct buf log, all;
    struct told told;
    for (size_t i = 0; i < sizeof noise; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise[i] = (uint8_t)state;
    }
    run(&told, span_of(noise, sizeof noise), 1000);
    CHECK_EQ_INT(told.records, 0);
    buf_done(&told.text);
    read_fixture(&log, "python_cause", ".txt");
    buf_init(&all, 1 << 20);
    REQUIRE(buf_append(&all, noise, sizeof noise) == 0 && buf_append_str(&all, "\n") == 0);
    REQUIRE(buf_append_span(&all, buf_span(&log)) == 0);
    REQUIRE(buf_append(&all, "\0\0\0\0\n", 5) == 0 && buf_append(&all, noise, sizeof noise) == 0);
    run(&told, buf_span(&all), 4096);
    CHECK_EQ_INT(told.records, 1);
    CHECK(strstr(buf_str(&told.text), "python: CartError\n") != NULL);
    buf_done(&told.text);
    buf_done(&all);
    buf_done(&log);
}

TEST(a_line_without_end_is_cut_and_what_follows_is_found)
{
    struct buf log, want;
    struct told whole, pieces;
    buf_init(&log, 8 << 20);
    for (unsigned i = 0; i < 1000000; i++)
        REQUIRE(buf_append_str(&log, "\tat ") == 0);
    REQUIRE(buf_append_str(&log, "\n") == 0);
    read_fixture(&want, "java_cause", ".txt");
    REQUIRE(buf_append_span(&log, buf_span(&want)) == 0);
    run(&whole, buf_span(&log), log.size_bytes);
    run(&pieces, buf_span(&log), 3001);
    CHECK_EQ_INT(whole.records, 1);
    CHECK_EQ_STR(buf_str(&whole.text), buf_str(&pieces.text));
    CHECK_EQ_INT(whole.begin, 4000001);
    CHECK_EQ_INT(pieces.begin, 4000001);
    buf_done(&whole.text);
    buf_done(&pieces.text);
    buf_done(&log);
    buf_done(&want);
}

/* ---- time ---- */

static void feed_text(struct trace *trace, const char *text, uint64_t mono_us)
{
    trace_feed(trace, span_str(text), 1, mono_us);
}

TEST(quiet_ends_a_trace_and_a_half_line_waits)
{
    struct told told;
    struct trace *trace = open_trace(&told);
    feed_text(trace, "java.lang.IllegalStateException: x\n\tat a.B.c(B.java:1)\n", NOW_US);
    CHECK_EQ_INT(trace_safe(trace), 0);
    trace_tick(trace, NOW_US + TRACE_QUIET_US - 1);
    CHECK_EQ_INT(told.records, 0);
    CHECK(trace_waits(trace));
    feed_text(trace, "\tat a.B.d(B.ja", NOW_US + TRACE_QUIET_US);
    trace_tick(trace, NOW_US + 2 * TRACE_QUIET_US);
    CHECK_EQ_INT(told.records, 0);
    feed_text(trace, "va:2)\n", NOW_US + 2 * TRACE_QUIET_US);
    trace_tick(trace, NOW_US + 3 * TRACE_QUIET_US);
    CHECK_EQ_INT(told.records, 1);
    CHECK(strstr(buf_str(&told.text), "a.B.d  B.java:2") != NULL);
    CHECK_EQ_INT(trace_safe(trace), trace_fed(trace));
    CHECK(!trace_waits(trace));
    trace_close(trace);
    buf_done(&told.text);
}

TEST(what_was_never_finished_is_not_told)
{
    struct told told;
    struct trace *trace = open_trace(&told);
    feed_text(trace, "Traceback (most recent call last):\n  File \"/a.py\", line 1, in f\n",
              NOW_US);
    trace_tick(trace, NOW_US + 100 * TRACE_QUIET_US);
    trace_end(trace);
    CHECK_EQ_INT(told.records, 0);
    trace_close(trace);
    buf_done(&told.text);
}

/* A reader that ends in the middle, and one that goes on where nothing more would have been told.
 */
TEST(a_later_reader_goes_on_and_tells_each_once)
{
    struct buf log, part;
    struct told all, first, second;
    buf_init(&log, 1 << 20);
    for (unsigned i = 0; i < 3; i++) {
        read_fixture(&part, i == 1 ? "java_cause" : "python_cause", ".txt");
        REQUIRE(buf_append_span(&log, buf_span(&part)) == 0);
        buf_done(&part);
    }
    run(&all, buf_span(&log), 4096);
    CHECK_EQ_INT(all.records, 3);
    for (size_t cut = 1; cut < log.size_bytes; cut += 13) {
        struct trace *trace = open_trace(&first);
        trace_feed(trace, span_of(log.data, cut), 1, NOW_US);
        uint64_t safe = trace_safe(trace);
        REQUIRE(safe <= cut);
        trace_close(trace); /* killed: what is not told yet is not told */
        trace = open_trace(&second);
        trace_before(trace, span_of(log.data, (size_t)safe));
        trace_feed(trace, span_of(log.data + safe, log.size_bytes - (size_t)safe), 1, NOW_US);
        trace_end(trace);
        trace_close(trace);
        REQUIRE(buf_append_span(&first.text, buf_span(&second.text)) == 0);
        CHECK_EQ_STR(buf_str(&first.text), buf_str(&all.text));
        buf_done(&first.text);
        buf_done(&second.text);
    }
    buf_done(&all.text);
    buf_done(&log);
}

/* ---- floods ---- */

TEST(a_flood_is_counted_exactly)
{
    struct told told;
    struct trace *trace = open_trace(&told);
    char text[512];
    for (unsigned i = 0; i < 100000; i++) {
        REQUIRE(text_format(text, sizeof text,
                            "Traceback (most recent call last):\n"
                            "  File \"/srv/shop.py\", line %u, in total\n    return int(text)\n"
                            "ValueError: invalid literal: '%u'\n",
                            i % 40, i) == 0);
        feed_text(trace, text, NOW_US + (uint64_t)i * 50); /* 5 s */
    }
    trace_end(trace);
    CHECK_EQ_INT(told.sum, 100000);
    CHECK_EQ_INT(trace_counts(trace).traces, 100000);
    trace_close(trace);
    buf_done(&told.text);
}

/* More kinds than are counted apart, ten of them frequent: each has its own exact count, and all of
 * it is a sample. */
TEST(a_flood_of_many_kinds_is_sampled_and_each_counted_exactly)
{
    struct told told;
    struct trace *trace = open_trace(&told);
    uint64_t wanted[KINDS] = {0};
    char text[512];
    for (unsigned i = 0; i < 100000; i++) {
        unsigned kind = i % 50 == 0 ? 10 + i / 50 % 30 : i % 10;
        REQUIRE(text_format(text, sizeof text,
                            "Traceback (most recent call last):\n"
                            "  File \"/srv/shop.py\", line %u, in total\n    return int(text)\n"
                            "ValueError: invalid literal: '%u'\n",
                            kind, i) == 0);
        wanted[kind]++;
        feed_text(trace, text, NOW_US + (uint64_t)i * 50);
    }
    trace_end(trace);
    for (unsigned kind = 0; kind < KINDS; kind++)
        CHECK_EQ_INT(told.of_line[kind], wanted[kind]);
    CHECK(wanted[0] > 5000 && wanted[39] > 0);
    CHECK(told.records < 4000);
    trace_close(trace);
    buf_done(&told.text);
}

TEST(a_flood_of_one_is_told_in_a_few_records)
{
    struct told told;
    struct trace *trace = open_trace(&told);
    for (unsigned i = 0; i < 100000; i++)
        feed_text(trace,
                  "java.lang.IllegalStateException: cart\n\tat a.B.c(B.java:1)\n"
                  "\tat a.B.main(B.java:2)\n",
                  NOW_US + (uint64_t)i * 50);
    trace_tick(trace, NOW_US + UINT64_C(10000000));
    CHECK_EQ_INT(told.sum, 100000);
    CHECK(told.records <= 6 * (TRACE_WHOLE_PER_SECOND + 1) && told.records > 5);
    trace_close(trace);
    buf_done(&told.text);
}
