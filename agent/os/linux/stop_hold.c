/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing seized threads to a stand and letting them go. Invariant: a thread in state STOP_HELD is
 * in a ptrace stop of ours with nothing taken from it. Called by stop_run.c; stop.h says what is
 * promised and how.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/linux/stop_private.h"

#define POLL_US 2000        /* a wake-up that somebody else took costs at most this */
#define ERESTARTNOHAND_ 514 /* include/linux/errno.h of the kernel: no handler ran, begin anew */

uint64_t stop_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- holding ---- */

/*
 * System calls that return EINTR after a mere stop, and that have done nothing when they do, so
 * that they may begin anew (signal(7), "never restarted", less those that the kernel restarts after
 * a stop by itself). read, write and their kin are here for sockets with a timeout.
 */
static bool may_begin_anew(uint64_t call)
{
    static const uint16_t calls[] = {
        SYS_read,
        SYS_write,
        SYS_readv,
        SYS_writev,
        SYS_recvfrom,
        SYS_recvmsg,
        SYS_recvmmsg,
        SYS_sendto,
        SYS_sendmsg,
        SYS_sendmmsg,
        SYS_accept,
        SYS_accept4,
        SYS_epoll_wait,
        SYS_epoll_pwait,
        441 /* epoll_pwait2 */,
        SYS_semop,
        SYS_semtimedop,
        SYS_rt_sigtimedwait,
        SYS_io_getevents,
        333 /* io_pgetevents */,
        426 /* io_uring_enter */,
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        if (calls[i] == call)
            return true;
    }
    return false;
}

/* Done as soon as the thread stands, so that it holds also when we die while it does. */
static void mend_eintr(struct stop *stop, const struct stop_thread *thread)
{
    if ((int64_t)thread->regs.rax != -EINTR || !may_begin_anew(thread->regs.orig_rax) ||
        stop->controls.keep_eintr)
        return;
    long again = -ERESTARTNOHAND_;
    if (ptrace(PTRACE_POKEUSER, thread->tid, offsetof(struct user, regs.rax), again) == 0)
        stop->calls_restarted++;
}

static void take_registers(struct stop *stop, struct stop_thread *thread)
{
    if (ptrace(PTRACE_GETREGS, thread->tid, 0, &thread->regs) != 0) {
        thread->state = STOP_ENDED;
        return;
    }
    mend_eintr(stop, thread);
    thread->state = STOP_HELD;
}

/* A thread (or a process that shares nothing but its memory) was born to one that we hold. */
static void adopt(struct stop *stop, pid_t parent)
{
    unsigned long tid = 0;
    size_t hint = 0;
    if (ptrace(PTRACE_GETEVENTMSG, parent, 0, &tid) != 0)
        return;
    struct stop_thread *thread = stop_find_thread(stop, (pid_t)tid, &hint);
    if (!thread)
        thread = stop_add_thread(stop, (pid_t)tid, STOP_ENDED);
    /* Known already, unless its number was that of a thread that ended. */
    if (!thread || thread->state != STOP_ENDED)
        return;
    bool ours = syscall(SYS_tgkill, stop->process.pid, (pid_t)tid, 0) == 0;
    thread->state = ours ? STOP_SEIZED : STOP_FOREIGN;
    stop->born++;
}

static void reap(pid_t tid)
{
    siginfo_t info;
    waitid(P_PID, (id_t)tid, &info, WEXITED | WNOHANG | __WALL);
}

/*
 * One thing that happened to a thread. It was only looked at: what we tell the kernel to do with it
 * is what becomes of it. Returns false while the thread still has to stop.
 */
static bool settle_event(struct stop *stop, struct stop_thread *thread, const siginfo_t *info)
{
    if (info->si_code != CLD_TRAPPED && info->si_code != CLD_STOPPED) {
        reap(thread->tid);
        thread->state = STOP_ENDED;
        return true;
    }
    int event = info->si_status >> 8;
    long number = info->si_status & 0xff;
    if (event == PTRACE_EVENT_STOP) {
        take_registers(stop, thread);
        return true;
    }
    if (event == PTRACE_EVENT_CLONE)
        adopt(stop, thread->tid);
    if (event == 0)
        stop->signals_passed++;
    if (event != 0 || stop->controls.swallow_signals)
        number = 0;
    /* Any stop takes back an interrupt that came shortly before it. */
    ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0);
    ptrace(PTRACE_CONT, thread->tid, 0, number);
    return false;
}

