/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Artifacts out. Invariant: at most one stored piece is in memory per call; the next one is read
 * when the client's window has taken the last. A damaged piece ends the call, nothing wrong is
 * sent.
 */
#include "collector/fetch.h"

#include <stdlib.h>
#include <string.h>

#include "collector/incident.h"
#include "collector/keys.h"
#include "common/log.h"
#include "common/text.h"

struct fetch {
    struct call *call; /* NULL: over */
    struct collector *collector;
    char blob[KEYS_PARTITION_SIZE];
    trawl_v1_Piece piece; /* being filled */
    uint32_t next;        /* of the wire */
    uint32_t pieces;      /* stored */
    uint64_t size_bytes;
    bool reading, in_loop, found;
};

static void release(struct fetch *fetch)
{
    if (!fetch->call && !fetch->reading)
        free(fetch);
}

static int send_piece(struct fetch *fetch, struct span data, bool last)
{
    trawl_v1_Piece *p = &fetch->piece;
    struct buf wire;
    p->no = fetch->next++;
    p->data.size = (pb_size_t)data.size_bytes;
    if (data.size_bytes)
        memcpy(p->data.bytes, data.data, data.size_bytes);
    p->last = last;
    buf_init(&wire, 128 * 1024);
    int e = codec_put_piece(&wire, p);
    if (!e)
        e = call_reply(fetch->call, buf_span(&wire));
    buf_done(&wire);
    p->has_meta = false;
    return e;
}

/* A stored piece goes out as two of the wire, the first of them left out when it is not wanted. */
static void send_stored(struct fetch *fetch, struct span value)
{
    uint32_t stored = fetch->next / 2;
    bool final = stored + 1 == fetch->pieces;
    struct span rest = value;
    if (fetch->next % 2)
        span_take(&rest, rest.size_bytes < CODEC_PIECE_SIZE ? rest.size_bytes : CODEC_PIECE_SIZE,
                  &(struct span){0});
    do {
        size_t size = rest.size_bytes < CODEC_PIECE_SIZE ? rest.size_bytes : CODEC_PIECE_SIZE;
        struct span part = {0};
        span_take(&rest, size, &part);
        if (send_piece(fetch, part, final && !rest.size_bytes))
            return;
    } while (rest.size_bytes);
    if (final)
        call_finish(fetch->call, NULL);
}

static void on_read(void *context, int err, struct span value)
{
    struct fetch *fetch = context;
    struct failure f;
    fetch->reading = false;
    if (fetch->call && err) {
        fail(&f, err, "piece %u of '%s' cannot be read: %s", fetch->next / 2, fetch->blob,
             err_text(err));
        call_finish(fetch->call, &f);
    } else if (fetch->call) {
        send_stored(fetch, value);
    }
    if (!fetch->in_loop && fetch->call)
        fetch_more(fetch->call);
    if (!fetch->in_loop)
        release(fetch);
}

void fetch_more(struct call *call)
{
    struct fetch *fetch = call->state;
    if (!fetch || fetch->in_loop)
        return;
    fetch->in_loop = true;
    while (fetch->call && !call->finishing && !call_is_full(call) && !fetch->reading) {
        fetch->reading = true;
        blob_read(fetch->collector->store, fetch->blob, fetch->next / 2, on_read, fetch);
    }
    fetch->in_loop = false;
}

void fetch_ended(struct call *call)
{
    struct fetch *fetch = call->state;
    if (!fetch)
        return;
    fetch->call = NULL;
    release(fetch);
}

static void got_meta(void *context, int err, struct span value)
{
    struct fetch *fetch = context;
    struct failure f;
    fetch->found = !err && !codec_get_artifact(&fetch->piece.meta, value, &f);
    fetch->piece.has_meta = fetch->found;
}

static int look_up(struct fetch *fetch, const trawl_v1_FetchRequest *r, struct failure *f)
{
    struct collector *c = fetch->collector;
    struct incident *incident = incident_find(c->incidents, r->incident, f);
    if (!incident)
        return f->code;
    char part[KEYS_PARTITION_SIZE];
    const char *id = incident->record.id;
    keys_incident_part(part, id);
    struct key key = keys_artifact(r->host, r->artifact);
    kv_get(c->store, part, key_span(&key), got_meta, fetch);
    keys_blob(fetch->blob, id, r->host, r->artifact);
    struct blob_state state = {0};
    int e = fetch->found ? blob_state(c->store, fetch->blob, &state) : ERR_NOTFOUND;
    if (e || !state.sealed)
        return fail(f, e ? e : ERR_NOTFOUND, "incident %s has no artifact %u of host '%s'", id,
                    r->artifact, r->host);
    text_copy(fetch->piece.incident, sizeof(fetch->piece.incident), id);
    text_copy(fetch->piece.host, sizeof(fetch->piece.host), r->host);
    fetch->piece.artifact = r->artifact;
    fetch->pieces = state.pieces;
    fetch->size_bytes = state.size_bytes;
    fetch->next = r->from_piece;
    return 0;
}

int fetch_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_FetchRequest r;
    int e = codec_get_fetch_request(&r, request, f);
    if (e)
        return e;
    struct fetch *fetch = calloc(1, sizeof(*fetch));
    if (!fetch)
        return fail(f, ERR_NOMEM, "out of memory");
    fetch->call = call;
    fetch->collector = call->collector;
    call->state = fetch;
    e = look_up(fetch, &r, f);
    if (e)
        return e;
    uint64_t wire_pieces = (fetch->size_bytes + CODEC_PIECE_SIZE - 1) / CODEC_PIECE_SIZE;
    if (fetch->next > wire_pieces)
        return fail(f, ERR_INVALID, "artifact %u has only %llu pieces", r.artifact,
                    (unsigned long long)wire_pieces);
    if (fetch->next == wire_pieces) { /* empty, or all of it is there already */
        if (!send_piece(fetch, (struct span){0}, true))
            call_finish(call, NULL);
        return 0;
    }
    log_info("%s/%s fetches '%s'", call->who->role, call->who->name, fetch->blob);
    fetch_more(call);
    return 0;
}
