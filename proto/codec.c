/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pairs that codec.def lists, all made from one checked encoder and one checked decoder.
 * Invariant: a decoded message has only terminated strings and lists within their limits.
 */
#include "proto/codec.h"

#include <string.h>

#include <pb_decode.h>
#include <pb_encode.h>

static int put(struct buf *out, const pb_msgdesc_t *fields, const void *message)
{
    size_t size;
    if (!pb_get_encoded_size(&size, fields, message))
        return ERR_INVALID;
    uint8_t *room;
    int e = buf_reserve(out, size, &room);
    if (e)
        return e;
    pb_ostream_t stream = pb_ostream_from_buffer(room, size);
    if (!pb_encode(&stream, fields, message))
        return ERR_INVALID;
    buf_commit(out, stream.bytes_written);
    return 0;
}

static int get(void *message, size_t size, const pb_msgdesc_t *fields, const char *name,
               struct span in, struct failure *f)
{
    pb_istream_t stream = pb_istream_from_buffer(in.data, in.size_bytes);
    if (pb_decode(&stream, fields, message))
        return 0;
    memset(message, 0, size);
    return fail(f, ERR_INVALID, "message '%s' cannot be read: %s", name, PB_GET_ERROR(&stream));
}

#define CODEC(type, name)                                                              \
    int codec_put_##name(struct buf *out, const trawl_v1_##type *message)              \
    {                                                                                  \
        return put(out, trawl_v1_##type##_fields, message);                            \
    }                                                                                  \
    int codec_get_##name(trawl_v1_##type *message, struct span in, struct failure *f)  \
    {                                                                                  \
        return get(message, sizeof(*message), trawl_v1_##type##_fields, #type, in, f); \
    }
#include "proto/codec.def"
#undef CODEC
