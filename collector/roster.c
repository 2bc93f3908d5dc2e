/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hosts of the fleet, in memory and in partition "hosts". Invariant: a host in the roster has a
 * stored row or one on its way (its `done` not yet called). Revoked serials are kept in a table of
 * their own behind a lock, because certificates are verified on pool threads.
 */
#include "collector/roster.h"

#include <stdlib.h>
#include <string.h>

#include "collector/authority.h"
#include "collector/collector.h"
#include "collector/fleet.h"
#include "collector/keys.h"
#include "common/text.h"

#define BUCKETS 4096
#define MAX_REVOKED 4096
#define SERIAL_SIZE 48
#define CURSORS_SIZE (16 + 3 * 8)

struct roster {
    struct collector *collector;
    struct list hosts;
    struct list buckets[BUCKETS];
    size_t count;
    uv_mutex_t lock; /* guards the two below */
    char (*revoked)[SERIAL_SIZE];
    size_t revoked_count;
};

static uint32_t bucket_of(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    return h % BUCKETS;
}

struct host *roster_find(struct roster *roster, const char *name)
{
    struct list *bucket = &roster->buckets[bucket_of(name)];
    LIST_EACH (at, bucket) {
        struct host *host = LIST_ENTRY(at, struct host, hash_link);
        if (!strcmp(host->record.name, name))
            return host;
    }
    return NULL;
}

static void insert_by_name(struct roster *roster, struct host *host)
{
    struct list *at = roster->hosts.prev;
    while (at != &roster->hosts &&
           strcmp(LIST_ENTRY(at, struct host, link)->record.name, host->record.name) > 0)
        at = at->prev;
    list_insert(at, &host->link);
    list_push(&roster->buckets[bucket_of(host->record.name)], &host->hash_link);
    roster->count++;
}

/* ---- revocation ---- */

int roster_is_revoked(void *context, const char *serial_hex)
{
    struct roster *roster = context;
    int found = 0;
    uv_mutex_lock(&roster->lock);
    for (size_t i = 0; i < roster->revoked_count && !found; i++)
        found = !strcmp(roster->revoked[i], serial_hex);
    uv_mutex_unlock(&roster->lock);
    return found;
}

static int remember_revoked(struct roster *roster, const char *serial_hex)
{
    int e = 0;
    if (roster_is_revoked(roster, serial_hex))
        return 0;
    uv_mutex_lock(&roster->lock);
    if (roster->revoked_count == MAX_REVOKED)
        e = ERR_LIMIT;
    else
        e = text_copy(roster->revoked[roster->revoked_count++], SERIAL_SIZE, serial_hex);
    uv_mutex_unlock(&roster->lock);
    return e;
}

static int revoked_row(void *context, struct span key, struct span value)
{
    (void)value;
    char serial[SERIAL_SIZE];
    if (!text_copy_span(serial, sizeof(serial), key))
        remember_revoked(context, serial);
    return 0;
}

static void revoke_serial(struct roster *roster, const char *serial_hex)
{
    struct store_op op = {STORE_PUT, span_str(serial_hex), span_str("revoked")};
    if (*serial_hex && !remember_revoked(roster, serial_hex))
        kv_commit(roster->collector->store, "revoked", &op, 1, NULL, NULL);
}

int roster_admit(const struct host *host, const struct pki_identity *who, struct failure *f)
{
    if (!host || host->revoked)
        return fail(f, ERR_IDENTITY, "host '%s' is not enrolled here%s", who->name,
                    host ? " any more: it was revoked" : "");
    if (who->not_before_s + AUTHORITY_BACKDATE_S < host->record.enrolled_us / 1000000)
        return fail(f, ERR_IDENTITY, "host '%s' was enrolled anew: this certificate is older",
                    who->name);
    return 0;
}

/* ---- loading ---- */

static void got_cursors(void *context, int err, struct span value)
{
    struct host *host = context;
    struct span id;
    if (err || value.size_bytes < CURSORS_SIZE)
        return;
    span_take(&value, sizeof(host->state_id), &id);
    memcpy(host->state_id, id.data, sizeof(host->state_id));
    span_take_u64(&value, &host->last_block);
    span_take_u64(&value, &host->last_event);
    span_take_u64(&value, &host->last_order);
    host->safe_block = host->last_block;
    host->safe_event = host->last_event;
    text_copy_span(host->serial_hex, sizeof(host->serial_hex), value);
}

static struct host *host_new(const trawl_v1_Host *record)
{
    struct host *host = calloc(1, sizeof(*host));
    if (!host)
        return NULL;
    host->record = *record;
    host->revoked = record->state == trawl_v1_HostState_REVOKED;
    list_init(&host->link);
    list_init(&host->hash_link);
    list_init(&host->targets);
    return host;
}

static int host_row(void *context, struct span key, struct span value)
{
    (void)key;
    struct roster *roster = context;
    trawl_v1_Host record;
    struct failure f;
    if (codec_get_host(&record, value, &f))
        return 0;
    struct host *host = host_new(&record);
    if (!host)
        return ERR_NOMEM;
    insert_by_name(roster, host);
    return 0;
}

static int load_cursors(void *context, struct host *host)
{
    struct roster *roster = context;
    char part[KEYS_PARTITION_SIZE];
    keys_host_part(part, host->record.name);
    kv_get(roster->collector->store, part, span_str("seq"), got_cursors, host);
    return 0;
}

