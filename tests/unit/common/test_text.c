/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading: every parser at its limits, with what it must refuse, and `out` untouched when it does.
 * The calendar is compared with the C library's. Writing has its tests in test_text_print.c.
 */
#include "common/text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/check.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define SECOND INT64_C(1000000)
#define UNTOUCHED 0x5A5A5A5A

TEST(copying_cuts_and_says_so)
{
    char out[4] = "###";
    CHECK_EQ_INT(text_copy(out, 4, "abc"), 0);
    CHECK_EQ_STR(out, "abc");
    CHECK_EQ_INT(text_copy(out, 4, "wxyz"), ERR_LIMIT);
    CHECK_EQ_STR(out, "wxy");
    CHECK_EQ_INT(text_copy(out, 1, ""), 0);
    CHECK_EQ_STR(out, "");
    CHECK_EQ_INT(text_copy(out, 1, "x"), ERR_LIMIT);
    CHECK_EQ_STR(out, "");
}

TEST(a_zero_inside_a_span_counts_as_a_cut)
{
    char out[8];
    CHECK_EQ_INT(text_copy_span(out, sizeof out, span_of("web\0evil", 8)), ERR_LIMIT);
    CHECK_EQ_STR(out, "web");
    CHECK_EQ_INT(text_copy_span(out, sizeof out, span_of("abcdefgh", 7)), 0);
    CHECK_EQ_STR(out, "abcdefg");
    CHECK_EQ_INT(text_copy_span(out, sizeof out, span_of(NULL, 0)), 0);
    CHECK_EQ_STR(out, "");
}

TEST(format_cuts_and_says_so)
{
    char out[6];
    CHECK_EQ_INT(text_format(out, sizeof out, "%d-%s", 12, "ab"), 0);
    CHECK_EQ_STR(out, "12-ab");
    CHECK_EQ_INT(text_format(out, sizeof out, "%d-%s", 12, "abc"), ERR_LIMIT);
    CHECK_EQ_STR(out, "12-ab");
}

/* What no parser of unsigned decimal numbers may take. */
static const char *const not_numbers[] = {
    "", " ", " 1", "1 ", "+1", "-1", "0x10", "1e3", "1.0", "1,000", "\xD9\xA1", "1\n",
};

TEST(unsigned_numbers)
{
    uint64_t out = 0;
    CHECK_EQ_INT(text_u64("0", &out), 0);
    CHECK_EQ_INT(out, 0);
    CHECK_EQ_INT(text_u64("007", &out), 0);
    CHECK_EQ_INT(out, 7);
    CHECK_EQ_INT(text_u64("18446744073709551615", &out), 0);
    CHECK_EQ_INT(out, UINT64_MAX);
    out = UNTOUCHED;
    CHECK_EQ_INT(text_u64("18446744073709551616", &out), ERR_INVALID);
    CHECK_EQ_INT(text_u64("18446744073709551620", &out), ERR_INVALID);
    CHECK_EQ_INT(text_u64("99999999999999999999", &out), ERR_INVALID);
    CHECK_EQ_INT(text_u64("184467440737095516150", &out), ERR_INVALID);
    for (size_t i = 0; i < COUNT(not_numbers); i++)
        CHECK_EQ_INT(text_u64(not_numbers[i], &out), ERR_INVALID);
    CHECK_EQ_INT(out, UNTOUCHED);
}

TEST(numbers_in_a_range)
{
    uint64_t out = UNTOUCHED;
    CHECK_EQ_INT(text_u64_in("0", 1, 65535, &out), ERR_INVALID);
    CHECK_EQ_INT(text_u64_in("65536", 1, 65535, &out), ERR_INVALID);
    CHECK_EQ_INT(text_u64_in("x", 0, UINT64_MAX, &out), ERR_INVALID);
    CHECK_EQ_INT(out, UNTOUCHED);
    CHECK_EQ_INT(text_u64_in("1", 1, 65535, &out), 0);
    CHECK_EQ_INT(out, 1);
    CHECK_EQ_INT(text_u64_in("65535", 1, 65535, &out), 0);
    CHECK_EQ_INT(out, 65535);
}

