/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks, events, exceptions, descriptors and gaps become records under keys that a repeated
 * delivery makes again. The cursor is stored after its record is, and the caller hears after both.
 * Called by fleet.c.
 */
#include "collector/ingest.h"

#include <stdlib.h>
#include <string.h>

#include "collector/firings.h"
#include "collector/groups.h"
#include "collector/keys.h"
#include "collector/top.h"
#include "common/text.h"
#include "common/xxh64.h"
#include "proto/block.h"

#define MAX_STEP_US 3600000000u
#define TIME_END_US INT64_C(253402300800000000) /* the year 10000 */
#define MAX_DESCRIPTORS (sizeof(((trawl_v1_Descriptors *)0)->list) / sizeof(trawl_v1_Descriptor))

bool ingest_is_time(int64_t us)
{
    return us >= 0 && us < TIME_END_US;
}

/* A record on its way: when it is committed the host's cursor follows, then the caller hears. */
struct landing {
    struct collector *collector;
    struct host *host;
    uint64_t seq;
    bool event; /* else a block */
    store_done_fn done;
    void *context;
    uint32_t intake; /* the host's when it was accepted */
};

static void cursor_landed(void *context, const struct failure *why)
{
    struct landing *landing = context;
    struct host *host = landing->host;
    uint64_t *safe = landing->event ? &host->safe_event : &host->safe_block;
    if (!why->code && landing->intake == host->intake && landing->seq > *safe)
        *safe = landing->seq;
    if (landing->done)
        landing->done(landing->context, why);
    free(landing);
}

static void close_intake(struct host *host, uint32_t intake)
{
    if (intake != host->intake)
        return;
    host->intake++;
    host->intake_closed = true;
}

static void record_landed(void *context, const struct failure *why)
{
    struct landing *landing = context;
    struct host *host = landing->host;
    if (why->code)
        close_intake(host, landing->intake);
    if (why->code || landing->intake != host->intake) {
        struct failure f = *why;
        if (!f.code) /* a record before this one was not stored: the cursor must not pass it */
            fail(&f, ERR_BUSY, "an earlier record could not be stored: send again");
        cursor_landed(landing, &f);
        return;
    }
    uint64_t *cursor = landing->event ? &host->last_event : &host->last_block;
    if (landing->seq > *cursor)
        *cursor = landing->seq;
    int e = roster_save_cursors(landing->collector->roster, host, cursor_landed, landing);
    if (e) {
        struct failure f;
        fail(&f, e, "the collector cannot store now: %s", err_text(e));
        cursor_landed(landing, &f);
    }
}

static int land(struct landing from, const char *part, const struct key *key, struct span value)
{
    if (from.host->intake_closed)
        return ERR_BUSY;
    struct landing *landing = malloc(sizeof(*landing));
    if (!landing)
        return ERR_NOMEM;
    *landing = from;
    landing->intake = from.host->intake;
    struct store_op op = {STORE_PUT, key_span(key), value};
    int e = kv_commit(from.collector->store, part, &op, 1, record_landed, landing);
    if (e) {
        free(landing);
        return e;
    }
    uint64_t *seen = from.event ? &from.host->seen_event : &from.host->seen_block;
    *seen = from.seq;
    return 0;
}

static int cannot_store(int e, struct failure *f)
{
    return fail(f, e, "the collector cannot store now: %s", err_text(e));
}

static int check_descriptors(trawl_v1_Descriptors *list, struct failure *f)
{
    for (pb_size_t i = 0; i < list->list_count; i++) {
        trawl_v1_Descriptor *d = &list->list[i];
        if (!d->id || !d->name[0] || !d->scale)
            return fail(f, ERR_INVALID, "descriptor without id, name or scale");
        text_clean(d->name);
        text_clean(d->instance);
        text_clean(d->unit);
    }
    return 0;
}

/* All of them in one commit. */
static int put_descriptors(struct collector *c, const char *part, const trawl_v1_Descriptors *list,
                           struct buf *values, store_done_fn done, void *context)
{
    struct store_op ops[MAX_DESCRIPTORS];
    struct key keys[MAX_DESCRIPTORS];
    size_t ends[MAX_DESCRIPTORS];
    int e = 0;
    for (pb_size_t i = 0; i < list->list_count && !e; i++) {
        keys[i] = keys_descriptor(list->epoch, list->list[i].id);
        e = codec_put_descriptor(values, &list->list[i]);
        ends[i] = values->size_bytes;
    }
    for (pb_size_t i = 0; i < list->list_count && !e; i++) {
        size_t from = i ? ends[i - 1] : 0;
        struct span value = span_of(values->data + from, ends[i] - from);
        ops[i] = (struct store_op){STORE_PUT, key_span(&keys[i]), value};
    }
    return e ? e : kv_commit(c->store, part, ops, list->list_count, done, context);
}

