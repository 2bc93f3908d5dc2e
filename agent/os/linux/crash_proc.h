/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc says of a dying process, read while the kernel waits. Private to crash_*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_CRASH_PROC_H
#define TRAWL_AGENT_OS_LINUX_CRASH_PROC_H

#include "agent/os/linux/crash_linux.h"

void crash_init(struct os_crash *crash, const struct os_crash_arguments *arguments);
/*
 * Whether /proc/PID is the process that is being dumped: pidfd, start time and "CoreDumping" of its
 * status (not asked with any_state). Keeps what the other two compare. ERR_GONE with the reason.
 */
int crash_read_identity(struct os_crash *crash, bool any_state, struct failure *f);
/* Whether it is the process of these notes: its auxiliary vector has addresses chosen at random and
 * stands in the notes as well. ERR_GONE. */
int crash_match_notes(const struct os_crash *crash, struct failure *f);
/* Whether it still is, by what can change: start time and executable. ERR_GONE. */
int crash_check_identity(struct os_crash *crash, struct failure *f);
/* Executable, unit, limits, open logs. What is not there stays empty. Begins to read the names of
 * threads, which are many, each with calls of its own: until crash_join_tasks() beside us. */
void crash_read_texts(struct os_crash *crash);
/* When they are read: numbers in the host's namespace and names for the threads of the notes. */
void crash_name_threads(struct os_crash *crash);
/* Until crash->tasks is ours again. */
void crash_join_tasks(struct os_crash *crash);
/* Drops all that /proc and memory gave: it was not of the right process. */
void crash_forget(struct os_crash *crash);

#endif
