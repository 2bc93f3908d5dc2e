/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long ago a unit fed systemd's watchdog, asked of systemctl(1) by its fixed path: seldom, as
 * that costs a process each time. Late is later than three quarters of the limit: well-kept
 * services feed it at half (sd_watchdog_enabled(3)), and at the whole limit systemd kills them.
 * Part of the source "probes".
 */
#include <stdlib.h>
#include <string.h>

#include "agent/probe_private.h"
#include "common/port.h"
#include "common/text.h"

#define SYSTEMCTL "/usr/bin/systemctl"
#define TEXT_SIZE 1024
#define ARGUMENTS 5

struct child {
    struct probe *probe; /* NULL: given up */
    uv_process_t process;
    uv_pipe_t output;
    bool has_exited;
    int handles;
    char text[TEXT_SIZE];
    size_t size;
    char unit[sizeof(((struct probe_rule *)0)->unit)];
};

static void on_closed(uv_handle_t *handle)
{
    struct child *c = handle->data;
    if (--c->handles == 0)
        free(c);
}

static void judge(struct child *c)
{
    struct probe *p = c->probe;
    struct probe_watchdog w;
    char why[160], age[32], limit[32];
    c->text[c->size] = '\0';
    uint64_t now_us = uv_hrtime() / 1000; /* the same clock: CLOCK_MONOTONIC */
    p->attempt = NULL;
    if (probe_watchdog_parse(c->text, &w) || now_us < w.fed_mono_us) {
        probe_ended(p, NULL, NULL); /* no watchdog, or not running: that is told by the unit */
        return;
    }
    uint64_t age_us = now_us - w.fed_mono_us;
    p->process = (struct os_process){.pid = w.pid};
    (void)os_process_get("", w.pid, &p->process, NULL);
    text_put_duration((int64_t)age_us, age, sizeof age);
    text_put_duration((int64_t)w.limit_us, limit, sizeof limit);
    (void)text_format(why, sizeof why, "its watchdog was fed %s ago, the limit is %s", age, limit);
    if (age_us > w.limit_us / 4 * 3)
        probe_ended(p, "watchdog late", why);
    else
        probe_ended(p, NULL, NULL);
}

static void on_exit_of(uv_process_t *process, int64_t status, int signal)
{
    struct child *c = process->data;
    (void)status;
    (void)signal;
    c->has_exited = true;
    uv_close((uv_handle_t *)process, on_closed);
    if (!uv_is_closing((uv_handle_t *)&c->output) && !c->probe)
        uv_close((uv_handle_t *)&c->output, on_closed);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *out)
{
    struct child *c = handle->data;
    (void)size;
    *out = uv_buf_init(c->text + c->size, (unsigned)(TEXT_SIZE - 1 - c->size));
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf)
{
    struct child *c = stream->data;
    (void)buf;
    if (got > 0)
        c->size += (size_t)got;
    if (got == 0 || (got > 0 && c->size < TEXT_SIZE - 1))
        return;
    if (c->probe)
        judge(c);
    c->probe = NULL;
    uv_close((uv_handle_t *)stream, on_closed);
}

void watchdog_drop(struct probe *p)
{
    struct child *c = (struct child *)(void *)p->attempt;
    if (!c)
        return;
    p->attempt = NULL;
    c->probe = NULL;
    if (!c->has_exited)
        (void)uv_process_kill(&c->process, 9);
    /* At our own end nothing is waited for. */
    if (p->owner->is_closed && !c->has_exited)
        uv_close((uv_handle_t *)&c->process, on_closed);
    if ((p->owner->is_closed || c->has_exited) && !uv_is_closing((uv_handle_t *)&c->output))
        uv_close((uv_handle_t *)&c->output, on_closed);
}

void watchdog_begin(struct probe *p)
{
    bool is_booted = port_exists("/run/systemd/system"); /* sd_booted(3) */
    struct child *c = is_booted ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        probe_ended(p, NULL, NULL);
        return;
    }
    char name[] = "systemctl", show[] = "show", end_of_options[] = "--";
    char properties[] = "--property=ActiveState,MainPID,WatchdogUSec,WatchdogTimestampMonotonic";
    (void)text_copy(c->unit, sizeof c->unit, p->rule.unit);
    char *arguments[ARGUMENTS + 1] = {name, show, properties, end_of_options, c->unit, NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&c->output},
        {.flags = UV_IGNORE}};
    uv_process_options_t options = {.exit_cb = on_exit_of,
                                    .file = SYSTEMCTL,
                                    .args = arguments,
                                    .stdio_count = 3,
                                    .stdio = stdio};
    c->probe = p;
    c->process.data = c->output.data = c;
    c->handles = 2;
    (void)uv_pipe_init(p->owner->context.loop, &c->output, 0);
    int e = uv_spawn(p->owner->context.loop, &c->process, &options);
    if (e) {
        uv_close((uv_handle_t *)&c->output, on_closed);
        uv_close((uv_handle_t *)&c->process, on_closed);
        probe_ended(p, NULL, NULL); /* there is no systemd here */
        return;
    }
    p->attempt = (struct attempt *)(void *)c;
    (void)uv_read_start((uv_stream_t *)&c->output, on_alloc, on_read);
}
