/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One kind of one process by a worker of the broker, whose files come through a pipe. Invariant:
 * nothing that a worker wrote counts before its verdict is good; while there is no room for more,
 * the pipe is not read, so that the worker waits. Called by capture_job.c.
 */
#include "agent/capture_private.h"

#include <stdlib.h>
#include <string.h>

#include "agent/os/profile.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define PIPE_BYTES 65536

/* ---- the verdict ---- */

static void put_stacks(trawl_v1_Artifact *meta, const struct os_result *stacks)
{
    meta->stacks_count = 0;
    for (uint32_t i = 0; i < stacks->top_count && i < OS_STACK_TOPS; i++) {
        trawl_v1_StackGroup *group = &meta->stacks[meta->stacks_count++];
        const struct os_stack_top *top = &stacks->tops[i];
        group->signature.size = sizeof top->signature;
        memcpy(group->signature.bytes, top->signature, sizeof top->signature);
        group->count = top->threads;
        job_safe_text(group->frames, sizeof group->frames, top->frames);
        text_copy(group->process, sizeof group->process, meta->process);
    }
}

static void fill_meta(struct capture *c, const struct job *job, trawl_v1_Artifact *meta)
{
    const struct broker_result *result = c->run.result;
    const struct os_result *s = &result->taken;
    struct clock *clock = c->settings.clock;
    uint64_t ago_us = clock->mono_us(clock) - result->began_mono_us;
    meta->wall_us = clock->wall_us(clock) - (int64_t)ago_us;
    meta->pause_us = s->pause_us;
    meta->expected_us = s->expected_us;
    meta->plain_bytes = result->plain_bytes;
    meta->paused = s->paused;
    meta->threads = s->threads;
    job_safe_text(meta->missing, sizeof meta->missing, s->missing);
    job_safe_text(meta->process, sizeof meta->process, job->process.name);
    put_stacks(meta, s);
}

/* Texts that came over the socket end within their rooms, whatever the worker wrote. */
static void terminate(struct os_result *result)
{
    result->missing[sizeof result->missing - 1] = '\0';
    for (size_t i = 0; i < OS_STACK_TOPS; i++)
        result->tops[i].frames[OS_STACK_FRAMES_TEXT - 1] = '\0';
}

static int check_end(struct run *r, struct failure *f)
{
    if (r->result_failure.code)
        *f = r->result_failure;
    else if (r->write_failure.code)
        *f = r->write_failure;
    else
        (void)capture_chunks_end(&r->chunks, f);
    return f->code;
}

/* True when the job goes on: the collector does not have all of it yet. */
static bool conclude(struct capture *c, const struct job *job)
{
    struct run *r = &c->run;
    struct failure f = {0};
    const struct os_result *taken = &r->result->taken;
    trawl_v1_Artifact *meta = calloc(1, sizeof *meta);
    if (taken->paused && taken->pause_us > r->order->verdict.longest_pause_us)
        r->order->verdict.longest_pause_us = taken->pause_us;
    job_note_at_error(c, r->result->began_mono_us);
    int e = meta ? check_end(r, &f) : fail(&f, ERR_NOMEM, "out of memory");
    if (!e) {
        terminate(&r->result->taken);
        fill_meta(c, job, meta);
        if (r->stream)
            stream_finish(c, meta);
        else
            e = job_keep_files(c, job, meta, &f);
    }
    free(meta);
    if (!e && r->stream)
        return true;
    job_drop_files(c);
    stream_drop(c);
    if (!e)
        f.code = 0;
    job_ended(c, &f);
    return false;
}

static void on_pipe_closed(uv_handle_t *handle)
{
    struct capture *c = handle->data;
    struct run *r = &c->run;
    r->pipe_open = false;
    if (c->is_closing) {
        job_drop_files(c);
        capture_close_timer(c);
        return;
    }
    r->job_active = false;
    free(r->pipe_buffer);
    r->pipe_buffer = NULL;
    if (r->order->is_cancelled) {
        job_drop_files(c);
        stream_drop(c);
    } else if (conclude(c, job_current(c))) {
        return;
    }
    run_next_job(c);
}

/* The job is over when the worker's verdict and the end of its bytes are both here. */
static void check_over(struct capture *c)
{
    struct run *r = &c->run;
    if (r->has_reply && r->has_end && !uv_is_closing((uv_handle_t *)&r->pipe))
        uv_close((uv_handle_t *)&r->pipe, on_pipe_closed);
}

/* ---- its bytes ---- */

/* A list that cannot be kept is no loss: the next core is whole then. */
static void begin_pages(struct capture *c)
{
    struct run *r = &c->run;
    char directory[STATE_PATH_SIZE];
    struct failure f;
    pages_drop(&r->pages);
    if (state_path(c->settings.state, PAGES_FOLDER, directory, &f) ||
        pages_begin(&r->pages, directory, &job_current(c)->process, &f))
        log_warn("later cores of process %u will be whole: %s", job_current(c)->process.pid,
                 f.text);
}

