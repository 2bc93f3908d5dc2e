/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One artifact on this host's disk: a file NN.data that grows, hashed as it grows, and NN.pb with
 * what is known of it. Invariant: NN.pb is written last and whole; a data file without one never
 * counts. Called by capture and upload.
 */
#ifndef TRAWL_AGENT_EVIDENCE_H
#define TRAWL_AGENT_EVIDENCE_H

#include <stdint.h>

#include "agent/state.h"
#include "trawl.pb.h"

#define EVIDENCE_PATH_SIZE (STATE_PATH_SIZE + 64)

struct evidence {
    char directory[STATE_PATH_SIZE];
    uint32_t no;
    int file; /* -1: none open */
    uint64_t size_bytes, limit_bytes;
    struct pki_sha256 *hash;
};

/* Begins NN.data in `directory`; at most limit_bytes. ERR_FULL, ERR_DENIED, ERR_IO. */
int evidence_open(struct evidence *e, const char *directory, uint32_t no, uint64_t limit_bytes,
                  struct failure *f);
/* lookback_write_fn; `context` is the struct evidence. ERR_FULL, ERR_LIMIT, ERR_IO. */
int evidence_write(void *context, struct span bytes);
/* Completes: fills no, size and hash of *meta and writes NN.pb. On failure both files are gone. */
int evidence_seal(struct evidence *e, trawl_v1_Artifact *meta, struct failure *f);
/* Throws it away. Fine on a zeroed struct whose file is -1. */
void evidence_drop(struct evidence *e);

/* What is known of artifact `no`; ERR_NOTFOUND, ERR_CORRUPT when the data is not of its size. */
int evidence_load(const char *directory, uint32_t no, trawl_v1_Artifact *meta, struct failure *f);
int evidence_save(const char *directory, const trawl_v1_Artifact *meta, struct failure *f);
/* Opens its data for reading with uv_fs_read; close with port_close(). Negative enum err.
 */
int evidence_open_file(const char *directory, uint32_t no, struct failure *f);
void evidence_remove(const char *directory, uint32_t no);
/* Gives an artifact another number (its own was taken on the collector). */
int evidence_rename(const char *directory, uint32_t no, uint32_t new_no, struct failure *f);

#endif
