/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file told as its differences from another, the base: which ranges stand there too, which are
 * zeros, and the bytes of the rest. Written by the agent's worker, applied by the command line.
 * Pure.
 *
 * Form: a head (PATCH_HEAD_SIZE bytes: PATCH_MAGIC, size of the base as 8 bytes), then records of
 * 20 bytes (op 4, where in the base 8, count of bytes 8; all low byte first), a DATA record
 * followed by its bytes; the last is END, whose count is the size of the file. The records tell the
 * file from its first byte to its last.
 */
#ifndef TRAWL_COMMON_PATCH_H
#define TRAWL_COMMON_PATCH_H

#include "common/buf.h"

#define PATCH_ENCODING "zstd-delta" /* how an artifact says that it is one, packed */
#define PATCH_MAGIC "TRWLPAT1"
#define PATCH_HEAD_SIZE 16
#define PATCH_RECORD_SIZE 20

enum patch_op { PATCH_COPY = 1, PATCH_ZERO, PATCH_DATA, PATCH_END };

/* Append to `out`; ERR_LIMIT, ERR_NOMEM. */
int patch_put_head(struct buf *out, uint64_t base_bytes);
int patch_put_record(struct buf *out, enum patch_op op, uint64_t base_at, uint64_t count_bytes);

/* What is done with what a patch says, in the order of the file. Non-zero ends it. */
struct patch_target {
    /* [at, at + count_bytes) of the file is [base_at, ...) of the base, which has it. */
    int (*copy)(void *context, uint64_t at, uint64_t base_at, uint64_t count_bytes,
                struct failure *f);
    int (*data)(void *context, uint64_t at, struct span bytes, struct failure *f);
    int (*zero)(void *context, uint64_t at, uint64_t count_bytes, struct failure *f);
    void *context;
};

/* Embed. Bytes come in pieces of any size. */
struct patch {
    struct patch_target target;
    uint64_t base_bytes; /* of the base that is there */
    uint64_t limit_bytes;
    uint64_t at;        /* bytes of the file told so far */
    uint64_t data_left; /* of a DATA record */
    uint8_t partial[PATCH_RECORD_SIZE];
    size_t partial_bytes;
    bool has_head, has_end;
};

/* `limit_bytes`: how large the file may become. */
void patch_init(struct patch *patch, const struct patch_target *target, uint64_t base_bytes,
                uint64_t limit_bytes);
/* ERR_CORRUPT: no patch, or one that reaches beyond the base or its own end; ERR_CONFLICT: it is
 * for a base of another size; ERR_LIMIT: the file would be larger than allowed; what the target
 * returns. */
int patch_feed(struct patch *patch, struct span bytes, struct failure *f);
/* ERR_CORRUPT: it ended too early. */
int patch_end(const struct patch *patch, struct failure *f);

#endif
