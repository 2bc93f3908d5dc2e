/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One LMDB environment. Invariants: default sync mode, so that what was committed is on the disk;
 * nothing read is handed out before it was found inside the map and its checksum right; an assert
 * of LMDB (a damaged page) ends the operation, not the process, and from then on nothing is served.
 * The loop's thread reads, the writer's thread writes. Called by store_lmdb_{write,read,piece}.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collector/store_lmdb.h"
#include "common/port.h"
#include "common/text.h"

#define FREE_LIST 0 /* LMDB's own tree of free pages */
#define ROWS 1      /* the main tree, the only one used */
#define HEAD_ROOM (UINT64_C(16) * 1024 * 1024)
#define LOCK_BYTES 8192 /* LMDB's table of 126 readers */
#define MAX_READ (STORE_VALUE_MAX + ROW_TRAILER_SIZE)

/* ---- LMDB's asserts ---- */

struct guard {
    jmp_buf at;
    struct guard *outer;
};
static _Thread_local struct guard *guard;

static void on_assert(MDB_env *env, const char *text)
{
    struct lmdb_env *e = mdb_env_get_userctx(env);
    struct failure why;
    fail(&why, ERR_CORRUPT,
         "'%s' is damaged: %.120s; restore it from a backup or move it away to start empty",
         e->path, text);
    lmdb_env_break(e, &why);
    if (guard)
        longjmp(guard->at, 1);
}

/* Runs one call into LMDB so that an assert in it comes back as MDB_CORRUPTED. */
#define GUARDED(rc_, call_)                   \
    do {                                      \
        struct guard here = {.outer = guard}; \
        guard = &here;                        \
        if (setjmp(here.at) == 0)             \
            (rc_) = (call_);                  \
        else                                  \
            (rc_) = MDB_CORRUPTED;            \
        guard = here.outer;                   \
    } while (0)

/*
 * An environment whose write transaction was left by longjmp cannot be freed: its cursors point
 * into a stack that is gone. It is kept, untouched, and reachable for leak checkers.
 */
struct grave {
    struct grave *next;
    MDB_env *env;
};
static struct grave *graves;

static void bury(MDB_env *env)
{
    struct grave *grave = malloc(sizeof *grave);
    if (!grave)
        return;
    *grave = (struct grave){graves, env};
    graves = grave;
}

/* ---- failures ---- */

static int translate(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_NOTFOUND:
        return ERR_NOTFOUND;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case EDQUOT:
    case EFBIG:
        return ERR_FULL;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_CURSOR_FULL:
    case MDB_BAD_TXN:
    case MDB_INVALID:
        return ERR_CORRUPT;
    case MDB_VERSION_MISMATCH:
        return ERR_VERSION;
    default:
        return rc > 0 && err_from_errno(rc) == ERR_FULL    ? ERR_FULL
               : rc > 0 && err_from_errno(rc) == ERR_NOMEM ? ERR_NOMEM
                                                           : ERR_IO;
    }
}

void lmdb_env_break(struct lmdb_env *e, const struct failure *why)
{
    pthread_mutex_lock(&e->lock);
    if (atomic_load(&e->state) != LMDB_BROKEN) {
        e->why = *why;
        e->broken_us = port_mono_us();
        atomic_store(&e->state, LMDB_BROKEN);
    }
    pthread_mutex_unlock(&e->lock);
}

int lmdb_env_failure(struct lmdb_env *e, struct failure *f)
{
    int state = atomic_load(&e->state);
    if (state == LMDB_GOOD)
        return 0;
    if (state == LMDB_REOPEN)
        return fail(f, ERR_IO, "cannot write '%s': an earlier write failed", e->path);
    pthread_mutex_lock(&e->lock);
    int code = fail(f, e->why.code, "%s", e->why.text);
    pthread_mutex_unlock(&e->lock);
    return code;
}

/* ---- open and close ---- */

int lmdb_env_init(struct lmdb_env *e, const char *what, const char *directory, uint64_t max_bytes,
                  struct failure *f)
{
    memset(e, 0, sizeof *e);
    e->what = what;
    e->max_bytes = max_bytes;
    int r = store_dir_path(e->directory, directory, what, f);
    if (r == 0)
        r = store_dir_path(e->path, e->directory, "data.mdb", f);
    if (r < 0)
        return r;
    pthread_mutex_init(&e->lock, NULL);
    atomic_store(&e->state, LMDB_BROKEN);
    return 0;
}

