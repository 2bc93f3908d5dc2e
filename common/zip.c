/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zstd frames (RFC 8878) with their checksum, one frame per call. Invariant: unpacking never writes
 * past the limit of `out`, whatever the frame claims, and takes nothing but one whole frame; a
 * stream allocates nothing after it was opened. Called by the spool, the uplink, the store and the
 * worker. The only includer of zstd.h. Pure.
 */
#include "common/zip.h"

#include <assert.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/* Frames of zip_pack() stay within 8 MiB of history up to level 19; a foreign one may not ask more.
 */
#define WINDOW_LOG_MAX 23
#define STREAM_WINDOW_LOG 20
#define STREAM_LEVEL_MAX 3

static int translate(size_t code, int otherwise)
{
    switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_memory_allocation:
        return ERR_NOMEM;
    case ZSTD_error_dstSize_tooSmall:
    case ZSTD_error_frameParameter_windowTooLarge:
        return ERR_LIMIT;
    default:
        return otherwise;
    }
}

static int pack_with(ZSTD_CCtx *context, struct span in, int level, struct buf *out)
{
    size_t left = out->limit_bytes - out->size_bytes;
    size_t bound = ZSTD_compressBound(in.size_bytes);
    size_t room_bytes = bound < left ? bound : left;
    uint8_t *room;
    int r = buf_reserve(out, room_bytes, &room);
    if (r < 0)
        return r;
    size_t code = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
    if (!ZSTD_isError(code))
        code = ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    if (!ZSTD_isError(code))
        code = ZSTD_compress2(context, room, room_bytes, in.data, in.size_bytes);
    if (ZSTD_isError(code))
        return translate(code, ERR_INVALID);
    buf_commit(out, code);
    return 0;
}

int zip_pack(struct span in, int level, struct buf *out)
{
    assert(level >= 1 && level <= 19);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (!context)
        return ERR_NOMEM;
    int r = pack_with(context, in, level, out);
    ZSTD_freeCCtx(context);
    return r;
}

/* One step. 1: call again, 0: the frame is whole. At the limit, one byte more is already too much.
 */
static int unpack_step(ZSTD_DCtx *context, ZSTD_inBuffer *in, struct buf *out)
{
    uint8_t beyond, *room = &beyond;
    size_t left = out->limit_bytes - out->size_bytes;
    size_t wanted = left < ZSTD_DStreamOutSize() ? left : ZSTD_DStreamOutSize();
    if (wanted > 0 && buf_reserve(out, wanted, &room) < 0)
        return ERR_NOMEM;
    ZSTD_outBuffer piece = {room, wanted > 0 ? wanted : 1, 0};
    size_t before = in->pos;
    size_t code = ZSTD_decompressStream(context, &piece, in);
    if (ZSTD_isError(code))
        return translate(code, ERR_CORRUPT);
    if (wanted == 0 && piece.pos > 0)
        return ERR_LIMIT;
    buf_commit(out, piece.pos);
    if (code == 0)
        return 0;
    bool stands_still = piece.pos == 0 && in->pos == before;
    return stands_still ? ERR_CORRUPT : 1;
}

static int unpack_with(ZSTD_DCtx *context, struct span in, struct buf *out)
{
    ZSTD_inBuffer rest = {in.data, in.size_bytes, 0};
    size_t code = ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    if (ZSTD_isError(code))
        return ERR_INVALID;
    int r;
    do
        r = unpack_step(context, &rest, out);
    while (r > 0);
    if (r == 0 && rest.pos < rest.size)
        return ERR_CORRUPT;
    return r;
}

int zip_unpack(struct span in, struct buf *out)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (!context)
        return ERR_NOMEM;
    size_t start = out->size_bytes;
    int r = unpack_with(context, in, out);
    if (r < 0)
        out->size_bytes = start;
    ZSTD_freeDCtx(context);
    return r;
}

/* ---- streams ---- */

