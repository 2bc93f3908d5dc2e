/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of partition "groups" (keys.h), and the chain of its commits: each expects the number that
 * the one before it left, so when one fails all behind it fail, too, and nothing is ever stored
 * that counts on what was not. Called by groups*.c.
 */
#include "collector/groups_private.h"

#include <stdlib.h>
#include <string.h>

#define BYTES_MAX (4u * 1024 * 1024)

void group_rows_init(struct group_rows *rows)
{
    *rows = (struct group_rows){.count = 0};
    buf_init(&rows->bytes, BYTES_MAX);
}

void group_rows_done(struct group_rows *rows)
{
    free(rows->list);
    buf_done(&rows->bytes);
}

static void add_op(struct group_rows *rows, enum store_op_type type, struct key key)
{
    if (!rows->e && rows->count == ROWS_MAX)
        rows->e = ERR_LIMIT;
    if (!rows->e)
        rows->e = BUF_GROW(rows->list, rows->count, &rows->capacity, 32);
    if (!rows->e)
        rows->list[rows->count++] = (struct group_row){type, key, rows->bytes.size_bytes};
}

void group_rows_put(struct group_rows *rows, struct key key)
{
    add_op(rows, STORE_PUT, key);
}

void group_rows_delete(struct group_rows *rows, struct key key)
{
    add_op(rows, STORE_DELETE, key);
}

static void check(struct group_rows *rows, int e)
{
    if (!rows->e)
        rows->e = e;
}

void group_rows_put_text(struct group_rows *rows, struct key key, const char *text)
{
    check(rows, buf_append_str(&rows->bytes, text));
    group_rows_put(rows, key);
}

void group_rows_put_u64(struct group_rows *rows, struct key key, uint64_t value)
{
    check(rows, buf_append_u64(&rows->bytes, value));
    group_rows_put(rows, key);
}

void group_rows_put_group(struct group_rows *rows, const struct group *group)
{
    check(rows, codec_put_group(&rows->bytes, &group->record));
    group_rows_put(rows, keys_group('g', group->record.id));
    check(rows, group_state_put(&group->state, &rows->bytes));
    group_rows_put(rows, keys_group('x', group->record.id));
}

void group_rows_put_host(struct group_rows *rows, const char *id, const trawl_v1_GroupHost *host)
{
    check(rows, codec_put_group_host(&rows->bytes, host));
    group_rows_put(rows, keys_group_host(id, host->host));
}

/* ---- the chain ---- */

static void link_up(struct groups *groups, struct group_rows *rows)
{
    struct key key = keys_text("v");
    if (groups->version) {
        check(rows, buf_append_u64(&rows->bytes, groups->version));
        add_op(rows, STORE_EXPECT, key);
    } else {
        add_op(rows, STORE_EXPECT_ABSENT, key);
    }
    group_rows_put_u64(rows, key, groups->version + 1);
}

static int submit(struct groups *groups, const struct group_rows *rows, store_done_fn done,
                  void *context)
{
    struct store_op *ops = calloc(rows->count, sizeof(*ops));
    if (!ops)
        return ERR_NOMEM;
    for (size_t i = 0; i < rows->count; i++) {
        const struct group_row *row = &rows->list[i];
        size_t from = i ? rows->list[i - 1].end : 0;
        struct span value = span_of(rows->bytes.data + from, row->end - from);
        ops[i] = (struct store_op){row->type, key_span(&row->key), value};
    }
    int e = kv_commit(groups->collector->store, KEYS_GROUPS_PART, ops, rows->count, done, context);
    free(ops);
    return e;
}

static void break_chain(struct groups *groups)
{
    groups->broken = true;
    if (!groups->chained)
        cache_forget(groups);
}

int group_rows_commit(struct groups *groups, struct group_rows *rows, store_done_fn done,
                      void *context)
{
    link_up(groups, rows);
    int e = groups->broken ? ERR_BUSY : rows->e;
    if (!e)
        e = submit(groups, rows, done, context);
    if (e) { /* memory is ahead of what will be stored */
        break_chain(groups);
        return e;
    }
    groups->version++;
    groups->chained++;
    return 0;
}

void groups_landed(struct groups *groups, const struct failure *why)
{
    groups->chained--;
    if (why->code)
        groups->broken = true;
    if (groups->broken && !groups->chained)
        cache_forget(groups);
}

/* ---- in ---- */

int groups_scan(struct groups *groups, struct span prefix, store_row_fn row, void *context)
{
    return kv_scan_all(groups->collector->store, KEYS_GROUPS_PART, prefix, prefix, row, context);
}

struct one_row {
    const struct key *key;
    struct buf *value;
    int e;
};

static int got_row(void *context, struct span key, struct span value)
{
    struct one_row *one = context;
    if (span_equal(key, key_span(one->key)))
        one->e = buf_append_span(one->value, value);
    return 1;
}

/* A scan, because its answer is there when it returns. */
int groups_row(struct groups *groups, const struct key *key, struct buf *value)
{
    struct one_row one = {key, value, ERR_NOTFOUND};
    struct span span = key_span(key);
    int e = kv_scan(groups->collector->store, KEYS_GROUPS_PART, span, span, 1, got_row, &one);
    if (e > 0 && one.e == ERR_NOTFOUND)
        return ERR_CORRUPT;
    return e < 0 ? e : one.e;
}
