/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every kind of evidence has in common: what is asked (struct os_take), where the bytes go
 * (struct os_output), what is said of them (struct os_result). One function per kind, all of one
 * shape, in os/{triage,stacks,dump,profile,net,logs}.h. Worker only.
 */
#ifndef TRAWL_AGENT_OS_TAKE_H
#define TRAWL_AGENT_OS_TAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/os/costs.h"
#include "agent/os/process.h"
#include "common/buf.h"
#include "common/err.h"

/* Above this no pause is taken unless the order allows it in so many words (allow_pause). */
#define OS_PAUSE_HARD_US 250000

struct os_take {
    struct os_process process;
    uint32_t pause_max_us; /* never 0; above OS_PAUSE_HARD_US only with allow_pause */
    bool live;        /* core: no snapshot; stacks consistent, the heap is read while it runs */
    bool allow_pause; /* core: without a snapshot, the process may stand still meanwhile */
    uint64_t deadline_mono_us;    /* port_mono_us(): the worker is killed then; 0: none */
    uint64_t for_us;              /* profile: how long to look */
    int64_t from_us, to_us;       /* logs: the window, host wall time */
    const struct os_costs *costs; /* what pauses cost on this host; never NULL */
};

/*
 * One or more files, one after the other. Blocks while the reader is slow, so it is never used
 * while a process is held (but by a core with allow_pause).
 */
struct os_output {
    /* Begins the next file: "txt", "json", "folded", "svg", "pb.gz", "core". */
    int (*begin)(void *context, const char *ending, struct failure *f);
    /* Appends to it. ERR_CLOSED: nobody reads any more. */
    int (*write)(void *context, struct span bytes, struct failure *f);
    void *context;
};
/* Both in one: a whole file. */
int os_output_file(const struct os_output *out, const char *ending, struct span bytes,
                   struct failure *f);

#define OS_STACK_TOPS 4
#define OS_STACK_FRAMES_TEXT 1024
#define OS_MISSING_SIZE 512

struct os_stack_top {
    uint8_t
        signature[16]; /* over module-relative frames: equal on all hosts with the same binary */
    uint32_t threads;
    char frames[OS_STACK_FRAMES_TEXT]; /* innermost first, joined by ';', names where known */
};

/* A zeroed struct says: nothing stopped, nothing found, nothing missing. */
struct os_result {
    uint64_t pause_us;    /* from the first interrupt to the last release, measured */
    uint64_t expected_us; /* as predicted; 0: no stop was planned */
    bool paused;          /* false: the process was never stopped */
    uint32_t threads;
    uint32_t threads_missed;
    struct os_stack_top tops[OS_STACK_TOPS]; /* most threads first */
    uint32_t top_count;
    char missing[OS_MISSING_SIZE]; /* what is not in it, and why; "" nothing */
};

/* Adds "; ..." to what is missing; cut when full. */
void os_result_miss(struct os_result *result, const char *format, ...) TRAWL_PRINTF(2, 3);

#endif
