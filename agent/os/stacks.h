/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks of all threads of a process: at one consistent instant (stacks), or without stopping any
 * of them (stacks0). Worker only. A process is held only while registers and stacks are copied;
 * everything is allocated before and unwound after. The rules that keep the process unharmed are in
 * os/linux/stop.h.
 */
#ifndef TRAWL_AGENT_OS_STACKS_H
#define TRAWL_AGENT_OS_STACKS_H

#include "agent/os/take.h"

/*
 * Gives three files. "txt": equal stacks once, busiest first, and the modules. "folded": the same
 * as flame graph tools read it ("process;outermost;...;innermost count"). "json": one object with
 * all of it.
 *
 * Predicted above take->pause_max_us, nothing is touched and ERR_REFUSED says "pause would be 84
 * ms, limit 50 ms" and which options change it; exceeded in reality, the process is let go at once
 * and ERR_TIMEOUT says so. ERR_GONE, ERR_DENIED, ERR_REFUSED (already traced, kernel thread, pid 1
 * or ourselves), ERR_LIMIT, and what `out` returns.
 */
int os_stacks_capture(const struct os_take *take, const struct os_output *out,
                      struct os_result *result, struct failure *f);

/*
 * The same files without a stop (proc(5), /proc/PID/task/TID/syscall): each thread that sleeps is
 * as it was at one instant of its own, of a thread on a processor it is only said that it ran. A
 * process that is traced, or pid 1, may be looked at. ERR_GONE, ERR_DENIED, ERR_REFUSED (kernel
 * thread), ERR_UNSUPPORTED (not x86-64, or a kernel without that file).
 */
int os_stacks0_capture(const struct os_take *take, const struct os_output *out,
                       struct os_result *result, struct failure *f);

#endif
