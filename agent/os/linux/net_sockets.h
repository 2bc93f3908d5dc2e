/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sockets of one process, by netlink or from /proc/PID/net, each with its other end where that
 * is on this host. Invariant: bounded by NET_SOCKETS_MAX; what could not be asked stands in the
 * result's missing. Called by net.c and triage_file.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_NET_SOCKETS_H
#define TRAWL_AGENT_OS_LINUX_NET_SOCKETS_H

#include "agent/os/linux/sock_diag.h"
#include "agent/os/take.h"

#define NET_SOCKETS_MAX 16384
#define NET_PEERS_MAX 4096 /* connections whose other end is looked for */
#define NET_ADDRESS_SIZE 64

struct net_sockets {
    struct sock *socks; /* by rising inode */
    size_t count;
    size_t capacity;
    const uint64_t *inodes; /* borrowed: those that are looked for, rising */
    size_t inode_count;
    size_t left_out;
    int fd; /* netlink; -1: from /proc */
};

/*
 * Finds the sockets with these inodes (rising) in the network namespace of `pid`. `root`: "" or a
 * recorded tree (then from its /proc/PID/net). ERR_NOMEM; everything else is said in `result`.
 */
int net_sockets_open(struct net_sockets *s, const char *root, uint32_t pid, const uint64_t *inodes,
                     size_t count, struct os_result *result, struct failure *f);
void net_sockets_close(struct net_sockets *s);
/* NULL: of another kind, or closed meanwhile. */
const struct sock *net_sockets_find(const struct net_sockets *s, uint64_t inode);

/* "127.0.0.1:6379", "[::1]:80", "/run/x.sock" into NET_ADDRESS_SIZE, or SOCK_PATH_SIZE. */
void net_put_local(const struct sock *s, char *out, size_t size_bytes);
void net_put_remote(const struct sock *s, char *out, size_t size_bytes);
/* "tcp 127.0.0.1:80 to 127.0.0.1:4000 established, 3 B unread, 0 B to send" */
void net_describe(const struct sock *s, char *out, size_t size_bytes);

/*
 * How much trouble a socket is in, and in words; 0 and "": none. Higher is worse. Pure.
 */
unsigned net_trouble(const struct sock *s, char *out, size_t size_bytes);

#endif