void lmdb_env_done(struct lmdb_env *e)
{
    lmdb_env_close(e);
    if (e->what)
        pthread_mutex_destroy(&e->lock);
    memset(e, 0, sizeof *e);
}

void lmdb_env_close(struct lmdb_env *e)
{
    if (!e->env)
        return;
    mdb_txn_abort(e->reader);
    if (e->interrupted)
        bury(e->env);
    else
        mdb_env_close(e->env);
    e->env = NULL;
    e->reader = NULL;
    e->interrupted = false;
}

/* LMDB writes its reader table through a map: a hole on a full disk would be a SIGBUS. */
static int allocate_lock(const struct lmdb_env *e, struct failure *f)
{
    char path[STORE_PATH_SIZE];
    int r = store_dir_path(path, e->directory, "lock.mdb", f);
    if (r < 0)
        return r;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int error = fd < 0 ? errno : 0;
    if (fd >= 0) {
        error = posix_fallocate(fd, 0, LOCK_BYTES);
        if (error == EOPNOTSUPP || error == EINVAL)
            error = 0;
        close(fd);
    }
    if (error)
        return fail_errno(f, err_from_errno(error), error, "cannot make '%s'", path);
    return 0;
}

/* Room above the high-water mark, so that deletes always find pages for their copies. */
static size_t map_bytes(const struct lmdb_env *e, const struct lmdb_layout *layout)
{
    uint64_t bytes = e->max_bytes + e->max_bytes / 2 + HEAD_ROOM;
    uint64_t least = layout->pages * layout->page_bytes + e->max_bytes / 2 + HEAD_ROOM;
    bytes = bytes > least ? bytes : least;
    return (size_t)((bytes + 65535) & ~UINT64_C(65535));
}

static int read_first(struct lmdb_env *e)
{
    MDB_dbi dbi;
    int rc;
    GUARDED(rc, mdb_txn_begin(e->env, NULL, MDB_RDONLY, &e->reader));
    if (rc)
        return rc;
    GUARDED(rc, mdb_dbi_open(e->reader, NULL, 0, &dbi));
    if (rc)
        return rc;
    uint64_t used, unused;
    lmdb_space(e, e->reader, &used, &unused);
    atomic_store(&e->used_bytes, used);
    mdb_txn_reset(e->reader);
    return 0;
}

static int map_env(struct lmdb_env *e, const struct lmdb_layout *layout)
{
    int rc = mdb_env_create(&e->env);
    if (rc) {
        e->env = NULL;
        return rc;
    }
    mdb_env_set_userctx(e->env, e);
    mdb_env_set_assert(e->env, on_assert);
    rc = mdb_env_set_mapsize(e->env, map_bytes(e, layout));
    if (rc == 0)
        rc = mdb_env_open(e->env, e->directory, MDB_NOTLS, 0600);
    if (rc == 0)
        rc = read_first(e);
    return rc;
}

int lmdb_env_open(struct lmdb_env *e, bool thorough, struct failure *f)
{
    struct lmdb_layout layout = {.page_bytes = (uint32_t)sysconf(_SC_PAGESIZE), .pages = 2};
    /* A file that was moved away is the way to start empty: then LMDB makes a new one. */
    bool fresh = !port_exists(e->path);
    int r = fresh ? 0 : lmdb_check(e->path, thorough, &layout, f);
    if (r == 0)
        r = allocate_lock(e, f);
    if (r < 0)
        return r;
    e->page_bytes = layout.page_bytes;
    int rc = map_env(e, &layout);
    if (rc)
        r = fail(f, translate(rc), "cannot open '%s': %s", e->path, mdb_strerror(rc));
    else if (fresh)
        r = store_dir_sync(e->directory, f);
    if (r < 0) {
        lmdb_env_close(e);
        return r;
    }
    atomic_store(&e->state, LMDB_GOOD);
    return 0;
}

