/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to net*.c: all that is known of a process's sockets, before it is written. Invariant:
 * `socks` is worst first.
 */
#ifndef TRAWL_AGENT_OS_LINUX_NET_LINUX_H
#define TRAWL_AGENT_OS_LINUX_NET_LINUX_H

#include "agent/os/linux/json_text.h"
#include "agent/os/linux/net_sockets.h"
#include "agent/os/linux/triage_holders.h"
#include "agent/os/take.h"

#define NET_TROUBLE_SIZE 120

/* Counters of the network namespace, not of the process alone. */
#define NET_COUNTERS 12
struct net_counter {
    const char *table, *name; /* "TcpExt:", "ListenOverflows" */
    const char *file;         /* "net/netstat", "net/snmp" */
    const char *words;
};
extern const struct net_counter net_counters[NET_COUNTERS];

struct net_one {
    const struct sock *sock;
    uint32_t fd; /* the lowest */
    uint32_t fd_count;
    unsigned trouble;
    char text[NET_TROUBLE_SIZE];
    bool has_growth;
    int64_t growth_bytes; /* of the send queue between two looks */
};

struct net {
    const char *root;
    const struct os_process *process;
    struct os_result *result;
    struct net_one *ones;
    size_t count;
    size_t file_count; /* open files that are sockets */
    struct net_sockets sockets;
    struct holders holders;
    uint64_t look_us; /* between the two looks; 0: one look */
    uint64_t counters[NET_COUNTERS];
    uint32_t counters_known;
    bool own_namespace;
};

/* One line of values under its line of names. Pure. ERR_NOTFOUND. */
int net_find_counter(struct span text, const char *table, const char *name, uint64_t *out);

/* The inodes of all sockets among the open files, rising, and which file has each. */
struct net_file {
    uint64_t inode;
    uint32_t fd;
};

/* With a root, for tests. */
int net_capture(const char *root, const struct os_take *take, const struct os_output *out,
                struct os_result *result, struct failure *f);

void net_put_text(const struct net *net, struct buf *out);
void net_put_json(const struct net *net, struct buf *out);

#endif
