/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes to lines, lines to traces. While none is being put together, whole pieces are only scanned
 * for key words; a line is looked at when one stands in it. `kept` holds what was seen last, so
 * that a heading can be looked for, and the line that is not whole yet. See trace.h.
 */
#include "agent/trace.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "agent/trace_flood.h"
#include "agent/trace_private.h"
#include "common/text.h"

#define PIECE 65536u
#define COLUMN_MAX 1024u    /* a key word farther right is not looked at */
#define FOREIGN_MAX 1000u   /* lines of others while a trace is waited for */
#define UNFINISHED_QUIET 8u /* times TRACE_QUIET_US, for what is certainly not whole yet */

struct trace {
    struct trace_flood flood;
    struct buf kept;
    size_t back; /* so many bytes of `kept` are dealt with */
    uint64_t at; /* where in the log kept.data[back] stands */
    uint64_t fed;
    size_t excess;   /* left out of the line at `back` */
    bool is_cutting; /* the rest of a line that was too long is passed over */
    int64_t wall_us;
    uint64_t mono_us;
    struct trace_open *open[TRACE_OPEN_MAX];
    struct trace_open *spare;
    uint64_t lost;
};

int trace_open(struct trace **out, trace_told_fn told, void *context)
{
    struct trace *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NOMEM;
    trace_flood_init(&t->flood, told, context);
    buf_init(&t->kept, TRACE_BACK_BYTES + TRACE_LINE_MAX + PIECE + 64);
    *out = t;
    return 0;
}

void trace_close(struct trace *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < TRACE_OPEN_MAX; i++)
        free(t->open[i]);
    free(t->spare);
    trace_flood_done(&t->flood);
    buf_done(&t->kept);
    free(t);
}

/* ---- traces being put together ---- */

static bool any_open(const struct trace *t)
{
    for (size_t i = 0; i < TRACE_OPEN_MAX; i++)
        if (t->open[i])
            return true;
    return false;
}

/* Frames are written before they are counted: most of it, and the only part that is not cleared. */
static void clear(struct trace_open *o)
{
    const size_t behind = offsetof(struct trace_open, e.frame_count);
    memset(o, 0, offsetof(struct trace_open, e.frames));
    memset((uint8_t *)o + behind, 0, offsetof(struct trace_open, outer) - behind);
    o->outer_count = 0;
    o->e.uid = UINT32_MAX;
}

static struct trace_open *new_open(struct trace *t)
{
    struct trace_open *o = t->spare ? t->spare : calloc(1, sizeof *o);
    t->spare = NULL;
    if (!o) {
        t->lost++;
        return NULL;
    }
    clear(o);
    return o;
}

static void put_spare(struct trace *t, struct trace_open *o)
{
    if (t->spare)
        free(o);
    else
        t->spare = o;
}

static void end_open(struct trace *t, size_t i)
{
    struct trace_open *o = t->open[i];
    t->open[i] = NULL;
    if (!o->language->finish || o->language->finish(o)) {
        o->e.source = OS_LOG_TRACE;
        o->e.count = 1;
        text_copy(o->e.language, sizeof o->e.language, o->language->name);
        trace_flood_tell(&t->flood, &o->e, o->begin, t->mono_us);
    }
    put_spare(t, o);
}

/* A place for one more; the one that has been quiet for longest has to go. */
static size_t free_place(struct trace *t)
{
    size_t oldest = 0;
    for (size_t i = 0; i < TRACE_OPEN_MAX; i++) {
        if (!t->open[i])
            return i;
        if (t->open[i]->begin < t->open[oldest]->begin)
            oldest = i;
    }
    end_open(t, oldest);
    return oldest;
}

static const uint8_t *look_base(const struct trace *t, const uint8_t *line)
{
    size_t before = (size_t)(line - t->kept.data);
    if (before <= TRACE_BACK_BYTES)
        return t->kept.data;
    /* The first line that is whole: the same however much is kept. */
    const uint8_t *base = line - TRACE_BACK_BYTES - 1;
    const uint8_t *newline = memchr(base, '\n', TRACE_BACK_BYTES);
    return newline ? newline + 1 : line;
}

