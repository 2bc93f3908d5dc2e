/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict reading of text, without locale and without the C library's lenient parsers; text_print.c
 * has the writing half of text.h. Invariant: a parser that fails has written nothing. Called by
 * everything that takes text from a person, a file or the network. Pure.
 */
#include "common/text.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define SECOND_US INT64_C(1000000)
#define MINUTE_US (60 * SECOND_US)
#define HOUR_US (60 * MINUTE_US)
#define DAY_US (24 * HOUR_US)

#define NAME_MAX_CHARACTERS 63
#define NEAREST_MAX_CHARACTERS 63

/* ---- copying ---- */

/* A zero inside the span ends a C string, so it counts as a cut: nobody may mistake the rest. */
int text_copy_span(char *out, size_t size_bytes, struct span s)
{
    assert(size_bytes >= 1);
    size_t length = 0;
    while (length < s.size_bytes && length < size_bytes - 1 && s.data[length] != '\0')
        length++;
    if (length > 0)
        memcpy(out, s.data, length);
    out[length] = '\0';
    return length < s.size_bytes ? ERR_LIMIT : 0;
}

int text_copy(char *out, size_t size_bytes, const char *text)
{
    return text_copy_span(out, size_bytes, span_str(text));
}

int text_format(char *out, size_t size_bytes, const char *format, ...)
{
    assert(size_bytes >= 1);
    va_list args;
    va_start(args, format);
    int length = vsnprintf(out, size_bytes, format, args);
    va_end(args);
    if (length < 0) {
        out[0] = '\0';
        return ERR_INVALID;
    }
    return (size_t)length >= size_bytes ? ERR_LIMIT : 0;
}

