/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small readings that triage and net share. Invariant: a process that is not the one meant is
 * ERR_GONE. Called by triage*.c and net.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_TRIAGE_READ_H
#define TRAWL_AGENT_OS_LINUX_TRIAGE_READ_H

#include "agent/os/linux/procfs.h"

/* Its stat; ERR_GONE when it has ended or its pid is another's now. */
int proc_stat_of(const char *root, const struct os_process *process, struct proc_stat *out,
                 struct failure *f);
/* Whether its namespace ("net", "pid") is known and not the one that we live in. */
bool proc_has_own_namespace(const char *root, uint32_t pid, const char *name);
/* The links of a process's open files, from a directory that is held open: a third of the cost. */
int proc_open_links(const char *root, uint32_t pid, int *dir, struct failure *f);
bool proc_read_link(int dir, uint32_t fd, char *out, size_t size_bytes);
/* The name of a process by its pid; "" when it is not there. `out` of OS_PROCESS_NAME_SIZE. */
void proc_name_of(const char *root, uint32_t pid, char *out);

#endif
