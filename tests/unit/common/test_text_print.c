/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing: the forms people read, where rounding would show "60 s" or "1024.0 KiB", and foreign
 * texts that try to take over a terminal or to break out of a JSON string. The allocator fails too.
 */
#include "tests/unit/common/failing_buf.h"

#include "common/text.h"

#include <stdio.h>
#include <string.h>

#include "tests/check.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

struct form {
    int64_t value;
    const char *text;
};

TEST(durations)
{
    static const struct form forms[] = {
        {0, "0 us"},
        {99, "99 us"},
        {100, "0.1 ms"},
        {600, "0.6 ms"},
        {9949, "9.9 ms"},
        {9950, "10 ms"},
        {84000, "84 ms"},
        {999499, "999 ms"},
        {999500, "1.0 s"},
        {2100000, "2.1 s"},
        {9949999, "9.9 s"},
        {9950000, "10 s"},
        {59499999, "59 s"},
        {59500000, "1 m"},
        {310000000, "5 m 10 s"},
        {INT64_C(3599499999), "59 m 59 s"},
        {INT64_C(3599500000), "1 h"},
        {INT64_C(11100000000), "3 h 5 m"},
        {INT64_C(86369999999), "23 h 59 m"},
        {INT64_C(86370000000), "1 d"},
        {INT64_C(183600000000), "2 d 3 h"},
        {INT64_C(88200000000), "1 d 1 h"},
        {INT64_C(88199999999), "1 d"},
        {INT64_MAX, "106751991 d 4 h"},
        {-600, "-0.6 ms"},
        {-1, "-1 us"},
        {INT64_MIN, "-106751991 d 4 h"},
    };
    for (size_t i = 0; i < COUNT(forms); i++) {
        char out[32];
        text_put_duration(forms[i].value, out, sizeof out);
        CHECK_EQ_STR(out, forms[i].text);
    }
}

TEST(sizes)
{
    static const struct {
        uint64_t value;
        const char *text;
    } forms[] = {
        {0, "0 B"},
        {1023, "1023 B"},
        {1024, "1.0 KiB"},
        {1536 * 1024, "1.5 MiB"},
        {1023 * 1024 + 972, "1023.9 KiB"},
        {1023 * 1024 + 973, "1.0 MiB"},
        {UINT64_C(2) << 30, "2.0 GiB"},
        {UINT64_C(5) << 40, "5.0 TiB"},
        {UINT64_C(7) << 50, "7.0 PiB"},
        {UINT64_MAX, "16.0 EiB"},
    };
    for (size_t i = 0; i < COUNT(forms); i++) {
        char out[32];
        text_put_size(forms[i].value, out, sizeof out);
        CHECK_EQ_STR(out, forms[i].text);
    }
}

TEST(times)
{
    static const struct form forms[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {999, "1970-01-01T00:00:00.000Z"},
        {1000, "1970-01-01T00:00:00.001Z"},
        {INT64_C(1795442525123456), "2026-11-23T14:02:05.123Z"},
        {INT64_C(951868799999999), "2000-02-29T23:59:59.999Z"},
        {INT64_C(253402300799999999), "9999-12-31T23:59:59.999Z"},
        {INT64_MAX, "294247-01-10T04:00:54.775Z"},
        {INT64_MIN, "-290308-12-21T19:59:05.224Z"},
    };
    for (size_t i = 0; i < COUNT(forms); i++) {
        char out[32];
        text_put_time(forms[i].value, out, sizeof out);
        CHECK_EQ_STR(out, forms[i].text);
    }
}

TEST(a_small_destination_is_not_overrun)
{
    char out[8];
    memset(out, '#', sizeof out);
    text_put_time(0, out, 5);
    CHECK_EQ_MEM(out, "1970\0###", 8);
    text_put_duration(310000000, out, 4);
    CHECK_EQ_MEM(out, "5 m\0\0###", 8);
    text_put_size(2048, out, 2);
    CHECK_EQ_MEM(out, "2\0", 2);
}

TEST(hex)
{
    char out[8] = "#######";
    text_put_hex((const uint8_t *)"\x00\xA5\xFF", 3, out);
    CHECK_EQ_STR(out, "00a5ff");
    CHECK_EQ_INT(out[7], '\0');
    text_put_hex(NULL, 0, out);
    CHECK_EQ_STR(out, "");
}

struct text_case {
    const char *in;
    const char *out;
};

