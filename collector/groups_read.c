/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups as people see them: read from what is committed. Invariant: nothing is changed here, but
 * that what has been remembered for long enough is forgotten. Called by ops_groups.c,
 * ops_exceptions.c and ops_show.c.
 */
#include "collector/groups_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define FORGET_AT_ONCE 32
#define MERGED_DEPTH 8

/* ---- by a part of the ID ---- */

static void upper(char *text)
{
    for (; *text; text++)
        if (*text >= 'a' && *text <= 'z')
            *text = (char)(*text - 'a' + 'A');
}

struct finding {
    char wanted[32];
    char found[16], other[16];
    bool exact;
};

static int look_at_id(void *context, struct span key, struct span value)
{
    (void)value;
    struct finding *find = context;
    char id[16];
    struct span rest = span_of(key.data + 1, key.size_bytes - 1);
    if (text_copy_span(id, sizeof id, rest) || !strstr(id, find->wanted))
        return 0;
    find->exact = !strcmp(id, find->wanted);
    text_copy(find->found[0] && !find->exact ? find->other : find->found, sizeof id, id);
    return find->exact || find->other[0];
}

static int follow_merged(struct groups *groups, char id[16])
{
    trawl_v1_Group *group = malloc(sizeof(*group));
    int e = group ? 0 : ERR_NOMEM;
    for (int depth = 0; !e && depth < MERGED_DEPTH; depth++) {
        e = groups_get(groups, id, group);
        if (e || !group->merged_into[0])
            break;
        text_copy(id, 16, group->merged_into);
    }
    free(group);
    return e;
}

int groups_find(struct groups *groups, const char *text, char id[16], struct failure *f)
{
    struct finding find = {.exact = false};
    if (!*text || text_copy(find.wanted, sizeof find.wanted, text))
        return fail(f, ERR_NOTFOUND, "no group '%.40s': 'trawl groups' lists them", text);
    upper(find.wanted);
    int e = groups_scan(groups, span_str("g"), look_at_id, &find);
    if (e < 0)
        return fail(f, e, "the groups cannot be read: %s", err_text(e));
    if (!find.found[0])
        return fail(f, ERR_NOTFOUND, "no group '%s': 'trawl groups' lists them", text);
    if (!find.exact && find.other[0])
        return fail(f, ERR_CONFLICT, "'%s' could be '%s' or '%s': give more of the ID", text,
                    find.found, find.other);
    e = follow_merged(groups, find.found);
    if (e)
        return fail(f, e, "group '%s' cannot be read: %s", find.found, err_text(e));
    text_copy(id, 16, find.found);
    return 0;
}

/* ---- one, and all ---- */

static void complete(struct groups *groups, trawl_v1_Group *group)
{
    struct group_state state = {0};
    struct buf value;
    struct key key = keys_group('x', group->id);
    buf_init(&value, STORE_VALUE_MAX);
    if (!groups_row(groups, &key, &value))
        group_state_get(&state, buf_span(&value));
    buf_done(&value);
    group_view(group, &state, &groups->limits, groups_now_us(groups));
}

int groups_get(struct groups *groups, const char *id, trawl_v1_Group *out)
{
    struct failure f;
    struct buf value;
    struct key key = keys_group('g', id);
    buf_init(&value, STORE_VALUE_MAX);
    int e = groups_row(groups, &key, &value);
    if (!e && codec_get_group(out, buf_span(&value), &f))
        e = ERR_CORRUPT;
    buf_done(&value);
    if (!e)
        complete(groups, out);
    return e;
}

struct each_group {
    struct groups *groups;
    groups_group_fn each;
    void *context;
    trawl_v1_Group group;
};

static int on_group(void *context, struct span key, struct span value)
{
    (void)key;
    struct each_group *e = context;
    struct failure f;
    if (codec_get_group(&e->group, value, &f))
        return 0;
    complete(e->groups, &e->group);
    return e->each(e->context, &e->group);
}

