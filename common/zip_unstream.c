/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One decompression context, one room of 128 KiB; see zip_unstream.h. Invariant: what was given out
 * and left_bytes add up to the limit. Called by cli/unpack.c.
 */
#include "common/zip_unstream.h"

#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define WINDOW_LOG_MAX 23
#define ROOM_BYTES ((size_t)128 << 10)

struct zip_unstream {
    ZSTD_DCtx *context;
    zip_take_fn take;
    void *take_context;
    uint64_t left_bytes; /* of the limit */
    size_t wanted;       /* what the frame still wants; 0: between two frames */
    bool began;
    uint8_t room[ROOM_BYTES];
};

static int translate(size_t code)
{
    switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_memory_allocation:
        return ERR_NOMEM;
    case ZSTD_error_frameParameter_windowTooLarge:
        return ERR_LIMIT;
    default:
        return ERR_CORRUPT;
    }
}

int zip_unstream_open(struct zip_unstream **out, uint64_t limit_bytes, zip_take_fn take,
                      void *context)
{
    struct zip_unstream *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    s->context = ZSTD_createDCtx();
    if (!s->context ||
        ZSTD_isError(ZSTD_DCtx_setParameter(s->context, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
        zip_unstream_close(s);
        return ERR_NOMEM;
    }
    s->left_bytes = limit_bytes;
    s->take = take;
    s->take_context = context;
    *out = s;
    return 0;
}

/* One call of the library. 1: more can come out of what was fed. */
static int step(struct zip_unstream *s, ZSTD_inBuffer *in)
{
    ZSTD_outBuffer out = {s->room, sizeof s->room, 0};
    size_t before = in->pos;
    size_t code = ZSTD_decompressStream(s->context, &out, in);
    if (ZSTD_isError(code))
        return translate(code);
    s->wanted = code;
    if (out.pos > s->left_bytes)
        return ERR_LIMIT;
    s->left_bytes -= out.pos;
    int r = out.pos > 0 ? s->take(s->take_context, span_of(s->room, out.pos)) : 0;
    if (r < 0)
        return r;
    if (in->pos < in->size && in->pos == before && out.pos == 0)
        return ERR_CORRUPT; /* it stands still */
    /* After a whole frame (0) nothing waits inside; asking again would begin the next one. */
    return in->pos < in->size || (code != 0 && out.pos == out.size);
}

int zip_unstream_feed(struct zip_unstream *s, struct span packed)
{
    ZSTD_inBuffer in = {packed.data, packed.size_bytes, 0};
    int r = packed.size_bytes > 0;
    s->began |= packed.size_bytes > 0;
    while (r > 0)
        r = step(s, &in);
    return r;
}

int zip_unstream_end(const struct zip_unstream *s)
{
    return s->began && s->wanted == 0 ? 0 : ERR_CORRUPT;
}

void zip_unstream_close(struct zip_unstream *s)
{
    if (!s)
        return;
    ZSTD_freeDCtx(s->context);
    free(s);
}
