/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding a process still for a moment, so that it notices nothing but the moment (ptrace(2),
 * PTRACE_SEIZE). Worker only; called by stacks.c.
 *
 * What is promised of the process, and how it is kept:
 * - Our death at any instant leaves it running and untraced: plain SEIZE; no SIGSTOP, no freezer,
 * no EXITKILL, no code or data of the process is ever written. All tracing is done on a thread of
 * its own, at whose end the kernel lets go of whatever is left.
 * - No signal is lost: a signal on its way is sent on, and is only looked at (WNOWAIT), never
 * taken, so that it is delivered also when we die between looking and sending.
 * - No spurious EINTR: of the system calls that a stop makes fail with EINTR, those that can safely
 * begin anew are told to do so unless a signal has come. (rax -EINTR becomes -ERESTARTNOHAND: the
 * kernel itself then decides between the two, after the stop, so that there is no race with a
 * signal.) Never connect(2).
 * - A process that is stopped (SIGSTOP, a terminal) stays stopped.
 * - Between the first interrupt and the last release nothing allocates and no file is touched.
 * - A thread that does not stop in its share of the time (uninterruptible sleep, vfork) is left out
 * and named; it is let go as soon as it stops, at the latest when stop_run() returns.
 */
#ifndef TRAWL_AGENT_OS_LINUX_STOP_H
#define TRAWL_AGENT_OS_LINUX_STOP_H

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "agent/os/costs.h"
#include "agent/os/process.h"
#include "common/err.h"

#define STOP_THREADS_MAX 32768

/* Given at most to all threads in uninterruptible sleep together; not more than an eighth of the
 * limit. */
#define STOP_HARD_US 3000

enum stop_state {
    STOP_FOUND = 1, /* listed, not touched yet */
    STOP_SEIZED,    /* traced, running */
    STOP_HELD,      /* stopped; regs are valid */
    STOP_ENDED,     /* gone in between */
    STOP_MISSED,    /* did not stop in time */
    STOP_FOREIGN,   /* not a thread of this process */
};

struct stop_thread {
    pid_t tid;
    enum stop_state state;
    bool sleeps_hard; /* slept uninterruptibly when listed: gets a smaller share */
    struct user_regs_struct regs;
};

/* What tests switch off, to show that they would notice. All false in the product. */
struct stop_controls {
    bool swallow_signals;
    bool keep_eintr;
    bool leave_late; /* threads that stop while stop_after_fn runs stand until its end */
};

struct stop {
    struct os_process process;
    struct stop_controls controls;
    struct stop_thread *threads; /* `capacity` of them are mapped and touched */
    size_t count, capacity;
    size_t overflow; /* threads for which there was no room: missed */
    uint32_t signals_passed, calls_restarted, born;
    uint64_t pause_us; /* first interrupt to last release; 0: never interrupted */
    /* Made by `held` (a snapshot), 0: nothing. While stop_after_fn runs it is reaped as soon as it
     * ends: the end of its pid namespace would wait for that. */
    _Atomic pid_t child;
    /* private */
    int pid_fd;
    pid_t tracer;
    DIR *tasks;
    uint64_t began_us, limit_us;
};

/*
 * Pins the process, makes sure that it is the one that was found and one that may be held, and
 * lists its threads. Touches nothing. ERR_GONE; ERR_DENIED; ERR_REFUSED (pid 1, ourselves or our
 * parent, kernel thread, traced by another); ERR_UNSUPPORTED (not x86-64); ERR_LIMIT (threads).
 */
int stop_open(struct stop *stop, const struct os_process *process, struct failure *f);
void stop_close(struct stop *stop);

/* How long a hold of the listed threads would last that copies `copy_bytes`, by what it costs here.
 */
uint64_t stop_predict_us(const struct stop *stop, const struct os_costs *costs,
                         uint64_t copy_bytes);

/*
 * Holds all threads, calls `held` and releases them. `held` runs while the process stands still: it
 * must not allocate or touch files, and should give up when stop_time_left() is false. When this
 * returns, the process is released and not traced. ERR_TIMEOUT when pause_max_us was exceeded; what
 * `held` returns; ERR_GONE, ERR_DENIED, ERR_REFUSED as stop_open().
 */
typedef int (*stop_held_fn)(void *context, struct stop *stop);
/* Runs after a `held` that returned 0 and after the release, on the tracing thread, which is the
 * tracer of what `held` made (a snapshot): it may allocate and read files, and is nice again. */
typedef int (*stop_after_fn)(void *context, struct stop *stop, struct failure *f);
/* `after` may be NULL. */
int stop_run(struct stop *stop, uint32_t pause_max_us, stop_held_fn held, stop_after_fn after,
             void *context, struct failure *f);
bool stop_time_left(const struct stop *stop);
/* When the time is up, on the clock of stop_now_us() (CLOCK_MONOTONIC). */
uint64_t stop_until_us(const struct stop *stop);
uint64_t stop_now_us(void);

/*
 * Holds one thread of stop->threads, after stop_run() or in its stop_after_fn, by a tracing thread
 * of its own. The others run. Adds to *pause_us how long it stood. ERR_AGAIN: this thread cannot be
 * held now (ended, uninterruptible sleep); another one may do. What `held` returns.
 */
typedef int (*stop_one_fn)(void *context, struct stop *stop, struct stop_thread *thread);
int stop_hold_one(struct stop *stop, struct stop_thread *thread, uint32_t pause_max_us,
                  stop_one_fn held, void *context, uint64_t *pause_us, struct failure *f);

/*
 * Waits until a traced thread (or child) has stopped or ended, and only looks at it. ERR_TIMEOUT:
 * not until then. ERR_GONE: it is none of ours. On the tracing thread only.
 */
int stop_wait(pid_t tid, uint64_t until_us, siginfo_t *info);

/* The checks of stop_open() that need no list; in stop_check.c. */
int stop_check(const struct os_process *process, struct failure *f);
/* Those of them that also who only looks must make: it is the process that was meant, not the
 * kernel's own, and of this machine's kind. ERR_GONE, ERR_REFUSED, ERR_DENIED, ERR_UNSUPPORTED. */
int stop_check_target(const struct os_process *process, struct failure *f);
/* Who traces this thread: 0 nobody. Also whether it has ended or sleeps uninterruptibly. */
int stop_thread_status(pid_t pid, pid_t tid, pid_t *tracer, char *state);

#endif
