/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single protobuf fields, read and written by hand. Invariant: a field is taken whole or not at
 * all. Called by reflect.c and health.c. Pure.
 */
#include "proto/field.h"

#define NUMBER_MAX 0x1fffffffu

/* The value behind a tag, by its wire type. */
static int take_value(struct span *rest, struct field *f)
{
    uint64_t length;
    switch (f->type) {
    case FIELD_VARINT:
        return span_take_varint(rest, &f->value);
    case FIELD_FIXED64:
        return span_take(rest, 8, &f->bytes);
    case FIELD_FIXED32:
        return span_take(rest, 4, &f->bytes);
    case FIELD_BYTES:
        if (span_take_varint(rest, &length) < 0 || length > rest->size_bytes)
            return ERR_CORRUPT;
        return span_take(rest, (size_t)length, &f->bytes);
    default:
        return ERR_CORRUPT;
    }
}

int field_take(struct span *message, struct field *out)
{
    struct span rest = *message;
    struct field f = {0};
    uint64_t tag;
    if (rest.size_bytes == 0)
        return ERR_NOTFOUND;
    if (span_take_varint(&rest, &tag) < 0 || tag >> 3 == 0 || tag >> 3 > NUMBER_MAX)
        return ERR_CORRUPT;
    f.number = (uint32_t)(tag >> 3);
    f.type = (enum field_type)(tag & 7);
    if (take_value(&rest, &f) < 0)
        return ERR_CORRUPT;
    *message = rest;
    *out = f;
    return 0;
}

struct span field_bytes(struct span message, uint32_t number)
{
    struct span found = {0};
    struct field f;
    while (field_take(&message, &f) == 0)
        if (f.number == number && f.type == FIELD_BYTES)
            found = f.bytes;
    return found;
}

int field_put_u64(struct buf *out, uint32_t number, uint64_t value)
{
    int r = buf_append_varint(out, (uint64_t)number << 3 | FIELD_VARINT);
    return r < 0 ? r : buf_append_varint(out, value);
}

int field_put_bytes(struct buf *out, uint32_t number, struct span bytes)
{
    int r = buf_append_varint(out, (uint64_t)number << 3 | FIELD_BYTES);
    if (r == 0)
        r = buf_append_varint(out, bytes.size_bytes);
    return r < 0 ? r : buf_append_span(out, bytes);
}
