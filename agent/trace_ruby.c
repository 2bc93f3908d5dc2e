/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ruby: "file:line:in 'method': message (Class)" and "\tfrom file:line:in 'method'" below it (up
 * to 3.3 the first mark is a backquote); its Logger puts the message on a line of its own before
 * bare places. A cause follows as a second heading. Called by trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

struct place {
    struct span file, function, rest;
    uint64_t line;
};

/* "shop.rb:6:in `rescue in total': text" */
static bool take_place(struct span s, struct place *out)
{
    size_t in = trace_find(s, ":in ");
    if (in == SIZE_MAX || in + 1 >= s.size_bytes || (s.data[in] != '`' && s.data[in] != '\''))
        return false;
    struct span name = trace_skip(s, in + 1);
    size_t end = trace_find(name, "'");
    /* A method's name may hold the mark; the one before ": " or the line's end counts. */
    while (end != SIZE_MAX && end < name.size_bytes && name.data[end] != ':') {
        size_t more = trace_find(trace_skip(name, end), "'");
        end = more == SIZE_MAX ? SIZE_MAX : end + more;
    }
    if (end == SIZE_MAX ||
        !trace_place(trace_first(s, in - strlen(":in ")), &out->file, &out->line))
        return false;
    out->function = trace_first(name, end - 1);
    out->rest = trace_skip(name, end);
    return out->file.size_bytes > 0 && out->line > 0;
}

/* "message (Class)" */
static bool take_class(struct span s, struct span *type, struct span *message)
{
    size_t open = trace_find_last(s, '(');
    if (!trace_ends(s, ")") || open == SIZE_MAX || open + 2 >= s.size_bytes ||
        (open > 0 && s.data[open - 1] != ' '))
        return false;
    *type = span_of(s.data + open + 1, s.size_bytes - open - 2);
    *message = trace_first(s, open);
    for (size_t i = 0; i < type->size_bytes; i++)
        if (!trace_is_word(type->data[i]) && type->data[i] != ':')
            return false;
    return type->data[0] >= 'A' && type->data[0] <= 'Z';
}

static void add(struct trace_open *t, const struct place *place)
{
    if (!t->ignoring)
        (void)trace_frame(t, place->function, place->file, place->line);
}

/* A second heading: the cause, unless it is the first one over again (a crash loop). */
static enum trace_step take_cause(struct trace_open *t, const struct place *place)
{
    struct span type, message;
    if (!take_class(trace_skip(place->rest, 2), &type, &message))
        return TRACE_NOT;
    if (span_equal(type, span_str(t->e.type)) || t->total == 0 || t->strange > 0)
        return TRACE_OVER;
    trace_tag(t, "cause", type);
    t->total = t->e.frame_count = 0;
    add(t, place);
    return TRACE_MINE;
}

static enum trace_step next(struct trace_open *t, struct span line)
{
    struct place place;
    struct span s = trace_trim(line);
    bool is_from = trace_begins(s, "from ");
    if (trace_begins(s, "... ") && trace_ends(s, "levels..."))
        return TRACE_MINE;
    if (!take_place(trace_first(is_from ? trace_skip(s, 5) : s, 4096), &place))
        return TRACE_NOT;
    if (trace_begins(place.rest, ": "))
        return take_cause(t, &place);
    if (is_from == t->flag)
        return TRACE_NOT;
    if (t->flag && t->strange > 0)
        return TRACE_OVER; /* bare places: of another message */
    add(t, &place);
    return TRACE_MINE;
}

static bool finish(struct trace_open *t)
{
    t->e.frames_left_out = t->total - t->e.frame_count;
    return t->e.frame_count > 0;
}

static const struct trace_language ruby = {"ruby", 4, false, next, finish};

static size_t place_begin(struct span line, size_t at)
{
    while (at > 0 && line.data[at - 1] > ' ')
        at--;
    return at;
}

/* Logger: the message stands on the line before, with the class at its end. */
static bool look_above(struct trace_open *t, struct trace_look *look)
{
    const uint8_t *at = look->line.data;
    struct span line, type, message;
    uint32_t patience = TRACE_BACK_LINES;
    if (!trace_own_before(t, look, &at, &line, &patience) || !take_class(line, &type, &message))
        return false;
    size_t mark = trace_find(message, " -- ");
    size_t colon = mark == SIZE_MAX ? SIZE_MAX : trace_find(trace_skip(message, mark), ": ");
    if (colon != SIZE_MAX)
        message = trace_skip(message, mark + colon);
    trace_set_type(t, type, message);
    look->begin = at;
    t->flag = true;
    return true;
}

bool trace_start_ruby(struct trace_open *t, struct trace_look *look)
{
    struct place place;
    struct span type, message;
    size_t begin = place_begin(look->line, look->at);
    struct span s = trace_first(trace_skip(look->line, begin), 4096);
    if (!take_place(s, &place))
        return false;
    trace_set_prefix(t, trace_first(look->line, begin));
    t->prefix_open = begin > 0;
    if (trace_begins(place.rest, ": ")) {
        if (!take_class(trace_skip(place.rest, 2), &type, &message))
            return false;
        trace_set_type(t, type, message);
    } else if (place.rest.size_bytes > 0 || !look_above(t, look)) {
        return false;
    }
    t->language = &ruby;
    add(t, &place);
    return true;
}
