/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads, all on the loop's thread. Invariants: a snapshot lives for one read, at most 100 ms (a
 * held one keeps the writer from using free pages again); nothing is handed out whose checksum is
 * wrong. A read may be made from within a read's callback; it sees the same snapshot.
 */
#include <string.h>

#include "collector/store_lmdb.h"
#include "common/port.h"

int row_key_make(struct row_key *out, const char *name, struct span key)
{
    size_t length = strlen(name) + 1;
    if (length + key.size_bytes > STORE_KEY_MAX)
        return ERR_LIMIT;
    memcpy(out->bytes, name, length);
    if (key.size_bytes > 0)
        memcpy(out->bytes + length, key.data, key.size_bytes);
    out->size_bytes = length + key.size_bytes;
    return 0;
}

struct span row_key_span(const struct row_key *key)
{
    return span_of(key->bytes, key->size_bytes);
}

static bool begins_with(struct span s, struct span prefix)
{
    return s.size_bytes >= prefix.size_bytes &&
           (prefix.size_bytes == 0 || memcmp(s.data, prefix.data, prefix.size_bytes) == 0);
}

void kv_get(struct store *store, const char *partition, struct span key, store_value_fn got,
            void *context)
{
    struct row_key row;
    struct span value = span_of(NULL, 0);
    struct lmdb_env *e = &store->records;
    store_mend(store);
    /* A key that is too long was never stored. */
    int r = row_key_make(&row, partition, key) < 0 ? ERR_NOTFOUND : lmdb_read_begin(e);
    if (r < 0) {
        got(context, r, value);
        return;
    }
    r = row_get(e, e->reader, row_key_span(&row), &value);
    got(context, r, value);
    lmdb_read_end(e);
}

/* ---- scans ---- */

struct scan {
    struct lmdb_env *e;
    struct span within; /* "<partition>\0<prefix>": what a row's key begins with */
    size_t key_at;      /* where the caller's key begins */
    size_t limit;
    store_row_fn row;
    void *context;
};

/* The later of the two possible beginnings. */
static int scan_start(struct row_key *out, const char *partition, struct span from,
                      struct span prefix)
{
    size_t least = from.size_bytes < prefix.size_bytes ? from.size_bytes : prefix.size_bytes;
    int order = least ? memcmp(from.data, prefix.data, least) : 0;
    bool from_is_later = order > 0 || (order == 0 && from.size_bytes > prefix.size_bytes);
    return row_key_make(out, partition, from_is_later ? from : prefix);
}

static int scan_rows(const struct scan *s, struct MDB_cursor *cursor, struct span start)
{
    struct span key, raw, value;
    uint64_t deadline_us = port_mono_us() + STORE_READ_US;
    size_t rows = 0;
    int damaged = 0;
    int r = cursor_seek(s->e, cursor, start, &key, &raw);
    for (; r == 0 && begins_with(key, s->within); r = cursor_next(s->e, cursor, &key, &raw)) {
        if (row_check(key, raw, &value) < 0) {
            atomic_fetch_add(&s->e->damaged, 1);
            damaged++;
            continue;
        }
        struct span own = span_of(key.data + s->key_at, key.size_bytes - s->key_at);
        if (s->row(s->context, own, value) != 0 || ++rows >= s->limit)
            return damaged;
        if (port_mono_us() >= deadline_us)
            return damaged;
    }
    return r == 0 || r == ERR_NOTFOUND ? damaged : r;
}

int kv_scan(struct store *store, const char *partition, struct span from, struct span prefix,
            size_t limit, store_row_fn row, void *context)
{
    struct row_key start, within;
    struct lmdb_env *e = &store->records;
    struct MDB_cursor *cursor;
    store_mend(store);
    if (limit == 0 || scan_start(&start, partition, from, prefix) < 0 ||
        row_key_make(&within, partition, prefix) < 0)
        return 0;
    int r = lmdb_read_begin(e);
    if (r < 0)
        return r;
    r = cursor_open(e, e->reader, &cursor);
    if (r == 0) {
        struct scan s = {e, row_key_span(&within), strlen(partition) + 1, limit, row, context};
        r = scan_rows(&s, cursor, row_key_span(&start));
        cursor_close(cursor);
    }
    lmdb_read_end(e);
    return r;
}

/* ---- partitions ---- */

struct listing {
    struct lmdb_env *e;
    struct span prefix;
    store_part_fn part;
    void *context;
    struct row_key from; /* where the next partition begins */
    bool pieces;         /* rows without trailer are among them */
};

