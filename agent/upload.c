/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two calls of an upload as a small state machine; pieces are read from the file, or from the
 * window of a stream, as the call's queue drains and the rate allows. Called by uplink.
 */
#include "agent/upload.h"

#include <stdlib.h>
#include <string.h>

#include "agent/evidence.h"
#include "common/port.h"
#include "proto/codec.h"
#include "proto/methods.h"

#define STATUS_LIMIT_US UINT64_C(20000000)

struct upload {
    struct grpc *grpc;
    struct capture_artifact artifact; /* of a file */
    struct capture *capture;          /* of a stream */
    uint64_t stream_id;               /* 0: of a file */
    struct stream_run run;
    struct budget_rate *rate;
    upload_done_fn done;
    void *context;
    uv_timer_t timer; /* waits for the rate */
    int file;         /* -1: none */
    struct grpc_call *call;
    bool is_sending; /* the second call */
    bool is_sealed, is_cancelled, is_waiting;
    uint32_t next_piece, piece_count;
    trawl_v1_Artifact *meta;
    trawl_v1_Piece *piece; /* 38 KB, while sending */
    struct buf encoded;    /* the piece that the queue refused */
    bool has_encoded;
    bool sent_first;
    struct failure why;
};

/* ---- the end ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    struct upload *u = handle->data;
    upload_done_fn done = u->done;
    void *context = u->context;
    struct failure why = u->why;
    bool is_sealed = u->is_sealed && !why.code;
    if (u->file >= 0)
        port_close(u->file);
    buf_done(&u->encoded);
    free(u->piece);
    free(u->meta);
    free(u);
    if (done)
        done(context, &why, is_sealed);
}

static void finish(struct upload *u)
{
    u->call = NULL;
    u->is_waiting = false;
    uv_close((uv_handle_t *)&u->timer, on_timer_closed);
}

static void note_failure(struct upload *u, int code, const char *text)
{
    if (u->why.code == 0)
        fail(&u->why, code, "%s", text);
}

/* ---- sending pieces ---- */

/* Asked for anew each time: the capture may have dropped it in between. */
static struct stream *stream_of(struct upload *u)
{
    struct stream *stream = capture_stream(u->capture, u->stream_id);
    if (!stream)
        note_failure(u, ERR_CANCELLED, "the capture was cancelled");
    return stream;
}

static int copy_piece(struct upload *u)
{
    trawl_v1_Piece *p = u->piece;
    struct stream *stream = stream_of(u);
    struct span bytes;
    if (!stream)
        return u->why.code;
    int e = stream_piece(stream, u->next_piece, &bytes);
    if (e)
        return fail(&u->why, e, "piece %u is not here any more", (unsigned)u->next_piece);
    memcpy(p->data.bytes, bytes.data, bytes.size_bytes);
    p->data.size = (pb_size_t)bytes.size_bytes;
    p->last = p->last && u->run.is_last;
    p->has_meta = p->last || !u->sent_first;
    if (p->has_meta)
        p->meta = *stream_meta(stream);
    return 0;
}

static int read_piece(struct upload *u)
{
    trawl_v1_Piece *p = u->piece;
    size_t got = 0;
    while (got < CODEC_PIECE_SIZE) {
        uv_fs_t request;
        uv_buf_t room =
            uv_buf_init((char *)p->data.bytes + got, (unsigned)(CODEC_PIECE_SIZE - got));
        int n = uv_fs_read(NULL, &request, u->file, &room, 1,
                           (int64_t)u->next_piece * CODEC_PIECE_SIZE + (int64_t)got, NULL);
        uv_fs_req_cleanup(&request);
        if (n < 0)
            return fail(&u->why, ERR_IO, "cannot read the evidence: %s", uv_strerror(n));
        if (n == 0)
            break;
        got += (size_t)n;
    }
    p->data.size = (pb_size_t)got;
    return 0;
}

static int encode_piece(struct upload *u)
{
    trawl_v1_Piece *p = u->piece;
    p->no = u->next_piece;
    p->last = u->next_piece + 1 == u->piece_count;
    p->has_meta = p->last || !u->sent_first;
    if (p->has_meta)
        p->meta = *u->meta;
    int e = u->stream_id ? copy_piece(u) : read_piece(u);
    if (e)
        return e;
    buf_clear(&u->encoded);
    e = codec_put_piece(&u->encoded, p);
    if (e)
        return fail(&u->why, e, "cannot encode a piece: %s", err_text(e));
    u->has_encoded = true;
    return 0;
}

