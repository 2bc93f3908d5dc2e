/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An artifact that is sent while it is still being taken, without this host's disk: a bounded
 * window of pieces that the collector does not have for good yet. Invariant: a piece leaves the
 * window only when the collector said that it is stored; nothing is taken in that has no room.
 * Pure. Filled by capture_stream.c, emptied by upload.c.
 */
#ifndef TRAWL_AGENT_STREAM_H
#define TRAWL_AGENT_STREAM_H

#include "common/buf.h"
#include "trawl.pb.h"

/* Two halves: while one travels, the other fills. */
#define STREAM_RUN_PIECES 32u
#define STREAM_WINDOW_PIECES (2 * STREAM_RUN_PIECES)

struct stream;

/* Takes a copy of what is known of the artifact: incident, no, kind, process, file, encoding.
 * ERR_NOMEM. */
int stream_open(struct stream **out, const trawl_v1_Artifact *meta, struct failure *f);
void stream_close(struct stream *stream); /* NULL is fine */

/* ---- filling ---- */

size_t stream_room_bytes(const struct stream *stream);
/* ERR_LIMIT: more than there is room for; nothing was taken. */
int stream_write(struct stream *stream, struct span bytes);
/* No more bytes. Fills size and hash of *meta and keeps a copy. */
void stream_end(struct stream *stream, trawl_v1_Artifact *meta);

/* ---- sending ---- */

/* One run of pieces, sent by one call. */
struct stream_run {
    uint32_t first, count; /* pieces */
    bool is_last;          /* the artifact is complete with it */
};
/* Whether half a window, or the end, waits to be sent. */
bool stream_has_run(const struct stream *stream);
struct stream_run stream_next_run(const struct stream *stream);
const trawl_v1_Artifact *stream_meta(const struct stream *stream);
/* A piece of the window; empty when the artifact ended before it. ERR_NOTFOUND: not in the window.
 */
int stream_piece(const struct stream *stream, uint32_t no, struct span *out);
/* The collector has so many pieces for good. ERR_CORRUPT: it has fewer than it said before, which
 * are gone here; ERR_PROTOCOL: more than there are. */
int stream_stored(struct stream *stream, uint32_t pieces, struct failure *f);
bool stream_has_ended(const struct stream *stream);
uint64_t stream_size_bytes(const struct stream *stream);
/* Another number, while none was stored. */
void stream_set_number(struct stream *stream, uint32_t no);

#endif
