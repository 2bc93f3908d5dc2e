/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The short-lived child that touches one target: takes one kind of evidence, writes it to a pipe in
 * chunks, tells how it went, ends. It runs with the broker's privileges and is killed at its
 * deadline. Started by the broker only.
 */
#ifndef TRAWL_AGENT_WORKER_H
#define TRAWL_AGENT_WORKER_H

#include "agent/broker_wire.h"

struct worker_job {
    struct broker_run run;
    struct os_process process;
    struct os_costs costs;
    uint32_t cpu_percent; /* of one core, for what is packed; 0: no limit */
    int output_fd;        /* evidence goes here, as chunks */
    int result_fd;        /* one struct worker_outcome goes here, last */
    int base_fd;          /* page list of an earlier core (delta.h); -1: none */
};

struct worker_outcome {
    int32_t error;
    char text[FAILURE_TEXT_SIZE];
    struct broker_result result;
};

/* Whether a kind is taken by a worker ("triage", "stacks", "logs"). */
bool worker_knows(const char *kind);
/* Whether the process `then` is still the same one and runs the same program; *now is how it is
 * now. ERR_GONE with a sentence: it ended, or executed another program (execve(2)). */
int worker_check_process(const struct os_process *then, struct os_process *now, struct failure *f);
/* Takes one kind, in this process: what worker_main() does, for tests and benchmarks.
 * ERR_UNSUPPORTED: not a known kind. */
int worker_take(const char *kind, const struct os_take *take, const struct os_output *out,
                struct os_result *result, struct failure *f);
/* The worker's main function; `context` is a struct worker_job. Returns the exit status. */
int worker_main(void *context);

#endif
