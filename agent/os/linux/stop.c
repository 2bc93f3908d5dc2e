/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the threads of a process and seizing them: they are traced from then on, but run.
 * Invariant: a thread is seized only if it belongs to the process that was pinned. Called by
 * stop_run.c; stop.h says what is promised and how.
 */
#include "agent/os/linux/stop.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/os/linux/stop_private.h"
#include "common/text.h"

#define PASSES_MAX 16
#define SPARE_THREADS 64

/* ---- finding the threads ---- */

/* The kernel lists threads in the order of their birth, so the next one is mostly right behind. */
struct stop_thread *stop_find_thread(struct stop *stop, pid_t tid, size_t *hint)
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

struct stop_thread *stop_add_thread(struct stop *stop, pid_t tid, enum stop_state state)
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
        struct stop_thread *thread = stop_add_thread(stop, tid, STOP_FOUND);
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
int stop_seize_thread(struct stop *stop, struct stop_thread *thread, bool *fresh, struct failure *f)
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
        struct stop_thread *thread = stop_find_thread(stop, tid, &hint);
        if (!thread)
            thread = stop_add_thread(stop, tid, STOP_FOUND);
        if (!thread || thread->state != STOP_FOUND)
            continue;
        int rc = stop_seize_thread(stop, thread, fresh, f);
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

int stop_seize_all(struct stop *stop, struct failure *f)
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
