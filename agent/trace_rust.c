/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rust: a panic as std's hook prints it, "thread 'main' panicked at file:line:column:" with the
 * message below, or (until 1.72) "panicked at 'message', file:line:column" in one line; with
 * RUST_BACKTRACE the frames of the panic itself, above the place that it names, are left out.
 * Called by trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

enum { MESSAGE, MORE, FRAMES };

/* "   4: shop::parse", "   4:     0x5642bdc4721a - core::fmt::write" */
/* "shop::parse::hc889666713087ac1": the last part differs from build to build. */
static struct span without_hash(struct span s)
{
    const size_t length = strlen("::h") + 16;
    return s.size_bytes > length && trace_begins(trace_skip(s, s.size_bytes - length), "::h")
               ? trace_first(s, s.size_bytes - length)
               : s;
}

static bool take_name(struct trace_open *t, struct span s)
{
    uint64_t number;
    if (!trace_number(&s, &number) || !trace_begins(s, ": "))
        return false;
    s = trace_trim(trace_skip(s, 2));
    size_t dash = trace_begins(s, "0x") ? trace_find(s, " - ") : SIZE_MAX;
    (void)trace_frame(t, without_hash(dash == SIZE_MAX ? s : trace_skip(s, dash)), span_of("", 0),
                      0);
    t->count = t->e.frame_count;
    return true;
}

/* The place that panicked is the first frame of the program; those above it are the panic's. */
static void drop_above(struct trace_open *t)
{
    uint32_t last = t->e.frame_count - 1;
    struct span file = span_str(t->e.frames[last].file);
    if (t->ignoring || t->e.frames[last].line != t->number ||
        !(span_equal(file, span_str(t->text)) || trace_ends(file, t->text)))
        return;
    t->e.frames[0] = t->e.frames[last];
    t->e.frame_count = 1;
    t->total = 1;
    t->ignoring = true;
}

static bool take_at(struct trace_open *t, struct span s)
{
    struct span file;
    uint64_t line;
    if (!trace_begins(s, "at ") || t->e.frame_count == 0)
        return false;
    if (t->total == t->e.frame_count && trace_place(trace_skip(s, 3), &file, &line)) {
        struct os_frame *frame = &t->e.frames[t->e.frame_count - 1];
        trace_copy_end(frame->file, sizeof frame->file, file);
        frame->line = line <= UINT32_MAX ? (uint32_t)line : 0;
        drop_above(t);
    }
    return true;
}

static enum trace_step in_message(struct trace_open *t, struct span line)
{
    if (trace_begins(line, "note: ")) {
        t->flag = true;
        return TRACE_LAST;
    }
    if (trace_begins(line, "stack backtrace:")) {
        t->flag = true;
        t->state = FRAMES;
        t->total = t->e.frame_count = 0;
        return TRACE_MINE;
    }
    if (t->state == MESSAGE) {
        trace_copy(t->e.message, sizeof t->e.message, line);
        t->outer_total = (uint32_t)strlen(t->e.message);
        t->state = MORE;
        return TRACE_MINE;
    }
    trace_add_line(t->e.message, sizeof t->e.message, line);
    return TRACE_NOT; /* the message's, if what ends it still comes */
}

static enum trace_step next(struct trace_open *t, struct span line)
{
    struct span s = trace_trim(line);
    if (t->state != FRAMES)
        return in_message(t, line);
    if (take_at(t, s) || take_name(t, s))
        return TRACE_MINE;
    return trace_begins(s, "note: ") ? TRACE_LAST : TRACE_OVER;
}

static bool finish(struct trace_open *t)
{
    if (!t->flag && t->outer_total)
        t->e.message[t->outer_total] = '\0'; /* what came behind was not said to be its own */
    if (t->e.frame_count == 0)
        (void)trace_frame(t, span_of("", 0), span_str(t->text), t->number);
    t->e.frames_left_out = t->total - t->e.frame_count;
    return true;
}

static const struct trace_language rust = {"rust", 6, false, next, finish};

static void set_place(struct trace_open *t, struct span file, uint64_t line)
{
    trace_copy_end(t->text, sizeof t->e.frames[0].file, file);
    t->number = line <= UINT32_MAX ? (uint32_t)line : 0;
    (void)trace_frame(t, span_of("", 0), file, line);
}

bool trace_start_rust(struct trace_open *t, struct trace_look *look)
{
    struct span before = trace_first(look->line, look->at), file;
    struct span s = trace_first(trace_skip(look->line, look->at + strlen(" panicked at ")), 4096);
    size_t thread = trace_find(before, "thread '");
    uint64_t line;
    if (thread == SIZE_MAX)
        return false;
    struct span name = trace_skip(before, thread);
    size_t end = trace_find(name, "'");
    if (end == SIZE_MAX)
        return false;
    trace_copy(t->e.thread, sizeof t->e.thread, trace_first(name, end - 1));
    t->language = &rust;
    trace_set_prefix(t, trace_first(look->line, thread - strlen("thread '")));
    t->prefix_open = t->prefix_bytes > 0;
    if (trace_ends(s, ":")) {
        s.size_bytes--;
        if (!trace_place(s, &file, &line))
            return false;
        trace_set_type(t, span_str("panic"), span_of("", 0));
    } else { /* 'message', file:line:column */
        size_t comma = trace_find_last(s, ',');
        if (comma == SIZE_MAX || comma < 2 || !trace_begins(s, "'") ||
            !trace_place(trace_trim(trace_skip(s, comma + 1)), &file, &line))
            return false;
        trace_set_type(t, span_str("panic"), span_of(s.data + 1, comma - 2));
        t->outer_total = (uint32_t)strlen(t->e.message);
        t->state = MORE;
    }
    set_place(t, file, line);
    return true;
}
