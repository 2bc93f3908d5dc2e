/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence of an exception that this host holds already: files that the crash handler left in
 * STATE/crash (crash_spool.h), handed over when an order asks for them. Invariant: they are copied
 * a piece at a time, so that the loop never waits for long; what the collector has sealed is not
 * kept here a second time. Called by capture_job.c, capture_run.c and capture.c.
 */
#include "agent/capture_private.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/crash_spool.h"
#include "common/text.h"
#include "proto/codec.h"

#define PIECE_BYTES 262144
#define ABOUT_BYTES 65536

/* Which files are evidence of which kind, and by what ending they are known there. */
static const struct saved_file {
    const char *kind, *ending, *given;
} saved_files[] = {
    {"crash", "txt", "txt"},   {"crash", "json", "json"}, {"crash", "folded", "folded"},
    {"crash", "core", "core"}, {"core", "full", "core"},  {"logs", "log", "txt"},
};
#define SAVED_FILES (sizeof saved_files / sizeof saved_files[0])

struct saved {
    struct crash_spool spool;
    struct crash_spool_file files[CRASH_FILES_MAX_LISTED];
    size_t count, next;
    int file; /* under way; -1: none */
    uint8_t piece[PIECE_BYTES];
};

bool saved_is_asked(const trawl_v1_Order *order)
{
    return order->exception.size == sizeof order->exception.bytes;
}

bool saved_has_kind(const char *kind)
{
    for (size_t i = 0; i < SAVED_FILES; i++)
        if (strcmp(saved_files[i].kind, kind) == 0)
            return true;
    return false;
}

static const struct saved_file *find(const char *kind, const char *ending)
{
    for (size_t i = 0; i < SAVED_FILES; i++)
        if (strcmp(saved_files[i].kind, kind) == 0 && strcmp(saved_files[i].ending, ending) == 0)
            return &saved_files[i];
    return NULL;
}

static int open_spool(const struct capture *c, struct crash_spool *spool, struct failure *f)
{
    char path[STATE_PATH_SIZE];
    int e = state_path(c->settings.state, "crash", path, f);
    return e ? e : crash_spool_open(spool, path, f);
}

/* ---- whose it is ---- */

static bool read_about(const struct crash_spool *spool, const uint8_t id[16],
                       trawl_v1_Exception *out)
{
    static const char *const endings[] = {"told", "pb"};
    char name[CRASH_NAME_SIZE];
    struct buf data;
    bool found = false;
    buf_init(&data, ABOUT_BYTES);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0] && !found; i++) {
        buf_clear(&data);
        crash_spool_name(id, endings[i], name);
        found = crash_spool_get(spool, name, &data) == 0 &&
                codec_get_exception(out, buf_span(&data), NULL) == 0;
    }
    buf_done(&data);
    return found;
}

bool saved_holds(const struct capture *c, const trawl_v1_Order *order, const char *kind)
{
    struct crash_spool_file files[CRASH_FILES_MAX_LISTED];
    char path[STATE_PATH_SIZE];
    size_t count = 0;
    if (state_path(c->settings.state, "crash", path, NULL) ||
        crashes_find(path, order->exception.bytes, files, CRASH_FILES_MAX_LISTED, &count))
        return false;
    for (size_t i = 0; i < count; i++)
        if (find(kind, files[i].ending))
            return true;
    return false;
}

bool saved_name(const struct capture *c, const trawl_v1_Order *order, struct os_process *out)
{
    struct crash_spool spool;
    trawl_v1_Exception *about = calloc(1, sizeof *about);
    bool found = false;
    out->pid = order->process.pid;
    out->start_ticks = order->process.start_ticks;
    text_copy(out->name, sizeof out->name, order->process.name);
    if (about && open_spool(c, &spool, NULL) == 0) {
        found = read_about(&spool, order->exception.bytes, about);
        if (found) {
            out->pid = about->pid;
            out->start_ticks = about->start_ticks;
            text_copy(out->name, sizeof out->name, about->process);
        }
        crash_spool_close(&spool);
    }
    free(about);
    return found;
}

/* ---- copying ---- */

static void close_saved(struct capture *c)
{
    struct saved *s = c->run.saved;
    if (!s)
        return;
    if (s->file >= 0)
        close(s->file);
    crash_spool_close(&s->spool);
    free(s);
    c->run.saved = NULL;
}

static void end_job(struct capture *c, int e, struct failure *f)
{
    close_saved(c);
    job_drop_files(c);
    if (!e)
        f->code = 0;
    job_ended(c, f);
}

