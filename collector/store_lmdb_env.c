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

_Thread_local struct lmdb_guard *lmdb_guard;

static void on_assert(MDB_env *env, const char *text)
{
    struct lmdb_env *e = mdb_env_get_userctx(env);
    struct failure why;
    fail(&why, ERR_CORRUPT,
         "'%s' is damaged: %.120s; restore it from a backup or move it away to start empty",
         e->path, text);
    lmdb_env_break(e, &why);
    if (lmdb_guard)
        longjmp(lmdb_guard->at, 1);
}

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

int lmdb_translate(int rc)
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

static int lmdb_env_failure(struct lmdb_env *e, struct failure *f)
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
        r = fail(f, lmdb_translate(rc), "cannot open '%s': %s", e->path, mdb_strerror(rc));
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
        r = lmdb_translate(begin_read(e->reader));
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
    return lmdb_translate(begin_read(e->reader));
}

/* A short write is EIO to LMDB; the disk knows
 * better. */
int lmdb_write_failed(struct lmdb_env *e, int rc)
{
    int r = lmdb_translate(rc);
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
    return lmdb_write_failed(e, rc);
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
    int r = lmdb_write_failed(e, rc);
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
    mdb_stat(txn, LMDB_ROWS, &rows);
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