void lmdb_env_reopen(struct lmdb_env *e)
{
    struct failure why;
    lmdb_env_close(e);
    atomic_store(&e->state, LMDB_REOPEN);
    if (lmdb_env_open(e, false, &why) < 0)
        lmdb_env_break(e, &why);
}

/* ---- transactions ---- */

static int begin_read(MDB_txn *txn)
{
    int rc;
    GUARDED(rc, mdb_txn_renew(txn));
    return rc;
}

int lmdb_read_begin(struct lmdb_env *e)
{
    int r = lmdb_env_failure(e, NULL);
    if (r == 0 && e->reading == 0)
        r = translate(begin_read(e->reader));
    if (r == 0)
        e->reading++;
    return r;
}

void lmdb_read_end(struct lmdb_env *e)
{
    if (--e->reading == 0)
        mdb_txn_reset(e->reader);
}

int lmdb_read_renew(struct lmdb_env *e)
{
    mdb_txn_reset(e->reader);
    return translate(begin_read(e->reader));
}

/* Keeps the reason of a write that LMDB refused. A short write is EIO to LMDB; the disk knows
 * better. */
static int write_failed(struct lmdb_env *e, int rc)
{
    int r = translate(rc);
    if (r == 0)
        return 0;
    if (atomic_load(&e->state) == LMDB_BROKEN)
        return lmdb_env_failure(e, &e->write_why);
    if (r == ERR_IO && disk_is_full(e->directory))
        r = ERR_FULL;
    e->disk_full = r == ERR_FULL && rc != MDB_MAP_FULL && rc != MDB_TXN_FULL;
    if (r == ERR_FULL)
        return fail(&e->write_why, r, "cannot write '%s': %s", e->path,
                    e->disk_full ? "the disk is full" : "it has no room left below its limit");
    return fail(&e->write_why, r, "cannot write '%s': %s", e->path, mdb_strerror(rc));
}

int lmdb_write_begin(struct lmdb_env *e, MDB_txn **out)
{
    int r = lmdb_env_failure(e, &e->write_why);
    if (r < 0)
        return r;
    int rc;
    GUARDED(rc, mdb_txn_begin(e->env, NULL, 0, out));
    if (rc == MDB_PANIC)
        atomic_store(&e->state, LMDB_REOPEN);
    return write_failed(e, rc);
}

/* An assert has left the transaction in the middle: nobody may end it. */
void lmdb_write_abort(struct lmdb_env *e, MDB_txn *txn)
{
    if (atomic_load(&e->state) == LMDB_BROKEN)
        e->interrupted = true;
    else
        mdb_txn_abort(txn);
}

static int commit_failed(struct lmdb_env *e, int rc)
{
    int r = write_failed(e, rc);
    if (atomic_load(&e->state) == LMDB_BROKEN)
        e->interrupted = true;
    else if (r == ERR_IO)
        atomic_store(&e->state, LMDB_REOPEN);
    else
        lmdb_trim(e);
    return r;
}

int lmdb_write_commit(struct lmdb_env *e, MDB_txn *txn)
{
    uint64_t used, unused;
    lmdb_space(e, txn, &used, &unused);
    int rc;
    GUARDED(rc, mdb_txn_commit(txn));
    if (rc)
        return commit_failed(e, rc);
    atomic_store(&e->used_bytes, used);
    return 0;
}

/* LMDB counts the live pages of its two trees, so this is cheap and exact. */
void lmdb_space(struct lmdb_env *e, MDB_txn *txn, uint64_t *used, uint64_t *unused)
{
    MDB_stat rows = {.ms_entries = 0}, free_list = {.ms_entries = 0};
    MDB_envinfo info;
    mdb_stat(txn, ROWS, &rows);
    mdb_stat(txn, FREE_LIST, &free_list);
    mdb_env_info(e->env, &info);
    uint64_t pages = 2 + rows.ms_branch_pages + rows.ms_leaf_pages + rows.ms_overflow_pages +
                     free_list.ms_branch_pages + free_list.ms_leaf_pages +
                     free_list.ms_overflow_pages;
    uint64_t all = info.me_last_pgno + 1;
    *used = pages * e->page_bytes;
    *unused = all > pages ? (all - pages) * e->page_bytes : 0;
}

