/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to triage*.c: one triage being written. Invariant: the text is bounded by limits of its
 * own, and what could not be read stands in `missing` with the reason; only a full buffer ends it
 * early.
 */
#ifndef TRAWL_AGENT_OS_LINUX_TRIAGE_LINUX_H
#define TRAWL_AGENT_OS_LINUX_TRIAGE_LINUX_H

#include "agent/os/linux/procfs.h"
#include "common/buf.h"

struct triage {
    const char *root;
    const struct os_process *process;
    struct buf *out;
    char *missing;
    size_t missing_size_bytes;
    int result; /* the first error of writing */
};

/* Appends; nothing after the first error. */
void triage_put(struct triage *t, const char *format, ...) TRAWL_PRINTF(2, 3);
/* Appends text of the process's own making, safe for a terminal. */
void triage_put_safe(struct triage *t, struct span text);
/* Adds to what is missing: "what: why". */
void triage_miss(struct triage *t, const char *what, const char *why);
/* Reads "/proc/PID/LEAF" into the caller's memory; a failure is noted as missing. */
int triage_read(struct triage *t, const char *leaf, void *data, size_t size_bytes,
                struct span *out);
/* "sleeping" for S, ... */
const char *triage_state(char state);

/* The sections. */
void triage_put_threads(struct triage *t);
void triage_put_files(struct triage *t);
void triage_put_cgroup(struct triage *t);
void triage_put_limits(struct triage *t, struct span status);
void triage_put_signals(struct triage *t, struct span status);

/* How many files it has open; false when that is not to be seen. */
bool triage_count_files(struct triage *t, uint64_t *out);

/* ---- triage_syscall.c ---- */

/*
 * The text of /proc/PID/task/TID/syscall in words: "futex(0x7f12, wait)", "read(5 -> socket:[77])",
 * "running". Pure but for the target of a file number, which is asked of `target_of`.
 */
int triage_describe_syscall(struct span text,
                            bool (*target_of)(void *context, uint64_t fd, char *out,
                                              size_t size_bytes),
                            void *context, char *out, size_t size_bytes);

/* ---- triage_socket.c ---- */

/* "tcp 127.0.0.1:6379 to 127.0.0.1:40112 established, 0 B to send, 12 B received" */
void triage_describe_socket(const struct proc_socket *socket, bool is_udp, char *out,
                            size_t size_bytes);
const char *triage_tcp_state(uint8_t state);

#endif
