/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One kind of evidence: of a process by a worker (capture_worker.c), or of the host from the rings.
 * Invariant: a job ends in at least one artifact or exactly one reason. Called by capture_run.c.
 */
#include "agent/capture_private.h"

#include <stdlib.h>
#include <string.h>

#include "agent/lookback.h"
#include "common/log.h"
#include "common/text.h"

#define SECOND_US UINT64_C(1000000)
#define SHORT_US (15 * SECOND_US)
#define EVIDENCE_MAX_BYTES (UINT64_C(64) * 1024 * 1024)

/* Nearest to the instant first. What is streamed comes last: it may take minutes, in which the
 * rings would be overwritten. */
static const struct job_kind kinds[] = {
    {.name = "crash"},
    {.name = "stacks", .of_process = true, .deadline_us = SHORT_US},
    {.name = "mini", .of_process = true, .deadline_us = 2 * SHORT_US},
    {.name = "stacks0", .of_process = true, .deadline_us = SHORT_US},
    {.name = "triage", .of_process = true, .deadline_us = SHORT_US},
    {.name = "net", .of_process = true, .deadline_us = SHORT_US},
    {.name = "profile", .of_process = true, .looks_on = true, .deadline_us = 20 * SECOND_US},
    {.name = "throws", .of_process = true, .looks_on = true, .deadline_us = 20 * SECOND_US},
    {.name = "logs", .of_process = true, .of_window = true, .deadline_us = SHORT_US},
    {.name = "counters", .of_window = true},
    {.name = "events", .of_window = true},
    {.name = "core", .of_process = true, .is_streamed = true},
};

const struct job_kind *job_kind_at(size_t rank)
{
    return rank < sizeof kinds / sizeof kinds[0] ? &kinds[rank] : NULL;
}

const struct job_kind *job_kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

struct job *job_current(struct capture *c)
{
    return &c->run.jobs[c->run.next_job - 1];
}

/* ---- names ---- */

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

static void file_name(const struct job *job, const char *ending, char *out, size_t size_bytes)
{
    char process[64];
    file_part(job->process.name, process, sizeof process);
    if (job->process.pid == 0)
        text_format(out, size_bytes, "%s.%s", job->kind, ending);
    else
        text_format(out, size_bytes, "%s-%s-%u.%s", job->kind, process, (unsigned)job->process.pid,
                    ending);
}

void job_safe_text(char *out, size_t size_bytes, const char *text)
{
    struct buf b;
    buf_init(&b, 4096);
    if (text_append_safe(&b, span_str(text), false) == 0)
        text_copy(out, size_bytes, buf_str(&b));
    buf_done(&b);
}

/* "stacks of redis-server (1234)" or "counters". */
static void label_of(const struct job *job, const char *kind, char *out, size_t size_bytes)
{
    if (job->process.pid)
        text_format(out, size_bytes, "%s of %s (%u)", kind, job->process.name,
                    (unsigned)job->process.pid);
    else
        text_format(out, size_bytes, "%s", kind);
}

void job_fill_meta(struct capture *c, const struct job *job, const struct broker_file *about,
                   trawl_v1_Artifact *meta)
{
    text_copy(meta->incident, sizeof meta->incident, c->run.order->order.incident);
    text_copy(meta->kind, sizeof meta->kind, job->kind);
    job_safe_text(meta->process, sizeof meta->process, job->process.name);
    meta->pid = job->process.pid;
    file_name(job, about->ending, meta->file, sizeof meta->file);
    text_copy(meta->encoding, sizeof meta->encoding, about->encoding);
}

/* ---- how a job ends ---- */

static void note_failure(struct capture *c, const struct job *job, const char *kind,
                         const struct failure *why)
{
    struct order *o = c->run.order;
    char label[128];
    label_of(job, kind, label, sizeof label);
    if (why->code == ERR_REFUSED)
        o->refused++;
    else if (why->code == ERR_GONE)
        o->gone++;
    else
        o->failed++;
    capture_note_reason(o, "%s: %s", label, why->text);
}

void job_ended(struct capture *c, const struct failure *why)
{
    struct job *job = job_current(c);
    if (!why->code) {
        if (job->instead_of[0])
            capture_note_reason(c->run.order, "%s of %s (%u): %s; %s%s was taken instead",
                                job->instead_of, job->process.name, (unsigned)job->process.pid,
                                job->why.text, job->kind, job->live ? " (live)" : "");
        return;
    }
    bool is_over = capture_is_expired(c, c->run.order);
    if (!is_over && fallback_take(&c->run.order->order, job, why)) {
        c->run.next_job--; /* the same job again, as it is now */
        return;
    }
    if (job->instead_of[0])
        note_failure(c, job, job->instead_of, &job->why);
    note_failure(c, job, job->kind, why);
}

static void mark_process(struct run *r, const struct job *job)
{
    for (uint32_t i = 0; i < r->process_count; i++)
        if (job->process.pid && r->processes[i].pid == job->process.pid)
            r->has_artifact[i] = 1;
}

int job_add_artifact(struct capture *c, const struct job *job, uint32_t no, uint64_t size_bytes,
                     enum artifact_fate fate, struct failure *f)
{
    struct order *o = c->run.order;
    if (o->artifact_count == ARTIFACTS_MAX)
        return fail(f, ERR_LIMIT, "more than %d artifacts", ARTIFACTS_MAX);
    o->artifacts[o->artifact_count++] = (struct order_artifact){no, fate, size_bytes};
    mark_process(&c->run, job);
    return 0;
}

/* ---- files on disk ---- */

static uint64_t open_bytes(const struct run *r)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < r->file_count; i++)
        bytes += r->files[i].evidence.size_bytes;
    return bytes;
}