void lmdb_trim(struct lmdb_env *e)
{
    MDB_envinfo info;
    int fd;
    if (mdb_env_info(e->env, &info) || mdb_env_get_fd(e->env, &fd))
        return;
    /* When it fails, the disk stays as full as it is. */
    if (ftruncate(fd, (off_t)((info.me_last_pgno + 1) * e->page_bytes)) < 0)
        return;
}

/* ---- rows ---- */

static MDB_val val_of(struct span s)
{
    /* LMDB only reads what it is given; its structure knows no const. */
    return (MDB_val){s.size_bytes, (void *)(uintptr_t)s.data};
}

static uint64_t key_hash(struct span key)
{
    return store_hash(key, STORE_FORMAT_VERSION);
}

static void put_le(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_le(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = bytes; i > 0; i--)
        value = value << 8 | at[i - 1];
    return value;
}

static bool is_key_hash(struct span raw, uint64_t hash)
{
    return raw.size_bytes >= ROW_TRAILER_SIZE &&
           get_le(raw.data + raw.size_bytes - 4, 4) == hash >> 32;
}

bool row_key_is_sound(struct span key, struct span raw)
{
    return is_key_hash(raw, key_hash(key));
}

int row_check(struct span key, struct span raw, struct span *value)
{
    uint64_t hash = key_hash(key);
    if (!is_key_hash(raw, hash))
        return ERR_CORRUPT;
    struct span bytes = span_of(raw.data, raw.size_bytes - ROW_TRAILER_SIZE);
    if (get_le(raw.data + bytes.size_bytes, 8) != store_hash(bytes, hash))
        return ERR_CORRUPT;
    *value = bytes;
    return 0;
}

/* What a damaged page calls a value may lie anywhere; in a write transaction also in its own pages.
 */
static int inside(const struct lmdb_env *e, const MDB_val *v, struct span *out)
{
    MDB_envinfo info;
    mdb_env_info(e->env, &info);
    uintptr_t map = (uintptr_t)info.me_mapaddr, at = (uintptr_t)v->mv_data;
    uintptr_t end = map + (info.me_last_pgno + 1) * e->page_bytes;
    if (v->mv_size > MAX_READ ||
        (at >= map && at < map + info.me_mapsize && (at >= end || v->mv_size > end - at)))
        return ERR_CORRUPT;
    *out = span_of(v->mv_data, v->mv_size);
    return 0;
}

static int count_damage(struct lmdb_env *e, int r)
{
    if (r == ERR_CORRUPT)
        atomic_fetch_add(&e->damaged, 1);
    return r;
}

int raw_get(struct lmdb_env *e, MDB_txn *txn, struct span key, struct span *value)
{
    MDB_val k = val_of(key), v = {0, NULL};
    int rc;
    GUARDED(rc, mdb_get(txn, ROWS, &k, &v));
    return rc ? translate(rc) : inside(e, &v, value);
}

static int cursor_at(struct lmdb_env *e, MDB_cursor *cursor, MDB_cursor_op op, struct span *key,
                     struct span *raw)
{
    MDB_val k = val_of(*key), v = {0, NULL};
    int rc;
    GUARDED(rc, mdb_cursor_get(cursor, &k, &v, op));
    int r = rc ? translate(rc) : inside(e, &k, key);
    return r < 0 ? r : inside(e, &v, raw);
}

/* Would the key stand here if it was whole? Then "absent" is not known. */
static int neighbour_check(struct lmdb_env *e, MDB_cursor *cursor, MDB_cursor_op op,
                           struct span key)
{
    struct span raw;
    int r = cursor_at(e, cursor, op, &key, &raw);
    if (r == ERR_NOTFOUND)
        return 0;
    /* The bytes of an artifact's piece have no trailer; their key stands in a row that has. */
    if (r == 0 && raw.size_bytes != STORE_PIECE_SIZE && !row_key_is_sound(key, raw))
        r = ERR_CORRUPT;
    return r;
}

static int absent(struct lmdb_env *e, MDB_txn *txn, struct span key)
{
    MDB_cursor *cursor;
    int r = cursor_open(e, txn, &cursor);
    if (r < 0)
        return r;
    r = neighbour_check(e, cursor, MDB_SET_RANGE, key);
    /* Behind the last row MDB_PREV gives the last one. */
    if (r == 0)
        r = neighbour_check(e, cursor, MDB_PREV, key);
    cursor_close(cursor);
    return r < 0 ? r : ERR_NOTFOUND;
}