static int begin_file(struct capture *c, struct saved *s, const struct saved_file *kind,
                      const struct crash_spool_file *file, struct failure *f)
{
    struct broker_file about = {{0}, {0}};
    s->file = openat(s->spool.fd, file->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (s->file < 0)
        return fail(f, ERR_GONE, "'%s' is no longer on this host", file->name);
    text_copy(about.ending, sizeof about.ending, kind->given);
    if (file->packed)
        text_copy(about.encoding, sizeof about.encoding, BROKER_ZSTD);
    return job_open_file(c, &about, f);
}

/* Begins the next file of the job's kind; ERR_NOTFOUND: there is no more. */
static int next_file(struct capture *c, struct saved *s, struct failure *f)
{
    while (s->next < s->count) {
        const struct crash_spool_file *file = &s->files[s->next++];
        const struct saved_file *kind = find(job_current(c)->kind, file->ending);
        if (kind)
            return begin_file(c, s, kind, file, f);
    }
    return ERR_NOTFOUND;
}

/* 0: a piece of the file was copied, or the next one began. */
static int copy_piece(struct capture *c, struct saved *s, struct failure *f)
{
    if (s->file < 0)
        return next_file(c, s, f);
    ssize_t got = read(s->file, s->piece, sizeof s->piece);
    if (got < 0)
        return fail(f, ERR_IO, "cannot read evidence of the crash");
    if (got > 0) {
        int e = evidence_write(&c->run.files[c->run.file_count - 1].evidence,
                               span_of(s->piece, (size_t)got));
        return e ? fail(f, e, "cannot keep evidence of the crash: %s", err_text(e)) : 0;
    }
    close(s->file);
    s->file = -1;
    return 0;
}

static int keep(struct capture *c, const struct job *job, struct failure *f)
{
    trawl_v1_Artifact *meta = calloc(1, sizeof *meta);
    trawl_v1_Exception *about = calloc(1, sizeof *about);
    int e = meta && about ? 0 : fail(f, ERR_NOMEM, "out of memory");
    if (!e && c->run.file_count == 0)
        e = fail(f, ERR_GONE,
                 "the process has ended, and nothing of this kind is kept of its exception on this "
                 "host: it was only counted, or had none, or what there was is gone for want of "
                 "room");
    if (!e) {
        meta->wall_us = c->settings.clock->wall_us(c->settings.clock);
        if (read_about(&c->run.saved->spool, c->run.order->order.exception.bytes, about)) {
            meta->wall_us = about->wall_us;
            job_safe_text(meta->missing, sizeof meta->missing, about->missing);
        }
        e = job_keep_files(c, job, meta, f);
    }
    free(meta);
    free(about);
    return e;
}

void saved_step(struct capture *c)
{
    struct failure f = {0};
    struct saved *s = c->run.saved;
    if (c->run.order->is_cancelled) {
        close_saved(c);
        job_drop_files(c);
        run_next_job(c);
        return;
    }
    int e = copy_piece(c, s, &f);
    if (!e) {
        uv_timer_start(&c->timer, run_timer, 0, 0);
        return;
    }
    if (e == ERR_NOTFOUND)
        e = keep(c, job_current(c), &f);
    end_job(c, e, &f);
    run_next_job(c);
}

bool saved_start(struct capture *c, const struct job *job)
{
    struct failure f = {0};
    (void)job;
    struct saved *s = calloc(1, sizeof *s);
    int e = s ? 0 : fail(&f, ERR_NOMEM, "out of memory");
    if (!e) {
        s->spool.fd = s->file = -1;
        c->run.saved = s;
        if (open_spool(c, &s->spool, &f) == 0)
            (void)crashes_find(s->spool.path, c->run.order->order.exception.bytes, s->files,
                               CRASH_FILES_MAX_LISTED, &s->count);
        f.code = 0;
        uv_timer_start(&c->timer, run_timer, 0, 0);
        return true;
    }
    end_job(c, e, &f);
    return false;
}

void saved_stop(struct capture *c)
{
    if (!c->run.saved)
        return;
    close_saved(c);
    job_drop_files(c);
}

/* ---- afterwards ---- */

/* Small files stay: what was told of a crash can be looked up on the host. */
void saved_forget(const struct capture *c, const struct order *o)
{
    static const char *const large[][2] = {{"crash", "core.zst"}, {"core", "full.zst"}};
    struct crash_spool spool;
    if (!saved_is_asked(&o->order) || open_spool(c, &spool, NULL))
        return;
    for (size_t i = 0; i < o->order.what_count; i++)
        for (size_t k = 0; k < sizeof large / sizeof large[0]; k++)
            if (strcmp(o->order.what[i], large[k][0]) == 0)
                crash_spool_remove(&spool, o->order.exception.bytes, large[k][1]);
    crash_spool_close(&spool);
}
