/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times in lines of logs. Each format is one small function that takes from the front of a span or
 * fails; they are tried where a time may begin. Invariant: a number out of its range is no time.
 * Called by logs_window.c.
 */
#include <string.h>
#include <time.h>

#include "agent/os/linux/logs_linux.h"
#include "common/text.h"

#define NEAR_BYTES 64 /* any format may begin within these */
#define FAR_BYTES 200 /* formats that cannot be mistaken */
#define SECOND_US INT64_C(1000000)
#define DAY_US (86400 * SECOND_US)
#define NO_ZONE INT32_MIN

struct moment {
    int year;       /* 0: none given */
    int month, day; /* 0: none given */
    int hour, minute, second;
    int32_t fraction_us;
    int32_t zone_s; /* east of UTC, or NO_ZONE */
};

/* ---- pieces ---- */

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(uint8_t c)
{
    return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static void skip(struct span *s, size_t bytes)
{
    *s = span_of(s->data + bytes, s->size_bytes - bytes);
}

static bool take_char(struct span *s, char c)
{
    if (s->size_bytes == 0 || s->data[0] != (uint8_t)c)
        return false;
    skip(s, 1);
    return true;
}

/* Exactly `digits` digits within [min, max]. */
static bool take_digits(struct span *s, size_t digits, int min, int max, int *out)
{
    int value = 0;
    if (s->size_bytes < digits)
        return false;
    for (size_t i = 0; i < digits; i++) {
        if (!is_digit(s->data[i]))
            return false;
        value = value * 10 + (s->data[i] - '0');
    }
    if (value < min || value > max)
        return false;
    *out = value;
    skip(s, digits);
    return true;
}

static bool take_month_name(struct span *s, int *out)
{
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (int i = 0; i < 12 && s->size_bytes >= 3; i++) {
        if (memcmp(s->data, names + 3 * i, 3) != 0)
            continue;
        *out = i + 1;
        skip(s, 3);
        return true;
    }
    return false;
}

static void take_fraction(struct span *s, int32_t *out)
{
    int32_t value = 0, unit = 100000;
    if (s->size_bytes < 2 || (s->data[0] != '.' && s->data[0] != ',') || !is_digit(s->data[1]))
        return;
    skip(s, 1);
    for (; s->size_bytes > 0 && is_digit(s->data[0]); unit /= 10) {
        value += (s->data[0] - '0') * unit;
        skip(s, 1);
    }
    *out = value;
}

static bool take_clock(struct span *s, struct moment *m)
{
    if (!take_digits(s, 2, 0, 23, &m->hour) || !take_char(s, ':') ||
        !take_digits(s, 2, 0, 59, &m->minute) || !take_char(s, ':') ||
        !take_digits(s, 2, 0, 60, &m->second))
        return false;
    take_fraction(s, &m->fraction_us);
    return true;
}

/* Z, UTC, GMT, +HHMM, +HH:MM, +HH, perhaps behind a blank. Other abbreviations mean several zones.
 */
static void take_zone(struct span *s, struct moment *m)
{
    struct span t = *s;
    int hours, minutes = 0;
    (void)take_char(&t, ' ');
    bool ends = t.size_bytes == 1 || (t.size_bytes > 1 && !is_word(t.data[1]));
    if (ends && take_char(&t, 'Z')) {
        m->zone_s = 0;
    } else if (proc_starts_with(t, "UTC") || proc_starts_with(t, "GMT")) {
        m->zone_s = 0;
        skip(&t, 3);
    } else if (t.size_bytes > 0 && (t.data[0] == '+' || t.data[0] == '-')) {
        int sign = t.data[0] == '-' ? -1 : 1;
        skip(&t, 1);
        if (!take_digits(&t, 2, 0, 14, &hours))
            return;
        (void)take_char(&t, ':');
        (void)take_digits(&t, 2, 0, 59, &minutes);
        m->zone_s = sign * (hours * 3600 + minutes * 60);
    } else {
        return;
    }
    *s = t;
}

/* ---- formats ---- */

/* 2026-11-23T14:02:05.123Z, 2026-11-23 14:02:05,123, 2026-11-23 14:02:05.123 UTC */
static bool take_iso(struct span s, struct moment *m)
{
    if (!take_digits(&s, 4, 1970, 9999, &m->year) || !take_char(&s, '-') ||
        !take_digits(&s, 2, 1, 12, &m->month) || !take_char(&s, '-') ||
        !take_digits(&s, 2, 1, 31, &m->day) || !(take_char(&s, 'T') || take_char(&s, ' ')) ||
        !take_clock(&s, m))
        return false;
    take_zone(&s, m);
    return true;
}

/* nginx's error log, Go: 2026/11/23 14:02:05 */
static bool take_slashes(struct span s, struct moment *m)
{
    return take_digits(&s, 4, 1970, 9999, &m->year) && take_char(&s, '/') &&
           take_digits(&s, 2, 1, 12, &m->month) && take_char(&s, '/') &&
           take_digits(&s, 2, 1, 31, &m->day) && take_char(&s, ' ') && take_clock(&s, m);
}

/* Access logs: 23/Nov/2026:14:02:05 +0000 */
static bool take_common(struct span s, struct moment *m)
{
    if (!take_digits(&s, 2, 1, 31, &m->day) || !take_char(&s, '/') ||
        !take_month_name(&s, &m->month) || !take_char(&s, '/') ||
        !take_digits(&s, 4, 1970, 9999, &m->year) || !take_char(&s, ':') || !take_clock(&s, m))
        return false;
    take_zone(&s, m);
    return true;
}

/* redis: 23 Nov 2026 14:02:05.123 */
static bool take_day_first(struct span s, struct moment *m)
{
    return take_digits(&s, 2, 1, 31, &m->day) && take_char(&s, ' ') &&
           take_month_name(&s, &m->month) && take_char(&s, ' ') &&
           take_digits(&s, 4, 1970, 9999, &m->year) && take_char(&s, ' ') && take_clock(&s, m);
}

/* syslog: Nov  3 14:02:05; Apache's error log: Nov 23 14:02:05.123456 2026 */
static bool take_month_first(struct span s, struct moment *m)
{
    if (!take_month_name(&s, &m->month) || !take_char(&s, ' '))
        return false;
    bool short_day = take_char(&s, ' ');
    if (!take_digits(&s, short_day ? 1 : 2, 1, 31, &m->day) || !take_char(&s, ' ') ||
        !take_clock(&s, m))
        return false;
    if (take_char(&s, ' '))
        (void)take_digits(&s, 4, 1970, 9999, &m->year);
    return true;
}

/* logback: 14:02:05.123, alone at the beginning of a line */
static bool take_clock_only(struct span s, struct moment *m)
{
    return take_clock(&s, m) && (s.size_bytes == 0 || !is_word(s.data[0]));
}

/* ---- from the fields to a moment ---- */

static bool to_us(const struct moment *m, int64_t *out)
{
    struct tm tm = {.tm_year = m->year - 1900,
                    .tm_mon = m->month - 1,
                    .tm_mday = m->day,
                    .tm_hour = m->hour,
                    .tm_min = m->minute,
                    .tm_sec = m->second,
                    .tm_isdst = -1};
    time_t seconds = m->zone_s == NO_ZONE ? mktime(&tm) : timegm(&tm);
    if (seconds == (time_t)-1)
        return false;
    int64_t zone_s = m->zone_s == NO_ZONE ? 0 : m->zone_s;
    *out = ((int64_t)seconds - zone_s) * SECOND_US + m->fraction_us;
    return true;
}

/* What is not given is taken from the latest moment that it can be, with a day for clocks that
 * differ. */
static bool complete(struct moment *m, int64_t latest_us, int64_t *out)
{
    struct tm latest;
    time_t seconds = (time_t)(latest_us / SECOND_US);
    if (m->year != 0)
        return to_us(m, out);
    if (!localtime_r(&seconds, &latest))
        return false;
    bool has_day = m->month != 0;
    m->year = latest.tm_year + 1900;
    if (!has_day) {
        m->month = latest.tm_mon + 1;
        m->day = latest.tm_mday;
    }
    if (!to_us(m, out))
        return false;
    if (has_day && *out > latest_us + DAY_US) {
        m->year--;
        return to_us(m, out);
    }
    if (!has_day && *out > latest_us + DAY_US / 24)
        *out -= DAY_US;
    return true;
}

/* ---- where to look ---- */

static bool take_at(struct span s, size_t offset, struct moment *m)
{
    static bool (*const near_formats[])(struct span, struct moment *) = {
        take_iso, take_slashes, take_common, take_day_first, take_month_first};
    static bool (*const far_formats[])(struct span, struct moment *) = {take_iso, take_common};
    const struct moment none = {.zone_s = NO_ZONE};
    bool is_near = offset < NEAR_BYTES;
    size_t count = is_near ? sizeof near_formats / sizeof near_formats[0]
                           : sizeof far_formats / sizeof far_formats[0];
    for (size_t i = 0; i < count; i++) {
        *m = none;
        if ((is_near ? near_formats : far_formats)[i](s, m))
            return true;
    }
    *m = none;
    return offset == 0 && take_clock_only(s, m);
}

/* A line that begins with a blank goes on with the one before it; a time in it is not its own. */
int logs_time(struct span line, int64_t latest_us, int64_t *out_us)
{
    struct moment m;
    if (line.size_bytes == 0 || line.data[0] == ' ' || line.data[0] == '\t')
        return ERR_NOTFOUND;
    for (size_t i = 0; i < line.size_bytes && i < FAR_BYTES; i++) {
        uint8_t c = line.data[i];
        if (!is_word(c) || (i > 0 && is_word(line.data[i - 1])))
            continue;
        if (take_at(span_of(line.data + i, line.size_bytes - i), i, &m))
            return complete(&m, latest_us, out_us) ? 0 : ERR_NOTFOUND;
    }
    return ERR_NOTFOUND;
}
