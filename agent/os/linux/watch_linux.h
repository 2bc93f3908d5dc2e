/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of agent/os/watch.h share. Private to watch*.c. */
#ifndef TRAWL_AGENT_OS_LINUX_WATCH_LINUX_H
#define TRAWL_AGENT_OS_LINUX_WATCH_LINUX_H

#include <stdint.h>

typedef void (*watch_listener_fn)(void *context, uint16_t port, uint64_t inode);

/*
 * Whoever listens on TCP in the network namespace of process `pid`; port 0: on any. Asks by
 * sock_diag(7) where that namespace is ours, and reads /proc/PID/net/tcp and tcp6 where it is not
 * or netlink is refused. ERR_GONE, ERR_DENIED.
 */
int watch_listeners(uint32_t pid, uint16_t port, watch_listener_fn each, void *context);

#endif
