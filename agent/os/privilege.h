/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The split into an unprivileged agent and a privileged broker, and workers started by the broker.
 * The broker is single-threaded, does no cryptography, parses nothing of variable size, and alone
 * keeps privileges. Called by agent/main.c, agent/broker.c.
 */
#ifndef TRAWL_AGENT_OS_PRIVILEGE_H
#define TRAWL_AGENT_OS_PRIVILEGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

/* True when started with privileges that can be dropped (root). */
bool os_is_privileged(void);

/*
 * Forks the broker, before any thread or TLS exists. In the broker calls `run(fd)` and exits with
 * its result; in the caller returns 0 with *fd the agent's end of a SOCK_SEQPACKET pair. The broker
 * ends when the agent's end closes.
 */
int os_broker_fork(int (*run)(int fd, void *context), void *context, int *fd, struct failure *f);

/* Becomes `user` for good (all ids, no supplementary groups, no capabilities, no new privileges).
 */
int os_drop_privileges(const char *user, struct failure *f);
/* Gives a directory and what is in it to `user`. */
int os_give_directory(const char *path, const char *user, struct failure *f);

/* One fixed-size message with at most one file descriptor. fd -1: none. Blocking; EINTR is retried.
 */
int os_message_send(int fd, const void *message, size_t size_bytes, int pass_fd, struct failure *f);
/* ERR_CLOSED at the other end's end; ERR_PROTOCOL when the size differs; ERR_TIMEOUT. timeout -1:
 * none */
int os_message_receive(int fd, void *message, size_t size_bytes, int *passed_fd, int timeout_ms,
                       struct failure *f);

/* A worker: a child that runs `run` and is killed at its deadline. A watch has none to speak of: 35
 * years. */
#define OS_WORKER_NO_DEADLINE_US (UINT64_C(1) << 50)
struct os_worker {
    int pid;
    uint64_t deadline_mono_us;
};
int os_worker_start(struct os_worker *worker, uint64_t deadline_us, int (*run)(void *context),
                    void *context, struct failure *f);
/* 0: ended (*exit_status, negative: by that signal); ERR_AGAIN: still running. Kills at the
 * deadline. */
int os_worker_poll(struct os_worker *worker, int *exit_status);
void os_worker_kill(struct os_worker *worker);

/* CPU time of this process so far and its private memory, for budgets and --self-test. */
void os_self_usage(uint64_t *cpu_us, uint64_t *private_bytes, uint64_t *resident_bytes);
/* True: before others, for the little that somebody waits for. False: as others, again. Errors are
 * ignored. What is started meanwhile inherits it. */
void os_be_urgent(bool urgent);
/* Lowest CPU and I/O priority for this process (worker). Errors are ignored: it is a courtesy. */
void os_be_nice(void);

#endif
