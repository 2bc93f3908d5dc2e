/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who listens where: by netlink, and the same from /proc where netlink is refused or the network
 * namespace is another.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/watch.h"
#include "tests/check.h"

/* A socket that listens on a free port of the loopback address. */
static int listen_on(int family, uint16_t *port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr *address =
        family == AF_INET6 ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    socklen_t size = family == AF_INET6 ? sizeof six : sizeof four;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, address, size) < 0 || getsockname(fd, address, &size) < 0)
        return -1;
    *port = ntohs(family == AF_INET6 ? six.sin6_port : four.sin_port);
    return listen(fd, 4) == 0 ? fd : -1;
}

static int connect_to(uint16_t port, uint16_t *own)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&a, size) == 0 &&
            getsockname(fd, (struct sockaddr *)&a, &size) == 0);
    *own = ntohs(a.sin_port);
    return fd;
}

static bool has_port(const struct os_peek *peek, uint16_t port)
{
    for (uint32_t i = 0; i < peek->port_count; i++)
        if (peek->ports[i] == port)
            return true;
    return false;
}

static void check_all(void)
{
    uint16_t four, six = 0, bound, connected;
    int fds[4] = {listen_on(AF_INET, &four), listen_on(AF_INET6, &six), -1, -1};
    struct os_peek peek;
    REQUIRE(fds[0] >= 0);
    fds[2] = listen_on(AF_INET, &bound); /* listened, and does no more */
    REQUIRE(fds[2] >= 0 && close(fds[2]) == 0);
    fds[2] = connect_to(four, &connected);
    CHECK(os_watch_listens(four));
    CHECK(fds[1] < 0 || os_watch_listens(six)); /* a host may have no IPv6 */
    CHECK(!os_watch_listens(bound) && !os_watch_listens(connected));
    os_peek((uint32_t)getpid(), 0, true, &peek);
    CHECK_EQ_INT(peek.error, 0);
    CHECK(has_port(&peek, four) && (fds[1] < 0 || has_port(&peek, six)));
    CHECK_EQ_INT(peek.port_count, fds[1] < 0 ? 1 : 2);
    close(fds[0]);
    CHECK(!os_watch_listens(four));
    for (int i = 1; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

TEST(ports_that_somebody_listens_on)
{
    check_all();
    check_all(); /* the connection to the kernel is kept */
}

/* socket(AF_NETLINK, ...) fails from now on. */
static bool refuse_netlink(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(the_same_where_netlink_is_refused)
{
    REQUIRE(refuse_netlink());
    REQUIRE(socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG) < 0 && errno == EACCES);
    check_all();
}

/* Its ports are looked for in its own network namespace, and ours are none of its. */
TEST(a_process_in_another_network)
{
    int ends[2], until[2];
    uint16_t ours, theirs = 0;
    struct os_peek peek;
    int fd = listen_on(AF_INET, &ours);
    REQUIRE(fd >= 0 && pipe(ends) == 0 && pipe(until) == 0);
    pid_t child = fork();
    if (child == 0) {
        /* The loopback device there is down: any address will do. */
        struct sockaddr_in a = {.sin_family = AF_INET};
        socklen_t size = sizeof a;
        char byte;
        close(until[1]);
        int s = unshare(CLONE_NEWNET) < 0 ? -1 : socket(AF_INET, SOCK_STREAM, 0);
        if (s >= 0 && listen(s, 4) == 0 && getsockname(s, (struct sockaddr *)&a, &size) == 0)
            theirs = ntohs(a.sin_port);
        (void)!write(ends[1], &theirs, sizeof theirs);
        (void)!read(until[0], &byte, 1);
        _exit(0);
    }
    REQUIRE(read(ends[0], &theirs, sizeof theirs) == sizeof theirs);
    if (theirs) {
        os_peek((uint32_t)child, 0, true, &peek);
        CHECK_EQ_INT(peek.error, 0);
        CHECK(has_port(&peek, theirs) && peek.port_count == 1);
        CHECK(!has_port(&peek, ours) && os_watch_listens(ours));
    } else {
        SKIP("no network namespace of its own can be had here");
    }
    close(until[1]);
    REQUIRE(waitpid(child, NULL, 0) == child);
    close(fd);
}
