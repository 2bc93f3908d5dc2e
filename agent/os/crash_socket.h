/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dying process that the kernel hands over a unix socket (core(5) of Linux 6.16 and later;
 * kernel: fs/coredump.c, include/uapi/linux/coredump.h) instead of a pipe. Invariant: who it is
 * comes from the kernel's own word on the peer, never from bytes that a peer sends, and a peer that
 * is not being dumped is refused. Called by agent/crash_listen.c, crash_handler.c, crash_command.c
 * and crash_guard.c.
 */
#ifndef TRAWL_AGENT_OS_CRASH_SOCKET_H
#define TRAWL_AGENT_OS_CRASH_SOCKET_H

#include "agent/os/crash.h"

#define OS_CRASH_SOCKET_SIZE 108 /* of a path, with its zero: unix(7) */

/* ---- the listening end ---- */

/* Makes the socket (0600) in a directory that only root can change; one that nobody listens at any
 * more is replaced. ERR_INUSE, ERR_EXISTS (no socket), ERR_DENIED, ERR_INVALID. */
int os_crash_socket_listen(const char *path, int *fd, struct failure *f);
/* The one that the init system holds (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS), and its path.
 * ERR_NOTFOUND: there is none; ERR_INVALID: it is no listening unix stream socket. */
int os_crash_socket_inherit(int *fd, char path[OS_CRASH_SOCKET_SIZE], struct failure *f);
/* ERR_DENIED: others than root could put another socket there, or come by it. */
int os_crash_socket_check(const char *path, struct failure *f);

/* There is one listener for a path, as long as it lives: PATH.lock (fcntl(2), F_SETLK). ERR_INUSE.
 */
int os_crash_socket_lock(const char *path, int *fd, struct failure *f);
/* Who holds it; 0: nobody. Needs root. */
uint32_t os_crash_socket_holder(const char *path);
/* Whether somebody listens there, by /proc/net/unix: also while only the init system does. `root`:
 * "" or a directory with the proc tree of a test. */
bool os_crash_socket_is_served(const char *root, const char *path);

/* ---- one crash ---- */

/*
 * What the pipe's arguments say, of the peer of a connection. tid and inner_tid are 0: the notes of
 * the core tell them (os_crash_take()); time_s is now. *out owns pidfd. ERR_DENIED: the peer is not
 * being dumped; ERR_GONE; ERR_UNSUPPORTED.
 */
int os_crash_socket_identify(int connection, struct os_crash_arguments *out, struct failure *f);
/*
 * Answers a kernel that asks: write the core, and wait until we close. Afterwards the core follows;
 * with a kernel that does not ask it does so at once. Waits for at most 5 s. ERR_PROTOCOL,
 * ERR_CLOSED, ERR_TIMEOUT, ERR_UNSUPPORTED.
 */
int os_crash_socket_answer(int connection, struct failure *f);

/* ---- many ---- */

struct os_crash_server {
    int listener;
    uint32_t at_once_max; /* children; beyond it crashes wait in the socket's backlog */
    /* In a child of its own, which ends with what it returns. *arguments owns pidfd. */
    int (*crashed)(void *context, const struct os_crash_arguments *arguments, int connection);
    void (*refused)(void *context, const char *why); /* of one connection; in any process */
    void (*filled)(void *context);                   /* at_once_max was reached */
    void *context;
    uint32_t running;
};

/* Once, before anything that has to be undone: from now on SIGTERM and SIGINT only end
 * os_crash_serve(). Sets our core limit to 1 and has us not dumped: what dies of a crash's handling
 * is not handled for ever. */
void os_crash_serve_prepare(void);
/* Until SIGTERM or SIGINT. ERR_IO: the socket is of no use any more. */
int os_crash_serve(struct os_crash_server *server, struct failure *f);
/* Afterwards: what waits in the backlog, and until all children have ended; at most `timeout_us`.
 * ERR_TIMEOUT: some go on. */
int os_crash_serve_rest(struct os_crash_server *server, uint64_t timeout_us);

#endif
