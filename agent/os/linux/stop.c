/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seizing, interrupting and releasing the threads of a process. Invariant: a thread in state
 * STOP_HELD is in a ptrace stop of ours with nothing taken from it; every path out of stop_run()
 * ends the tracing thread, and with it all tracing. Called by stacks.c. stop.h says what is
 * promised and how.
 */
#include "agent/os/linux/stop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/text.h"

#define PASSES_MAX 16
#define SPARE_THREADS 64
#define TRACER_STACK (256u << 10)
#define POLL_US 2000        /* a wake-up that somebody else took costs at most this */
#define ERESTARTNOHAND_ 514 /* include/linux/errno.h of the kernel: no handler ran, begin anew */

struct stop_job {
    struct stop *stop;
    stop_held_fn held;
    stop_after_fn after;
    void *context;
    struct failure *f;
    int priority; /* of the worker, when it holds nobody */
    bool locked;  /* its memory is */
    int rc;
};

uint64_t stop_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- finding the threads ---- */

/* The kernel lists threads in the order of their birth, so the next one is mostly right behind. */
static struct stop_thread *find_thread(struct stop *stop, pid_t tid, size_t *hint)
{
    for (size_t i = 0; i < stop->count; i++) {
        size_t at = *hint + i < stop->count ? *hint + i : *hint + i - stop->count;
        if (stop->threads[at].tid == tid) {
            *hint = at + 1 < stop->count ? at + 1 : 0;
            return &stop->threads[at];
        }
    }
    return NULL;
}

static struct stop_thread *add_thread(struct stop *stop, pid_t tid, enum stop_state state)
{
    if (stop->count == stop->capacity) {
        stop->overflow++;
        return NULL;
    }
    struct stop_thread *thread = &stop->threads[stop->count++];
    thread->tid = tid;
    thread->state = state;
    return thread;
}

/* The next tid of the listing, 0 at its end. */
static pid_t next_task(DIR *tasks)
{
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        uint64_t tid;
        if (text_u64(entry->d_name, &tid) == 0 && tid > 0 && tid <= INT32_MAX)
            return (pid_t)tid;
    }
    return 0;
}

