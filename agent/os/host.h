/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host as a whole: its facts, what it can give and why not, kernel messages. Called by the
 * agent at start.
 */
#ifndef TRAWL_AGENT_OS_HOST_H
#define TRAWL_AGENT_OS_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

/* Calls `each` with key and value: os, kernel, arch, cpus, memory_bytes, boot_time (RFC 3339),
 * boot_id, hostname, virtualization, container, init, cgroup, agent_user; what cannot be read is
 * left out. */
void os_host_facts(const char *root,
                   void (*each)(void *context, const char *key, const char *value), void *context);

/*
 * Calls `each` for every capture kind and counter group this build knows: available here, or the
 * reason why not ("needs root or CAP_SYS_PTRACE"). Available with a reason: only for some
 * processes. `broker`: a privileged broker is there.
 */
void os_host_caps(bool broker,
                  void (*each)(void *context, const char *name, bool available, const char *reason),
                  void *context);

/* Kernel messages (/dev/kmsg). Open while privileged; reading later needs no privilege. */
struct os_kernel_log;
int os_kernel_log_open(struct os_kernel_log **out, struct failure *f); /* from now on */
void os_kernel_log_close(struct os_kernel_log *log);
/* Readable when there is a message. */
int os_kernel_log_fd(const struct os_kernel_log *log);
#define OS_KERNEL_WARNING 4 /* syslog(3), LOG_WARNING */
struct os_kernel_message {
    int priority;     /* 0 emergency ... 7 debug */
    bool from_kernel; /* else a process wrote it */
    uint64_t mono_us;
    const char *text;
};
/*
 * Calls `each` for every new message, at most OS_KERNEL_LOG_MOST; never blocks. Returns how many
 * there were. *lost, if not NULL: so many were overwritten before they could be read.
 */
#define OS_KERNEL_LOG_MOST 256
size_t os_kernel_log_read(struct os_kernel_log *log,
                          void (*each)(void *context, const struct os_kernel_message *message),
                          void *context, uint64_t *lost);

#endif
