/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc says of a dying process, read while the kernel waits. Private to crash_*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_CRASH_PROC_H
#define TRAWL_AGENT_OS_LINUX_CRASH_PROC_H

#include "agent/os/linux/crash_linux.h"

void crash_init(struct os_crash *crash, const struct os_crash_arguments *arguments);
/*
 * Whether /proc/PID is the process that is being dumped: pidfd, start time, "CoreDumping" of its
 * status (not asked with any_state), and its auxiliary vector, which has addresses chosen at random
 * and stands in the notes as well. ERR_GONE with the reason.
 */
int crash_read_identity(struct os_crash *crash, bool any_state, struct failure *f);
/* The same again, of what can change: start time and executable. ERR_GONE. */
int crash_check_identity(struct os_crash *crash, struct failure *f);
/* Names of threads, executable, unit, limits, open logs. What is not there stays empty. */
void crash_read_texts(struct os_crash *crash);
/* Drops all that /proc and memory gave: it was not of the right process. */
void crash_forget(struct os_crash *crash);

#endif
