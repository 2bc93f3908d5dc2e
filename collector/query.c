/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stored blocks and events back to people. Invariant: times go out in collector time (host time
 * less the skew stored with each record); a gap stays a gap with its reason. Used by
 * ops_counters.c, ops_show.c.
 */
#include "collector/query.h"

#include <stdlib.h>
#include <string.h>

#include "collector/ingest.h"
#include "collector/keys.h"
#include "common/text.h"
#include "proto/block.h"

#define HOUR_US 3600000000ll
#define DAY_US (24 * HOUR_US)
#define BLOCK_SPAN_US                                                           \
    (64 * 1000000ll) /* a block begins at most this long before its last sample \
                      */

#define FEW_PARTS 48
#define PART_NAMES_MAX_BYTES (4 * 1024 * 1024)
#define TIME_MAX_US (INT64_C(1) << 60)

/* ---- rows of one host between two host times, over partitions ---- */

struct rows {
    const struct host *host;
    int64_t from_us, to_us; /* host time */
    int (*row)(void *context, struct span value);
    void *context;
    int stopped;
};

static int on_row(void *context, struct span key, struct span value)
{
    struct rows *r = context;
    int64_t at_us;
    uint64_t seq;
    struct span name;
    if (keys_sample_parse(key, &at_us, &seq, &name))
        return 0;
    if (at_us > r->to_us)
        return 1;
    if (!span_equal(name, span_str(r->host->record.name)))
        return 0;
    r->stopped = r->row(r->context, value);
    return r->stopped;
}

static int scan_part(struct collector *c, const char *part, struct rows *r)
{
    struct key start = keys_time(r->from_us);
    int e = kv_scan_all(c->store, part, key_span(&start), (struct span){0}, on_row, r);
    return e < 0 && !r->stopped ? e : 0;
}

typedef void (*part_name_fn)(char *out, uint32_t shard, int64_t host_us);

static int scan_each(struct collector *c, struct rows *r, int64_t part_us, part_name_fn part_name)
{
    uint32_t shard = keys_shard(r->host->record.name);
    for (int64_t at = r->from_us - r->from_us % part_us; at <= r->to_us && !r->stopped;
         at += part_us) {
        char part[KEYS_PARTITION_SIZE];
        part_name(part, shard, at);
        int e = scan_part(c, part, r);
        if (e < 0)
            return e;
    }
    return 0;
}

/* Partitions that exist, between two names. */
struct parts {
    const char *first, *last;
    struct buf names; /* each with its zero */
};

static int note_part(void *context, const char *part)
{
    struct parts *p = context;
    if (strcmp(part, p->last) > 0)
        return 1;
    if (strcmp(part, p->first) < 0)
        return 0;
    return buf_append(&p->names, part, strlen(part) + 1);
}

static int scan_listed(struct collector *c, struct rows *r, part_name_fn part_name)
{
    char first[KEYS_PARTITION_SIZE], last[KEYS_PARTITION_SIZE], prefix[KEYS_PARTITION_SIZE];
    struct parts parts = {.first = first, .last = last};
    uint32_t shard = keys_shard(r->host->record.name);
    part_name(first, shard, r->from_us);
    part_name(last, shard, r->to_us);
    text_copy(prefix, sizeof(prefix), first);
    strrchr(prefix, '/')[1] = '\0';
    buf_init(&parts.names, PART_NAMES_MAX_BYTES);
    int e = part_list(c->store, prefix, note_part, &parts);
    for (size_t at = 0; e >= 0 && at < parts.names.size_bytes && !r->stopped;) {
        const char *part = (const char *)parts.names.data + at;
        at += strlen(part) + 1;
        e = scan_part(c, part, r);
    }
    buf_done(&parts.names);
    return e < 0 ? e : 0;
}

