/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory is left for the host and for the control groups of a process: a snapshot makes
 * the process copy each page that it writes to, so it ends before memory does. Cheap enough to be
 * asked every 50 ms. Called by dump.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_HEADROOM_H
#define TRAWL_AGENT_OS_LINUX_HEADROOM_H

#include <stdint.h>

#include "common/err.h"

#define HEADROOM_WHERE_SIZE 160

struct headroom {
    uint64_t free_bytes, total_bytes;
    uint32_t free_permille;          /* 0 to 1000 */
    char where[HEADROOM_WHERE_SIZE]; /* "the host", "control group '/a/b'" */
};

/*
 * The place where the smallest share is free: of the host MemAvailable (proc_meminfo(5)), of each
 * memory control group from the process's own up to the root what its limit leaves (v2 memory.max
 * and memory.high, v1 memory.limit_in_bytes) with file pages that can be dropped at once. Swap does
 * not count. Groups that cannot be seen from here, as above a container's, are left out. `root`: ""
 * or a recorded tree. ERR_GONE: no such process; ERR_UNSUPPORTED: MemAvailable cannot be read.
 */
int headroom_read(const char *root, uint32_t pid, struct headroom *out, struct failure *f);

#endif
