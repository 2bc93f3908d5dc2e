/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One kind of evidence: of a process by a worker of the broker, whose bytes come through a pipe, or
 * of the host from the rings. Invariant: a job ends in exactly one artifact or one reason. Called
 * by capture_run.c.
 */
#include "agent/capture_private.h"

#include <stdlib.h>
#include <string.h>

#include "agent/lookback.h"
#include "common/log.h"
#include "common/text.h"

#define WORKER_DEADLINE_US UINT64_C(15000000)
#define EVIDENCE_MAX_BYTES (UINT64_C(64) * 1024 * 1024)
#define PIPE_BYTES 65536

static const struct job_kind kinds[] = {
    {"stacks", true, false}, /* first: nearest to the instant */
    {"triage", true, false},   {"logs", true, true},
    {"counters", false, true}, {"events", false, true},
};

const struct job_kind *job_kind_at(size_t rank)
{
    return rank < sizeof kinds / sizeof kinds[0] ? &kinds[rank] : NULL;
}

/* ---- what comes of a job ---- */

/* Only characters that are harmless in a file name anywhere. */
static void file_part(const char *name, char *out, size_t size_bytes)
{
    size_t i = 0;
    for (; name[i] && i + 1 < size_bytes && i < 48; i++) {
        char ch = name[i];
        bool is_fine = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                       (ch >= '0' && ch <= '9') || ch == '-' || ch == '_' || (ch == '.' && i > 0);
        out[i] = is_fine ? ch : '_';
    }
    out[i] = '\0';
}

static void file_name(const struct job *job, char *out, size_t size_bytes)
{
    char process[64];
    if (job->process.pid == 0) {
        bool is_table = strcmp(job->kind, "counters") == 0;
        text_format(out, size_bytes, "%s.%s", job->kind, is_table ? "csv" : "jsonl");
        return;
    }
    file_part(job->process.name, process, sizeof process);
    text_format(out, size_bytes, "%s-%s-%u.txt", job->kind, process, (unsigned)job->process.pid);
}

static void safe_text(char *out, size_t size_bytes, const char *text)
{
    struct buf b;
    buf_init(&b, 4096);
    if (text_append_safe(&b, span_str(text), false) == 0)
        text_copy(out, size_bytes, buf_str(&b));
    buf_done(&b);
}

static void put_stacks(trawl_v1_Artifact *meta, const struct os_result *stacks)
{
    meta->stacks_count = 0;
    for (uint32_t i = 0; i < stacks->top_count && i < OS_STACK_TOPS; i++) {
        trawl_v1_StackGroup *group = &meta->stacks[meta->stacks_count++];
        const struct os_stack_top *top = &stacks->tops[i];
        group->signature.size = sizeof top->signature;
        memcpy(group->signature.bytes, top->signature, sizeof top->signature);
        group->count = top->threads;
        safe_text(group->frames, sizeof group->frames, top->frames);
        text_copy(group->process, sizeof group->process, meta->process);
    }
}

/* `label`: "stacks of redis-server (1234)" or "counters". */
static void label_of(const struct job *job, char *out, size_t size_bytes)
{
    if (job->process.pid)
        text_format(out, size_bytes, "%s of %s (%u)", job->kind, job->process.name,
                    (unsigned)job->process.pid);
    else
        text_format(out, size_bytes, "%s", job->kind);
}

static void note_failure(struct capture *c, const struct job *job, const struct failure *why)
{
    struct order *o = c->run.order;
    char label[128];
    label_of(job, label, sizeof label);
    if (why->code == ERR_REFUSED)
        o->refused++;
    else if (why->code == ERR_GONE)
        o->gone++;
    else
        o->failed++;
    capture_note_reason(o, "%s: %s", label, why->text);
}

static void drop(struct capture *c)
{
    struct run *r = &c->run;
    uint32_t no = r->evidence.no;
    evidence_drop(&r->evidence);
    journal_return_number(c, r->order->order.incident, no);
}

static void mark_process(struct run *r, const struct job *job)
{
    for (uint32_t i = 0; i < r->process_count; i++)
        if (job->process.pid && r->processes[i].pid == job->process.pid)
            r->has_artifact[i] = 1;
}

