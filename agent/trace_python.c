/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Python: traceback, as the traceback module prints it, chained ones and groups as well. The
 * outermost frame comes first, the exception last. "The above exception was the direct cause": the
 * frames of the first stay, because there it went wrong; "During handling ... another": those of
 * the last, because the first was only being handled. Called by trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

enum { FRAMES, AFTER, CHAINED };

#define HEAD "Traceback (most recent call last):"
#define DIRECT "The above exception was the direct cause of the following exception:"
#define DURING "During handling of the above exception, another exception occurred:"

static bool is_indented_frame(struct trace_open *t, struct span line)
{
    struct span s = trace_trim(line), rest;
    uint64_t number;
    if (!trace_begins(s, "File \""))
        return false;
    size_t end = trace_find(s, "\", line ");
    if (end == SIZE_MAX)
        return false;
    rest = trace_skip(s, end);
    if (!trace_number(&rest, &number))
        return false;
    struct span file = trace_skip(trace_first(s, end - strlen("\", line ")), strlen("File \""));
    struct span function = trace_begins(rest, ", in ") ? trace_skip(rest, 5) : span_of(s.data, 0);
    if (!t->ignoring)
        trace_frame_outer(t, function, file, number);
    t->count++;
    return true;
}

/* "package.Name: message" or only the name (traceback.TracebackException). */
static bool is_exception(struct span line, struct span *type, struct span *message)
{
    size_t length = 0;
    while (length < line.size_bytes &&
           (trace_is_word(line.data[length]) || line.data[length] == '.' ||
            line.data[length] == '<' || line.data[length] == '>' || line.data[length] >= 0x80))
        length++;
    struct span rest = trace_skip(line, length);
    if (length == 0 || trace_is_digit(line.data[0]) || line.data[0] == '.' ||
        (rest.size_bytes > 0 && !trace_begins(rest, ": ") && !span_equal(rest, span_str(":"))))
        return false;
    *type = trace_first(line, length);
    *message = trace_skip(rest, 1);
    return true;
}

/* In a group each line begins with "  | " or "  + "; deeper ones belong to its members. */
static bool take_bar(struct trace_open *t, struct span *line)
{
    size_t indent = trace_indent(*line);
    struct span s = trace_skip(*line, indent);
    if (s.size_bytes == 0 || (s.data[0] != '|' && s.data[0] != '+'))
        return false;
    s = trace_skip(s, 1);
    t->ignoring = indent > t->number;
    *line = trace_begins(s, " ") ? trace_skip(s, 1) : s;
    return true;
}

static enum trace_step in_frames(struct trace_open *t, struct span line)
{
    struct span type, message;
    if (is_indented_frame(t, line))
        return TRACE_MINE;
    if (trace_indent(line) >= 2)
        return t->count > 0 ? TRACE_MINE : TRACE_NOT; /* its text, marks, repeated lines */
    if (!is_exception(line, &type, &message))
        return TRACE_NOT;
    if (t->has_cause && !t->e.tag_count)
        trace_tag(t, t->flag ? "cause" : "context", span_str(t->e.type));
    trace_set_type(t, type, message);
    t->state = AFTER;
    return TRACE_MINE;
}

static enum trace_step in_group(struct trace_open *t, struct span line)
{
    struct span type, message;
    bool is_own_depth = trace_indent(line) == t->number;
    if (is_own_depth && trace_contains(line, "+ Exception Group " HEAD))
        return TRACE_OVER; /* the next one */
    if (!take_bar(t, &line))
        return t->state == AFTER ? TRACE_OVER : TRACE_NOT;
    if (!t->ignoring && t->state == FRAMES)
        return in_frames(t, line);
    if (t->state == AFTER && is_exception(line, &type, &message) && !t->e.tag_count)
        trace_tag(t, "cause", type); /* the first of its members */
    return TRACE_MINE;
}

static enum trace_step begin_again(struct trace_open *t)
{
    t->has_cause = true;
    t->state = FRAMES;
    t->count = 0;
    t->ignoring = t->flag;
    if (!t->flag)
        t->total = t->e.frame_count = 0;
    return TRACE_MINE;
}

static enum trace_step next(struct trace_open *t, struct span line)
{
    if (t->number > 0)
        return in_group(t, line);
    if (t->state == FRAMES)
        return in_frames(t, line);
    if (line.size_bytes == 0)
        return TRACE_MINE;
    if (t->state == CHAINED)
        return trace_begins(line, HEAD) ? begin_again(t) : TRACE_OVER;
    if (trace_begins(line, HEAD))
        return TRACE_OVER;
    bool is_direct = trace_begins(line, DIRECT);
    if (!is_direct && !trace_begins(line, DURING))
        return TRACE_NOT;
    t->flag = is_direct && (t->flag || !t->has_cause);
    t->state = CHAINED;
    return TRACE_MINE;
}

static bool finish(struct trace_open *t)
{
    if (!t->e.type[0] || t->e.frame_count == 0)
        return false;
    t->e.frames_left_out = t->total - t->e.frame_count;
    trace_turn(t);
    return true;
}

static const struct trace_language python = {"python", 4, false, next, finish};

bool trace_start_python(struct trace_open *t, struct trace_look *look)
{
    static const char group[] = "Exception Group ";
    size_t prefix = look->at;
    struct span before = trace_first(look->line, look->at);
    if (trace_skip(look->line, look->at).size_bytes != strlen(HEAD))
        return false;
    if (trace_ends(before, group)) {
        prefix -= strlen(group);
        size_t plus = trace_find_last(trace_first(before, prefix), '+');
        size_t blanks = 0;
        if (plus == SIZE_MAX)
            return false;
        while (blanks < plus && before.data[plus - 1 - blanks] == ' ')
            blanks++;
        t->number = (uint32_t)blanks;
        if (blanks == 0)
            return false;
        prefix = plus - blanks;
    }
    t->language = &python;
    t->prefix_open = prefix > 0;
    trace_set_prefix(t, trace_first(look->line, prefix));
    return true;
}
