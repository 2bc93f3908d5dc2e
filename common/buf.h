/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes: `struct span` borrows, `struct buf` owns and has a limit. Invariants: size <= capacity <=
 * limit; data is NULL only when capacity is 0; nothing is ever written past `limit`, an append that
 * would is refused whole with ERR_LIMIT. Used by everything that makes or takes bytes.
 */
#ifndef TRAWL_COMMON_BUF_H
#define TRAWL_COMMON_BUF_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

/* Borrowed bytes, valid until the call that got them returns. May hold zeros; not a string. */
struct span {
    const uint8_t *data;
    size_t size_bytes;
};

struct span span_of(const void *data, size_t size_bytes);
struct span span_str(const char *text); /* without the terminating zero */
bool span_equal(struct span a, struct span b);

/* Owned, growing bytes. */
struct buf {
    uint8_t *data;
    size_t size_bytes;
    size_t capacity_bytes;
    size_t limit_bytes;
};

/* Makes an empty buffer that will hold at most `limit_bytes` (> 0). Allocates nothing. */
void buf_init(struct buf *b, size_t limit_bytes);
/* Frees the bytes; the buffer may be used again with the same limit. A zeroed struct is fine. */
void buf_done(struct buf *b);
/* Empties without freeing. */
void buf_clear(struct buf *b);

/* Makes room for `more_bytes`; `*room` points behind the present bytes. ERR_LIMIT, ERR_NOMEM. */
int buf_reserve(struct buf *b, size_t more_bytes, uint8_t **room);
/* Counts `bytes` written into reserved room as present. Asserts that they were reserved. */
void buf_commit(struct buf *b, size_t bytes);
/* Appends a copy. On ERR_LIMIT or ERR_NOMEM nothing was appended. */
int buf_append(struct buf *b, const void *data, size_t size_bytes);
int buf_append_span(struct buf *b, struct span s);
int buf_append_str(struct buf *b, const char *text);
int buf_append_byte(struct buf *b, uint8_t byte);
int buf_printf(struct buf *b, const char *format, ...) TRAWL_PRINTF(2, 3);
/* Little-endian fixed width and base-128 variable width (protobuf varint) numbers. */
int buf_append_u32(struct buf *b, uint32_t value);
int buf_append_u64(struct buf *b, uint64_t value);
int buf_append_varint(struct buf *b, uint64_t value);
int buf_append_zigzag(struct buf *b, int64_t value);
/* Removes the first `bytes` (<= size). */
void buf_consume(struct buf *b, size_t bytes);
/* A terminating zero is kept behind the bytes (not counted); "" for an empty buffer. ERR -> "". */
const char *buf_str(struct buf *b);
struct span buf_span(const struct buf *b);
/* Gives the bytes to the caller (free() with free()) and leaves `b` empty. */
uint8_t *buf_take(struct buf *b, size_t *size_bytes);

/*
 * Room for one more entry behind the `count` of a growing list, which is moved to twice its size
 * when it is full, `first` (> 0) entries at first. A list that only grows, and by this alone, needs
 * no `capacity` (NULL): it is full at 0 and at powers of two. ERR_NOMEM with nothing changed.
 * Limits are the caller's.
 */
#define BUF_GROW(list, count, capacity, first) \
    buf_grow(&(list), (count), (capacity), (first), sizeof *(list))
int buf_grow(void *list, size_t count, size_t *capacity, size_t first, size_t entry_bytes);

/*
 * Reading a span from the front. Each moves `*s` past what it read and returns 0, or ERR_CORRUPT
 * (too short, or a varint over 10 bytes) with `*s` and the out parameter untouched.
 */
int span_take(struct span *s, size_t bytes, struct span *out);
int span_take_u8(struct span *s, uint8_t *out);
int span_take_u32(struct span *s, uint32_t *out);
int span_take_u64(struct span *s, uint64_t *out);
int span_take_varint(struct span *s, uint64_t *out);
int span_take_zigzag(struct span *s, int64_t *out);

#endif
