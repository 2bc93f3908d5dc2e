/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy-on-write twin of a held process: one of its threads is made to call clone(2), the twin
 * stands still for ever and its memory is read while the process has long gone on. Worker only;
 * called by dump.c.
 *
 * What is promised of the process, besides what stop.h promises:
 * - Our death at any instruction leaves it running as if nothing had been: before the registers of
 * the thread are touched, signal frames that restore all of them (FP state and signal mask
 * included) lie where the thread's stack is certainly unused; the gadget it runs returns into them.
 * - Its code is never written; the gadget is a `syscall; ret` that it has already.
 * - No SIGCHLD (exit signal 0), no second owner of its files (CLONE_FILES | CLONE_FS), no zombie:
 * the twin is reaped by a wait4(2) that the process is made to call. The call that the thread was
 * in begins anew as after any stop.
 * - The twin dies with us (PTRACE_O_EXITKILL, on the twin only) and is the first to go when memory
 * is short (oom_score_adj 1000).
 *
 * In this order: stop_open(), maps_read(), snapshot_prepare(), stop_run(held, after) where `held`
 * calls snapshot_make() and `after` calls snapshot_open(), reads from mem_fd, and calls
 * snapshot_end(); snapshot_done(). When stop_run() failed, `after` was not called, or it failed:
 * snapshot_end() is called all the same, from any thread; it does nothing when there is no twin.
 */
#ifndef TRAWL_AGENT_OS_LINUX_SNAPSHOT_H
#define TRAWL_AGENT_OS_LINUX_SNAPSHOT_H

#include "agent/os/costs.h"
#include "agent/os/linux/inject.h"
#include "agent/os/linux/maps.h"
#include "agent/os/linux/stop.h"

struct snapshot {
    /* Set by snapshot_make(). */
    pid_t pid;       /* of the twin; 0: none */
    pid_t inner_pid; /* as the process sees it (its own pid namespace) */
    /* Set by snapshot_open(). */
    int mem_fd; /* /proc/TWIN/mem; -1: none. Nothing can be read any more when the twin was killed
                 */
    /* Of the two calls; set by tests after snapshot_prepare(). */
    struct inject_controls clone_controls, reap_controls;
    /* private */
    struct os_process process;
    uint64_t made_ticks; /* when the process was found to be fit: the twin is younger */
    bool begun;          /* clone(2) may have been called: a twin of unknown pid may be left */
    size_t work_bytes;
    struct inject *work; /* what is needed while the process is held, allocated before */
};

/*
 * How long the process would stand still for a snapshot: page tables of `small_bytes` resident in
 * small pages and `huge_bytes` in huge ones (smaps: AnonHugePages and its kin), and its threads.
 */
uint64_t snapshot_predict_us(const struct os_costs *costs, uint64_t small_bytes,
                             uint64_t huge_bytes, size_t threads);

/*
 * Before the process is held: looks for the gadget, allocates, and decides whether it may be made
 * to call clone(2) at all. ERR_REFUSED with a whole sentence: a seccomp filter, shadow stacks, a
 * pid namespace for children that is not its own, no gadget. `stop` is open; `maps` is borrowed
 * until snapshot_done(), which is due also after a failure.
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
 * Whether the process has ended meanwhile. Its twin can still be read, but what waits for the end
 * of everything in its control group or pid namespace (a service that is restarted) waits for it.
 */
bool snapshot_is_orphan(const struct snapshot *snapshot);
/*
 * First in a stop_after_fn: takes the twin into care and opens its memory. The twin's pid may be
 * used to read /proc/TWIN/pagemap and the like until snapshot_end().
 */
int snapshot_open(struct snapshot *snapshot, struct failure *f);
/*
 * After the release: kills the twin and has it reaped by a second, short stop of one thread. Adds
 * that stop to *pause_us. ERR_TIMEOUT, ERR_REFUSED: it could not be reaped and stays a zombie of
 * the process until snapshot_tidy(); said in *f.
 */
int snapshot_end(struct snapshot *snapshot, uint64_t *pause_us, struct failure *f);
void snapshot_done(struct snapshot *snapshot);

/*
 * What a worker that was killed left behind: a zombie child of the process with exit signal 0, born
 * since `born_after_ticks` (same unit as os_process.start_ticks), that never called execve(2).
 * Finds and reaps such. Returns how many were reaped, or a negative enum err. In a worker of its
 * own.
 */
int snapshot_tidy(const struct os_process *process, uint64_t born_after_ticks, struct failure *f);

/* The checks of snapshot_prepare() that need no code; in snapshot_check.c. */
int snapshot_check(const struct stop *stop, struct failure *f);
/* Makes the process reap these children, pids as it sees them: *reaped counts those that are gone.
 * In snapshot_reap.c. */
int snapshot_reap(const struct os_process *process, const pid_t *inner_pids, size_t count,
                  const struct inject_controls *controls, size_t *reaped, uint64_t *pause_us,
                  struct failure *f);
/* Children of the process that can only be a twin that has ended; waits a little for such. Returns
 * how many were found, at most `limit`. In snapshot_reap.c. */
size_t snapshot_find_twins(const struct os_process *process, uint64_t born_after_ticks,
                           pid_t *inner_pids, size_t limit);

#endif
