/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One exception in, one commit out. Invariant: nothing of an exception is visible (to people, to
 * agents as an order) before the commit that counts it. Called by ingest.c.
 */
#include "collector/groups_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/text.h"

/* A counted exception on its way to the store. */
struct counting {
    struct list link; /* groups->flying */
    struct groups *groups;
    struct group *group; /* NULL: it was counted before */
    bool flies;          /* the commit was accepted */
    trawl_v1_Exception *exception;
    uint64_t told; /* occurrences counted under its id, with these */
    struct group_decision decision;
    store_done_fn done;
    void *context;
};

static struct list *flying_bucket(struct groups *groups, const trawl_v1_Exception *e)
{
    return &groups->flying[e->id.bytes[15]]; /* ids are hashes, or random */
}

static void counting_free(struct counting *c)
{
    list_remove(&c->link);
    c->groups->flying_count--;
    if (c->flies)
        c->group->flying--;
    free(c->exception);
    free(c);
}

static void tell_followers(struct groups *groups, const trawl_v1_Exception *e)
{
    LIST_EACH (at, &groups->followers) {
        struct groups_follower *follower = LIST_ENTRY(at, struct groups_follower, link);
        follower->counted(follower, e);
    }
}

static void on_counted(void *context, const struct failure *why)
{
    struct counting *c = context;
    struct groups *groups = c->groups;
    store_done_fn done = c->done;
    void *done_context = c->context;
    struct failure f = *why;
    bool fresh = !f.code && c->group;
    trawl_v1_Exception *e = c->exception;
    struct group_decision decision = c->decision;
    c->exception = NULL;
    counting_free(c);
    groups_landed(groups, why);
    if (f.code == ERR_CONFLICT)
        fail(&f, ERR_BUSY, "an exception before this one could not be stored: send again");
    if (fresh && decision.evidence && !groups->broken)
        act_add(groups, e, &decision);
    if (fresh)
        tell_followers(groups, e);
    free(e);
    done(done_context, &f);
}

/* ---- counted before? ---- */

static struct counting *find_flying(struct groups *groups, const trawl_v1_Exception *e)
{
    struct list *bucket = flying_bucket(groups, e);
    for (struct list *at = bucket->prev; at != bucket; at = at->prev) {
        struct counting *c = LIST_ENTRY(at, struct counting, link);
        if (c->exception->id.size == e->id.size &&
            !memcmp(c->exception->id.bytes, e->id.bytes, e->id.size))
            return c;
    }
    return NULL;
}

/* Occurrences that were counted under this id. */
static uint64_t told_before(struct groups *groups, const trawl_v1_Exception *e)
{
    uint64_t told = 0;
    struct buf value;
    if (e->id.size != sizeof e->id.bytes)
        return 0;
    struct counting *flying = find_flying(groups, e);
    if (flying)
        return flying->told;
    struct key key = keys_group_bytes('d', e->id.bytes);
    buf_init(&value, 64);
    if (!groups_row(groups, &key, &value)) {
        struct span in = buf_span(&value);
        span_take_u64(&in, &told);
    }
    buf_done(&value);
    return told;
}

static void put_told(struct groups *groups, struct group_rows *rows, const trawl_v1_Exception *e,
                     uint64_t before, uint64_t told)
{
    if (e->id.size != sizeof e->id.bytes)
        return;
    group_rows_put_u64(rows, keys_group_bytes('d', e->id.bytes), told);
    if (before)
        return;
    group_rows_put_text(rows, keys_group_told(groups_now_us(groups), e->id.bytes), "1");
    groups->told++;
}

/* ---- which group ---- */

static struct group *begin_group(struct groups *groups, const trawl_v1_Exception *e,
                                 const struct group_signature *signature, struct group_rows *rows,
                                 int *err)
{
    char id[16];
    trawl_v1_Group *record = calloc(1, sizeof(*record));
    struct group_state state;
    struct group *group = NULL;
    if (record) {
        groups_new_id(groups, id);
        group_begin(record, &state, id, signature, e, &groups->limits);
        group = cache_add(groups, record, &state);
        free(record);
    }
    *err = group ? 0 : ERR_NOMEM;
    if (group)
        group_rows_put_text(rows, keys_group_bytes('s', signature->bytes), id);
    return group;
}

