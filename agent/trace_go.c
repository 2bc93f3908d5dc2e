/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Go: a panic or fatal error of the runtime, found by the "goroutine N [...]:" below it; also those
 * that net/http and others recovered from and logged with their stack. The first goroutine is the
 * one that failed; the others are passed over. Called by trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

enum { FUNCTION, PLACE, REST };

/* "main.(*cart).at(...)", "main.work(0xc000, 0x5)" -> without the arguments. */
static bool take_function(struct trace_open *t, struct span line)
{
    struct span name = line;
    size_t depth = 0, open = SIZE_MAX;
    if (trace_begins(line, "created by "))
        return false;
    if (!trace_ends(line, ")"))
        return false;
    for (size_t i = line.size_bytes; i > 0 && open == SIZE_MAX; i--) {
        depth += line.data[i - 1] == ')';
        if (line.data[i - 1] == '(' && --depth == 0)
            open = i - 1;
    }
    if (open == SIZE_MAX || open == 0 || memchr(line.data, ' ', open))
        return false;
    name.size_bytes = open;
    trace_copy(t->text, sizeof t->text, name);
    return true;
}

static bool take_place(struct trace_open *t, struct span line)
{
    struct span file;
    uint64_t number;
    struct span s = trace_trim(line);
    size_t blank = s.size_bytes ? trace_find(s, " ") : SIZE_MAX;
    if (blank != SIZE_MAX)
        s.size_bytes = blank - 1;
    if (line.size_bytes == 0 || (line.data[0] != '\t' && line.data[0] != ' ') ||
        !trace_place(s, &file, &number))
        return false;
    (void)trace_frame(t, span_str(t->text), file, number);
    return true;
}

/* The other goroutines, registers and the exit status. */
static enum trace_step in_rest(struct trace_open *t, struct span line)
{
    struct span s = trace_trim(line);
    if (s.size_bytes == 0) {
        t->count++; /* the next one must be a goroutine's */
        return TRACE_MINE;
    }
    if (trace_begins(s, "goroutine ") || trace_begins(line, "\t") ||
        trace_begins(s, "created by ") || trace_begins(s, "[originating from"))
        t->count = 0;
    else if (trace_begins(s, "exit status "))
        return TRACE_LAST;
    else if (t->count > 0)
        return TRACE_OVER;
    else if (!trace_ends(s, ")") && !trace_contains(s, " 0x"))
        return TRACE_NOT;
    return TRACE_MINE;
}

/* The next one's heading. */
static bool is_another(struct span line)
{
    return trace_begins(line, "panic: ") || trace_begins(line, "fatal error: ") ||
           trace_contains(trace_first(line, 512), "panic serving ");
}

static enum trace_step next(struct trace_open *t, struct span line)
{
    if (is_another(line))
        return TRACE_OVER;
    if (t->state == REST)
        return in_rest(t, line);
    if (line.size_bytes == 0 || trace_begins(line, "created by ")) {
        t->state = t->e.frame_count > 0 ? REST : t->state;
        t->count = line.size_bytes == 0;
        return t->state == REST ? TRACE_MINE : TRACE_NOT;
    }
    if (t->state == PLACE && take_place(t, line)) {
        t->state = FUNCTION;
        return TRACE_MINE;
    }
    if (t->state == FUNCTION && take_function(t, line)) {
        t->state = PLACE;
        return TRACE_MINE;
    }
    return trace_begins(line, "...") ? TRACE_MINE : TRACE_NOT; /* frames elided */
}

static bool finish(struct trace_open *t)
{
    t->e.frames_left_out = t->total - t->e.frame_count;
    return t->e.frame_count > 0;
}

static const struct trace_language go = {"go", 6, false, next, finish};

/* ---- the heading ---- */

static void set_panic(struct trace_open *t, struct span text)
{
    static const char runtime[] = "runtime error: ";
    size_t recovered = trace_find(text, " [recovered]");
    if (recovered != SIZE_MAX)
        text.size_bytes = recovered - strlen(" [recovered]");
    if (trace_begins(text, runtime))
        trace_set_type(t, span_str("runtime.Error"), trace_skip(text, strlen(runtime)));
    else
        trace_set_type(t, span_str("panic"), text);
}

static bool is_heading(struct trace_open *t, struct span line)
{
    size_t serving = trace_find(trace_first(line, 512), "panic serving ");
    if (trace_begins(line, "panic: ")) {
        set_panic(t, trace_skip(line, strlen("panic: ")));
    } else if (trace_begins(line, "fatal error: ")) {
        trace_set_type(t, span_str("fatal error"), trace_skip(line, strlen("fatal error: ")));
    } else if (serving != SIZE_MAX) {
        struct span rest = trace_skip(line, serving);
        size_t colon = trace_find(rest, ": ");
        if (colon == SIZE_MAX)
            return false;
        set_panic(t, trace_skip(rest, colon));
        trace_tag(t, "recovered", span_str("yes"));
    } else {
        return false;
    }
    return true;
}

/* Lines that may stand between; what is none of them belongs to the message. */
static bool is_between(struct trace_open *t, struct span line)
{
    if (trace_begins(line, "[signal ")) {
        size_t end = trace_find(line, ":");
        if (end != SIZE_MAX)
            trace_tag(t, "signal", trace_skip(trace_first(line, end - 1), strlen("[signal ")));
        return true;
    }
    return line.size_bytes == 0 || line.data[0] == '\t' || trace_begins(line, "runtime") ||
           trace_ends(line, ")") || trace_begins(line, "goroutine ");
}

static bool find_heading(struct trace_open *t, struct trace_look *look)
{
    const uint8_t *at = look->line.data;
    struct span line, below[8];
    uint32_t patience = TRACE_BACK_LINES;
    size_t count = 0;
    for (size_t i = 0; i < TRACE_BACK_LINES && trace_own_before(t, look, &at, &line, &patience);
         i++) {
        if (is_heading(t, line)) {
            for (size_t k = count; k > 0; k--)
                trace_add_line(t->e.message, sizeof t->e.message, below[k - 1]);
            look->begin = at;
            return true;
        }
        if (trace_begins(line, "goroutine ") || (!is_between(t, line) && count == 8))
            return false;
        if (!is_between(t, line))
            below[count++] = line;
    }
    return false;
}

bool trace_start_go(struct trace_open *t, struct trace_look *look)
{
    struct span s = trace_skip(look->line, look->at + strlen("goroutine "));
    uint64_t number;
    if (look->at > TRACE_PREFIX_SIZE || !trace_number(&s, &number) || !trace_begins(s, " [") ||
        !trace_ends(s, "]:"))
        return false;
    trace_set_prefix(t, trace_first(look->line, look->at));
    if (!find_heading(t, look))
        return false;
    t->language = &go;
    return true;
}