static void check_safe(const char *in, size_t size_bytes, bool keep_lines, const char *out)
{
    struct buf b;
    uint8_t *exact = malloc(size_bytes ? size_bytes : 1); /* so that a read past the end is seen */
    REQUIRE(exact != NULL);
    memcpy(exact, in, size_bytes);
    buf_init(&b, 4096);
    CHECK_EQ_INT(text_append_safe(&b, span_of(exact, size_bytes), keep_lines), 0);
    CHECK_EQ_STR(buf_str(&b), out);
    buf_done(&b);
    free(exact);
}

TEST(harmless_text_stays)
{
    static const char *const same[] = {
        "",
        "plain ASCII ~ !\"\\x",
        "Gr\xC3\xBC\xC3\x9F",           /* two bytes */
        "\xE2\x82\xAC 5",               /* three */
        "\xF0\x9F\x98\x80",             /* four */
        "\xE0\xA0\x80\xF0\x90\x80\x80", /* the first of three bytes, the first of four */
        "\xC2\xA0",                     /* U+00A0, the first behind C1 */
        "\xED\x9F\xBF\xEE\x80\x80",     /* around the surrogates */
        "\xF4\x8F\xBF\xBF",             /* the last */
        "\xE2\x80\x8A\xE2\x80\x90",     /* around U+200B..200F */
        "\xE2\x80\xA7\xE2\x80\xAF",     /* around U+2028..202E */
        "\xE2\x81\x9F\xE2\x81\xAA",     /* around U+2060..2069 */
    };
    for (size_t i = 0; i < COUNT(same); i++)
        check_safe(same[i], strlen(same[i]), false, same[i]);
}

