/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of one environment: get, put, delete, cursors. Invariant: nothing read is handed out before
 * it was found inside the map and its checksum right, and "not there" is only said when the rows
 * beside the place are whole. Called by both threads, each with its own transaction.
 */
#include <lmdb.h>
#include <string.h>

#include "collector/store_lmdb.h"

#define MAX_READ (STORE_VALUE_MAX + ROW_TRAILER_SIZE)

static MDB_val val_of(struct span s)
{
    /* LMDB only reads what it is given; its structure knows no const. */
    return (MDB_val){s.size_bytes, (void *)s.data};
}

static uint64_t key_hash(struct span key)
{
    return xxh64(key, STORE_FORMAT_VERSION);
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
    if (get_le(raw.data + bytes.size_bytes, 8) != xxh64(bytes, hash))
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
    GUARDED(rc, mdb_get(txn, LMDB_ROWS, &k, &v));
    return rc ? lmdb_translate(rc) : inside(e, &v, value);
}

static int cursor_at(struct lmdb_env *e, MDB_cursor *cursor, MDB_cursor_op op, struct span *key,
                     struct span *raw)
{
    MDB_val k = val_of(*key), v = {0, NULL};
    int rc;
    GUARDED(rc, mdb_cursor_get(cursor, &k, &v, op));
    int r = rc ? lmdb_translate(rc) : inside(e, &k, key);
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
    struct span raw = span_of(NULL, 0);
    int r = raw_get(e, txn, key, &raw);
    if (r == 0)
        r = row_check(key, raw, value);
    else if (r == ERR_NOTFOUND)
        r = absent(e, txn, key);
    return count_damage(e, r);
}

/* Room for a value in the page, or NULL with *r saying why. */
static uint8_t *reserve(struct lmdb_env *e, MDB_txn *txn, struct span key, size_t size_bytes,
                        int *r)
{
    MDB_val k = val_of(key), v = {size_bytes, NULL};
    int rc;
    GUARDED(rc, mdb_put(txn, LMDB_ROWS, &k, &v, MDB_RESERVE));
    if (rc == 0)
        return v.mv_data;
    *r = lmdb_write_failed(e, rc);
    return NULL;
}

int row_put(struct lmdb_env *e, MDB_txn *txn, struct span key, struct span value)
{
    int r = 0;
    uint8_t *room = reserve(e, txn, key, value.size_bytes + ROW_TRAILER_SIZE, &r);
    if (!room)
        return r;
    uint64_t hash = key_hash(key);
    if (value.size_bytes > 0)
        memcpy(room, value.data, value.size_bytes);
    put_le(room + value.size_bytes, xxh64(value, hash), 8);
    put_le(room + value.size_bytes + 8, hash >> 32, 4);
    return 0;
}

int raw_put(struct lmdb_env *e, MDB_txn *txn, struct span key, struct span value, size_t size_bytes)
{
    int r = 0;
    uint8_t *room = reserve(e, txn, key, size_bytes, &r);
    if (!room)
        return r;
    memcpy(room, value.data, value.size_bytes);
    memset(room + value.size_bytes, 0, size_bytes - value.size_bytes);
    return 0;
}

int row_delete(struct lmdb_env *e, MDB_txn *txn, struct span key)
{
    MDB_val k = val_of(key);
    int rc;
    GUARDED(rc, mdb_del(txn, LMDB_ROWS, &k, NULL));
    return rc == MDB_NOTFOUND ? 0 : lmdb_write_failed(e, rc);
}

/* ---- cursors ---- */

int cursor_open(struct lmdb_env *e, MDB_txn *txn, MDB_cursor **out)
{
    (void)e;
    return lmdb_translate(mdb_cursor_open(txn, LMDB_ROWS, out));
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
    return lmdb_write_failed(e, rc);
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