int roster_open(struct roster **out, struct collector *c, struct failure *f)
{
    struct roster *roster = calloc(1, sizeof(*roster));
    if (!roster)
        return fail(f, ERR_NOMEM, "out of memory");
    roster->collector = c;
    roster->revoked = calloc(MAX_REVOKED, sizeof(*roster->revoked));
    list_init(&roster->hosts);
    for (size_t i = 0; i < BUCKETS; i++)
        list_init(&roster->buckets[i]);
    uv_mutex_init(&roster->lock);
    struct span none = {0};
    int e = kv_scan(c->store, "hosts", none, none, SIZE_MAX, host_row, roster);
    if (e >= 0)
        e = kv_scan(c->store, "revoked", none, none, MAX_REVOKED, revoked_row, roster);
    if (e < 0 || !roster->revoked) {
        roster_close(roster);
        return fail(f, e < 0 ? e : ERR_NOMEM, "cannot read the hosts of the fleet from the store");
    }
    roster_each(roster, load_cursors, roster);
    *out = roster;
    return 0;
}

void roster_close(struct roster *roster)
{
    if (!roster)
        return;
    LIST_EACH (at, &roster->hosts)
        free(LIST_ENTRY(at, struct host, link));
    uv_mutex_destroy(&roster->lock);
    free(roster->revoked);
    free(roster);
}

/* ---- saving ---- */

int roster_save(struct roster *roster, struct host *host, store_done_fn done, void *context)
{
    struct buf value;
    buf_init(&value, STORE_VALUE_MAX);
    int e = codec_put_host(&value, &host->record);
    if (!e) {
        struct store_op op = {STORE_PUT, span_str(host->record.name), buf_span(&value)};
        e = kv_commit(roster->collector->store, "hosts", &op, 1, done, context);
    }
    buf_done(&value);
    return e;
}

int roster_save_cursors(struct roster *roster, struct host *host, store_done_fn done, void *context)
{
    char part[KEYS_PARTITION_SIZE];
    keys_host_part(part, host->record.name);
    struct buf value;
    buf_init(&value, 256);
    buf_append(&value, host->state_id, sizeof(host->state_id));
    buf_append_u64(&value, host->last_block);
    buf_append_u64(&value, host->last_event);
    buf_append_u64(&value, host->last_order);
    int e = buf_append_str(&value, host->serial_hex);
    struct store_op op = {STORE_PUT, span_str("seq"), buf_span(&value)};
    if (!e)
        e = kv_commit(roster->collector->store, part, &op, 1, done, context);
    buf_done(&value);
    return e;
}

int roster_add(struct roster *roster, const trawl_v1_Host *record, const char *serial_hex,
               store_done_fn done, void *context, struct failure *f)
{
    struct host *host = roster_find(roster, record->name);
    if (host && !host->revoked)
        return fail(
            f, ERR_EXISTS,
            "host '%s' is enrolled already: revoke it first (trawl revoke %s) or join under "
            "another name (--name)",
            record->name, record->name);
    if (!host) {
        host = host_new(record);
        if (!host)
            return fail(f, ERR_NOMEM, "out of memory");
        insert_by_name(roster, host);
    }
    host->record = *record;
    host->revoked = false;
    text_copy(host->serial_hex, sizeof(host->serial_hex), serial_hex);
    memset(host->state_id, 0, sizeof(host->state_id));
    host->last_block = host->last_event = host->safe_block = host->safe_event = 0;
    int e = roster_save_cursors(roster, host, NULL, NULL);
    if (!e)
        e = roster_save(roster, host, done, context);
    host->revoked = e != 0; /* not stored: the name stays free */
    return e ? fail(f, e, "cannot store host '%s': %s", record->name, err_text(e)) : 0;
}

int roster_revoke(struct roster *roster, struct host *host, store_done_fn done, void *context)
{
    host->revoked = true;
    host->record.state = trawl_v1_HostState_REVOKED;
    revoke_serial(roster, host->serial_hex);
    if (host->session)
        session_abort(host->session, "the host was revoked");
    return roster_save(roster, host, done, context);
}

/* ---- looking ---- */

int roster_each(struct roster *roster, roster_each_fn each, void *context)
{
    LIST_EACH (at, &roster->hosts) {
        int e = each(context, LIST_ENTRY(at, struct host, link));
        if (e)
            return e;
    }
    return 0;
}

size_t roster_count(const struct roster *roster)
{
    return roster->count;
}

void roster_view(struct roster *roster, const struct host *host, trawl_v1_Host *out)
{
    struct collector *c = roster->collector;
    *out = host->record;
    if (host->revoked) {
        out->state = trawl_v1_HostState_REVOKED;
    } else if (!host->session) {
        out->state = trawl_v1_HostState_OFFLINE;
    } else {
        uint64_t silent_us = c->clock->mono_us(c->clock) - host->last_seen_mono_us;
        bool stale = silent_us > (uint64_t)c->settings->stale_us;
        out->state = stale ? trawl_v1_HostState_STALE : trawl_v1_HostState_ONLINE;
        out->last_seen_us = c->clock->wall_us(c->clock) - (int64_t)silent_us;
    }
}
