/* SPDX-License-Identifier: Apache-2.0 */
/* The child's main function, and what the agent checks of its messages. See watch.h. */
#include "agent/watch.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "agent/os/privilege.h"
#include "agent/os/throws.h"
#include "common/text.h"

#define NAP_MS 5
#define PATIENCE_MS 2000

/* ---- in the child ---- */

struct watch {
    int fd;
    struct watch_message message;
};

/* The pipe does not block: a probe must not stay for an agent that reads no more. */
static int send_message(struct watch *w)
{
    const char *at = (const char *)&w->message;
    size_t left = sizeof w->message;
    unsigned waited_ms = 0;
    w->message.magic = WATCH_MAGIC;
    while (left > 0) {
        uv_fs_t request;
        uv_buf_t piece = uv_buf_init((char *)at, (unsigned)left);
        int n = uv_fs_write(NULL, &request, w->fd, &piece, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        if (n == UV_EAGAIN && waited_ms < PATIENCE_MS) {
            uv_sleep(NAP_MS);
            waited_ms += NAP_MS;
        } else if (n > 0) {
            at += n;
            left -= (size_t)n;
        } else if (n != UV_EINTR) {
            return ERR_CLOSED;
        }
    }
    return 0;
}

static int on_exception(void *context, const struct os_exception *exception)
{
    struct watch *w = context;
    w->message.type = WATCH_EXCEPTION;
    w->message.exception = *exception;
    return send_message(w);
}

static void close_fd(int fd)
{
    uv_fs_t request;
    if (fd < 0)
        return;
    uv_fs_close(NULL, &request, fd, NULL);
    uv_fs_req_cleanup(&request);
}

int watch_main(void *context)
{
    const struct watch_job *job = context;
    struct failure f = {0};
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        return 1;
    close_fd(job->close_fd);
    signal(SIGPIPE, SIG_IGN);
    w->fd = job->output_fd;
    int e = os_throws_watch(&job->process, job->output_fd, on_exception, w, &f);
    memset(&w->message, 0, sizeof w->message);
    w->message.type = WATCH_ENDED;
    w->message.error = e;
    if (e)
        (void)text_copy(w->message.text, sizeof w->message.text, f.text[0] ? f.text : err_text(e));
    (void)send_message(w);
    free(w);
    return e ? 1 : 0;
}

/* ---- in the agent ---- */

static bool ends(const char *text, size_t size_bytes)
{
    return memchr(text, 0, size_bytes) != NULL;
}
#define ENDS(array) ends(array, sizeof(array))

static bool frames_fit(const struct os_exception *e)
{
    if (e->frame_count > OS_EXCEPTION_FRAMES)
        return false;
    for (uint32_t i = 0; i < e->frame_count; i++) {
        const struct os_frame *frame = &e->frames[i];
        if (!ENDS(frame->function) || !ENDS(frame->module) || !ENDS(frame->file) ||
            frame->build_id_bytes > OS_BUILD_ID_SIZE)
            return false;
    }
    return true;
}

static bool texts_fit(const struct os_exception *e)
{
    return ENDS(e->type) && ENDS(e->message) && ENDS(e->template_text) && ENDS(e->language) &&
           ENDS(e->process) && ENDS(e->thread) && ENDS(e->executable) && ENDS(e->unit) &&
           ENDS(e->missing);
}

int watch_check(const struct watch_message *message, const struct os_process *process)
{
    const struct os_exception *e = &message->exception;
    if (message->magic != WATCH_MAGIC || !ENDS(message->text))
        return ERR_CORRUPT;
    if (message->type == WATCH_ENDED)
        return 0;
    if (message->type != WATCH_EXCEPTION || e->source != OS_CPP_THROW || !e->type[0])
        return ERR_CORRUPT;
    if (!texts_fit(e) || !frames_fit(e) || e->build_id_bytes > OS_BUILD_ID_SIZE)
        return ERR_CORRUPT;
    if (e->pid != process->pid || e->start_ticks != process->start_ticks || e->tag_count != 0 ||
        e->saved_count != 0 || e->signal != 0 || e->count == 0 || e->count > UINT32_MAX)
        return ERR_CORRUPT;
    return 0;
}