/* ---- numbers ---- */

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_alphanumeric(uint8_t c)
{
    return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static int hex_value(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static void skip(struct span *s, size_t bytes)
{
    if (bytes > 0)
        *s = span_of(s->data + bytes, s->size_bytes - bytes);
}

int text_take_u64(struct span *s, uint64_t *out)
{
    uint64_t value = 0;
    size_t i = 0;
    for (; i < s->size_bytes && is_digit(s->data[i]); i++) {
        uint64_t digit = (uint64_t)(s->data[i] - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return ERR_INVALID;
        value = value * 10 + digit;
    }
    if (i == 0)
        return ERR_INVALID;
    *out = value;
    skip(s, i);
    return 0;
}

int text_take_hex(struct span *s, uint64_t *out)
{
    uint64_t value = 0;
    size_t i = 0;
    for (; i < s->size_bytes && hex_value(s->data[i]) >= 0; i++) {
        if (value >> 60)
            return ERR_INVALID;
        value = value << 4 | (uint64_t)hex_value(s->data[i]);
    }
    if (i == 0)
        return ERR_INVALID;
    *out = value;
    skip(s, i);
    return 0;
}

int text_u64(const char *text, uint64_t *out)
{
    struct span s = span_str(text);
    uint64_t value;
    if (text_take_u64(&s, &value) < 0 || s.size_bytes > 0)
        return ERR_INVALID;
    *out = value;
    return 0;
}

int text_u64_in(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t value;
    if (text_u64(text, &value) < 0 || value < min || value > max)
        return ERR_INVALID;
    *out = value;
    return 0;
}

int text_i64(const char *text, int64_t *out)
{
    bool is_negative = text[0] == '-';
    uint64_t value;
    if (text_u64(text + is_negative, &value) < 0)
        return ERR_INVALID;
    if (value > (uint64_t)INT64_MAX + is_negative)
        return ERR_INVALID;
    *out = !is_negative ? (int64_t)value : value == 0 ? 0 : -(int64_t)(value - 1) - 1;
    return 0;
}

int text_parse_hex(const char *text, uint8_t *out, size_t count)
{
    if (strlen(text) != 2 * count)
        return ERR_INVALID;
    for (size_t i = 0; i < 2 * count; i++)
        if (hex_value((uint8_t)text[i]) < 0)
            return ERR_INVALID;
    for (size_t i = 0; i < count; i++) {
        unsigned high = (unsigned)hex_value((uint8_t)text[2 * i]);
        unsigned low = (unsigned)hex_value((uint8_t)text[2 * i + 1]);
        out[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

int text_take_until(struct span *s, char stop, struct span *out)
{
    if (s->size_bytes == 0)
        return ERR_NOTFOUND;
    const uint8_t *at = memchr(s->data, stop, s->size_bytes);
    size_t length = at ? (size_t)(at - s->data) : s->size_bytes;
    *out = span_of(s->data, length);
    skip(s, at ? length + 1 : length);
    return 0;
}

/* ---- durations and sizes ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

/* A number and exactly one of the units (NULL-terminated; "" allows none), below `max`. */
static int number_with_unit(const char *text, const struct unit *units, uint64_t max, uint64_t *out)
{
    struct span s = span_str(text);
    uint64_t value;
    if (text_take_u64(&s, &value) < 0)
        return ERR_INVALID;
    for (; units->name; units++) {
        if (!span_equal(s, span_str(units->name)))
            continue;
        if (value > max / units->factor)
            return ERR_INVALID;
        *out = value * units->factor;
        return 0;
    }
    return ERR_INVALID;
}

int text_duration_us(const char *text, int64_t *out)
{
    static const struct unit units[] = {
        {"us", 1},      {"ms", 1000},  {"s", SECOND_US}, {"m", MINUTE_US},
        {"h", HOUR_US}, {"d", DAY_US}, {NULL, 0},
    };
    uint64_t value;
    if (number_with_unit(text, units, INT64_MAX, &value) < 0)
        return ERR_INVALID;
    *out = (int64_t)value;
    return 0;
}

int text_size_bytes(const char *text, uint64_t *out)
{
    static const struct unit units[] = {
        {"", 1},
        {"K", UINT64_C(1) << 10},
        {"M", UINT64_C(1) << 20},
        {"G", UINT64_C(1) << 30},
        {"T", UINT64_C(1) << 40},
        {NULL, 0},
    };
    return number_with_unit(text, units, UINT64_MAX, out);
}

/* ---- moments ---- */

/* Days since 1970-01-01 of a date of the proleptic Gregorian calendar; years begin in March. */
static int64_t days_from_date(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static int64_t days_in_month(int64_t year, int64_t month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && is_leap ? 29 : days[month - 1];
}

static int take_char(struct span *s, const char *one_of, char *out)
{
    if (s->size_bytes == 0 || s->data[0] == '\0' || !strchr(one_of, s->data[0]))
        return ERR_INVALID;
    *out = (char)s->data[0];
    skip(s, 1);
    return 0;
}

/* Exactly `digits` digits with a value of min to max. */
static int take_field(struct span *s, size_t digits, int64_t min, int64_t max, int64_t *out)
{
    int64_t value = 0;
    if (s->size_bytes < digits)
        return ERR_INVALID;
    for (size_t i = 0; i < digits; i++) {
        if (!is_digit(s->data[i]))
            return ERR_INVALID;
        value = value * 10 + (s->data[i] - '0');
    }
    if (value < min || value > max)
        return ERR_INVALID;
    *out = value;
    skip(s, digits);
    return 0;
}

/* "HH:MM" as microseconds. */
static int take_hours_minutes(struct span *s, int64_t *us)
{
    int64_t hour, minute;
    char colon;
    if (take_field(s, 2, 0, 23, &hour) < 0 || take_char(s, ":", &colon) < 0 ||
        take_field(s, 2, 0, 59, &minute) < 0)
        return ERR_INVALID;
    *us = hour * HOUR_US + minute * MINUTE_US;
    return 0;
}

/* ":SS" added to `*us`. A leap second has no place in a count since 1970 and is refused. */
static int take_seconds(struct span *s, int64_t *us)
{
    int64_t second;
    char colon;
    if (take_char(s, ":", &colon) < 0 || take_field(s, 2, 0, 59, &second) < 0)
        return ERR_INVALID;
    *us += second * SECOND_US;
    return 0;
}

/* ".5" added to `*us`; digits behind the sixth are read and dropped. */
static int take_fraction(struct span *s, int64_t *us)
{
    char point;
    if (take_char(s, ".", &point) < 0 || s->size_bytes == 0 || !is_digit(s->data[0]))
        return ERR_INVALID;
    for (int64_t weight = SECOND_US / 10; s->size_bytes > 0 && is_digit(s->data[0]); weight /= 10) {
        *us += weight * (s->data[0] - '0');
        skip(s, 1);
    }
    return 0;
}

/* "Z", "+02:00", "-05:30": what has to be subtracted to get UTC. */
static int take_offset(struct span *s, int64_t *us)
{
    char sign;
    int64_t offset = 0;
    if (take_char(s, "Zz+-", &sign) < 0)
        return ERR_INVALID;
    if ((sign == '+' || sign == '-') && take_hours_minutes(s, &offset) < 0)
        return ERR_INVALID;
    *us = sign == '-' ? -offset : offset;
    return 0;
}

static int take_date(struct span *s, int64_t *days)
{
    int64_t year, month, day;
    char dash;
    if (take_field(s, 4, 0, 9999, &year) < 0 || take_char(s, "-", &dash) < 0 ||
        take_field(s, 2, 1, 12, &month) < 0 || take_char(s, "-", &dash) < 0 ||
        take_field(s, 2, 1, days_in_month(year, month), &day) < 0)
        return ERR_INVALID;
    *days = days_from_date(year, month, day);
    return 0;
}

/* RFC 3339, section 5.6. */
static int parse_rfc3339(struct span s, int64_t *out)
{
    int64_t days, us, offset;
    char separator;
    if (take_date(&s, &days) < 0 || take_char(&s, "Tt ", &separator) < 0 ||
        take_hours_minutes(&s, &us) < 0 || take_seconds(&s, &us) < 0)
        return ERR_INVALID;
    if (s.size_bytes > 0 && s.data[0] == '.' && take_fraction(&s, &us) < 0)
        return ERR_INVALID;
    if (take_offset(&s, &offset) < 0 || s.size_bytes > 0)
        return ERR_INVALID;
    *out = days * DAY_US + us - offset;
    return 0;
}

/* "14:02[:05]": today's, or yesterday's when today's is still to come. */
static int parse_time_of_day(struct span s, int64_t now_us, int64_t *out)
{
    int64_t us;
    if (take_hours_minutes(&s, &us) < 0 || (s.size_bytes > 0 && take_seconds(&s, &us) < 0) ||
        s.size_bytes > 0)
        return ERR_INVALID;
    int64_t since_midnight = (now_us % DAY_US + DAY_US) % DAY_US;
    int64_t back = since_midnight - us + (us > since_midnight ? DAY_US : 0);
    if (now_us < INT64_MIN + back)
        return ERR_INVALID;
    *out = now_us - back;
    return 0;
}

static int parse_relative(const char *text, int64_t now_us, int64_t *out)
{
    int64_t delta;
    if (text_duration_us(text + 1, &delta) < 0)
        return ERR_INVALID;
    if (text[0] == '-' ? now_us < INT64_MIN + delta : now_us > INT64_MAX - delta)
        return ERR_INVALID;
    *out = text[0] == '-' ? now_us - delta : now_us + delta;
    return 0;
}

int text_time_us(const char *text, int64_t now_us, int64_t *out)
{
    struct span s = span_str(text);
    if (text[0] == '-' || text[0] == '+')
        return parse_relative(text, now_us, out);
    if (s.size_bytes > 2 && text[2] == ':')
        return parse_time_of_day(s, now_us, out);
    return parse_rfc3339(s, out);
}

/* ---- globs and names ---- */

/* One character of UTF-8: the byte and the continuation bytes behind it. */
static const char *next_character(const char *text)
{
    text++;
    while (((uint8_t)*text & 0xC0) == 0x80)
        text++;
    return text;
}

/* Going back to the last `*` only keeps this linear per star; no recursion on foreign patterns. */
bool text_glob(const char *pattern, const char *text)
{
    const char *star = NULL, *retry = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = ++pattern;
            retry = text;
        } else if (*pattern == '?') {
            pattern++;
            text = next_character(text);
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star;
            text = retry = next_character(retry);
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

bool text_is_name(const char *text)
{
    size_t length = 0;
    for (; text[length]; length++) {
        uint8_t c = (uint8_t)text[length];
        if (length >= NAME_MAX_CHARACTERS || (!is_alphanumeric(c) && !strchr("._-", c)))
            return false;
    }
    return length > 0 && is_alphanumeric((uint8_t)text[0]) &&
           is_alphanumeric((uint8_t)text[length - 1]);
}

/* ---- suggestions ---- */

static size_t least_of(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Levenshtein distance of two texts of at most NEAREST_MAX_CHARACTERS. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[NEAREST_MAX_CHARACTERS + 1];
    size_t b_length = strlen(b);
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t above = row[j];
            size_t swapped = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = least_of(above + 1, row[j - 1] + 1, swapped);
            diagonal = above;
        }
    }
    return row[b_length];
}

/* A suggestion must share at least one character with what was written. */
const char *text_nearest(const char *text, const char *const *names)
{
    const char *best = NULL;
    size_t best_distance = 3;
    size_t length = strlen(text);
    if (length > NEAREST_MAX_CHARACTERS)
        return NULL;
    for (; *names; names++) {
        size_t name_length = strlen(*names);
        if (name_length > NEAREST_MAX_CHARACTERS)
            continue;
        size_t distance = edit_distance(text, *names);
        if (distance < best_distance && distance < (length > name_length ? length : name_length)) {
            best = *names;
            best_distance = distance;
        }
    }
    return best;
}
