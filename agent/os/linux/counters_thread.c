/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run-queue delay and context switches of a process, which the kernel counts by thread:
 * /proc/PID/task/TID/schedstat, with one open file for each thread. Threads come and go: a new one
 * is added with all it has counted, one that ended stays in the sums, so the sums never go back.
 * What a thread did that lived between two listings (5 s) is not in them. Called by
 * counters_process.c.
 */
#include "agent/os/linux/counters_process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/text.h"

#define THREADS_MAX 64  /* of one process */
#define THREADS_ALL 512 /* of all processes: each needs an open file */
#define RELIST_US UINT64_C(5000000)
#define RELIST_ALWAYS_US UINT64_C(60000000)
#define RECORD_SIZE 80

static void drop_thread(struct processes *p, struct followed *process, size_t at)
{
    close(process->threads[at].fd);
    process->threads[at] = process->threads[--process->thread_count];
    p->thread_total--;
}

static void forget_threads(struct processes *p, struct followed *process)
{
    while (process->thread_count > 0)
        drop_thread(p, process, process->thread_count - 1);
    process->wait_ns = process->switches = 0;
}

void threads_done(struct processes *p, struct followed *process)
{
    forget_threads(p, process);
    free(process->threads);
    process->threads = NULL;
    process->thread_capacity = 0;
}

/* ---- listing ---- */

static bool has_thread(const struct followed *process, uint32_t tid)
{
    for (size_t i = 0; i < process->thread_count; i++)
        if (process->threads[i].tid == tid)
            return true;
    return false;
}

static int open_thread(const struct processes *p, const struct followed *process, uint32_t tid)
{
    char path[PROC_PATH_SIZE];
    (void)text_format(path, sizeof path, "%s/proc/%u/task/%u/schedstat", p->root, process->pid,
                      tid);
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

/* Sets the process's reason when it cannot be added. */
static void add_thread(struct processes *p, struct followed *process, uint32_t tid)
{
    char *reason = process->threads_reason;
    struct failure f;
    if (p->thread_total >= THREADS_ALL) {
        (void)text_format(reason, FOLLOWED_REASON_SIZE, "more than %d threads in all", THREADS_ALL);
        return;
    }
    int fd = open_thread(p, process, tid);
    if (fd < 0) {
        if (errno == ENOENT || errno == ESRCH) /* the thread ended just now */
            return;
        (void)fail_errno(&f, ERR_IO, errno, "cannot read scheduler statistics");
        (void)text_copy(reason, FOLLOWED_REASON_SIZE, f.text);
        return;
    }
    process->threads[process->thread_count++] = (struct followed_thread){.tid = tid, .fd = fd};
    p->thread_total++;
}

static int make_room(struct followed *process, size_t count)
{
    if (count <= process->thread_capacity)
        return 0;
    size_t capacity = count == 1 ? 1 : THREADS_MAX;
    struct followed_thread *threads =
        realloc(process->threads, capacity * sizeof *process->threads);
    if (!threads)
        return ERR_NOMEM;
    process->threads = threads;
    process->thread_capacity = capacity;
    return 0;
}

static void add_threads(struct processes *p, struct followed *process, const uint32_t *tids,
                        size_t count)
{
    size_t more = 0;
    for (size_t i = 0; i < count; i++)
        more += !has_thread(process, tids[i]);
    more += process->thread_count;
    if (more > THREADS_MAX || make_room(process, more) < 0) {
        (void)text_copy(process->threads_reason, FOLLOWED_REASON_SIZE, "too many threads");
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (!has_thread(process, tids[i]))
            add_thread(p, process, tids[i]);
}

static void list_threads(struct processes *p, struct followed *process)
{
    char path[PROC_PATH_SIZE];
    struct failure f;
    uint32_t *tids = NULL;
    size_t count = 0;
    (void)text_format(path, sizeof path, "%s/proc/%u/task", p->root, process->pid);
    int result = proc_numbers(path, &tids, &count, THREADS_MAX, &f);
    if (result == 0)
        add_threads(p, process, tids, count);
    else
        (void)text_copy(process->threads_reason, FOLLOWED_REASON_SIZE, f.text);
    free(tids);
}

static bool is_list_due(const struct os_counters *c, const struct followed *process,
                        uint32_t threads)
{
    uint64_t age_us = c->mono_us - process->listed_us;
    bool changed = threads != process->threads_listed;
    return process->listed_us == 0 || age_us >= (changed ? RELIST_US : RELIST_ALWAYS_US);
}

static void list_anew(struct os_counters *c, struct processes *p, struct followed *process,
                      uint32_t threads)
{
    process->listed_us = c->mono_us;
    process->threads_listed = threads;
    process->threads_reason[0] = '\0';
    if (threads > THREADS_MAX) {
        forget_threads(p, process);
        (void)text_format(process->threads_reason, FOLLOWED_REASON_SIZE,
                          "%u threads, at most %d are read", threads, THREADS_MAX);
    } else {
        list_threads(p, process);
    }
}

/* ---- reading ---- */

/* Whether it grew. */
static bool add_growth(uint64_t *sum, uint64_t *last, uint64_t now)
{
    uint64_t before = *last;
    if (now > before)
        *sum += now - before;
    *last = now;
    return now != before;
}

/* False when the thread has ended. */
static bool read_thread(struct followed *process, struct followed_thread *thread, bool *ran)
{
    uint8_t data[RECORD_SIZE];
    struct proc_schedstat s;
    ssize_t got = pread(thread->fd, data, sizeof data, 0);
    if (got <= 0 || proc_parse_schedstat(span_of(data, (size_t)got), &s) < 0)
        return false;
    *ran |= add_growth(&process->wait_ns, &thread->wait_ns, s.wait_ns);
    *ran |= add_growth(&process->switches, &thread->switches, s.switches);
    *ran |= s.run_ns != thread->run_ns;
    thread->run_ns = s.run_ns;
    return true;
}

bool threads_read(struct processes *p, struct followed *process)
{
    bool ran = process->thread_count == 0 || process->threads_reason[0] != '\0';
    size_t i = 0;
    while (i < process->thread_count) {
        if (read_thread(process, &process->threads[i], &ran)) {
            i++;
        } else {
            drop_thread(p, process, i);
            ran = true;
        }
    }
    return ran || process->switches == 0;
}

const char *threads_update(struct os_counters *c, struct processes *p, struct followed *process,
                           uint32_t threads)
{
    if (is_list_due(c, process, threads)) {
        list_anew(c, p, process, threads);
        (void)threads_read(p, process);
    }
    if (process->threads_reason[0] != '\0')
        return process->threads_reason;
    /* A process that is there has got a processor before. */
    return process->switches == 0 ? "the kernel keeps no scheduler statistics" : NULL;
}
