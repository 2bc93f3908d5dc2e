/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the sockets of one process among all of its network namespace. Invariant: `socks` is
 * sorted by inode, each inode once. Called by net.c and triage_file.c.
 */
#include "agent/os/linux/net_sockets.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

/* ---- by inode ---- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static int compare_socks(const void *a, const void *b)
{
    const struct sock *x = a, *y = b;
    return (x->inode > y->inode) - (x->inode < y->inode);
}

const struct sock *net_sockets_find(const struct net_sockets *s, uint64_t inode)
{
    struct sock key = {.inode = inode};
    if (s->count == 0 || inode == 0)
        return NULL;
    return bsearch(&key, s->socks, s->count, sizeof *s->socks, compare_socks);
}

static void add(void *context, const struct sock *sock)
{
    struct net_sockets *s = context;
    if (sock->inode == 0 || s->inode_count == 0 ||
        !bsearch(&sock->inode, s->inodes, s->inode_count, sizeof *s->inodes, compare_u64))
        return;
    if (s->count == s->capacity) {
        s->left_out++;
        return;
    }
    s->socks[s->count++] = *sock;
}

/* A table that changed while it was listed may have given a socket twice. */
static void sort(struct net_sockets *s)
{
    size_t kept = 0;
    if (s->count > 1)
        qsort(s->socks, s->count, sizeof *s->socks, compare_socks);
    for (size_t i = 0; i < s->count; i++)
        if (kept == 0 || s->socks[kept - 1].inode != s->socks[i].inode)
            s->socks[kept++] = s->socks[i];
    s->count = kept;
}

/* ---- from /proc ---- */

struct table {
    struct net_sockets *s;
    uint8_t protocol;
};

static int each_inet(void *context, struct span line)
{
    struct table *table = context;
    struct proc_socket found;
    if (proc_parse_socket(line, &found) < 0)
        return 0;
    struct sock sock = {.family = (uint8_t)found.family,
                        .protocol = table->protocol,
                        .state = found.state,
                        .local_port = found.local_port,
                        .remote_port = found.remote_port,
                        .has_queues = true,
                        .inode = found.inode};
    memcpy(sock.local, found.local, sizeof sock.local);
    memcpy(sock.remote, found.remote, sizeof sock.remote);
    sock.receive_queue =
        found.receive_queue > UINT32_MAX ? UINT32_MAX : (uint32_t)found.receive_queue;
    sock.send_queue = found.send_queue > UINT32_MAX ? UINT32_MAX : (uint32_t)found.send_queue;
    add(table->s, &sock);
    return 0;
}

static int each_unix(void *context, struct span line)
{
    struct table *table = context;
    struct proc_unix_socket found;
    if (proc_parse_unix_socket(line, &found) < 0)
        return 0;
    /* The kernel's enum socket_state: 1 not connected, 2 connecting, 3 connected. */
    uint8_t state = found.listens ? TCP_LISTEN : found.state == 3 ? TCP_ESTABLISHED : TCP_CLOSE;
    struct sock sock = {
        .family = AF_UNIX, .type = (uint8_t)found.type, .state = state, .inode = found.inode};
    (void)text_copy_span(sock.path, sizeof sock.path, found.path);
    add(table->s, &sock);
    return 0;
}

static const struct {
    const char *leaf;
    proc_line_fn each;
    uint8_t family, protocol;
} tables[] = {
    {"net/tcp", each_inet, AF_INET, IPPROTO_TCP},
    {"net/tcp6", each_inet, AF_INET6, IPPROTO_TCP},
    {"net/unix", each_unix, AF_UNIX, 0},
    {"net/udp", each_inet, AF_INET, IPPROTO_UDP},
    {"net/udp6", each_inet, AF_INET6, IPPROTO_UDP},
    {"net/udplite", each_inet, AF_INET, IPPROTO_UDPLITE},
    {"net/udplite6", each_inet, AF_INET6, IPPROTO_UDPLITE},
    {"net/raw", each_inet, AF_INET, IPPROTO_RAW},
    {"net/raw6", each_inet, AF_INET6, IPPROTO_RAW},
};
#define TABLES (sizeof tables / sizeof tables[0])

