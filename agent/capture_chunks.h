/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes apart what a worker writes into its pipe: chunks that begin files and chunks of their bytes
 * (broker_wire.h), cut anywhere. Invariant: the worker may have been taken over by what it parsed,
 * so nothing is passed on that was not checked: sizes, order, names of endings and encodings, how
 * many files. Pure. Called by capture_worker.c.
 */
#ifndef TRAWL_AGENT_CAPTURE_CHUNKS_H
#define TRAWL_AGENT_CAPTURE_CHUNKS_H

#include "agent/broker_wire.h"
#include "common/buf.h"

/* Embed; zeroed is the beginning. */
struct capture_chunks {
    union {
        uint8_t bytes[sizeof(struct broker_file)];
        struct broker_chunk chunk;
        struct broker_file file;
    } head;           /* what is being gathered */
    size_t head_used; /* bytes of it */
    size_t left;      /* bytes of the chunk still to come */
    bool in_file, in_data;
    uint32_t file_count;
    char endings[BROKER_FILES_MAX][sizeof(((struct broker_file *)0)->ending)];
};

struct capture_chunks_events {
    /* The next file begins: its ending and its encoding are checked and terminated. */
    int (*file)(void *context, const struct broker_file *file, struct failure *f);
    /* Bytes of it. */
    int (*data)(void *context, struct span bytes, struct failure *f);
};

/* Takes all of `bytes`. ERR_PROTOCOL: not what a worker writes; or what an event returned. After an
 * error nothing more may be fed. */
int capture_chunks_feed(struct capture_chunks *chunks, struct span bytes,
                        const struct capture_chunks_events *events, void *context,
                        struct failure *f);
/* At the end of the pipe. ERR_PROTOCOL: it ended inside a chunk. */
int capture_chunks_end(const struct capture_chunks *chunks, struct failure *f);

#endif
