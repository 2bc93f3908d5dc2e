/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tracing threads. Invariant: every path out of here ends the thread that traced, and with it
 * all tracing. Called by stacks.c and by snapshots; stop.h says what is promised and how.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/linux/stop_private.h"

#define TRACER_STACK (256u << 10)
#define LATE_US 200000 /* for threads that did not stop in time; nobody stands meanwhile */

struct stop_job {
    struct stop *stop;
    stop_held_fn held;
    stop_after_fn after;
    void *context;
    struct failure *f;
    int priority;            /* of the worker, when it holds nobody */
    bool locked;             /* its memory is */
    struct stop_thread *one; /* this one alone, for held_one; NULL: all, for held and after */
    stop_one_fn held_one;
    uint64_t pause_us; /* of that one */
    int rc;
};

/* ---- while stop_after_fn runs ---- */

/*
 * A thread that slept uninterruptibly when the others were let go stops when it wakes, and would
 * stand for as long as stop_after_fn runs: so it is let go by a handler of SIGCHLD, whatever the
 * tracing thread is doing. Everything in it is a plain system call.
 */
static struct stop *_Atomic tended;

/* A wait for an end takes stops of a tracee too: so it is only looked at first. */
static void look_after(struct stop *stop)
{
    siginfo_t info;
    pid_t child = stop->child;
    if (!stop->controls.leave_late)
        stop_release_late_all(stop);
    info.si_pid = 0;
    if (child && waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 &&
        info.si_pid == child && info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED &&
        waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | __WALL) == 0)
        stop->child = 0;
}

static void on_news(int number)
{
    int error = errno;
    struct stop *stop = tended;
    if (stop && syscall(SYS_gettid) != stop->tracer)
        syscall(SYS_tgkill, getpid(), stop->tracer, number);
    else if (stop)
        look_after(stop);
    errno = error;
}

static void tend(struct stop *stop, bool on)
{
    struct sigaction action = {.sa_handler = on ? on_news : SIG_DFL, .sa_flags = SA_RESTART};
    sigset_t news;
    sigemptyset(&news);
    sigaddset(&news, SIGCHLD);
    if (!on)
        pthread_sigmask(SIG_BLOCK, &news, NULL);
    tended = on ? stop : NULL;
    sigaction(SIGCHLD, &action, NULL);
    if (on)
        pthread_sigmask(SIG_UNBLOCK, &news, NULL);
}

/* ---- all threads ---- */

static int run_after(struct stop_job *job)
{
    struct stop *stop = job->stop;
    if (job->locked)
        munlockall();
    job->locked = false;
    setpriority(PRIO_PROCESS, (id_t)stop->tracer, job->priority);
    tend(stop, true);
    int rc = job->after(job->context, stop, job->f);
    tend(stop, false);
    return rc;
}

static int hold_and_release(struct stop_job *job)
{
    struct stop *stop = job->stop;
    uint64_t seized_us = stop_now_us();
    int rc = stop_seize_all(stop, job->f);
    if (rc)
        return rc;
    /* A newborn thread stands still from its birth on, so the pause began before the first
     * interrupt. */
    stop->began_us = stop->born ? seized_us : stop_now_us();
    stop_hold_all(stop);
    bool in_time = stop_time_left(stop);
    if (in_time)
        rc = job->held(job->context, stop);
    in_time = in_time && stop_time_left(stop);
    stop_release_all(stop);
    if (!in_time || rc || !job->after)
        stop_await_late(stop, stop_now_us() + LATE_US);
    if (!in_time)
        return fail(job->f, ERR_TIMEOUT, "process was let go after %.1f ms, limit %.1f ms",
                    (double)stop->pause_us / 1000, (double)stop->limit_us / 1000);
    return rc == 0 && job->after ? run_after(job) : rc;
}

/* ---- one thread alone ---- */

static int hold_one(struct stop_job *job)
{
    struct stop *stop = job->stop;
    struct stop_thread *thread = job->one;
    bool fresh = false;
    thread->state = STOP_FOUND;
    int rc = stop_seize_thread(stop, thread, &fresh, job->f);
    if (rc)
        return rc;
    if (thread->state != STOP_SEIZED)
        return fail(job->f, ERR_AGAIN, "thread %d ended", thread->tid);
    stop->began_us = stop_now_us();
    ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0);
    stop_settle(stop, thread, stop->began_us + stop->limit_us / 2);
    if (thread->state == STOP_HELD)
        rc = job->held_one(job->context, stop, thread);
    else
        rc = fail(job->f, ERR_AGAIN, "thread %d does not stop", thread->tid);
    if (thread->state == STOP_HELD)
        ptrace(PTRACE_DETACH, thread->tid, 0, 0);
    job->pause_us = stop_now_us() - stop->began_us;
    /* Also when the call that it was made to make has not returned yet. */
    if (thread->state == STOP_SEIZED)
        thread->state = STOP_MISSED;
    if (thread->state == STOP_MISSED)
        stop_await_late(stop, stop_now_us() + LATE_US);
    return rc;
}

/* ---- the tracing thread ---- */

static void *tracer_main(void *argument)
{
    struct stop_job *job = argument;
    job->stop->tracer = (pid_t)syscall(SYS_gettid);
    /* A worker is nice, but not while others wait for it: this thread only, and if allowed. */
    setpriority(PRIO_PROCESS, (id_t)job->stop->tracer, 0);
    job->rc = job->one ? hold_one(job) : hold_and_release(job);
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

/* The tracing thread from its start to its end, in a process that is fit for it. */
static int run_job(struct stop_job *job, uint32_t pause_max_us)
{
    struct stop *stop = job->stop;
    sigset_t news, before;
    struct sigaction usual = {.sa_handler = SIG_DFL}, action_before;
    pthread_t thread;
    stop->limit_us = pause_max_us;
    sigemptyset(&news);
    sigaddset(&news, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &news, &before);
    sigaction(SIGCHLD, &usual, &action_before);
    int error = start_tracer(&thread, job);
    if (error == 0) {
        pthread_join(thread, NULL);
        await_end(stop->tracer);
    }
    sigaction(SIGCHLD, &action_before, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return fail_errno(job->f, err_from_errno(error), error, "cannot start the tracing thread");
    return job->rc;
}

int stop_run(struct stop *stop, uint32_t pause_max_us, stop_held_fn held, stop_after_fn after,
             void *context, struct failure *f)
{
    struct stop_job job = {.stop = stop,
                           .held = held,
                           .after = after,
                           .context = context,
                           .f = f,
                           .priority = getpriority(PRIO_PROCESS, 0)};
    /* So that no page of ours has to come from disk under the pause. Fails without privilege: no
     * matter. */
    job.locked = mlockall(MCL_CURRENT) == 0;
    int rc = run_job(&job, pause_max_us);
    if (job.locked)
        munlockall();
    return rc;
}

int stop_hold_one(struct stop *stop, struct stop_thread *thread, uint32_t pause_max_us,
                  stop_one_fn held, void *context, uint64_t *pause_us, struct failure *f)
{
    struct stop_job job = {
        .stop = stop, .one = thread, .held_one = held, .context = context, .f = f};
    int rc = run_job(&job, pause_max_us);
    *pause_us += job.pause_us;
    return rc;
}