static int keep(struct capture *c, const struct job *job, trawl_v1_Artifact *meta,
                struct failure *f)
{
    struct run *r = &c->run;
    struct order *o = r->order;
    text_copy(meta->incident, sizeof meta->incident, o->order.incident);
    text_copy(meta->kind, sizeof meta->kind, job->kind);
    safe_text(meta->process, sizeof meta->process, job->process.name);
    meta->pid = job->process.pid;
    file_name(job, meta->file, sizeof meta->file);
    if (o->artifact_count == ARTIFACTS_MAX)
        return fail(f, ERR_LIMIT, "more than %d artifacts", ARTIFACTS_MAX);
    uint64_t size_bytes = r->evidence.size_bytes;
    if (size_bytes == 0)
        return fail(f, ERR_NOTFOUND, "nothing in this window");
    int e = evidence_seal(&r->evidence, meta, f);
    if (e)
        return e;
    o->artifacts[o->artifact_count++] =
        (struct order_artifact){meta->no, ARTIFACT_WAITS, size_bytes};
    mark_process(r, job);
    capture_changed(c);
    return 0;
}

static int open_evidence(struct capture *c, struct failure *f)
{
    struct order *o = c->run.order;
    uint64_t waiting = capture_waiting_bytes(c), space = c->settings.space_bytes;
    char text[32];
    if (waiting >= space) {
        text_put_size(waiting, text, sizeof text);
        return fail(f, ERR_FULL, "%s of evidence wait to be sent from this host already", text);
    }
    uint64_t limit = space - waiting < EVIDENCE_MAX_BYTES ? space - waiting : EVIDENCE_MAX_BYTES;
    uint32_t no = journal_next_number(c, o->order.incident);
    int e = evidence_open(&c->run.evidence, o->directory, no, limit, f);
    if (e)
        journal_return_number(c, o->order.incident, no);
    return e;
}

/* ---- of the host, from the rings ---- */

static void note_at_error(struct capture *c, uint64_t began_mono_us)
{
    struct run *r = &c->run;
    if (r->target_mono_us == 0 || r->has_at_error || began_mono_us == 0)
        return;
    r->order->verdict.at_error_us = (int64_t)(began_mono_us - r->target_mono_us);
    r->has_at_error = true;
}

static void look_back(struct capture *c, const struct job *job)
{
    struct run *r = &c->run;
    const struct spool *spool = c->settings.spool;
    struct failure f = {0};
    trawl_v1_Artifact *meta = calloc(1, sizeof *meta);
    int64_t to_us = c->settings.clock->wall_us(c->settings.clock);
    int64_t from_us = r->began_wall_us - (int64_t)r->order->order.last_us;
    bool is_counters = strcmp(job->kind, "counters") == 0;
    int e = fail(&f, ERR_NOMEM, "out of memory");
    if (meta)
        e = open_evidence(c, &f);
    if (!e && is_counters && c->settings.sampler)
        sampler_cut(c->settings.sampler);
    if (meta && !e) {
        meta->wall_us = to_us;
        e = (is_counters ? lookback_counters
                         : lookback_events)(spool, from_us, to_us, evidence_write, &r->evidence,
                                            meta->missing, sizeof meta->missing, &f);
        if (!e)
            e = keep(c, job, meta, &f);
        if (e)
            drop(c);
    }
    if (e)
        note_failure(c, job, &f);
    note_at_error(c, c->settings.clock->mono_us(c->settings.clock));
    spool_release_pages(c->settings.spool);
    free(meta);
}

/* ---- of a process, by a worker ---- */

static void fill_meta(struct capture *c, trawl_v1_Artifact *meta)
{
    const struct broker_result *result = c->run.result;
    const struct os_result *s = &result->taken;
    struct clock *clock = c->settings.clock;
    uint64_t ago_us = clock->mono_us(clock) - result->began_mono_us;
    meta->wall_us = clock->wall_us(clock) - (int64_t)ago_us;
    meta->pause_us = s->pause_us;
    meta->paused = s->paused;
    meta->threads = s->threads;
    safe_text(meta->missing, sizeof meta->missing, s->missing);
    put_stacks(meta, s);
}

static void conclude(struct capture *c, const struct job *job)
{
    struct run *r = &c->run;
    struct order *o = r->order;
    struct failure f = r->result_failure;
    trawl_v1_Artifact *meta = calloc(1, sizeof *meta);
    const struct os_result *stacks = &r->result->taken;
    if (stacks->paused && stacks->pause_us > o->verdict.longest_pause_us)
        o->verdict.longest_pause_us = stacks->pause_us;
    note_at_error(c, r->result->began_mono_us);
    if (!f.code && r->write_error)
        fail(&f, r->write_error, "cannot keep the evidence: %s", err_text(r->write_error));
    if (!f.code && !meta)
        fail(&f, ERR_NOMEM, "out of memory");
    if (meta && !f.code) {
        safe_text(meta->process, sizeof meta->process, job->process.name);
        fill_meta(c, meta);
        (void)keep(c, job, meta, &f);
    }
    if (f.code) {
        drop(c);
        note_failure(c, job, &f);
    }
    free(meta);
}

