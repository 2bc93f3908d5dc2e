/* SPDX-License-Identifier: Apache-2.0 */
/* From the kernel's messages to the watcher. See watch_kernel.h. */
#include "agent/watch_kernel.h"

#include <stdlib.h>

#include "agent/os/kernel_fault.h"

#define QUIET_MS (OS_KERNEL_FAULT_QUIET_US / 1000 + 10)
/* Sixteen readings in a row at most: what a second brings beyond that is read in the next. */
#define READINGS 16

struct watch_kernel {
    struct source_context context;
    struct events_listener listener;
    struct os_kernel_fault *fault;
    uv_poll_t poll;
    uv_timer_t timer; /* for a report whose last line has come */
    int wakes;
    int handles; /* open ones */
    bool is_closed;
};

static void on_told(void *context, const struct os_exception *exception, uint64_t last_mono_us)
{
    struct watch_kernel *w = context;
    struct clock *clock = w->context.clock;
    struct os_exception e = *exception;
    uint64_t now = clock->mono_us(clock);
    int64_t wall = clock->wall_us(clock);
    if (w->is_closed)
        return;
    if (e.mono_us > now)
        e.mono_us = now;
    e.wall_us = wall - (int64_t)(now - e.mono_us);
    e.last_us = last_mono_us < now ? wall - (int64_t)(now - last_mono_us) : wall;
    watcher_report(w->context.watcher, &e);
}

static void on_quiet(uv_timer_t *timer)
{
    struct watch_kernel *w = timer->data;
    os_kernel_fault_flush(w->fault, w->context.clock->mono_us(w->context.clock));
}

static void on_message(void *context, const struct os_kernel_message *message)
{
    struct watch_kernel *w = context;
    if (message->from_kernel)
        os_kernel_fault_feed(w->fault, message->priority, message->mono_us, message->text);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct watch_kernel *w = poll->data;
    (void)events;
    for (int i = 0; i < READINGS && events_read_kernel(w->context.events) == OS_KERNEL_LOG_MOST;)
        i++;
    if (status < 0)
        w->wakes = WATCH_KERNEL_WAKES; /* something was overwritten, and libuv has stopped */
    if (++w->wakes >= WATCH_KERNEL_WAKES)
        uv_poll_stop(poll); /* until the next second */
    uv_timer_start(&w->timer, on_quiet, QUIET_MS, 0);
}

int watch_kernel_open(void **out, const struct source_context *context, struct failure *f)
{
    const struct os_kernel_log *log = events_kernel_log(context->events);
    if (!log)
        return fail(f, ERR_DENIED, "kernel messages need root or a readable '/dev/kmsg'");
    struct watch_kernel *w = calloc(1, sizeof *w);
    if (!w || os_kernel_fault_open(&w->fault, on_told, w)) {
        free(w);
        return fail(f, ERR_NOMEM, "out of memory");
    }
    w->context = *context;
    w->listener = (struct events_listener){.kernel = on_message, .context = w};
    w->poll.data = w->timer.data = w;
    int e = events_listen(context->events, &w->listener);
    if (!e && uv_poll_init(context->loop, &w->poll, os_kernel_log_fd(log))) {
        events_forget(context->events, &w->listener);
        e = ERR_IO;
    }
    if (e) {
        os_kernel_fault_close(w->fault);
        free(w);
        return fail(f, e, "kernel messages cannot be watched");
    }
    (void)uv_timer_init(context->loop, &w->timer);
    w->handles = 2;
    (void)uv_poll_start(&w->poll, UV_READABLE, on_readable);
    *out = w;
    return 0;
}

void watch_kernel_second(void *source)
{
    struct watch_kernel *w = source;
    if (w->wakes >= WATCH_KERNEL_WAKES)
        (void)uv_poll_start(&w->poll, UV_READABLE, on_readable);
    w->wakes = 0;
    on_quiet(&w->timer);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct watch_kernel *w = handle->data;
    if (--w->handles > 0)
        return;
    os_kernel_fault_close(w->fault);
    free(w);
}

void watch_kernel_close(void *source)
{
    struct watch_kernel *w = source;
    if (!w)
        return;
    /* Reports that wait for more lines are told as they are. */
    os_kernel_fault_flush(w->fault, UINT64_MAX);
    w->is_closed = true;
    events_forget(w->context.events, &w->listener);
    uv_close((uv_handle_t *)&w->poll, on_handle_closed);
    uv_close((uv_handle_t *)&w->timer, on_handle_closed);
}
