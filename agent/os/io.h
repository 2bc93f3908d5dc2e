/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two small services of the operating system: the I/O counters of a process, which need privilege
 * (asked by the broker for the agent's sampler), and giving mapped file pages back (asked by the
 * ring, so that a long recording is not counted as our memory).
 */
#ifndef TRAWL_AGENT_OS_IO_H
#define TRAWL_AGENT_OS_IO_H

#include <stddef.h>
#include <stdint.h>

#include "agent/os/counters.h"

/* proc(5), /proc/PID/io. Always fills *out; out->error is the errno, 0 when the values are valid,
 * and is returned. `root`: "" or a recorded tree. */
int os_process_read_io(const char *root, uint32_t pid, struct os_process_io *out);

/* The contents of a shared file mapping stay; its pages leave this process until they are touched.
 */
void os_pages_release(void *data, size_t size_bytes);

#endif
