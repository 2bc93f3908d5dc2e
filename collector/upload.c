/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fleet.UploadStatus and Fleet.Upload: artifacts in, piece by piece, in one call or in many. Two
 * pieces of the wire make one stored piece. Invariants: an artifact is sealed only when its size
 * and SHA-256 are those the agent named; what a reply or UploadStatus counts is stored for good, so
 * the agent need not keep it. Registered in serve.c.
 */
#include "collector/upload.h"

#include <stdlib.h>
#include <string.h>

#include "collector/incident.h"
#include "collector/ingest.h"
#include "collector/keys.h"
#include "collector/partial.h"
#include "collector/serve.h"
#include "common/text.h"

#define MAX_WRITING 8
#define MAX_NUMBER 1000 /* artifacts of a host in one incident */

struct upload {
    struct call *call; /* NULL: the call is over */
    struct collector *collector;
    struct host *host;
    char blob[KEYS_PARTITION_SIZE];
    trawl_v1_Artifact meta;
    struct partial *partial; /* NULL: given back */
    struct buf half;         /* what does not fill a stored piece yet */
    uint32_t stored;         /* stored pieces, those being written included */
    uint32_t next;           /* number of the next piece of the wire */
    uint64_t size_bytes;     /* of the stored pieces */
    int waiting;             /* callbacks of the store to come */
    bool paused;
    bool last;       /* the last piece came: to be sealed */
    bool ended;      /* no more pieces in this call */
    bool sealing;    /* from here on it is not given up */
    bool was_sealed; /* but not recorded */
};

static struct host *host_of(struct call *call, struct failure *f)
{
    struct host *host = roster_find(call->collector->roster, call->who->name);
    return roster_admit(host, call->who, f) ? NULL : host;
}

static int check_target(struct call *call, const struct host *host, const char *incident,
                        struct failure *f)
{
    if (incident_accepts(call->collector->incidents, incident, host))
        return 0;
    return fail(f, ERR_DENIED, "host '%s' has no order in incident '%s' that has not ended",
                host->record.name, incident);
}

static void on_record(void *context, int err, struct span value)
{
    (void)value;
    *(int *)context = err;
}

int upload_find_record(struct collector *c, const char *incident, const char *host, uint32_t no)
{
    char part[KEYS_PARTITION_SIZE];
    int err = ERR_NOTFOUND;
    struct key key = keys_artifact(host, no);
    keys_incident_part(part, incident);
    kv_get(c->store, part, key_span(&key), on_record, &err);
    return err;
}

/* A collector that died between sealing and recording left bytes that nobody would ever find. */
static bool is_recorded(struct collector *c, const char *incident, const char *host, uint32_t no)
{
    return !upload_find_record(c, incident, host, no);
}

/* ---- status ---- */

static void answer_state(struct call *call, uint32_t pieces, uint64_t size_bytes, bool sealed)
{
    trawl_v1_UploadState state = {pieces, size_bytes, sealed};
    struct buf wire;
    buf_init(&wire, 64);
    codec_put_upload_state(&wire, &state);
    call_answer(call, buf_span(&wire));
    buf_done(&wire);
}

static int status_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_UploadQuery query;
    struct host *host = host_of(call, f);
    if (!host || codec_get_upload_query(&query, request, f))
        return f->code;
    int e = check_target(call, host, query.incident, f);
    if (e)
        return e;
    char blob[KEYS_PARTITION_SIZE];
    keys_blob(blob, query.incident, host->record.name, query.artifact);
    struct blob_state state = {0};
    if (blob_state(call->collector->store, blob, &state))
        memset(&state, 0, sizeof(state));
    bool sealed = state.sealed &&
                  is_recorded(call->collector, query.incident, host->record.name, query.artifact);
    answer_state(call, state.pieces * 2, state.size_bytes, sealed);
    return 0;
}

/* ---- upload ---- */

/* The hash stays for the artifact's next call. */
static void give_partial(struct upload *u, bool keep)
{
    if (u->partial)
        partial_give(u->partial, keep);
    u->partial = NULL;
}

static void release(struct upload *u)
{
    if (u->call || u->waiting)
        return;
    give_partial(u, true);
    buf_done(&u->half);
    free(u);
}

static void give_up(struct upload *u, const struct failure *why)
{
    if (u->call)
        call_finish(u->call, why);
}

static void flow(struct upload *u)
{
    bool stop = u->waiting > MAX_WRITING;
    if (!u->call || stop == u->paused)
        return;
    u->paused = stop;
    if (stop)
        grpc_pause(u->call->grpc);
    else
        grpc_resume(u->call->grpc);
}

static void on_recorded(void *context, const struct failure *why)
{
    struct upload *u = context;
    u->waiting--;
    u->sealing = false;
    give_partial(u, false);
    if (u->call && why->code)
        give_up(u, why);
    else if (u->call)
        answer_state(u->call, u->next, u->size_bytes, true);
    release(u);
}

