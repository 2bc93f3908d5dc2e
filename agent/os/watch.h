/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that are watched for long: how they end, who came in their place, whether their threads
 * stand still. Everything but os_peek() is asked without privilege, and cheaply. Invariant: what
 * the kernel does not say is an error or unknown, never a guess. Called by agent/watch_process.c
 * and agent/watch_stall.c; os_peek() also by the broker.
 */
#ifndef TRAWL_AGENT_OS_WATCH_H
#define TRAWL_AGENT_OS_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* ---- the end ---- */

/*
 * A descriptor (pidfd_open(2)) of the process, if it is still the one that began at `start_ticks`.
 * Readable when it has ended, hung up when its parent has reaped it. ERR_GONE, ERR_UNSUPPORTED
 * (Linux < 5.3), ERR_LIMIT.
 */
int os_watch_open(uint32_t pid, uint64_t start_ticks, int *out, struct failure *f);
void os_watch_close(int fd); /* negative is fine */

struct os_exit {
    bool by_signal; /* else `code` is the exit code */
    int code;
    bool dumped_core;
};
/*
 * How it ended (PIDFD_GET_INFO with PIDFD_INFO_EXIT, since Linux 6.15; kernel:
 * include/uapi/linux/pidfd.h). ERR_AGAIN: not reaped yet. ERR_UNSUPPORTED: this kernel does not
 * tell others than the parent.
 */
int os_watch_exit(int fd, struct os_exit *out);

/* ---- who else ---- */

struct os_watch_who {
    uint32_t parent;
    char unit[128]; /* systemd unit; empty: none */
};
int os_watch_who(uint32_t pid, struct os_watch_who *out);
/* Children of all threads' main one (/proc/PID/task/PID/children). At most `most`. ERR_UNSUPPORTED:
 * the kernel does not list them. */
int os_watch_children(uint32_t pid, uint32_t *out, size_t most, size_t *count);
/* When it began, on the clock of port_mono_us(). */
uint64_t os_watch_began_us(uint64_t start_ticks);
/* Whether anybody in our network namespace listens on this TCP port. */
bool os_watch_listens(uint16_t port);
/* Whether the other end of our TCP connection `fd`, when it is in this network namespace, was
 * accepted by its process (sock_diag(7)). ERR_NOTFOUND: the other end is not here. */
int os_watch_accepted(int fd, bool *accepted);

/* ---- standing still ---- */

/* What the main thread has run, kept open: /proc/PID/schedstat. Negative: none here. */
int os_watch_runs_open(uint32_t pid);
struct os_watch_runs {
    uint64_t busy_ns;  /* ran, or was ready to run and waited for a processor */
    uint64_t switches; /* times it got a processor */
};
int os_watch_runs(int fd, struct os_watch_runs *out);

struct os_watch_thread {
    char state;         /* proc(5), field 3 of stat */
    uint64_t voluntary; /* times it waited */
    uint64_t switches;
    uint64_t system_us, user_us;
};
int os_watch_thread(uint32_t pid, uint32_t tid, struct os_watch_thread *out);
/* Threads in uninterruptible sleep at this moment; of the first 256. */
int os_watch_blocked(uint32_t pid, uint32_t *tids, size_t most, size_t *count);

/* ---- with privilege over the process ---- */

#define OS_PEEK_PORTS 4
struct os_peek {
    uint32_t pid, tid;
    int error; /* enum err; 0: looked at */
    char state;
    bool has_syscall; /* false: it runs, or the kernel does not say */
    bool is_waiting;  /* in a call that event loops wait in: epoll_wait(2), poll(2), select(2)... */
    int32_t syscall;
    char syscall_name[24]; /* empty: not known by name */
    char wait[48];         /* kernel function it waits in; empty: not known */
    char executable[160];
    uint16_t ports[OS_PEEK_PORTS]; /* TCP ports it listens on; only when asked for */
    uint32_t port_count;
};
void os_peek(uint32_t pid, uint32_t tid, bool with_ports, struct os_peek *out);

#endif
