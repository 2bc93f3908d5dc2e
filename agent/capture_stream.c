/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The artifact of a job that is sent while it is taken (stream.h): the uplink takes runs of it, the
 * collector's answers make room. Invariant: at most one at a time, and its job is not over before
 * the collector has sealed it or it is lost. Called by capture_worker.c and the uplink.
 */
#include "agent/capture_private.h"

#include <string.h>

#include "common/log.h"
#include "common/text.h"

#define NUMBERS_TRIED_MAX 200

/* ---- filling ---- */

int stream_begin(struct capture *c, const struct job *job, const struct broker_file *about,
                 struct failure *f)
{
    struct run *r = &c->run;
    trawl_v1_Artifact meta = trawl_v1_Artifact_init_zero;
    if (r->stream)
        return fail(f, ERR_PROTOCOL, "a kind that is streamed has more than one file");
    job_fill_meta(c, job, about, &meta);
    if (strcmp(about->encoding, BROKER_ZSTD_DELTA) == 0) {
        text_copy(meta.base_incident, sizeof meta.base_incident, r->base.incident);
        meta.base_no = r->base.no;
    }
    meta.wall_us = c->settings.clock->wall_us(c->settings.clock);
    meta.no = journal_next_number(c, meta.incident);
    journal_save_numbers(c); /* its pieces may outlive us on the collector */
    int e = stream_open(&r->stream, &meta, f);
    if (e)
        return e;
    c->last_stream++;
    r->stream_numbers = 0;
    r->stream_is_known = r->stream_is_sent = r->stream_is_whole = r->stream_is_sealed = false;
    return 0;
}

int stream_add(struct capture *c, struct span bytes, struct failure *f)
{
    struct stream *s = c->run.stream;
    bool had_run = stream_has_run(s);
    int e = stream_write(s, bytes);
    if (e)
        return fail(f, e, "cannot keep the evidence: %s", err_text(e));
    if (!had_run && stream_has_run(s))
        capture_changed(c);
    return 0;
}

void stream_finish(struct capture *c, trawl_v1_Artifact *meta)
{
    struct run *r = &c->run;
    const trawl_v1_Artifact *known = stream_meta(r->stream);
    text_copy(meta->incident, sizeof meta->incident, known->incident);
    text_copy(meta->kind, sizeof meta->kind, known->kind);
    text_copy(meta->file, sizeof meta->file, known->file);
    text_copy(meta->encoding, sizeof meta->encoding, known->encoding);
    text_copy(meta->base_incident, sizeof meta->base_incident, known->base_incident);
    meta->base_no = known->base_no;
    meta->pid = known->pid;
    fallback_note(job_current(c), meta);
    stream_end(r->stream, meta);
    r->stream_is_whole = true;
    capture_changed(c);
}

void stream_drop(struct capture *c)
{
    pages_drop(&c->run.pages);
    stream_close(c->run.stream);
    c->run.stream = NULL;
}

/* ---- sending ---- */

struct stream *capture_stream(struct capture *c, uint64_t id)
{
    const struct run *r = &c->run;
    bool is_wanted = r->stream && c->last_stream == id && !r->order->is_cancelled;
    return is_wanted && !r->write_failure.code ? r->stream : NULL;
}

uint64_t capture_peek_stream(struct capture *c)
{
    struct stream *s = capture_stream(c, c->last_stream);
    return s && stream_has_run(s) ? c->last_stream : 0;
}

bool capture_stream_is_known(const struct capture *c)
{
    return c->run.stream_is_known;
}

void capture_stream_sending(struct capture *c, uint64_t id)
{
    if (capture_stream(c, id))
        c->run.stream_is_sent = true;
}

void capture_stream_unknown(struct capture *c, uint64_t id)
{
    if (capture_stream(c, id))
        c->run.stream_is_known = false;
}

/* Before we sent anything, something is there: left by an agent that is no more. */
static int take_another_number(struct capture *c, struct stream *s, struct failure *f)
{
    if (++c->run.stream_numbers > NUMBERS_TRIED_MAX)
        return fail(f, ERR_EXISTS, "the collector has %d artifacts that this host does not know of",
                    NUMBERS_TRIED_MAX);
    stream_set_number(s, journal_next_number(c, stream_meta(s)->incident));
    journal_save_numbers(c);
    return 0;
}

