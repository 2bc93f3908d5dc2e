/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer thread. It takes what was accepted, in order, as one group; writes the pieces of the
 * group in one transaction, then its records in another (so that a record never stands without the
 * pieces it names); then hands the jobs back for their callbacks. Invariant: a job is handed back
 * with 0 only after its transaction was committed, and exactly once. When a group fails, its jobs
 * are tried one by one, so that what still fits gets through. Drops go on beside the groups, a few
 * rows in each, and hold up only what comes later for the same name. Started and stopped by
 * store_lmdb.c.
 */
#include <string.h>
#include <time.h>

#include "collector/store_lmdb.h"
#include "common/port.h"
#include "common/text.h"

#define QUIET_NS 500000 /* nothing came for so long: no use in waiting on */
#define GROUP_BYTES (16u * 1024 * 1024)
#define BALLAST_TRY_US 1000000
#define FULL_RESERVE (UINT64_C(4) * 1024 * 1024) /* free pages kept for deletes on a full disk */

/* ---- what a job does in a transaction ---- */

static bool is_piece(const struct job *job)
{
    return job->type == JOB_PIECE || job->type == JOB_SEAL || job->type == JOB_BLOB_DELETE;
}

static struct lmdb_env *env_of(struct store *store, const struct job *job)
{
    return is_piece(job) ? &store->pieces : &store->records;
}

static int expect_one(struct lmdb_env *e, struct MDB_txn *txn, struct job *job,
                      const struct store_op *op)
{
    struct row_key key;
    struct span value;
    int r = row_key_make(&key, job->name, op->key);
    if (r == 0)
        r = row_get(e, txn, row_key_span(&key), &value);
    if (r == ERR_NOTFOUND && op->type == STORE_EXPECT_ABSENT)
        return 0;
    if (r == 0 && op->type == STORE_EXPECT && span_equal(value, op->value))
        return 0;
    if (r == 0 || r == ERR_NOTFOUND)
        return fail(&job->why, ERR_CONFLICT, "a row of '%s' was changed by someone else",
                    job->name);
    return fail(&job->why, r, "cannot read a row of '%s' in '%s': %s", job->name, e->path,
                err_text(r));
}

static int expect_all(struct lmdb_env *e, struct MDB_txn *txn, struct job *job)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < job->count; i++) {
        if (job->ops[i].type == STORE_EXPECT || job->ops[i].type == STORE_EXPECT_ABSENT)
            r = expect_one(e, txn, job, &job->ops[i]);
    }
    return r;
}

static int change_one(struct lmdb_env *e, struct MDB_txn *txn, struct job *job,
                      const struct store_op *op)
{
    struct row_key key;
    int r = row_key_make(&key, job->name, op->key);
    if (r == 0 && op->type == STORE_PUT)
        r = row_put(e, txn, row_key_span(&key), op->value);
    else if (r == 0 && op->type == STORE_DELETE)
        r = row_delete(e, txn, row_key_span(&key));
    return r;
}

static int commit_apply(struct lmdb_env *e, struct MDB_txn *txn, struct job *job)
{
    if (expect_all(e, txn, job) < 0)
        return 0;
    int r = 0;
    for (size_t i = 0; r == 0 && i < job->count; i++)
        r = change_one(e, txn, job, &job->ops[i]);
    return r;
}

/* While there is no ballast, only what fits into free pages of the file may be put. */
static bool disk_has_room(struct store *store, const struct job *job, uint64_t unused)
{
    if (!store->without_ballast || unused >= 4 * job->put_bytes + FULL_RESERVE)
        return true;
    uint64_t now = port_mono_us();
    if (now - store->ballast_tried_us < BALLAST_TRY_US)
        return false;
    store->ballast_tried_us = now;
    store->without_ballast = !ballast_restore(store->dir.path);
    return !store->without_ballast;
}

static int refuse_full(struct store *store, struct lmdb_env *e, struct MDB_txn *txn,
                       struct job *job)
{
    uint64_t used, unused;
    if (job->put_bytes == 0)
        return 0;
    lmdb_space(e, txn, &used, &unused);
    if (used + job->put_bytes > e->max_bytes) {
        char limit[32];
        text_put_size(e->max_bytes, limit, sizeof limit);
        fail(&job->why, ERR_FULL,
             "no space left in '%s': its limit is %s; delete incidents or raise the limit",
             e->directory, limit);
    } else if (!disk_has_room(store, job, unused)) {
        fail(&job->why, ERR_FULL, "no space left on the disk of '%s'; make room there",
             e->directory);
    }
    return job->why.code;
}

