/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When names arrive for a build, groups that were told apart by offsets may be one, and one may be
 * two. Invariant: an ID stays valid for ever, and counts move whole: a merge adds them up exactly;
 * a split leaves what was counted with the old ID, because counts are not kept per stack, and sends
 * what comes later to the right one. Called by symbols.c through its listener.
 */
#include "collector/groups_private.h"

#include <stdlib.h>
#include <string.h>

#include "collector/symbols.h"
#include "common/log.h"
#include "common/text.h"

#define AT_ONCE 16 /* groups looked at in one second */

/* ---- which groups ---- */

struct affected {
    struct groups *groups;
    struct span build_id;
};

void groups_rename_later(struct groups *groups, const char *id)
{
    for (size_t i = 0; i < groups->rename_count; i++)
        if (!strcmp(groups->renames[i], id))
            return;
    if (groups->rename_count < GROUPS_RENAMES_MAX)
        text_copy(groups->renames[groups->rename_count++], sizeof groups->renames[0], id);
}

static int note_affected(void *context, const trawl_v1_Group *group)
{
    struct affected *a = context;
    bool named = false;
    for (pb_size_t i = 0; i < group->frames_count; i++) {
        const trawl_v1_Frame *f = &group->frames[i];
        named = named || span_equal(a->build_id, span_of(f->build_id.bytes, f->build_id.size));
    }
    if (named && !group->merged_into[0])
        groups_rename_later(a->groups, group->id);
    return a->groups->rename_count == GROUPS_RENAMES_MAX; /* the rest when it is seen again */
}

/* ---- a merge ---- */

static void merge_versions(trawl_v1_Group *to, const trawl_v1_Group *from)
{
    const pb_size_t max = sizeof to->versions / sizeof to->versions[0];
    for (pb_size_t i = 0; i < from->versions_count; i++) {
        const trawl_v1_GroupVersion *v = &from->versions[i];
        pb_size_t k = 0;
        while (k < to->versions_count &&
               (to->versions[k].build_id.size != v->build_id.size ||
                memcmp(to->versions[k].build_id.bytes, v->build_id.bytes, v->build_id.size) != 0))
            k++;
        if (k == max)
            continue;
        if (k == to->versions_count) {
            to->versions[to->versions_count++] = *v;
            continue;
        }
        to->versions[k].count += v->count;
        if (v->first_us < to->versions[k].first_us)
            to->versions[k].first_us = v->first_us;
        if (v->last_us > to->versions[k].last_us)
            to->versions[k].last_us = v->last_us;
    }
}

static void merge_incidents(trawl_v1_Group *to, const trawl_v1_Group *from)
{
    const pb_size_t max = sizeof to->incidents / sizeof to->incidents[0];
    for (pb_size_t i = 0; i < from->incidents_count && to->incidents_count < max; i++)
        text_copy(to->incidents[to->incidents_count++], sizeof to->incidents[0],
                  from->incidents[i]);
}

static void merge_state(struct group_state *to, const struct group_state *from)
{
    uint64_t newest = to->minute > from->minute ? to->minute : from->minute;
    uint32_t minutes[GROUP_MINUTES] = {0};
    for (uint64_t m = newest < GROUP_MINUTES ? 0 : newest - GROUP_MINUTES + 1; m <= newest; m++) {
        const size_t slot = m % GROUP_MINUTES;
        if (m <= to->minute && m + GROUP_MINUTES > to->minute)
            minutes[slot] += to->minutes[slot];
        if (m <= from->minute && m + GROUP_MINUTES > from->minute)
            minutes[slot] += from->minutes[slot];
    }
    memcpy(to->minutes, minutes, sizeof minutes);
    to->minute = newest;
    if (from->incident_us > to->incident_us)
        to->incident_us = from->incident_us;
    if (from->evidence_left < to->evidence_left)
        to->evidence_left = from->evidence_left;
}

struct merging {
    struct groups *groups;
    struct group *from, *to;
    struct group_rows *rows;
};

