/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to collector/store_lmdb*.c: the LMDB implementation of store.h, from the bottom up.
 *
 *   store_lmdb_check.c  is a data file sound? looked at before it is mapped
 *   store_lmdb_env.c    one LMDB environment: open, transactions, LMDB's asserts as errors
 *   store_lmdb_row.c    rows with their checksums, cursors
 *   store_lmdb_dir.c    the data directory: format and fleet, the lock, the ballast file
 *   store_lmdb_piece.c  artifacts as rows of the second environment
 *   store_lmdb_write.c  the writer thread: group commit, what to do when something is full
 *   store_lmdb_read.c   reads, on the loop's thread
 *   store_lmdb.c        open, close, submit, poll
 *
 * Rows: "<partition>\0<key>" -> value, 8 bytes XXH64 of the value seeded by the key's hash, 4 bytes
 * of the key's hash, all little-endian. So a row under a wrong key is damaged, and whether a key
 * itself is right can be told without its value.
 */
#ifndef TRAWL_COLLECTOR_STORE_LMDB_H
#define TRAWL_COLLECTOR_STORE_LMDB_H

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>

#include "collector/store.h"
#include "common/list.h"
#include "common/xxh64.h"

#define STORE_FORMAT_VERSION 1
#define STORE_PATH_SIZE 512 /* data directory with a file name */
#define STORE_OPS_MAX 1000
#define STORE_DELETES_MAX 64 /* rows deleted in one transaction of a drop: FACTS.md, LMDB */
#define STORE_READ_US 100000
#define ROW_TRAILER_SIZE 12

#define LMDB_ROWS 1 /* the main tree, the only one used */

struct MDB_env;
struct MDB_txn;
struct MDB_cursor;

/* ---- LMDB's asserts ---- */

struct lmdb_guard {
    jmp_buf at;
    struct lmdb_guard *outer;
};
extern _Thread_local struct lmdb_guard *lmdb_guard;

/* Runs one call into LMDB so that an assert in it comes back as MDB_CORRUPTED. */
#define GUARDED(rc_, call_)                             \
    do {                                                \
        struct lmdb_guard here = {.outer = lmdb_guard}; \
        lmdb_guard = &here;                             \
        if (setjmp(here.at) == 0)                       \
            (rc_) = (call_);                            \
        else                                            \
            (rc_) = MDB_CORRUPTED;                      \
        lmdb_guard = here.outer;                        \
    } while (0)

/* ---- soundness of a data file ---- */

struct lmdb_layout {
    uint32_t page_bytes;
    uint64_t pages; /* used by the newer of the two meta pages */
};
/*
 * Reads the meta pages, compares the file's size with them and, when `thorough`, walks the trees
 * for at most 2 s: every page of the right kind, keys in order, nothing used twice or both free and
 * used. ERR_CORRUPT names the file, the fault and the remedy. ERR_NOTFOUND: there is no file.
 */
int lmdb_check(const char *path, bool thorough, struct lmdb_layout *out, struct failure *f);

/* ---- one environment ---- */

enum lmdb_state {
    LMDB_GOOD,
    LMDB_REOPEN, /* a commit failed in the middle: the loop's thread opens it anew */
    LMDB_BROKEN, /* nothing is served; `why` says the reason */
};

struct lmdb_env {
    const char *what; /* "records", "pieces" */
    char directory[STORE_PATH_SIZE];
    char path[STORE_PATH_SIZE];
    uint64_t max_bytes;
    uint32_t page_bytes;
    struct MDB_env *env;
    struct MDB_txn *reader;   /* the loop thread's, reset while not in use */
    unsigned reading;         /* nested reads share one snapshot */
    bool interrupted;         /* a write transaction was left by an assert: env cannot be freed */
    bool disk_full;           /* writer's: the last ERR_FULL was the disk's, not the map's */
    struct failure write_why; /* writer's: of the last write that LMDB refused */
    atomic_int state;
    pthread_mutex_t lock; /* of `why` and `broken_us` */
    struct failure why;
    uint64_t broken_us;              /* since when */
    atomic_uint_fast64_t used_bytes; /* live pages at the last commit */
    atomic_uint_fast64_t damaged;    /* rows found damaged */
};

int lmdb_env_init(struct lmdb_env *e, const char *what, const char *directory, uint64_t max_bytes,
                  struct failure *f);
int lmdb_env_open(struct lmdb_env *e, bool thorough, struct failure *f);
void lmdb_env_close(struct lmdb_env *e);
void lmdb_env_done(struct lmdb_env *e);
/* The loop's thread, while no read is under way: opens anew what no longer is LMDB_GOOD. */
void lmdb_env_reopen(struct lmdb_env *e);
void lmdb_env_break(struct lmdb_env *e, const struct failure *why);

/* The error for a code of LMDB; of a write, with its reason kept in e->write_why. */
int lmdb_translate(int rc);
int lmdb_write_failed(struct lmdb_env *e, int rc);

/* Reads, on the loop's thread; may nest. */
int lmdb_read_begin(struct lmdb_env *e);
void lmdb_read_end(struct lmdb_env *e);
/* Ends the snapshot and takes a newer one; for reads that last. Only when not nested. */
int lmdb_read_renew(struct lmdb_env *e);