/* Room for as many threads as there are and some that are born meanwhile. */
static int make_table(struct stop *stop, struct failure *f)
{
    size_t count = 0;
    assert(stop->tasks);
    while (next_task(stop->tasks))
        count++;
    rewinddir(stop->tasks);
    if (count == 0)
        return fail(f, ERR_GONE, "process ended");
    if (count > STOP_THREADS_MAX)
        return fail(f, ERR_LIMIT, "process has %zu threads, limit %d", count, STOP_THREADS_MAX);
    stop->capacity = count + count / 4 + SPARE_THREADS;
    void *table = mmap(NULL, stop->capacity * sizeof *stop->threads, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (table == MAP_FAILED)
        return fail(f, ERR_NOMEM, "no memory for %zu threads", stop->capacity);
    stop->threads = table;
    return 0;
}

static void list_threads(struct stop *stop)
{
    pid_t tid;
    while ((tid = next_task(stop->tasks)) != 0) {
        struct stop_thread *thread = add_thread(stop, tid, STOP_FOUND);
        pid_t tracer;
        char state;
        if (thread && stop_thread_status((pid_t)stop->process.pid, tid, &tracer, &state) == 0)
            thread->sleeps_hard = state == 'D';
    }
    stop->overflow = 0;
}

int stop_open(struct stop *stop, const struct os_process *process, struct failure *f)
{
    memset(stop, 0, sizeof *stop);
    stop->process = *process;
    /* Before the checks: what is checked is then what is pinned. Missing before Linux 5.3. */
    stop->pid_fd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    if (stop->pid_fd < 0 && errno == ESRCH)
        return fail(f, ERR_GONE, "process ended");
    int rc = stop_check(process, f);
    if (rc == 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%u/task", process->pid);
        stop->tasks = opendir(path);
        if (!stop->tasks)
            rc = fail_errno(f, errno == ENOENT ? ERR_GONE : err_from_errno(errno), errno,
                            "cannot list '%s'", path);
    }
    if (rc == 0)
        rc = make_table(stop, f);
    if (rc)
        stop_close(stop);
    else
        list_threads(stop);
    return rc;
}

void stop_close(struct stop *stop)
{
    if (stop->threads)
        munmap(stop->threads, stop->capacity * sizeof *stop->threads);
    if (stop->tasks)
        closedir(stop->tasks);
    if (stop->pid_fd >= 0)
        close(stop->pid_fd);
    stop->threads = NULL;
    stop->tasks = NULL;
    stop->pid_fd = -1;
    stop->count = stop->capacity = 0;
}

uint64_t stop_predict_us(const struct stop *stop, const struct os_costs *costs, uint64_t copy_bytes)
{
    bool hard = false;
    for (size_t i = 0; i < stop->count && stop->threads; i++)
        hard |= stop->threads[i].sleeps_hard;
    return costs->stop_us + stop->count * (uint64_t)costs->thread_us +
           copy_bytes * costs->copy_mib_us / (1u << 20) + (hard ? STOP_HARD_US : 0);
}

uint64_t stop_until_us(const struct stop *stop)
{
    return stop->began_us + stop->limit_us;
}

bool stop_time_left(const struct stop *stop)
{
    return stop_now_us() < stop_until_us(stop);
}

/* ---- seizing: the threads are traced from here on, but run ---- */

/* EPERM has three reasons: traced by us since its birth (fine), ended (fine), traced by another
 * (refused). */
static int seize_refused(struct stop *stop, struct stop_thread *thread, struct failure *f)
{
    pid_t tracer = 0;
    char state = '?';
    if (stop_thread_status((pid_t)stop->process.pid, thread->tid, &tracer, &state) ||
        state == 'Z' || state == 'X') {
        thread->state = STOP_ENDED;
        return 0;
    }
    if (tracer == stop->tracer) {
        thread->state = STOP_SEIZED;
        stop->born++;
        return 0;
    }
    if (tracer != 0)
        return fail(f, ERR_REFUSED, "thread %d is already traced by pid %d", thread->tid, tracer);
    return fail(f, ERR_DENIED, "may not trace thread %d: needs root or CAP_SYS_PTRACE",
                thread->tid);
}

/* TRACECLONE: a thread born from now on is ours from its birth, so none slips through. */
static int seize_thread(struct stop *stop, struct stop_thread *thread, bool *fresh,
                        struct failure *f)
{
    if (ptrace(PTRACE_SEIZE, thread->tid, 0, PTRACE_O_TRACECLONE) == 0) {
        *fresh = true;
        bool ours = syscall(SYS_tgkill, stop->process.pid, thread->tid, 0) == 0;
        thread->state = ours ? STOP_SEIZED : STOP_FOREIGN;
        return 0;
    }
    if (errno == EPERM)
        return seize_refused(stop, thread, f);
    if (errno != ESRCH)
        return fail_errno(f, err_from_errno(errno), errno, "cannot trace thread %d", thread->tid);
    thread->state = STOP_ENDED;
    return 0;
}

/* One look at the list. *fresh: a thread was found that had not been ours. */
static int seize_pass(struct stop *stop, bool *fresh, struct failure *f)
{
    size_t hint = 0;
    pid_t tid;
    rewinddir(stop->tasks);
    while ((tid = next_task(stop->tasks)) != 0) {
        struct stop_thread *thread = find_thread(stop, tid, &hint);
        if (!thread)
            thread = add_thread(stop, tid, STOP_FOUND);
        if (!thread || thread->state != STOP_FOUND)
            continue;
        int rc = seize_thread(stop, thread, fresh, f);
        if (rc)
            return rc;
    }
    return 0;
}

/* The process is still the one that was pinned, so all of what was seized was rightly seized. */
static int check_pinned(const struct stop *stop, struct failure *f)
{
    struct os_process now;
    if (stop->pid_fd >= 0 && syscall(SYS_pidfd_send_signal, stop->pid_fd, 0, NULL, 0) != 0 &&
        errno == ESRCH)
        return fail(f, ERR_GONE, "process ended");
    int rc = stop->pid_fd < 0 ? os_process_get("", stop->process.pid, &now, f) : 0;
    if (rc == 0 && stop->pid_fd < 0 && now.start_ticks != stop->process.start_ticks)
        rc = fail(f, ERR_GONE, "process ended");
    return rc;
}

static int seize_all(struct stop *stop, struct failure *f)
{
    bool fresh = true;
    stop->overflow = 0;
    for (int pass = 0; fresh && pass < PASSES_MAX; pass++) {
        fresh = false;
        int rc = seize_pass(stop, &fresh, f);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_FOUND)
            stop->threads[i].state = STOP_ENDED;
    }
    return check_pinned(stop, f);
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
    struct stop_thread *thread = find_thread(stop, (pid_t)tid, &hint);
    if (!thread)
        thread = add_thread(stop, (pid_t)tid, STOP_ENDED);
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
static void settle(struct stop *stop, struct stop_thread *thread, uint64_t until_us)
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
static void hold_all(struct stop *stop)
{
    for (size_t i = 0; i < stop->count; i++) {
        struct stop_thread *thread = &stop->threads[i];
        if (thread->state == STOP_SEIZED)
            ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0);
    }
    uint64_t until_us = stop->began_us + stop->limit_us / 2;
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_SEIZED && !stop->threads[i].sleeps_hard)
            settle(stop, &stop->threads[i], until_us);
    }
    uint64_t hard_us = stop->limit_us / 8 < STOP_HARD_US ? stop->limit_us / 8 : STOP_HARD_US;
    until_us = stop_now_us() + hard_us;
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_SEIZED)
            settle(stop, &stop->threads[i], until_us);
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

static void release_all(struct stop *stop)
{
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_HELD)
            ptrace(PTRACE_DETACH, stop->threads[i].tid, 0, 0);
    }
    stop->pause_us = stop_now_us() - stop->began_us;
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_MISSED || stop->threads[i].state == STOP_FOREIGN)
            release_late(stop, &stop->threads[i]);
    }
}

