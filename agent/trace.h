/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error traces put together from the lines of one log, whatever else stands between them: Python,
 * Java, Go, Node, .NET, Ruby, PHP, Rust, C++ `terminate`, sanitizers, glib. Pure: no I/O, no clock;
 * bytes and times are given. Invariants: the same bytes give the same traces however they are cut
 * into pieces; whatever the bytes are, memory is bounded and nothing is told that has not the shape
 * of a trace; the counts of what is told add up to the traces that were there. Called by the source
 * of exceptions that follows logs.
 *
 * type and message are those of the exception that came out in the end; when it says what caused
 * it, the frames are those of the innermost cause (there it went wrong; what was wrapped around it
 * differs by caller) and the tag `cause` is its type.
 */
#ifndef TRAWL_AGENT_TRACE_H
#define TRAWL_AGENT_TRACE_H

#include "agent/os/exception.h"
#include "common/buf.h"

#define TRACE_LINE_MAX 65536u           /* of a longer line this much is looked at */
#define TRACE_OPEN_MAX 4u               /* that are put together at once: writers that interleave */
#define TRACE_BACK_BYTES 8192u          /* so far back from a frame its heading is looked for */
#define TRACE_QUIET_US UINT64_C(300000) /* after this no line of it is waited for */
/* More than so many in a second are counted by content, and the counts told once a second. */
#define TRACE_WHOLE_PER_SECOND 20u
#define TRACE_KINDS 16u /* contents counted apart */

struct trace;

/*
 * A whole trace. `begin`: where in the log, in bytes fed so far, its first line begins; count is
 * more than 1 when it stands for several (then `begin` is that of the first). source, language,
 * type, message, frames, tags and, where the text says it, process, pid, tid and thread are set;
 * wall_us and mono_us as given with the first line.
 */
typedef void (*trace_told_fn)(void *context, const struct os_exception *exception, uint64_t begin);

/* 600 bytes until there is something to remember. ERR_NOMEM. */
int trace_open(struct trace **out, trace_told_fn told, void *context);
/* Tells nothing more; trace_end() first, if that is wanted. NULL is fine. */
void trace_close(struct trace *trace);

/* Any number of bytes, now. Without memory they are passed over, and counted as lost. */
void trace_feed(struct trace *trace, struct span bytes, int64_t wall_us, uint64_t mono_us);
/* What stood before the first byte: headings are looked for in it, nothing of it is told. */
void trace_before(struct trace *trace, struct span bytes);
/* Now and then (at most a second apart): ends what is quiet, tells counts once a second. */
void trace_tick(struct trace *trace, uint64_t mono_us);
/* Tells now what was only counted so far; what is not whole yet waits on. */
void trace_flush(struct trace *trace);
/* No more bytes come from here: an unfinished last line is taken as a line, and all is told. */
void trace_end(struct trace *trace);

/* Bytes fed so far that nothing more will be told of: from there a later reader goes on. */
uint64_t trace_safe(const struct trace *trace);
uint64_t trace_fed(const struct trace *trace);
/* Whether something waits for a tick. */
bool trace_waits(const struct trace *trace);

struct trace_counts {
    uint64_t traces; /* told, or counted and about to be */
    uint64_t lost;   /* bytes and traces that there was no memory for */
};
struct trace_counts trace_counts(const struct trace *trace);

#endif
