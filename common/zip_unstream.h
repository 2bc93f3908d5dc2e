/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacks a stream of zstd frames (RFC 8878), one behind the other, that comes in pieces of any
 * size. Nothing of what comes is believed: not the size a frame claims, not the memory it asks for.
 * Pure. Called by the CLI when it fetches.
 */
#ifndef TRAWL_COMMON_ZIP_UNSTREAM_H
#define TRAWL_COMMON_ZIP_UNSTREAM_H

#include "common/buf.h"

struct zip_unstream;
/* Plain bytes, in order, at most 128 KiB at once; an error ends the stream and is returned. */
typedef int (*zip_take_fn)(void *context, struct span plain);

/* At most `limit_bytes` plain bytes are given out. ERR_NOMEM. */
int zip_unstream_open(struct zip_unstream **out, uint64_t limit_bytes, zip_take_fn take,
                      void *context);
/* ERR_CORRUPT (not zstd, or a checksum is wrong), ERR_LIMIT (more than the limit, or a window above
 * 8 MiB), ERR_NOMEM, or what `take` returned. After an error only close. */
int zip_unstream_feed(struct zip_unstream *stream, struct span packed);
/* ERR_CORRUPT when a frame has begun and not ended, or nothing came at all. */
int zip_unstream_end(const struct zip_unstream *stream);
void zip_unstream_close(struct zip_unstream *stream); /* NULL is fine */

#endif
