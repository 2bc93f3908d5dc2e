/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether our connection was accepted at its other end. The kernel answers a connection by itself
 * while the process that listens sleeps; until the process accepts it, that end has no inode
 * (kernel: net/ipv4/inet_connection_sock.c, inet_csk_accept()). Called by agent/watch_probe.c.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/os/linux/sock_diag.h"
#include "agent/os/watch.h"

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
    static int diag = -1; /* kept: our own namespace stays the same */
    struct sock ours, theirs;
    int e = describe(fd, &ours);
    if (!e && diag < 0)
        e = sock_diag_open((uint32_t)getpid(), &diag, NULL);
    if (e)
        return e;
    e = sock_diag_peer(diag, &ours, &theirs, NULL);
    if (!e)
        *accepted = theirs.inode != 0;
    if (e && e != ERR_NOTFOUND) { /* anew next time */
        close(diag);
        diag = -1;
    }
    return e;
}
