/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who listens on TCP, and whether our connection was accepted at its other end. The kernel answers
 * a connection by itself while the process that listens sleeps; until the process accepts it, that
 * end has no inode (kernel: net/ipv4/inet_connection_sock.c, inet_csk_accept()). Invariant: the
 * caller stays in its network namespace. Called by watch.c, watch_thread.c, agent/watch_probe.c.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/sock_diag.h"
#include "agent/os/linux/watch_linux.h"
#include "agent/os/watch.h"

/* ---- who listens ---- */

struct asked {
    uint16_t port; /* 0: any */
    watch_listener_fn each;
    void *context;
};

static void each_sock(void *context, const struct sock *s)
{
    const struct asked *a = context;
    if (s->state == TCP_LISTEN && (!a->port || a->port == s->local_port))
        a->each(a->context, s->local_port, s->inode);
}

static int each_line(void *context, struct span line)
{
    const struct asked *a = context;
    struct proc_socket s;
    if (proc_parse_socket(line, &s) < 0)
        return 0;              /* the heading */
    if (s.state != TCP_LISTEN) /* the kernel lists those that listen first, before 4.4 with ... */
        return s.state == TCP_SYN_RECV ? 0 : 1; /* ... half-open ones among them */
    if (!a->port || a->port == s.local_port)
        a->each(a->context, s.local_port, s.inode);
    return 0;
}

static int read_listeners(uint32_t pid, struct asked *a)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, "", pid, "net/tcp");
    int four = proc_each_line(path, each_line, a, NULL);
    proc_path(path, "", pid, "net/tcp6");
    int six = proc_each_line(path, each_line, a, NULL);
    return four < 0 && six < 0 ? four : 0;
}

static bool is_our_namespace(uint32_t pid)
{
    char ours[64], theirs[64];
    return proc_link_pid("", (uint32_t)getpid(), "ns/net", ours, sizeof ours, NULL) == 0 &&
           proc_link_pid("", pid, "ns/net", theirs, sizeof theirs, NULL) == 0 &&
           strcmp(ours, theirs) == 0;
}

/* Kept open: our own namespace stays the same. Negative: none now. */
static int own_diag = -1;

static int open_own(void)
{
    return own_diag < 0 ? sock_diag_open((uint32_t)getpid(), &own_diag, NULL) : 0;
}

static void close_own(void) /* anew next time */
{
    if (own_diag >= 0)
        close(own_diag);
    own_diag = -1;
}

int watch_listeners(uint32_t pid, uint16_t port, watch_listener_fn each, void *context)
{
    struct asked a = {port, each, context};
    if (!is_our_namespace(pid) || open_own())
        return read_listeners(pid, &a);
    int four = sock_diag_listeners(own_diag, AF_INET, port, each_sock, &a, NULL);
    if (four == ERR_UNSUPPORTED)
        return read_listeners(pid, &a);
    int six = four ? four : sock_diag_listeners(own_diag, AF_INET6, port, each_sock, &a, NULL);
    if (six && six != ERR_UNSUPPORTED) /* a host without IPv6 has no such table */
        close_own();
    return four ? read_listeners(pid, &a) : 0;
}

static void note_listener(void *context, uint16_t port, uint64_t inode)
{
    (void)port;
    (void)inode;
    *(bool *)context = true;
}

bool os_watch_listens(uint16_t port)
{
    bool found = false;
    return watch_listeners((uint32_t)getpid(), port, note_listener, &found) == 0 && found;
}

/* ---- who has accepted ---- */

static void put_address(const struct sockaddr_storage *a, uint8_t *address, uint16_t *port)
{
    if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)a;
        memcpy(address, &six->sin6_addr, 16);
        *port = ntohs(six->sin6_port);
    } else {
        const struct sockaddr_in *four = (const struct sockaddr_in *)a;
        memcpy(address, &four->sin_addr, 4);
        *port = ntohs(four->sin_port);
    }
}

static int describe(int fd, struct sock *out)
{
    struct sockaddr_storage own, other;
    socklen_t own_size = sizeof own, other_size = sizeof other;
    if (getsockname(fd, (struct sockaddr *)&own, &own_size) < 0 ||
        getpeername(fd, (struct sockaddr *)&other, &other_size) < 0 ||
        (own.ss_family != AF_INET && own.ss_family != AF_INET6))
        return ERR_INVALID;
    *out = (struct sock){.family = (uint8_t)own.ss_family, .protocol = IPPROTO_TCP};
    put_address(&own, out->local, &out->local_port);
    put_address(&other, out->remote, &out->remote_port);
    return 0;
}

int os_watch_accepted(int fd, bool *accepted)
{
    struct sock ours, theirs;
    int e = describe(fd, &ours);
    if (!e)
        e = open_own();
    if (e)
        return e;
    e = sock_diag_peer(own_diag, &ours, &theirs, NULL);
    if (!e)
        *accepted = theirs.inode != 0;
    if (e && e != ERR_NOTFOUND)
        close_own();
    return e;
}
