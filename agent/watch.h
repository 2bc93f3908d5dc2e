/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A watch: a privileged child of the broker that looks at one process for as long as it lives and
 * tells the agent of exceptions through a pipe. Invariant: the agent believes nothing of it
 * unchecked, for the child parses what belongs to the process. watch_main() runs in the child
 * (broker_watch.c); the rest is the agent's end (source_throws.c).
 */
#ifndef TRAWL_AGENT_WATCH_H
#define TRAWL_AGENT_WATCH_H

#include "agent/os/exception.h"
#include "agent/os/process.h"
#include "common/err.h"

#define WATCH_MAGIC 0x54525743u
#define WATCH_KIND "throws"

enum watch_message_type { WATCH_EXCEPTION = 1, WATCH_ENDED };

/* What passes through the pipe, one after the other. ENDED is the last one, with its reason; an
 * empty one: the process has ended. */
struct watch_message {
    uint32_t magic, type;
    int32_t error; /* ENDED: enum err */
    char text[FAILURE_TEXT_SIZE];
    struct os_exception exception;
};

struct watch_job {
    struct os_process process;
    int output_fd; /* the pipe */
    int close_fd;  /* the broker's socket: not the child's business; -1: none */
};

/* For os_worker_start(); `context` is a struct watch_job. */
int watch_main(void *context);

/*
 * Whether a message may be used: every text ends, every number is one that a watch of `process`
 * could say. Texts are the process's own still. ERR_CORRUPT.
 */
int watch_check(const struct watch_message *message, const struct os_process *process);

#endif
