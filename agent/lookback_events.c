/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events of a window as JSON lines. Called by capture.
 */
#include "agent/lookback.h"

#include <stdlib.h>

#include "common/text.h"
#include "proto/codec.h"

#define LINE_BYTES 65536

struct lines {
    lookback_write_fn write;
    void *context;
    trawl_v1_AgentMessage *message;
    struct buf line;
    int64_t first_us;
    int error;
};

static const char *type_name(trawl_v1_EventType type)
{
    static const char *const names[] = {
        "unknown",         "agent_started",  "agent_stopped",  "process_started",
        "process_exited",  "kernel_message", "collector_lost", "collector_back",
        "capture_started", "capture_ended",  "data_gap",
    };
    size_t at = (size_t)type;
    return at < sizeof names / sizeof names[0] ? names[at] : names[0];
}

static int put_line(struct buf *out, const trawl_v1_Event *event)
{
    char time[32];
    text_put_time(event->wall_us, time, sizeof time);
    buf_clear(out);
    int e = buf_printf(out, "{\"time\":\"%s\",\"type\":\"%s\",\"process\":", time,
                       type_name(event->type));
    if (!e)
        e = text_append_json(out, span_str(event->process));
    if (!e)
        e = buf_printf(out, ",\"pid\":%u,\"text\":", (unsigned)event->pid);
    if (!e)
        e = text_append_json(out, span_str(event->text));
    return e ? e : buf_append_str(out, "}\n");
}

static const char *source_name(trawl_v1_ExceptionSource source)
{
    static const char *const names[] = {
        "unknown",        "crash",       "oom_kill",      "fault_line", "hung_task",
        "hardware_error", "unit_result", "process_exit",  "log_trace",  "cpp_throw",
        "hang",           "reported",    "windows_error",
    };
    size_t at = (size_t)source;
    return at < sizeof names / sizeof names[0] ? names[at] : names[0];
}

/* "function (module+0x12)", "function (file.py:12)", "module+0x12" */
static int put_frame(struct buf *out, const trawl_v1_Frame *frame, bool is_first)
{
    char text[sizeof frame->function + sizeof frame->module + sizeof frame->file + 64], place[256];
    if (frame->module[0])
        text_format(place, sizeof place, "%s+0x%llx", frame->module,
                    (unsigned long long)frame->offset);
    else if (frame->file[0])
        text_format(place, sizeof place, "%s:%u", frame->file, (unsigned)frame->line);
    else
        text_format(place, sizeof place, "??");
    if (frame->function[0])
        text_format(text, sizeof text, "%s (%s)", frame->function, place);
    else
        text_format(text, sizeof text, "%s", place);
    int e = is_first ? 0 : buf_append_str(out, ",");
    return e ? e : text_append_json(out, span_str(text));
}

static int put_member(struct buf *out, const char *name, const char *text)
{
    int e = buf_printf(out, ",\"%s\":", name);
    return e ? e : text_append_json(out, span_str(text));
}

static int put_exception(struct buf *out, const trawl_v1_Exception *x)
{
    char time[32];
    text_put_time(x->wall_us, time, sizeof time);
    buf_clear(out);
    int e = buf_printf(out, "{\"time\":\"%s\",\"type\":\"exception\",\"source\":\"%s\"", time,
                       source_name(x->source));
    if (!e)
        e = put_member(out, "exception", x->type);
    if (!e)
        e = put_member(out, "message", x->message);
    if (!e)
        e = put_member(out, "process", x->process);
    if (!e)
        e = buf_printf(out, ",\"pid\":%u,\"count\":%llu,\"frames\":[", (unsigned)x->pid,
                       (unsigned long long)(x->count ? x->count : 1));
    for (pb_size_t i = 0; !e && i < x->frames_count; i++)
        e = put_frame(out, &x->frames[i], i == 0);
    return e ? e : buf_append_str(out, "]}\n");
}

static int write_event(void *context, const struct ring_record *record)
{
    struct lines *l = context;
    if (record->type != RING_EVENT || codec_get_agent_message(l->message, record->payload, NULL))
        return 0;
    if (l->message->which_body == trawl_v1_AgentMessage_event_tag)
        l->error = put_line(&l->line, &l->message->body.event);
    else if (l->message->which_body == trawl_v1_AgentMessage_exception_tag)
        l->error = put_exception(&l->line, &l->message->body.exception);
    else
        return 0;
    if (!l->error)
        l->error = l->write(l->context, buf_span(&l->line));
    return l->error;
}

static int oldest(void *context, const struct ring_record *record)
{
    int64_t *first_us = context;
    *first_us = record->time_us;
    return 1;
}

int lookback_events(const struct spool *spool, int64_t from_us, int64_t to_us,
                    lookback_write_fn write, void *context, char *missing, size_t size_bytes,
                    struct failure *f)
{
    const struct ring *ring = spool_ring(spool, SPOOL_EVENTS);
    struct lines l = {.write = write, .context = context};
    int64_t evicted_us, first_us = 0;
    char time[32];
    buf_init(&l.line, LINE_BYTES);
    l.message = calloc(1, sizeof *l.message);
    int e = l.message ? ring_each(ring, from_us, to_us, write_event, &l) : ERR_NOMEM;
    missing[0] = '\0';
    (void)ring_each(ring, INT64_MIN, INT64_MAX, oldest, &first_us);
    if (ring_evicted(ring, &evicted_us) && evicted_us > from_us) {
        text_put_time(first_us, time, sizeof time);
        text_format(missing, size_bytes, "events before %s were overwritten", time);
    }
    free(l.message);
    buf_done(&l.line);
    return e ? fail(f, e, "cannot write the events: %s", err_text(e)) : 0;
}
