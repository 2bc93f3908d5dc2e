/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child that follows the journal of PID 1, and is started again when it ends: ever later, up to
 * ten minutes. See watch_unit.h.
 */
#include "agent/watch_unit.h"

#include <stdlib.h>
#include <string.h>

#include "agent/os/unit_result.h"
#include "common/log.h"
#include "common/port.h"

#define JOURNALCTL "/usr/bin/journalctl"
#define AGAIN_FIRST_S 2
#define AGAIN_LAST_S 600
#define READ_BYTES 4096
#define SIGNAL_KILL 9

struct follower {
    struct watch_unit *owner; /* NULL: given up */
    uv_process_t process;
    uv_pipe_t output;
    bool has_exited, has_ended;
    int handles;
    char bytes[READ_BYTES];
};

struct watch_unit {
    struct source_context context;
    struct os_unit_results *results;
    struct os_unit_stream *stream;
    struct follower *follower; /* NULL: none runs */
    uint32_t again_s, waits_s;
    bool was_said;
};

static void on_record(void *context, const struct os_unit_record *record)
{
    struct watch_unit *w = context;
    struct os_exception e;
    w->again_s = AGAIN_FIRST_S;
    if (os_unit_result_feed(w->results, record, &e))
        watcher_report(w->context.watcher, &e);
}

static void on_closed(uv_handle_t *handle)
{
    struct follower *c = handle->data;
    if (--c->handles == 0)
        free(c);
}

/* When both the child and its output have ended. */
static void note_end(struct follower *c)
{
    struct watch_unit *w = c->owner;
    if (!w || !c->has_exited || !c->has_ended)
        return;
    c->owner = NULL;
    w->follower = NULL;
    w->waits_s = w->again_s;
    w->again_s = w->again_s * 2 < AGAIN_LAST_S ? w->again_s * 2 : AGAIN_LAST_S;
    if (!w->was_said)
        log_warn("'" JOURNALCTL "' has ended: results of units are not noticed until it runs");
    w->was_said = true;
}

static void on_exit_of(uv_process_t *process, int64_t status, int signal)
{
    struct follower *c = process->data;
    (void)status;
    (void)signal;
    c->has_exited = true;
    uv_close((uv_handle_t *)process, on_closed);
    note_end(c);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *out)
{
    struct follower *c = handle->data;
    (void)size;
    *out = uv_buf_init(c->bytes, sizeof c->bytes);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf)
{
    struct follower *c = stream->data;
    (void)buf;
    if (got > 0 && c->owner)
        os_unit_stream_feed(c->owner->stream, span_of(c->bytes, (size_t)got));
    if (got >= 0)
        return;
    c->has_ended = true;
    uv_close((uv_handle_t *)stream, on_closed);
    note_end(c);
}

static int follow(struct watch_unit *w)
{
    struct follower *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NOMEM;
    char name[] = "journalctl", follow_it[] = "--follow", lines[] = "--lines=0",
         output[] = "--output=export", quiet[] = "--quiet", no_pager[] = "--no-pager",
         who[] = "_PID=1";
    char *arguments[] = {name, follow_it, lines, output, quiet, no_pager, who, NULL};
    char path[] = "PATH=/usr/bin:/bin", locale[] = "LC_ALL=C.UTF-8";
    char *environment[] = {path, locale, NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&c->output},
        {.flags = UV_IGNORE}};
    uv_process_options_t options = {.exit_cb = on_exit_of,
                                    .file = JOURNALCTL,
                                    .args = arguments,
                                    .env = environment,
                                    .stdio_count = 3,
                                    .stdio = stdio};
    c->owner = w;
    c->process.data = c->output.data = c;
    c->handles = 2;
    (void)uv_pipe_init(w->context.loop, &c->output, 0);
    if (uv_spawn(w->context.loop, &c->process, &options)) {
        uv_close((uv_handle_t *)&c->output, on_closed);
        uv_close((uv_handle_t *)&c->process, on_closed);
        return ERR_IO;
    }
    w->follower = c;
    (void)uv_read_start((uv_stream_t *)&c->output, on_alloc, on_read);
    return 0;
}

/* systemd runs (sd_booted(3)), and there is a program to read its journal. */
int watch_unit_open(void **out, const struct source_context *context, struct failure *f)
{
    if (!port_exists("/run/systemd/system") || !port_exists(JOURNALCTL))
        return 0;
    struct watch_unit *w = calloc(1, sizeof *w);
    if (!w)
        return fail(f, ERR_NOMEM, "out of memory");
    w->context = *context;
    w->again_s = AGAIN_FIRST_S;
    int e = os_unit_results_open(&w->results);
    if (!e)
        e = os_unit_stream_open(&w->stream, on_record, w);
    if (!e)
        e = follow(w);
    if (e) {
        os_unit_stream_close(w->stream);
        os_unit_results_close(w->results);
        free(w);
        return fail(f, e, "cannot run '" JOURNALCTL "'");
    }
    *out = w;
    return 0;
}

void watch_unit_second(void *source)
{
    struct watch_unit *w = source;
    if (w->follower || w->waits_s-- > 1)
        return;
    if (follow(w))
        w->waits_s = AGAIN_LAST_S;
}

void watch_unit_close(void *source)
{
    struct watch_unit *w = source;
    struct follower *c = w ? w->follower : NULL;
    if (!w)
        return;
    if (c) {
        c->owner = NULL;
        /* We end: nothing is waited for. */
        if (!c->has_exited) {
            (void)uv_process_kill(&c->process, SIGNAL_KILL);
            uv_close((uv_handle_t *)&c->process, on_closed);
        }
        if (!c->has_ended)
            uv_close((uv_handle_t *)&c->output, on_closed);
    }
    os_unit_stream_close(w->stream);
    os_unit_results_close(w->results);
    free(w);
}
