/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events of a window as JSON lines. Called by capture.
 */
#include "agent/lookback.h"

#include <stdlib.h>

#include "common/text.h"
#include "proto/codec.h"

#define LINE_BYTES 8192

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

static int write_event(void *context, const struct ring_record *record)
{
    struct lines *l = context;
    if (record->type != RING_EVENT || codec_get_agent_message(l->message, record->payload, NULL) ||
        l->message->which_body != trawl_v1_AgentMessage_event_tag)
        return 0;
    l->error = put_line(&l->line, &l->message->body.event);
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
