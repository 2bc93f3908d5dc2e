/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer of JSON lines. Invariant: `comma` says whether the next value needs one before it, and
 * `closers` holds the brackets that are open. Pure; called by what renders.
 */
#include "cli/jsonl.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "common/text.h"

#define WORD_SIZE 32
#define HEX_SIZE (2 * 64 + 1)

static void note(struct jsonl *j, int r)
{
    if (j->error == 0 && r < 0)
        j->error = r;
}

/* What stands before every value. */
static void begin(struct jsonl *j, const char *key)
{
    if (j->error == 0 && j->comma)
        note(j, buf_append_byte(j->out, ','));
    if (j->error == 0 && key)
        note(j, buf_printf(j->out, "\"%s\":", key));
    j->comma = true;
}

static void raw(struct jsonl *j, const char *key, const char *text)
{
    begin(j, key);
    if (j->error == 0)
        note(j, buf_append_str(j->out, text));
}

static void open_bracket(struct jsonl *j, const char *key, const char *opener, char closer)
{
    assert(j->depth < JSONL_MAX_DEPTH);
    raw(j, key, opener);
    j->closers[j->depth++] = closer;
    j->comma = false;
}

void jsonl_object(struct jsonl *j, const char *key)
{
    open_bracket(j, key, "{", '}');
}

void jsonl_list(struct jsonl *j, const char *key)
{
    open_bracket(j, key, "[", ']');
}

void jsonl_end(struct jsonl *j)
{
    assert(j->depth > 0);
    j->depth--;
    if (j->error == 0)
        note(j, buf_append_byte(j->out, (uint8_t)j->closers[j->depth]));
    j->comma = true;
}

void jsonl_str(struct jsonl *j, const char *key, const char *text)
{
    begin(j, key);
    if (j->error == 0)
        note(j, text_append_json(j->out, span_str(text)));
}

void jsonl_member(struct jsonl *j, const char *foreign_key, const char *text)
{
    jsonl_str(j, NULL, foreign_key);
    if (j->error == 0)
        note(j, buf_append_byte(j->out, ':'));
    if (j->error == 0)
        note(j, text_append_json(j->out, span_str(text)));
}

void jsonl_word(struct jsonl *j, const char *key, const char *text)
{
    char word[WORD_SIZE];
    text_copy(word, sizeof word, text);
    for (char *c = word; *c; c++)
        *c = *c == ' ' ? '_' : *c;
    jsonl_str(j, key, word);
}

void jsonl_strs(struct jsonl *j, const char *key, const char *texts, size_t size_bytes,
                size_t count)
{
    jsonl_list(j, key);
    for (size_t i = 0; i < count; i++)
        jsonl_str(j, NULL, texts + i * size_bytes);
    jsonl_end(j);
}

void jsonl_int(struct jsonl *j, const char *key, int64_t value)
{
    char text[32];
    text_format(text, sizeof text, "%lld", (long long)value);
    raw(j, key, text);
}

void jsonl_u64(struct jsonl *j, const char *key, uint64_t value)
{
    char text[32];
    text_format(text, sizeof text, "%llu", (unsigned long long)value);
    raw(j, key, text);
}

void jsonl_bool(struct jsonl *j, const char *key, bool value)
{
    raw(j, key, value ? "true" : "false");
}

void jsonl_null(struct jsonl *j, const char *key)
{
    raw(j, key, "null");
}

/* JSON has no word for what is not finite. */
void jsonl_real(struct jsonl *j, const char *key, double value)
{
    char text[64];
    if (!isfinite(value) || fabs(value) > 1e30) {
        jsonl_null(j, key);
        return;
    }
    text_format(text, sizeof text, "%.6f", value);
    size_t length = span_str(text).size_bytes;
    while (length > 1 && text[length - 1] == '0')
        text[--length] = '\0';
    if (text[length - 1] == '.')
        text[length - 1] = '\0';
    raw(j, key, text);
}

void jsonl_time(struct jsonl *j, const char *key, int64_t us)
{
    char text[48];
    if (us == 0) {
        jsonl_null(j, key);
        return;
    }
    text_put_time(us, text, sizeof text - 8);
    size_t length = span_str(text).size_bytes;
    unsigned rest = (unsigned)(((us % 1000) + 1000) % 1000);
    text_format(text + length - 1, 8, "%03uZ", rest);
    jsonl_str(j, key, text);
}

void jsonl_hex(struct jsonl *j, const char *key, const uint8_t *bytes, size_t count)
{
    char text[HEX_SIZE];
    assert(count <= 64);
    text_put_hex(bytes, count, text);
    jsonl_str(j, key, text);
}

void jsonl_str_or_null(struct jsonl *j, const char *key, const char *text)
{
    if (text[0])
        jsonl_str(j, key, text);
    else
        jsonl_null(j, key);
}

void jsonl_u64_or_null(struct jsonl *j, const char *key, uint64_t value)
{
    if (value)
        jsonl_u64(j, key, value);
    else
        jsonl_null(j, key);
}

void jsonl_hex_or_null(struct jsonl *j, const char *key, const uint8_t *bytes, size_t count)
{
    if (count)
        jsonl_hex(j, key, bytes, count);
    else
        jsonl_null(j, key);
}

int jsonl_line(struct jsonl *j)
{
    while (j->depth > 0)
        jsonl_end(j);
    if (j->error == 0)
        note(j, buf_append_byte(j->out, '\n'));
    j->comma = false;
    return j->error;
}