int row_get(struct lmdb_env *e, MDB_txn *txn, struct span key, struct span *value)
{
    struct span raw;
    int r = raw_get(e, txn, key, &raw);
    if (r == 0)
        r = row_check(key, raw, value);
    else if (r == ERR_NOTFOUND)
        r = absent(e, txn, key);
    return count_damage(e, r);
}

static int reserve(struct lmdb_env *e, MDB_txn *txn, struct span key, size_t size_bytes,
                   uint8_t **room)
{
    MDB_val k = val_of(key), v = {size_bytes, NULL};
    int rc;
    GUARDED(rc, mdb_put(txn, ROWS, &k, &v, MDB_RESERVE));
    *room = v.mv_data;
    return write_failed(e, rc);
}

int row_put(struct lmdb_env *e, MDB_txn *txn, struct span key, struct span value)
{
    uint8_t *room;
    int r = reserve(e, txn, key, value.size_bytes + ROW_TRAILER_SIZE, &room);
    if (r < 0)
        return r;
    uint64_t hash = key_hash(key);
    if (value.size_bytes > 0)
        memcpy(room, value.data, value.size_bytes);
    put_le(room + value.size_bytes, store_hash(value, hash), 8);
    put_le(room + value.size_bytes + 8, hash >> 32, 4);
    return 0;
}

int raw_put(struct lmdb_env *e, MDB_txn *txn, struct span key, struct span value, size_t size_bytes)
{
    uint8_t *room;
    int r = reserve(e, txn, key, size_bytes, &room);
    if (r < 0)
        return r;
    memcpy(room, value.data, value.size_bytes);
    memset(room + value.size_bytes, 0, size_bytes - value.size_bytes);
    return 0;
}

int row_delete(struct lmdb_env *e, MDB_txn *txn, struct span key)
{
    MDB_val k = val_of(key);
    int rc;
    GUARDED(rc, mdb_del(txn, ROWS, &k, NULL));
    return rc == MDB_NOTFOUND ? 0 : write_failed(e, rc);
}

/* ---- cursors ---- */

int cursor_open(struct lmdb_env *e, MDB_txn *txn, MDB_cursor **out)
{
    (void)e;
    return translate(mdb_cursor_open(txn, ROWS, out));
}

void cursor_close(MDB_cursor *cursor)
{
    mdb_cursor_close(cursor);
}

int cursor_seek(struct lmdb_env *e, MDB_cursor *cursor, struct span from, struct span *key,
                struct span *raw)
{
    *key = from;
    return cursor_at(e, cursor, from.size_bytes ? MDB_SET_RANGE : MDB_FIRST, key, raw);
}

int cursor_next(struct lmdb_env *e, MDB_cursor *cursor, struct span *key, struct span *raw)
{
    return cursor_at(e, cursor, MDB_NEXT, key, raw);
}

static bool begins_with(struct span s, struct span prefix)
{
    return s.size_bytes >= prefix.size_bytes && memcmp(s.data, prefix.data, prefix.size_bytes) == 0;
}

static int delete_here(struct lmdb_env *e, MDB_cursor *cursor)
{
    int rc;
    GUARDED(rc, mdb_cursor_del(cursor, 0));
    return write_failed(e, rc);
}

int rows_delete(struct lmdb_env *e, MDB_txn *txn, struct span prefix, int limit)
{
    MDB_cursor *cursor;
    struct span key, raw;
    int count = 0;
    int r = cursor_open(e, txn, &cursor);
    if (r < 0)
        return r;
    r = cursor_seek(e, cursor, prefix, &key, &raw);
    while (r == 0 && count < limit && begins_with(key, prefix)) {
        r = delete_here(e, cursor);
        count++;
        if (r == 0)
            r = cursor_next(e, cursor, &key, &raw);
    }
    if (atomic_load(&e->state) != LMDB_BROKEN)
        cursor_close(cursor);
    return r == 0 || r == ERR_NOTFOUND ? count : r;
}
