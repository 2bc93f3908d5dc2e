/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events into the spool, with a limit per second. Called on the loop thread.
 */
#include "agent/events.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

struct events {
    struct spool *spool;
    struct clock *clock;
    struct os_kernel_log *log;
    void (*added)(void *context);
    void *context;
    uint32_t in_second;
    uint32_t not_kept;
    const struct events_listener *listeners[EVENTS_LISTENERS];
};

int events_open(struct events **out, struct spool *spool, struct clock *clock,
                struct os_kernel_log *log, void (*added)(void *context), void *context)
{
    struct events *events = calloc(1, sizeof *events);
    if (!events)
        return ERR_NOMEM;
    *events = (struct events){
        .spool = spool, .clock = clock, .log = log, .added = added, .context = context};
    *out = events;
    return 0;
}

void events_close(struct events *events)
{
    if (!events)
        return;
    os_kernel_log_close(events->log);
    free(events);
}

/* Text from outside becomes printable UTF-8, cut to what the field holds. */
static void put_safe(char *out, size_t size_bytes, const char *text)
{
    struct buf safe;
    buf_init(&safe, 4 * size_bytes + 64);
    if (text_append_safe(&safe, span_str(text), true) == 0)
        text_copy(out, size_bytes, buf_str(&safe));
    buf_done(&safe);
}

static void keep(struct events *events, trawl_v1_EventType type, const char *process, uint32_t pid,
                 uint64_t mono_us, const char *text)
{
    trawl_v1_Event event = {
        .type = type,
        .wall_us = events->clock->wall_us(events->clock),
        .mono_us = mono_us ? mono_us : events->clock->mono_us(events->clock),
        .pid = pid,
    };
    put_safe(event.process, sizeof event.process, process);
    put_safe(event.text, sizeof event.text, text);
    if (spool_push_event(events->spool, &event) == 0 && events->added)
        events->added(events->context);
}

static bool has_room(struct events *events)
{
    if (events->in_second < EVENTS_PER_SECOND) {
        events->in_second++;
        return true;
    }
    events->not_kept++;
    return false;
}

void events_add(struct events *events, trawl_v1_EventType type, const char *process, uint32_t pid,
                const char *format, ...)
{
    char text[sizeof(((trawl_v1_Event *)0)->text)];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    keep(events, type, process, pid, 0, text);
}

void events_on_process(void *context, const struct os_process_change *change)
{
    struct events *events = context;
    char text[128];
    for (size_t i = 0; i < EVENTS_LISTENERS; i++)
        if (events->listeners[i] && events->listeners[i]->process)
            events->listeners[i]->process(events->listeners[i]->context, change);
    if (!has_room(events))
        return;
    text_format(text, sizeof text, "process %s (%u) %s", change->name, (unsigned)change->pid,
                change->started ? "started" : "exited");
    keep(events,
         change->started ? trawl_v1_EventType_PROCESS_STARTED : trawl_v1_EventType_PROCESS_EXITED,
         change->name, change->pid, 0, text);
}

static void on_kernel_message(void *context, const struct os_kernel_message *message)
{
    struct events *events = context;
    for (size_t i = 0; i < EVENTS_LISTENERS; i++)
        if (events->listeners[i] && events->listeners[i]->kernel)
            events->listeners[i]->kernel(events->listeners[i]->context, message);
    if (message->priority <= OS_KERNEL_WARNING && has_room(events))
        keep(events, trawl_v1_EventType_KERNEL_MESSAGE, "", 0, message->mono_us, message->text);
}

const struct os_kernel_log *events_kernel_log(const struct events *events)
{
    return events->log;
}

size_t events_read_kernel(struct events *events)
{
    uint64_t lost = 0;
    if (!events->log)
        return 0;
    size_t count = os_kernel_log_read(events->log, on_kernel_message, events, &lost);
    if (lost)
        events_add(events, trawl_v1_EventType_DATA_GAP, "", 0,
                   "%llu kernel messages were overwritten before they could be read",
                   (unsigned long long)lost);
    return count;
}

int events_listen(struct events *events, const struct events_listener *listener)
{
    for (size_t i = 0; i < EVENTS_LISTENERS; i++) {
        if (events->listeners[i])
            continue;
        events->listeners[i] = listener;
        return 0;
    }
    return ERR_LIMIT;
}

void events_forget(struct events *events, const struct events_listener *listener)
{
    for (size_t i = 0; i < EVENTS_LISTENERS; i++)
        if (events->listeners[i] == listener)
            events->listeners[i] = NULL;
}

void events_tick(struct events *events)
{
    if (events->not_kept)
        events_add(events, trawl_v1_EventType_DATA_GAP, "", 0,
                   "%u events of the last second were not kept: more than %d in a second",
                   (unsigned)events->not_kept, EVENTS_PER_SECOND);
    events->not_kept = 0;
    events->in_second = 0;
    (void)events_read_kernel(events);
}
