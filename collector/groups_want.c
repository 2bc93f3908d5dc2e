/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people ask of a group: more evidence of the next exception, which agents have to know before
 * it happens, and that it is resolved. Invariant: agents are told all that is wanted each time, so
 * that what they hold is never a mixture. Called by ops_groups.c, groups.c and fleet.c.
 */
#include "collector/groups_private.h"

#include <stdlib.h>
#include <string.h>

#include "collector/fleet.h"
#include "common/text.h"
#include "proto/kinds.h"

#define WANT_MAX 100 /* exceptions that one wish can cover */

/* ---- telling agents ---- */

static bool fill_want(struct groups *groups, const char *id, trawl_v1_Want *out)
{
    int e = 0;
    const struct group *group = cache_by_id(groups, id, &e);
    if (!group || !group->record.want_left)
        return false;
    const trawl_v1_Group *r = &group->record;
    memset(out, 0, sizeof *out);
    text_copy(out->group, sizeof out->group, r->id);
    out->source = r->source;
    text_copy(out->type, sizeof out->type, r->type);
    text_copy(out->process, sizeof out->process, r->process);
    out->what_count = r->want_count;
    memcpy(out->what, r->want, sizeof out->what);
    out->left = r->want_left;
    out->asked_us = r->want_us;
    return true;
}

static trawl_v1_CollectorMessage *make_message(struct groups *groups)
{
    trawl_v1_CollectorMessage *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->which_body = trawl_v1_CollectorMessage_wants_tag;
    trawl_v1_Wants *wants = &m->body.wants;
    for (size_t i = 0; i < groups->want_count; i++)
        if (fill_want(groups, groups->wants[i], &wants->list[wants->list_count]))
            wants->list_count++;
    return m;
}

static int tell_host(void *context, struct host *host)
{
    if (host->session && session_is_ready(host->session))
        session_send(host->session, context);
    return 0;
}

void groups_host_here(struct groups *groups, struct host *host)
{
    trawl_v1_CollectorMessage *m = make_message(groups);
    if (m)
        tell_host(m, host);
    free(m);
}

/* ---- the list ---- */

static void list_drop(struct groups *groups, const char *id)
{
    for (size_t i = 0; i < groups->want_count; i++) {
        if (strcmp(groups->wants[i], id) != 0)
            continue;
        groups->want_count--;
        memmove(groups->wants[i], groups->wants[i + 1],
                (groups->want_count - i) * sizeof groups->wants[0]);
        return;
    }
}

/* The newest first; what does not fit is told when there is room again after a restart. */
static void list_add(struct groups *groups, const char *id)
{
    list_drop(groups, id);
    if (groups->want_count < GROUPS_WANTS_MAX)
        groups->want_count++;
    memmove(groups->wants[1], groups->wants[0], (groups->want_count - 1) * sizeof groups->wants[0]);
    text_copy(groups->wants[0], sizeof groups->wants[0], id);
}

static int load_want(void *context, struct span key, struct span value)
{
    (void)value;
    char id[16];
    struct span rest = span_of(key.data + 1, key.size_bytes - 1);
    if (!text_copy_span(id, sizeof id, rest))
        list_add(context, id);
    return 0;
}

int want_load(struct groups *groups)
{
    groups->want_count = 0;
    int e = groups_scan(groups, span_str("w"), load_want, groups);
    return e < 0 ? e : 0;
}

void want_put(struct group_rows *rows, const struct group *group)
{
    struct key key = keys_group('w', group->record.id);
    if (group->record.want_left)
        group_rows_put_text(rows, key, "1");
    else
        group_rows_delete(rows, key);
}

void want_changed(struct groups *groups, const struct group *group)
{
    if (group->record.want_left)
        list_add(groups, group->record.id);
    else
        list_drop(groups, group->record.id);
    trawl_v1_CollectorMessage *m = make_message(groups);
    if (m)
        roster_each(groups->collector->roster, tell_host, m);
    free(m);
}

/* ---- people ---- */

static bool is_kind(const char *name)
{
    for (const char *const *kind = KINDS; *kind; kind++)
        if (!strcmp(*kind, name))
            return true;
    return !strcmp(name, "crash");
}