/* A negative result ends the transaction; a refusal stands in job->why and has changed nothing. */
static int apply(struct store *store, struct lmdb_env *e, struct MDB_txn *txn, struct job *job)
{
    if (refuse_full(store, e, txn, job) < 0)
        return 0;
    switch (job->type) {
    case JOB_COMMIT:
        return commit_apply(e, txn, job);
    case JOB_PIECE:
        return piece_put(e, txn, job);
    case JOB_SEAL:
        return piece_seal(e, txn, job);
    case JOB_DROP:
    case JOB_BLOB_DELETE:
        break;
    }
    return ERR_INVALID;
}

/* ---- transactions ---- */

/* One environment's part of a group. */
struct part {
    struct store *store;
    struct lmdb_env *e;
    struct list *jobs; /* of both environments */
    struct job *drop;  /* NULL, or what some rows of are deleted at the end */
    bool drop_ended;
};

/* 0, or negative after the whole transaction was ended. */
static int drop_some(struct part *p, struct MDB_txn *txn)
{
    struct row_key key;
    int r;
    if (p->drop->type == JOB_BLOB_DELETE) {
        r = piece_delete(p->e, txn, p->drop->name, STORE_DELETES_MAX);
    } else {
        r = row_key_make(&key, p->drop->name, span_of(NULL, 0));
        if (r == 0)
            r = rows_delete(p->e, txn, row_key_span(&key), STORE_DELETES_MAX);
    }
    p->drop_ended = r >= 0 && r < STORE_DELETES_MAX;
    return r < 0 ? r : 0;
}

static int end(struct part *p, struct MDB_txn *txn, int r, size_t ops)
{
    if (r < 0) {
        lmdb_write_abort(p->e, txn);
        return r;
    }
    r = lmdb_write_commit(p->e, txn);
    if (r == 0) {
        atomic_fetch_add(&p->store->commits, 1);
        atomic_fetch_add(&p->store->ops, ops);
    }
    return r;
}

static int run_together(struct part *p)
{
    struct MDB_txn *txn;
    size_t ops = 0;
    int r = lmdb_write_begin(p->e, &txn);
    if (r < 0)
        return r;
    LIST_EACH (link, p->jobs) {
        struct job *job = LIST_ENTRY(link, struct job, link);
        if (r == 0 && env_of(p->store, job) == p->e) {
            r = apply(p->store, p->e, txn, job);
            ops += job->count;
        }
    }
    if (r == 0 && p->drop)
        r = drop_some(p, txn);
    return end(p, txn, r, ops);
}

static int run_one(struct part *p, struct job *job)
{
    struct MDB_txn *txn;
    int r = lmdb_write_begin(p->e, &txn);
    if (r == 0) {
        r = job == p->drop ? drop_some(p, txn) : apply(p->store, p->e, txn, job);
        if (r == 0 && job->why.code < 0)
            lmdb_write_abort(p->e, txn);
        else
            r = end(p, txn, r, job->count);
    }
    if (r < 0) {
        job->why = p->e->write_why;
        job->why.code = r;
    }
    return r;
}

/* The disk has no room: gives the ballast up, once, so that deletes get some. */
static void after_failure(struct part *p, int r)
{
    if (r != ERR_FULL || !p->e->disk_full)
        return;
    ballast_drop(p->store->dir.path);
    p->store->without_ballast = true;
    p->store->ballast_tried_us = port_mono_us();
}

static void run_apart(struct part *p)
{
    LIST_EACH (link, p->jobs) {
        struct job *job = LIST_ENTRY(link, struct job, link);
        if (env_of(p->store, job) == p->e) {
            job->why.code = 0;
            after_failure(p, run_one(p, job));
        }
    }
    if (p->drop && run_one(p, p->drop) < 0)
        p->drop_ended = true;
}

static bool has_work(const struct part *p)
{
    LIST_EACH (link, p->jobs) {
        if (env_of(p->store, LIST_ENTRY(link, struct job, link)) == p->e)
            return true;
    }
    return p->drop != NULL;
}

/* After a failed write nothing is known of the transaction: it is not tried again. */
static void fail_all(struct part *p)
{
    LIST_EACH (link, p->jobs) {
        struct job *job = LIST_ENTRY(link, struct job, link);
        if (env_of(p->store, job) == p->e)
            job->why = p->e->write_why;
    }
    if (p->drop) {
        p->drop->why = p->e->write_why;
        p->drop_ended = true;
    }
}

static struct job *first_drop(struct store *store, const struct lmdb_env *e)
{
    LIST_EACH (link, &store->drops) {
        struct job *job = LIST_ENTRY(link, struct job, link);
        if (env_of(store, job) == e)
            return job;
    }
    return NULL;
}