static void on_sealed(void *context, const struct failure *why)
{
    struct upload *u = context;
    struct failure f = *why;
    u->meta.sealed = true;
    if (!f.code && !incident_artifact(u->collector->incidents, &u->meta, on_recorded, u, &f))
        return;
    on_recorded(u, &f);
}

/* The agent hears of the mismatch when nothing of the artifact is left: it may then begin anew. */
static void on_dropped(void *context, const struct failure *why)
{
    (void)why;
    struct upload *u = context;
    struct failure f;
    fail(&f, ERR_CORRUPT, "artifact %u of %s differs from the size and hash named by the agent",
         u->meta.no, u->meta.incident);
    on_recorded(u, &f);
}

static void seal(struct upload *u)
{
    static const struct failure none = {0};
    uint8_t sha256[32];
    partial_finish(u->partial, sha256);
    bool same = u->meta.sha256.size == 32 && !memcmp(u->meta.sha256.bytes, sha256, 32) &&
                u->meta.size_bytes == u->size_bytes;
    struct store *store = u->collector->store;
    u->waiting++;
    u->sealing = true;
    if (same && u->was_sealed) {
        on_sealed(u, &none);
        return;
    }
    int e = same ? blob_seal(store, u->blob, sha256, u->size_bytes, on_sealed, u)
                 : blob_delete(store, u->blob, on_dropped, u);
    if (e) {
        struct failure f;
        fail(&f, e, "the collector cannot store now: %s", err_text(e));
        on_recorded(u, &f);
    }
}

static void on_hashed(void *context, int err)
{
    struct upload *u = context;
    struct failure f;
    u->waiting--;
    if (err) {
        fail(&f, err, "a stored piece of artifact %u cannot be read: %s", u->meta.no,
             err_text(err));
        give_up(u, &f);
    } else if (u->call && !u->call->finishing) {
        seal(u);
        return;
    }
    release(u);
}

/* The call is over for its part: seals, or says what is stored. */
static void end_call(struct upload *u)
{
    if (!u->call || u->call->finishing || u->waiting || !u->partial)
        return;
    if (u->last) {
        u->waiting++;
        partial_want(u->partial);
    } else if (u->ended) {
        give_partial(u, true); /* before the agent can begin the next call */
        answer_state(u->call, u->stored * 2, u->size_bytes, false);
    }
}

static void on_written(void *context, const struct failure *why)
{
    struct upload *u = context;
    u->waiting--;
    if (why->code)
        give_up(u, why);
    else if (u->partial)
        partial_stored(u->partial);
    flow(u);
    if (u->waiting || !u->call)
        release(u);
    else
        end_call(u);
}

static int write_half(struct upload *u, struct failure *f)
{
    u->waiting++;
    int e = blob_write(u->collector->store, u->blob, u->stored, buf_span(&u->half), on_written, u);
    if (e) {
        u->waiting--;
        return fail(f, e, "the collector cannot store now: %s", err_text(e));
    }
    u->stored++;
    u->size_bytes += u->half.size_bytes;
    buf_clear(&u->half);
    return 0;
}

static bool on_interrupt(void *context, const struct failure *why)
{
    struct upload *u = context;
    if (u->sealing)
        return false;
    give_up(u, why);
    return true;
}

/* ---- the first piece of a call ---- */

/* What is there already; all of it stays. */
static int look_up(struct upload *u, struct failure *f)
{
    struct blob_state state = {0};
    if (blob_state(u->collector->store, u->blob, &state))
        memset(&state, 0, sizeof(state));
    u->was_sealed = state.sealed;
    u->stored = state.pieces;
    u->next = state.pieces * 2;
    u->size_bytes = state.size_bytes;
    const char *host = u->host->record.name;
    if (state.sealed && is_recorded(u->collector, u->meta.incident, host, u->meta.no)) {
        answer_state(u->call, u->next, u->size_bytes, true);
        return 0;
    }
    struct partial_owner owner = {on_hashed, on_interrupt, u};
    return partial_take(&u->partial, u->collector->partials, u->blob, host, state.pieces, &owner,
                        f);
}

/* What is told from another artifact of the host is of no use without it. */
static int check_base(struct call *call, const struct host *host, const trawl_v1_Artifact *meta,
                      struct failure *f)
{
    if (!meta->base_no ||
        is_recorded(call->collector, meta->base_incident, host->record.name, meta->base_no))
        return 0;
    return fail(f, ERR_NOTFOUND, "artifact %u of '%s', from which this one is told, is not here",
                meta->base_no, meta->base_incident);
}

