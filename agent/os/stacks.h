/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks of all threads of a process at one consistent instant. Worker only. The process is held
 * only while registers and stacks are copied; everything is allocated before and unwound after. The
 * rules that keep the process unharmed are in os/linux/stop.h.
 */
#ifndef TRAWL_AGENT_OS_STACKS_H
#define TRAWL_AGENT_OS_STACKS_H

#include "agent/os/take.h"

/*
 * Captures and appends a readable text to `out`. pause_max_us: predicted above it, nothing is
 * touched and ERR_REFUSED says "pause would be 84 ms, limit 50 ms"; exceeded in reality, the
 * process is let go at once and ERR_TIMEOUT says so. ERR_GONE, ERR_DENIED, ERR_REFUSED (already
 * traced, kernel thread, pid 1 or ourselves), ERR_LIMIT.
 */
int os_stacks_capture(const struct os_process *process, uint32_t pause_max_us, struct buf *out,
                      struct os_result *result, struct failure *f);

#endif