/* A drop that has ended joins the group, to be handed back with it. */
static void run_part(struct store *store, struct lmdb_env *e, struct list *jobs)
{
    struct part p = {store, e, jobs, first_drop(store, e), false};
    if (!has_work(&p))
        return;
    int r = run_together(&p);
    if (r < 0) {
        after_failure(&p, r);
        if (r == ERR_IO || atomic_load(&e->state) != LMDB_GOOD)
            fail_all(&p);
        else
            run_apart(&p);
    }
    if (p.drop_ended) {
        list_remove(&p.drop->link);
        list_push(jobs, &p.drop->link);
    }
}

/* ---- the thread ---- */

/* Must it wait for a drop of its partition or artifact? */
static bool is_held_up(struct store *store, const struct job *job)
{
    LIST_EACH (link, &store->drops) {
        const struct job *drop = LIST_ENTRY(link, struct job, link);
        if (is_piece(drop) == is_piece(job) && strcmp(drop->name, job->name) == 0)
            return true;
    }
    return false;
}

static void take_group(struct store *store, struct list *group)
{
    size_t weight = 0, bytes = 0;
    while (!list_empty(&store->queue) && weight < store->settings.group_ops &&
           bytes < GROUP_BYTES) {
        struct job *job = LIST_ENTRY(list_first(&store->queue), struct job, link);
        if (is_held_up(store, job))
            return;
        bool drops = job->type == JOB_DROP || job->type == JOB_BLOB_DELETE;
        list_remove(&job->link);
        list_push(drops ? &store->drops : group, &job->link);
        store->queued_weight -= job->weight;
        weight += job->weight;
        bytes += job->held_bytes;
    }
}

static struct timespec after(struct timespec t, uint64_t ns)
{
    ns += (uint64_t)t.tv_nsec;
    t.tv_sec += (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    return t;
}

static bool is_before(struct timespec a, struct timespec b)
{
    return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

/* Until the group is full, group_us have passed, or nothing more comes. */
static void gather(struct store *store)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct timespec last = after(now, (uint64_t)store->settings.group_us * 1000);
    while (store->queued_weight < store->settings.group_ops && !store->closing &&
           is_before(now, last)) {
        size_t arrivals = store->arrivals;
        struct timespec quiet = after(now, QUIET_NS);
        quiet = is_before(last, quiet) ? last : quiet;
        pthread_cond_timedwait(&store->work, &store->lock, &quiet);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (arrivals == store->arrivals && !is_before(now, quiet))
            return;
    }
}

static bool waits_for_reopen(struct store *store)
{
    return atomic_load(&store->records.state) == LMDB_REOPEN ||
           atomic_load(&store->pieces.state) == LMDB_REOPEN;
}

/* False when there is nothing left and the store closes. */
static bool await_group(struct store *store, struct list *group)
{
    pthread_mutex_lock(&store->lock);
    while (!store->closing &&
           ((list_empty(&store->queue) && list_empty(&store->drops)) || waits_for_reopen(store)))
        pthread_cond_wait(&store->work, &store->lock);
    if (list_empty(&store->drops) && !list_empty(&store->queue))
        gather(store);
    take_group(store, group);
    bool more = !list_empty(group) || !list_empty(&store->drops);
    pthread_mutex_unlock(&store->lock);
    return more;
}

static void hand_back(struct store *store, struct list *group)
{
    if (list_empty(group))
        return;
    pthread_mutex_lock(&store->lock);
    for (struct list *link; (link = list_first(group));) {
        struct job *job = LIST_ENTRY(link, struct job, link);
        if (job->why.code == ERR_FULL)
            atomic_fetch_add(&store->refused_full, 1);
        list_remove(link);
        list_push(&store->ready, link);
    }
    pthread_mutex_unlock(&store->lock);
    store->settings.wake(store->settings.context);
}

static void *writer_run(void *context)
{
    struct store *store = context;
    struct list group;
    list_init(&group);
    while (await_group(store, &group)) {
        run_part(store, &store->pieces, &group);
        run_part(store, &store->records, &group);
        hand_back(store, &group);
    }
    return NULL;
}

int writer_start(struct store *store, struct failure *f)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->work, &attributes);
    pthread_condattr_destroy(&attributes);
    int e = pthread_create(&store->writer, NULL, writer_run, store);
    if (e == 0)
        return 0;
    pthread_cond_destroy(&store->work);
    pthread_mutex_destroy(&store->lock);
    return fail_errno(f, err_from_errno(e), e, "cannot start the writer thread");
}

void writer_stop(struct store *store)
{
    pthread_mutex_lock(&store->lock);
    store->closing = true;
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->lock);
    pthread_join(store->writer, NULL);
}
