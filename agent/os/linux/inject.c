/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of ptrace(2) calls by which a held thread makes one system call. Invariant: between any
 * two of them our death (SIGKILL) leaves the thread whole; each step says why. Called by
 * snapshot.c; inject.h says what is promised.
 */
#include "agent/os/linux/inject.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/linux/stop.h"

#define OPTIONS PTRACE_O_TRACECLONE
/* Without TRACESYSGOOD a thread that is let go by our death in a system call stop gets SIGTRAP. */
#define OPTIONS_MEANWHILE (PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD)
#define SYSCALL_STOP (SIGTRAP | 0x80)
#define ERESTARTSYS_ 512
#define ERESTARTNOHAND_ 514
#define KERNEL_SIGNALS_BYTES 8
#define USER_CODE_64 0x33 /* cs of 64-bit code */
#define STOPS_MAX 64      /* a thread that stops more often than this is given up */

static void step(const struct inject *inject, uint32_t number)
{
    if (inject->controls.die_at == number)
        kill(getpid(), SIGKILL);
}

/* ---- before anything is touched ---- */

static int read_thread(struct inject *inject, struct failure *f)
{
    struct iovec area = {inject->xstate, sizeof inject->xstate};
    struct signal_frame_thread *thread = &inject->thread;
    if (ptrace(PTRACE_GETREGS, inject->tid, 0, &thread->regs) != 0 ||
        ptrace(PTRACE_GETSIGMASK, inject->tid, KERNEL_SIGNALS_BYTES, &thread->mask) != 0)
        return fail(f, ERR_GONE, "thread %d ended", inject->tid);
    if (ptrace(PTRACE_GETREGSET, inject->tid, NT_X86_XSTATE, &area) != 0)
        return fail_errno(f, ERR_UNSUPPORTED, errno, "cannot read the FP state of thread %d",
                          inject->tid);
    thread->xstate = span_of(inject->xstate, area.iov_len);
    if (thread->regs.cs != USER_CODE_64)
        return fail(f, ERR_UNSUPPORTED, "thread %d runs 32-bit code", inject->tid);
    return 0;
}

static int write_frames(struct inject *inject, struct failure *f)
{
    int rc = signal_frames_build(&inject->thread, &inject->code, &inject->layout, &inject->frames);
    if (rc)
        return fail(f, rc, "FP state of thread %d is not understood", inject->tid);
    if (inject->controls.leave_frames)
        return 0;
    const struct map *stack = maps_find(inject->maps, inject->thread.regs.rsp);
    if (!stack || inject->frames.address < stack->start)
        return fail(f, ERR_UNSUPPORTED, "stack of thread %d has too little room", inject->tid);
    struct iovec local = {inject->frames.bytes, inject->frames.size_bytes};
    struct iovec remote = {(void *)(uintptr_t)inject->frames.address, inject->frames.size_bytes};
    ssize_t put = process_vm_writev(inject->pid, &local, 1, &remote, 1, 0);
    if (put != (ssize_t)inject->frames.size_bytes)
        return fail(f, ERR_UNSUPPORTED, "stack of thread %d cannot be written", inject->tid);
    return 0;
}

/* ---- the call ---- */

static void set_call(const struct inject *inject, const struct inject_call *call,
                     struct user_regs_struct *regs)
{
    *regs = inject->thread.regs;
    regs->rip = inject->code.gadget;
    regs->rax = call->number;
    regs->orig_rax = ~0ull; /* in no system call: nothing is restarted */
    regs->rdi = call->arguments[0];
    regs->rsi = call->arguments[1];
    regs->rdx = call->arguments[2];
    regs->r10 = call->arguments[3];
    regs->r8 = call->arguments[4];
    regs->r9 = call->arguments[5];
    if (inject->controls.leave_frames)
        return;
    regs->rsp = inject->frames.thread_sp;
    if (call->child_on_frame)
        regs->rsi = inject->frames.twin_sp;
}

/*
 * First the registers, then the mask: were signals blocked first and we died, they would stay so.
 * A handler that runs meanwhile is pushed below the frames and returns to the gadget.
 */
static int point_at_gadget(struct inject *inject, const struct inject_call *call, struct failure *f)
{
    struct user_regs_struct regs;
    uint64_t all = ~0ull;
    set_call(inject, call, &regs);
    step(inject, 2);
    if (ptrace(PTRACE_SETOPTIONS, inject->tid, 0, OPTIONS_MEANWHILE) != 0)
        return fail(f, ERR_GONE, "thread %d ended", inject->tid);
    step(inject, 3);
    if (ptrace(PTRACE_SETREGS, inject->tid, 0, &regs) != 0)
        return fail(f, ERR_GONE, "thread %d ended", inject->tid);
    inject->begun = true;
    step(inject, 4);
    if (ptrace(PTRACE_SETSIGMASK, inject->tid, KERNEL_SIGNALS_BYTES, &all) != 0)
        return fail(f, ERR_GONE, "thread %d ended", inject->tid);
    step(inject, 5);
    return 0;
}