static bool start(struct trace *t, const struct trace_word *word, struct span line, size_t at)
{
    struct trace_open *o = new_open(t);
    if (!o)
        return false;
    o->look = (struct trace_look){look_base(t, line.data), line, at, line.data};
    if (!word->start(o, &o->look)) {
        put_spare(t, o);
        return false;
    }
    uint64_t line_at = t->at + (uint64_t)(line.data - t->kept.data - (ptrdiff_t)t->back);
    uint64_t above = (uint64_t)(line.data - o->look.begin);
    o->begin = line_at > above ? line_at - above : 0;
    o->last_mono_us = o->e.mono_us = t->mono_us;
    o->e.wall_us = t->wall_us;
    trace_writer(o);
    t->open[free_place(t)] = o;
    return true;
}

static bool start_in(struct trace *t, struct span line)
{
    struct span front = trace_first(line, COLUMN_MAX);
    const struct trace_word *word;
    /* A word may reach over the column: the whole line is what is scanned. */
    for (size_t at = 0; (word = trace_scan(line, &at)) != NULL && at < front.size_bytes; at++)
        if (start(t, word, line, at))
            return true;
    return false;
}

/* ---- lines while one is put together ---- */

static enum trace_step offer(struct trace_open *o, struct span line, bool *is_foreign)
{
    size_t length = trace_prefix_length(o, line);
    enum trace_step step = TRACE_NOT;
    *is_foreign = false;
    if (length != SIZE_MAX)
        step = o->language->next(o, trace_skip(line, length));
    if (o->prefix_bytes == 0 || (length != SIZE_MAX && step != TRACE_NOT)) {
        o->prefix_open = false;
        return step;
    }
    if (!o->prefix_open) {
        *is_foreign = length == SIZE_MAX;
        return step;
    }
    if (trace_is_alike(o, line)) {
        *is_foreign = length == SIZE_MAX;
        return step;
    }
    step = length == SIZE_MAX ? o->language->next(o, line) : TRACE_NOT;
    if (step == TRACE_MINE || step == TRACE_LAST) { /* the lines after the first bear none */
        o->prefix_bytes = 0;
        o->prefix_open = false;
    }
    return step;
}

static bool give(struct trace *t, size_t i, struct span line)
{
    struct trace_open *o = t->open[i];
    bool is_foreign;
    o->look = (struct trace_look){look_base(t, line.data), line, 0, line.data};
    enum trace_step step = offer(o, line, &is_foreign);
    if (step == TRACE_MINE || step == TRACE_LAST) {
        o->lines++;
        o->strange = o->foreign = 0;
        o->last_mono_us = t->mono_us;
    } else if (is_foreign) {
        o->foreign++;
    } else {
        o->strange++;
    }
    if (step == TRACE_LAST || step == TRACE_OVER || o->strange > o->language->patience ||
        o->foreign > FOREIGN_MAX)
        end_open(t, i);
    return step == TRACE_MINE || step == TRACE_LAST;
}

/* A frame behind lines that are none may be the first below another heading. */
static bool begins_another(struct trace *t, struct span line)
{
    for (size_t i = 0; i < TRACE_OPEN_MAX; i++) {
        struct trace_open *o = t->open[i];
        if (!o || o->strange == 0 || !o->language->is_below_heading)
            continue;
        size_t length = trace_prefix_length(o, line);
        if (length == SIZE_MAX || !trace_begins(trace_trim(trace_skip(line, length)), "at "))
            continue;
        uint64_t begin = o->begin;
        if (!start_in(t, line))
            continue;
        if (t->open[i] && t->open[i]->begin == begin)
            end_open(t, i);
        return true;
    }
    return false;
}

