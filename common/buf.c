/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owned bytes that grow by doubling up to their limit, and checked reading of borrowed bytes. The
 * allocation is one byte larger than capacity_bytes, so that buf_str() can always put its zero,
 * also behind a full buffer. Called by everyone; no I/O.
 */
#include "common/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST_BYTES 64
#define VARINT_MAX_BYTES 10

struct span span_of(const void *data, size_t size_bytes)
{
    return (struct span){data, size_bytes};
}

struct span span_str(const char *text)
{
    return span_of(text, strlen(text));
}

bool span_equal(struct span a, struct span b)
{
    if (a.size_bytes != b.size_bytes)
        return false;
    return a.size_bytes == 0 || memcmp(a.data, b.data, a.size_bytes) == 0;
}

void buf_init(struct buf *b, size_t limit_bytes)
{
    assert(limit_bytes > 0 && limit_bytes < SIZE_MAX);
    *b = (struct buf){.limit_bytes = limit_bytes};
}

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.limit_bytes = b->limit_bytes};
}

void buf_clear(struct buf *b)
{
    b->size_bytes = 0;
}

static size_t grown_capacity(const struct buf *b, size_t needed_bytes)
{
    size_t capacity = b->capacity_bytes ? b->capacity_bytes : BUF_FIRST_BYTES;
    while (capacity < needed_bytes)
        capacity = capacity > SIZE_MAX / 2 ? needed_bytes : capacity * 2;
    return capacity < b->limit_bytes ? capacity : b->limit_bytes;
}

int buf_reserve(struct buf *b, size_t more_bytes, uint8_t **room)
{
    if (more_bytes > b->limit_bytes - b->size_bytes)
        return ERR_LIMIT;
    size_t needed = b->size_bytes + more_bytes;
    if (needed > b->capacity_bytes) {
        size_t capacity = grown_capacity(b, needed);
        uint8_t *data = realloc(b->data, capacity + 1);
        if (!data)
            return ERR_NOMEM;
        b->data = data;
        b->capacity_bytes = capacity;
    }
    *room = b->data ? b->data + b->size_bytes : NULL;
    return 0;
}

void buf_commit(struct buf *b, size_t bytes)
{
    assert(bytes <= b->capacity_bytes - b->size_bytes);
    b->size_bytes += bytes;
}

int buf_append(struct buf *b, const void *data, size_t size_bytes)
{
    uint8_t *room;
    int r = buf_reserve(b, size_bytes, &room);
    if (r < 0 || size_bytes == 0)
        return r;
    assert(room);
    memcpy(room, data, size_bytes);
    buf_commit(b, size_bytes);
    return 0;
}

int buf_append_span(struct buf *b, struct span s)
{
    return buf_append(b, s.data, s.size_bytes);
}

int buf_append_str(struct buf *b, const char *text)
{
    return buf_append(b, text, strlen(text));
}

int buf_append_byte(struct buf *b, uint8_t byte)
{
    return buf_append(b, &byte, 1);
}

/* The room of buf_reserve() has the spare byte behind it that vsnprintf needs for its zero. */
TRAWL_PRINTF(3, 0)
static int printf_va(struct buf *b, size_t length, const char *format, va_list args)
{
    uint8_t *room;
    int r = buf_reserve(b, length, &room);
    if (r < 0 || length == 0)
        return r;
    if (vsnprintf((char *)room, length + 1, format, args) != (int)length)
        return ERR_INVALID;
    buf_commit(b, length);
    return 0;
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    int r = length < 0 ? ERR_INVALID : printf_va(b, (size_t)length, format, again);
    va_end(again);
    va_end(args);
    return r;
}

static int append_little_endian(struct buf *b, uint64_t value, size_t size_bytes)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    return buf_append(b, bytes, size_bytes);
}

int buf_append_u32(struct buf *b, uint32_t value)
{
    return append_little_endian(b, value, 4);
}

int buf_append_u64(struct buf *b, uint64_t value)
{
    return append_little_endian(b, value, 8);
}

int buf_append_varint(struct buf *b, uint64_t value)
{
    uint8_t bytes[VARINT_MAX_BYTES];
    size_t count = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[count++] = (uint8_t)(value | 0x80);
    bytes[count++] = (uint8_t)value;
    return buf_append(b, bytes, count);
}

