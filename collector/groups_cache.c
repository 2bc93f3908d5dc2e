/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups, their hosts and the hosts' places in the count, in memory as far as they are in use.
 * Invariant: what is here is what the store holds once the commits on their way have come back;
 * when one of them fails, all of it is forgotten and read anew. Called by groups*.c.
 */
#include "collector/groups_private.h"

#include <stdlib.h>
#include <string.h>

#include "collector/symbols.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"
#include "common/xxh64.h"

int64_t groups_now_us(const struct groups *groups)
{
    struct clock *clock = groups->collector->clock;
    return clock->wall_us(clock);
}

static size_t bucket_of(const void *data, size_t size_bytes)
{
    return xxh64(span_of(data, size_bytes), 0) % GROUPS_BUCKETS;
}

static struct list *id_bucket(struct groups *groups, const char *id)
{
    return &groups->by_id[bucket_of(id, strlen(id))];
}

static struct list *signature_bucket(struct groups *groups, const uint8_t signature[16])
{
    return &groups->by_signature[bucket_of(signature, GROUP_SIGNATURE_SIZE)];
}

/* ---- groups ---- */

static void group_free(struct groups *groups, struct group *group)
{
    LIST_EACH (at, &group->hosts)
        free(LIST_ENTRY(at, struct group_host, link));
    list_remove(&group->link);
    list_remove(&group->by_id);
    list_remove(&group->by_signature);
    groups->cached--;
    free(group);
}

void cache_touch(struct groups *groups, struct group *group)
{
    list_remove(&group->link);
    list_insert(&groups->recent, &group->link);
}

void cache_trim(struct groups *groups)
{
    for (struct list *at = groups->recent.prev;
         at != &groups->recent && groups->cached > GROUPS_CACHED_MAX;) {
        struct group *group = LIST_ENTRY(at, struct group, link);
        at = at->prev;
        if (!group->flying)
            group_free(groups, group);
    }
}

void cache_rehash(struct groups *groups, struct group *group)
{
    list_remove(&group->by_signature);
    list_push(signature_bucket(groups, group->record.signature.bytes), &group->by_signature);
}

struct group *cache_add(struct groups *groups, const trawl_v1_Group *record,
                        const struct group_state *state)
{
    struct group *group = calloc(1, sizeof(*group));
    if (!group)
        return NULL;
    group->record = *record;
    group->state = *state;
    list_init(&group->hosts);
    list_init(&group->by_signature);
    list_insert(&groups->recent, &group->link);
    list_push(id_bucket(groups, record->id), &group->by_id);
    cache_rehash(groups, group);
    groups->cached++;
    return group;
}

static struct group *load(struct groups *groups, const char *id, int *e)
{
    trawl_v1_Group record;
    struct group_state state = {0};
    struct failure f;
    struct buf value;
    struct group *group = NULL;
    struct key key = keys_group('g', id);
    buf_init(&value, STORE_VALUE_MAX);
    *e = groups_row(groups, &key, &value);
    if (!*e && codec_get_group(&record, buf_span(&value), &f))
        *e = ERR_CORRUPT;
    buf_clear(&value);
    key = keys_group('x', id);
    if (!*e && !groups_row(groups, &key, &value))
        group_state_get(&state, buf_span(&value)); /* lost: it gathers nothing more */
    if (!*e) {
        group = cache_add(groups, &record, &state);
        *e = group ? 0 : ERR_NOMEM;
    }
    buf_done(&value);
    return group;
}

struct group *cache_by_id(struct groups *groups, const char *id, int *e)
{
    LIST_EACH (at, id_bucket(groups, id)) {
        struct group *group = LIST_ENTRY(at, struct group, by_id);
        if (!strcmp(group->record.id, id))
            return group;
    }
    return load(groups, id, e);
}