static void on_pipe_closed(uv_handle_t *handle)
{
    struct capture *c = handle->data;
    struct run *r = &c->run;
    r->pipe_open = false;
    if (c->is_closing) {
        evidence_drop(&r->evidence);
        capture_close_timer(c);
        return;
    }
    r->job_active = false;
    const struct job *job = &r->jobs[r->next_job - 1];
    if (r->order->is_cancelled)
        drop(c);
    else
        conclude(c, job);
    free(r->pipe_buffer);
    r->pipe_buffer = NULL;
    run_next_job(c);
}

/* The job is over when the worker's verdict and the end of its bytes are both here. */
static void check_over(struct capture *c)
{
    struct run *r = &c->run;
    if (r->has_reply && r->has_end && !uv_is_closing((uv_handle_t *)&r->pipe))
        uv_close((uv_handle_t *)&r->pipe, on_pipe_closed);
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct capture *c = handle->data;
    (void)suggested;
    *out = uv_buf_init(c->run.pipe_buffer, c->run.pipe_buffer ? PIPE_BYTES : 0);
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
    if (!r->write_error)
        r->write_error = evidence_write(&r->evidence, span_of(bytes->base, (size_t)count));
}

static void on_result(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct capture *c = context;
    if (c->is_closing)
        return;
    c->run.has_reply = true;
    c->run.result_failure = *f;
    if (reply)
        *c->run.result = reply->body.result;
    if (!reply)
        c->run.has_end = true; /* the broker died; what it passed on may never end */
    check_over(c);
}

static void fill_request(struct capture *c, const struct job *job, struct broker_request *request)
{
    const struct order *o = c->run.order;
    struct broker_run *run = &request->body.run;
    struct clock *clock = c->settings.clock;
    text_copy(run->kind, sizeof run->kind, job->kind);
    run->order = o->order.order;
    run->pid = job->process.pid;
    run->start_ticks = job->process.start_ticks;
    run->pause_max_us = policy_pause_max_us(c->settings.policy, o->order.pause_max_us);
    run->deadline_us = WORKER_DEADLINE_US;
    run->from_us = c->run.began_wall_us - (int64_t)o->order.last_us;
    run->to_us = clock->wall_us(clock);
    if (c->run.target_mono_us > clock->mono_us(clock))
        run->at_mono_us = c->run.target_mono_us;
}

/* Makes the pipe and hands its writing end to the broker along with the request. */
static int ask_broker(struct capture *c, const struct job *job, struct failure *f)
{
    struct run *r = &c->run;
    struct broker_request request = {0};
    uv_file ends[2];
    int n = uv_pipe(ends, UV_NONBLOCK_PIPE, 0);
    if (n)
        return fail(f, ERR_IO, "cannot make a pipe: %s", uv_strerror(n));
    fill_request(c, job, &request);
    int e = broker_client_send(c->settings.broker, BROKER_RUN, &request, ends[1], on_result, c, f);
    evidence_close_file(ends[1]);
    if (e) {
        evidence_close_file(ends[0]);
        return e;
    }
    r->job_active = true;
    r->pipe.data = c;
    if (uv_pipe_init(c->settings.loop, &r->pipe, 0) || uv_pipe_open(&r->pipe, ends[0]) ||
        uv_read_start((uv_stream_t *)&r->pipe, on_allocate, on_bytes)) {
        r->write_error = ERR_IO;
        r->has_end = true;
    }
    r->pipe_open = true;
    return 0;
}

static bool start_worker(struct capture *c, const struct job *job)
{
    struct run *r = &c->run;
    struct failure f = {0};
    r->has_reply = r->has_end = false;
    r->write_error = 0;
    r->result_failure = (struct failure){0};
    if (!r->result)
        r->result = calloc(1, sizeof *r->result);
    if (!r->pipe_buffer)
        r->pipe_buffer = malloc(PIPE_BYTES);
    int e = fail(&f, ERR_NOMEM, "out of memory");
    if (r->result && r->pipe_buffer) {
        memset(r->result, 0, sizeof *r->result);
        e = open_evidence(c, &f);
    }
    if (!e) {
        e = ask_broker(c, job, &f);
        if (e)
            drop(c);
    }
    if (e)
        note_failure(c, job, &f);
    return !e;
}

bool job_start(struct capture *c, const struct job *job)
{
    if (job->process.pid)
        return start_worker(c, job);
    look_back(c, job);
    return false;
}

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