static int check_want(const trawl_v1_WantRequest *want, struct failure *f)
{
    if (want->count > WANT_MAX)
        return fail(f, ERR_INVALID, "at most %d exceptions can be asked for more: lower -n",
                    WANT_MAX);
    if (want->count && !want->what_count)
        return fail(f, ERR_INVALID, "nothing is asked for: give --what, " KINDS_WORDS " exist");
    for (pb_size_t i = 0; i < want->what_count; i++)
        if (!is_kind(want->what[i]))
            return fail(f, ERR_INVALID, "unknown kind '%s': " KINDS_WORDS " exist", want->what[i]);
    return 0;
}

struct changing {
    struct groups *groups;
    char id[16];
    bool wants;
    store_done_fn done;
    void *context;
};

static void on_changed(void *context, const struct failure *why)
{
    struct changing *c = context;
    struct groups *groups = c->groups;
    struct failure f = *why;
    groups_landed(groups, why);
    int e = 0;
    struct group *group = f.code || groups->broken ? NULL : cache_by_id(groups, c->id, &e);
    if (group && c->wants)
        want_changed(groups, group);
    if (f.code == ERR_CONFLICT)
        fail(&f, ERR_BUSY, "the store was busy with something that failed: try again");
    c->done(c->context, &f);
    free(c);
}

/* Stores the group as it was changed. */
static int store_change(struct groups *groups, struct group *group, bool wants, store_done_fn done,
                        void *context, struct failure *f)
{
    struct changing *c = calloc(1, sizeof(*c));
    struct group_rows *rows = malloc(sizeof(*rows));
    int e = c && rows ? 0 : ERR_NOMEM;
    if (!e) {
        *c = (struct changing){.groups = groups, .wants = wants, .done = done, .context = context};
        text_copy(c->id, sizeof c->id, group->record.id);
        group_rows_init(rows);
        group_rows_put_group(rows, group);
        if (wants)
            want_put(rows, group);
        e = group_rows_commit(groups, rows, on_changed, c);
        group_rows_done(rows);
    }
    free(rows);
    if (e)
        free(c);
    return e ? fail(f, e, "the collector cannot store now: %s", err_text(e)) : 0;
}

static struct group *group_to_change(struct groups *groups, const char *id, struct failure *f)
{
    int e = 0;
    struct group *group = groups->broken ? NULL : cache_by_id(groups, id, &e);
    if (groups->broken)
        fail(f, ERR_BUSY, "the store is being read anew after a failure: try again");
    else if (!group)
        fail(f, e, "group '%s' cannot be read: %s", id, err_text(e));
    return group;
}

int groups_want(struct groups *groups, const char *id, const trawl_v1_WantRequest *want,
                const char *who, store_done_fn done, void *context, struct failure *f)
{
    if (check_want(want, f))
        return f->code;
    struct group *group = group_to_change(groups, id, f);
    if (!group)
        return f->code;
    trawl_v1_Group *r = &group->record;
    bool listed = false;
    for (size_t i = 0; i < groups->want_count; i++)
        listed = listed || !strcmp(groups->wants[i], id);
    if (want->count && !listed && groups->want_count == GROUPS_WANTS_MAX)
        return fail(f, ERR_LIMIT,
                    "more is wanted of %d groups already: take one back ('trawl want G -n 0')",
                    GROUPS_WANTS_MAX);
    r->want_left = want->count;
    r->want_count = want->count ? want->what_count : 0;
    memcpy(r->want, want->what, sizeof r->want);
    text_copy(r->want_by, sizeof r->want_by, want->count ? who : "");
    r->want_us = groups_now_us(groups);
    group->state.want_tries = 0;
    return store_change(groups, group, true, done, context, f);
}

int groups_resolve(struct groups *groups, const char *id, const char *who, store_done_fn done,
                   void *context, struct failure *f)
{
    struct group *group = group_to_change(groups, id, f);
    if (!group)
        return f->code;
    trawl_v1_Group *r = &group->record;
    r->state = trawl_v1_GroupState_GROUP_RESOLVED;
    r->resolved_us = groups_now_us(groups);
    text_copy(r->resolved_by, sizeof r->resolved_by, who);
    r->note[0] = '\0';
    return store_change(groups, group, false, done, context, f);
}
