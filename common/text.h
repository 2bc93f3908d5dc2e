/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict reading and safe writing of text: numbers, durations, sizes, times, globs, terminal-safe
 * printing. The only file that may call strtol and friends. A parser accepts the whole string or
 * returns ERR_INVALID with `*out` untouched; missing or trailing characters are errors, never 0.
 */
#ifndef TRAWL_COMMON_TEXT_H
#define TRAWL_COMMON_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

/* Copies with cut and terminating zero; returns ERR_LIMIT when it had to cut. size_bytes >= 1. */
int text_copy(char *out, size_t size_bytes, const char *text);
int text_copy_span(char *out, size_t size_bytes, struct span s);
/* snprintf that returns ERR_LIMIT when it had to cut. */
int text_format(char *out, size_t size_bytes, const char *format, ...) TRAWL_PRINTF(3, 4);

int text_u64(const char *text, uint64_t *out); /* decimal digits only */
int text_u64_in(const char *text, uint64_t min, uint64_t max, uint64_t *out);
int text_i64(const char *text, int64_t *out); /* optional leading '-' */
/* Reads a decimal (text_take_u64) or hexadecimal number at the front of `*s`, moving past it. */
int text_take_u64(struct span *s, uint64_t *out);
int text_take_hex(struct span *s, uint64_t *out);
/* Takes the next run of bytes up to `stop` (which is skipped) or the end. ERR_NOTFOUND at the end.
 */
int text_take_until(struct span *s, char stop, struct span *out);

int text_duration_us(const char *text,
                     int64_t *out); /* 500us 50ms 10s 5m 1h 2d; a unit is needed */
int text_size_bytes(const char *text, uint64_t *out); /* 4096 64K 64M 2G (powers of 1024) */
/*
 * A moment, as microseconds since 1970: "14:02[:05]" (today, UTC, the latest such moment not after
 * now), "-10m" (before now), "+2s", RFC 3339 ("2026-11-23T14:02:05.5Z" or with an offset).
 */
int text_time_us(const char *text, int64_t now_us, int64_t *out);

/* Written forms. `out` sizes: 32 bytes are always enough. */
void text_put_duration(int64_t us, char *out,
                       size_t size_bytes); /* "0.6 ms", "2.1 s", "5 m 10 s" */
void text_put_size(uint64_t bytes, char *out, size_t size_bytes); /* "1.5 MiB" */
void text_put_time(int64_t us, char *out, size_t size_bytes);     /* RFC 3339, UTC, milliseconds */
void text_put_hex(const uint8_t *bytes, size_t count, char *out); /* 2 * count + 1 bytes */
int text_parse_hex(const char *text, uint8_t *out, size_t count); /* exactly 2 * count digits */
/* `count` characters of 5 bits each, and the final 0: Crockford base 32, whose alphabet has no I,
 * L, O and U. For short names that people read aloud. */
void text_put_base32(const uint8_t *bytes, size_t count, char *out);

/* Shell-style: `*` any run, `?` one character; no classes, no escapes. */
bool text_glob(const char *pattern, const char *text);

/* Host names and label keys/values: 1..63 of [A-Za-z0-9._-], first and last alphanumeric. */
bool text_is_name(const char *text);

/*
 * Appends `s` so that it cannot harm a terminal: valid UTF-8 is kept but for control characters
 * (C0, DEL, C1) and bidirectional or invisible format characters (U+061C, U+200B..200F,
 * U+2028..202E, U+2060..2069, U+FEFF, U+E0000..E007F), which appear as \xNN or \u{NNNN}; other
 * bytes as \xNN. With `keep_lines` newline and tab pass. On ERR_LIMIT or ERR_NOMEM nothing was
 * appended.
 */
int text_append_safe(struct buf *b, struct span s, bool keep_lines);

/* Replaces, in place, bytes that are not UTF-8 by '?': stock gRPC clients refuse a whole message
 * for one of them. */
void text_clean(char *text);

/*
 * Appends a JSON string with its quotes (RFC 8259); each byte that is not UTF-8 becomes U+FFFD.
 * What text_append_safe() would show as an escape is one here too, so that JSON lines are fit for a
 * terminal. On ERR_LIMIT or ERR_NOMEM nothing was appended.
 */
int text_append_json(struct buf *b, struct span s);

/* The entry of `names` (NULL-terminated) nearest to `text` by edit distance (<= 2), or NULL. */
const char *text_nearest(const char *text, const char *const *names);

#endif
