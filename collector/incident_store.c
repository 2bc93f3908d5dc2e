/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows in, rows out. Invariant: a row of inc/<id> is decoded whole or left out (a damaged one is
 * counted by the store), so that nothing half-read is ever acted upon.
 */
#include "collector/incident_store.h"

#include <stdlib.h>
#include <string.h>

#include "collector/keys.h"

#define ROWS_PER_COMMIT 500

/* ---- memory ---- */

struct incident *incident_new(struct incidents *incidents, const trawl_v1_Incident *record)
{
    struct incident *incident = calloc(1, sizeof(*incident));
    if (!incident)
        return NULL;
    incident->record = *record;
    incident->incidents = incidents;
    list_init(&incident->captures);
    list_init(&incident->watchers);
    list_insert(&incidents->all, &incident->link);
    list_insert(incident_bucket(incidents, incident->record.id), &incident->hash_link);
    incidents->count++;
    return incident;
}

struct capture *capture_new(struct incident *incident, uint32_t no,
                            const trawl_v1_CaptureRequest *request)
{
    struct capture *capture = calloc(1, sizeof(*capture));
    if (!capture)
        return NULL;
    capture->incident = incident;
    capture->no = no;
    capture->request = *request;
    capture->expires_us = incident->record.expires_us;
    list_init(&capture->targets);
    list_init(&capture->unsent);
    list_init(&capture->queued[0]);
    list_init(&capture->queued[1]);
    list_push(&incident->captures, &capture->link);
    if (no > incident->capture_count)
        incident->capture_count = no;
    return capture;
}

struct target *target_new(struct capture *capture, struct host *host, const trawl_v1_Target *record)
{
    struct target *target = calloc(1, sizeof(*target));
    if (!target)
        return NULL;
    target->capture = capture;
    target->host = host;
    target->record = *record;
    list_init(&target->waiting);
    list_init(&target->due);
    list_push(&capture->targets, &target->link);
    list_push(&host->targets, &target->of_host);
    if (!state_is_final(record->state))
        capture->open++;
    target_recount(target);
    return target;
}

void capture_free(struct capture *capture)
{
    LIST_EACH (at, &capture->targets) {
        struct target *target = LIST_ENTRY(at, struct target, link);
        list_remove(&target->of_host);
        free(target);
    }
    list_remove(&capture->link);
    free(capture);
}

void incident_free(struct incident *incident)
{
    LIST_EACH (at, &incident->captures)
        capture_free(LIST_ENTRY(at, struct capture, link));
    list_remove(&incident->link);
    list_remove(&incident->hash_link);
    free(incident);
}

/* ---- out ---- */

static int put_row(struct incidents *incidents, const char *part, const struct key *key,
                   const struct buf *value, store_done_fn done, void *context)
{
    struct store_op op = {STORE_PUT, key_span(key), buf_span(value)};
    return kv_commit(incidents->collector->store, part, &op, 1, done, context);
}

int incident_store_put(struct incidents *incidents, const struct incident *incident,
                       store_done_fn done, void *context)
{
    struct buf value;
    buf_init(&value, STORE_VALUE_MAX);
    struct key key = keys_incident(incident->record.created_us, incident->record.id);
    int e = codec_put_incident(&value, &incident->record);
    if (!e)
        e = put_row(incidents, "incidents", &key, &value, done, context);
    buf_done(&value);
    return e;
}

/* Of an exception's capture a row of its own: a host can have several of them in an incident. */
static struct key target_key(const struct target *target)
{
    return target->capture->request.exception.size
               ? keys_target_of(target->record.host, target->record.capture)
               : keys_target(target->record.host);
}

int incident_store_put_target(struct incidents *incidents, const struct target *target,
                              store_done_fn done, void *context)
{
    char part[KEYS_PARTITION_SIZE];
    keys_incident_part(part, target->record.incident);
    struct buf value;
    buf_init(&value, STORE_VALUE_MAX);
    struct key key = target_key(target);
    int e = codec_put_target(&value, &target->record);
    if (!e)
        e = put_row(incidents, part, &key, &value, done, context);
    buf_done(&value);
    return e;
}