static void done_before(store_done_fn done, void *context);

int ingest_descriptors(struct collector *c, struct host *host, trawl_v1_Descriptors *list,
                       store_done_fn done, void *context, struct failure *f)
{
    char part[KEYS_PARTITION_SIZE];
    struct buf values;
    if (check_descriptors(list, f))
        return f->code;
    if (!list->list_count) {
        done_before(done, context);
        return 0;
    }
    keys_host_part(part, host->record.name);
    buf_init(&values, STORE_VALUE_MAX);
    int e = put_descriptors(c, part, list, &values, done, context);
    buf_done(&values);
    if (e)
        return cannot_store(e, f);
    top_descriptors(c->top, host, list);
    return 0;
}

static void stamp(const struct host *host, int64_t *skew_us, int64_t *skew_error_us)
{
    *skew_us = host->record.skew_known ? host->record.skew_us : 0;
    *skew_error_us = host->record.skew_known ? host->record.skew_error_us : 0;
}

static void done_before(store_done_fn done, void *context)
{
    static const struct failure none = {0};
    if (done)
        done(context, &none);
}

int ingest_block(struct collector *c, struct host *host, trawl_v1_CounterBlock *block,
                 store_done_fn done, void *context, struct failure *f)
{
    size_t series, samples;
    if (block->seq <= host->seen_block) {
        done_before(done, context);
        return 0;
    }
    struct span data = span_of(block->data.bytes, block->data.size);
    int e = block_check(data, &series, &samples, f);
    if (e)
        return ERR_INVALID;
    if (samples != block->count || !block->step_us || block->step_us > MAX_STEP_US)
        return fail(f, ERR_INVALID, "counter block with a wrong sample count or step");
    if (!ingest_is_time(block->from_us))
        return fail(f, ERR_INVALID, "counter block of an impossible time");
    stamp(host, &block->skew_us, &block->skew_error_us);
    char part[KEYS_PARTITION_SIZE];
    keys_counter_part(part, keys_shard(host->record.name), block->from_us);
    struct key key = keys_sample(block->from_us, block->seq, host->state_id, host->record.name);
    struct buf value;
    buf_init(&value, STORE_VALUE_MAX);
    e = codec_put_counter_block(&value, block);
    if (!e)
        e = land((struct landing){c, host, block->seq, false, done, context, 0}, part, &key,
                 buf_span(&value));
    buf_done(&value);
    if (!e)
        top_block(c->top, host, block);
    return e ? cannot_store(e, f) : 0;
}

/* ---- events ---- */

/* A rule that fired is kept in a row of its own besides: without it, its event does not land. */
struct keeping {
    struct host *host;
    uint32_t intake;
};

static void on_firing_kept(void *context, const struct failure *why)
{
    struct keeping *keeping = context;
    if (why->code)
        close_intake(keeping->host, keeping->intake);
    free(keeping);
}

static int keep_firing(struct collector *c, struct host *host, const trawl_v1_Event *event)
{
    if (event->type != trawl_v1_EventType_RULE_FIRED || !event->rule[0] ||
        event->firing.size != sizeof event->firing.bytes)
        return 0;
    if (host->intake_closed)
        return ERR_BUSY;
    struct keeping *keeping = malloc(sizeof *keeping);
    if (!keeping)
        return ERR_NOMEM;
    *keeping = (struct keeping){host, host->intake};
    int e = firings_keep(c->firings, event, on_firing_kept, keeping);
    if (e)
        free(keeping);
    return e;
}

int ingest_event(struct collector *c, struct host *host, trawl_v1_Event *event, store_done_fn done,
                 void *context, struct failure *f)
{
    if (event->seq <= host->seen_event) {
        done_before(done, context);
        return 0;
    }
    if (!ingest_is_time(event->wall_us))
        return fail(f, ERR_INVALID, "event of an impossible time");
    text_clean(event->process);
    text_clean(event->text);
    text_clean(event->rule);
    stamp(host, &event->skew_us, &event->skew_error_us);
    text_copy(event->host, sizeof(event->host), host->record.name);
    char part[KEYS_PARTITION_SIZE];
    keys_event_part(part, keys_shard(host->record.name), event->wall_us);
    struct key key = keys_sample(event->wall_us, event->seq, host->state_id, host->record.name);
    struct buf value;
    buf_init(&value, STORE_VALUE_MAX);
    int e = codec_put_event(&value, event);
    if (!e)
        e = keep_firing(c, host, event);
    if (!e)
        e = land((struct landing){c, host, event->seq, true, done, context, 0}, part, &key,
                 buf_span(&value));
    buf_done(&value);
    return e ? cannot_store(e, f) : 0;
}

/* ---- exceptions ---- */