static int begin(struct call *call, const trawl_v1_Piece *piece, struct failure *f)
{
    struct host *host = host_of(call, f);
    if (!host)
        return f->code;
    int e = check_target(call, host, piece->incident, f);
    if (e)
        return e;
    if (!piece->artifact || piece->artifact > MAX_NUMBER)
        return fail(f, ERR_LIMIT, "artifact number %u is not 1 to %d", piece->artifact, MAX_NUMBER);
    e = piece->has_meta ? check_base(call, host, &piece->meta, f) : 0;
    if (e)
        return e;
    struct upload *u = calloc(1, sizeof(*u));
    if (!u)
        return fail(f, ERR_NOMEM, "out of memory");
    u->call = call;
    u->collector = call->collector;
    u->host = host;
    buf_init(&u->half, STORE_PIECE_SIZE);
    text_copy(u->meta.incident, sizeof(u->meta.incident), piece->incident);
    u->meta.no = piece->artifact;
    keys_blob(u->blob, piece->incident, host->record.name, piece->artifact);
    call->state = u;
    return look_up(u, f);
}

/* ---- pieces ---- */

static void clean(trawl_v1_Artifact *a)
{
    text_clean(a->kind);
    text_clean(a->process);
    text_clean(a->file);
    text_clean(a->missing);
    text_clean(a->encoding);
    text_clean(a->base_incident);
    for (pb_size_t i = 0; i < a->stacks_count; i++) {
        text_clean(a->stacks[i].frames);
        text_clean(a->stacks[i].process);
    }
}

static void take_meta(struct upload *u, const trawl_v1_Artifact *meta)
{
    trawl_v1_Artifact a = *meta;
    clean(&a);
    const trawl_v1_Host *host = &u->host->record;
    text_copy(a.incident, sizeof(a.incident), u->meta.incident);
    text_copy(a.host, sizeof(a.host), host->name);
    a.no = u->meta.no;
    a.skew_us = host->skew_known ? host->skew_us : 0;
    a.skew_error_us = host->skew_known ? host->skew_error_us : 0;
    a.sealed = false;
    u->meta = a;
}

static int add_bytes(struct upload *u, struct span data, struct failure *f)
{
    int e = buf_append_span(&u->half, data);
    if (e)
        return fail(f, e, "out of memory");
    bool whole = u->half.size_bytes == STORE_PIECE_SIZE || (u->last && u->half.size_bytes);
    return whole ? write_half(u, f) : 0;
}

static int check_piece(const struct upload *u, const trawl_v1_Piece *p, struct failure *f)
{
    if (!u || u->last)
        return fail(f, ERR_PROTOCOL, "a piece came after the last one");
    if (strcmp(p->incident, u->meta.incident) != 0 || p->artifact != u->meta.no)
        return fail(f, ERR_PROTOCOL, "one upload carries one artifact");
    if (p->no != u->next)
        return fail(f, ERR_CONFLICT, "piece %u came, piece %u was expected: ask UploadStatus",
                    p->no, u->next);
    if (!p->last && p->data.size != CODEC_PIECE_SIZE)
        return fail(f, ERR_PROTOCOL, "piece %u has %u bytes, not %d", p->no, (unsigned)p->data.size,
                    CODEC_PIECE_SIZE);
    if (p->last && !p->has_meta)
        return fail(f, ERR_PROTOCOL, "the last piece came without its artifact's description");
    return 0;
}

static int take_piece(struct upload *u, const trawl_v1_Piece *p, struct failure *f)
{
    int e = check_piece(u, p, f);
    if (e)
        return e;
    if (p->has_meta)
        take_meta(u, &p->meta);
    u->next++;
    u->last = p->last;
    e = add_bytes(u, span_of(p->data.bytes, p->data.size), f);
    flow(u);
    if (!e)
        end_call(u);
    return e;
}

static int upload_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_Piece *p = malloc(sizeof(*p));
    if (!p)
        return fail(f, ERR_NOMEM, "out of memory");
    int e = codec_get_piece(p, request, f);
    if (!e && !call->state)
        e = begin(call, p, f);
    if (!e && !call->finishing)
        e = take_piece(call->state, p, f);
    free(p);
    return e;
}

/* A piece that is half a stored one is not stored: it is not counted, and comes again. */
static int upload_end(struct call *call, struct failure *f)
{
    struct upload *u = call->state;
    if (!u)
        return fail(f, ERR_PROTOCOL, "the upload ended before its first piece");
    u->ended = true;
    end_call(u);
    return 0;
}

static void upload_ended(struct call *call)
{
    struct upload *u = call->state;
    if (!u)
        return;
    u->call = NULL;
    release(u);
}

const struct handler upload_handlers[] = {
    {METHOD_FLEET_UPLOAD_STATUS, status_message, NULL, NULL, NULL},
    {METHOD_FLEET_UPLOAD, upload_message, upload_end, NULL, upload_ended},
    {.message = NULL},
};