static void merge_host(struct merging *m, const trawl_v1_GroupHost *from)
{
    struct host *host = roster_find(m->groups->collector->roster, from->host);
    bool fresh = false;
    struct group_host *to = host ? cache_host(m->groups, m->to, host, &fresh) : NULL;
    if (!to) { /* a host that is not in the fleet any more: as it was */
        group_rows_put_host(m->rows, m->to->record.id, from);
        m->to->record.hosts++;
        return;
    }
    trawl_v1_GroupHost *r = &to->record;
    if (fresh)
        r->first_us = from->first_us;
    m->to->record.hosts += fresh;
    r->count += from->count;
    if (from->first_us < r->first_us)
        r->first_us = from->first_us;
    if (from->last_us > r->last_us)
        r->last_us = from->last_us;
    group_rows_put_host(m->rows, m->to->record.id, r);
}

/* What is in memory is newer than its row. */
static int merge_row(void *context, const trawl_v1_GroupHost *from)
{
    struct merging *m = context;
    LIST_EACH (at, &m->from->hosts)
        if (!strcmp(LIST_ENTRY(at, struct group_host, link)->record.host, from->host))
            return 0;
    merge_host(m, from);
    return 0;
}

static void merge_hosts(struct merging *m)
{
    LIST_EACH (at, &m->from->hosts) {
        const struct group_host *h = LIST_ENTRY(at, struct group_host, link);
        if (h->record.count)
            merge_host(m, &h->record);
    }
    int e = groups_each_host(m->groups, m->from->record.id, merge_row, m);
    if (e < 0)
        m->rows->e = e;
}

static void merge_want(const struct group *from, struct group *to, struct group_rows *rows)
{
    if (!from->record.want_left || to->record.want_left)
        return;
    to->record.want_left = from->record.want_left;
    to->record.want_count = from->record.want_count;
    to->record.want_us = from->record.want_us;
    memcpy(to->record.want, from->record.want, sizeof to->record.want);
    text_copy(to->record.want_by, sizeof to->record.want_by, from->record.want_by);
    want_put(rows, to);
}

static void merge(struct groups *groups, struct group *from, struct group *to,
                  struct group_rows *rows)
{
    trawl_v1_Group *a = &to->record, *b = &from->record;
    struct merging m = {groups, from, to, rows};
    a->count += b->count;
    a->evidence += b->evidence;
    if (b->first_us < a->first_us)
        a->first_us = b->first_us;
    if (b->last_us > a->last_us)
        a->last_us = b->last_us;
    if (a->state == trawl_v1_GroupState_GROUP_RESOLVED && b->state != a->state &&
        b->last_us > a->resolved_us)
        a->state = trawl_v1_GroupState_GROUP_REGRESSED;
    merge_versions(a, b);
    merge_incidents(a, b);
    merge_state(&to->state, &from->state);
    merge_hosts(&m);
    merge_want(from, to, rows);
    b->state = trawl_v1_GroupState_GROUP_MERGED;
    text_copy(b->merged_into, sizeof b->merged_into, a->id);
    b->want_left = 0;
    want_put(rows, from);
    group_rows_put_text(rows, keys_group_bytes('s', b->signature.bytes), a->id);
    group_rows_put_group(rows, from);
    log_info("groups %s and %s are one now that symbols are known: %s", b->id, a->id, a->id);
}

/* ---- the new signature ---- */

struct renaming {
    struct groups *groups;
    struct group *group;
    struct group_signature *first; /* of the group: its oldest sample's */
    struct group_signature *other;
    struct group_rows *rows;
    size_t samples;
};

/* A sample that belongs elsewhere now: the group it will be counted in later is made. */
static void split(struct renaming *r, const trawl_v1_Exception *e)
{
    struct groups *groups = r->groups;
    int err = 0;
    char id[16];
    struct group *there = cache_by_signature(groups, r->other->bytes, &err);
    struct group *fresh = calloc(1, sizeof(*fresh));
    if (there || err != ERR_NOTFOUND || !fresh) {
        free(fresh);
        return;
    }
    groups_new_id(groups, id);
    group_begin(&fresh->record, &fresh->state, id, r->other, e, &groups->limits);
    fresh->record.state = trawl_v1_GroupState_GROUP_KNOWN;
    fresh->state.evidence_left = 0; /* the old one's first ones have it */
    text_copy(fresh->record.split_from, sizeof fresh->record.split_from, r->group->record.id);
    there = cache_add(groups, &fresh->record, &fresh->state);
    free(fresh);
    if (!there)
        return;
    group_rows_put_text(r->rows, keys_group_bytes('s', r->other->bytes), id);
    group_rows_put_group(r->rows, there);
    log_info("group %s is split off %s now that symbols are known", id, r->group->record.id);
}

