/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zstd frames (RFC 8878) with their checksum, one frame per call. Invariant: unpacking never writes
 * past the limit of `out`, whatever the frame claims, and takes nothing but one whole frame. Called
 * by the spool, the uplink and the store. The only includer of zstd.h. Pure.
 */
#include "common/zip.h"

#include <assert.h>
#include <zstd.h>
#include <zstd_errors.h>

/* Frames of zip_pack() stay within 8 MiB of history up to level 19; a foreign one may not ask more.
 */
#define WINDOW_LOG_MAX 23

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