static void pump(struct upload *u);

static void on_rate(uv_timer_t *timer)
{
    struct upload *u = timer->data;
    u->is_waiting = false;
    pump(u);
}

/* True when the rate makes it wait. */
static bool wait_for_rate(struct upload *u)
{
    uint64_t wait_us = budget_rate_take(u->rate, CODEC_PIECE_SIZE, port_mono_us());
    if (wait_us == 0)
        return false;
    u->is_waiting = true;
    uv_timer_start(&u->timer, on_rate, (wait_us + 999) / 1000, 0);
    return true;
}

/* One piece onto the queue. ERR_LIMIT: the queue is full; ERR_AGAIN: the rate is used up. */
static int send_one(struct upload *u)
{
    if (!u->has_encoded) {
        if (wait_for_rate(u))
            return ERR_AGAIN;
        int e = encode_piece(u);
        if (e)
            return e;
    }
    int e = grpc_send(u->call, buf_span(&u->encoded));
    if (e)
        return e;
    u->has_encoded = false;
    u->sent_first = true;
    u->next_piece++;
    return 0;
}

static void pump(struct upload *u)
{
    int e = 0;
    if (!u->call || !u->is_sending || u->is_waiting)
        return;
    while (!e && u->next_piece < u->piece_count)
        e = send_one(u);
    if (e && e != ERR_LIMIT && e != ERR_AGAIN && e != ERR_CLOSED)
        grpc_cancel(u->call);
    else if (!e)
        grpc_end(u->call);
}

/* ---- the second call: Upload ---- */

static int take_stream_state(struct upload *u, const trawl_v1_UploadState *state)
{
    struct failure f = {0};
    int e = capture_stream_state(u->capture, u->stream_id, state, &u->is_sealed, &f);
    if (e)
        note_failure(u, e, f.text);
    else if (u->is_sending && !u->is_sealed && state->pieces <= u->run.first)
        note_failure(u, ERR_AGAIN, "the collector stored none of the pieces");
    return e;
}

static int on_state(void *owner, struct grpc_call *call, struct span message)
{
    struct upload *u = owner;
    trawl_v1_UploadState state;
    struct failure f;
    (void)call;
    if (codec_get_upload_state(&state, message, &f)) {
        note_failure(u, f.code, f.text);
        return f.code;
    }
    if (u->stream_id)
        return take_stream_state(u, &state);
    u->is_sealed = state.sealed && state.size_bytes == u->meta->size_bytes;
    if (u->is_sending)
        return 0;
    if (state.sealed && !u->is_sealed)
        note_failure(u, ERR_EXISTS, "another artifact has this number already");
    u->next_piece = state.pieces;
    if (u->next_piece >=
        u->piece_count) /* all there, but not sealed: an empty last piece says so */
        u->piece_count = u->next_piece + 1;
    return 0;
}

static void on_writable(void *owner, struct grpc_call *call)
{
    (void)call;
    pump(owner);
}

static void on_sent(void *owner, struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct upload *u = owner;
    if (status != GRPC_OK)
        note_failure(u, grpc_call_error(call), text[0] ? text : "the upload failed");
    else if (!u->is_sealed && (!u->stream_id || u->run.is_last))
        note_failure(u, ERR_PROTOCOL, "the collector did not seal the artifact");
    finish(u);
}

static const struct grpc_call_events send_events = {on_state, NULL, on_writable, on_sent};

static int start_sending(struct upload *u)
{
    u->is_sending = true;
    u->piece = calloc(1, sizeof *u->piece);
    if (!u->piece)
        return fail(&u->why, ERR_NOMEM, "out of memory");
    memcpy(u->piece->incident, u->meta->incident, sizeof u->piece->incident);
    u->piece->artifact = u->meta->no;
    if (!u->stream_id) {
        u->file = evidence_open_file(u->artifact.directory, u->artifact.no, &u->why);
        if (u->file < 0)
            return u->why.code;
    }
    return grpc_start(u->grpc, method_by_id(METHOD_FLEET_UPLOAD)->path, 0, &send_events, u,
                      &u->call, &u->why);
}

/* ---- the first call: UploadStatus ---- */