struct group *cache_by_signature(struct groups *groups, const uint8_t signature[16], int *e)
{
    LIST_EACH (at, signature_bucket(groups, signature)) {
        struct group *group = LIST_ENTRY(at, struct group, by_signature);
        if (!memcmp(group->record.signature.bytes, signature, GROUP_SIGNATURE_SIZE) &&
            !group->record.merged_into[0])
            return group;
    }
    char id[16];
    struct buf value;
    struct key key = keys_group_bytes('s', signature);
    buf_init(&value, 64);
    *e = groups_row(groups, &key, &value);
    if (!*e && text_copy(id, sizeof id, buf_str(&value)))
        *e = ERR_CORRUPT;
    buf_done(&value);
    return *e ? NULL : cache_by_id(groups, id, e);
}

void groups_new_id(struct groups *groups, char id[16])
{
    char random_text[6];
    uint8_t random_bytes[5];
    struct buf value;
    struct key key;
    buf_init(&value, STORE_VALUE_MAX);
    do {
        port_random(random_bytes, sizeof random_bytes);
        text_put_base32(random_bytes, 5, random_text);
        text_format(id, 16, "G-%s", random_text);
        key = keys_group('g', id);
    } while (groups_row(groups, &key, &value) != ERR_NOTFOUND && value.size_bytes);
    buf_done(&value);
}

/* ---- a group's hosts ---- */

static struct group_host *load_host(struct groups *groups, struct group *group,
                                    const struct host *host)
{
    struct group_host *found = calloc(1, sizeof(*found));
    struct failure f;
    struct buf value;
    if (!found)
        return NULL;
    struct key key = keys_group_host(group->record.id, host->record.name);
    buf_init(&value, STORE_VALUE_MAX);
    if (groups_row(groups, &key, &value) ||
        codec_get_group_host(&found->record, buf_span(&value), &f))
        text_copy(found->record.host, sizeof found->record.host, host->record.name);
    buf_done(&value);
    found->host = host;
    list_insert(&group->hosts, &found->link);
    return found;
}

struct group_host *cache_host(struct groups *groups, struct group *group, const struct host *host,
                              bool *fresh)
{
    struct group_host *found = NULL;
    LIST_EACH (at, &group->hosts) {
        struct group_host *h = LIST_ENTRY(at, struct group_host, link);
        if (h->host != host)
            continue;
        found = h;
        list_remove(&h->link); /* to the front: it will be asked for again */
        list_insert(&group->hosts, &h->link);
        break;
    }
    if (!found)
        found = load_host(groups, group, host);
    *fresh = found && !found->record.count;
    return found;
}

/* ---- lanes ---- */

static uint64_t load_u64(struct groups *groups, struct key key)
{
    uint64_t number = 0;
    struct buf value;
    buf_init(&value, 64);
    struct span in = {0};
    if (!groups_row(groups, &key, &value))
        in = buf_span(&value);
    if (in.size_bytes)
        span_take_u64(&in, &number);
    buf_done(&value);
    return number;
}

static void load_quota(struct groups *groups, const char *host, struct group_quota *out)
{
    struct buf value;
    struct key key = keys_group('l', host);
    buf_init(&value, 64);
    *out = (struct group_quota){0};
    if (!groups_row(groups, &key, &value))
        group_quota_get(out, buf_span(&value));
    buf_done(&value);
}

struct lane *cache_lane(struct groups *groups, struct host *host)
{
    struct list *bucket = &groups->lanes[bucket_of(&host, sizeof(struct host *))];
    struct lane *lane = NULL;
    LIST_EACH (at, bucket)
        if (LIST_ENTRY(at, struct lane, link)->host == host)
            lane = LIST_ENTRY(at, struct lane, link);
    if (!lane) {
        lane = calloc(1, sizeof(*lane));
        if (!lane)
            return NULL;
        lane->host = host;
        load_quota(groups, host->record.name, &lane->quota);
        list_push(bucket, &lane->link);
    } else if (!memcmp(lane->state_id, host->state_id, sizeof lane->state_id)) {
        return lane;
    }
    memcpy(lane->state_id, host->state_id, sizeof lane->state_id);
    lane->counted = load_u64(groups, keys_group_bytes('c', host->state_id));
    return lane;
}