TEST(what_a_terminal_obeys_is_escaped)
{
    static const struct text_case cases[] = {
        {"\x1b[2J", "\\x1b[2J"},
        {"a\rb\nc\td", "a\\x0db\\x0ac\\x09d"},
        {"\x7f", "\\x7f"},
        {"\xC2\x9B", "\\u{009b}"}, /* C1: CSI */
        {"\xC2\x80\xC2\x9F", "\\u{0080}\\u{009f}"},
        {"\xD8\x9C", "\\u{061c}"}, /* arabic letter mark */
        {"\xE2\x80\x8B\xE2\x80\x8F", "\\u{200b}\\u{200f}"},
        {"\xE2\x80\xA8\xE2\x80\xAE", "\\u{2028}\\u{202e}"}, /* right-to-left override */
        {"\xE2\x81\xA0\xE2\x81\xA9", "\\u{2060}\\u{2069}"},
        {"\xEF\xBB\xBF", "\\u{feff}"},
        {"\xF3\xA0\x81\x81", "\\u{e0041}"}, /* tag characters */
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        check_safe(cases[i].in, strlen(cases[i].in), false, cases[i].out);
    check_safe("a\0b", 3, false, "a\\x00b");
}

TEST(bytes_that_are_not_utf8_are_escaped_one_by_one)
{
    static const struct text_case cases[] = {
        {"\x80", "\\x80"},
        {"\xFF\xFE", "\\xff\\xfe"},
        {"\xC0\xAF", "\\xc0\\xaf"}, /* overlong '/' */
        {"\xC1\xBF", "\\xc1\\xbf"},
        {"\xE0\x80\xAF", "\\xe0\\x80\\xaf"}, /* overlong, three bytes */
        {"\xE0\x9F\xBF", "\\xe0\\x9f\\xbf"},
        {"\xF0\x8F\xBF\xBF", "\\xf0\\x8f\\xbf\\xbf"}, /* overlong, four bytes */
        {"\xED\xA0\x80", "\\xed\\xa0\\x80"},          /* surrogates */
        {"\xED\xBF\xBF", "\\xed\\xbf\\xbf"},
        {"\xF4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* above U+10FFFF */
        {"\xF5\x80\x80\x80", "\\xf5\\x80\\x80\\x80"},
        {"\xE2\x82", "\\xe2\\x82"}, /* ends too early */
        {"\xE2\x82x", "\\xe2\\x82x"},
        {"\xF0\x9F\x98", "\\xf0\\x9f\\x98"},
        {"\xC3", "\\xc3"},
        {"\xC3\xC3\xA9", "\\xc3\xC3\xA9"}, /* good behind bad */
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        check_safe(cases[i].in, strlen(cases[i].in), false, cases[i].out);
}

TEST(lines_may_be_kept)
{
    check_safe("a\tb\nc\rd", 7, true, "a\tb\nc\\x0dd");
}

TEST(json_strings)
{
    static const struct text_case cases[] = {
        {"", "\"\""},
        {"plain / text", "\"plain / text\""},
        {"a\"b\\c", "\"a\\\"b\\\\c\""},
        {"\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\""},
        {"\x01\x1b\x7f", "\"\\u0001\\u001b\\u007f\""},
        {"\xE2\x82\xAC", "\"\xE2\x82\xAC\""},
        {"\xF0\x9F\x98\x80", "\"\xF0\x9F\x98\x80\""},
        {"\xC2\x9B\xE2\x80\xAE", "\"\\u009b\\u202e\""},
        {"\xF3\xA0\x81\x81", "\"\\udb40\\udc41\""},
        {"a\xFFz\xC3", "\"a\xEF\xBF\xBDz\xEF\xBF\xBD\""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buf b;
        buf_init(&b, 100);
        CHECK_EQ_INT(text_append_json(&b, span_str(cases[i].in)), 0);
        CHECK_EQ_STR(buf_str(&b), cases[i].out);
        buf_done(&b);
    }
    struct buf b;
    buf_init(&b, 100);
    CHECK_EQ_INT(text_append_json(&b, span_of("\0x", 2)), 0);
    CHECK_EQ_STR(buf_str(&b), "\"\\u0000x\"");
    buf_done(&b);
}

/* At every limit below what is needed, and at none above. */
TEST(over_the_limit_nothing_is_appended)
{
    static const char text[] = "ab\x1b\xC3\xA9\"\xFF";
    for (int json = 0; json < 2; json++) {
        size_t needed = json ? 17 : 13;
        for (size_t limit = 2; limit <= 2 + needed + 3; limit++) {
            struct buf b;
            buf_init(&b, limit);
            REQUIRE(buf_append_str(&b, "<>") == 0);
            int r = json ? text_append_json(&b, span_str(text))
                         : text_append_safe(&b, span_str(text), false);
            CHECK_EQ_INT(r, limit < 2 + needed ? ERR_LIMIT : 0);
            CHECK_EQ_INT(b.size_bytes, r == 0 ? 2 + needed : 2);
            buf_done(&b);
        }
    }
}

TEST(without_memory_nothing_is_appended)
{
    char text[600];
    memset(text, '\x1b', sizeof text);
    for (long successes = 0; successes <= 7; successes++) {
        struct buf b;
        buf_init(&b, 10000);
        failing_buf_after(successes);
        int safe = text_append_safe(&b, span_of(text, sizeof text), false);
        size_t size_safe = b.size_bytes;
        buf_done(&b);
        failing_buf_after(successes);
        int json = text_append_json(&b, span_of(text, sizeof text));
        CHECK_EQ_INT(safe, successes < 7 ? ERR_NOMEM : 0);
        CHECK_EQ_INT(size_safe, successes < 7 ? 0 : 2400);
        CHECK_EQ_INT(json, successes < 7 ? ERR_NOMEM : 0);
        CHECK_EQ_INT(b.size_bytes, successes < 7 ? 0 : 3602);
        buf_done(&b);
    }
}

TEST(text_is_cleaned_in_place)
{
    char right[] = "pl\xc3\xa4in \xe2\x82\xac \xf0\x9f\x98\x80";
    char before[sizeof(right)];
    memcpy(before, right, sizeof(right));
    text_clean(right);
    CHECK_EQ_STR(right, before);
    char wrong[] = "a\xff"
                   "b\xc3"
                   "c\xed\xa0\x80"
                   "d\xe2\x82";
    text_clean(wrong);
    CHECK_EQ_STR(wrong, "a?b?c???d??");
    char empty[] = "";
    text_clean(empty);
    CHECK_EQ_STR(empty, "");
}

TEST(short_names_use_five_bits_a_character)
{
    static const uint8_t bytes[] = {0x00, 0x44, 0x32, 0x14, 0xC7};
    static const uint8_t ones[] = {0xff, 0xff, 0xff, 0xff};
    char out[10];
    memset(out, '#', sizeof out);
    text_put_base32(bytes, 8, out);
    CHECK_EQ_STR(out, "01234567");
    CHECK_EQ_INT(out[9], '#');
    text_put_base32(bytes, 0, out);
    CHECK_EQ_STR(out, "");
    text_put_base32(ones, 5, out);
    CHECK_EQ_STR(out, "ZZZZZ");
}
