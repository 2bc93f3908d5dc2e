/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the collector keeps everything: records in partitions, artifacts as pieces. Small and
 * asynchronous, so that an embedded engine and a distributed one both fit. Callers may rely on
 * nothing else than what stands here:
 *
 * - A commit is atomic within its one partition. `done` with 0 means: survives kill -9 and power
 * cut.
 * - Commits of one caller are applied in the order given; `done` calls come in that order.
 * - ERR_CONFLICT: an expectation did not hold, nothing was changed. ERR_FULL: at the high-water
 * mark or the disk is full, nothing was changed. ERR_IO after a lost answer may mean "unknown":
 * every operation is idempotent, so the caller may repeat it.
 * - Reads see every commit whose `done` was called. Values were checked by their checksum:
 *   ERR_CORRUPT for a damaged one (it is skipped by scans and counted), never wrong bytes.
 * - Spans are borrowed: copied by writes before they return, valid during a read's callback only.
 *
 * All functions are called on one thread (the loop's). Work is done elsewhere; `wake` (any thread)
 * says that store_poll() should be called on the loop to run the callbacks. Reads may call back
 * before they return. Keys within a partition sort as bytes; partition names are text without
 * zeros.
 */
#ifndef TRAWL_COLLECTOR_STORE_H
#define TRAWL_COLLECTOR_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

#define STORE_KEY_MAX 255 /* partition + key + 1 */
#define STORE_VALUE_MAX (64 * 1024)
#define STORE_PIECE_SIZE 65520 /* every piece but an artifact's last has exactly this size */

struct store;

struct store_settings {
    const char *directory;
    const char *fleet; /* a directory of another fleet is refused (ERR_FOREIGN) */
    uint64_t
        records_max_bytes; /* high-water mark: writes but deletes are refused above (ERR_FULL) */
    uint64_t pieces_max_bytes;
    uint32_t group_us;    /* a group commit waits at most this long for more: 10,000 */
    uint32_t group_ops;   /* or for this many: 1,000 */
    uint32_t queue_bytes; /* uncommitted data held in memory at most: 64 MiB, then ERR_BUSY */
    void (*wake)(void *context);
    void *context;
};

/* Makes a new, empty data directory (format version, fleet). ERR_EXISTS when there is one. */
int store_create(const char *directory, const char *fleet, struct failure *f);
/*
 * Opens; checks format version (ERR_VERSION: of a newer version), fleet (ERR_FOREIGN), lock
 * (ERR_BUSY: another collector runs on it), file sizes and headers before mapping (ERR_CORRUPT
 * names the file and the remedy). ERR_NOTFOUND: no data directory there.
 */
int store_open(struct store **out, const struct store_settings *settings, struct failure *f);
/* Commits what was accepted, calls the outstanding callbacks, frees. NULL is fine. */
void store_close(struct store *store);
/* Runs the callbacks of finished work. Call after `wake`, on the loop. */
void store_poll(struct store *store);

enum store_op_type { STORE_PUT, STORE_DELETE, STORE_EXPECT, STORE_EXPECT_ABSENT };
struct store_op {
    enum store_op_type type;
    struct span key;
    struct span value; /* STORE_PUT, STORE_EXPECT */
};
/* why->code is 0 when it is done. */
typedef void (*store_done_fn)(void *context, const struct failure *why);

/* Up to 1,000 operations, all or none. ERR_BUSY (queue full; nothing will be called), ERR_LIMIT. */
int kv_commit(struct store *store, const char *partition, const struct store_op *ops, size_t count,
              store_done_fn done, void *context);

/* err 0 with the value, ERR_NOTFOUND or ERR_CORRUPT. */
typedef void (*store_value_fn)(void *context, int err, struct span value);
void kv_get(struct store *store, const char *partition, struct span key, store_value_fn got,
            void *context);

/* Non-zero return stops the scan. */
typedef int (*store_row_fn)(void *context, struct span key, struct span value);
/*
 * Rows of the partition with key >= `from` that begin with `prefix`, ascending, at most `limit`;
 * returns the number of damaged rows that were passed over, or a negative enum err. Not longer than
 * 100 ms (then it stops after a row as if `limit` was reached: compare the number of rows).
 */
int kv_scan(struct store *store, const char *partition, struct span from, struct span prefix,
            size_t limit, store_row_fn row, void *context);
/* The same until nothing is left, however long it takes; returns the row's non-zero result, 0 or a
 * negative enum err. */
int kv_scan_all(struct store *store, const char *partition, struct span from, struct span prefix,
                store_row_fn row, void *context);

/* Names of partitions that begin with `prefix`, ascending. */
typedef int (*store_part_fn)(void *context, const char *partition);
int part_list(struct store *store, const char *prefix, store_part_fn part, void *context);
/* Deletes a partition's records in small transactions. */
int part_drop(struct store *store, const char *partition, store_done_fn done, void *context);

/* Artifacts. `id` is text ("INC-.../host/3"). Pieces are written in order from 0. */
int blob_write(struct store *store, const char *id, uint32_t piece, struct span bytes,
               store_done_fn done, void *context);
/* Marks complete. Checked: `size_bytes` is what the pieces add up to (ERR_CONFLICT). */
int blob_seal(struct store *store, const char *id, const uint8_t sha256[32], uint64_t size_bytes,
              store_done_fn done, void *context);
void blob_read(struct store *store, const char *id, uint32_t piece, store_value_fn got,
               void *context);
struct blob_state {
    uint32_t pieces;
    uint64_t size_bytes;
    bool sealed;
    uint8_t sha256[32];
};
int blob_state(struct store *store, const char *id, struct blob_state *out); /* ERR_NOTFOUND */
int blob_delete(struct store *store, const char *id, store_done_fn done, void *context);
/* Names of artifacts that begin with `prefix`, ascending; those half deleted too. */
int blob_list(struct store *store, const char *prefix, store_part_fn each, void *context);

struct store_stat {
    uint64_t records_used_bytes, records_max_bytes;
    uint64_t pieces_used_bytes, pieces_max_bytes;
    uint64_t commits, ops, queued_bytes, damaged, refused_full;
};
void store_stat(struct store *store, struct store_stat *out);

#endif