/* A short window goes from partition to partition; a long one asks which there are. */
static int scan_window(struct collector *c, struct rows *r, int64_t part_us, part_name_fn part_name)
{
    if (r->from_us < 0) /* no record is older, and all of that goes to one partition */
        r->from_us = 0;
    if (r->to_us < r->from_us)
        return 0;
    return (r->to_us - r->from_us) / part_us < FEW_PARTS ? scan_each(c, r, part_us, part_name)
                                                         : scan_listed(c, r, part_name);
}

/* The part of a window in which a record can lie (ingest_is_time), so that sums do not overflow. */
static int64_t clamp(int64_t us)
{
    return us < -TIME_MAX_US ? -TIME_MAX_US : us > TIME_MAX_US ? TIME_MAX_US : us;
}

static int64_t skew_of(const struct host *host)
{
    return host->record.skew_known ? host->record.skew_us : 0;
}

/* ---- events ---- */

struct event_query {
    int64_t from_us, to_us; /* collector time */
    query_event_fn each;
    void *context;
};

static int event_row(void *context, struct span value)
{
    struct event_query *q = context;
    trawl_v1_Event event;
    struct failure f;
    if (codec_get_event(&event, value, &f))
        return 0;
    event.wall_us -= event.skew_us;
    if (event.wall_us < q->from_us || event.wall_us > q->to_us)
        return 0;
    return q->each(q->context, &event);
}

#define SKEW_SLACK_US (5 * 1000000ll) /* the skew may have been another when it was stored */

int query_events(struct collector *c, const struct host *host, int64_t from_us, int64_t to_us,
                 query_event_fn each, void *context, struct failure *f)
{
    struct event_query q = {clamp(from_us), clamp(to_us), each, context};
    int64_t skew = skew_of(host);
    struct rows rows = {.host = host, .row = event_row, .context = &q};
    rows.from_us = q.from_us + skew - SKEW_SLACK_US;
    rows.to_us = q.to_us + skew + SKEW_SLACK_US;
    int e = scan_window(c, &rows, DAY_US, keys_event_part);
    return e ? fail(f, e, "events of '%s' cannot be read: %s", host->record.name, err_text(e))
             : rows.stopped;
}

/* ---- descriptors ---- */

#define MAX_DESCRIPTORS 1000000 /* looked at */

struct known {
    uint64_t epoch;
    trawl_v1_Descriptor descriptor;
    bool wanted;
};

struct descriptors {
    struct known *list;
    size_t count, capacity;
    size_t seen;
    const struct query_counters *query; /* NULL: all are wanted */
};

static bool is_wanted(const struct query_counters *q, const trawl_v1_Descriptor *d)
{
    if (q->instance[0] && !text_glob(q->instance, d->instance))
        return false;
    for (size_t i = 0; i < q->name_count; i++)
        if (text_glob(q->names[i], d->name))
            return true;
    return false;
}

static int descriptor_row(void *context, struct span key, struct span value)
{
    struct descriptors *all = context;
    struct failure f;
    trawl_v1_Descriptor d;
    struct span rest = key, epoch;
    if (all->seen++ == MAX_DESCRIPTORS)
        return 1;
    if (span_take(&rest, 1, &(struct span){0}) || span_take(&rest, 8, &epoch) ||
        codec_get_descriptor(&d, value, &f) || (all->query && !is_wanted(all->query, &d)))
        return 0;
    if (BUF_GROW(all->list, all->count, &all->capacity, 64))
        return ERR_NOMEM;
    struct known *k = &all->list[all->count++];
    *k = (struct known){.descriptor = d};
    for (size_t i = 0; i < 8; i++)
        k->epoch = k->epoch << 8 | epoch.data[i];
    return 0;
}

static int load_descriptors(struct collector *c, const struct host *host, struct descriptors *out,
                            struct failure *f)
{
    char part[KEYS_PARTITION_SIZE];
    keys_host_part(part, host->record.name);
    int e = kv_scan_all(c->store, part, span_str("d"), span_str("d"), descriptor_row, out);
    return e < 0 ? fail(f, e, "descriptors of '%s' cannot be read: %s", host->record.name,
                        err_text(e))
                 : 0;
}

