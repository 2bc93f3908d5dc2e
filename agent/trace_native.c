/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Last words of machine code: C++ `terminate` (libstdc++, libc++), glib's criticals, errors and
 * assertions. No frames; where a crash of the same process is seen, too, they become its message.
 * Called by trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

static enum trace_step no_more(struct trace_open *t, struct span line)
{
    (void)t;
    (void)line;
    return TRACE_OVER;
}

/* ---- terminate ---- */

static enum trace_step next_terminate(struct trace_open *t, struct span line)
{
    static const char what[] = "  what():  ";
    if (!trace_begins(line, what))
        return TRACE_NOT;
    trace_copy(t->e.message, sizeof t->e.message, trace_skip(line, strlen(what)));
    return TRACE_LAST;
}

static const struct trace_language terminate = {"c++", 2, false, next_terminate, NULL};
static const struct trace_language one_line_cpp = {"c++", 0, false, no_more, NULL};
static const struct trace_language glib = {"glib", 0, false, no_more, NULL};

bool trace_start_terminate(struct trace_open *t, struct trace_look *look)
{
    static const char after[] = "after throwing an instance of '";
    struct span s = trace_skip(look->line, look->at + strlen("terminate called "));
    trace_set_prefix(t, trace_first(look->line, look->at));
    t->prefix_open = look->at > 0;
    t->language = &terminate;
    if (trace_begins(s, after) && trace_ends(s, "'")) {
        s = trace_skip(s, strlen(after));
        if (s.size_bytes < 2)
            return false;
        trace_set_type(t, trace_first(s, s.size_bytes - 1), span_of("", 0));
        return true;
    }
    if (!span_equal(s, span_str("without an active exception")) &&
        !span_equal(s, span_str("recursively")))
        return false;
    trace_set_type(t, span_str("std::terminate"), trace_skip(look->line, look->at));
    t->language = &one_line_cpp;
    return true;
}

bool trace_start_terminating(struct trace_open *t, struct trace_look *look)
{
    struct span s = trace_skip(look->line, look->at);
    size_t of = trace_find(s, "exception of type ");
    if (of == SIZE_MAX)
        return false;
    s = trace_skip(s, of);
    size_t colon = trace_find(s, ": "), from = 0;
    /* "a::b" holds colons, but none with a blank behind it */
    struct span type = colon == SIZE_MAX ? s : trace_first(s, colon - 2);
    from = colon == SIZE_MAX ? s.size_bytes : colon;
    trace_set_type(t, type, trace_skip(s, from));
    t->language = &one_line_cpp;
    return type.size_bytes > 0;
}

/* ---- glib ---- */

/* "(shop:123): GLib-CRITICAL **: 20:46:20.181: text", "** (shop:123): CRITICAL **: ..." */
static bool take_process(struct trace_open *t, struct span before)
{
    size_t end = trace_find(before, "): "), open = trace_find_last(before, '(');
    uint64_t pid;
    if (end == SIZE_MAX || open == SIZE_MAX || open + 4 > end)
        return false;
    struct span who = span_of(before.data + open + 1, end - 3 - open - 1);
    size_t colon = trace_find_last(who, ':');
    if (colon == SIZE_MAX || colon == 0)
        return false;
    struct span number = trace_skip(who, colon + 1);
    if (!trace_number(&number, &pid) || number.size_bytes > 0 || pid == 0 || pid > INT32_MAX)
        return false;
    t->e.pid = (uint32_t)pid;
    trace_copy(t->e.process, sizeof t->e.process, trace_first(who, colon));
    trace_set_type(t, trace_skip(before, end), span_of("", 0));
    return true;
}

static bool is_time(struct span s)
{
    return s.size_bytes > 14 && trace_is_digit(s.data[0]) && s.data[2] == ':' && s.data[5] == ':' &&
           s.data[12] == ':';
}

bool trace_start_glib(struct trace_open *t, struct trace_look *look)
{
    struct span before = trace_first(look->line, look->at);
    struct span s = trace_skip(look->line, look->at + strlen(" **: "));
    if (look->at > 512 || !(trace_ends(before, "CRITICAL") || trace_ends(before, "ERROR")) ||
        !take_process(t, before))
        return false;
    if (is_time(s))
        s = trace_skip(s, strlen("20:46:20.181: "));
    trace_copy(t->e.message, sizeof t->e.message, s);
    size_t assertion = trace_find(s, ": assertion '");
    if (assertion != SIZE_MAX)
        (void)trace_frame(t, trace_first(s, assertion - strlen(": assertion '")), span_of("", 0),
                          0);
    t->language = &glib;
    return true;
}

/* "Bail out! Shop:ERROR:shop.c:17:total: assertion failed: (items != NULL)" */
bool trace_start_bail_out(struct trace_open *t, struct trace_look *look)
{
    static const char mark[] = ":ERROR:";
    struct span s = trace_skip(look->line, look->at + strlen("Bail out! "));
    size_t error = trace_find(s, mark);
    uint64_t line;
    if (error == SIZE_MAX)
        return false;
    struct span file = trace_skip(s, error), rest;
    size_t colon = trace_find(file, ":");
    if (colon == SIZE_MAX)
        return false;
    rest = trace_skip(file, colon);
    file = trace_first(file, colon - 1);
    if (!trace_number(&rest, &line) || !trace_begins(rest, ":"))
        return false;
    rest = trace_skip(rest, 1);
    colon = trace_find(rest, ": ");
    if (colon == SIZE_MAX)
        return false;
    trace_set_type(t, span_str("assertion failed"), trace_skip(rest, colon));
    trace_tag(t, "domain", trace_first(s, error - strlen(mark)));
    (void)trace_frame(t, trace_first(rest, colon - 2), file, line);
    t->language = &glib;
    return true;
}
