/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h on LMDB: opening and closing, taking work in, calling back. Invariant: every accepted job
 * is called back exactly once, on the loop's thread, from store_poll() or store_close(). How it
 * works inside is told in store_lmdb.h. Called by the collector's loop only.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "collector/store_lmdb.h"
#include "common/port.h"

#define REOPEN_US 1000000
#define ROW_OVERHEAD 64 /* about what a row takes beside key and value */
#define PIECE_WEIGHT 4  /* operations that a piece counts as in a group */

/* ---- open and close ---- */

static int open_envs(struct store *store, struct failure *f)
{
    int r = lmdb_env_open(&store->records, true, f);
    if (r == 0)
        r = lmdb_env_open(&store->pieces, true, f);
    return r;
}

/* A disk that is full at the start must not keep the collector from starting. */
static int open_on_disk(struct store *store, struct failure *f)
{
    int r = open_envs(store, f);
    if (r == ERR_FULL) {
        lmdb_env_close(&store->records);
        ballast_drop(store->dir.path);
        r = open_envs(store, f);
    }
    if (r == 0)
        store->without_ballast = ballast_put(store->dir.path, NULL) < 0;
    return r;
}

static int init(struct store *store, const struct store_settings *s, struct failure *f)
{
    store->settings = *s;
    store->settings.directory = store->dir.path;
    store->settings.fleet = NULL;
    if (store->settings.group_ops == 0)
        store->settings.group_ops = 1;
    list_init(&store->queue);
    list_init(&store->ready);
    list_init(&store->drops);
    int r = store_dir_open(&store->dir, s->directory, s->fleet, f);
    if (r == 0)
        r = lmdb_env_init(&store->records, "records", s->directory, s->records_max_bytes, f);
    if (r == 0)
        r = lmdb_env_init(&store->pieces, "pieces", s->directory, s->pieces_max_bytes, f);
    if (r == 0)
        r = open_on_disk(store, f);
    return r < 0 ? r : writer_start(store, f);
}

static void release(struct store *store)
{
    lmdb_env_done(&store->records);
    lmdb_env_done(&store->pieces);
    store_dir_close(&store->dir);
    free(store);
}

int store_open(struct store **out, const struct store_settings *settings, struct failure *f)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return fail(f, ERR_NOMEM, "cannot open '%s': out of memory", settings->directory);
    store->dir.lock = -1;
    int r = init(store, settings, f);
    if (r < 0) {
        release(store);
        return r;
    }
    *out = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    assert(!store->polling);
    store_mend(store);
    store->closed = true;
    writer_stop(store);
    store_poll(store);
    pthread_cond_destroy(&store->work);
    pthread_mutex_destroy(&store->lock);
    release(store);
}

/* ---- mending ---- */

/* Damage stays until a person comes; what an operating system refused is tried again. */
static bool should_reopen(struct lmdb_env *e)
{
    if (atomic_load(&e->state) == LMDB_REOPEN)
        return true;
    pthread_mutex_lock(&e->lock);
    bool may_heal = e->why.code != ERR_CORRUPT && e->why.code != ERR_VERSION;
    bool is_time = port_mono_us() - e->broken_us >= REOPEN_US;
    pthread_mutex_unlock(&e->lock);
    return may_heal && is_time;
}

static void mend(struct store *store, struct lmdb_env *e)
{
    if (atomic_load(&e->state) == LMDB_GOOD || e->reading > 0 || !should_reopen(e))
        return;
    lmdb_env_reopen(e);
    pthread_mutex_lock(&store->lock);
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->lock);
}

void store_mend(struct store *store)
{
    mend(store, &store->records);
    mend(store, &store->pieces);
}

/* ---- taking work in ---- */

static size_t op_bytes(const struct store_op *op)
{
    bool has_value = op->type == STORE_PUT || op->type == STORE_EXPECT;
    return op->key.size_bytes + (has_value ? op->value.size_bytes : 0);
}

static struct span copy(uint8_t **at, struct span s)
{
    struct span made = span_of(*at, s.size_bytes);
    if (s.size_bytes > 0)
        memcpy(*at, s.data, s.size_bytes);
    *at += s.size_bytes;
    return made;
}

/* Room for the job, its operations and `data_bytes` beside the name. `*data` points behind the
 * name. */
static struct job *job_make(enum job_type type, const char *name, size_t count, size_t data_bytes,
                            uint8_t **data)
{
    size_t length = strlen(name) + 1, ops_bytes = count * sizeof(struct store_op);
    size_t held_bytes = sizeof(struct job) + ops_bytes + length + data_bytes;
    struct job *job = malloc(held_bytes);
    if (!job)
        return NULL;
    memset(job, 0, sizeof *job);
    list_init(&job->link);
    job->type = type;
    job->held_bytes = held_bytes;
    job->ops = (struct store_op *)(void *)(job + 1);
    job->count = count;
    job->weight = type == JOB_PIECE ? PIECE_WEIGHT : count;
    uint8_t *at = (uint8_t *)(job + 1) + ops_bytes;
    job->name = memcpy(at, name, length);
    *data = at + length;
    return job;
}

static int submit(struct store *store, struct job *job, store_done_fn done, void *context)
{
    if (!job)
        return ERR_NOMEM;
    if (store->closed) {
        free(job);
        return ERR_CLOSED;
    }
    if (store->queued_bytes + job->held_bytes > store->settings.queue_bytes) {
        free(job);
        return ERR_BUSY;
    }
    job->done = done;
    job->context = context;
    store->queued_bytes += job->held_bytes;
    pthread_mutex_lock(&store->lock);
    bool was_empty = list_empty(&store->queue);
    list_push(&store->queue, &job->link);
    store->queued_weight += job->weight;
    store->arrivals++;
    if (was_empty || store->queued_weight >= store->settings.group_ops)
        pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->lock);
    return 0;
}

