/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a worker's bytes go: as chunks (broker_wire.h) into the pipe to the agent; cores packed by
 * zstd on the way and held to a share of the processor. Invariant: after worker_output_open()
 * nothing is allocated, so that a core of a process that is held can be written as well; but see
 * worker_output_use_delta(). Called by
 * worker.c and tests.
 */
#ifndef TRAWL_AGENT_WORKER_OUTPUT_H
#define TRAWL_AGENT_WORKER_OUTPUT_H

#include "agent/broker_wire.h"
#include "agent/delta.h"
#include "agent/os/take.h"
#include "common/zip.h"

struct worker_output {
    int fd;
    uint32_t cpu_percent;   /* of one core, for what is packed; 0: no limit */
    struct zip_stream *zip; /* NULL: nothing was packed yet */
    bool is_packing;        /* the file under way */
    uint64_t plain_bytes;   /* what went into the packing */
    /* A core: told as differences from an earlier one, or leaving its page list to later ones. */
    bool uses_delta;
    struct os_process process;
    struct span base;    /* borrowed page list; empty: none */
    struct delta *delta; /* of the file under way */
    struct failure why;  /* of a write inside the packing */
    uint64_t began_mono_us, began_cpu_us;
};

/* `fd` stays the caller's. ERR_NOMEM. */
int worker_output_open(struct worker_output *output, int fd, uint32_t cpu_percent,
                       struct failure *f);
/*
 * Cores are compared page by page with an earlier one of the same process, whose page list is
 * `base` (borrowed; empty: there was none). This allocates while the core is written: not for one
 * that is taken of a process that is held.
 */
void worker_output_use_delta(struct worker_output *output, const struct os_process *process,
                             struct span base);
/* What a kind is given; borrows `output`. */
struct os_output worker_output_of(struct worker_output *output);
/* Ends the last file: only when all went well. */
int worker_output_end(struct worker_output *output, struct failure *f);
void worker_output_close(struct worker_output *output);

/* Writes all of it, also to a pipe that is full for a while. ERR_IO. */
int worker_output_write_all(int fd, struct span head, struct span bytes);

#endif