static void read_table(struct net_sockets *s, size_t i, const char *root, uint32_t pid,
                       struct os_result *result)
{
    char path[PROC_PATH_SIZE];
    struct failure f;
    struct table table = {s, tables[i].protocol};
    proc_path(path, root, pid, tables[i].leaf);
    int e = proc_each_line(path, tables[i].each, &table, &f);
    if (e < 0 && e != ERR_GONE) /* no IPv6: the table is not there */
        os_result_miss(result, "sockets: %s", f.text);
}

/* ---- all ---- */

static void read_all(struct net_sockets *s, const char *root, uint32_t pid,
                     struct os_result *result)
{
    struct failure f;
    for (size_t i = 0; i < TABLES && s->count + s->left_out < s->inode_count; i++) {
        int e = s->fd < 0 ? ERR_UNSUPPORTED
                          : sock_diag_each(s->fd, tables[i].family, tables[i].protocol, add, s, &f);
        if (e == ERR_UNSUPPORTED)
            read_table(s, i, root, pid, result);
        else if (e < 0)
            os_result_miss(result, "sockets: %s", f.text);
    }
}

static bool is_loopback(const struct sock *s)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (s->family == AF_INET)
        return s->remote[0] == 127;
    if (memcmp(s->remote, mapped, sizeof mapped) == 0)
        return s->remote[12] == 127;
    return memcmp(s->remote, in6addr_loopback.s6_addr, sizeof s->remote) == 0;
}

/* Its other end is surely on this host: it says loopback, or both addresses are the same. */
static bool is_local(const struct sock *s)
{
    size_t size = s->family == AF_INET ? 4 : 16;
    return is_loopback(s) || memcmp(s->local, s->remote, size) == 0;
}

static bool is_connection(const struct sock *s)
{
    return s->family != AF_UNIX && s->protocol == IPPROTO_TCP && s->remote_port != 0;
}

static void find_peer(const struct net_sockets *s, struct sock *sock, size_t *asked)
{
    struct sock peer;
    ++*asked;
    if (sock_diag_peer(s->fd, sock, &peer, NULL) == 0)
        sock->peer_inode = peer.inode;
}

/* Others may be too, by another of its addresses: asked for while the limit allows. */
static void find_peers(struct net_sockets *s, struct os_result *result)
{
    size_t asked = 0, over = 0;
    for (int pass = 0; pass < 2 && s->fd >= 0; pass++) {
        for (size_t i = 0; i < s->count; i++) {
            struct sock *sock = &s->socks[i];
            if (!is_connection(sock) || is_local(sock) != (pass == 0))
                continue;
            if (asked == NET_PEERS_MAX)
                over++;
            else
                find_peer(s, sock, &asked);
        }
    }
    if (over > 0)
        os_result_miss(result, "the other ends of %zu connections (limit %d)", over, NET_PEERS_MAX);
}

int net_sockets_open(struct net_sockets *s, const char *root, uint32_t pid, const uint64_t *inodes,
                     size_t count, struct os_result *result, struct failure *f)
{
    struct failure why;
    *s = (struct net_sockets){.fd = -1, .inodes = inodes, .inode_count = count};
    s->capacity = count < NET_SOCKETS_MAX ? count : NET_SOCKETS_MAX;
    if (count == 0)
        return 0;
    s->socks = calloc(s->capacity, sizeof *s->socks);
    if (!s->socks)
        return fail(f, ERR_NOMEM, "out of memory for %zu sockets", count);
    if (root[0] == '\0' && sock_diag_open(pid, &s->fd, &why) < 0) {
        s->fd = -1;
        os_result_miss(result, "round-trip times, retransmits and other ends: %s", why.text);
    }
    read_all(s, root, pid, result);
    sort(s);
    find_peers(s, result);
    if (s->left_out > 0)
        os_result_miss(result, "%zu of %zu sockets (limit %d)", s->left_out, count,
                       NET_SOCKETS_MAX);
    return 0;
}

void net_sockets_close(struct net_sockets *s)
{
    free(s->socks);
    if (s->fd >= 0)
        close(s->fd);
    *s = (struct net_sockets){.fd = -1};
}