int job_open_file(struct capture *c, const struct broker_file *about, struct failure *f)
{
    struct run *r = &c->run;
    struct order *o = r->order;
    uint64_t waiting = capture_waiting_bytes(c) + open_bytes(r), space = c->settings.space_bytes;
    char text[32];
    if (waiting >= space) {
        text_put_size(waiting, text, sizeof text);
        return fail(f, ERR_FULL, "%s of evidence wait to be sent from this host already", text);
    }
    if (r->file_count == BROKER_FILES_MAX)
        return fail(f, ERR_LIMIT, "more than %d files", BROKER_FILES_MAX);
    struct job_file *file = &r->files[r->file_count];
    uint64_t limit = space - waiting < EVIDENCE_MAX_BYTES ? space - waiting : EVIDENCE_MAX_BYTES;
    uint32_t no = journal_next_number(c, o->order.incident);
    int e = evidence_open(&file->evidence, o->directory, no, limit, f);
    if (e) {
        journal_return_number(c, o->order.incident, no);
        return e;
    }
    file->about = *about;
    r->file_count++;
    return 0;
}

/* The last one first, so that their numbers can be given out again. */
static void drop_from(struct capture *c, size_t first)
{
    struct run *r = &c->run;
    while (r->file_count > first) {
        struct evidence *evidence = &r->files[--r->file_count].evidence;
        evidence_drop(evidence);
        if (r->order)
            journal_return_number(c, r->order->order.incident, evidence->no);
    }
}

void job_drop_files(struct capture *c)
{
    drop_from(c, 0);
}

/* Those without a byte are left out: a kind may begin a file and find nothing for it. */
static void drop_empty(struct capture *c)
{
    struct run *r = &c->run;
    size_t kept = 0;
    for (size_t i = 0; i < r->file_count; i++) {
        struct job_file file = r->files[i];
        if (file.evidence.size_bytes > 0)
            r->files[kept++] = file;
        else
            evidence_drop(&file.evidence);
    }
    r->file_count = kept;
}

int job_keep_files(struct capture *c, const struct job *job, trawl_v1_Artifact *meta,
                   struct failure *f)
{
    struct run *r = &c->run;
    struct order *o = r->order;
    uint32_t before = o->artifact_count;
    int e = 0;
    drop_empty(c);
    if (r->file_count == 0)
        return fail(f, ERR_NOTFOUND, "nothing in this window");
    fallback_note(job, meta);
    for (size_t i = 0; i < r->file_count && !e; i++) {
        struct job_file *file = &r->files[i];
        uint64_t size_bytes = file->evidence.size_bytes;
        job_fill_meta(c, job, &file->about, meta);
        e = job_add_artifact(c, job, file->evidence.no, size_bytes, ARTIFACT_WAITS, f);
        if (!e)
            e = evidence_seal(&file->evidence, meta, f);
        meta->stacks_count = 0; /* counted once */
    }
    if (e) {
        for (size_t i = 0; i < r->file_count; i++)
            if (r->files[i].evidence.file < 0)
                evidence_remove(o->directory, r->files[i].evidence.no);
        o->artifact_count = before;
        return e;
    }
    r->file_count = 0;
    capture_changed(c);
    return 0;
}

/* ---- of the host, from the rings ---- */

void job_note_at_error(struct capture *c, uint64_t began_mono_us)
{
    struct run *r = &c->run;
    if (r->target_mono_us == 0 || r->has_at_error || began_mono_us == 0)
        return;
    r->order->verdict.at_error_us = (int64_t)(began_mono_us - r->target_mono_us);
    r->has_at_error = true;
}

static int write_file(void *context, struct span bytes)
{
    return evidence_write(context, bytes);
}

static int look_back_into(struct capture *c, const struct job *job, trawl_v1_Artifact *meta,
                          struct failure *f)
{
    struct run *r = &c->run;
    bool is_counters = strcmp(job->kind, "counters") == 0;
    struct broker_file about = {{0}, {0}};
    text_copy(about.ending, sizeof about.ending, is_counters ? "csv" : "jsonl");
    int64_t to_us = c->settings.clock->wall_us(c->settings.clock);
    int64_t from_us = r->began_wall_us - (int64_t)r->order->order.last_us;
    int e = job_open_file(c, &about, f);
    if (e)
        return e;
    if (is_counters && c->settings.sampler)
        sampler_cut(c->settings.sampler);
    meta->wall_us = to_us;
    e = (is_counters ? lookback_counters : lookback_events)(c->settings.spool, from_us, to_us,
                                                            write_file, &r->files[0].evidence,
                                                            meta->missing, sizeof meta->missing, f);
    if (!e)
        e = job_keep_files(c, job, meta, f);
    if (e)
        job_drop_files(c);
    return e;
}

static void look_back(struct capture *c, const struct job *job)
{
    struct failure f = {0};
    trawl_v1_Artifact *meta = calloc(1, sizeof *meta);
    int e = fail(&f, ERR_NOMEM, "out of memory");
    if (meta)
        e = look_back_into(c, job, meta, &f);
    if (!e)
        f.code = 0;
    job_ended(c, &f);
    job_note_at_error(c, c->settings.clock->mono_us(c->settings.clock));
    spool_release_pages(c->settings.spool);
    free(meta);
}

bool job_start(struct capture *c, const struct job *job)
{
    struct failure f = {0};
    if (job->is_saved)
        return saved_start(c, job);
    if (!job->process.pid) {
        look_back(c, job);
        return false;
    }
    if (policy_allows_kind(c->settings.policy, job->kind, &f)) {
        job_ended(c, &f);
        return false;
    }
    return worker_start(c, job);
}
