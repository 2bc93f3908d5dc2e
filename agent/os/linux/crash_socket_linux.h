/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel says over a crash socket and of its peer. The installed headers may be older than
 * the kernel: names and numbers of include/uapi/linux/{coredump,pidfd}.h (Linux 6.19) stand here.
 * Private to crash_socket.c and its tests.
 */
#ifndef TRAWL_AGENT_OS_LINUX_CRASH_SOCKET_LINUX_H
#define TRAWL_AGENT_OS_LINUX_CRASH_SOCKET_LINUX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "common/buf.h"
#include "common/err.h"

/* include/uapi/linux/pidfd.h: struct pidfd_info, PIDFD_GET_INFO. Older kernels fill less of it. */
struct crash_peer_info {
    uint64_t mask, cgroup_id;
    uint32_t pid, tgid, parent;
    uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
    uint32_t coredump_mask;   /* Linux 6.16 */
    uint32_t coredump_signal; /* Linux 6.19 */
    uint64_t supported_mask;  /* Linux 6.19 */
};
#define CRASH_PEER_GET_INFO _IOWR(0xff, 11, struct crash_peer_info)
#define CRASH_PEER_INFO_PID (UINT64_C(1) << 0)
#define CRASH_PEER_INFO_CREDS (UINT64_C(1) << 1)
#define CRASH_PEER_INFO_COREDUMP (UINT64_C(1) << 4)
#define CRASH_PEER_INFO_COREDUMP_SIGNAL (UINT64_C(1) << 6)
#define CRASH_PEER_COREDUMPED (1u << 0)
#define CRASH_PEER_COREDUMP_USER (1u << 2) /* fs/pidfs.c: dumpable 1; without it 2 */

/* include/uapi/linux/coredump.h */
struct crash_request {
    uint32_t size, size_ack;
    uint64_t mask;
};
struct crash_ack {
    uint32_t size, spare;
    uint64_t mask;
};
#define CRASH_ASK_KERNEL (UINT64_C(1) << 0) /* the kernel writes the core */
#define CRASH_ASK_WAIT (UINT64_C(1) << 3)   /* and waits until we close */
#define CRASH_REQUEST_LEAST 16u
#define CRASH_REQUEST_MOST 4096u
#define CRASH_MARK_TAKEN 0u /* COREDUMP_MARK_REQACK */

/* Checks a request (at least CRASH_REQUEST_LEAST bytes of it) and makes the answer. Pure.
 * ERR_PROTOCOL, ERR_UNSUPPORTED. */
int crash_request_answer(struct span request, struct crash_ack *out, struct failure *f);
/* The soft limit of "Max core file size" in /proc/PID/limits; unlimited: UINT64_MAX. Pure. */
int crash_core_limit(struct span limits, uint64_t *out);
/* The signal in the last field of /proc/PID/stat (proc(5), exit_code): the kernel sets it for the
 * whole group before it dumps (fs/coredump.c, zap_process()). 0: not there. Pure. */
uint32_t crash_stat_signal(struct span stat);

#endif