/* Writes, on the writer's thread. A failed commit has ended the transaction. */
int lmdb_write_begin(struct lmdb_env *e, struct MDB_txn **out);
int lmdb_write_commit(struct lmdb_env *e, struct MDB_txn *txn);
void lmdb_write_abort(struct lmdb_env *e, struct MDB_txn *txn);
/* Live and free bytes of the file as the transaction sees them. */
void lmdb_space(struct lmdb_env *e, struct MDB_txn *txn, uint64_t *used, uint64_t *unused);
/* Gives back to the disk what an aborted transaction wrote behind the last committed page. */
void lmdb_trim(struct lmdb_env *e);

/* ---- rows ---- */

/* 0, or ERR_CORRUPT; *value is without the trailer. */
int row_check(struct span key, struct span raw, struct span *value);
bool row_key_is_sound(struct span key, struct span raw);
/* ERR_NOTFOUND only when the rows beside the place are sound: a damaged key hides nothing. */
int row_get(struct lmdb_env *e, struct MDB_txn *txn, struct span key, struct span *value);
int row_put(struct lmdb_env *e, struct MDB_txn *txn, struct span key, struct span value);
int row_delete(struct lmdb_env *e, struct MDB_txn *txn, struct span key); /* 0 when absent */
/* Without trailer: exactly `size_bytes` stored, padded with zeros. Of raw_get every size is given.
 */
int raw_put(struct lmdb_env *e, struct MDB_txn *txn, struct span key, struct span value,
            size_t size_bytes);
int raw_get(struct lmdb_env *e, struct MDB_txn *txn, struct span key, struct span *value);

int cursor_open(struct lmdb_env *e, struct MDB_txn *txn, struct MDB_cursor **out);
void cursor_close(struct MDB_cursor *cursor);
/* First row with a key >= `from`, the next one. ERR_NOTFOUND at the end. `raw` has its trailer. */
int cursor_seek(struct lmdb_env *e, struct MDB_cursor *cursor, struct span from, struct span *key,
                struct span *raw);
int cursor_next(struct lmdb_env *e, struct MDB_cursor *cursor, struct span *key, struct span *raw);
/* Deletes rows whose keys begin with `prefix`, at most `limit`; returns how many, or an error. */
int rows_delete(struct lmdb_env *e, struct MDB_txn *txn, struct span prefix, int limit);

/* ---- the data directory ---- */

struct store_dir {
    char path[STORE_PATH_SIZE];
    int lock; /* flock(2) is held while it is open; -1 */
};
int store_dir_path(char *out, const char *directory, const char *name, struct failure *f);
/* A new file is on the disk only when its directory is. */
int store_dir_sync(const char *directory, struct failure *f);
int store_dir_open(struct store_dir *dir, const char *directory, const char *fleet,
                   struct failure *f);
void store_dir_close(struct store_dir *dir);
int ballast_put(const char *directory, struct failure *f); /* fine when it is there */
/* As ballast_put, when the disk has room for it and some more; true when it is there. */
bool ballast_restore(const char *directory);
void ballast_drop(const char *directory);
bool disk_is_full(const char *directory);

/* ---- work ---- */

enum job_type { JOB_COMMIT, JOB_PIECE, JOB_SEAL, JOB_DROP, JOB_BLOB_DELETE };

/* One accepted call, with copies of everything behind it in the same allocation. */
struct job {
    struct list link;
    enum job_type type;
    store_done_fn done;
    void *context;
    struct failure why;
    size_t held_bytes;
    const char *name; /* partition or artifact */
    struct store_op *ops;
    size_t count;
    size_t weight;      /* towards a full group */
    uint64_t put_bytes; /* 0: it only deletes */
    uint32_t piece;
    struct span bytes;
    uint8_t sha256[32];
    uint64_t size_bytes;
};

struct store {
    struct store_settings settings;
    struct store_dir dir;
    struct lmdb_env records, pieces;
    uint64_t queued_bytes; /* loop's: held by jobs whose callback was not called */
    bool polling;          /* in store_poll() */
    bool closed;
    pthread_t writer;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work;
    struct list queue, ready; /* accepted; finished */
    size_t queued_weight, arrivals;
    bool closing;
    struct list drops;         /* writer's: drops under way; later jobs for their names wait */
    bool without_ballast;      /* writer's */
    uint64_t ballast_tried_us; /* writer's */
    atomic_uint_fast64_t commits, ops, refused_full;
};

/* The key of a row: "<name>\0<key>". ERR_LIMIT. */
struct row_key {
    uint8_t bytes[STORE_KEY_MAX + 1];
    size_t size_bytes;
};
int row_key_make(struct row_key *out, const char *name, struct span key);
struct span row_key_span(const struct row_key *key);

/* Pieces: "<id>\0s" state, "<id>\0c<no>" length and checksum, "<id>\0p<no>" the bytes. */
int piece_state_get(struct lmdb_env *e, struct MDB_txn *txn, const char *id,
                    struct blob_state *out);
/* Refused by what is there: 0 with job->why set, nothing changed. Negative: end the transaction. */
int piece_put(struct lmdb_env *e, struct MDB_txn *txn, struct job *job);
int piece_seal(struct lmdb_env *e, struct MDB_txn *txn, struct job *job);
int piece_get(struct lmdb_env *e, struct MDB_txn *txn, const char *id, uint32_t piece,
              struct span *value);
int piece_delete(struct lmdb_env *e, struct MDB_txn *txn, const char *id, int limit);

int writer_start(struct store *store, struct failure *f);
void writer_stop(struct store *store); /* after everything accepted was done */
/* Opens anew what a failed commit has closed. Called by every function on the loop's thread. */
void store_mend(struct store *store);

#endif
