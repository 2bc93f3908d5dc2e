/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Java (Throwable.printStackTrace) and what its loggers make of it. The cause stands below what it
 * caused and leaves out the frames that both share ("... 23 more"); they are put back. Of what was
 * suppressed only the type is kept. `number`: indentation of the first frame. Called by trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

static bool take_frame(struct trace_open *t, struct span s)
{
    struct trace_at frame = trace_at(s);
    if (frame.kind != TRACE_AT_JAVA)
        return false;
    if (!t->ignoring)
        (void)trace_frame(t, frame.function, frame.file, frame.line);
    return true;
}

/* "... 23 more", "... 23 common frames omitted": the last 23 of the one above. */
static bool take_shared(struct trace_open *t, struct span s)
{
    uint64_t shared;
    if (!trace_begins(s, "... "))
        return false;
    s = trace_skip(s, 4);
    if (!trace_number(&s, &shared) ||
        (!trace_begins(s, " more") && !trace_begins(s, " common frames") &&
         !trace_begins(s, " lines")))
        return false;
    if (t->ignoring || shared > t->outer_total)
        return true;
    for (uint32_t i = t->outer_total - (uint32_t)shared; i < t->outer_total; i++, t->total++)
        if (i < t->outer_count && t->e.frame_count < OS_EXCEPTION_FRAMES)
            t->e.frames[t->e.frame_count++] = t->outer[i];
    return true;
}

static enum trace_step take_cause(struct trace_open *t, struct span type, size_t indent)
{
    struct trace_heading heading;
    if (t->ignoring && indent >= t->number)
        return TRACE_MINE; /* the cause of what was suppressed */
    if (!trace_heading(type, TRACE_IN_FRONT, true, &heading))
        return TRACE_NOT;
    trace_tag(t, "cause", heading.type);
    t->ignoring = false;
    memcpy(t->outer, t->e.frames, t->e.frame_count * sizeof t->outer[0]);
    t->outer_count = t->e.frame_count;
    t->outer_total = t->total;
    t->total = t->e.frame_count = 0;
    return TRACE_MINE;
}

/* Printed with the root first: the last is the one that came out. */
static enum trace_step take_wrapper(struct trace_open *t, struct span type)
{
    struct trace_heading heading;
    if (!trace_heading(type, TRACE_IN_FRONT, true, &heading))
        return TRACE_NOT;
    if (!t->has_cause)
        trace_tag(t, "cause", span_str(t->e.type));
    t->has_cause = t->ignoring = true;
    trace_set_type(t, heading.type, heading.message);
    return TRACE_MINE;
}

static enum trace_step next(struct trace_open *t, struct span line)
{
    struct trace_heading heading;
    size_t indent = trace_indent(line);
    struct span s = trace_trim(line);
    if (trace_begins(s, "at "))
        return take_frame(t, s) ? TRACE_MINE : TRACE_NOT;
    if (take_shared(t, s) || trace_begins(s, "[CIRCULAR REFERENCE"))
        return TRACE_MINE;
    if (trace_begins(s, "Caused by: "))
        return take_cause(t, trace_skip(s, strlen("Caused by: ")), indent);
    if (trace_begins(s, "Wrapped by: "))
        return take_wrapper(t, trace_skip(s, strlen("Wrapped by: ")));
    if (trace_begins(s, "Suppressed: ")) {
        if (trace_heading(trace_skip(s, strlen("Suppressed: ")), TRACE_IN_FRONT, true, &heading))
            trace_tag(t, "suppressed", heading.type);
        t->ignoring = true;
        return TRACE_MINE;
    }
    return TRACE_NOT;
}

static bool finish(struct trace_open *t)
{
    t->e.frames_left_out = t->total > t->e.frame_count ? t->total - t->e.frame_count : 0;
    return t->e.type[0] && (t->e.frame_count > 0 || t->outer_count > 0);
}

const struct trace_language trace_java = {"java", 4, true, next, finish};
