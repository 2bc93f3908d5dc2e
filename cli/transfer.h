/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One artifact on its way into a file. Invariant: a file has its real name only after size and
 * SHA-256 of what came were those of the manifest and, when it is stored packed, all of it was
 * unpacked; until then it is FILE.part, of which whole pieces may be gone on with (FILE.unpack.part
 * is made anew). Knows nothing of the network: pieces are handed in. Used by cmd_fetch.c.
 */
#ifndef TRAWL_CLI_TRANSFER_H
#define TRAWL_CLI_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/context.h"
#include "cli/unpack.h"
#include "proto/codec.h"

#define TRANSFER_PATH_SIZE (CONTEXT_PATH_SIZE + 256)
#define TRANSFER_MAX_DEFAULT ((uint64_t)64 << 30) /* of an unpacked file */

struct transfer {
    const trawl_v1_Artifact *artifact; /* borrowed */
    char path[TRANSFER_PATH_SIZE], part_path[TRANSFER_PATH_SIZE + 8];
    char plain_path[TRANSFER_PATH_SIZE + 16], stamp_path[TRANSFER_PATH_SIZE + 8];
    int file; /* of libuv; -1: closed */
    struct pki_sha256 *hash;
    uint64_t received_bytes;
    uint32_t next_piece; /* to ask for */
    bool resumed;        /* began with pieces of an earlier time */
    bool ended;          /* the last piece has come */
    uint64_t max_bytes;  /* an unpacked file may have; changed between open and finish */
    char base_path[TRANSFER_PATH_SIZE]; /* of the file that it is told from; the same */
    struct unpack unpack;
    uint64_t plain_bytes; /* of the unpacked file; 0 when it was not packed */
};

/* So that it can be closed. */
void transfer_init(struct transfer *t);

/*
 * Looks at what is there. *present: the file is there and right, nothing is open. Else the part is
 * open, and next_piece says where to go on. ERR_FULL, ERR_DENIED, ERR_IO name the path.
 */
int transfer_open(struct transfer *t, const char *path, const trawl_v1_Artifact *artifact,
                  bool *present, struct failure *f);
/* Whether the unpacked file is there and right, without opening anything to go on with. */
bool transfer_is_present(const char *path, const trawl_v1_Artifact *artifact,
                         uint64_t *plain_bytes);
/* ERR_PROTOCOL (not the piece that was asked for, wrong size), ERR_FULL, ERR_IO. */
int transfer_piece(struct transfer *t, trawl_v1_Piece *piece, struct failure *f);
/* Checks. 0: the file has its name; 1: it is packed, go on with transfer_unpack(). ERR_CORRUPT: it
 * differed; the part is gone. */
int transfer_finish(struct transfer *t, struct failure *f);
/* Works about this long. 1: there is more to do, 0: the file has its name. On errors the part
 * stays.
 */
int transfer_unpack(struct transfer *t, uint64_t budget_us, struct failure *f);
/* Keeps the part for another time. */
void transfer_close(struct transfer *t);
/* Forgets the part. */
void transfer_discard(struct transfer *t);

#endif
