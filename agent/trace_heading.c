/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line that says which exception it was: "java.lang.IllegalStateException: text", alone or
 * behind whatever a logger puts before it. Pure. Called by the languages whose frames say "at".
 */
#include <string.h>

#include "agent/trace_private.h"

static bool is_name(uint8_t c)
{
    return trace_is_word(c) || c == '.' || c == '$' || c == '/' || c >= 0x80;
}

/* As the names of exceptions end. */
static bool is_exception(struct span name)
{
    static const char *const ends[] = {"Exception", "Error", "Throwable", "Failure", "Fault"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (trace_ends(name, ends[i]))
            return true;
    return false;
}

/* A class at all: its last part begins with a capital letter, which others follow. */
static bool is_class(struct span name)
{
    bool has_lower = false;
    size_t last = 0;
    for (size_t i = 0; i + 1 < name.size_bytes; i++)
        if (name.data[i] == '.' || name.data[i] == '$')
            last = i + 1;
    for (size_t i = last; i < name.size_bytes; i++)
        has_lower |= name.data[i] >= 'a' && name.data[i] <= 'z';
    return last < name.size_bytes && name.data[last] >= 'A' && name.data[last] <= 'Z' && has_lower;
}

static bool is_dotted(struct span name)
{
    return memchr(name.data, '.', name.size_bytes) != NULL;
}

/* What Node and tools print with a stack, though nothing was thrown. */
static bool is_only_told(struct span name)
{
    return trace_ends(name, "Warning") || span_equal(name, span_str("Trace")) ||
           trace_ends(name, ".State");
}

/* Behind the name: nothing, ": message", " [CODE]: message", " (0x80004005): message". */
static bool take_message(struct span rest, struct span *message)
{
    *message = span_of(rest.data, 0);
    if (rest.size_bytes == 0 || trace_begins(rest, " --->"))
        return true;
    if (trace_begins(rest, ":")) {
        *message = trace_skip(rest, 1);
        return rest.size_bytes == 1 || rest.data[1] == ' ';
    }
    if (!trace_begins(rest, " [") && !trace_begins(rest, " ("))
        return trace_begins(rest, "]") || trace_begins(rest, " {");
    size_t colon = trace_find(rest, "]: ");
    if (colon == SIZE_MAX)
        colon = trace_find(rest, "): ");
    if (colon == SIZE_MAX)
        return false;
    *message = trace_skip(rest, colon);
    return true;
}

static bool heading_at(struct span rest, size_t length, enum trace_strength strength, bool dotted,
                       bool is_front, struct trace_heading *out)
{
    struct span name = trace_first(rest, length), message;
    if (length < 3 || !is_class(name) || is_only_told(name) ||
        !take_message(trace_skip(rest, length), &message))
        return false;
    bool is_good = is_exception(name) && (!dotted || is_dotted(name));
    bool may_be = strength == TRACE_IN_FRONT && is_front && (!dotted || is_dotted(name));
    if (!is_good && !may_be)
        return false;
    *out = (struct trace_heading){name, message};
    return true;
}

static bool find(struct span line, enum trace_strength strength, bool dotted,
                 struct trace_heading *out)
{
    const size_t front = line.size_bytes > 0 && line.data[0] == '[';
    for (size_t i = front; i < line.size_bytes && i < 1024;) {
        size_t length = 0;
        while (i + length < line.size_bytes && is_name(line.data[i + length]))
            length++;
        if (heading_at(trace_skip(line, i), length, strength, dotted, i == front, out))
            return true;
        i += length + 1;
    }
    return false;
}

bool trace_heading(struct span line, enum trace_strength strength, bool dotted,
                   struct trace_heading *out)
{
    if (trace_indent(line) > 0)
        strength = TRACE_ANYWHERE;
    line = trace_trim(line);
    return (dotted && find(line, strength, true, out)) ||
           find(line, dotted ? TRACE_ANYWHERE : strength, false, out);
}
