/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Written forms of durations, sizes and times, and texts from outside made safe for terminals and
 * JSON: the writing half of text.h. Invariant: no byte of a foreign text reaches `out` that a
 * terminal could obey. Called by everything that prints. Pure.
 */
#include "common/text.h"

#include <string.h>

#define SECOND_US INT64_C(1000000)
#define MINUTE_US (60 * SECOND_US)
#define HOUR_US (60 * MINUTE_US)
#define DAY_US (24 * HOUR_US)

/* ---- written forms ---- */

/* "A.B unit" below ten units, "A unit" from there; `tenth` is a tenth of the unit. */
static void put_scaled(const char *sign, uint64_t us, uint64_t tenth, const char *unit, char *out,
                       size_t size_bytes)
{
    uint64_t tenths = (us + tenth / 2) / tenth;
    if (tenths < 100)
        text_format(out, size_bytes, "%s%u.%u %s", sign, (unsigned)(tenths / 10),
                    (unsigned)(tenths % 10), unit);
    else
        text_format(out, size_bytes, "%s%u %s", sign, (unsigned)((us + tenth * 5) / (tenth * 10)),
                    unit);
}

/* "5 m 10 s", or "5 m" when there is no remainder; both in whole units. */
static void put_pair(const char *sign, uint64_t large, const char *large_unit, uint64_t small,
                     const char *small_unit, char *out, size_t size_bytes)
{
    if (small > 0)
        text_format(out, size_bytes, "%s%llu %s %u %s", sign, (unsigned long long)large, large_unit,
                    (unsigned)small, small_unit);
    else
        text_format(out, size_bytes, "%s%llu %s", sign, (unsigned long long)large, large_unit);
}

/* The limits are half a last digit below the unit's end, so that rounding never shows "60 s". */
void text_put_duration(int64_t us, char *out, size_t size_bytes)
{
    const char *sign = us < 0 ? "-" : "";
    uint64_t v = us < 0 ? 0 - (uint64_t)us : (uint64_t)us;
    if (v < 100)
        text_format(out, size_bytes, "%s%u us", sign, (unsigned)v);
    else if (v < 999500)
        put_scaled(sign, v, 100, "ms", out, size_bytes);
    else if (v < 59500000)
        put_scaled(sign, v, 100000, "s", out, size_bytes);
    else if (v < HOUR_US - SECOND_US / 2) {
        uint64_t seconds = (v + SECOND_US / 2) / SECOND_US;
        put_pair(sign, seconds / 60, "m", seconds % 60, "s", out, size_bytes);
    } else if (v < DAY_US - MINUTE_US / 2) {
        uint64_t minutes = (v + MINUTE_US / 2) / MINUTE_US;
        put_pair(sign, minutes / 60, "h", minutes % 60, "m", out, size_bytes);
    } else {
        uint64_t hours = v / HOUR_US + (v % HOUR_US >= HOUR_US / 2);
        put_pair(sign, hours / 24, "d", hours % 24, "h", out, size_bytes);
    }
}

void text_put_size(uint64_t bytes, char *out, size_t size_bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        text_format(out, size_bytes, "%u B", (unsigned)bytes);
        return;
    }
    /* Shift while a further unit is reached, rounding included: 1023.96 KiB is 1.0 MiB. */
    size_t unit = 0;
    unsigned shift = 10;
    while (unit + 1 < sizeof units / sizeof units[0] &&
           bytes >= (UINT64_C(1) << (shift + 10)) - (UINT64_C(1) << shift) / 20) {
        unit++;
        shift += 10;
    }
    uint64_t whole = bytes >> shift;
    uint64_t rest = bytes & ((UINT64_C(1) << shift) - 1);
    uint64_t tenths = ((rest >> (shift - 10)) * 10 + 512) >> 10;
    text_format(out, size_bytes, "%u.%u %s", (unsigned)(whole + tenths / 10),
                (unsigned)(tenths % 10), units[unit]);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Date of the proleptic Gregorian calendar, for any day that 64 bits of microseconds reach. */
static void date_from_days(int64_t days, int64_t *year, int *month, int *day)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t m = (5 * doy + 2) / 153;
    *day = (int)(doy - (153 * m + 2) / 5 + 1);
    *month = (int)(m < 10 ? m + 3 : m - 9);
    *year = yoe + era * 400 + (*month <= 2);
}

void text_put_time(int64_t us, char *out, size_t size_bytes)
{
    int64_t days = floor_div(us, DAY_US);
    int64_t ms = floor_div(us, 1000) - days * (DAY_US / 1000);
    int64_t year;
    int month, day;
    date_from_days(days, &year, &month, &day);
    text_format(out, size_bytes, "%04lld-%02d-%02dT%02d:%02d:%02d.%03dZ", (long long)year, month,
                day, (int)(ms / 3600000), (int)(ms / 60000 % 60), (int)(ms / 1000 % 60),
                (int)(ms % 1000));
}

void text_put_hex(const uint8_t *bytes, size_t count, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * count] = '\0';
}

