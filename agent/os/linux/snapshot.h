/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy-on-write twin of a held process: one of its threads is made to call clone(2), the twin
 * stands still for ever and its memory is read while the process has long gone on. Worker only;
 * called by dump.c.
 *
 * What is promised of the process, besides what stop.h promises:
 * - Our death at any instruction leaves it running as if nothing had been: before the registers of
 * the thread are touched, signal frames that restore all of them (FP state and signal mask
 * included) lie where the thread's stack is certainly unused; the stub it runs returns into them.
 * - Its code is never written; the stub is a `syscall; ret` that it has already.
 * - No SIGCHLD (exit signal 0), no second owner of its files (CLONE_FILES | CLONE_FS), no zombie:
 * the twin is reaped by a wait4(2) that the process is made to call. The call that the thread was
 * in begins anew as after any stop.
 * - The twin dies with us (PTRACE_O_EXITKILL, on the twin only) and is the first to go when memory
 * is short (oom_score_adj 1000).
 */
#ifndef TRAWL_AGENT_OS_LINUX_SNAPSHOT_H
#define TRAWL_AGENT_OS_LINUX_SNAPSHOT_H

#include "agent/os/linux/maps.h"
#include "agent/os/linux/stop.h"

struct snapshot {
    /* Set by snapshot_prepare(). */
    uint64_t stub, restorer; /* addresses of `syscall; ret` and of `mov $15,%eax; syscall` */
    /* Set by snapshot_make(). */
    pid_t pid;       /* of the twin; 0: none */
    pid_t inner_pid; /* as the process sees it (its own pid namespace) */
    int mem_fd;      /* /proc/TWIN/mem; -1: none */
    /* private */
    const struct maps *maps;
    void *work; /* what is needed while the process is held, allocated before */
};

/*
 * Before the process is held: looks for the stub, allocates, and decides whether it may be made to
 * call clone(2) at all. ERR_REFUSED with a whole sentence: seccomp filter, pid 1 (also of its own
 * pid namespace's: allowed), 32-bit, shadow stack, no stub. `stop` is open; `maps` is borrowed
 * until snapshot_done().
 */
int snapshot_prepare(struct snapshot *snapshot, const struct stop *stop, const struct maps *maps,
                     struct failure *f);
/*
 * From a stop_held_fn. Chooses a thread inside a blocking system call with enough room on a stack
 * of its own, and makes the twin. ERR_REFUSED with a sentence: no thread fits (why), clone(2)
 * refused (EAGAIN: limit of processes, ENOMEM: memory or overcommit). ERR_TIMEOUT. The process is
 * then as it was before.
 */
int snapshot_make(struct snapshot *snapshot, struct stop *stop, struct failure *f);
/*
 * After the release, on the tracing thread (a stop_after_fn): kills the twin and has it reaped by a
 * second, short stop of one thread. Adds that stop to *pause_us. A twin that could not be reaped in
 * time stays a zombie of the process: ERR_TIMEOUT, said in *f.
 */
int snapshot_end(struct snapshot *snapshot, struct stop *stop, uint64_t *pause_us,
                 struct failure *f);
void snapshot_done(struct snapshot *snapshot);

/*
 * What a worker that was killed left behind: a zombie child of the process with exit signal 0, born
 * since `born_after_ticks` (same unit as os_process.start_ticks). Finds and reaps such. Returns how
 * many were reaped, or a negative enum err. Called in a worker of its own.
 */
int snapshot_tidy(const struct os_process *process, uint64_t born_after_ticks, struct failure *f);

#endif
