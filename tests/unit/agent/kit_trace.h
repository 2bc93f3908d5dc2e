/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces as text, so that what is expected of a recorded log can be read and compared. Used by
 * test_trace.c and by the benchmark, which prints it: bench_trace --show FILE.
 */
#ifndef TESTS_UNIT_AGENT_KIT_TRACE_H
#define TESTS_UNIT_AGENT_KIT_TRACE_H

#include <stdio.h>
#include <string.h>

#include "agent/trace.h"

static inline void kit_trace_lines(struct buf *out, const char *text)
{
    for (const char *at = text; *at; at++)
        (void)(*at == '\n' ? buf_append_str(out, "\\n") : buf_append_byte(out, (uint8_t)*at));
}

static inline void kit_trace_frame(struct buf *out, const struct os_frame *frame)
{
    (void)buf_printf(out, "  %s", frame->function[0] ? frame->function : "-");
    if (frame->file[0])
        (void)buf_printf(out, "  %s:%u", frame->file, frame->line);
    if (frame->module[0])
        (void)buf_printf(out, "  %s+0x%llx%s", frame->module, (unsigned long long)frame->offset,
                         frame->build_id_bytes ? " (build-id)" : "");
    (void)buf_append_byte(out, '\n');
}

static inline void kit_trace_text(struct buf *out, const struct os_exception *e)
{
    (void)buf_printf(out, "%s: %s\n", e->language, e->type);
    (void)buf_append_str(out, " ");
    kit_trace_lines(out, e->message);
    (void)buf_append_byte(out, '\n');
    if (e->process[0])
        (void)buf_printf(out, " process %s\n", e->process);
    if (e->thread[0])
        (void)buf_printf(out, " thread %s\n", e->thread);
    if (e->pid)
        (void)buf_printf(out, " pid %u\n", e->pid);
    if (e->count > 1)
        (void)buf_printf(out, " count %llu\n", (unsigned long long)e->count);
    for (uint32_t i = 0; i < e->tag_count; i++)
        (void)buf_printf(out, " %s=%s\n", e->tags[i].key, e->tags[i].value);
    for (uint32_t i = 0; i < e->frame_count; i++)
        kit_trace_frame(out, &e->frames[i]);
    if (e->frames_left_out)
        (void)buf_printf(out, "  and %u more\n", e->frames_left_out);
}

#endif
