/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gzip through zlib, which no other file includes. Invariant: on failure nothing of the member
 * stays in the buffer. Called by profile.c.
 */
#include "agent/os/linux/gzip.h"

#include <string.h>
#include <zlib.h>

#define WINDOW_BITS (15 + 16) /* the largest, in a gzip wrapper: zlib.h, deflateInit2() */
#define MEMORY_LEVEL 8        /* zlib's default: 256 KiB in all */
#define PIECE_BYTES 32768

static int deflate_all(z_stream *stream, struct span bytes, struct buf *out)
{
    uint8_t piece[PIECE_BYTES];
    int state = Z_OK, e = 0;
    while (state != Z_STREAM_END && e == 0) {
        if (stream->avail_in == 0 && bytes.size_bytes > 0) {
            size_t some = bytes.size_bytes < UINT32_MAX ? bytes.size_bytes : UINT32_MAX;
            stream->next_in = (Bytef *)bytes.data;
            stream->avail_in = (uInt)some;
            bytes = span_of(bytes.data + some, bytes.size_bytes - some);
        }
        stream->next_out = piece;
        stream->avail_out = sizeof piece;
        state = deflate(stream, bytes.size_bytes > 0 ? Z_NO_FLUSH : Z_FINISH);
        if (state == Z_STREAM_ERROR)
            return ERR_NOMEM;
        e = buf_append(out, piece, sizeof piece - stream->avail_out);
    }
    return e;
}

int gzip_put(struct span bytes, struct buf *out)
{
    z_stream stream;
    size_t before = out->size_bytes;
    memset(&stream, 0, sizeof stream);
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS, MEMORY_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return ERR_NOMEM;
    int e = deflate_all(&stream, bytes, out);
    deflateEnd(&stream);
    if (e)
        out->size_bytes = before;
    return e;
}