/* The line was another's: to those behind it, too, it is one that is not theirs. */
static void pass_by(struct trace *t, size_t taker, struct span line)
{
    for (size_t i = taker + 1; i < TRACE_OPEN_MAX; i++) {
        struct trace_open *o = t->open[i];
        if (o && trace_prefix_length(o, line) != SIZE_MAX && ++o->strange > o->language->patience)
            end_open(t, i);
    }
}

static void take_line(struct trace *t, struct span line)
{
    if (line.size_bytes > 0 && line.data[line.size_bytes - 1] == '\r')
        line.size_bytes--;
    if (begins_another(t, line))
        return;
    for (size_t i = 0; i < TRACE_OPEN_MAX; i++)
        if (t->open[i] && give(t, i, line)) {
            pass_by(t, i, line);
            return;
        }
    (void)start_in(t, line);
}

/* ---- pieces ---- */

static struct span line_at(struct span text, size_t begin)
{
    const uint8_t *end = memchr(text.data + begin, '\n', text.size_bytes - begin);
    return span_of(text.data + begin, (size_t)(end - text.data) - begin);
}

static size_t line_begin(struct span text, size_t from, size_t at)
{
    const uint8_t *newline = trace_last_newline(text.data + from, at - from);
    return newline ? (size_t)(newline - text.data) + 1 : from;
}

/* With none open: on to the next line with a key word that begins one. Returns where to go on. */
static size_t scan_on(struct trace *t, struct span text, size_t from)
{
    size_t at = from;
    while (trace_scan(text, &at)) {
        size_t begin = line_begin(text, from, at);
        struct span line = line_at(text, begin);
        size_t end = begin + line.size_bytes + 1;
        if (line.size_bytes > 0 && line.data[line.size_bytes - 1] == '\r')
            line.size_bytes--;
        if (start_in(t, line))
            return end;
        from = at = end;
        if (at >= text.size_bytes)
            break;
    }
    return text.size_bytes;
}

/* Whole lines. */
static void take_text(struct trace *t, struct span text)
{
    for (size_t at = 0; at < text.size_bytes;) {
        if (!any_open(t)) {
            at = scan_on(t, text, at);
            continue;
        }
        struct span line = line_at(text, at);
        size_t length = line.size_bytes + 1;
        take_line(t, line);
        at += length;
    }
}

/* Forgets what is too far back to be looked at. */
static void forget(struct trace *t)
{
    if (t->back <= TRACE_BACK_BYTES + 1)
        return;
    size_t gone = t->back - TRACE_BACK_BYTES - 1;
    buf_consume(&t->kept, gone);
    t->back -= gone;
}

/* Only the first of the lines can be longer than a piece is. */
static void cut_first(struct trace *t)
{
    size_t length = t->kept.size_bytes - t->back;
    uint8_t *line = t->kept.data + t->back;
    uint8_t *end = memchr(line, '\n', length);
    size_t line_bytes = end ? (size_t)(end - line) : length;
    if (line_bytes <= TRACE_LINE_MAX)
        return;
    size_t excess = line_bytes - TRACE_LINE_MAX;
    t->excess += excess;
    memmove(line + TRACE_LINE_MAX, line + line_bytes, length - line_bytes);
    t->kept.size_bytes -= excess;
    if (!end) {
        line[TRACE_LINE_MAX] = '\n'; /* in the room of what was left out */
        t->kept.size_bytes++;
        t->excess--;
        t->is_cutting = true;
    }
}

static void take_piece(struct trace *t, struct span piece)
{
    if (buf_append_span(&t->kept, piece)) {
        t->lost += piece.size_bytes;
        t->at += piece.size_bytes;
        return;
    }
    cut_first(t);
    struct span text = trace_skip(buf_span(&t->kept), t->back);
    const uint8_t *last = trace_last_newline(text.data, text.size_bytes);
    if (!last)
        return;
    text.size_bytes = (size_t)(last - text.data) + 1;
    take_text(t, text);
    t->back += text.size_bytes;
    t->at += text.size_bytes + t->excess;
    t->excess = 0;
    forget(t);
}

