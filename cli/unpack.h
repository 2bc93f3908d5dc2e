/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fetched artifact that is stored packed becomes the file people open: zero blocks are holes, so
 * that a core of 64 GiB takes the room of what is in it. In steps, so that other artifacts go on
 * coming. Invariant: what it writes to is removed unless all of it was written, checked and synced.
 * Used by transfer.c.
 */
#ifndef TRAWL_CLI_UNPACK_H
#define TRAWL_CLI_UNPACK_H

#include <stdbool.h>

#include "cli/context.h"
#include "common/err.h"
#include "common/patch.h"
#include "common/xxh64.h"

#define UNPACK_PATH_SIZE (CONTEXT_PATH_SIZE + 272)

struct unpack_settings {
    const char *packed, *plain; /* paths; `plain` is made anew */
    const char *base;           /* path of the file that it is told from; NULL: of none */
    uint64_t expected_bytes;    /* what the plain file has; 0: not known */
    uint64_t limit_bytes;       /* more is refused */
};

struct unpack {
    char packed[UNPACK_PATH_SIZE], plain[UNPACK_PATH_SIZE];
    uint64_t expected_bytes, limit_bytes;
    int in, out, base; /* of libuv; -1: closed */
    bool is_patch;
    struct patch patch;
    uint64_t taken_bytes, plain_bytes, written_bytes, looked_bytes;
    struct zip_unstream *zip;
    struct xxh64 sum;   /* of the plain file so far */
    struct failure why; /* of the step under way */
};

/* So that it can be closed. */
void unpack_init(struct unpack *u);
/* ERR_FULL, ERR_LIMIT, ERR_IO and the like name the path and what would help. */
int unpack_open(struct unpack *u, const struct unpack_settings *settings, struct failure *f);
/* Works about this long. 1: there is more to do, 0: the plain file is whole and on the disk. */
int unpack_step(struct unpack *u, uint64_t budget_us, struct failure *f);
/* Ends it; a file that is not whole goes. A struct after unpack_init() is fine. */
void unpack_close(struct unpack *u);

#endif
