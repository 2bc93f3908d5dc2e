/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of the crash listener: one child for each connection. Invariant: this process itself
 * reads nothing from a connection and of no process, so that no crash can harm it; what is not
 * accepted waits in the backlog. See agent/os/crash_socket.h.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/crash_socket.h"
#include "common/port.h"

#define REST_POLL_MS 50

static volatile sig_atomic_t is_told_to_end;

static void on_end(int number)
{
    (void)number;
    is_told_to_end = 1;
}

static void on_child(int number)
{
    (void)number; /* only so that ppoll(2) returns */
}

/* As of a program that the kernel starts for a crash (fs/coredump.c, umh_coredump_setup()): a core
 * limit of 1 says that who dies belongs to the handling of another crash. */
static void be_no_crash(void)
{
    struct rlimit one = {1, 1};
    (void)setrlimit(RLIMIT_CORE, &one);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

void os_crash_serve_prepare(void)
{
    struct sigaction end = {.sa_handler = on_end}, child = {.sa_handler = on_child};
    sigset_t held;
    be_no_crash();
    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGCHLD);
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    sigaction(SIGCHLD, &child, NULL);
    sigprocmask(SIG_BLOCK, &held, NULL);
}

/* With this mask ppoll(2) waits: the signals come only then. */
static void waiting_mask(sigset_t *waiting)
{
    sigprocmask(SIG_SETMASK, NULL, waiting);
    sigdelset(waiting, SIGTERM);
    sigdelset(waiting, SIGINT);
    sigdelset(waiting, SIGCHLD);
}

static _Noreturn void be_handler(const struct os_crash_server *server, int connection,
                                 const sigset_t *waiting)
{
    struct os_crash_arguments arguments;
    struct failure f = {0};
    /* What ends the listener by its terminal leaves the one crash that is looked at alone. */
    (void)setpgid(0, 0);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, waiting, NULL);
    close(server->listener);
    if (os_crash_socket_identify(connection, &arguments, &f)) {
        server->refused(server->context, f.text);
        _exit(1);
    }
    int rc = server->crashed(server->context, &arguments, connection);
    fflush(NULL);
    _exit(rc & 0xff);
}

static void begin_one(struct os_crash_server *server, const sigset_t *waiting)
{
    int connection = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0)
        return;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        be_handler(server, connection, waiting);
    if (child < 0)
        server->refused(server->context, "cannot start a process for a crash: it leaves nothing");
    else if (++server->running == server->at_once_max)
        server->filled(server->context);
    close(connection);
}

static void reap(struct os_crash_server *server)
{
    while (server->running > 0 && waitpid(-1, NULL, WNOHANG) > 0)
        server->running--;
}

int os_crash_serve(struct os_crash_server *server, struct failure *f)
{
    sigset_t waiting;
    waiting_mask(&waiting);
    while (!is_told_to_end) {
        bool may = server->running < server->at_once_max;
        struct pollfd fd = {.fd = may ? server->listener : -1, .events = POLLIN};
        int ready = ppoll(&fd, 1, NULL, &waiting);
        reap(server);
        if (ready > 0 && (fd.revents & (POLLERR | POLLNVAL | POLLHUP)))
            return fail(f, ERR_IO, "the crash socket is of no use any more");
        if (ready > 0)
            begin_one(server, &waiting);
    }
    return 0;
}

int os_crash_serve_rest(struct os_crash_server *server, uint64_t timeout_us)
{
    sigset_t waiting;
    uint64_t until_us = port_mono_us() + timeout_us;
    waiting_mask(&waiting);
    while (port_mono_us() < until_us) {
        bool may = server->running < server->at_once_max;
        struct pollfd fd = {.fd = may ? server->listener : -1, .events = POLLIN};
        struct timespec wait = {.tv_nsec = server->running ? REST_POLL_MS * 1000000 : 0};
        int ready = ppoll(&fd, 1, &wait, &waiting);
        reap(server);
        if (ready > 0 && (fd.revents & POLLIN))
            begin_one(server, &waiting);
        else if (server->running == 0)
            return 0;
    }
    return ERR_TIMEOUT;
}