/* Sleeps until some child has news or the time has come. SIGCHLD is blocked: none is lost. */
static bool wait_for_news(uint64_t until_us)
{
    uint64_t now = stop_now_us();
    if (now >= until_us)
        return false;
    uint64_t left_us = until_us - now < POLL_US ? until_us - now : POLL_US;
    struct timespec left = {0, (long)left_us * 1000};
    sigset_t news;
    sigemptyset(&news);
    sigaddset(&news, SIGCHLD);
    sigtimedwait(&news, NULL, &left);
    return true;
}

int stop_wait(pid_t tid, uint64_t until_us, siginfo_t *info)
{
    const int flags = WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL;
    for (;;) {
        info->si_pid = 0;
        if (waitid(P_PID, (id_t)tid, info, flags) != 0) {
            if (errno == EINTR)
                continue;
            return ERR_GONE;
        }
        if (info->si_pid != 0)
            return 0;
        if (!wait_for_news(until_us))
            return ERR_TIMEOUT;
    }
}

/* Waits until the thread is held or has ended; leaves it as it is when the time has come. */
void stop_settle(struct stop *stop, struct stop_thread *thread, uint64_t until_us)
{
    for (;;) {
        siginfo_t info;
        int rc = stop_wait(thread->tid, until_us, &info);
        if (rc == ERR_GONE)
            thread->state = STOP_ENDED;
        if (rc || settle_event(stop, thread, &info))
            return;
    }
}

/* Interrupts all, then collects them: first those that should stop at once, then those that slept
 * hard. */
void stop_hold_all(struct stop *stop)
{
    for (size_t i = 0; i < stop->count; i++) {
        struct stop_thread *thread = &stop->threads[i];
        if (thread->state == STOP_SEIZED)
            ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0);
    }
    uint64_t until_us = stop->began_us + stop->limit_us / 2;
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_SEIZED && !stop->threads[i].sleeps_hard)
            stop_settle(stop, &stop->threads[i], until_us);
    }
    uint64_t hard_us = stop->limit_us / 8 < STOP_HARD_US ? stop->limit_us / 8 : STOP_HARD_US;
    until_us = stop_now_us() + hard_us;
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_SEIZED)
            stop_settle(stop, &stop->threads[i], until_us);
    }
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_SEIZED)
            stop->threads[i].state = STOP_MISSED;
    }
}

/* ---- releasing ---- */

/* A thread that stopped too late: as if it had been held, or with the signal that stopped it. */
static void release_late(struct stop *stop, struct stop_thread *thread)
{
    siginfo_t info;
    info.si_pid = 0;
    int flags = WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL;
    if (waitid(P_PID, (id_t)thread->tid, &info, flags) != 0 || info.si_pid == 0)
        return;
    /* Events and stops at system calls are no signals. */
    long number = info.si_status > 0 && info.si_status < NSIG ? info.si_status : 0;
    if (info.si_status >> 8 == PTRACE_EVENT_STOP &&
        ptrace(PTRACE_GETREGS, thread->tid, 0, &thread->regs) == 0)
        mend_eintr(stop, thread);
    ptrace(PTRACE_DETACH, thread->tid, 0, number);
}

void stop_release_late_all(struct stop *stop)
{
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_MISSED || stop->threads[i].state == STOP_FOREIGN)
            release_late(stop, &stop->threads[i]);
    }
}

void stop_await_late(struct stop *stop, uint64_t until_us)
{
    for (size_t i = 0; i < stop->count; i++) {
        siginfo_t info;
        if ((stop->threads[i].state == STOP_MISSED || stop->threads[i].state == STOP_FOREIGN) &&
            stop_wait(stop->threads[i].tid, until_us, &info) == 0)
            release_late(stop, &stop->threads[i]);
    }
}

void stop_release_all(struct stop *stop)
{
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_HELD)
            ptrace(PTRACE_DETACH, stop->threads[i].tid, 0, 0);
    }
    stop->pause_us = stop_now_us() - stop->began_us;
    stop_release_late_all(stop);
}