TEST(signed_numbers)
{
    int64_t out = 1;
    CHECK_EQ_INT(text_i64("-9223372036854775808", &out), 0);
    CHECK_EQ_INT(out, INT64_MIN);
    CHECK_EQ_INT(text_i64("9223372036854775807", &out), 0);
    CHECK_EQ_INT(out, INT64_MAX);
    CHECK_EQ_INT(text_i64("-0", &out), 0);
    CHECK_EQ_INT(out, 0);
    CHECK_EQ_INT(text_i64("-1", &out), 0);
    CHECK_EQ_INT(out, -1);
    out = UNTOUCHED;
    static const char *const wrong[] = {
        "9223372036854775808", "-9223372036854775809", "-", "--1", "- 1", "+1", "", "1-"};
    for (size_t i = 0; i < COUNT(wrong); i++)
        CHECK_EQ_INT(text_i64(wrong[i], &out), ERR_INVALID);
    CHECK_EQ_INT(out, UNTOUCHED);
}

TEST(taking_numbers_from_the_front)
{
    struct span s = span_str("7f00-42 x");
    struct span field;
    uint64_t out;
    CHECK_EQ_INT(text_take_hex(&s, &out), 0);
    CHECK_EQ_INT(out, 0x7f00);
    CHECK_EQ_INT(text_take_hex(&s, &out), ERR_INVALID);
    CHECK(span_equal(s, span_str("-42 x")));
    CHECK_EQ_INT(text_take_until(&s, '-', &field), 0);
    CHECK_EQ_INT(text_take_u64(&s, &out), 0);
    CHECK_EQ_INT(out, 42);
    CHECK(span_equal(s, span_str(" x")));
    s = span_str("99999999999999999999");
    CHECK_EQ_INT(text_take_u64(&s, &out), ERR_INVALID);
    CHECK(s.size_bytes == 20 && out == 42);
    s = span_str("10000000000000000-");
    CHECK_EQ_INT(text_take_hex(&s, &out), ERR_INVALID);
    CHECK(s.size_bytes == 18 && out == 42);
    s = span_of(NULL, 0);
    CHECK_EQ_INT(text_take_u64(&s, &out), ERR_INVALID);
    CHECK_EQ_INT(text_take_hex(&s, &out), ERR_INVALID);
}

TEST(taking_fields)
{
    struct span s = span_str("a,,bc,"), field;
    static const char *const fields[] = {"a", "", "bc"};
    for (size_t i = 0; i < COUNT(fields); i++) {
        CHECK_EQ_INT(text_take_until(&s, ',', &field), 0);
        CHECK(span_equal(field, span_str(fields[i])));
    }
    field = span_str("kept");
    CHECK_EQ_INT(text_take_until(&s, ',', &field), ERR_NOTFOUND);
    CHECK(span_equal(field, span_str("kept")));
    s = span_str("no stop");
    CHECK_EQ_INT(text_take_until(&s, ',', &field), 0);
    CHECK(span_equal(field, span_str("no stop")) && s.size_bytes == 0);
}

struct number_case {
    const char *text;
    uint64_t value;
};

TEST(durations)
{
    static const struct number_case good[] = {
        {"0s", 0},
        {"500us", 500},
        {"50ms", 50000},
        {"10s", 10000000},
        {"5m", 300000000},
        {"1h", UINT64_C(3600000000)},
        {"2d", UINT64_C(172800000000)},
        {"9223372036854775807us", INT64_MAX},
        {"106751991d", UINT64_C(9223372022400000000)},
    };
    static const char *const wrong[] = {"",           "10",
                                        "s",          "10 s",
                                        "1.5s",       "-1s",
                                        "1h5m",       "10sec",
                                        "1S",         "9223372036854775808us",
                                        "106751992d", "18446744073709551615d",
                                        "1ns",        "0"};
    int64_t out;
    for (size_t i = 0; i < COUNT(good); i++) {
        out = -1;
        CHECK_EQ_INT(text_duration_us(good[i].text, &out), 0);
        CHECK_EQ_INT(out, good[i].value);
    }
    out = UNTOUCHED;
    for (size_t i = 0; i < COUNT(wrong); i++)
        CHECK_EQ_INT(text_duration_us(wrong[i], &out), ERR_INVALID);
    CHECK_EQ_INT(out, UNTOUCHED);
}

