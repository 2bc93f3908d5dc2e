/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing JSON. Invariant: a comma stands between any two members, and each level is ended by its
 * own sign. Pure. Called by the kinds that give "json".
 */
#include "agent/os/linux/json_text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/text.h"

#define HEX_PIECE 64 /* bytes turned into digits at a time */

void json_text_init(struct json_text *j, struct buf *out)
{
    memset(j, 0, sizeof *j);
    j->out = out;
}

static void put(struct json_text *j, const char *text)
{
    if (j->rc == 0)
        j->rc = buf_append_str(j->out, text);
}

static void put_string(struct json_text *j, struct span text)
{
    if (j->rc == 0)
        j->rc = text_append_json(j->out, text);
}

/* What stands before a value: a comma, its name. */
static void lead(struct json_text *j, const char *key)
{
    bool in_object = j->depth > 0 && j->ends[j->depth - 1] == '}';
    assert(in_object == (key != NULL));
    assert(j->depth > 0 || !j->filled[0]);
    if (j->filled[j->depth])
        put(j, ",");
    j->filled[j->depth] = true;
    if (key) {
        put_string(j, span_str(key));
        put(j, ":");
    }
}

static void open_level(struct json_text *j, const char *key, const char *begin, char end)
{
    lead(j, key);
    put(j, begin);
    assert(j->depth < JSON_TEXT_DEPTH_MAX);
    j->ends[j->depth++] = end;
    j->filled[j->depth] = false;
}

void json_text_object(struct json_text *j, const char *key)
{
    open_level(j, key, "{", '}');
}

void json_text_array(struct json_text *j, const char *key)
{
    open_level(j, key, "[", ']');
}

void json_text_end(struct json_text *j)
{
    assert(j->depth > 0);
    char end[2] = {j->ends[--j->depth], '\0'};
    put(j, end);
}

void json_text_span(struct json_text *j, const char *key, struct span text)
{
    lead(j, key);
    put_string(j, text);
}

void json_text_str(struct json_text *j, const char *key, const char *text)
{
    if (text)
        json_text_span(j, key, span_str(text));
    else
        json_text_null(j, key);
}

/* A number or a word: fits any buffer of 32 bytes. */
TRAWL_PRINTF(3, 4)
static void put_word(struct json_text *j, const char *key, const char *format, ...)
{
    char text[32];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lead(j, key);
    put(j, text);
}

void json_text_u64(struct json_text *j, const char *key, uint64_t value)
{
    put_word(j, key, "%" PRIu64, value);
}

void json_text_i64(struct json_text *j, const char *key, int64_t value)
{
    put_word(j, key, "%" PRId64, value);
}

void json_text_bool(struct json_text *j, const char *key, bool value)
{
    put_word(j, key, "%s", value ? "true" : "false");
}

void json_text_null(struct json_text *j, const char *key)
{
    put_word(j, key, "null");
}

void json_text_address(struct json_text *j, const char *key, uint64_t value)
{
    put_word(j, key, "\"0x%" PRIx64 "\"", value);
}

void json_text_hex(struct json_text *j, const char *key, const uint8_t *bytes, size_t count)
{
    lead(j, key);
    put(j, "\"");
    while (count > 0) {
        char digits[2 * HEX_PIECE + 1];
        size_t some = count < HEX_PIECE ? count : HEX_PIECE;
        text_put_hex(bytes, some, digits);
        put(j, digits);
        bytes += some;
        count -= some;
    }
    put(j, "\"");
}

struct json_text_mark json_text_mark(const struct json_text *j)
{
    return (struct json_text_mark){.state = *j, .size_bytes = j->out->size_bytes};
}

void json_text_undo(struct json_text *j, const struct json_text_mark *mark)
{
    assert(mark->size_bytes <= j->out->size_bytes);
    *j = mark->state;
    j->out->size_bytes = mark->size_bytes;
}
