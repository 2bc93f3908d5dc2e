/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a process as ELF core files that gdb and lldb open (elf(5), core(5)). Worker only. One
 * file, "core"; what is not in it stands in result->missing.
 */
#ifndef TRAWL_AGENT_OS_DUMP_H
#define TRAWL_AGENT_OS_DUMP_H

#include "agent/os/take.h"

/*
 * mini: registers, stacks, loader data, thread-local storage, and memory around pointers on the
 * stacks, at most OS_MINI_BYTES_MAX. One consistent instant. ERR_REFUSED (pause, another tracer),
 * ERR_GONE, ERR_DENIED, ERR_TIMEOUT (released: took longer than pause_max_us).
 */
#define OS_MINI_BYTES_MAX (16u << 20)
int os_mini_capture(const struct os_take *take, const struct os_output *out,
                    struct os_result *result, struct failure *f);

/*
 * core: all of its memory at one instant, from a copy-on-write snapshot; with take->live, stacks of
 * one instant and the rest as it is read; with take->allow_pause, when no snapshot is possible, by
 * holding it. Refusals are whole sentences with the option that would change them:
 * ERR_REFUSED (pause, memory, seccomp, tracer), ERR_UNSUPPORTED, ERR_GONE, ERR_DENIED, ERR_TIMEOUT.
 */
int os_core_capture(const struct os_take *take, const struct os_output *out,
                    struct os_result *result, struct failure *f);

/*
 * What a worker left behind in a process when it was killed in the middle of a core: a copy of it
 * that has ended and that nobody reaps. `born_after_ticks`: when that worker started (unit of
 * os_process.start_ticks). Called in a worker of its own. 0: nothing is left; ERR_GONE: the process
 * has ended, and so has all that was left; ERR_TIMEOUT, ERR_DENIED with what stays.
 */
int os_tidy(const struct os_process *process, uint64_t born_after_ticks, struct failure *f);

#endif