void text_put_base32(const uint8_t *bytes, size_t count, char *out)
{
    static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    for (size_t i = 0; i < count; i++) {
        unsigned value = 0;
        for (size_t bit = i * 5; bit < i * 5 + 5; bit++)
            value = value << 1 | (((unsigned)bytes[bit / 8] >> (7 - (bit & 7))) & 1U);
        out[i] = alphabet[value];
    }
    out[count] = '\0';
}

/* ---- terminal-safe text and JSON ---- */

/*
 * Decodes one character at the front of `s` (RFC 3629: no overlong forms, no surrogates, nothing
 * above U+10FFFF). Returns its length, or 0 when the bytes are not UTF-8.
 */
static size_t decode_character(struct span s, uint32_t *out)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t lead = s.data[0];
    size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (length == 0 || lead > 0xF4 || length > s.size_bytes)
        return 0;
    uint32_t value = length == 1 ? lead : lead & (0x7FU >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s.data[i] & 0xC0) != 0x80)
            return 0;
        value = value << 6 | (s.data[i] & 0x3FU);
    }
    if (value < least[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
        return 0;
    *out = value;
    return length;
}

/* Characters that move the cursor, change the direction of text, or are not to be seen. */
void text_clean(char *text)
{
    struct span s = span_str(text);
    while (s.size_bytes) {
        uint32_t c;
        size_t length = decode_character(s, &c);
        if (!length)
            text[s.data - (const uint8_t *)text] = '?';
        s.data += length ? length : 1;
        s.size_bytes -= length ? length : 1;
    }
}

static bool is_harmful(uint32_t c)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0x00, 0x1F},     {0x7F, 0x9F},     {0x061C, 0x061C}, {0x200B, 0x200F},
        {0x2028, 0x202E}, {0x2060, 0x2069}, {0xFEFF, 0xFEFF}, {0xE0000, 0xE007F},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    return false;
}

static int append_safe_character(struct buf *b, struct span *s, bool keep_lines)
{
    uint32_t c;
    size_t length = decode_character(*s, &c);
    struct span bytes;
    (void)span_take(s, length ? length : 1, &bytes);
    if (length == 0)
        return buf_printf(b, "\\x%02x", bytes.data[0]);
    if (!is_harmful(c) || (keep_lines && (c == '\n' || c == '\t')))
        return buf_append_span(b, bytes);
    return c < 0x80 ? buf_printf(b, "\\x%02x", (unsigned)c)
                    : buf_printf(b, "\\u{%04x}", (unsigned)c);
}

/* Most text is plain: the run of harmless ASCII at the front goes over in one piece. */
static size_t plain_run(struct span s, const char *but)
{
    size_t length = 0;
    while (length < s.size_bytes && s.data[length] >= 0x20 && s.data[length] < 0x7F &&
           !strchr(but, s.data[length]))
        length++;
    return length;
}

static int append_plain_run(struct buf *b, struct span *s, const char *but)
{
    struct span run;
    (void)span_take(s, plain_run(*s, but), &run);
    return buf_append_span(b, run);
}

int text_append_safe(struct buf *b, struct span s, bool keep_lines)
{
    size_t start = b->size_bytes;
    int r = 0;
    while (r == 0 && s.size_bytes > 0) {
        r = append_plain_run(b, &s, "");
        if (r == 0 && s.size_bytes > 0)
            r = append_safe_character(b, &s, keep_lines);
    }
    if (r < 0)
        b->size_bytes = start;
    return r;
}

static int append_json_escape(struct buf *b, uint32_t c)
{
    static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (const char *at = short_forms; *at; at += 2)
        if ((uint32_t)*at == c)
            return buf_printf(b, "\\%c", at[1]);
    if (c < 0x10000)
        return buf_printf(b, "\\u%04x", (unsigned)c);
    uint32_t rest = c - 0x10000;
    return buf_printf(b, "\\u%04x\\u%04x", 0xD800U + (unsigned)(rest >> 10),
                      0xDC00U + (unsigned)(rest & 0x3FF));
}

/* What could harm a terminal is escaped too: JSON lines are printed to terminals. */
static int append_json_character(struct buf *b, struct span *s)
{
    uint32_t c;
    size_t length = decode_character(*s, &c);
    struct span bytes;
    (void)span_take(s, length ? length : 1, &bytes);
    if (length == 0)
        return buf_append_str(b, "\xEF\xBF\xBD");
    if (is_harmful(c) || c == '"' || c == '\\')
        return append_json_escape(b, c);
    return buf_append_span(b, bytes);
}

int text_append_json(struct buf *b, struct span s)
{
    size_t start = b->size_bytes;
    int r = buf_append_byte(b, '"');
    while (r == 0 && s.size_bytes > 0) {
        r = append_plain_run(b, &s, "\"\\");
        if (r == 0 && s.size_bytes > 0)
            r = append_json_character(b, &s);
    }
    if (r == 0)
        r = buf_append_byte(b, '"');
    if (r < 0)
        b->size_bytes = start;
    return r;
}
