/* SPDX-License-Identifier: Apache-2.0 */
/*
 * .NET: Exception.ToString(). The innermost exception's frames come first and end with "--- End of
 * inner exception stack trace ---"; what follows are those around it. Called by trace.c.
 */
#include <string.h>

#include "agent/trace_private.h"

static enum trace_step next(struct trace_open *t, struct span line)
{
    struct span s = trace_trim(line);
    if (trace_begins(s, "at ")) {
        struct trace_at frame = trace_at(s);
        if (frame.kind != TRACE_AT_DOTNET && frame.kind != TRACE_AT_JAVA)
            return TRACE_NOT;
        if (!t->ignoring)
            (void)trace_frame(t, frame.function, frame.file, frame.line);
        return TRACE_MINE;
    }
    if (trace_begins(s, "--- End of inner exception stack trace ---")) {
        t->ignoring = true;
        return TRACE_MINE;
    }
    return trace_begins(s, "--- End of stack trace from previous location") ? TRACE_MINE
                                                                            : TRACE_NOT;
}

static bool finish(struct trace_open *t)
{
    t->e.frames_left_out = t->total - t->e.frame_count;
    return true;
}

const struct trace_language trace_dotnet = {"dotnet", 2, true, next, finish};