/* Waits for the thread's next stop; it is looked at, not taken (stop.h says why). */
static int next_stop(struct inject *inject, int *status, struct failure *f)
{
    siginfo_t info;
    int rc = stop_wait(inject->tid, inject->until_us, &info);
    if (rc == ERR_TIMEOUT)
        return fail(f, rc, "system call in thread %d did not return in time", inject->tid);
    if (rc || (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED))
        return fail(f, ERR_GONE, "thread %d ended", inject->tid);
    *status = info.si_status;
    return 0;
}

/* What may come in between: a SIGSTOP (nothing else gets past the mask), or an interrupt from
 * before. The thread gets what is its own and goes on. */
static long signal_of(int status)
{
    return status >> 8 || status == SYSCALL_STOP ? 0 : status & 0xff;
}

/* At the end of a system call: false when the kernel begins it anew by itself. */
static int read_result(struct inject *inject, bool *done, struct failure *f)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, inject->tid, 0, &regs) != 0)
        return fail(f, ERR_GONE, "thread %d ended", inject->tid);
    inject->result = (int64_t)regs.rax;
    *done = inject->result > -ERESTARTSYS_ || inject->result < -ERESTARTNOHAND_;
    return 0;
}

/* Lets the thread run until its system call is about to return. */
static int run_call(struct inject *inject, struct failure *f)
{
    bool entered = false, done = false;
    long number = 0;
    for (int stops = 0; !done; stops++) {
        int status = 0;
        if (stops == STOPS_MAX)
            return fail(f, ERR_TIMEOUT, "thread %d does not get on", inject->tid);
        if (ptrace(PTRACE_SYSCALL, inject->tid, 0, number) != 0)
            return fail(f, ERR_GONE, "thread %d ended", inject->tid);
        int rc = next_stop(inject, &status, f);
        if (rc)
            return rc;
        number = signal_of(status);
        if (status >> 8 == PTRACE_EVENT_CLONE) {
            unsigned long child = 0;
            ptrace(PTRACE_GETEVENTMSG, inject->tid, 0, &child);
            inject->child = (pid_t)child;
            step(inject, INJECT_STEP_CHILD);
        } else if (status == SYSCALL_STOP && !entered) {
            entered = true;
            step(inject, 6);
        } else if (status == SYSCALL_STOP) {
            rc = read_result(inject, &done, f);
            if (rc)
                return rc;
            entered = false;
            step(inject, 8);
        }
    }
    return 0;
}

/* ---- back ---- */

/* To a stop on the signal path: only there does the kernel restart the call that it was in. */
static int go_to_signal_path(struct inject *inject, struct failure *f)
{
    long number = 0;
    for (int stops = 0; stops < STOPS_MAX; stops++) {
        int status = 0;
        ptrace(PTRACE_INTERRUPT, inject->tid, 0, 0);
        if (ptrace(PTRACE_CONT, inject->tid, 0, number) != 0)
            return fail(f, ERR_GONE, "thread %d ended", inject->tid);
        int rc = next_stop(inject, &status, f);
        if (rc)
            return rc;
        if (status >> 8 == PTRACE_EVENT_STOP)
            return 0;
        number = signal_of(status);
    }
    return fail(f, ERR_TIMEOUT, "thread %d does not get on", inject->tid);
}

/* First the mask, then the registers: in between it would run into its frame, which restores both.
 */
static int bring_back(struct inject *inject, struct failure *f)
{
    step(inject, 9);
    if (ptrace(PTRACE_SETSIGMASK, inject->tid, KERNEL_SIGNALS_BYTES, &inject->thread.mask) != 0)
        return fail(f, ERR_GONE, "thread %d ended", inject->tid);
    step(inject, 10);
    if (ptrace(PTRACE_SETREGS, inject->tid, 0, &inject->thread.regs) != 0)
        return fail(f, ERR_GONE, "thread %d ended", inject->tid);
    step(inject, 11);
    ptrace(PTRACE_SETOPTIONS, inject->tid, 0, OPTIONS);
    step(inject, 12);
    return 0;
}

int inject_call(struct inject *inject, pid_t tid, const struct inject_call *call, uint64_t until_us,
                struct failure *f)
{
    inject->tid = tid;
    inject->until_us = until_us;
    inject->child = 0;
    inject->result = 0;
    inject->begun = false;
    if (inject->controls.no_restorer)
        inject->code.restorer = 0;
    int rc = read_thread(inject, f);
    if (rc == 0)
        rc = write_frames(inject, f);
    step(inject, 1);
    if (rc == 0)
        rc = point_at_gadget(inject, call, f);
    if (rc == 0)
        rc = run_call(inject, f);
    if (rc == 0)
        rc = go_to_signal_path(inject, f);
    if (rc == 0)
        rc = bring_back(inject, f);
    return rc;
}
