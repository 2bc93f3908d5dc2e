/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the languages share: looking into a line, copying out of it, frames, tags, prefixes. Pure.
 * Called by trace*.c.
 */
#include <string.h>

#include "agent/trace_private.h"
#include "common/text.h"

/* ---- looking ---- */

size_t trace_find(struct span s, const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i + length <= s.size_bytes; i++) {
        const uint8_t *found = memchr(s.data + i, text[0], s.size_bytes - length + 1 - i);
        if (!found)
            break;
        i = (size_t)(found - s.data);
        if (memcmp(found, text, length) == 0)
            return i + length;
    }
    return SIZE_MAX;
}

size_t trace_find_last(struct span s, char c)
{
    for (size_t i = s.size_bytes; i > 0; i--)
        if (s.data[i - 1] == (uint8_t)c)
            return i - 1;
    return SIZE_MAX;
}

const uint8_t *trace_last_newline(const uint8_t *data, size_t size_bytes)
{
    for (size_t i = size_bytes; i > 0; i--)
        if (data[i - 1] == '\n')
            return data + i - 1;
    return NULL;
}

bool trace_contains(struct span s, const char *text)
{
    return trace_find(s, text) != SIZE_MAX;
}

bool trace_number(struct span *s, uint64_t *out)
{
    return text_take_u64(s, out) == 0;
}

/* ---- copying ---- */

/* The second and later bytes of a character in UTF-8 (RFC 3629). */
static bool is_inner(uint8_t c)
{
    return (c & 0xC0) == 0x80;
}

/* Most of it is plain, and then this is all there is to do. */
static void copy_clean(char *out, struct span s)
{
    uint8_t all = 0;
    bool has_zero = false;
    for (size_t i = 0; i < s.size_bytes; i++) {
        out[i] = (char)s.data[i];
        all |= s.data[i];
        has_zero |= s.data[i] == 0;
    }
    out[s.size_bytes] = '\0';
    for (size_t i = 0; has_zero && i < s.size_bytes; i++)
        if (!out[i])
            out[i] = '?';
    if (all & 0x80)
        text_clean(out);
}

void trace_copy(char *out, size_t size_bytes, struct span s)
{
    if (s.size_bytes >= size_bytes) {
        s.size_bytes = size_bytes - 1;
        size_t whole = s.size_bytes;
        while (whole > 0 && s.size_bytes - whole < 4 && is_inner(s.data[whole]))
            whole--;
        s.size_bytes = whole;
    }
    copy_clean(out, s);
}

void trace_copy_end(char *out, size_t size_bytes, struct span s)
{
    if (s.size_bytes >= size_bytes)
        s = trace_skip(s, s.size_bytes - (size_bytes - 1));
    while (s.size_bytes > 0 && is_inner(s.data[0]))
        s = trace_skip(s, 1);
    copy_clean(out, s);
}

void trace_add_line(char *out, size_t size_bytes, struct span s)
{
    size_t length = strlen(out);
    if (length + 2 >= size_bytes)
        return;
    out[length++] = '\n';
    trace_copy(out + length, size_bytes - length, s);
}

void trace_tag(struct trace_open *t, const char *key, struct span value)
{
    struct os_tag *tag = NULL;
    for (uint32_t i = 0; i < t->e.tag_count; i++)
        if (strcmp(t->e.tags[i].key, key) == 0)
            tag = &t->e.tags[i];
    if (!tag && t->e.tag_count == OS_EXCEPTION_TAGS)
        return;
    if (!tag) {
        tag = &t->e.tags[t->e.tag_count++];
        text_copy(tag->key, sizeof tag->key, key);
    }
    trace_copy(tag->value, sizeof tag->value, value);
}

void trace_set_type(struct trace_open *t, struct span type, struct span message)
{
    trace_copy(t->e.type, sizeof t->e.type, trace_trim(type));
    trace_copy(t->e.message, sizeof t->e.message, trace_trim(message));
}

/* ---- frames ---- */

static void set_frame(struct os_frame *frame, struct span function, struct span file, uint64_t line)
{
    frame->module[0] = '\0';
    frame->build_id_bytes = 0;
    frame->offset = 0;
    frame->exact = false;
    frame->line = line <= UINT32_MAX ? (uint32_t)line : 0;
    trace_copy(frame->function, sizeof frame->function, trace_trim(function));
    trace_copy_end(frame->file, sizeof frame->file, trace_trim(file));
}

struct os_frame *trace_frame(struct trace_open *t, struct span function, struct span file,
                             uint64_t line)
{
    t->total++;
    if (t->e.frame_count == OS_EXCEPTION_FRAMES)
        return NULL;
    struct os_frame *frame = &t->e.frames[t->e.frame_count++];
    set_frame(frame, function, file, line);
    return frame;
}

void trace_frame_outer(struct trace_open *t, struct span function, struct span file, uint64_t line)
{
    set_frame(&t->e.frames[t->total++ % OS_EXCEPTION_FRAMES], function, file, line);
    if (t->e.frame_count < OS_EXCEPTION_FRAMES)
        t->e.frame_count++;
}

