/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evidence of one crash as files of the spool. Invariant: whatever the crashed process' files do to
 * the libraries that read them happens in a child; it ends within its time. Called by
 * crash_handler.c, without privileges (the whole core excepted: the process waits for that).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "agent/crash_private.h"
#include "agent/os/privilege.h"
#include "common/text.h"

#define DESCRIBE_US UINT64_C(20000000)
#define EVIDENCE_BYTES (UINT64_C(8) << 20) /* expected of one crash, packed */
#define EVIDENCE_SMALL_BYTES (UINT64_C(1) << 20)
#define FILE_BYTES_MAX (UINT64_C(64) << 20)
#define CHECK_BYTES (UINT64_C(4) << 20)
#define POLL_NS 2000000

void crash_note(struct os_exception *e, const char *text)
{
    size_t used = strlen(e->missing);
    (void)text_format(e->missing + used, sizeof e->missing - used, "%s%s", used ? "; " : "", text);
}

/* Under another name until it is whole. */
static void name_begun(const char *ending, char out[32])
{
    (void)text_format(out, 32, "%s" CRASH_BEGUN, ending);
}

static int make_file(const struct crash_job *job, const char *ending)
{
    char name[CRASH_NAME_SIZE], begun[32];
    name_begun(ending, begun);
    crash_spool_name(job->arguments.id, begun, name);
    (void)unlinkat(job->spool.fd, name, 0);
    int fd = openat(job->spool.fd, name,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd >= 0 && geteuid() == 0 && fchown(fd, job->spool.uid, job->spool.gid) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Closes it; it gets its name only when `rc`, and closing, say that it is whole. */
static int finish_file(const struct crash_job *job, const char *ending, int fd, int rc)
{
    char from[CRASH_NAME_SIZE], to[CRASH_NAME_SIZE], begun[32];
    name_begun(ending, begun);
    crash_spool_name(job->arguments.id, begun, from);
    crash_spool_name(job->arguments.id, ending, to);
    if (close(fd) != 0 && rc == 0)
        rc = err_from_errno(errno);
    if (rc == 0 && renameat(job->spool.fd, from, job->spool.fd, to) != 0)
        rc = err_from_errno(errno);
    if (rc)
        (void)unlinkat(job->spool.fd, from, 0);
    return rc;
}

static int put_all(int fd, struct span data)
{
    while (data.size_bytes > 0) {
        ssize_t n = write(fd, data.data, data.size_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_from_errno(errno);
        data = span_of(data.data + n, data.size_bytes - (size_t)n);
    }
    return 0;
}

/* ---- the whole core ---- */

static bool has_space(const struct crash_job *job, uint64_t need)
{
    struct statvfs fs;
    return fstatvfs(job->spool.fd, &fs) != 0 ||
           (uint64_t)fs.f_bavail * fs.f_frsize >= need + CRASH_FREE_BYTES;
}

static int put_core(void *context, struct span packed)
{
    struct crash_core *core = context;
    core->packed_bytes += packed.size_bytes;
    if (core->packed_bytes - core->checked_bytes >= CHECK_BYTES) {
        core->checked_bytes = core->packed_bytes;
        if (!has_space(core->job, CHECK_BYTES))
            return ERR_FULL;
    }
    return put_all(core->fd, packed);
}

int crash_core_open(struct crash_core *core, struct crash_job *job)
{
    *core = (struct crash_core){.job = job, .fd = -1};
    core->rc = crash_spool_room_whole(&job->spool, job->config.core_bytes);
    if (core->rc == 0 && !has_space(job, CHECK_BYTES))
        core->rc = ERR_FULL;
    if (core->rc == 0 && (core->fd = make_file(job, "full.zst")) < 0)
        core->rc = err_from_errno(errno);
    if (core->rc == 0)
        core->rc = zip_stream_open(&core->zip, 1, put_core, core);
    return core->rc;
}

void crash_core_feed(struct crash_core *core, struct span bytes)
{
    core->plain_bytes += bytes.size_bytes;
    if (core->rc == 0 && core->plain_bytes > core->job->config.core_bytes)
        core->rc = ERR_LIMIT;
    if (core->rc == 0)
        core->rc = zip_stream_feed(core->zip, bytes);
}

bool crash_core_close(struct crash_core *core)
{
    char text[160], size[32];
    if (core->rc == 0)
        core->rc = zip_stream_end(core->zip);
    zip_stream_close(core->zip);
    if (core->fd >= 0)
        core->rc = finish_file(core->job, "full.zst", core->fd, core->rc);
    if (core->rc == 0)
        return true;
    text_put_size(core->job->config.core_bytes, size, sizeof size);
    if (core->rc == ERR_LIMIT)
        (void)text_format(text, sizeof text, "the whole core: more than %s (crash-core-max)", size);
    else
        (void)text_format(text, sizeof text, "the whole core: %s", err_text(core->rc));
    crash_note(core->job->exception, text);
    return false;
}

/* ---- files ---- */

struct writer {
    struct crash_job *job;
    int fd;
    struct zip_stream *zip; /* of the small core */
    char ending[16];
    uint64_t bytes;
    bool with_core, skips;
    int rc; /* of the file that is open */
};

static int put_packed(void *context, struct span packed)
{
    return put_all(((struct writer *)context)->fd, packed);
}

static int end_file(struct writer *w)
{
    int rc = w->rc;
    if (rc == 0 && w->zip)
        rc = zip_stream_end(w->zip);
    zip_stream_close(w->zip);
    w->zip = NULL;
    if (w->fd >= 0)
        rc = finish_file(w->job, w->ending, w->fd, rc);
    w->fd = -1;
    w->rc = 0;
    return rc;
}

static int begin_file(void *context, const char *ending, struct failure *f)
{
    struct writer *w = context;
    bool is_core = strcmp(ending, "core") == 0;
    int rc = end_file(w);
    w->bytes = 0;
    w->skips = is_core && !w->with_core;
    if (rc == 0 && !w->skips) {
        text_copy(w->ending, sizeof w->ending, is_core ? "core.zst" : ending);
        w->fd = make_file(w->job, w->ending);
        rc = w->fd < 0 ? err_from_errno(errno) : 0;
    }
    if (rc == 0 && is_core && !w->skips)
        rc = w->rc = zip_stream_open(&w->zip, 1, put_packed, w);
    return rc ? fail(f, rc, "cannot write '%s': %s", ending, err_text(rc)) : 0;
}

static int write_file(void *context, struct span bytes, struct failure *f)
{
    struct writer *w = context;
    w->bytes += bytes.size_bytes;
    if (w->skips)
        return 0;
    if (w->bytes > FILE_BYTES_MAX)
        return fail(f, w->rc = ERR_LIMIT, "evidence is larger than expected");
    int rc = w->rc ? w->rc : w->zip ? zip_stream_feed(w->zip, bytes) : put_all(w->fd, bytes);
    w->rc = rc;
    return rc ? fail(f, rc, "cannot write evidence: %s", err_text(rc)) : 0;
}

/* ---- the child ---- */

/* Shared with it: what it found is there even when it dies later on. */
struct described {
    struct os_exception exception;
    struct os_result result;
    struct failure failure;
    bool done;
};

struct task {
    struct crash_job *job;
    struct described *shared;
    bool with_core;
};

static int describe(void *context)
{
    struct task *t = context;
    struct writer w = {.job = t->job, .fd = -1, .with_core = t->with_core};
    struct os_output out = {begin_file, write_file, &w};
    struct described *d = t->shared;
    d->exception = *t->job->exception;
    (void)os_crash_log(t->job->crash, &out, NULL); /* what is short of it costs only it */
    int rc = os_crash_describe(t->job->crash, &out, &d->exception, &d->result, &d->failure);
    int ended = end_file(&w);
    d->done = true;
    return rc || ended;
}

static int wait_for(struct os_worker *worker)
{
    int status = 0;
    while (os_worker_poll(worker, &status) == ERR_AGAIN)
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    return status;
}

static void adopt(struct crash_job *job, const struct described *d, int status)
{
    struct os_exception *e = job->exception;
    char text[128];
    if (d->done)
        *e = d->exception;
    if (d->result.missing[0])
        crash_note(e, d->result.missing);
    if (d->failure.code)
        crash_note(e, d->failure.text);
    job->lacks_room |= d->failure.code == ERR_FULL;
    if (status < 0) {
        (void)text_format(text, sizeof text, "frames: looking at them ended by signal %d", -status);
        crash_note(e, text);
    }
}

static void note_saved(struct crash_job *job)
{
    struct crash_spool_file files[CRASH_FILES_MAX_LISTED];
    size_t count = 0;
    struct os_exception *e = job->exception;
    (void)crashes_find(job->spool.path, job->arguments.id, files, CRASH_FILES_MAX_LISTED, &count);
    for (size_t i = 0; i < count && e->saved_count < OS_EXCEPTION_SAVED; i++)
        if (strcmp(files[i].ending, "full") != 0 && strcmp(files[i].ending, "log") != 0) {
            text_copy(e->saved[e->saved_count++], sizeof e->saved[0], "crash");
            return;
        }
}

void crash_describe(struct crash_job *job)
{
    const char *process = job->exception->process;
    struct task task = {.job = job, .with_core = true};
    struct os_worker worker;
    struct failure f = {0};
    if (crash_spool_room(&job->spool, process, EVIDENCE_BYTES)) {
        task.with_core = false;
        crash_note(job->exception, "memory: no space is left for it");
        if (crash_spool_room(&job->spool, process, EVIDENCE_SMALL_BYTES)) {
            crash_note(job->exception, "evidence: no space is left for it");
            job->lacks_room = true;
            return;
        }
    }
    task.shared =
        mmap(NULL, sizeof *task.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (task.shared == MAP_FAILED)
        return;
    if (os_worker_start(&worker, DESCRIBE_US, describe, &task, &f))
        crash_note(job->exception, f.text);
    else
        adopt(job, task.shared, wait_for(&worker));
    crash_spool_drop_begun(&job->spool, job->arguments.id);
    munmap(task.shared, sizeof *task.shared);
    note_saved(job);
}
