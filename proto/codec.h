/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One checked encode/decode pair per message of trawl.proto. The only user of pb_encode/pb_decode;
 * the generated structs may be filled and read anywhere. Pure.
 *
 * int codec_put_host(struct buf *out, const trawl_v1_Host *message)
 *     appends the wire form. ERR_LIMIT (limit of out), ERR_INVALID (a list count over its limit).
 * int codec_get_host(trawl_v1_Host *message, struct span in, struct failure *f)
 *     fills *message whole (defaults for what is absent). ERR_INVALID with the reason; *message is
 *     then all defaults. Unknown fields are skipped.
 */
#ifndef TRAWL_PROTO_CODEC_H
#define TRAWL_PROTO_CODEC_H

#include "common/buf.h"
#include "trawl.pb.h"

/* Bytes of an artifact in one Piece (all but the last): half of what the collector stores as one.
 */
#define CODEC_PIECE_SIZE 32760

#define CODEC(type, name)                                                  \
    int codec_put_##name(struct buf *out, const trawl_v1_##type *message); \
    int codec_get_##name(trawl_v1_##type *message, struct span in, struct failure *f);
#include "proto/codec.def"
#undef CODEC

#endif