void trace_turn(struct trace_open *t)
{
    struct os_frame said[OS_EXCEPTION_FRAMES];
    memcpy(said, t->e.frames, t->e.frame_count * sizeof said[0]);
    for (uint32_t i = 0; i < t->e.frame_count; i++)
        t->e.frames[i] = said[(t->total - 1 - i) % OS_EXCEPTION_FRAMES];
}

/* The last number behind a colon, taken off. */
static bool take_number(struct span *s, uint64_t *out)
{
    size_t colon = trace_find_last(*s, ':');
    if (colon == SIZE_MAX || colon == 0)
        return false;
    struct span number = trace_skip(*s, colon + 1);
    if (!trace_number(&number, out) || number.size_bytes > 0)
        return false;
    s->size_bytes = colon;
    return true;
}

bool trace_place(struct span s, struct span *file, uint64_t *line)
{
    uint64_t before;
    if (!take_number(&s, line))
        return false;
    if (take_number(&s, &before))
        *line = before;
    *file = s;
    return true;
}

/* ---- prefixes ---- */

void trace_set_prefix(struct trace_open *t, struct span prefix)
{
    t->prefix_bytes = 0;
    if (prefix.size_bytes > sizeof t->prefix)
        return;
    memcpy(t->prefix, prefix.data, prefix.size_bytes);
    t->prefix_bytes = prefix.size_bytes;
}

static size_t digits(struct span s, size_t at)
{
    size_t end = at;
    while (end < s.size_bytes && trace_is_digit(s.data[end]))
        end++;
    return end - at;
}

/* Numbers that name a process or thread: "[123]", "(123)", "#123", "=123", "exec-3"; not those of
 * times and counts. */
static bool names_somebody(struct span prefix, size_t begin, size_t end)
{
    uint8_t before = begin > 0 ? prefix.data[begin - 1] : 0;
    uint8_t earlier = begin > 1 ? prefix.data[begin - 2] : 0;
    uint8_t after = end < prefix.size_bytes ? prefix.data[end] : 0;
    return (before == '[' && after == ']') || (before == '(' && after == ')') || before == '#' ||
           before == '=' || (before == '-' && trace_is_letter(earlier)) ||
           (trace_is_letter(before) && !trace_is_digit(earlier));
}

size_t trace_prefix_length(const struct trace_open *t, struct span line)
{
    struct span prefix = span_of(t->prefix, t->prefix_bytes);
    size_t j = 0;
    for (size_t i = 0; i < prefix.size_bytes;) {
        size_t wanted = digits(prefix, i), got = digits(line, j);
        if (wanted == 0) {
            if (j >= line.size_bytes || line.data[j++] != prefix.data[i++])
                return SIZE_MAX;
            continue;
        }
        bool is_exact = names_somebody(prefix, i, i + wanted);
        if (got == 0 ||
            (is_exact && (got != wanted || memcmp(prefix.data + i, line.data + j, got) != 0)))
            return SIZE_MAX;
        i += wanted;
        j += got;
    }
    return j;
}

void trace_writer(struct trace_open *t)
{
    struct span p = trace_trim(span_of(t->prefix, t->prefix_bytes));
    size_t open = trace_find_last(p, '[');
    uint64_t pid;
    if (!trace_ends(p, "]:") || open == SIZE_MAX || open == 0)
        return;
    struct span number = trace_skip(p, open + 1);
    if (!trace_number(&number, &pid) || !span_equal(number, span_str("]:")) || pid == 0 ||
        pid > INT32_MAX)
        return;
    size_t begin = open;
    while (begin > 0 && p.data[begin - 1] > ' ')
        begin--;
    if (begin == open)
        return;
    t->e.pid = (uint32_t)pid;
    trace_copy(t->e.process, sizeof t->e.process, span_of(p.data + begin, open - begin));
}

bool trace_line_before(const struct trace_look *look, const uint8_t **at, struct span *line)
{
    if (*at <= look->base)
        return false;
    const uint8_t *end = *at - 1; /* the newline */
    size_t length = (size_t)(end - look->base);
    const uint8_t *newline = trace_last_newline(look->base, length);
    const uint8_t *begin = newline ? newline + 1 : look->base;
    *at = begin;
    *line = span_of(begin, (size_t)(end - begin));
    if (line->size_bytes > 0 && line->data[line->size_bytes - 1] == '\r')
        line->size_bytes--;
    return true;
}

bool trace_own_before(const struct trace_open *t, const struct trace_look *look, const uint8_t **at,
                      struct span *line, uint32_t *patience)
{
    while (trace_line_before(look, at, line)) {
        size_t length = trace_prefix_length(t, *line);
        if (length != SIZE_MAX) {
            *line = trace_first(trace_skip(*line, length), 4096);
            return true;
        }
        if ((*patience)-- == 0)
            return false;
    }
    return false;
}

bool trace_is_alike(const struct trace_open *t, struct span line)
{
    const size_t enough = 10;
    struct span prefix = trace_first(span_of(t->prefix, t->prefix_bytes), enough);
    if (prefix.size_bytes < enough || line.size_bytes < enough)
        return false;
    for (size_t i = 0; i < enough; i++) {
        uint8_t a = prefix.data[i], b = line.data[i];
        bool is_same = a == b || (trace_is_digit(a) && trace_is_digit(b)) ||
                       (trace_is_letter(a) && trace_is_letter(b));
        if (!is_same)
            return false;
    }
    return true;
}
