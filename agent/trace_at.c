/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Java, Node and .NET have in common: frames that begin with "at", below a heading that can
 * only be told for one by what follows it. So a frame is what is searched for, and the heading is
 * looked for above it. Called by trace.c and the three languages.
 */
#include <string.h>

#include "agent/trace_private.h"

#define HEADING_LINES 8 /* a message may have so many */

/* ---- frames ---- */

/* What stands in the brackets: "Shop.java:5", "Native Method", ... */
static bool take_java_place(struct span s, struct trace_at *out)
{
    out->file = s;
    out->line = 0;
    if (trace_place(s, &out->file, &out->line))
        return out->file.size_bytes > 0 && !memchr(out->file.data, '/', out->file.size_bytes) &&
               !memchr(out->file.data, ' ', out->file.size_bytes);
    if (trace_ends(s, ".java") || trace_ends(s, ".kt") || trace_ends(s, ".scala"))
        return true;
    bool is_unknown =
        span_equal(s, span_str("Native Method")) || span_equal(s, span_str("Unknown Source"));
    if (is_unknown)
        out->file = span_of("", 0);
    return is_unknown || span_equal(s, span_str("<generated>"));
}

/* "java.base/java.lang.Integer.parseInt(Integer.java:668) ~[app.jar:1.0]" */
static bool take_java(struct span s, struct trace_at *out)
{
    size_t open = s.size_bytes ? trace_find(s, "(") : SIZE_MAX;
    if (open == SIZE_MAX || open < 4)
        return false;
    size_t close = trace_find(trace_skip(s, open), ")");
    struct span name = trace_first(s, open - 1);
    if (close == SIZE_MAX || memchr(name.data, ' ', name.size_bytes) ||
        !memchr(name.data, '.', name.size_bytes))
        return false;
    struct span place = trace_first(trace_skip(s, open), close - 1);
    struct span rest = trace_skip(s, open + close);
    if (!take_java_place(place, out) ||
        (rest.size_bytes > 0 && !trace_begins(rest, " [") && !trace_begins(rest, " ~[")))
        return false;
    out->kind = TRACE_AT_JAVA;
    out->function = name;
    /* The loader's and the module's name are no part of the function's. */
    size_t slash = trace_find_last(name, '/');
    if (slash != SIZE_MAX)
        out->function = trace_skip(name, slash + 1);
    return true;
}

static bool take_node_place(struct span place, struct trace_at *out)
{
    uint64_t column;
    struct span rest = place;
    size_t colon = trace_find_last(rest, ':');
    if (span_equal(place, span_str("<anonymous>")) || span_equal(place, span_str("native"))) {
        out->file = span_of("", 0);
        return true;
    }
    if (colon == SIZE_MAX || colon == 0)
        return false;
    struct span number = trace_skip(rest, colon + 1);
    if (!trace_number(&number, &column) || number.size_bytes > 0)
        return false;
    rest.size_bytes = colon;
    colon = trace_find_last(rest, ':');
    if (colon == SIZE_MAX || colon == 0)
        return false;
    number = trace_skip(rest, colon + 1);
    if (!trace_number(&number, &out->line) || number.size_bytes > 0)
        return false;
    rest.size_bytes = colon;
    out->file = trace_begins(rest, "file://") ? trace_skip(rest, 7) : rest;
    return true;
}

/* "Object.openSync (node:fs:573:18)", "async f (/a/b.js:1:2)", "/a/b.js:1:2" */
static bool take_node(struct span s, struct trace_at *out)
{
    while (s.size_bytes > 0 && (trace_ends(s, "{") || trace_ends(s, ",") || trace_ends(s, " ")))
        s.size_bytes--;
    size_t open = SIZE_MAX;
    for (size_t at = 0, found; (found = trace_find(trace_skip(s, at), " (")) != SIZE_MAX;)
        open = at += found;
    out->kind = TRACE_AT_NODE;
    if (!trace_ends(s, ")") || open == SIZE_MAX) {
        out->function = span_of("", 0);
        if (trace_begins(s, "async "))
            s = trace_skip(s, 6);
        return take_node_place(s, out);
    }
    out->function = trace_first(s, open - 2);
    if (trace_begins(out->function, "async "))
        out->function = trace_skip(out->function, 6);
    return take_node_place(span_of(s.data + open, s.size_bytes - open - 1), out);
}

/* "N.C.M(String text) in /src/x.cs:line 12" */
static bool take_dotnet(struct span s, struct trace_at *out)
{
    size_t open = trace_find(s, "(");
    if (open == SIZE_MAX || open < 4)
        return false;
    struct span name = trace_first(s, open - 1);
    if (!memchr(name.data, '.', name.size_bytes) || memchr(name.data, ' ', name.size_bytes))
        return false;
    size_t in = trace_find(s, ") in "), line = trace_find(s, ":line ");
    out->kind = TRACE_AT_DOTNET;
    out->function = name;
    out->file = span_of("", 0);
    if (in == SIZE_MAX)
        return trace_ends(s, ")");
    if (line == SIZE_MAX || line < in + strlen(":line "))
        return false;
    struct span number = trace_skip(s, line);
    out->file = span_of(s.data + in, line - in - strlen(":line "));
    return trace_number(&number, &out->line) && number.size_bytes == 0;
}