TEST(sizes)
{
    static const struct number_case good[] = {
        {"0", 0},
        {"4096", 4096},
        {"64K", 65536},
        {"64M", 67108864},
        {"2G", UINT64_C(2147483648)},
        {"3T", UINT64_C(3298534883328)},
        {"16777215T", UINT64_C(16777215) << 40},
        {"18446744073709551615", UINT64_MAX},
    };
    static const char *const wrong[] = {"",     "K",    "-1",        "1.5G",
                                        "64 M", "64KB", "1k",        "64Mi",
                                        "1P",   " 1",   "16777216T", "18446744073709551615K"};
    uint64_t out;
    for (size_t i = 0; i < COUNT(good); i++) {
        out = 1;
        CHECK_EQ_INT(text_size_bytes(good[i].text, &out), 0);
        CHECK_EQ_INT(out, good[i].value);
    }
    out = UNTOUCHED;
    for (size_t i = 0; i < COUNT(wrong); i++)
        CHECK_EQ_INT(text_size_bytes(wrong[i], &out), ERR_INVALID);
    CHECK_EQ_INT(out, UNTOUCHED);
}

/* 2026-11-23T14:05:00Z */
#define NOW INT64_C(1795442700000000)
#define MIDNIGHT INT64_C(1795392000000000)

struct time_case {
    const char *text;
    int64_t us;
};

TEST(times_of_day_lie_behind_now)
{
    static const struct time_case cases[] = {
        {"14:02", MIDNIGHT + (14 * 3600 + 2 * 60) * SECOND},
        {"14:05", NOW},
        {"14:05:00", NOW},
        {"14:05:01", NOW + SECOND - 86400 * SECOND},
        {"14:06", NOW + 60 * SECOND - 86400 * SECOND},
        {"00:00", MIDNIGHT},
        {"23:59:59", MIDNIGHT - SECOND},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t us = UNTOUCHED;
        CHECK_EQ_INT(text_time_us(cases[i].text, NOW, &us), 0);
        CHECK_EQ_INT(us, cases[i].us);
    }
    int64_t us;
    CHECK_EQ_INT(text_time_us("23:00", -1, &us), 0);
    CHECK_EQ_INT(us, -3600 * SECOND);
    CHECK_EQ_INT(text_time_us("23:00", INT64_MIN, &us), ERR_INVALID);
}

TEST(relative_times)
{
    int64_t us = UNTOUCHED;
    CHECK_EQ_INT(text_time_us("-10m", NOW, &us), 0);
    CHECK_EQ_INT(us, NOW - 600 * SECOND);
    CHECK_EQ_INT(text_time_us("+2s", NOW, &us), 0);
    CHECK_EQ_INT(us, NOW + 2 * SECOND);
    CHECK_EQ_INT(text_time_us("+9223372036854775807us", 0, &us), 0);
    CHECK_EQ_INT(us, INT64_MAX);
    CHECK_EQ_INT(text_time_us("-9223372036854775807us", -1, &us), 0);
    CHECK_EQ_INT(us, INT64_MIN);
    us = UNTOUCHED;
    CHECK_EQ_INT(text_time_us("+9223372036854775807us", NOW, &us), ERR_INVALID);
    CHECK_EQ_INT(text_time_us("-9223372036854775807us", -NOW, &us), ERR_INVALID);
    CHECK_EQ_INT(us, UNTOUCHED);
}

