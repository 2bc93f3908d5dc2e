/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differences between two files, written and applied. Invariant: a target is never asked for a byte
 * that the base has not, nor for one beyond the limit. Called by agent/delta.c and the command
 * line. Pure.
 */
#include "common/patch.h"

#include <string.h>

int patch_put_head(struct buf *out, uint64_t base_bytes)
{
    int e = buf_append(out, PATCH_MAGIC, sizeof PATCH_MAGIC - 1);
    return e ? e : buf_append_u64(out, base_bytes);
}

int patch_put_record(struct buf *out, enum patch_op op, uint64_t base_at, uint64_t count_bytes)
{
    int e = buf_append_u32(out, (uint32_t)op);
    if (!e)
        e = buf_append_u64(out, base_at);
    return e ? e : buf_append_u64(out, count_bytes);
}

void patch_init(struct patch *patch, const struct patch_target *target, uint64_t base_bytes,
                uint64_t limit_bytes)
{
    *patch =
        (struct patch){.target = *target, .base_bytes = base_bytes, .limit_bytes = limit_bytes};
}

static int take_head(struct patch *patch, struct span head, struct failure *f)
{
    struct span magic;
    uint64_t base_bytes = 0;
    (void)span_take(&head, sizeof PATCH_MAGIC - 1, &magic);
    (void)span_take_u64(&head, &base_bytes);
    if (!span_equal(magic, span_str(PATCH_MAGIC)))
        return fail(f, ERR_CORRUPT, "these are no differences from another file");
    if (base_bytes != patch->base_bytes)
        return fail(f, ERR_CONFLICT,
                    "the differences are from a file of %llu bytes, this one has %llu",
                    (unsigned long long)base_bytes, (unsigned long long)patch->base_bytes);
    patch->has_head = true;
    return 0;
}

static int take_end(struct patch *patch, uint64_t count_bytes, struct failure *f)
{
    if (count_bytes != patch->at)
        return fail(f, ERR_CORRUPT, "differences of %llu bytes end after %llu",
                    (unsigned long long)count_bytes, (unsigned long long)patch->at);
    patch->has_end = true;
    return 0;
}

static int copy(struct patch *patch, uint64_t base_at, uint64_t count_bytes, struct failure *f)
{
    if (base_at > patch->base_bytes || count_bytes > patch->base_bytes - base_at)
        return fail(f, ERR_CORRUPT, "differences reach beyond the file that they are from");
    return patch->target.copy(patch->target.context, patch->at, base_at, count_bytes, f);
}

static int take_record(struct patch *patch, struct span record, struct failure *f)
{
    uint32_t op = 0;
    uint64_t base_at = 0, count_bytes = 0;
    int e = 0;
    (void)span_take_u32(&record, &op);
    (void)span_take_u64(&record, &base_at);
    (void)span_take_u64(&record, &count_bytes);
    if (op == PATCH_END)
        return take_end(patch, count_bytes, f);
    if (op != PATCH_COPY && op != PATCH_ZERO && op != PATCH_DATA)
        return fail(f, ERR_CORRUPT, "unknown record %u in the differences", op);
    if (count_bytes > patch->limit_bytes - patch->at)
        return fail(f, ERR_LIMIT, "the file would be larger than %llu bytes",
                    (unsigned long long)patch->limit_bytes);
    if (op == PATCH_DATA) {
        patch->data_left = count_bytes;
        return 0;
    }
    if (op == PATCH_COPY)
        e = copy(patch, base_at, count_bytes, f);
    else
        e = patch->target.zero(patch->target.context, patch->at, count_bytes, f);
    if (!e)
        patch->at += count_bytes;
    return e;
}

static int take_data(struct patch *patch, struct span *bytes, struct failure *f)
{
    struct span some = *bytes;
    if (some.size_bytes > patch->data_left)
        some.size_bytes = (size_t)patch->data_left;
    int e = patch->target.data(patch->target.context, patch->at, some, f);
    if (e)
        return e;
    patch->at += some.size_bytes;
    patch->data_left -= some.size_bytes;
    *bytes = span_of(bytes->data + some.size_bytes, bytes->size_bytes - some.size_bytes);
    return 0;
}

/* Gathers a head or a record, which may come in pieces. */
static int take_fixed(struct patch *patch, struct span *bytes, struct failure *f)
{
    size_t wanted = patch->has_head ? PATCH_RECORD_SIZE : PATCH_HEAD_SIZE;
    size_t some = wanted - patch->partial_bytes;
    if (some > bytes->size_bytes)
        some = bytes->size_bytes;
    memcpy(patch->partial + patch->partial_bytes, bytes->data, some);
    patch->partial_bytes += some;
    *bytes = span_of(bytes->data + some, bytes->size_bytes - some);
    if (patch->partial_bytes < wanted)
        return 0;
    patch->partial_bytes = 0;
    struct span whole = span_of(patch->partial, wanted);
    return patch->has_head ? take_record(patch, whole, f) : take_head(patch, whole, f);
}

int patch_feed(struct patch *patch, struct span bytes, struct failure *f)
{
    int e = 0;
    while (!e && bytes.size_bytes > 0) {
        if (patch->has_end)
            return fail(f, ERR_CORRUPT, "the differences go on behind their end");
        e = patch->data_left > 0 ? take_data(patch, &bytes, f) : take_fixed(patch, &bytes, f);
    }
    return e;
}

int patch_end(const struct patch *patch, struct failure *f)
{
    return patch->has_end ? 0 : fail(f, ERR_CORRUPT, "the differences end too early");
}