static int ops_check(const char *partition, const struct store_op *ops, size_t count,
                     size_t *data_bytes)
{
    size_t length = strlen(partition) + 1, bytes = 0;
    if (count == 0 || count > STORE_OPS_MAX || length == 1)
        return ERR_LIMIT;
    for (size_t i = 0; i < count; i++) {
        if (length + ops[i].key.size_bytes > STORE_KEY_MAX)
            return ERR_LIMIT;
        if (op_bytes(&ops[i]) - ops[i].key.size_bytes > STORE_VALUE_MAX)
            return ERR_LIMIT;
        bytes += op_bytes(&ops[i]);
    }
    *data_bytes = bytes;
    return 0;
}

int kv_commit(struct store *store, const char *partition, const struct store_op *ops, size_t count,
              store_done_fn done, void *context)
{
    size_t data_bytes;
    uint8_t *at;
    store_mend(store);
    int r = ops_check(partition, ops, count, &data_bytes);
    if (r < 0)
        return r;
    if (store->queued_bytes + data_bytes > store->settings.queue_bytes)
        return ERR_BUSY;
    struct job *job = job_make(JOB_COMMIT, partition, count, data_bytes, &at);
    for (size_t i = 0; job && i < count; i++) {
        job->ops[i] = (struct store_op){.type = ops[i].type, .key = copy(&at, ops[i].key)};
        if (ops[i].type == STORE_PUT || ops[i].type == STORE_EXPECT)
            job->ops[i].value = copy(&at, ops[i].value);
        if (ops[i].type == STORE_PUT)
            job->put_bytes += op_bytes(&ops[i]) + strlen(partition) + ROW_OVERHEAD;
    }
    return submit(store, job, done, context);
}

int part_drop(struct store *store, const char *partition, store_done_fn done, void *context)
{
    uint8_t *at;
    store_mend(store);
    if (partition[0] == '\0' || strlen(partition) + 1 > STORE_KEY_MAX)
        return ERR_LIMIT;
    return submit(store, job_make(JOB_DROP, partition, 0, 0, &at), done, context);
}

/* Behind the name come a zero, the kind and 4 bytes of a piece's number. */
static int id_check(const char *id)
{
    return id[0] == '\0' || strlen(id) + 1 + 5 > STORE_KEY_MAX ? ERR_LIMIT : 0;
}

int blob_write(struct store *store, const char *id, uint32_t piece, struct span bytes,
               store_done_fn done, void *context)
{
    uint8_t *at;
    store_mend(store);
    if (id_check(id) < 0 || bytes.size_bytes == 0 || bytes.size_bytes > STORE_PIECE_SIZE)
        return ERR_LIMIT;
    struct job *job = job_make(JOB_PIECE, id, 0, bytes.size_bytes, &at);
    if (job) {
        job->piece = piece;
        job->bytes = copy(&at, bytes);
        job->put_bytes = STORE_PIECE_SIZE + 4 * ROW_OVERHEAD + 4 * strlen(id);
    }
    return submit(store, job, done, context);
}

int blob_seal(struct store *store, const char *id, const uint8_t sha256[32], uint64_t size_bytes,
              store_done_fn done, void *context)
{
    uint8_t *at;
    store_mend(store);
    if (id_check(id) < 0)
        return ERR_LIMIT;
    struct job *job = job_make(JOB_SEAL, id, 0, 0, &at);
    if (job) {
        memcpy(job->sha256, sha256, sizeof job->sha256);
        job->size_bytes = size_bytes;
        job->put_bytes = 2 * ROW_OVERHEAD + strlen(id);
    }
    return submit(store, job, done, context);
}

int blob_delete(struct store *store, const char *id, store_done_fn done, void *context)
{
    uint8_t *at;
    store_mend(store);
    if (id_check(id) < 0)
        return ERR_LIMIT;
    return submit(store, job_make(JOB_BLOB_DELETE, id, 0, 0, &at), done, context);
}

/* ---- calling back ---- */

static void call_back(struct store *store, struct job *job)
{
    store->queued_bytes -= job->held_bytes;
    if (job->done)
        job->done(job->context, &job->why);
    free(job);
}

void store_poll(struct store *store)
{
    if (store->polling)
        return;
    store->polling = true;
    store_mend(store);
    for (;;) {
        pthread_mutex_lock(&store->lock);
        struct list *link = list_first(&store->ready);
        if (link)
            list_remove(link);
        pthread_mutex_unlock(&store->lock);
        if (!link)
            break;
        call_back(store, LIST_ENTRY(link, struct job, link));
    }
    store->polling = false;
}

void store_stat(struct store *store, struct store_stat *out)
{
    *out = (struct store_stat){
        .records_used_bytes = atomic_load(&store->records.used_bytes),
        .records_max_bytes = store->records.max_bytes,
        .pieces_used_bytes = atomic_load(&store->pieces.used_bytes),
        .pieces_max_bytes = store->pieces.max_bytes,
        .commits = atomic_load(&store->commits),
        .ops = atomic_load(&store->ops),
        .queued_bytes = store->queued_bytes,
        .damaged = atomic_load(&store->records.damaged) + atomic_load(&store->pieces.damaged),
        .refused_full = atomic_load(&store->refused_full),
    };
}
