/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks of files that the process holds or waits for, and who is on the other side (/proc/locks,
 * proc_locks(5)). Invariant: a lock is told only when the process is one of the two sides. Called
 * by triage.c.
 */
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define LINES_MAX 100000

/* "08:01:12345": device and inode. */
static int take_inode(struct span *line, uint64_t *out)
{
    struct span field, part, last = {0};
    if (proc_take_field(line, &field) < 0)
        return ERR_CORRUPT;
    while (text_take_until(&field, ':', &part) == 0)
        last = part;
    uint64_t inode;
    if (text_take_u64(&last, &inode) < 0 || last.size_bytes > 0)
        return ERR_CORRUPT;
    *out = inode;
    return 0;
}

static int take_id(struct span *line, uint64_t *out)
{
    struct span field;
    uint64_t id;
    if (proc_take_field(line, &field) < 0 || text_take_u64(&field, &id) < 0 ||
        !span_equal(field, span_str(":")))
        return ERR_CORRUPT;
    *out = id;
    return 0;
}

static int take_pid(struct span *line, int64_t *out)
{
    struct span field;
    uint64_t pid;
    if (proc_take_field(line, &field) < 0)
        return ERR_CORRUPT;
    if (span_equal(field, span_str("-1"))) {
        *out = -1;
        return 0;
    }
    if (text_take_u64(&field, &pid) < 0 || field.size_bytes > 0 || pid > INT32_MAX)
        return ERR_CORRUPT;
    *out = (int64_t)pid;
    return 0;
}

/* "1: -> FLOCK  ADVISORY  WRITE 999 08:01:12345 0 EOF" */
int triage_parse_lock(struct span line, struct triage_file_lock *out)
{
    struct triage_file_lock lock = {0};
    struct span field, start, end;
    if (take_id(&line, &lock.id) < 0 || proc_take_field(&line, &field) < 0)
        return ERR_CORRUPT;
    if (span_equal(field, span_str("->"))) {
        lock.waits = true;
        if (proc_take_field(&line, &field) < 0)
            return ERR_CORRUPT;
    }
    (void)text_copy_span(lock.class, sizeof lock.class, field);
    if (proc_take_field(&line, &field) < 0 || proc_take_field(&line, &field) < 0)
        return ERR_CORRUPT;
    (void)text_copy_span(lock.mode, sizeof lock.mode, field);
    if (take_pid(&line, &lock.pid) < 0 || take_inode(&line, &lock.inode) < 0 ||
        proc_take_field(&line, &start) < 0 || proc_take_field(&line, &end) < 0)
        return ERR_CORRUPT;
    (void)text_format(lock.range, sizeof lock.range, "%.*s to %.*s",
                      (int)(start.size_bytes < 20 ? start.size_bytes : 20),
                      (const char *)start.data, (int)(end.size_bytes < 20 ? end.size_bytes : 20),
                      (const char *)end.data);
    *out = lock;
    return 0;
}

/* ---- pairs ---- */

struct reading {
    struct triage *t;
    struct triage_file_lock held; /* the last that waits not */
    bool has_held, told;          /* told: alone, as held by this process */
    size_t lines, left_out;
};

static struct triage_lock_pair *add(struct reading *r)
{
    struct triage *t = r->t;
    if (t->file_lock_count == TRIAGE_LOCKS_MAX) {
        r->left_out++;
        return NULL;
    }
    struct triage_lock_pair *pair = &t->file_locks[t->file_lock_count++];
    *pair = (struct triage_lock_pair){.held = r->held};
    return pair;
}

static void add_waiter(struct reading *r, const struct triage_file_lock *waiter)
{
    struct triage *t = r->t;
    int64_t pid = t->process->pid;
    if (!r->has_held || r->held.id != waiter->id || (r->held.pid != pid && waiter->pid != pid))
        return;
    struct triage_lock_pair *pair = NULL;
    if (r->told) { /* the one that was told alone has a waiter now */
        pair = &t->file_locks[t->file_lock_count - 1];
        r->told = false;
    } else {
        pair = add(r);
    }
    if (!pair)
        return;
    pair->has_waiter = true;
    pair->waiter = *waiter;
}

static int each_line(void *context, struct span line)
{
    struct reading *r = context;
    struct triage_file_lock lock;
    if (++r->lines > LINES_MAX)
        return 1;
    if (triage_parse_lock(line, &lock) < 0)
        return 0;
    if (lock.waits) {
        add_waiter(r, &lock);
        return 0;
    }
    r->held = lock;
    r->has_held = true;
    r->told = lock.pid == (int64_t)r->t->process->pid && add(r) != NULL;
    return 0;
}

void triage_read_file_locks(struct triage *t)
{
    struct reading r = {.t = t};
    char path[PROC_PATH_SIZE];
    struct failure f;
    (void)text_format(path, sizeof path, "%s/proc/locks", t->root);
    int e = proc_each_line(path, each_line, &r, &f);
    if (e < 0 && e != ERR_GONE)
        triage_miss(t, "file locks", &f);
    if (e > 0 || r.left_out > 0)
        os_result_miss(t->result, "file locks: %zu more", r.left_out);
}
