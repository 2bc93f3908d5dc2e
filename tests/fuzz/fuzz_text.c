/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every reader and writer of text.h over the same bytes. Checked: what is printed safely stays so
 * when printed again, JSON strings do not end early, what is read can be written and read back, and
 * a glob agrees with the plainest recursive one.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define NOW_US INT64_C(1795442700000000)
#define UNTOUCHED INT64_C(0x5A5A5A5A5A5A5A5A)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_safe(struct span s, bool keep_lines)
{
    struct buf once, twice;
    buf_init(&once, 8 * s.size_bytes + 16);
    buf_init(&twice, 8 * s.size_bytes + 16);
    assert(text_append_safe(&once, s, keep_lines) == 0);
    for (size_t i = 0; i < once.size_bytes; i++) {
        uint8_t c = once.data[i];
        assert((c >= 0x20 && c != 0x7F) || (keep_lines && (c == '\n' || c == '\t')));
    }
    assert(text_append_safe(&twice, buf_span(&once), keep_lines) == 0);
    assert(span_equal(buf_span(&once), buf_span(&twice)));
    buf_done(&once);
    buf_done(&twice);
}

static void check_json(struct span s)
{
    struct buf b;
    buf_init(&b, 12 * s.size_bytes + 16);
    assert(text_append_json(&b, s) == 0);
    assert(b.size_bytes >= 2 && b.data[0] == '"' && b.data[b.size_bytes - 1] == '"');
    for (size_t i = 1; i < b.size_bytes - 1; i++) {
        assert(b.data[i] >= 0x20 && b.data[i] != 0x7F && b.data[i] != '"');
        if (b.data[i] == '\\')
            i++;
        assert(i < b.size_bytes - 1);
    }
    buf_done(&b);
}

static void check_time(const char *text)
{
    int64_t us = UNTOUCHED, again;
    char written[32];
    if (text_time_us(text, NOW_US, &us) < 0) {
        assert(us == UNTOUCHED);
        return;
    }
    text_put_time(us, written, sizeof written);
    assert(strlen(written) < sizeof written - 1);
    /* RFC 3339 has years of four digits. */
    if (us < INT64_C(-62167219200000000) || us >= INT64_C(253402300800000000))
        return;
    assert(text_time_us(written, 0, &again) == 0);
    assert(again <= us && us - again < 1000);
}

static void check_numbers(const char *text)
{
    char written[32];
    uint64_t u = 0;
    int64_t i = UNTOUCHED;
    bool is_u64 = text_u64(text, &u) == 0;
    if (is_u64) {
        text_format(written, sizeof written, "%llu", (unsigned long long)u);
        const char *digits = text + strspn(text, "0");
        assert(strcmp(*digits ? digits : "0", written) == 0);
        text_put_size(u, written, sizeof written);
        assert(strlen(written) < sizeof written - 1);
    }
    int r = text_i64(text, &i);
    assert(r < 0 ? i == UNTOUCHED : (i <= 0 || is_u64));
    (void)text_size_bytes(text, &u);
    i = UNTOUCHED;
    r = text_duration_us(text, &i);
    assert(r < 0 ? i == UNTOUCHED : i >= 0);
    text_put_duration(i, written, sizeof written);
    assert(strlen(written) < sizeof written - 1);
}

static bool plain_glob(const char *pattern, const char *text)
{
    if (*pattern == '\0')
        return *text == '\0';
    if (*pattern == '*')
        return plain_glob(pattern + 1, text) || (*text && plain_glob(pattern, text + 1));
    if (*text == '\0' || (*pattern != '?' && *pattern != *text))
        return false;
    return plain_glob(pattern + 1, text + 1);
}

/* The plain one knows bytes only and takes exponential time: short ASCII texts. */
static void check_glob(const char *pattern, const char *text)
{
    bool matches = text_glob(pattern, text);
    assert(text_glob("*", text) && (!matches || text_glob("*", pattern)));
    if (strlen(pattern) > 12 || strlen(text) > 16)
        return;
    for (const char *at = text; *at; at++)
        if ((uint8_t)*at >= 0x80)
            return;
    assert(matches == plain_glob(pattern, text));
}

static void check_string(char *text)
{
    static const char *const names[] = {"hosts", "caps", "top", "counters", "capture", NULL};
    uint8_t bytes[8];
    check_time(text);
    check_numbers(text);
    (void)text_parse_hex(text, bytes, sizeof bytes);
    if (text_is_name(text))
        assert(strlen(text) <= 63 && text_glob("?*", text));
    const char *nearest = text_nearest(text, names);
    assert(!nearest || strlen(text) <= strlen(nearest) + 2);
    char *line = strchr(text, '\n');
    if (line) {
        *line = '\0';
        check_glob(text, line + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span s = span_of(data, size), field;
    check_safe(s, false);
    check_safe(s, true);
    check_json(s);
    char *text = malloc(size + 1);
    assert(text);
    (void)text_copy_span(text, size + 1, s);
    check_string(text);
    free(text);
    size_t left = s.size_bytes + 1;
    while (text_take_until(&s, ',', &field) == 0) {
        assert(s.size_bytes < left);
        left = s.size_bytes;
    }
    return 0;
}