int buf_append_zigzag(struct buf *b, int64_t value)
{
    uint64_t sign = value < 0 ? UINT64_MAX : 0;
    return buf_append_varint(b, ((uint64_t)value << 1) ^ sign);
}

void buf_consume(struct buf *b, size_t bytes)
{
    assert(bytes <= b->size_bytes);
    b->size_bytes -= bytes;
    if (b->size_bytes > 0 && bytes > 0)
        memmove(b->data, b->data + bytes, b->size_bytes);
}

const char *buf_str(struct buf *b)
{
    if (!b->data)
        return "";
    b->data[b->size_bytes] = '\0';
    return (const char *)b->data;
}

struct span buf_span(const struct buf *b)
{
    return span_of(b->data, b->size_bytes);
}

uint8_t *buf_take(struct buf *b, size_t *size_bytes)
{
    uint8_t *data = b->data;
    *size_bytes = b->size_bytes;
    *b = (struct buf){.limit_bytes = b->limit_bytes};
    return data;
}

int buf_grow(void *list, size_t count, size_t *capacity, size_t first, size_t entry_bytes)
{
    void *old, *moved;
    bool is_full = capacity ? count >= *capacity : (count & (count - 1)) == 0;
    size_t wanted = !capacity ? (count ? 2 * count : 1) : *capacity ? 2 * count : first;
    if (!is_full)
        return 0;
    if (wanted > SIZE_MAX / entry_bytes)
        return ERR_NOMEM;
    memcpy(&old, list, sizeof old);
    moved = realloc(old, wanted * entry_bytes);
    if (!moved)
        return ERR_NOMEM;
    memcpy(list, &moved, sizeof moved);
    if (capacity)
        *capacity = wanted;
    return 0;
}

static void advance(struct span *s, size_t bytes)
{
    if (bytes > 0)
        *s = span_of(s->data + bytes, s->size_bytes - bytes);
}

int span_take(struct span *s, size_t bytes, struct span *out)
{
    if (bytes > s->size_bytes)
        return ERR_CORRUPT;
    *out = span_of(s->data, bytes);
    advance(s, bytes);
    return 0;
}

int span_take_u8(struct span *s, uint8_t *out)
{
    if (s->size_bytes < 1)
        return ERR_CORRUPT;
    *out = s->data[0];
    advance(s, 1);
    return 0;
}

static int take_little_endian(struct span *s, size_t size_bytes, uint64_t *out)
{
    if (s->size_bytes < size_bytes)
        return ERR_CORRUPT;
    uint64_t value = 0;
    for (size_t i = 0; i < size_bytes; i++)
        value |= (uint64_t)s->data[i] << (8 * i);
    *out = value;
    advance(s, size_bytes);
    return 0;
}

int span_take_u32(struct span *s, uint32_t *out)
{
    uint64_t value;
    int r = take_little_endian(s, 4, &value);
    if (r == 0)
        *out = (uint32_t)value;
    return r;
}

int span_take_u64(struct span *s, uint64_t *out)
{
    return take_little_endian(s, 8, out);
}

/* Refuses what does not fit into 64 bits instead of dropping bits: a tenth byte may only be 0 or 1.
 */
int span_take_varint(struct span *s, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < s->size_bytes && i < VARINT_MAX_BYTES; i++) {
        uint8_t byte = s->data[i];
        if (i == VARINT_MAX_BYTES - 1 && byte > 1)
            return ERR_CORRUPT;
        value |= (uint64_t)(byte & 0x7F) << (7 * i);
        if (byte < 0x80) {
            *out = value;
            advance(s, i + 1);
            return 0;
        }
    }
    return ERR_CORRUPT;
}

int span_take_zigzag(struct span *s, int64_t *out)
{
    uint64_t raw;
    int r = span_take_varint(s, &raw);
    if (r < 0)
        return r;
    uint64_t bits = (raw >> 1) ^ (raw & 1 ? UINT64_MAX : 0);
    memcpy(out, &bits, sizeof *out);
    return 0;
}