/* Takes the name out of a row's key and moves on behind the partition. ERR_CORRUPT: not a key of
 * ours. */
static int listing_name(struct listing *l, struct span key, char name[STORE_KEY_MAX + 1])
{
    const uint8_t *zero = memchr(key.data, '\0', key.size_bytes);
    if (!zero || key.size_bytes > STORE_KEY_MAX)
        return ERR_CORRUPT;
    size_t length = (size_t)(zero - key.data);
    memcpy(name, key.data, length + 1);
    memcpy(l->from.bytes, name, length);
    l->from.bytes[length] = 1;
    l->from.size_bytes = length + 1;
    return 0;
}

/* A damaged row is passed over; the next one of its partition gives the name. */
static int listing_step(struct listing *l, struct MDB_cursor *cursor, char name[STORE_KEY_MAX + 1])
{
    struct span key, raw;
    int r = cursor_seek(l->e, cursor, row_key_span(&l->from), &key, &raw);
    while (r == 0 && begins_with(key, l->prefix) &&
           ((!l->pieces && !row_key_is_sound(key, raw)) || listing_name(l, key, name) < 0)) {
        atomic_fetch_add(&l->e->damaged, 1);
        r = cursor_next(l->e, cursor, &key, &raw);
    }
    return r == 0 && !begins_with(key, l->prefix) ? ERR_NOTFOUND : r;
}

/* A cursor for each step: between two, the snapshot may be changed for a newer one. */
static int listing_next(struct listing *l, char name[STORE_KEY_MAX + 1])
{
    struct MDB_cursor *cursor;
    int r = cursor_open(l->e, l->e->reader, &cursor);
    if (r < 0)
        return r;
    r = listing_step(l, cursor, name);
    cursor_close(cursor);
    return r;
}

static int list_parts(struct listing *l)
{
    char name[STORE_KEY_MAX + 1];
    uint64_t deadline_us = port_mono_us() + STORE_READ_US;
    int r;
    while ((r = listing_next(l, name)) == 0) {
        if (l->part(l->context, name) != 0)
            return 0;
        if (port_mono_us() >= deadline_us && l->e->reading == 1) {
            r = lmdb_read_renew(l->e);
            if (r < 0)
                return r;
            deadline_us = port_mono_us() + STORE_READ_US;
        }
    }
    return r == ERR_NOTFOUND ? 0 : r;
}

static int list_names(struct store *store, struct listing *l)
{
    store_mend(store);
    if (l->prefix.size_bytes > STORE_KEY_MAX)
        return 0;
    l->from.size_bytes = l->prefix.size_bytes;
    if (l->prefix.size_bytes > 0)
        memcpy(l->from.bytes, l->prefix.data, l->prefix.size_bytes);
    int r = lmdb_read_begin(l->e);
    if (r < 0)
        return r;
    r = list_parts(l);
    lmdb_read_end(l->e);
    return r;
}

int part_list(struct store *store, const char *prefix, store_part_fn part, void *context)
{
    struct listing l = {.e = &store->records, .prefix = span_str(prefix), .part = part};
    l.context = context;
    return list_names(store, &l);
}

/* ---- artifacts ---- */

void blob_read(struct store *store, const char *id, uint32_t piece, store_value_fn got,
               void *context)
{
    struct lmdb_env *e = &store->pieces;
    struct blob_state state;
    struct span value = span_of(NULL, 0);
    store_mend(store);
    int r = lmdb_read_begin(e);
    if (r < 0) {
        got(context, r, value);
        return;
    }
    r = piece_state_get(e, e->reader, id, &state);
    if (r == 0)
        r = piece < state.pieces ? piece_get(e, e->reader, id, piece, &value) : ERR_NOTFOUND;
    got(context, r, value);
    lmdb_read_end(e);
}

int blob_state(struct store *store, const char *id, struct blob_state *out)
{
    struct lmdb_env *e = &store->pieces;
    store_mend(store);
    int r = lmdb_read_begin(e);
    if (r < 0)
        return r;
    r = piece_state_get(e, e->reader, id, out);
    lmdb_read_end(e);
    return r;
}

int blob_list(struct store *store, const char *prefix, store_part_fn each, void *context)
{
    struct listing l = {.e = &store->pieces, .prefix = span_str(prefix), .part = each};
    l.context = context;
    l.pieces = true;
    return list_names(store, &l);
}