struct trace_at trace_at(struct span line)
{
    static bool (*const takers[])(struct span, struct trace_at *) = {take_java, take_node,
                                                                     take_dotnet};
    struct span s = trace_trim(trace_skip(trace_first(line, 2048), strlen("at ")));
    for (size_t i = 0; i < sizeof takers / sizeof takers[0]; i++) {
        struct trace_at out = {0};
        if (takers[i](s, &out))
            return out;
    }
    return (struct trace_at){0};
}

/* ---- the heading above them ---- */

static bool is_frame(struct span line)
{
    struct span s = trace_trim(line);
    return trace_begins(s, "at ") || trace_begins(s, "... ");
}

static void set_thread(struct trace_open *t, struct span line)
{
    static const char in_thread[] = "Exception in thread \"";
    size_t at = trace_find(line, in_thread);
    if (at == SIZE_MAX)
        return;
    size_t end = trace_find(trace_skip(line, at), "\" ");
    if (end != SIZE_MAX)
        trace_copy(t->e.thread, sizeof t->e.thread, trace_first(trace_skip(line, at), end - 2));
}

/* .NET: " ---> N.Inner: text" stands on its own line or behind the outer one. */
static bool take_inner(struct trace_open *t, struct span line)
{
    struct trace_heading inner;
    size_t arrow = trace_find(line, "---> ");
    if (arrow == SIZE_MAX || !trace_heading(trace_skip(line, arrow), TRACE_IN_FRONT, true, &inner))
        return false;
    trace_tag(t, "cause", inner.type);
    t->has_cause = true;
    return true;
}

/* The lines between the heading and the frames are the message's, too. */
static void set_heading(struct trace_open *t, struct trace_look *look, const struct span *below,
                        size_t count, struct span line, const struct trace_heading *heading)
{
    struct span message = heading->message;
    size_t arrow = trace_find(message, " ---> ");
    if (arrow != SIZE_MAX)
        message = trace_first(message, arrow - strlen(" ---> "));
    trace_set_type(t, heading->type, message);
    (void)take_inner(t, line);
    for (size_t i = count; i > 0; i--)
        if (!take_inner(t, below[i - 1]) && below[i - 1].size_bytes > 0)
            trace_add_line(t->e.message, sizeof t->e.message, below[i - 1]);
    set_thread(t, line);
    (void)look;
}

bool trace_at_heading(struct trace_open *t, struct trace_look *look, enum trace_at_kind kind,
                      size_t lines_back)
{
    const uint8_t *at = look->line.data;
    struct span line, below[HEADING_LINES];
    size_t count = 0;
    uint32_t patience = TRACE_BACK_LINES;
    bool dotted = kind != TRACE_AT_NODE;
    while (count < lines_back && count < HEADING_LINES) {
        struct trace_heading heading;
        if (!trace_own_before(t, look, &at, &line, &patience))
            return false;
        if (t->prefix_bytes > 0 && trace_begins(line, " "))
            line = trace_skip(line, 1); /* the prefix's own */
        if (is_frame(line) || trace_begins(trace_trim(line), "Caused by: "))
            return false;
        if (!trace_begins(trace_trim(line), "--->") &&
            trace_heading(line, count == 0 ? TRACE_IN_FRONT : TRACE_ANYWHERE, dotted, &heading)) {
            set_heading(t, look, below, count, line, &heading);
            look->begin = at;
            return true;
        }
        below[count++] = line;
    }
    return false;
}

bool trace_start_at(struct trace_open *t, struct trace_look *look)
{
    static const struct trace_language *const languages[] = {NULL, &trace_java, &trace_node,
                                                             &trace_dotnet};
    size_t end = look->at, begin = look->at;
    while (begin > 0 && trace_indent(trace_skip(look->line, begin - 1)) > 0)
        begin--;
    end += trace_indent(trace_skip(look->line, end));
    struct trace_at frame = trace_at(trace_skip(look->line, end));
    if (frame.kind == TRACE_AT_NONE)
        return false;
    trace_set_prefix(t, trace_first(look->line, begin));
    if (begin > TRACE_PREFIX_SIZE || !trace_at_heading(t, look, frame.kind, HEADING_LINES))
        return false;
    t->language = languages[frame.kind];
    t->number = (uint32_t)(end - begin);
    return t->language->next(t, trace_skip(look->line, begin)) == TRACE_MINE;
}
