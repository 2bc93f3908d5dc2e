/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of pieces. The one behind the last whole piece is being filled. Called by capture_stream.c
 * and upload.c.
 */
#include "agent/stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/pki.h"
#include "proto/codec.h"

struct stream {
    trawl_v1_Artifact meta;
    struct pki_sha256 *hash;
    uint64_t size_bytes; /* of the artifact so far */
    uint32_t first;      /* number of the oldest piece in the window */
    bool has_ended;
    uint8_t pieces[STREAM_WINDOW_PIECES][CODEC_PIECE_SIZE];
};

int stream_open(struct stream **out, const trawl_v1_Artifact *meta, struct failure *f)
{
    struct stream *s = calloc(1, sizeof *s);
    if (s)
        s->hash = pki_sha256_open();
    if (!s || !s->hash) {
        free(s);
        return fail(f, ERR_NOMEM, "out of memory");
    }
    s->meta = *meta;
    *out = s;
    return 0;
}

void stream_close(struct stream *s)
{
    if (!s)
        return;
    if (s->hash)
        pki_sha256_close(s->hash, NULL);
    free(s);
}

/* ---- filling ---- */

static uint64_t window_start_bytes(const struct stream *s)
{
    return (uint64_t)s->first * CODEC_PIECE_SIZE;
}

size_t stream_room_bytes(const struct stream *s)
{
    return sizeof s->pieces - (size_t)(s->size_bytes - window_start_bytes(s));
}

int stream_write(struct stream *s, struct span bytes)
{
    assert(!s->has_ended);
    if (bytes.size_bytes > stream_room_bytes(s))
        return ERR_LIMIT;
    pki_sha256_add(s->hash, bytes);
    while (bytes.size_bytes > 0) {
        size_t piece = (size_t)(s->size_bytes / CODEC_PIECE_SIZE % STREAM_WINDOW_PIECES);
        size_t at = (size_t)(s->size_bytes % CODEC_PIECE_SIZE);
        size_t some = CODEC_PIECE_SIZE - at;
        if (some > bytes.size_bytes)
            some = bytes.size_bytes;
        memcpy(s->pieces[piece] + at, bytes.data, some);
        s->size_bytes += some;
        bytes = span_of(bytes.data + some, bytes.size_bytes - some);
    }
    return 0;
}

void stream_end(struct stream *s, trawl_v1_Artifact *meta)
{
    assert(!s->has_ended);
    s->has_ended = true;
    meta->no = s->meta.no;
    meta->size_bytes = s->size_bytes;
    meta->sha256.size = 32;
    pki_sha256_close(s->hash, meta->sha256.bytes);
    s->hash = NULL;
    s->meta = *meta;
}

/* ---- sending ---- */

static uint32_t whole_pieces(const struct stream *s)
{
    return (uint32_t)(s->size_bytes / CODEC_PIECE_SIZE);
}

/* Of an artifact that has ended: all, at least one, the last one perhaps not whole. When all that
 * it has were stored and it is not sealed, an empty piece behind them says that it is complete. */
static uint32_t all_pieces(const struct stream *s)
{
    uint32_t all = (uint32_t)((s->size_bytes + CODEC_PIECE_SIZE - 1) / CODEC_PIECE_SIZE);
    return all > s->first ? all : s->first + 1;
}

bool stream_has_run(const struct stream *s)
{
    return s->has_ended || whole_pieces(s) - s->first >= STREAM_RUN_PIECES;
}

struct stream_run stream_next_run(const struct stream *s)
{
    uint32_t end = s->has_ended ? all_pieces(s) : whole_pieces(s);
    struct stream_run run = {s->first, end - s->first, s->has_ended};
    if (run.count > STREAM_RUN_PIECES)
        run = (struct stream_run){s->first, STREAM_RUN_PIECES, false};
    return run;
}

const trawl_v1_Artifact *stream_meta(const struct stream *s)
{
    return &s->meta;
}

int stream_piece(const struct stream *s, uint32_t no, struct span *out)
{
    uint64_t from = (uint64_t)no * CODEC_PIECE_SIZE;
    uint64_t left = s->size_bytes > from ? s->size_bytes - from : 0;
    if (no < s->first || (left < CODEC_PIECE_SIZE && !s->has_ended))
        return ERR_NOTFOUND;
    *out = span_of(s->pieces[no % STREAM_WINDOW_PIECES],
                   left < CODEC_PIECE_SIZE ? (size_t)left : CODEC_PIECE_SIZE);
    return 0;
}

int stream_stored(struct stream *s, uint32_t pieces, struct failure *f)
{
    /* An odd last piece is counted as a stored pair there. */
    uint32_t most = s->has_ended ? all_pieces(s) + 1 : whole_pieces(s);
    if (pieces < s->first)
        return fail(f, ERR_CORRUPT,
                    "the collector has lost what it said it had stored: piece %u of %u",
                    (unsigned)pieces, (unsigned)s->first);
    if (pieces > most)
        return fail(f, ERR_PROTOCOL, "the collector says it has %u pieces of %u", (unsigned)pieces,
                    (unsigned)most);
    s->first = pieces;
    return 0;
}

bool stream_has_ended(const struct stream *s)
{
    return s->has_ended;
}

uint64_t stream_size_bytes(const struct stream *s)
{
    return s->size_bytes;
}

void stream_set_number(struct stream *s, uint32_t no)
{
    assert(s->first == 0);
    s->meta.no = no;
}