TEST(rfc_3339_times)
{
    static const struct time_case cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1969-12-31T23:59:59.999999Z", -1},
        {"2026-11-23T14:05:00Z", NOW},
        {"2026-11-23t14:05:00z", NOW},
        {"2026-11-23 14:05:00Z", NOW},
        {"2026-11-23T15:05:00+01:00", NOW},
        {"2026-11-23T08:35:00-05:30", NOW},
        {"2026-11-24T00:05:00+10:00", NOW},
        {"2026-11-23T14:05:00.5Z", NOW + 500000},
        {"2026-11-23T14:05:00.1234567899Z", NOW + 123456},
        {"2000-02-29T00:00:00Z", INT64_C(951782400) * SECOND},
        {"0000-01-01T00:00:00Z", INT64_C(-62167219200) * SECOND},
        {"9999-12-31T23:59:59Z", INT64_C(253402300799) * SECOND},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t us = UNTOUCHED;
        CHECK_EQ_INT(text_time_us(cases[i].text, NOW, &us), 0);
        CHECK_EQ_INT(us, cases[i].us);
    }
}

TEST(what_is_no_moment)
{
    static const char *const wrong[] = {
        "",
        "now",
        "14",
        "14:",
        "1:02",
        "14:2",
        "24:00",
        "14:60",
        "14:02:60",
        "14:02:",
        "14:02Z",
        "14:02:03.5",
        "-10",
        "+-2s",
        "-",
        "10m",
        "2026-11-23",
        "2026-11-23T14:05Z",
        "2026-11-23T14:05:00",
        "2026-11-23T14:05:00.Z",
        "2026-11-23T14:05:00,5Z",
        "2026-11-23T14:05:00+1:00",
        "2026-11-23T14:05:00+0100",
        "2026-11-23T14:05:00Zz",
        "2026-11-23T24:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-11-31T00:00:00Z",
        "2026-11-00T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "02026-11-23T14:05:00Z",
        " 2026-11-23T14:05:00Z",
        "2026-11-23T14:05:60Z",
    };
    int64_t us = UNTOUCHED;
    for (size_t i = 0; i < COUNT(wrong); i++)
        CHECK_EQ_INT(text_time_us(wrong[i], NOW, &us), ERR_INVALID);
    CHECK_EQ_INT(us, UNTOUCHED);
}

/* Every day of 400 years around now, and a sample of all years, against the C library. */
TEST(the_calendar_is_that_of_the_c_library)
{
    unsigned wrong = 0;
    for (int64_t day = -719528; day < 2932896; day += day < -25567 || day > 120530 ? 89 : 1) {
        time_t t = (time_t)(day * 86400 + 43200);
        struct tm tm;
        REQUIRE(gmtime_r(&t, &tm) != NULL);
        char text[64], again[32];
        int64_t us;
        snprintf(text, sizeof text, "%04d-%02d-%02dT12:00:00.000Z", tm.tm_year + 1900,
                 tm.tm_mon + 1, tm.tm_mday);
        wrong += text_time_us(text, 0, &us) != 0 || us != (int64_t)t * SECOND;
        text_put_time((int64_t)t * SECOND, again, sizeof again);
        wrong += strcmp(text, again) != 0;
    }
    CHECK_EQ_INT(wrong, 0);
}

TEST(hex_bytes_are_read_whole_or_not_at_all)
{
    uint8_t out[3] = {9, 9, 9};
    CHECK_EQ_INT(text_parse_hex("00fFA5", out, 3), 0);
    CHECK_EQ_MEM(out, "\x00\xFF\xA5", 3);
    static const char *const wrong[] = {"", "00fFA", "00fFA55", "00fFAg", "00 fFA", "0x00ff"};
    for (size_t i = 0; i < COUNT(wrong); i++)
        CHECK_EQ_INT(text_parse_hex(wrong[i], out, 3), ERR_INVALID);
    CHECK_EQ_MEM(out, "\x00\xFF\xA5", 3);
    CHECK_EQ_INT(text_parse_hex("", out, 0), 0);
}