int groups_each(struct groups *groups, groups_group_fn each, void *context)
{
    struct each_group *e = malloc(sizeof(*e));
    if (!e)
        return ERR_NOMEM;
    e->groups = groups;
    e->each = each;
    e->context = context;
    int r = groups_scan(groups, span_str("g"), on_group, e);
    free(e);
    return r;
}

struct each_host {
    groups_host_fn each;
    void *context;
};

static int on_host(void *context, struct span key, struct span value)
{
    (void)key;
    struct each_host *e = context;
    trawl_v1_GroupHost host;
    struct failure f;
    return codec_get_group_host(&host, value, &f) ? 0 : e->each(e->context, &host);
}

int groups_each_host(struct groups *groups, const char *id, groups_host_fn each, void *context)
{
    struct each_host e = {each, context};
    struct key prefix = keys_group_host(id, "");
    return groups_scan(groups, key_span(&prefix), on_host, &e);
}

struct each_sample {
    groups_sample_fn each;
    void *context;
    trawl_v1_Exception sample;
};

static int on_sample(void *context, struct span key, struct span value)
{
    (void)key;
    struct each_sample *e = context;
    struct failure f;
    return codec_get_exception(&e->sample, value, &f) ? 0 : e->each(e->context, &e->sample);
}

int groups_each_sample(struct groups *groups, const char *id, groups_sample_fn each, void *context)
{
    struct each_sample *e = malloc(sizeof(*e));
    if (!e)
        return ERR_NOMEM;
    e->each = each;
    e->context = context;
    struct key prefix = keys_group('o', id);
    prefix.bytes[prefix.size_bytes++] = '\0';
    int r = groups_scan(groups, key_span(&prefix), on_sample, e);
    free(e);
    return r;
}

/* ---- forgetting ---- */

struct forgetting {
    struct group_rows *rows;
    int64_t before_us;
    size_t left; /* to be forgotten in any case */
    size_t count;
};

static int forget_told(void *context, struct span key, struct span value)
{
    (void)value;
    struct forgetting *f = context;
    if (key.size_bytes != 1 + 8 + 16)
        return 0;
    uint64_t at = 0;
    for (size_t i = 0; i < 8; i++)
        at = at << 8 | key.data[1 + i];
    int64_t at_us = (int64_t)(at ^ UINT64_C(1) << 63);
    if (at_us >= f->before_us && f->count >= f->left)
        return 1;
    struct key row = {.size_bytes = key.size_bytes};
    memcpy(row.bytes, key.data, key.size_bytes);
    group_rows_delete(f->rows, row);
    group_rows_delete(f->rows, keys_group_bytes('d', key.data + 9));
    return ++f->count == FORGET_AT_ONCE - 2;
}

static void on_forgotten(void *context, const struct failure *why)
{
    groups_landed(context, why);
}

/* Ids of exceptions that are too old, or too many, to be told again. */
static void forget_old(struct groups *groups)
{
    size_t over = groups->told > GROUPS_TOLD_MAX ? groups->told - GROUPS_TOLD_MAX : 0;
    struct group_rows *rows = malloc(sizeof(*rows));
    if (!rows)
        return;
    group_rows_init(rows);
    struct forgetting f = {rows, groups_now_us(groups) - GROUPS_TOLD_US, over, 0};
    struct span from = {0};
    int e = kv_scan(groups->collector->store, KEYS_GROUPS_PART, from, span_str("e"), FORGET_AT_ONCE,
                    forget_told, &f);
    if (e >= 0 && f.count && !group_rows_commit(groups, rows, on_forgotten, groups))
        groups->told -= f.count;
    group_rows_done(rows);
    free(rows);
}

void groups_tick(struct groups *groups)
{
    if (groups->broken && !groups->chained)
        cache_forget(groups);
    if (groups->broken)
        return;
    act_tick(groups);
    if (!groups->broken)
        groups_rename_some(groups);
    if (!groups->broken)
        forget_old(groups);
}
