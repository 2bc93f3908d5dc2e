/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a held thread is besides its registers and its stack: signals, floating point and vector
 * registers. Room is made before the process is held, for every thread that stop_open() has room
 * for. Called by dump*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_THREAD_STATE_H
#define TRAWL_AGENT_OS_LINUX_THREAD_STATE_H

#include <signal.h>
#include <stdint.h>
#include <sys/user.h>

#include "agent/os/linux/stop.h"

/* Threads that run get their vector registers too: at most so many. */
#define THREAD_STATE_WIDE_MAX 64

struct thread_state {
    siginfo_t info; /* si_signo 0: it is stopped by no signal */
    uint64_t blocked, pending;
    struct user_fpregs_struct fp;
    bool has_fp;
    const uint8_t *wide; /* XSAVE area; NULL: not taken */
    uint32_t wide_bytes;
};

struct thread_states {
    struct thread_state *list; /* by the index of stop->threads */
    size_t capacity;
    uint8_t *pool;
    size_t slot_bytes, slots, used;
    size_t without; /* running threads for which there was no room */
};

/* ERR_NOMEM. */
int thread_states_init(struct thread_states *states, const struct stop *stop, struct failure *f);
void thread_states_done(struct thread_states *states); /* a zeroed struct is fine */
/* From a stop_held_fn: of all held threads. `first`: gets its vector registers in any case, so that
 * a debugger learns from them which there are. Neither allocates nor fails. */
void thread_states_take(struct thread_states *states, const struct stop *stop, size_t first);
/* The thread that readers shall see first: the main thread, else the first that is held. Returns
 * stop->count when none is. */
size_t thread_states_first(const struct stop *stop);

#endif
