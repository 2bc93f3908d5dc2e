/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions out of the kernel's messages: processes killed for want of memory, faults that ended a
 * process, tasks and processors that hang, errors of the kernel itself, of disks, memory and
 * network cards. Reports of several lines are put together again. Invariant: pure; whatever is fed,
 * an exception says only what stood in the lines. Called by agent/watch_kernel.c with what
 * os_kernel_log_read() gives.
 */
#ifndef TRAWL_AGENT_OS_KERNEL_FAULT_H
#define TRAWL_AGENT_OS_KERNEL_FAULT_H

#include "agent/os/exception.h"
#include "common/err.h"

/* A report is told when it is complete, or this long after its last line. */
#define OS_KERNEL_FAULT_QUIET_US UINT64_C(200000)
/* Of equal disk errors (line and device) so many are told one by one in a second, the rest of that
 * second together, as one with `count`. */
#define OS_KERNEL_FAULT_SINGLE 3

struct os_kernel_fault;

/* Borrows. exception->mono_us is the time of its first line, last_mono_us that of its last. */
typedef void (*os_kernel_fault_fn)(void *context, const struct os_exception *exception,
                                   uint64_t last_mono_us);

/* ERR_NOMEM. */
int os_kernel_fault_open(struct os_kernel_fault **out, os_kernel_fault_fn told, void *context);
void os_kernel_fault_close(struct os_kernel_fault *fault); /* NULL is fine; tells nothing */

/* One message of the kernel itself (facility 0), as /dev/kmsg writes it, without its prefix;
 * priority as of syslog(3), 0 to 7. */
void os_kernel_fault_feed(struct os_kernel_fault *fault, int priority, uint64_t mono_us,
                          const char *text);
/* To be called now and then: tells reports whose last line is old enough, and what was counted. */
void os_kernel_fault_flush(struct os_kernel_fault *fault, uint64_t mono_us);

#endif
