/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zstd (RFC 8878): whole frames in one call each, and a stream packed with little memory. Pure.
 * Called by the ring, the uplink and the worker.
 */
#ifndef TRAWL_COMMON_ZIP_H
#define TRAWL_COMMON_ZIP_H

#include "common/buf.h"

/* Appends the compressed form of `in` to `out`. level 1..19. ERR_LIMIT, ERR_NOMEM. */
int zip_pack(struct span in, int level, struct buf *out);
/* Appends the plain form; refuses (ERR_LIMIT) when it would pass out's limit, ERR_CORRUPT. */
int zip_unpack(struct span in, struct buf *out);

/*
 * Packs what is fed into frames with checksums, one behind the other, each of at most
 * ZIP_STREAM_FRAME_BYTES of plain bytes and with a window of at most 1 MiB. `write` gets packed
 * bytes, at most ZIP_STREAM_OUT_BYTES at once; its error ends the stream and is returned.
 */
#define ZIP_STREAM_FRAME_BYTES ((size_t)16 << 20)
#define ZIP_STREAM_OUT_BYTES ((size_t)32 << 10)
struct zip_stream;
typedef int (*zip_write_fn)(void *context, struct span packed);

/* level 1..3. Allocates all that the stream will ever need. ERR_NOMEM. */
int zip_stream_open(struct zip_stream **out, int level, zip_write_fn write, void *context);
int zip_stream_feed(struct zip_stream *stream, struct span plain);
/* Ends the last frame. A stream that was fed nothing gives one empty frame. */
int zip_stream_end(struct zip_stream *stream);
/* What it has allocated. */
size_t zip_stream_memory_bytes(const struct zip_stream *stream);
void zip_stream_close(struct zip_stream *stream); /* NULL is fine */

#endif