/* ---- the tracing thread ---- */

static int hold_and_release(struct stop_job *job)
{
    struct stop *stop = job->stop;
    uint64_t seized_us = stop_now_us();
    int rc = seize_all(stop, job->f);
    if (rc)
        return rc;
    /* A newborn thread stands still from its birth on, so the pause began before the first
     * interrupt. */
    stop->began_us = stop->born ? seized_us : stop_now_us();
    hold_all(stop);
    bool in_time = stop_time_left(stop);
    if (in_time)
        rc = job->held(job->context, stop);
    in_time = in_time && stop_time_left(stop);
    release_all(stop);
    if (!in_time)
        return fail(job->f, ERR_TIMEOUT, "process was let go after %.1f ms, limit %.1f ms",
                    (double)stop->pause_us / 1000, (double)stop->limit_us / 1000);
    if (rc == 0 && job->after) {
        if (job->locked)
            munlockall();
        job->locked = false;
        setpriority(PRIO_PROCESS, (id_t)stop->tracer, job->priority);
        rc = job->after(job->context, stop, job->f);
    }
    return rc;
}

/* ---- one thread alone ---- */

/* From interrupt to release. A thread that did not stop is let go when it does: the kernel sees to
 * that at the latest when the calling thread ends. */
static int hold_one(struct stop *stop, struct stop_thread *thread, uint32_t pause_max_us,
                    stop_one_fn held, void *context)
{
    int rc = ERR_AGAIN;
    stop->began_us = stop_now_us();
    stop->limit_us = pause_max_us;
    ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0);
    settle(stop, thread, stop->began_us + stop->limit_us / 2);
    if (thread->state == STOP_HELD)
        rc = held(context, stop, thread);
    if (thread->state == STOP_HELD && ptrace(PTRACE_DETACH, thread->tid, 0, 0) == 0)
        return rc;
    if (thread->state != STOP_ENDED) {
        release_late(stop, thread);
        thread->state = STOP_MISSED;
    }
    return rc;
}

int stop_hold_one(struct stop *stop, struct stop_thread *thread, uint32_t pause_max_us,
                  stop_one_fn held, void *context, uint64_t *pause_us, struct failure *f)
{
    bool fresh = false;
    sigset_t news, before;
    stop->tracer = (pid_t)syscall(SYS_gettid);
    thread->state = STOP_FOUND;
    int rc = seize_thread(stop, thread, &fresh, f);
    if (rc)
        return rc;
    if (thread->state != STOP_SEIZED)
        return fail(f, ERR_AGAIN, "thread %d ended", thread->tid);
    sigemptyset(&news);
    sigaddset(&news, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &news, &before);
    rc = hold_one(stop, thread, pause_max_us, held, context);
    *pause_us += stop_now_us() - stop->began_us;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == ERR_AGAIN)
        return fail(f, rc, "thread %d does not stop", thread->tid);
    return rc;
}

static void *tracer_main(void *argument)
{
    struct stop_job *job = argument;
    job->stop->tracer = (pid_t)syscall(SYS_gettid);
    /* A worker is nice, but not while others wait for it: this thread only, and if allowed. */
    setpriority(PRIO_PROCESS, (id_t)job->stop->tracer, 0);
    job->rc = hold_and_release(job);
    return NULL;
}

static int start_tracer(pthread_t *thread, struct stop_job *job)
{
    pthread_attr_t attributes;
    int rc = pthread_attr_init(&attributes);
    if (rc)
        return rc;
    rc = pthread_attr_setstacksize(&attributes, TRACER_STACK);
    if (rc == 0)
        rc = pthread_create(thread, &attributes, tracer_main, job);
    pthread_attr_destroy(&attributes);
    return rc;
}

/* The kernel lets go of what is left just before the thread vanishes, a moment after its join. */
static void await_end(pid_t tracer)
{
    while (tracer > 0 && syscall(SYS_tgkill, getpid(), tracer, 0) == 0)
        sched_yield();
}

int stop_run(struct stop *stop, uint32_t pause_max_us, stop_held_fn held, stop_after_fn after,
             void *context, struct failure *f)
{
    struct stop_job job = {stop, held, after, context, f, getpriority(PRIO_PROCESS, 0), false, 0};
    sigset_t news, before;
    struct sigaction usual = {.sa_handler = SIG_DFL}, action_before;
    pthread_t thread;
    stop->limit_us = pause_max_us;
    sigemptyset(&news);
    sigaddset(&news, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &news, &before);
    sigaction(SIGCHLD, &usual, &action_before);
    /* So that no page of ours has to come from disk under the pause. Fails without privilege: no
     * matter. */
    job.locked = mlockall(MCL_CURRENT) == 0;
    int error = start_tracer(&thread, &job);
    if (error == 0) {
        pthread_join(thread, NULL);
        await_end(stop->tracer);
    }
    if (job.locked)
        munlockall();
    sigaction(SIGCHLD, &action_before, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return fail_errno(f, err_from_errno(error), error, "cannot start the tracing thread");
    return job.rc;
}
