/* SPDX-License-Identifier: Apache-2.0 */
/* Which exceptions are the same, which source knows better, what is masked. See watcher_private.h.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/watcher.h"
#include "agent/watcher_private.h"
#include "common/port.h"
#include "common/text.h"
#include "common/xxh64.h"

enum os_exception_source watcher_source(const trawl_v1_Exception *e)
{
    return (enum os_exception_source)e->source;
}

int watcher_rank(enum os_exception_source source)
{
    switch (source) {
    case OS_CRASH:
        return 6;
    case OS_OOM_KILL:
        return 5;
    case OS_FAULT_LINE:
        return 4;
    case OS_LOG_TRACE:
        return 3; /* of those that end the process: "terminate called", sanitizers */
    case OS_PROCESS_EXIT:
        return 2;
    case OS_UNIT_RESULT:
        return 1;
    default:
        return 0;
    }
}

/* Error traces that a process writes when it is about to abort itself. */
static bool is_last_words(const trawl_v1_Exception *e)
{
    static const char *const languages[] = {"c++", "sanitizer", "glib", "c"};
    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++)
        if (e->source == trawl_v1_ExceptionSource_LOG_TRACE &&
            strcmp(e->language, languages[i]) == 0)
            return true;
    return false;
}

bool watcher_waits(const trawl_v1_Exception *e)
{
    if (e->source == trawl_v1_ExceptionSource_LOG_TRACE)
        return is_last_words(e);
    int rank = watcher_rank(watcher_source(e));
    return rank > 0 && rank < watcher_rank(OS_OOM_KILL);
}

bool watcher_may_be_of(enum os_exception_source source, const trawl_v1_Exception *e)
{
    return source == OS_LOG_TRACE && e->source == trawl_v1_ExceptionSource_CRASH && e->signal == 6;
}

static void adopt_text(char *to, size_t size_bytes, const char *from)
{
    if (!to[0])
        text_copy(to, size_bytes, from);
}

void watcher_adopt(trawl_v1_Exception *to, const trawl_v1_Exception *weaker)
{
    const size_t tags_max = sizeof to->tags / sizeof to->tags[0];
    if (weaker->source == trawl_v1_ExceptionSource_LOG_TRACE) {
        text_format(to->message, sizeof to->message, "%.120s: %s", weaker->type, weaker->message);
        text_format(to->template, sizeof to->template, "%.120s: %s", weaker->type,
                    weaker->template);
    }
    adopt_text(to->message, sizeof to->message, weaker->message);
    adopt_text(to->template, sizeof to->template, weaker->template);
    adopt_text(to->unit, sizeof to->unit, weaker->unit);
    adopt_text(to->executable, sizeof to->executable, weaker->executable);
    if (to->tags_count < tags_max) {
        trawl_v1_Tag *tag = &to->tags[to->tags_count++];
        text_copy(tag->key, sizeof tag->key, "also");
        text_format(tag->value, sizeof tag->value, "%.90s", weaker->type);
    }
}

/* ---- the same content ---- */

static uint64_t add_text(uint64_t hash, const char *text)
{
    return xxh64(span_of(text, strlen(text) + 1), hash);
}

static uint64_t add_number(uint64_t hash, uint64_t number)
{
    return xxh64(span_of(&number, sizeof number), hash);
}

uint64_t watcher_unit(const trawl_v1_Exception *e)
{
    return e->unit[0] ? add_text(1, e->unit) : 0;
}

uint64_t watcher_content(const trawl_v1_Exception *e)
{
    uint64_t h = add_number(0, (uint64_t)e->source);
    h = add_text(h, e->type);
    h = add_text(h, e->template);
    h = add_text(h, e->process);
    h = add_text(h, e->unit);
    h = xxh64(span_of(e->build_id.bytes, e->build_id.size), h);
    for (pb_size_t i = 0; i < e->frames_count; i++) {
        const trawl_v1_Frame *frame = &e->frames[i];
        h = xxh64(span_of(frame->build_id.bytes, frame->build_id.size), h);
        h = add_text(h, frame->module);
        h = add_number(h, frame->offset);
        h = add_text(h, frame->function);
        h = add_text(h, frame->file);
        h = add_number(h, frame->line);
    }
    h = add_number(h, e->cut_off);
    return h ? h : 1;
}

/* ---- filling ---- */

static void put_safe(char *out, size_t size_bytes, const char *text)
{
    struct buf safe;
    buf_init(&safe, 4 * size_bytes + 64);
    if (text_append_safe(&safe, span_str(text), true) == 0)
        text_copy(out, size_bytes, buf_str(&safe));
    buf_done(&safe);
}

static void fill_frames(trawl_v1_Exception *out, const struct os_exception *in)
{
    const uint32_t most = OS_EXCEPTION_FRAMES;
    out->frames_count = (pb_size_t)(in->frame_count < most ? in->frame_count : most);
    out->frames_left_out = in->frames_left_out;
    for (pb_size_t i = 0; i < out->frames_count; i++) {
        const struct os_frame *from = &in->frames[i];
        trawl_v1_Frame *to = &out->frames[i];
        put_safe(to->function, sizeof to->function, from->function);
        put_safe(to->module, sizeof to->module, from->module);
        put_safe(to->file, sizeof to->file, from->file);
        to->build_id.size = (pb_size_t)(from->build_id_bytes % (OS_BUILD_ID_SIZE + 1));
        memcpy(to->build_id.bytes, from->build_id, to->build_id.size);
        to->offset = from->offset;
        to->line = from->line;
        to->exact = from->exact;
    }
}