struct zip_stream {
    ZSTD_CCtx *context;
    zip_write_fn write;
    void *write_context;
    size_t in_frame_bytes; /* plain bytes of the frame under way */
    bool has_frame;        /* one is under way */
    bool is_empty;         /* nothing was ever fed */
    uint8_t room[ZIP_STREAM_OUT_BYTES];
};

static int stream_flush(struct zip_stream *z, ZSTD_inBuffer *in, ZSTD_EndDirective how)
{
    size_t left;
    do {
        ZSTD_outBuffer out = {z->room, sizeof z->room, 0};
        left = ZSTD_compressStream2(z->context, &out, in, how);
        if (ZSTD_isError(left))
            return translate(left, ERR_INVALID);
        int e = out.pos > 0 ? z->write(z->write_context, span_of(z->room, out.pos)) : 0;
        if (e)
            return e;
    } while (how == ZSTD_e_end ? left > 0 : in->pos < in->size);
    return 0;
}

static int stream_end_frame(struct zip_stream *z)
{
    ZSTD_inBuffer nothing = {NULL, 0, 0};
    z->has_frame = false;
    z->in_frame_bytes = 0;
    return stream_flush(z, &nothing, ZSTD_e_end);
}

int zip_stream_feed(struct zip_stream *z, struct span plain)
{
    int e = 0;
    while (!e && plain.size_bytes > 0) {
        size_t some = ZIP_STREAM_FRAME_BYTES - z->in_frame_bytes;
        if (some > plain.size_bytes)
            some = plain.size_bytes;
        ZSTD_inBuffer in = {plain.data, some, 0};
        z->is_empty = false;
        z->has_frame = true;
        z->in_frame_bytes += some;
        plain = span_of(plain.data + some, plain.size_bytes - some);
        e = stream_flush(z, &in, ZSTD_e_continue);
        if (!e && z->in_frame_bytes == ZIP_STREAM_FRAME_BYTES)
            e = stream_end_frame(z);
    }
    return e;
}

int zip_stream_end(struct zip_stream *z)
{
    bool is_due = z->has_frame || z->is_empty;
    z->is_empty = false;
    return is_due ? stream_end_frame(z) : 0;
}

/* An empty frame is made and thrown away, so that everything is allocated before it counts. */
static int drop_bytes(void *context, struct span packed)
{
    (void)context;
    (void)packed;
    return 0;
}

static int stream_prepare(struct zip_stream *z, int level)
{
    ZSTD_inBuffer one = {"", 1, 0};
    size_t code = ZSTD_CCtx_setParameter(z->context, ZSTD_c_compressionLevel, level);
    if (!ZSTD_isError(code))
        code = ZSTD_CCtx_setParameter(z->context, ZSTD_c_windowLog, STREAM_WINDOW_LOG);
    if (!ZSTD_isError(code))
        code = ZSTD_CCtx_setParameter(z->context, ZSTD_c_checksumFlag, 1);
    if (ZSTD_isError(code))
        return translate(code, ERR_INVALID);
    int e = stream_flush(z, &one, ZSTD_e_continue);
    return e ? e : stream_end_frame(z);
}

int zip_stream_open(struct zip_stream **out, int level, zip_write_fn write, void *context)
{
    assert(level >= 1 && level <= STREAM_LEVEL_MAX);
    struct zip_stream *z = calloc(1, sizeof *z);
    if (!z)
        return ERR_NOMEM;
    z->context = ZSTD_createCCtx();
    z->write = drop_bytes;
    z->is_empty = true;
    int e = z->context ? stream_prepare(z, level) : ERR_NOMEM;
    if (e) {
        zip_stream_close(z);
        return e;
    }
    z->write = write;
    z->write_context = context;
    *out = z;
    return 0;
}

size_t zip_stream_memory_bytes(const struct zip_stream *z)
{
    return sizeof *z + ZSTD_sizeof_CCtx(z->context);
}

void zip_stream_close(struct zip_stream *z)
{
    if (!z)
        return;
    ZSTD_freeCCtx(z->context);
    free(z);
}
