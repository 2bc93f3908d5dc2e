/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be said of a process without touching it: state, threads with wait channel and system
 * call, files and sockets, limits, cgroup. Worker only.
 */
#ifndef TRAWL_AGENT_OS_TRIAGE_H
#define TRAWL_AGENT_OS_TRIAGE_H

#include "agent/os/process.h"
#include "common/buf.h"
#include "common/err.h"

/* Appends a readable text. `missing` (of size_bytes) gets what could not be read and why. `root`:
 * "" or a recorded tree. ERR_GONE, ERR_LIMIT. */
int os_triage_capture(const char *root, const struct os_process *process, struct buf *out,
                      char *missing, size_t size_bytes, struct failure *f);

#endif
