/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the state of held threads by ptrace(2). Invariant: nothing is changed, nothing is
 * allocated while the process is held. A thread inside a system call has nothing of value in its
 * vector registers (they are the callee's to spoil), and copying them costs more than all else.
 * Called by dump*.c.
 */
#include "agent/os/linux/thread_state.h"

#include <cpuid.h>
#include <elf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define XSAVE_LEAF 0xd
#define XSAVE_LEGACY_BYTES 832u /* with the AVX part */
#define XSAVE_BYTES_MAX 65536u
#define PENDING_MAX 32
#define KERNEL_SIGSET_BYTES 8

/* Intel SDM volume 1, 13.2: CPUID leaf 0xd, ECX: bytes for all features the processor has. */
static size_t wide_bytes(void)
{
    unsigned a, b, c = 0, d;
    if (!__get_cpuid_count(XSAVE_LEAF, 0, &a, &b, &c, &d) || c < XSAVE_LEGACY_BYTES)
        c = XSAVE_LEGACY_BYTES;
    if (c > XSAVE_BYTES_MAX)
        c = XSAVE_BYTES_MAX;
    return (c + 63u) & ~63u;
}

static void *touched(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int thread_states_init(struct thread_states *states, const struct stop *stop, struct failure *f)
{
    memset(states, 0, sizeof *states);
    states->slot_bytes = wide_bytes();
    states->slots = stop->capacity < THREAD_STATE_WIDE_MAX ? stop->capacity : THREAD_STATE_WIDE_MAX;
    states->list = touched(stop->capacity * sizeof *states->list);
    states->pool = touched(states->slots * states->slot_bytes);
    states->capacity = stop->capacity;
    if (!states->list || !states->pool) {
        thread_states_done(states);
        return fail(f, ERR_NOMEM, "no memory for the state of %zu threads", stop->capacity);
    }
    return 0;
}

void thread_states_done(struct thread_states *states)
{
    if (states->list)
        munmap(states->list, states->capacity * sizeof *states->list);
    if (states->pool)
        munmap(states->pool, states->slots * states->slot_bytes);
    memset(states, 0, sizeof *states);
}

/* Signals that were sent to this thread alone. */
static uint64_t pending_signals(pid_t tid)
{
    siginfo_t list[PENDING_MAX];
    struct __ptrace_peeksiginfo_args args = {.off = 0, .flags = 0, .nr = PENDING_MAX};
    uint64_t pending = 0;
    long count = ptrace(PTRACE_PEEKSIGINFO, tid, &args, list);
    for (long i = 0; i < count && i < PENDING_MAX; i++) {
        int number = list[i].si_signo;
        if (number >= 1 && number <= 64)
            pending |= 1ull << (number - 1);
    }
    return pending;
}

static void take_wide(struct thread_states *states, pid_t tid, struct thread_state *state)
{
    if (states->used == states->slots) {
        states->without++;
        return;
    }
    struct iovec area = {states->pool + states->used * states->slot_bytes, states->slot_bytes};
    if (ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &area) != 0)
        return;
    state->wide = area.iov_base;
    state->wide_bytes = (uint32_t)area.iov_len;
    states->used++;
}

static void take_one(struct thread_states *states, const struct stop_thread *thread,
                     struct thread_state *state, bool wide)
{
    pid_t tid = thread->tid;
    /* A stop of ours looks like a SIGTRAP; any other is the signal that stopped the process. */
    if (ptrace(PTRACE_GETSIGINFO, tid, 0, &state->info) != 0 || state->info.si_signo == SIGTRAP)
        memset(&state->info, 0, sizeof state->info);
    if (ptrace(PTRACE_GETSIGMASK, tid, KERNEL_SIGSET_BYTES, &state->blocked) != 0)
        state->blocked = 0;
    state->pending = pending_signals(tid);
    state->has_fp = ptrace(PTRACE_GETFPREGS, tid, 0, &state->fp) == 0;
    if (wide || (int64_t)thread->regs.orig_rax < 0)
        take_wide(states, tid, state);
}

void thread_states_take(struct thread_states *states, const struct stop *stop, size_t first)
{
    if (first < stop->count && first < states->capacity)
        take_one(states, &stop->threads[first], &states->list[first], true);
    for (size_t i = 0; i < stop->count && i < states->capacity; i++) {
        if (stop->threads[i].state == STOP_HELD && i != first)
            take_one(states, &stop->threads[i], &states->list[i], false);
    }
}

size_t thread_states_first(const struct stop *stop)
{
    size_t first = stop->count;
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state != STOP_HELD)
            continue;
        if (stop->threads[i].tid == (pid_t)stop->process.pid)
            return i;
        if (first == stop->count)
            first = i;
    }
    return first;
}