int capture_stream_state(struct capture *c, uint64_t id, const trawl_v1_UploadState *state,
                         bool *sealed, struct failure *f)
{
    struct run *r = &c->run;
    struct stream *s = capture_stream(c, id);
    *sealed = false;
    if (!s)
        return fail(f, ERR_CANCELLED, "the capture was cancelled");
    if (!r->stream_is_sent && (state->sealed || state->pieces > 0))
        return take_another_number(c, s, f);
    if (state->sealed) {
        *sealed = stream_has_ended(s) && state->size_bytes == stream_size_bytes(s);
        return *sealed ? 0 : fail(f, ERR_EXISTS, "another artifact has this number already");
    }
    int e = stream_stored(s, state->pieces, f);
    if (e)
        return e;
    r->stream_is_known = true;
    worker_read_on(c);
    return 0;
}

/* ---- the end ---- */

static void forget_base(struct capture *c, const struct job *job)
{
    char directory[STATE_PATH_SIZE];
    if (state_path(c->settings.state, PAGES_FOLDER, directory, NULL) == 0)
        pages_forget(directory, &job->process);
}

/* A core without a base is one for later ones; one with so many changes that a base is of little
 * use any more makes the next one whole. */
static void settle_base(struct capture *c, const struct job *job)
{
    struct run *r = &c->run;
    const trawl_v1_Artifact *meta = stream_meta(r->stream);
    struct pages_base own = {.no = meta->no, .size_bytes = stream_size_bytes(r->stream)};
    struct failure f;
    text_copy(own.incident, sizeof own.incident, meta->incident);
    if (meta->base_no && 2 * own.size_bytes > r->base.size_bytes)
        forget_base(c, job);
    if (r->pages.file >= 0 && pages_keep(&r->pages, &own, &f))
        log_warn("later cores of process %u will be whole: %s", job->process.pid, f.text);
}

static void seal(struct capture *c, const struct job *job, struct failure *f)
{
    struct run *r = &c->run;
    uint32_t no = stream_meta(r->stream)->no;
    uint64_t size_bytes = stream_size_bytes(r->stream);
    struct failure why = {0};
    if (job_add_artifact(c, job, no, size_bytes, ARTIFACT_SEALED, f))
        return;
    if (journal_sealed(r->order, no, &why))
        log_error("order %llu: %s", (unsigned long long)r->order->order.order, why.text);
}

/* The worker, when it still runs, is stopped; the job then ends as usual. */
static void fail_worker(struct capture *c, const struct failure *why)
{
    struct run *r = &c->run;
    if (!r->write_failure.code)
        r->write_failure = *why;
    if (stream_meta(r->stream)->base_no)
        forget_base(c, job_current(c)); /* it may be gone at the collector */
    worker_read_on(c);
    job_cancel(c);
}

void capture_stream_ended(struct capture *c, uint64_t id, const struct failure *why)
{
    struct run *r = &c->run;
    struct failure f = *why;
    if (!capture_stream(c, id))
        return;
    if (!r->stream_is_whole) {
        fail_worker(c, why);
        return;
    }
    if (!f.code)
        settle_base(c, job_current(c));
    else if (stream_meta(r->stream)->base_no)
        forget_base(c, job_current(c)); /* it may be gone at the collector */
    if (!f.code)
        seal(c, job_current(c), &f);
    stream_drop(c);
    if (f.code)
        log_warn("evidence of %s was not stored: %s", r->order->order.incident, f.text);
    job_ended(c, &f);
    run_next_job(c);
}

void stream_tick(struct capture *c)
{
    struct run *r = &c->run;
    struct failure f;
    if (!r->stream || !r->stream_is_whole ||
        c->settings.clock->mono_us(c->settings.clock) < r->stream_deadline_mono_us)
        return;
    fail(&f, ERR_UNREACHABLE, "the collector did not take it in time");
    capture_stream_ended(c, c->last_stream, &f);
}