/* Above the limit of new groups what comes from the host is counted in one. */
static struct group *rest_group(struct groups *groups, const trawl_v1_Exception *e,
                                struct group_signature *signature, struct group_rows *rows,
                                int *err)
{
    group_signature_rest(e, e->host, signature);
    struct group *group = cache_by_signature(groups, signature->bytes, err);
    if (group || *err != ERR_NOTFOUND)
        return group;
    group = begin_group(groups, e, signature, rows, err);
    if (!group)
        return NULL;
    text_copy(group->record.type, sizeof group->record.type, "various");
    group->record.template[0] = group->record.process[0] = '\0';
    group->state.evidence_left = 0;
    text_format(group->record.note, sizeof group->record.note,
                "too many different ones: host '%s' had %u new groups in an hour "
                "(groups-host-hour), what came above is counted here",
                e->host, groups->limits.groups_host_hour);
    return group;
}

/* The group that has this signature under offsets, when names came and it was not looked at yet. */
static struct group *unnamed_group(struct groups *groups, const trawl_v1_Exception *e,
                                   struct group_signature *signature, int *err)
{
    struct group_signature *raw = malloc(sizeof(*raw));
    *err = ERR_NOMEM;
    if (!raw)
        return NULL;
    *err = ERR_NOTFOUND;
    group_signature(e, NULL, raw);
    bool same = !memcmp(raw->bytes, signature->bytes, GROUP_SIGNATURE_SIZE);
    struct group *group = same ? NULL : cache_by_signature(groups, raw->bytes, err);
    if (group && memcmp(group->record.signature.bytes, raw->bytes, GROUP_SIGNATURE_SIZE) != 0) {
        group = NULL; /* it has its name, and that is another one */
        *err = ERR_NOTFOUND;
    }
    if (group)
        groups_rename_later(groups, group->record.id);
    free(raw);
    return group;
}

static struct group *new_group(struct groups *groups, struct lane *lane,
                               const trawl_v1_Exception *e, struct group_signature *signature,
                               struct group_rows *rows, int *err)
{
    if (lane->quota.groups >= groups->limits.groups_host_hour)
        return rest_group(groups, e, signature, rows, err);
    lane->quota.groups++;
    return begin_group(groups, e, signature, rows, err);
}

static struct group *find_group(struct groups *groups, struct lane *lane,
                                const trawl_v1_Exception *e, struct group_rows *rows, int *err)
{
    struct group_names names = groups_names(groups);
    struct group_signature *s = malloc(sizeof(*s));
    *err = ERR_NOMEM;
    if (!s)
        return NULL;
    *err = 0;
    group_signature(e, &names, s);
    struct group *group = cache_by_signature(groups, s->bytes, err);
    if (!group && *err == ERR_NOTFOUND)
        group = unnamed_group(groups, e, s, err);
    if (!group && *err == ERR_NOTFOUND)
        group = new_group(groups, lane, e, s, rows, err);
    free(s);
    return group;
}

/* ---- one more ---- */

static bool in_list(const char *globs, const char *name)
{
    char glob[128];
    struct span rest = span_str(globs), item;
    while (name[0] && !text_take_until(&rest, ',', &item))
        if (!text_copy_span(glob, sizeof glob, item) && text_glob(glob, name))
            return true;
    return false;
}

static bool is_important(const struct groups *groups, const struct host *host,
                         const trawl_v1_Exception *e)
{
    const char *globs = groups->collector->settings->important_units;
    for (pb_size_t i = 0; i < host->record.labels_count; i++)
        if (!strcmp(host->record.labels[i].key, "important") &&
            !strcmp(host->record.labels[i].value, "yes"))
            return true;
    return in_list(globs, e->unit) || in_list(globs, e->process);
}

static void count_host(struct group_host *h, const trawl_v1_Exception *e, uint64_t count)
{
    trawl_v1_GroupHost *r = &h->record;
    if (!r->count || e->wall_us < r->first_us)
        r->first_us = e->wall_us;
    r->count = r->count > UINT64_MAX - count ? UINT64_MAX : r->count + count;
    if (e->last_us > r->last_us)
        r->last_us = e->last_us;
}

static void put_sample(struct group_rows *rows, const struct group *group,
                       const trawl_v1_Exception *e)
{
    uint32_t no = group->state.samples_put - 1;
    /* The first three stay for ever; behind them the newest replace the oldest. */
    uint32_t behind = GROUP_SAMPLES_MAX - GROUP_SAMPLES_FIRST;
    uint32_t slot =
        no < GROUP_SAMPLES_MAX ? no : GROUP_SAMPLES_FIRST + (no - GROUP_SAMPLES_MAX) % behind;
    int err = codec_put_exception(&rows->bytes, e);
    if (err)
        rows->e = err;
    group_rows_put(rows, keys_group_sample(group->record.id, slot));
}

static void put_quota(struct group_rows *rows, const char *host, const struct group_quota *quota)
{
    int e = group_quota_put(quota, &rows->bytes);
    if (e)
        rows->e = e;
    group_rows_put(rows, keys_group('l', host));
}