static void add_to_pages(struct run *r, struct span bytes)
{
    struct failure f;
    if (r->pages.file < 0 || pages_write(&r->pages, bytes, &f) == 0)
        return;
    log_warn("later cores of process %u will be whole: %s", r->pages.process.pid, f.text);
    pages_drop(&r->pages);
}

static int on_file(void *context, const struct broker_file *file, struct failure *f)
{
    struct capture *c = context;
    struct run *r = &c->run;
    r->in_pages = strcmp(file->encoding, BROKER_PAGES) == 0;
    if (r->in_pages && !r->stream)
        return fail(f, ERR_PROTOCOL, "the worker wrote a list of pages of nothing");
    if (r->in_pages) {
        begin_pages(c);
        return 0;
    }
    if (strcmp(file->encoding, BROKER_ZSTD_DELTA) == 0 && !r->has_base)
        return fail(f, ERR_PROTOCOL, "the worker wrote differences from nothing");
    const struct job *job = job_current(c);
    const struct job_kind *kind = job_kind_of(job->kind);
    return kind && kind->is_streamed ? stream_begin(c, job, file, f) : job_open_file(c, file, f);
}

static int on_data(void *context, struct span bytes, struct failure *f)
{
    struct capture *c = context;
    struct run *r = &c->run;
    if (r->in_pages) {
        add_to_pages(r, bytes);
        return 0;
    }
    if (r->stream)
        return stream_add(c, bytes, f);
    int e = evidence_write(&r->files[r->file_count - 1].evidence, bytes);
    return e ? fail(f, e, "cannot keep the evidence: %s", err_text(e)) : 0;
}

static const struct capture_chunks_events chunk_events = {on_file, on_data};

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct capture *c = handle->data;
    (void)suggested;
    *out = uv_buf_init(c->run.pipe_buffer, c->run.pipe_buffer ? PIPE_BYTES : 0);
}

static bool has_room(const struct run *r)
{
    return !r->stream || r->write_failure.code || stream_room_bytes(r->stream) >= PIPE_BYTES;
}

/* What cannot be kept is not read to its end: the worker is stopped. */
static void give_up(struct capture *c)
{
    job_cancel(c);
}

static void on_bytes(uv_stream_t *stream, ssize_t count, const uv_buf_t *bytes)
{
    struct capture *c = stream->data;
    struct run *r = &c->run;
    if (count == 0)
        return;
    if (count < 0) {
        r->has_end = true;
        check_over(c);
        return;
    }
    if (r->write_failure.code)
        return;
    if (capture_chunks_feed(&r->chunks, span_of(bytes->base, (size_t)count), &chunk_events, c,
                            &r->write_failure))
        give_up(c);
    r->is_paused = !has_room(r);
    if (r->is_paused)
        uv_read_stop(stream);
}

void worker_read_on(struct capture *c)
{
    struct run *r = &c->run;
    if (!r->is_paused || !r->pipe_open || !has_room(r) || uv_is_closing((uv_handle_t *)&r->pipe))
        return;
    r->is_paused = false;
    if (uv_read_start((uv_stream_t *)&r->pipe, on_allocate, on_bytes)) {
        fail(&r->write_failure, ERR_IO, "cannot read the evidence");
        r->has_end = true;
        give_up(c);
    }
}

static void on_result(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct capture *c = context;
    struct run *r = &c->run;
    if (c->is_closing)
        return;
    r->has_reply = true;
    r->result_failure = *f;
    if (reply)
        *r->result = reply->body.result;
    if (!reply || f->code) /* nothing of it counts; of a broker that died the pipe may never end */
        r->has_end = true;
    if (r->write_failure.code)
        r->result_failure.code = 0; /* the worker was stopped for it: the reason is ours */
    check_over(c);
}

/* ---- starting ---- */

/* How long the worker may take; 0: the order has no time left for it. */
static uint64_t deadline_us(struct capture *c, const struct job_kind *kind)
{
    const struct order *o = c->run.order;
    uint64_t now_us = c->settings.clock->mono_us(c->settings.clock);
    uint64_t limit_us = kind->deadline_us;
    if (kind->looks_on)
        limit_us += o->order.for_us ? o->order.for_us : OS_PROFILE_FOR_DEFAULT_US;
    if (limit_us == 0) {
        uint64_t end_us = o->received_mono_us + o->order.expires_in_us;
        limit_us = end_us > now_us ? end_us - now_us : 0;
        if (limit_us > BROKER_DEADLINE_MAX_US)
            limit_us = BROKER_DEADLINE_MAX_US;
    }
    return limit_us < BROKER_DEADLINE_MIN_US ? 0 : limit_us;
}