int query_descriptors(struct collector *c, const struct host *host, query_descriptor_fn each,
                      void *context, struct failure *f)
{
    struct descriptors all = {0};
    int e = load_descriptors(c, host, &all, f);
    for (size_t i = 0; i < all.count && !e; i++)
        e = each(context, &all.list[i].descriptor);
    free(all.list);
    return e;
}

static const trawl_v1_Descriptor *find_descriptor(const struct descriptors *all, uint64_t epoch,
                                                  uint32_t id)
{
    size_t low = 0, high = all->count; /* rows came sorted by epoch, then id */
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct known *k = &all->list[middle];
        if (k->epoch < epoch || (k->epoch == epoch && k->descriptor.id < id))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == all->count || all->list[low].epoch != epoch || all->list[low].descriptor.id != id)
        return NULL;
    return &all->list[low].descriptor;
}

/* ---- counters ---- */

struct counter_query {
    const struct host *host;
    const struct query_counters *query;
    struct descriptors descriptors;
    trawl_v1_CounterBlock block;
    trawl_v1_Samples samples;
    query_samples_fn each;
    void *context;
};

static int on_series(void *context, const struct block_view *view)
{
    struct counter_query *q = context;
    const trawl_v1_Descriptor *d = find_descriptor(&q->descriptors, q->block.epoch, view->id);
    if (!d)
        return 0;
    trawl_v1_Samples *s = &q->samples;
    memset(s, 0, sizeof(*s));
    int64_t at_us = q->block.from_us - q->block.skew_us;
    for (size_t i = 0; i < view->sample_count; i++, at_us += q->block.step_us) {
        if (at_us < q->query->from_us || at_us > q->query->to_us)
            continue;
        if (!s->values_count)
            s->from_us = at_us;
        s->values[s->values_count++] = view->values[i];
    }
    if (!s->values_count)
        return 0;
    text_copy(s->host, sizeof(s->host), q->host->record.name);
    s->has_descriptor = true;
    s->descriptor = *d;
    s->step_us = q->block.step_us;
    s->skew_error_us = q->block.skew_error_us;
    text_copy_span(s->gap_reason, sizeof(s->gap_reason), view->reason);
    text_clean(s->gap_reason); /* it was within the block's bytes */
    return q->each(q->context, s);
}

static int block_row(void *context, struct span value)
{
    struct counter_query *q = context;
    struct failure f;
    if (codec_get_counter_block(&q->block, value, &f))
        return 0;
    int e = block_each(span_of(q->block.data.bytes, q->block.data.size), on_series, q, &f);
    return e == ERR_CORRUPT || e == ERR_LIMIT ? 0 : e;
}

int query_counters(struct collector *c, const struct host *host, const struct query_counters *query,
                   query_samples_fn each, void *context, struct failure *f)
{
    struct counter_query *q = calloc(1, sizeof(*q));
    if (!q)
        return fail(f, ERR_NOMEM, "out of memory");
    *q = (struct counter_query){.host = host, .query = query, .each = each, .context = context};
    q->descriptors.query = query;
    struct rows rows = {.host = host, .row = block_row, .context = q};
    rows.from_us = clamp(query->from_us) + skew_of(host) - BLOCK_SPAN_US - SKEW_SLACK_US;
    rows.to_us = clamp(query->to_us) + skew_of(host) + SKEW_SLACK_US;
    int e = load_descriptors(c, host, &q->descriptors, f);
    if (!e && q->descriptors.count)
        e = scan_window(c, &rows, HOUR_US, keys_counter_part);
    if (!e)
        e = rows.stopped;
    else if (!f->code)
        fail(f, e, "counters of '%s' cannot be read: %s", host->record.name, err_text(e));
    free(q->descriptors.list);
    free(q);
    return e;
}