int incident_store_put_artifact(struct incidents *incidents, const trawl_v1_Artifact *artifact,
                                store_done_fn done, void *context)
{
    char part[KEYS_PARTITION_SIZE];
    keys_incident_part(part, artifact->incident);
    struct buf value;
    buf_init(&value, STORE_VALUE_MAX);
    struct key key = keys_artifact(artifact->host, artifact->no);
    int e = codec_put_artifact(&value, artifact);
    if (!e)
        e = put_row(incidents, part, &key, &value, done, context);
    buf_done(&value);
    return e;
}

/* The commits of one capture: `done` hears once, of the first that failed if any did. */
struct commits {
    int pending;
    bool all_queued;
    struct failure why;
    store_done_fn done; /* NULL: could not be queued, and the caller knows */
    void *context;
};

static void commits_settle(struct commits *commits)
{
    if (commits->pending || !commits->all_queued)
        return;
    if (commits->done)
        commits->done(commits->context, &commits->why);
    free(commits);
}

static void on_commit(void *context, const struct failure *why)
{
    struct commits *commits = context;
    commits->pending--;
    if (why->code && !commits->why.code)
        commits->why = *why;
    commits_settle(commits);
}

/* Rows gathered for one commit; values lie one after the other in `bytes`. */
struct batch {
    struct store_op ops[ROWS_PER_COMMIT];
    struct key keys[ROWS_PER_COMMIT];
    size_t offsets[ROWS_PER_COMMIT + 1];
    size_t count;
    struct buf bytes;
};

static int batch_commit(struct incidents *incidents, const char *part, struct batch *b,
                        struct commits *commits)
{
    for (size_t i = 0; i < b->count; i++) {
        struct span value =
            span_of(b->bytes.data + b->offsets[i], b->offsets[i + 1] - b->offsets[i]);
        b->ops[i] = (struct store_op){STORE_PUT, key_span(&b->keys[i]), value};
    }
    int e = kv_commit(incidents->collector->store, part, b->ops, b->count, on_commit, commits);
    commits->pending += !e;
    b->count = 0;
    buf_clear(&b->bytes);
    return e;
}

static int batch_targets(struct incidents *incidents, struct capture *capture, const char *part,
                         struct batch *b, struct commits *commits)
{
    int e = codec_put_capture_request(&b->bytes, &capture->request);
    b->keys[b->count] = keys_capture(capture->no);
    b->offsets[++b->count] = b->bytes.size_bytes;
    LIST_EACH (at, &capture->targets) {
        const struct target *t = LIST_ENTRY(at, struct target, link);
        if (!e && b->count == ROWS_PER_COMMIT)
            e = batch_commit(incidents, part, b, commits);
        if (!e)
            e = codec_put_target(&b->bytes, &t->record);
        if (e)
            return e;
        b->keys[b->count] = target_key(t);
        b->offsets[++b->count] = b->bytes.size_bytes;
    }
    return e ? e : batch_commit(incidents, part, b, commits);
}

int incident_store_put_capture(struct incidents *incidents, struct capture *capture,
                               store_done_fn done, void *context)
{
    char part[KEYS_PARTITION_SIZE];
    keys_incident_part(part, capture->incident->record.id);
    struct batch *b = calloc(1, sizeof(*b));
    struct commits *commits = calloc(1, sizeof(*commits));
    if (!b || !commits) {
        free(b);
        free(commits);
        return ERR_NOMEM;
    }
    buf_init(&b->bytes, (size_t)ROWS_PER_COMMIT * STORE_VALUE_MAX);
    int e = batch_targets(incidents, capture, part, b, commits);
    buf_done(&b->bytes);
    free(b);
    commits->done = e ? NULL : done;
    commits->context = context;
    commits->all_queued = true;
    if (!commits->pending) /* nothing was queued: e says why */
        free(commits);
    return e;
}

/* ---- in ---- */

static int read_target(void *context, struct span key, struct span value)
{
    (void)key;
    const struct incident_rows *rows = context;
    trawl_v1_Target target;
    struct failure f;
    return codec_get_target(&target, value, &f) ? 0 : rows->target(rows->context, &target);
}

static int read_artifact(void *context, struct span key, struct span value)
{
    (void)key;
    const struct incident_rows *rows = context;
    trawl_v1_Artifact artifact;
    struct failure f;
    return codec_get_artifact(&artifact, value, &f) ? 0 : rows->artifact(rows->context, &artifact);
}

