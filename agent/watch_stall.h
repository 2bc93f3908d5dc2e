/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a watched process stands still: a thread in uninterruptible sleep, or an event loop that
 * does not come back to its wait. Pure: figures in, a verdict out; the caller reads and asks
 * (watch_process.c). Invariants: what sleeps in its wait is idle, however long; each standstill is
 * told once.
 *
 * An event loop is a process whose main thread was once seen in epoll_wait, poll, select or their
 * like. It has stopped when for STALL_US its main thread
 *   - has not run at all, and is in another system call (asked once for each standstill), or
 *   - has run, or wanted to, all the time (90 % and more of each second) without waiting for
 * anything and with hardly any time in the kernel (2 %): a server under load calls the kernel, an
 * endless loop does not.
 */
#ifndef TRAWL_AGENT_WATCH_STALL_H
#define TRAWL_AGENT_WATCH_STALL_H

#include "agent/os/watch.h"

#define STALL_US UINT64_C(10000000)
#define STALL_BLOCKED 4 /* threads in uninterruptible sleep that are looked at together */

enum stall_verdict {
    STALL_NONE,
    STALL_ASK,   /* what does the main thread wait in? then stall_answer() */
    STALL_LOOK,  /* read os_watch_thread() of the main thread, then stall_looked() */
    STALL_STUCK, /* the loop has stopped: to be told */
    STALL_GOES   /* the loop that was told of goes on */
};

struct stall {
    struct os_watch_runs last;
    bool has_last, is_loop, was_asked, is_told;
    uint64_t still_since_us; /* 0: it ran */
    uint64_t busy_since_us;  /* 0: it rested */
    bool has_base;
    struct os_watch_thread base; /* when it began to be busy */
    uint64_t asked_us;
    uint32_t asked; /* times, whether it is a loop */
    uint64_t stuck_since_us;
};

/* Once a second. */
enum stall_verdict stall_feed(struct stall *s, const struct os_watch_runs *runs, uint64_t mono_us);
/* error in `peek`: not known. */
enum stall_verdict stall_answer(struct stall *s, const struct os_peek *peek, uint64_t mono_us);
enum stall_verdict stall_looked(struct stall *s, const struct os_watch_thread *thread,
                                uint64_t mono_us);

/* A thread in uninterruptible sleep. */
struct stall_blocked {
    uint32_t tid; /* 0: free */
    uint64_t switches, since_us;
    bool is_told;
};
/* True: it sleeps so in one and the same wait for STALL_US, and was not told of. *over_us, if it
 * was told of and goes on: how long it slept; else 0. */
bool stall_blocked_feed(struct stall_blocked *b, const struct os_watch_thread *thread,
                        uint64_t mono_us, uint64_t *over_us);

#endif