TEST(globs)
{
    static const char *const yes[][2] = {
        {"", ""},
        {"*", ""},
        {"*", "anything"},
        {"web-*", "web-"},
        {"web-*", "web-07"},
        {"*-07", "web-07"},
        {"w?b-07", "web-07"},
        {"*b*0*", "web-07"},
        {"**", "x"},
        {"a*b*c", "aXbYbZc"},
        {"*aab", "aaaab"},
        {"?", "\xC3\xA9"},
        {"a?c", "a\xE2\x82\xAC"
                "c"},
        {"[ab]", "[ab]"},
        {"\\*", "\\x"},
    };
    static const char *const no[][2] = {
        {"", "a"},           {"?", ""},     {"web-?", "web-07"}, {"web", "web-07"},
        {"web-07", "web-0"}, {"*x", "web"}, {"a*b*c", "aXbY"},   {"WEB", "web"},
        {"??", "\xC3\xA9"},  {"[ab]", "a"},
    };
    for (size_t i = 0; i < COUNT(yes); i++)
        if (!check_true(text_glob(yes[i][0], yes[i][1]), yes[i][0], __FILE__, __LINE__))
            check_true(0, yes[i][1], __FILE__, __LINE__);
    for (size_t i = 0; i < COUNT(no); i++)
        if (!check_true(!text_glob(no[i][0], no[i][1]), no[i][0], __FILE__, __LINE__))
            check_true(0, no[i][1], __FILE__, __LINE__);
}

/* Exponential for a recursive matcher. */
TEST_LIMIT(a_hostile_glob_takes_no_time, 5)
{
    char text[4001];
    memset(text, 'a', 4000);
    text[4000] = '\0';
    CHECK(!text_glob("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", text));
    CHECK(text_glob("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a", text));
}

TEST(names)
{
    static const char *const yes[] = {
        "a", "7", "AZ", "Za", "09", "zA", "web-07", "WEB_1.example.org", "a..b"};
    static const char *const no[] = {"",    "-a",  "a-",         ".a",   "a.", "_a",
                                     "a b", "a/b", "a\xC3\xA9z", "a\nb", "a*"};
    for (size_t i = 0; i < COUNT(yes); i++)
        CHECK(text_is_name(yes[i]));
    for (size_t i = 0; i < COUNT(no); i++)
        CHECK(!text_is_name(no[i]));
    char longest[65];
    memset(longest, 'x', sizeof longest);
    longest[63] = '\0';
    CHECK(text_is_name(longest));
    longest[63] = 'x';
    longest[64] = '\0';
    CHECK(!text_is_name(longest));
}

TEST(suggestions)
{
    static const char *const names[] = {"hosts", "show", "capture", "fetch", "captures", NULL};
    static const char *const none[] = {NULL};
    CHECK_EQ_STR(text_nearest("hsts", names), "hosts");
    CHECK_EQ_STR(text_nearest("host", names), "hosts");
    CHECK_EQ_STR(text_nearest("cpature", names), "capture");
    CHECK_EQ_STR(text_nearest("capture", names), "capture");
    CHECK_EQ_STR(text_nearest("captured", names), "capture");
    CHECK_EQ_STR(text_nearest("capturess", names), "captures");
    CHECK_EQ_STR(text_nearest("fecth", names), "fetch");
    CHECK_EQ_STR(text_nearest("zzzzz", names), NULL);
    CHECK_EQ_STR(text_nearest("cptr", names), NULL);
    CHECK_EQ_STR(text_nearest("", names), NULL);
    CHECK_EQ_STR(text_nearest("xy", (const char *const[]){"ab", NULL}), NULL);
    CHECK_EQ_STR(text_nearest("hosts", none), NULL);
    char longest[64], typo[64];
    memset(longest, 'n', sizeof longest);
    longest[63] = '\0';
    memcpy(typo, longest, sizeof typo);
    typo[40] = 'm';
    CHECK_EQ_STR(text_nearest(typo, (const char *const[]){longest, NULL}), longest);
    char longer[200];
    memset(longer, 'h', sizeof longer);
    longer[199] = '\0';
    CHECK_EQ_STR(text_nearest(longer, names), NULL);
    CHECK_EQ_STR(text_nearest("h", (const char *const[]){longer, "ho", NULL}), "ho");
}