static void say_incident(trawl_v1_Exception *e, const struct group *group,
                         const struct group_limits *limits, int64_t now_us)
{
    bool within = group->state.incident_us && now_us - group->state.incident_us < limits->window_us;
    if (within && group->record.incidents_count)
        text_copy(e->incident, sizeof e->incident, group->record.incidents[0]);
}

static int take(struct groups *groups, struct lane *lane, struct counting *c, uint64_t before,
                struct group_rows *rows)
{
    trawl_v1_Exception *e = c->exception;
    struct group_occurrence o = {e, c->told - before, groups_now_us(groups), false, false};
    int err = 0;
    group_quota_at(&lane->quota, o.now_us);
    group_quota_at(&groups->fleet, o.now_us);
    struct group *group = find_group(groups, lane, e, rows, &err);
    struct group_host *host =
        group ? cache_host(groups, group, lane->host, &o.first_on_host) : NULL;
    if (!host)
        return err ? err : ERR_NOMEM;
    text_copy(e->group, sizeof e->group, group->record.id);
    o.important = is_important(groups, lane->host, e);
    struct group_change change = group_count(&group->record, &group->state, &groups->limits, &o);
    count_host(host, e, o.count);
    group_decide(&group->record, &group->state, &groups->limits, &o, &change, &lane->quota,
                 &groups->fleet, &c->decision);
    if (!c->decision.opens)
        say_incident(e, group, &groups->limits, o.now_us);
    c->group = group;
    e->count = o.count;
    cache_touch(groups, group);
    group_rows_put_group(rows, group);
    group_rows_put_host(rows, group->record.id, &host->record);
    if (c->decision.sample)
        put_sample(rows, group, e);
    if (c->decision.wanted)
        want_put(rows, group);
    if (c->decision.evidence)
        act_put(rows, e, &c->decision);
    if (c->decision.evidence || change.is_new) {
        put_quota(rows, lane->host->record.name, &lane->quota);
        put_quota(rows, "", &groups->fleet);
    }
    put_told(groups, rows, e, before, c->told);
    return 0;
}

static struct counting *counting_new(struct groups *groups, const trawl_v1_Exception *e,
                                     store_done_fn done, void *context)
{
    struct counting *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->groups = groups;
    c->done = done;
    c->context = context;
    c->exception = malloc(sizeof(*e));
    if (!c->exception) {
        free(c);
        return NULL;
    }
    *c->exception = *e;
    list_push(flying_bucket(groups, e), &c->link);
    groups->flying_count++;
    return c;
}

/* What failed here may have changed memory: it is read anew. */
static int give_up(struct groups *groups, struct counting *c, int e)
{
    counting_free(c);
    groups->broken = true;
    if (!groups->chained)
        cache_forget(groups);
    return e;
}

static void fly(struct groups *groups, struct counting *c)
{
    if (!c->group)
        return;
    c->flies = true;
    c->group->flying++;
    if (c->decision.wanted)
        want_changed(groups, c->group);
}

int groups_count(struct groups *groups, struct host *host, trawl_v1_Exception *e,
                 store_done_fn done, void *context)
{
    if (groups->broken || groups->flying_count >= GROUPS_FLYING_MAX)
        return ERR_BUSY;
    struct lane *lane = cache_lane(groups, host);
    uint64_t before = told_before(groups, e);
    struct counting *c = lane ? counting_new(groups, e, done, context) : NULL;
    struct group_rows *rows = malloc(sizeof(*rows));
    if (!c || !rows) {
        free(rows);
        return c ? give_up(groups, c, ERR_NOMEM) : ERR_NOMEM;
    }
    group_rows_init(rows);
    int err = 0;
    bool again = e->seq <= lane->counted;
    c->told = again || e->count <= before ? before : e->count;
    if (c->told > before)
        err = take(groups, lane, c, before, rows);
    if (!err && !again) {
        lane->counted = e->seq;
        group_rows_put_u64(rows, keys_group_bytes('c', host->state_id), e->seq);
    }
    if (err)
        give_up(groups, c, err);
    else if ((err = group_rows_commit(groups, rows, on_counted, c)) != 0)
        counting_free(c); /* the chain is broken already */
    else
        fly(groups, c);
    group_rows_done(rows);
    free(rows);
    if (!err)
        cache_trim(groups);
    return err;
}

/* ---- looking on ---- */

void groups_follow(struct groups *groups, struct groups_follower *follower)
{
    list_push(&groups->followers, &follower->link);
}

void groups_unfollow(struct groups_follower *follower)
{
    list_remove(&follower->link);
}
