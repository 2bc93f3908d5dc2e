/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the child that reads an uploaded file (symbols_child.h). Invariant: however it ends, the
 * upload is answered: with its table, or with a sentence. Called by symbols_add.c.
 */
#include <signal.h>
#include <string.h>

#include "collector/symbols_child.h"
#include "collector/symbols_private.h"
#include "common/text.h"

#define OVERDUE_MS (3 * SYMBOLS_CHILD_CPU_S * 1000)
#define OURSELVES "/proc/self/exe"
#define WHY_MAX 280

/* Its last sentence; a sanitizer or a library may have said more. */
static bool find_why(struct symbols_add *a, char *out, size_t size_bytes)
{
    struct span rest = buf_span(&a->said), line;
    size_t head = strlen(SYMBOLS_CHILD_WHY);
    bool found = false;
    while (!text_take_until(&rest, '\n', &line))
        if (line.size_bytes > head && memcmp(line.data, SYMBOLS_CHILD_WHY, head) == 0) {
            text_copy_span(out, size_bytes, span_of(line.data + head, line.size_bytes - head));
            text_clean(out);
            found = true;
        }
    return found;
}

static void refuse(struct symbols_add *a)
{
    struct failure f;
    char why[WHY_MAX];
    if (a->overdue || a->exit_signal == SIGXCPU)
        fail(&f, ERR_REFUSED, "reading it took longer than %d s of processor time",
             SYMBOLS_CHILD_CPU_S);
    else if (find_why(a, why, sizeof why))
        fail(&f, ERR_REFUSED, "%s", why);
    else if (a->exit_signal)
        fail(&f, ERR_REFUSED,
             "it is damaged, or made to do harm: the process that read it was ended by signal %d",
             a->exit_signal);
    else
        fail(&f, ERR_REFUSED,
             "it is damaged, or needs more than %d MiB to be read: the process that read it ended "
             "with status %d",
             SYMBOLS_CHILD_MEMORY_MIB, (int)a->exit_status);
    symbols_add_fail(a, &f);
}

static void maybe_ended(struct symbols_add *a)
{
    if (!a->has_child && !a->has_pipe && !a->done) {
        (void)uv_timer_stop(&a->patience);
        if (a->exit_status == 0 && a->exit_signal == 0)
            symbols_keep(a);
        else
            refuse(a);
    }
    a->busy--;
    symbols_add_release(a);
}

static void on_child_closed(uv_handle_t *handle)
{
    struct symbols_add *a = handle->data;
    a->has_child = false;
    maybe_ended(a);
}

static void on_pipe_closed(uv_handle_t *handle)
{
    struct symbols_add *a = handle->data;
    a->has_pipe = false;
    maybe_ended(a);
}

static void on_exit_of(uv_process_t *process, int64_t status, int number)
{
    struct symbols_add *a = process->data;
    a->exit_status = status;
    a->exit_signal = number;
    uv_close((uv_handle_t *)process, on_child_closed);
}

static void on_room(uv_handle_t *handle, size_t wanted, uv_buf_t *out)
{
    struct symbols_add *a = handle->data;
    (void)wanted;
    *out = uv_buf_init(a->said_room, sizeof a->said_room);
}

/* What is beyond the limit is dropped, so that the child is not held up. */
static void on_said(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes)
{
    struct symbols_add *a = stream->data;
    if (n > 0)
        (void)buf_append(&a->said, bytes->base, (size_t)n);
    else if (n < 0)
        uv_close((uv_handle_t *)stream, on_pipe_closed);
}

static void on_overdue(uv_timer_t *timer)
{
    struct symbols_add *a = timer->data;
    a->overdue = true;
    symbols_kill(a);
}

void symbols_kill(struct symbols_add *a)
{
    if (a->has_child && !uv_is_closing((uv_handle_t *)&a->child))
        (void)uv_process_kill(&a->child, SIGKILL);
}

void symbols_run(struct symbols_add *a)
{
    uv_loop_t *loop = a->symbols->collector->loop;
    char name[] = "trawl-collector", command[] = SYMBOLS_CHILD_COMMAND;
    char *arguments[] = {name, command, NULL}, *environment[] = {NULL};
    uv_stdio_container_t files[3] = {
        {.flags = UV_INHERIT_FD, .data.fd = a->elf},
        {.flags = UV_INHERIT_FD, .data.fd = a->table},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&a->said_pipe}};
    uv_process_options_t options = {.exit_cb = on_exit_of,
                                    .file = OURSELVES,
                                    .args = arguments,
                                    .env = environment,
                                    .stdio_count = 3,
                                    .stdio = files};
    (void)uv_pipe_init(loop, &a->said_pipe, 0);
    a->said_pipe.data = a->child.data = a;
    a->has_child = a->has_pipe = true;
    a->busy += 2;
    int e = uv_spawn(loop, &a->child, &options);
    if (e < 0) {
        struct failure f;
        fail(&f, ERR_IO, "the process that reads it cannot be started: %s", uv_strerror(e));
        symbols_add_fail(a, &f);
        uv_close((uv_handle_t *)&a->child, on_child_closed);
        uv_close((uv_handle_t *)&a->said_pipe, on_pipe_closed);
        return;
    }
    (void)uv_read_start((uv_stream_t *)&a->said_pipe, on_room, on_said);
    symbols_add_wait(a, OVERDUE_MS, on_overdue);
}