int incident_read(struct incidents *incidents, const struct incident *incident,
                  const struct incident_rows *rows)
{
    char part[KEYS_PARTITION_SIZE];
    keys_incident_part(part, incident->record.id);
    struct store *store = incidents->collector->store;
    struct incident_rows copy = *rows;
    int e = 0;
    if (rows->target)
        e = kv_scan_all(store, part, span_str("t"), span_str("t"), read_target, &copy);
    if (!e && rows->artifact)
        e = kv_scan_all(store, part, span_str("a"), span_str("a"), read_artifact, &copy);
    return e;
}

static int sum_target(void *context, const trawl_v1_Target *t)
{
    trawl_v1_Incident *sum = context;
    incident_count_state(sum, t->state, 1);
    sum->processes += t->processes;
    if (t->longest_pause_us > sum->longest_pause_us)
        sum->longest_pause_us = t->longest_pause_us;
    return 0;
}

static int sum_artifact(void *context, const trawl_v1_Artifact *a)
{
    trawl_v1_Incident *sum = context;
    sum->artifacts++;
    sum->size_bytes += a->size_bytes;
    return 0;
}

int incident_store_summarise(struct incidents *incidents, struct incident *incident)
{
    trawl_v1_Incident *sum = &incident->record;
    sum->states_count = 0;
    sum->artifacts = sum->processes = 0;
    sum->size_bytes = sum->longest_pause_us = 0;
    struct incident_rows rows = {sum_target, sum_artifact, sum};
    return incident_read(incidents, incident, &rows);
}

/* ---- loading ---- */

static int load_incident(void *context, struct span key, struct span value)
{
    (void)key;
    trawl_v1_Incident record;
    struct failure f;
    if (codec_get_incident(&record, value, &f))
        return 0;
    return incident_new(context, &record) ? 0 : ERR_NOMEM;
}

struct loading {
    struct incidents *incidents;
    struct incident *incident;
};

static int load_capture(void *context, struct span key, struct span value)
{
    struct loading *l = context;
    trawl_v1_CaptureRequest request;
    struct failure f;
    struct span number = key;
    if (key.size_bytes != 5 || codec_get_capture_request(&request, value, &f))
        return 0;
    number.data++;
    uint32_t no = (uint32_t)number.data[0] << 24 | (uint32_t)number.data[1] << 16 |
                  (uint32_t)number.data[2] << 8 | number.data[3];
    struct capture *capture = capture_new(l->incident, no, &request);
    if (!capture)
        return ERR_NOMEM;
    capture->stored = true;
    return 0;
}

static struct capture *capture_find(struct incident *incident, uint32_t no)
{
    LIST_EACH (at, &incident->captures) {
        struct capture *capture = LIST_ENTRY(at, struct capture, link);
        if (capture->no == no)
            return capture;
    }
    return NULL;
}

static int load_target(void *context, const trawl_v1_Target *record)
{
    struct loading *l = context;
    struct capture *capture = capture_find(l->incident, record->capture);
    struct host *host = roster_find(l->incidents->collector->roster, record->host);
    if (!capture || !host)
        return 0;
    struct target *target = target_new(capture, host, record);
    if (!target)
        return ERR_NOMEM;
    target->summed.state = record->state; /* by incident_store_summarise() */
    target->summed.processes = record->processes;
    return 0;
}

static int load_open(struct incidents *incidents, struct incident *incident)
{
    struct loading l = {incidents, incident};
    char part[KEYS_PARTITION_SIZE];
    keys_incident_part(part, incident->record.id);
    int e = kv_scan_all(incidents->collector->store, part, span_str("c"), span_str("c"),
                        load_capture, &l);
    if (incident->record.finished) { /* only the number of captures matters */
        LIST_EACH (at, &incident->captures)
            capture_free(LIST_ENTRY(at, struct capture, link));
        return e;
    }
    struct incident_rows rows = {load_target, NULL, &l};
    if (!e)
        e = incident_store_summarise(incidents, incident);
    return e ? e : incident_read(incidents, incident, &rows);
}

int incident_store_load(struct incidents *incidents, struct failure *f)
{
    int e = kv_scan_all(incidents->collector->store, "incidents", (struct span){0},
                        (struct span){0}, load_incident, incidents);
    LIST_EACH (at, &incidents->all)
        if (!e)
            e = load_open(incidents, LIST_ENTRY(at, struct incident, link));
    return e ? fail(f, e, "cannot read the incidents from the store: %s", err_text(e)) : 0;
}
