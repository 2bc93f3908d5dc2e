/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding processes and pinning them, so that a pid reused in between is never touched. Called by
 * the broker and the worker.
 */
#ifndef TRAWL_AGENT_OS_PROCESS_H
#define TRAWL_AGENT_OS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

#define OS_PROCESS_NAME_SIZE 64

/* A process as found. It is the same one later iff pid and start_ticks are equal; the same program
 * iff the executable is, too. */
struct os_process {
    uint32_t pid;
    uint64_t start_ticks; /* Linux: field 22 of /proc/PID/stat */
    uint32_t uid;
    uint32_t threads;
    uint64_t exe_device, exe_inode;  /* both 0: not ours to see */
    char name[OS_PROCESS_NAME_SIZE]; /* comm, or the executable's base name when comm is cut */
};

/* Empty or 0 members match everything; at least one must be set. */
struct os_process_filter {
    const char *name; /* glob on comm, on the executable's base name or on argv[0]'s base name */
    uint32_t pid;
    const char *unit;      /* systemd unit, from the cgroup path; ".service" may be left out */
    uint32_t port;         /* listens on this TCP port */
    const char *container; /* ID or its beginning (from 4 characters), or name (LXC, machined) */
    const char *command;   /* glob on its arguments, joined by spaces */
};

/* Calls `each` for matches by rising pid; kernel threads, ended ones not yet reaped and the
 * caller's own processes (the same program, above or below the caller) are left out. Non-zero
 * return of `each` stops and is returned. `root`: "" or a recorded tree. ERR_INVALID: an empty
 * filter. ERR_DENIED: a port was asked for, nothing was found and processes of others could not be
 * looked at. */
typedef int (*os_process_each_fn)(void *context, const struct os_process *process);
int os_process_each(const char *root, const struct os_process_filter *filter,
                    os_process_each_fn each, void *context, struct failure *f);

/* The process with this pid now. ERR_GONE when there is none. */
int os_process_get(const char *root, uint32_t pid, struct os_process *out, struct failure *f);

#endif
