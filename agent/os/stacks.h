/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks of all threads of a process at one consistent instant. Worker only. The process is held
 * only while registers and stacks are copied; everything is allocated before and unwound after. The
 * rules that keep the process unharmed are in os/linux/stop.h.
 */
#ifndef TRAWL_AGENT_OS_STACKS_H
#define TRAWL_AGENT_OS_STACKS_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/os/process.h"
#include "common/buf.h"
#include "common/err.h"

#define OS_STACK_TOPS 4
#define OS_STACK_FRAMES_TEXT 1024

struct os_stack_top {
    uint8_t
        signature[16]; /* over module-relative frames: equal on all hosts with the same binary */
    uint32_t threads;
    char frames[OS_STACK_FRAMES_TEXT]; /* innermost first, joined by ';', names where known */
};

struct os_stacks_result {
    uint64_t pause_us; /* from the first interrupt to the last release, measured */
    bool paused;       /* false: the process was never stopped */
    uint32_t threads;
    uint32_t threads_missed;
    struct os_stack_top tops[OS_STACK_TOPS]; /* most threads first */
    uint32_t top_count;
    char missing[512]; /* what is not in the text and why; "" nothing */
};

/*
 * Captures and appends a readable text to `out`. pause_max_us: predicted above it, nothing is
 * touched and ERR_REFUSED says "pause would be 84 ms, limit 50 ms"; exceeded in reality, the
 * process is let go at once and ERR_TIMEOUT says so. ERR_GONE, ERR_DENIED, ERR_REFUSED (already
 * traced, kernel thread, pid 1 or ourselves), ERR_LIMIT.
 */
int os_stacks_capture(const struct os_process *process, uint32_t pause_max_us, struct buf *out,
                      struct os_stacks_result *result, struct failure *f);

#endif