void trace_feed(struct trace *t, struct span bytes, int64_t wall_us, uint64_t mono_us)
{
    t->wall_us = wall_us;
    t->mono_us = mono_us;
    t->fed += bytes.size_bytes;
    while (bytes.size_bytes > 0) {
        if (t->is_cutting) {
            const uint8_t *end = memchr(bytes.data, '\n', bytes.size_bytes);
            size_t length = end ? (size_t)(end - bytes.data) + 1 : bytes.size_bytes;
            t->is_cutting = !end;
            t->at += length;
            bytes = trace_skip(bytes, length);
            continue;
        }
        struct span piece = trace_first(bytes, PIECE);
        const uint8_t *end = NULL;
        /* A piece ends with a line where it can, so that most of them are seen whole. */
        if (piece.size_bytes < bytes.size_bytes)
            end = trace_last_newline(piece.data, piece.size_bytes);
        if (end)
            piece.size_bytes = (size_t)(end - piece.data) + 1;
        bytes = trace_skip(bytes, piece.size_bytes);
        take_piece(t, piece);
    }
}

void trace_before(struct trace *t, struct span bytes)
{
    const size_t most = TRACE_BACK_BYTES;
    if (t->fed > 0 || t->kept.size_bytes > 0)
        return;
    if (bytes.size_bytes > most)
        bytes = trace_skip(bytes, bytes.size_bytes - most);
    if (buf_append_span(&t->kept, bytes) == 0)
        t->back = t->kept.size_bytes;
}

/* ---- time ---- */

/* What a large piece needed is given back when it is quiet. */
static void shrink(struct trace *t)
{
    struct buf small;
    if (t->kept.capacity_bytes <= 4 * (size_t)TRACE_BACK_BYTES ||
        t->kept.size_bytes > 2 * (size_t)TRACE_BACK_BYTES)
        return;
    buf_init(&small, t->kept.limit_bytes);
    if (buf_append_span(&small, buf_span(&t->kept)))
        return;
    buf_done(&t->kept);
    t->kept = small;
}

void trace_tick(struct trace *t, uint64_t mono_us)
{
    shrink(t);
    t->mono_us = mono_us;
    for (size_t i = 0; i < TRACE_OPEN_MAX; i++) {
        struct trace_open *o = t->open[i];
        if (!o)
            continue;
        bool is_unfinished = !o->e.type[0] || t->kept.size_bytes > t->back;
        uint64_t quiet_us = is_unfinished ? UNFINISHED_QUIET * TRACE_QUIET_US : TRACE_QUIET_US;
        if (mono_us - o->last_mono_us >= quiet_us)
            end_open(t, i);
    }
    trace_flood_tick(&t->flood, mono_us);
}

void trace_end(struct trace *t)
{
    if (t->kept.size_bytes > t->back && !t->is_cutting) {
        t->fed++;
        take_piece(t, span_str("\n"));
    }
    for (size_t i = 0; i < TRACE_OPEN_MAX; i++)
        if (t->open[i])
            end_open(t, i);
    trace_flood_flush(&t->flood);
}

void trace_flush(struct trace *t)
{
    trace_flood_flush(&t->flood);
}

bool trace_waits(const struct trace *t)
{
    return any_open(t) || trace_flood_waits(&t->flood);
}

uint64_t trace_safe(const struct trace *t)
{
    uint64_t safe = t->at;
    for (size_t i = 0; i < TRACE_OPEN_MAX; i++)
        if (t->open[i] && t->open[i]->begin < safe)
            safe = t->open[i]->begin;
    return safe;
}

uint64_t trace_fed(const struct trace *t)
{
    return t->fed;
}

struct trace_counts trace_counts(const struct trace *t)
{
    return (struct trace_counts){t->flood.traces, t->lost};
}