static int rename_sample(void *context, const trawl_v1_Exception *e)
{
    struct renaming *r = context;
    struct group_names names = groups_names(r->groups);
    struct group_signature *to = r->samples++ ? r->other : r->first;
    group_signature(e, &names, to);
    if (r->samples > 1 && memcmp(r->other->bytes, r->first->bytes, GROUP_SIGNATURE_SIZE) != 0)
        split(r, e);
    return 0;
}

static void take_signature(struct renaming *r)
{
    trawl_v1_Group *record = &r->group->record;
    memcpy(record->signature.bytes, r->first->bytes, GROUP_SIGNATURE_SIZE);
    record->frames_count = (pb_size_t)r->first->frame_count;
    for (size_t i = 0; i < r->first->frame_count; i++)
        record->frames[i] = r->first->frames[i];
    group_rows_put_text(r->rows, keys_group_bytes('s', record->signature.bytes), record->id);
    cache_rehash(r->groups, r->group);
}

/* The signature it had leads to it (or to where it went) for ever. Returns the other one of a
 * merge.
 */
static struct group *rename_group(struct renaming *r)
{
    struct groups *groups = r->groups;
    struct group *group = r->group;
    int err = 0;
    struct group *there = cache_by_signature(groups, r->first->bytes, &err);
    if (!there && err != ERR_NOTFOUND) {
        r->rows->e = err;
    } else if (!there || there == group) {
        take_signature(r); /* the names of its frames may be new all the same */
    } else if (there->record.first_us <= group->record.first_us) { /* the older keeps its ID */
        merge(groups, group, there, r->rows);
        group_rows_put_group(r->rows, there);
        return there;
    } else {
        merge(groups, there, group, r->rows);
        take_signature(r);
    }
    group_rows_put_group(r->rows, group);
    return there == group ? NULL : there;
}

struct renamed {
    struct groups *groups;
    char ids[2][16];
};

static void on_renamed(void *context, const struct failure *why)
{
    struct renamed *renamed = context;
    struct groups *groups = renamed->groups;
    groups_landed(groups, why);
    for (size_t i = 0; i < 2 && !groups->broken; i++) { /* a wish may have moved */
        int e = 0;
        struct group *group = renamed->ids[i][0] ? cache_by_id(groups, renamed->ids[i], &e) : NULL;
        if (group)
            want_changed(groups, group);
    }
    free(renamed);
}

static void store_renamed(struct renaming *r, const struct group *other)
{
    struct renamed *renamed = calloc(1, sizeof(*renamed));
    if (!renamed) {
        r->rows->e = ERR_NOMEM; /* memory is read anew */
    } else {
        renamed->groups = r->groups;
        if (other) {
            text_copy(renamed->ids[0], sizeof renamed->ids[0], r->group->record.id);
            text_copy(renamed->ids[1], sizeof renamed->ids[1], other->record.id);
        }
    }
    if (group_rows_commit(r->groups, r->rows, on_renamed, renamed))
        free(renamed);
}

static void name_group(struct groups *groups, const char *id)
{
    int err = 0;
    struct group *group = cache_by_id(groups, id, &err);
    struct renaming r = {.groups = groups, .group = group};
    if (!group || group->record.merged_into[0])
        return;
    r.first = malloc(sizeof(*r.first));
    r.other = malloc(sizeof(*r.other));
    r.rows = malloc(sizeof(*r.rows));
    if (r.first && r.other && r.rows) {
        group_rows_init(r.rows);
        groups_each_sample(groups, id, rename_sample, &r);
        if (r.samples)
            store_renamed(&r, rename_group(&r));
        group_rows_done(r.rows);
    }
    free(r.first);
    free(r.other);
    free(r.rows);
}

void groups_rename_some(struct groups *groups)
{
    for (size_t i = 0; i < AT_ONCE && groups->rename_count && !groups->broken; i++) {
        char id[16];
        text_copy(id, sizeof id, groups->renames[--groups->rename_count]);
        name_group(groups, id);
    }
}

static void on_added(void *context, struct span build_id)
{
    struct affected a = {context, build_id};
    groups_each(a.groups, note_affected, &a);
}

void groups_symbols_open(struct groups *groups)
{
    symbols_on_added(groups->collector->symbols, on_added, groups);
}
