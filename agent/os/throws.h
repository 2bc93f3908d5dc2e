/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C++ exceptions as they are thrown, whether somebody catches them or not: a probe on __cxa_throw
 * of one process, set by the kernel and gone with us. Other processes are not touched, and the
 * process is never stopped. Worker only: what is parsed is the process's own.
 */
#ifndef TRAWL_AGENT_OS_THROWS_H
#define TRAWL_AGENT_OS_THROWS_H

#include "agent/os/exception.h"
#include "agent/os/take.h"

#define OS_THROWS_PER_SECOND 500 /* above, only peeks of 10 ms in a second are seen */
#define OS_THROWS_FOR_DEFAULT_US UINT64_C(10000000)
#define OS_THROWS_FOR_MAX_US UINT64_C(60000000)

/*
 * Looks for take->for_us. Files: "txt" (counts by type and place, sampled stacks), "json",
 * "folded". ERR_UNSUPPORTED: nothing in the process can throw, or this kernel has no such probes;
 * ERR_DENIED (says what is needed), ERR_GONE. No throw at all is no failure: the files say so.
 */
int os_throws_capture(const struct os_take *take, const struct os_output *out,
                      struct os_result *result, struct failure *f);

/*
 * Looks until the process has ended (returns 0), or `reader_fd`, the end of a pipe that is written
 * to, has nobody at its other end any more (0), or it cannot go on. `tell` gets what was thrown:
 * those whose stack was looked at one by one, at once; the others of each second by type and place
 * (count, by_site). What was not seen because of the cut-off is told as cut_off. Non-zero of `tell`
 * ends and is returned. A process into which nothing that can throw is loaded yet is waited for.
 * Errors as above.
 */
typedef int (*os_throws_tell_fn)(void *context, const struct os_exception *exception);
int os_throws_watch(const struct os_process *process, int reader_fd, os_throws_tell_fn tell,
                    void *context, struct failure *f);

#endif
