/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single fields of protobuf messages, for the few messages that nanopb's fixed structs cannot hold
 * (replies of server reflection, descriptors). Invariant: reading never leaves the span, and what
 * was read borrows from it. Called by reflect.c and health.c. Pure. Specification:
 * https://protobuf.dev/programming-guides/encoding/
 */
#ifndef TRAWL_PROTO_FIELD_H
#define TRAWL_PROTO_FIELD_H

#include "common/buf.h"

enum field_type { FIELD_VARINT = 0, FIELD_FIXED64 = 1, FIELD_BYTES = 2, FIELD_FIXED32 = 5 };

struct field {
    uint32_t number; /* 1 .. 2^29 - 1 */
    enum field_type type;
    uint64_t value;    /* FIELD_VARINT; 0 otherwise */
    struct span bytes; /* of the other types */
};

/* Takes the field at the front of `*message`. ERR_NOTFOUND at the end; ERR_CORRUPT for what is no
 * field (groups among it), with `*message` and `*out` untouched. */
int field_take(struct span *message, struct field *out);
/* The last FIELD_BYTES field of that number, or an empty span: how protobuf reads a string. */
struct span field_bytes(struct span message, uint32_t number);

/* Append one field. ERR_LIMIT and ERR_NOMEM of buf_append. */
int field_put_u64(struct buf *out, uint32_t number, uint64_t value);
int field_put_bytes(struct buf *out, uint32_t number, struct span bytes);

#endif