static int fill_request(struct capture *c, const struct job *job, struct broker_request *request,
                        struct failure *f)
{
    const trawl_v1_Order *order = &c->run.order->order;
    const struct job_kind *kind = job_kind_of(job->kind);
    struct broker_run *run = &request->body.run;
    struct clock *clock = c->settings.clock;
    text_copy(run->kind, sizeof run->kind, job->kind);
    run->order = order->order;
    run->pid = job->process.pid;
    run->start_ticks = job->process.start_ticks;
    run->exe_device = job->process.exe_device;
    run->exe_inode = job->process.exe_inode;
    run->pause_max_us = policy_pause_max_us(c->settings.policy, order->pause_max_us);
    run->live = job->live || order->live;
    run->allow_pause = order->allow_pause;
    run->from_us = c->run.began_wall_us - (int64_t)order->last_us;
    run->to_us = clock->wall_us(clock);
    run->for_us = order->for_us ? order->for_us : OS_PROFILE_FOR_DEFAULT_US;
    run->deadline_us = deadline_us(c, kind);
    if (c->run.target_mono_us > clock->mono_us(clock))
        run->at_mono_us = c->run.target_mono_us;
    c->run.stream_deadline_mono_us = clock->mono_us(clock) + run->deadline_us;
    if (run->deadline_us == 0)
        return fail(f, ERR_TIMEOUT, "the order expires before it could be taken (--expire)");
    if (run->deadline_us > BROKER_DEADLINE_MAX_US)
        return fail(f, ERR_REFUSED, "it would take %llu s, the limit is %llu s (--for)",
                    (unsigned long long)(run->deadline_us / 1000000),
                    (unsigned long long)(BROKER_DEADLINE_MAX_US / 1000000));
    return 0;
}

/* Makes the pipe and hands its writing end to the broker along with the request. */
static int ask_broker(struct capture *c, struct broker_request *request, struct failure *f)
{
    struct run *r = &c->run;
    uv_file ends[2];
    int n = uv_pipe(ends, UV_NONBLOCK_PIPE, 0);
    if (n)
        return fail(f, ERR_IO, "cannot make a pipe: %s", uv_strerror(n));
    int e = broker_client_send(c->settings.broker, BROKER_RUN, request, ends[1], on_result, c, f);
    port_close(ends[1]);
    if (e) {
        port_close(ends[0]);
        return e;
    }
    r->job_active = true;
    r->pipe.data = c;
    if (uv_pipe_init(c->settings.loop, &r->pipe, 0) || uv_pipe_open(&r->pipe, ends[0]) ||
        uv_read_start((uv_stream_t *)&r->pipe, on_allocate, on_bytes)) {
        fail(&r->write_failure, ERR_IO, "cannot read the evidence");
        r->has_end = true;
    }
    r->pipe_open = true;
    return 0;
}

static int prepare(struct run *r, struct failure *f)
{
    r->has_reply = r->has_end = r->is_paused = false;
    r->write_failure = r->result_failure = (struct failure){0};
    r->chunks = (struct capture_chunks){0};
    if (!r->result)
        r->result = calloc(1, sizeof *r->result);
    if (!r->pipe_buffer)
        r->pipe_buffer = malloc(PIPE_BYTES);
    if (!r->result || !r->pipe_buffer)
        return fail(f, ERR_NOMEM, "out of memory");
    memset(r->result, 0, sizeof *r->result);
    return 0;
}

static void on_base(void *context, const struct broker_reply *reply, const struct failure *f)
{
    (void)context;
    (void)reply;
    (void)f;
}

/* The page list of an earlier core of the same process goes before the request. */
static void send_base(struct capture *c, const struct job *job)
{
    struct run *r = &c->run;
    struct broker_request request = {0};
    char directory[STATE_PATH_SIZE];
    r->has_base = r->in_pages = false;
    if (strcmp(job->kind, "core") != 0 || r->order->order.allow_pause ||
        state_path(c->settings.state, PAGES_FOLDER, directory, NULL))
        return;
    int file = pages_find(directory, &job->process, &r->base);
    if (file < 0)
        return;
    r->has_base = broker_client_send(c->settings.broker, BROKER_BASE, &request, file, on_base, NULL,
                                     NULL) == 0;
    port_close(file);
}

bool worker_start(struct capture *c, const struct job *job)
{
    struct failure f = {0};
    struct broker_request request = {0};
    int e = prepare(&c->run, &f);
    if (!e)
        e = fill_request(c, job, &request, &f);
    if (!e)
        send_base(c, job);
    if (!e)
        e = ask_broker(c, &request, &f);
    if (e)
        job_ended(c, &f);
    return !e;
}

/* ---- stopping ---- */

static void on_stopped(void *context, const struct broker_reply *reply, const struct failure *f)
{
    (void)context;
    (void)reply;
    (void)f;
}

void job_cancel(struct capture *c)
{
    struct broker_request request = {0};
    if (c->run.job_active)
        (void)broker_client_send(c->settings.broker, BROKER_STOP, &request, -1, on_stopped, NULL,
                                 NULL);
}

bool job_stop_worker(struct capture *c)
{
    job_cancel(c);
    if (!c->run.pipe_open)
        return false;
    if (!uv_is_closing((uv_handle_t *)&c->run.pipe))
        uv_close((uv_handle_t *)&c->run.pipe, on_pipe_closed);
    return true;
}
