/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Node: Error.stack, what util.inspect() makes of it ([cause], [errors], own properties in braces),
 * and the end of an uncaught one. `flag`: a brace is open; `number`: indentation of the first
 * frame. Called by trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

static enum trace_step take_frame(struct trace_open *t, struct span s)
{
    struct trace_at frame = trace_at(s);
    if (frame.kind != TRACE_AT_NODE)
        return TRACE_NOT;
    if (!t->ignoring)
        (void)trace_frame(t, frame.function, frame.file, frame.line);
    t->flag |= trace_ends(s, "{");
    return TRACE_MINE;
}

/* "[cause]: Error: text": the frames from here on. */
static void take_cause(struct trace_open *t, struct span s)
{
    struct trace_heading heading;
    if (!trace_heading(trace_skip(s, strlen("[cause]: ")), TRACE_IN_FRONT, false, &heading))
        return;
    trace_tag(t, "cause", heading.type);
    memcpy(t->outer, t->e.frames, t->e.frame_count * sizeof t->outer[0]);
    t->outer_count = t->e.frame_count;
    t->outer_total = t->total;
    t->total = t->e.frame_count = 0;
    t->ignoring = false;
}

/* "code: 'ENOENT'," */
static void take_property(struct trace_open *t, struct span s)
{
    struct span value = trace_skip(s, strlen("code: '"));
    size_t end = trace_find(value, "'");
    if (trace_begins(s, "code: '") && end != SIZE_MAX && !t->outer_count)
        trace_tag(t, "code", trace_first(value, end - 1));
}

static enum trace_step in_braces(struct trace_open *t, struct span line)
{
    struct trace_heading heading;
    struct span s = trace_trim(line);
    if (trace_begins(s, "[cause]: "))
        take_cause(t, s);
    else if (trace_indent(line) == 0 && trace_begins(s, "}"))
        t->flag = false;
    else if (trace_indent(line) == 0)
        return TRACE_NOT;
    else if (trace_heading(s, TRACE_IN_FRONT, false, &heading))
        t->ignoring = true; /* another of several */
    else
        take_property(t, s);
    return TRACE_MINE;
}

static enum trace_step next(struct trace_open *t, struct span line)
{
    struct span s = trace_trim(line);
    if (trace_begins(s, "at "))
        return take_frame(t, s);
    if (trace_begins(s, "... ") && trace_contains(s, " matching cause stack trace ..."))
        return TRACE_MINE;
    if (t->flag)
        return in_braces(t, line);
    return trace_begins(s, "Node.js v") ? TRACE_LAST : TRACE_NOT;
}

/* The heading of several is two lines above that of the first: "[AggregateError: text] {". */
static void look_for_aggregate(struct trace_open *t)
{
    const uint8_t *at = t->look.begin;
    struct span above, heading;
    struct trace_heading outer;
    uint32_t patience = TRACE_BACK_LINES;
    if (!at || !trace_own_before(t, &t->look, &at, &above, &patience) ||
        !trace_contains(above, "[errors]: [") ||
        !trace_own_before(t, &t->look, &at, &heading, &patience) ||
        !trace_heading(heading, TRACE_IN_FRONT, false, &outer))
        return;
    trace_tag(t, "cause", span_str(t->e.type));
    struct span message = outer.message;
    if (trace_ends(message, "] {"))
        message.size_bytes -= 3;
    trace_set_type(t, outer.type, message);
    t->look.begin = at;
    t->flag = true;
}

static enum trace_step first_or_next(struct trace_open *t, struct span line)
{
    if (t->state == 0) {
        t->state = 1;
        look_for_aggregate(t);
    }
    return next(t, line);
}

static bool finish(struct trace_open *t)
{
    if (t->e.frame_count == 0 && t->outer_count > 0) {
        memcpy(t->e.frames, t->outer, t->outer_count * sizeof t->outer[0]);
        t->e.frame_count = t->outer_count;
        t->total = t->outer_total;
    }
    t->e.frames_left_out = t->total - t->e.frame_count;
    return true;
}

const struct trace_language trace_node = {"node", 3, true, first_or_next, finish};

/* What was thrown was no Error: it has no frames, but the place stands above the marks. */
bool trace_start_node_text(struct trace_open *t, struct trace_look *look)
{
    struct span lines[6], file;
    const uint8_t *at = look->line.data;
    uint64_t number;
    size_t count = 0, mark = 0;
    uint32_t patience = TRACE_BACK_LINES;
    static const char use[] = "(Use `node ";
    if (look->at < strlen(use) || look->at > TRACE_PREFIX_SIZE)
        return false;
    trace_set_prefix(t, trace_first(look->line, look->at - strlen(use)));
    while (count < 6 && trace_own_before(t, look, &at, &lines[count], &patience)) {
        struct span s = trace_trim(lines[count]);
        if (mark == 0 && s.size_bytes > 0 && s.data[0] == '^')
            mark = count;
        count++;
        if (mark > 0 && count == mark + 3)
            break;
    }
    if (mark == 0 || count != mark + 3 || !trace_place(lines[mark + 2], &file, &number))
        return false;
    t->language = &trace_node;
    t->state = 1;
    trace_set_type(t, span_str("uncaught"), lines[mark - 1]);
    for (size_t i = mark - 1; i > 0; i--)
        if (lines[i - 1].size_bytes > 0)
            trace_add_line(t->e.message, sizeof t->e.message, lines[i - 1]);
    (void)trace_frame(t, span_of("", 0), file, number);
    look->begin = at;
    return true;
}