static void on_status_done(void *owner, struct grpc_call *call, enum grpc_status status,
                           const char *text)
{
    struct upload *u = owner;
    u->call = NULL;
    if (status != GRPC_OK)
        note_failure(u, grpc_call_error(call), text[0] ? text : "the upload failed");
    if (u->why.code || u->is_sealed || u->is_cancelled || u->stream_id || start_sending(u))
        finish(u);
    else
        pump(u);
}

static const struct grpc_call_events status_events = {on_state, NULL, NULL, on_status_done};

static int ask_status(struct upload *u, struct failure *f)
{
    trawl_v1_UploadQuery query = {.artifact = u->meta->no};
    memcpy(query.incident, u->meta->incident, sizeof query.incident);
    int e = grpc_start(u->grpc, method_by_id(METHOD_FLEET_UPLOAD_STATUS)->path, STATUS_LIMIT_US,
                       &status_events, u, &u->call, f);
    if (e)
        return e;
    buf_clear(&u->encoded);
    e = codec_put_upload_query(&u->encoded, &query);
    if (!e)
        e = grpc_send(u->call, buf_span(&u->encoded));
    if (e)
        grpc_cancel(u->call); /* done follows and tells */
    else
        grpc_end(u->call);
    return 0;
}

/* ---- opening ---- */

static void on_unused_closed(uv_handle_t *handle)
{
    struct upload *u = handle->data;
    buf_done(&u->encoded);
    free(u->piece);
    free(u->meta);
    free(u);
}

static int make(struct upload **out, uv_loop_t *loop, const struct upload *what, struct failure *f)
{
    struct upload *u = calloc(1, sizeof *u);
    if (!u)
        return fail(f, ERR_NOMEM, "out of memory");
    *u = *what;
    u->file = -1;
    buf_init(&u->encoded, trawl_v1_Piece_size + 64);
    u->timer.data = u;
    u->meta = calloc(1, sizeof *u->meta);
    if (!u->meta || uv_timer_init(loop, &u->timer)) {
        free(u->meta);
        free(u);
        return fail(f, ERR_NOMEM, "out of memory");
    }
    *out = u;
    return 0;
}

static int give_or_close(struct upload *u, int e, struct upload **out)
{
    if (e) {
        if (u->file >= 0)
            port_close(u->file);
        uv_close((uv_handle_t *)&u->timer, on_unused_closed);
    } else {
        *out = u;
    }
    return e;
}

int upload_open(struct upload **out, uv_loop_t *loop, struct grpc *grpc,
                const struct capture_artifact *artifact, struct budget_rate *rate,
                upload_done_fn done, void *context, struct failure *f)
{
    struct upload what = {
        .grpc = grpc, .artifact = *artifact, .rate = rate, .done = done, .context = context};
    struct upload *u;
    int e = make(&u, loop, &what, f);
    if (e)
        return e;
    e = evidence_load(artifact->directory, artifact->no, u->meta, f);
    if (!e) {
        u->piece_count =
            (uint32_t)((u->meta->size_bytes + CODEC_PIECE_SIZE - 1) / CODEC_PIECE_SIZE);
        if (u->piece_count == 0)
            u->piece_count = 1;
        e = ask_status(u, f);
    }
    return give_or_close(u, e, out);
}

int upload_open_stream(struct upload **out, uv_loop_t *loop, struct grpc *grpc,
                       struct capture *capture, uint64_t stream_id, struct budget_rate *rate,
                       upload_done_fn done, void *context, struct failure *f)
{
    struct upload what = {.grpc = grpc,
                          .capture = capture,
                          .stream_id = stream_id,
                          .rate = rate,
                          .done = done,
                          .context = context};
    struct upload *u;
    struct stream *stream = capture_stream(capture, stream_id);
    if (!stream)
        return fail(f, ERR_CANCELLED, "the capture was cancelled");
    int e = make(&u, loop, &what, f);
    if (e)
        return e;
    *u->meta = *stream_meta(stream);
    u->run = stream_next_run(stream);
    u->next_piece = u->run.first;
    u->piece_count = u->run.first + u->run.count;
    if (!capture_stream_is_known(capture))
        return give_or_close(u, ask_status(u, f), out);
    e = start_sending(u);
    if (e) {
        *f = u->why;
        return give_or_close(u, e, out);
    }
    capture_stream_sending(capture, stream_id);
    *out = u;
    pump(u);
    return 0;
}

void upload_cancel(struct upload *u)
{
    u->is_cancelled = true;
    note_failure(u, ERR_CANCELLED, "the capture was cancelled");
    if (u->call)
        grpc_cancel(u->call);
}