static void fill_lists(trawl_v1_Exception *out, const struct os_exception *in)
{
    for (uint32_t i = 0; i < in->tag_count && i < OS_EXCEPTION_TAGS; i++) {
        trawl_v1_Tag *tag = &out->tags[out->tags_count++];
        put_safe(tag->key, sizeof tag->key, in->tags[i].key);
        put_safe(tag->value, sizeof tag->value, in->tags[i].value);
    }
    for (uint32_t i = 0; i < in->saved_count && i < OS_EXCEPTION_SAVED; i++)
        text_copy(out->saved[out->saved_count++], sizeof out->saved[0], in->saved[i]);
}

static void fill_texts(trawl_v1_Exception *out, const struct os_exception *in)
{
    put_safe(out->type, sizeof out->type, in->type);
    put_safe(out->message, sizeof out->message, in->message);
    put_safe(out->template, sizeof out->template, in->template_text);
    put_safe(out->language, sizeof out->language, in->language);
    put_safe(out->process, sizeof out->process, in->process);
    put_safe(out->thread, sizeof out->thread, in->thread);
    put_safe(out->executable, sizeof out->executable, in->executable);
    put_safe(out->unit, sizeof out->unit, in->unit);
    put_safe(out->missing, sizeof out->missing, in->missing);
    if (!out->template[0])
        watcher_mask(out->message, out->template, sizeof out->template);
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i])
            return false;
    return true;
}

void watcher_fill(trawl_v1_Exception *out, const struct os_exception *in, int64_t wall_us,
                  uint64_t mono_us)
{
    *out = (trawl_v1_Exception){
        .source = (trawl_v1_ExceptionSource)in->source,
        .wall_us = in->wall_us ? in->wall_us : wall_us,
        .count = in->count ? in->count : 1,
        .pid = in->pid,
        .start_ticks = in->start_ticks,
        .tid = in->tid,
        .uid = in->uid,
        .signal = in->signal,
        .signal_code = in->signal_code,
        .fault_address = in->fault_address,
        .has_fault_address = in->has_fault_address,
        .cut_off = in->cut_off,
        .by_site = in->by_site,
    };
    int64_t ago_us = wall_us - out->wall_us;
    out->mono_us = in->mono_us                                ? in->mono_us
                   : ago_us > 0 && (uint64_t)ago_us < mono_us ? mono_us - (uint64_t)ago_us
                                                              : mono_us;
    out->last_us = in->last_us ? in->last_us : out->wall_us;
    out->id.size = sizeof in->id;
    memcpy(out->id.bytes, in->id, sizeof in->id);
    if (is_zero(in->id, sizeof in->id))
        port_random(out->id.bytes, sizeof in->id);
    out->build_id.size = (pb_size_t)(in->build_id_bytes % (OS_BUILD_ID_SIZE + 1));
    memcpy(out->build_id.bytes, in->build_id, out->build_id.size);
    fill_texts(out, in);
    fill_frames(out, in);
    fill_lists(out, in);
}

/* ---- masking ---- */

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Length of a UUID (RFC 9562, section 4) here; 0: none. */
static size_t uuid_length(const char *text)
{
    static const size_t groups[] = {8, 4, 4, 4, 12};
    size_t at = 0;
    for (size_t g = 0; g < 5; g++) {
        for (size_t i = 0; i < groups[g]; i++, at++)
            if (!is_hex(text[at]))
                return 0;
        if (g < 4 && text[at++] != '-')
            return 0;
    }
    return is_word(text[at]) ? 0 : at;
}

/* A word of at least eight hexadecimal digits, of both kinds: one of decimal digits alone is a
 * number, however long, or equal messages would differ where a counter grows. */
static size_t hex_length(const char *text)
{
    size_t length = 0, digits = 0;
    for (; is_hex(text[length]); length++)
        digits += is_digit(text[length]);
    return length >= 8 && digits > 0 && digits < length && !is_word(text[length]) ? length : 0;
}

static size_t address_length(const char *text)
{
    size_t length = 2;
    if (text[0] != '0' || (text[1] != 'x' && text[1] != 'X'))
        return 0;
    while (is_hex(text[length]))
        length++;
    return length > 2 ? length : 0;
}

static size_t number_length(const char *text)
{
    size_t length = 0;
    while (is_digit(text[length]) ||
           (length > 0 && (text[length] == '.' || text[length] == ',' || text[length] == ':') &&
            is_digit(text[length + 1])))
        length++;
    return length;
}

/* What stands between two equal quotation marks in this line; 0: no such. */
static size_t quoted_length(const char *text)
{
    char mark = text[0];
    if (mark != '"' && mark != '\'' && mark != '`')
        return 0;
    for (size_t i = 1; text[i] && text[i] != '\n'; i++)
        if (text[i] == mark)
            return i + 1;
    return 0;
}

static size_t masked(const char *text, bool in_word, const char **mask)
{
    size_t length = 0;
    if (!in_word && (length = address_length(text)))
        *mask = "<a>";
    else if (!in_word && (length = uuid_length(text)))
        *mask = "<id>";
    else if (!in_word && (length = quoted_length(text)))
        *mask = "<s>";
    else if (!in_word && (length = hex_length(text)))
        *mask = "<x>";
    else if ((length = number_length(text)))
        *mask = "<n>";
    return length;
}

void watcher_mask(const char *message, char *out, size_t size_bytes)
{
    struct buf b;
    buf_init(&b, size_bytes);
    bool in_word = false;
    int e = 0;
    for (const char *at = message; *at && !e;) {
        const char *mask = NULL;
        size_t length = masked(at, in_word, &mask);
        e = mask ? buf_append_str(&b, mask) : buf_append(&b, at, 1);
        in_word = !mask && is_word(*at);
        at += mask ? length : 1;
    }
    text_copy(out, size_bytes, buf_str(&b));
    buf_done(&b);
}