/* ---- names ---- */

static int find_name(void *context, const trawl_v1_Frame *frame, char out[GROUP_FUNCTION_SIZE])
{
    struct symbol symbol;
    int e = symbols_find(context, span_of(frame->build_id.bytes, frame->build_id.size),
                         frame->offset, frame->exact, &symbol);
    if (!e)
        text_copy(out, GROUP_FUNCTION_SIZE, symbol.function);
    return e;
}

struct group_names groups_names(struct groups *groups)
{
    return (struct group_names){find_name, groups->collector->symbols};
}

/* ---- all of it ---- */

static void forget(struct groups *groups)
{
    for (struct list *at; (at = list_first(&groups->recent));)
        group_free(groups, LIST_ENTRY(at, struct group, link));
    for (size_t i = 0; i < GROUPS_BUCKETS; i++)
        for (struct list *at; (at = list_first(&groups->lanes[i]));) {
            list_remove(at);
            free(LIST_ENTRY(at, struct lane, link));
        }
    act_forget(groups);
}

static int count_told(void *context, struct span key, struct span value)
{
    (void)key, (void)value;
    ++*(size_t *)context;
    return 0;
}

static int read_anew(struct groups *groups)
{
    groups->version = load_u64(groups, keys_text("v"));
    groups->told = 0;
    load_quota(groups, "", &groups->fleet);
    int e = groups_scan(groups, span_str("e"), count_told, &groups->told);
    if (!e)
        e = want_load(groups);
    return e ? e : act_load(groups);
}

void cache_forget(struct groups *groups)
{
    forget(groups);
    groups->broken = read_anew(groups) != 0; /* the tick tries again */
    if (groups->broken)
        log_warn("groups of exceptions cannot be read from the store now");
}

static struct group_limits limits_of(const struct settings *s)
{
    return (struct group_limits){
        .evidence = (uint32_t)s->evidence,
        .evidence_host_hour = (uint32_t)s->evidence_host_hour,
        .evidence_fleet_hour = (uint32_t)s->evidence_fleet_hour,
        .incidents_hour = (uint32_t)s->incidents_hour,
        .groups_host_hour = (uint32_t)s->groups_host_hour,
        .window_us = s->window_us,
        .spread_hosts = (uint32_t)s->spread_hosts,
        .spread_us = s->spread_us,
    };
}

int groups_open(struct groups **out, struct collector *c, struct failure *f)
{
    struct groups *groups = calloc(1, sizeof(*groups));
    if (!groups)
        return fail(f, ERR_NOMEM, "out of memory");
    groups->collector = c;
    groups->renames = calloc(GROUPS_RENAMES_MAX, sizeof(*groups->renames));
    groups->limits = limits_of(c->settings);
    list_init(&groups->recent);
    for (size_t i = 0; i < sizeof groups->flying / sizeof groups->flying[0]; i++)
        list_init(&groups->flying[i]);
    list_init(&groups->actions);
    list_init(&groups->followers);
    for (size_t i = 0; i < GROUPS_BUCKETS; i++) {
        list_init(&groups->by_id[i]);
        list_init(&groups->by_signature[i]);
        list_init(&groups->lanes[i]);
    }
    int e = groups->renames ? read_anew(groups) : ERR_NOMEM;
    if (e) {
        groups_close(groups);
        return fail(f, e, "cannot read the groups of exceptions from the store: %s", err_text(e));
    }
    groups_symbols_open(groups);
    *out = groups;
    return 0;
}

void groups_close(struct groups *groups)
{
    if (!groups)
        return;
    forget(groups);
    free(groups->renames);
    free(groups);
}