static void clean_frames(trawl_v1_Exception *e)
{
    for (pb_size_t i = 0; i < e->frames_count; i++) {
        text_clean(e->frames[i].function);
        text_clean(e->frames[i].module);
        text_clean(e->frames[i].file);
    }
    for (pb_size_t i = 0; i < e->tags_count; i++) {
        text_clean(e->tags[i].key);
        text_clean(e->tags[i].value);
    }
    for (pb_size_t i = 0; i < e->saved_count; i++)
        text_clean(e->saved[i]);
}

static void clean_texts(trawl_v1_Exception *e)
{
    text_clean(e->type);
    text_clean(e->message);
    text_clean(e->template);
    text_clean(e->language);
    text_clean(e->process);
    text_clean(e->thread);
    text_clean(e->executable);
    text_clean(e->unit);
    text_clean(e->missing);
    clean_frames(e);
}

/* Of an agent that gave none: as good, as long as the agent's numbers go on. */
static void make_id(const struct host *host, trawl_v1_Exception *e)
{
    if (e->id.size == sizeof e->id.bytes)
        return;
    uint64_t low = xxh64(span_of(host->state_id, sizeof host->state_id), e->seq);
    uint64_t high = xxh64(span_of(host->state_id, sizeof host->state_id), ~e->seq);
    e->id.size = sizeof e->id.bytes;
    memcpy(e->id.bytes, &low, sizeof low);
    memcpy(e->id.bytes + sizeof low, &high, sizeof high);
}

/* What only the collector says is set here, whatever came. */
static void complete(const struct host *host, trawl_v1_Exception *e)
{
    clean_texts(e);
    make_id(host, e);
    stamp(host, &e->skew_us, &e->skew_error_us);
    text_copy(e->host, sizeof(e->host), host->record.name);
    e->group[0] = e->incident[0] = '\0';
    if (e->last_us < e->wall_us)
        e->last_us = e->wall_us;
    e->wall_us -= e->skew_us;
    e->last_us -= e->skew_us;
    if (!e->count)
        e->count = 1;
    if (e->count > GROUP_COUNT_MAX)
        e->count = GROUP_COUNT_MAX;
}

int ingest_exception(struct collector *c, struct host *host, trawl_v1_Exception *exception,
                     store_done_fn done, void *context, struct failure *f)
{
    if (exception->seq <= host->seen_event) {
        done_before(done, context);
        return 0;
    }
    if (!ingest_is_time(exception->wall_us) || !ingest_is_time(exception->last_us))
        return fail(f, ERR_INVALID, "exception of an impossible time");
    if (host->intake_closed)
        return cannot_store(ERR_BUSY, f);
    struct landing *landing = malloc(sizeof(*landing));
    if (!landing)
        return cannot_store(ERR_NOMEM, f);
    *landing = (struct landing){c, host, exception->seq, true, done, context, host->intake};
    complete(host, exception);
    int e = groups_count(c->groups, host, exception, record_landed, landing);
    if (e) {
        free(landing);
        return cannot_store(e, f);
    }
    host->seen_event = exception->seq;
    return 0;
}

int ingest_gap(struct collector *c, struct host *host, const trawl_v1_Gap *gap, store_done_fn done,
               void *context, struct failure *f)
{
    if (gap->last_seq <= (gap->events ? host->seen_event : host->seen_block)) {
        done_before(done, context);
        return 0;
    }
    if (gap->first_seq > gap->last_seq)
        return fail(f, ERR_INVALID, "gap that ends before it begins");
    if (!ingest_is_time(gap->from_us))
        return fail(f, ERR_INVALID, "gap of an impossible time");
    trawl_v1_Event event = {.type = trawl_v1_EventType_DATA_GAP, .wall_us = gap->from_us};
    event.seq = gap->first_seq;
    text_format(event.text, sizeof(event.text), "%s %llu to %llu were dropped: %s",
                gap->events ? "events" : "counter blocks", (unsigned long long)gap->first_seq,
                (unsigned long long)gap->last_seq, gap->reason);
    text_clean(event.text);
    stamp(host, &event.skew_us, &event.skew_error_us);
    text_copy(event.host, sizeof(event.host), host->record.name);
    char part[KEYS_PARTITION_SIZE];
    keys_event_part(part, keys_shard(host->record.name), event.wall_us);
    /* The top bit keeps a gap apart from the event whose number it has. */
    uint64_t seq = gap->first_seq | (1ull << 63) | (gap->events ? 1ull << 62 : 0);
    struct key key = keys_sample(event.wall_us, seq, host->state_id, host->record.name);
    struct buf value;
    buf_init(&value, STORE_VALUE_MAX);
    int e = codec_put_event(&value, &event);
    if (!e)
        e = land((struct landing){c, host, gap->last_seq, gap->events, done, context, 0}, part,
                 &key, buf_span(&value));
    buf_done(&value);
    return e ? cannot_store(e, f) : 0;
}
