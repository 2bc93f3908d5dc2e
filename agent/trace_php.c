/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PHP: "Uncaught X: message in file:line", "Stack trace:", "#0 file(line): call()". A frame says
 * where the call stands, so that each call is in the place of the frame before it; the innermost is
 * in the heading's. Causes come first, "Next" what they caused. `text`: the place for the next
 * frame; `number`: its line. Called by trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

static bool take_heading(struct trace_open *t, struct span s)
{
    size_t in = 0;
    for (size_t at = 0, found; (found = trace_find(trace_skip(s, at), " in ")) != SIZE_MAX;)
        in = at += found;
    struct span file;
    uint64_t line;
    if (in == 0 || !trace_place(trace_skip(s, in), &file, &line) || line == 0)
        return false;
    trace_copy_end(t->text, sizeof t->text, file);
    t->number = line <= UINT32_MAX ? (uint32_t)line : 0;
    return true;
}

static void add(struct trace_open *t, struct span call)
{
    if (!t->ignoring)
        (void)trace_frame(t, call, span_str(t->text), t->number);
}

/* "#0 /a/shop.php(4): parse()", "#1 [internal function]: f()", "#2 {main}" */
static bool take_frame(struct trace_open *t, struct span s)
{
    uint64_t number;
    s = trace_skip(s, 1);
    if (!trace_number(&s, &number) || !trace_begins(s, " "))
        return false;
    s = trace_skip(s, 1);
    if (trace_begins(s, "{main}")) {
        add(t, s);
        return true;
    }
    size_t colon = trace_find(s, "): ");
    size_t skip = colon;
    if (colon == SIZE_MAX || trace_begins(s, "["))
        skip = trace_find(s, "]: ");
    if (skip == SIZE_MAX)
        return false;
    struct span call = trace_skip(s, skip), place = trace_first(s, skip - 3);
    size_t open = trace_find(call, "(");
    add(t, open == SIZE_MAX ? call : trace_first(call, open - 1));
    open = trace_find_last(place, '(');
    t->text[0] = '\0';
    t->number = 0;
    if (open == SIZE_MAX)
        return true;
    struct span line = trace_skip(place, open + 1);
    trace_copy_end(t->text, sizeof t->text, trace_first(place, open));
    if (trace_number(&line, &number) && number <= UINT32_MAX)
        t->number = (uint32_t)number;
    return true;
}

/* "X: message in file:line", or the first line of a message of several. */
static bool set_type(struct trace_open *t, struct span s)
{
    size_t end = 0, in = SIZE_MAX;
    while (end < s.size_bytes && (trace_is_word(s.data[end]) || s.data[end] == '\\'))
        end++;
    struct span type = trace_first(s, end), message = trace_skip(s, end);
    if (end == 0 || trace_is_digit(s.data[0]) ||
        (message.size_bytes > 0 && !trace_begins(message, ": ") && !trace_begins(message, " in ")))
        return false;
    for (size_t at = 0, found; (found = trace_find(trace_skip(message, at), " in ")) != SIZE_MAX;)
        in = at += found;
    if (in != SIZE_MAX)
        message = trace_first(message, in - strlen(" in "));
    trace_set_type(t, type, trace_begins(message, ": ") ? trace_skip(message, 2) : message);
    return true;
}

static enum trace_step next(struct trace_open *t, struct span line)
{
    struct span s = trace_trim(line);
    if (trace_begins(s, "#"))
        return take_frame(t, s) ? TRACE_MINE : TRACE_NOT;
    if (trace_begins(s, "thrown in "))
        return TRACE_LAST;
    if (trace_begins(s, "Next ")) {
        trace_tag(t, "cause", span_str(t->has_cause ? t->e.tags[0].value : t->e.type));
        t->has_cause = t->ignoring = true;
        return set_type(t, trace_skip(s, 5)) ? TRACE_MINE : TRACE_NOT;
    }
    if (s.size_bytes == 0)
        return t->e.frame_count > 0 && !t->flag ? (t->flag = true, TRACE_MINE) : TRACE_NOT;
    return trace_begins(s, "Stack trace:") && t->has_cause ? TRACE_MINE : TRACE_NOT;
}

static bool finish(struct trace_open *t)
{
    t->e.frames_left_out = t->total - t->e.frame_count;
    return t->e.type[0] && t->e.frame_count > 0;
}

static const struct trace_language php = {"php", 1, false, next, finish};

/* ---- the heading above "Stack trace:" ---- */

bool trace_start_php(struct trace_open *t, struct trace_look *look)
{
    static const char uncaught[] = "Uncaught ";
    const uint8_t *at = look->line.data;
    struct span line, below[8];
    uint32_t patience = TRACE_BACK_LINES;
    size_t count = 0;
    if (look->line.size_bytes != look->at + strlen("Stack trace:") || look->at > TRACE_PREFIX_SIZE)
        return false;
    trace_set_prefix(t, trace_first(look->line, look->at));
    for (bool is_found = false; !is_found;) {
        if (count == 8 || !trace_own_before(t, look, &at, &line, &patience))
            return false;
        size_t found = trace_find(line, uncaught);
        if (count == 0 && !take_heading(t, line))
            return false;
        if (found != SIZE_MAX)
            is_found = set_type(t, trace_skip(line, found));
        else if (count == 0)
            is_found = set_type(t, line);
        if (!is_found)
            below[count++] = line;
    }
    for (size_t i = count; i > 0; i--) {
        size_t in = i == 1 ? trace_find(below[0], " in ") : SIZE_MAX;
        trace_add_line(t->e.message, sizeof t->e.message,
                       in == SIZE_MAX ? below[i - 1] : trace_first(below[0], in - 4));
    }
    look->begin = at;
    t->language = &php;
    return true;
}

/* ---- fatal errors without an exception: one line ---- */

static enum trace_step no_more(struct trace_open *t, struct span line)
{
    (void)t;
    (void)line;
    return TRACE_OVER;
}

static const struct trace_language php_fatal = {"php", 0, false, no_more, NULL};

bool trace_start_php_fatal(struct trace_open *t, struct trace_look *look)
{
    struct span s = trace_first(trace_skip(look->line, look->at), 4096), number;
    size_t colon = trace_find(s, ":  "), on = trace_find(s, " on line "), in = SIZE_MAX;
    uint64_t line;
    if (colon == SIZE_MAX || on == SIZE_MAX || trace_begins(trace_skip(s, colon), "Uncaught "))
        return false;
    struct span text = trace_first(s, on - strlen(" on line "));
    for (size_t at = 0, found; (found = trace_find(trace_skip(text, at), " in ")) != SIZE_MAX;)
        in = at += found;
    number = trace_skip(s, on);
    if (in == SIZE_MAX || in < colon + 4 || !trace_number(&number, &line))
        return false;
    trace_set_type(t, trace_first(s, colon - 3), span_of(s.data + colon, in - 4 - colon));
    (void)trace_frame(t, span_of("", 0), trace_skip(text, in), line);
    t->language = &php_fatal;
    return true;
}
