/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capturing the stacks of a process at one instant: plan and allocate, hold and copy, release; what
 * follows is in stacks_finish.c. Invariant: while the process is held only copy_stacks() runs, and
 * it only copies into memory that is there. Called by agent/worker.c, in the worker.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/stacks_linux.h"
#include "agent/os/linux/stop.h"
#include "common/port.h"
#include "common/text.h"

#define POOL_SPARE (256u << 10) /* for stacks that grew since they were measured, at least */
#define BATCH_PARTS 64          /* pieces copied by one call */
#define BATCH_BYTES (1u << 20)  /* and how many bytes: between calls the time is looked at */
#define PYTHON_THREAD_US 20     /* expected of one thread's chain of Python frames */
#define SECONDS_MAX 64          /* threads of which a second stack is copied */

/* Pieces gathered for the next process_vm_readv(). */
struct batch {
    struct iovec local[BATCH_PARTS], remote[BATCH_PARTS];
    size_t *size[BATCH_PARTS];
    size_t count, size_bytes;
};

struct capture {
    struct stacks_job job;
    struct stop stop;
    uint8_t *pool;
    size_t pool_bytes, pool_used, most;
    struct batch batch;
};

/* ---- before: what is there, and how much of it ---- */

/* /proc/PID/task/TID/syscall: "running", or "... SP PC" of a thread that sleeps. 0: not known. */
static uint64_t read_stack_pointer(pid_t pid, pid_t tid)
{
    char leaf[64], data[256];
    struct span text, field, last = {NULL, 0}, before = {NULL, 0};
    snprintf(leaf, sizeof leaf, "task/%d/syscall", tid);
    if (proc_read_pid("", (uint32_t)pid, leaf, data, sizeof data, &text, NULL) != 0)
        return 0;
    while (proc_take_field(&text, &field) == 0) {
        before = last;
        last = field;
    }
    uint64_t address = 0;
    if (before.size_bytes > 2 && proc_starts_with(before, "0x")) {
        before = span_of(before.data + 2, before.size_bytes - 2);
        text_take_hex(&before, &address);
    }
    return address;
}

/* From the stack pointer to the end of its mapping. */
static size_t stack_size(const struct capture *c, uint64_t pointer)
{
    struct stacks_copy plan;
    memset(&plan, 0, sizeof plan);
    stacks_plan_copy(&c->job.maps, pointer, c->most, &plan);
    return plan.size_bytes ? plan.size_bytes : STACKS_BYTES_LEAST;
}

/* Measures the stacks as they are now: idle threads cost their few KiB and not the maximum. */
static size_t measure(struct capture *c, uint64_t *expected_bytes)
{
    pid_t pid = (pid_t)c->stop.process.pid;
    size_t total = 0;
    for (size_t i = 0; i < c->stop.count; i++) {
        pid_t tid = c->stop.threads[i].tid;
        struct stacks_copy *copy = &c->job.copies[i];
        total += stack_size(c, read_stack_pointer(pid, tid));
        stacks_read_name(pid, tid, copy->name, sizeof copy->name);
        copy->tid = tid;
    }
    *expected_bytes = total;
    total += total / 8 + POOL_SPARE + (c->stop.count < 16 ? c->stop.count * c->most : 0);
    return total < STACKS_POOL_MAX ? total : STACKS_POOL_MAX;
}

static int allocate(struct capture *c, struct os_result *result, struct failure *f)
{
    uint64_t expected_bytes;
    c->job.copies = calloc(c->stop.capacity, sizeof *c->job.copies);
    if (!c->job.copies)
        return fail(f, ERR_NOMEM, "no memory for %zu threads", c->stop.capacity);
    /* calloc() may give pages that are not there yet. */
    memset(c->job.copies, 0, c->stop.capacity * sizeof *c->job.copies);
    c->most = stacks_bytes_max(c->stop.count);
    c->pool_bytes = measure(c, &expected_bytes);
    void *pool = mmap(NULL, c->pool_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (pool == MAP_FAILED)
        return fail(f, ERR_NOMEM, "no memory for %zu bytes of stacks", c->pool_bytes);
    c->pool = pool;
    result->expected_us = stop_predict_us(&c->stop, c->job.take->costs, expected_bytes);
    if (c->job.python && !c->job.python->missing)
        result->expected_us += c->stop.count * PYTHON_THREAD_US;
    return 0;
}

static int check_budget(uint64_t expected_us, uint32_t limit_us, struct failure *f)
{
    char would[32], limit[32];
    if (expected_us <= limit_us)
        return 0;
    text_put_duration((int64_t)expected_us, would, sizeof would);
    text_put_duration(limit_us, limit, sizeof limit);
    return fail(f, ERR_REFUSED,
                "pause would be %s, limit %s: --pause-max allows more, 'stacks0' stops nothing",
                would, limit);
}

static int prepare(struct capture *c, const struct os_take *take, struct os_result *result,
                   struct failure *f)
{
    int rc = stop_open(&c->stop, &take->process, f);
    if (rc == 0)
        rc = stacks_job_open(&c->job, take, f);
    if (rc == 0)
        rc = allocate(c, result, f);
    return rc ? rc : check_budget(result->expected_us, take->pause_max_us, f);
}

/* ---- under the pause ---- */

/* The kernel stops at the first page that is not there: what came before it is kept. */
static void share_out(struct batch *batch, size_t *at, size_t got)
{
    while (*at < batch->count && got >= batch->local[*at].iov_len) {
        *batch->size[*at] = batch->local[*at].iov_len;
        got -= batch->local[(*at)++].iov_len;
    }
    if (*at < batch->count)
        *batch->size[(*at)++] = got;
}

static int flush_batch(struct capture *c)
{
    struct batch *batch = &c->batch;
    for (size_t at = 0; at < batch->count;) {
        ssize_t got = process_vm_readv((pid_t)c->stop.process.pid, batch->local + at,
                                       batch->count - at, batch->remote + at, batch->count - at, 0);
        if (got < 0 && errno == ESRCH)
            return ERR_GONE;
        share_out(batch, &at, got > 0 ? (size_t)got : 0);
    }
    batch->count = batch->size_bytes = 0;
    return stop_time_left(&c->stop) ? 0 : ERR_TIMEOUT;
}

/* Adds a piece to the batch; *size is what comes of it. Returns where it will lie. */
static int add_piece(struct capture *c, uint64_t start, size_t *size, uint8_t **data)
{
    size_t room = c->pool_bytes - c->pool_used;
    struct batch *batch = &c->batch;
    if (*size > room)
        *size = room;
    *data = c->pool + c->pool_used;
    c->pool_used += *size;
    batch->local[batch->count] = (struct iovec){*data, *size};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    batch->remote[batch->count] = (struct iovec){(void *)(uintptr_t)start, *size};
    batch->size[batch->count++] = size;
    batch->size_bytes += *size;
    *size = 0;
    return batch->count == BATCH_PARTS || batch->size_bytes >= BATCH_BYTES ? flush_batch(c) : 0;
}

static int copy_first(struct capture *c, struct stop_thread *thread, struct stacks_copy *copy)
{
    copy->tid = thread->tid;
    copy->taken = true;
    copy->regs = &thread->regs;
    copy->pc = thread->regs.rip;
    copy->sp = thread->regs.rsp;
    stacks_plan_copy(&c->job.maps, copy->sp, c->most, copy);
    return copy->size_bytes ? add_piece(c, copy->start, &copy->size_bytes, &copy->data) : 0;
}

/* Of threads in a signal handler that has a stack of its own: what they ran before, too. */
static int copy_seconds(struct capture *c)
{
    size_t seconds = 0;
    for (size_t i = 0; i < c->stop.count && seconds < SECONDS_MAX; i++) {
        struct stacks_copy *copy = &c->job.copies[i], plan;
        uint64_t before = copy->size_bytes ? stacks_find_signal(copy) : 0;
        if (!before)
            continue;
        memset(&plan, 0, sizeof plan);
        stacks_plan_copy(&c->job.maps, before, c->most, &plan);
        copy->second_start = plan.start;
        copy->second_bytes = plan.size_bytes;
        seconds++;
        int rc = add_piece(c, copy->second_start, &copy->second_bytes, &copy->second);
        if (rc)
            return rc;
    }
    return flush_batch(c);
}

static void copy_python(struct capture *c)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
    uint64_t share = c->job.take->pause_max_us / 4;
    python_copy_all(c->job.python, now + (share < PYTHON_COPY_US ? share : PYTHON_COPY_US));
}

static int copy_stacks(void *context, struct stop *stop)
{
    struct capture *c = context;
    for (size_t i = 0; i < stop->count; i++) {
        int rc = 0;
        if (stop->threads[i].state == STOP_HELD)
            rc = copy_first(c, &stop->threads[i], &c->job.copies[i]);
        if (rc)
            return rc;
    }
    int rc = flush_batch(c);
    if (rc == 0)
        rc = copy_seconds(c);
    if (rc == 0 && c->job.python)
        copy_python(c);
    return rc;
}

/* ---- what is missing ---- */

/* Where a thread sleeps that would not stop. */
static void add_missed(struct capture *c, size_t index, struct os_result *result)
{
    pid_t tid = c->stop.threads[index].tid, tracer;
    char state = '?', leaf[64], data[128];
    struct span where;
    snprintf(leaf, sizeof leaf, "task/%d/wchan", tid);
    stop_thread_status((pid_t)c->stop.process.pid, tid, &tracer, &state);
    if (proc_read_pid("", c->stop.process.pid, leaf, data, sizeof data, &where, NULL) != 0)
        where = span_str("?");
    os_result_miss(result, "thread %d '%s' did not stop in time: state %c in %.*s", tid,
                   c->job.copies[index].name, state, (int)where.size_bytes,
                   (const char *)where.data);
}

static void note_missed(struct capture *c, struct os_result *result)
{
    if (c->stop.overflow > 0)
        os_result_miss(result, "%zu threads more than expected", c->stop.overflow);
    for (size_t i = 0; i < c->stop.count; i++) {
        if (c->stop.threads[i].state == STOP_MISSED)
            add_missed(c, i, result);
    }
}

static void count_threads(const struct stop *stop, struct os_result *result)
{
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_HELD)
            result->threads++;
        else if (stop->threads[i].state == STOP_MISSED)
            result->threads_missed++;
    }
    result->threads_missed += (uint32_t)stop->overflow;
}

/* Names of threads that were born since; states, as they are now. */
static void describe_threads(struct capture *c)
{
    for (size_t i = 0; i < c->stop.count; i++) {
        struct stacks_copy *copy = &c->job.copies[i];
        pid_t pid = (pid_t)c->stop.process.pid, tracer;
        if (!copy->taken)
            continue;
        if (copy->name[0] == '\0')
            stacks_read_name(pid, copy->tid, copy->name, sizeof copy->name);
        stop_thread_status(pid, copy->tid, &tracer, &copy->state);
    }
    c->job.count = c->stop.count;
}

/* ---- the whole ---- */

static int hold_and_copy(struct capture *c, struct os_result *result, struct failure *f)
{
    struct failure cause = {0, ""};
    c->job.head.wall_us = port_wall_us();
    int rc = stop_run(&c->stop, c->job.take->pause_max_us, copy_stacks, NULL, c, &cause);
    result->pause_us = c->stop.pause_us;
    result->paused = c->stop.pause_us > 0;
    count_threads(&c->stop, result);
    if (rc == 0 && result->threads == 0)
        rc = fail(&cause, result->threads_missed ? ERR_TIMEOUT : ERR_GONE,
                  result->threads_missed ? "no thread stopped in time" : "process ended");
    if (rc && cause.code == 0)
        fail(&cause, rc, "process ended");
    if (rc && f)
        *f = cause;
    return rc;
}

static void capture_done(struct capture *c)
{
    stacks_job_done(&c->job);
    if (c->pool)
        munmap(c->pool, c->pool_bytes);
    stop_close(&c->stop);
    free(c);
}

int os_stacks_capture(const struct os_take *take, const struct os_output *out,
                      struct os_result *result, struct failure *f)
{
    memset(result, 0, sizeof *result);
    struct capture *c = calloc(1, sizeof *c);
    if (!c)
        return fail(f, ERR_NOMEM, "no memory to capture");
    c->stop.pid_fd = -1;
    c->job.head.kind = "stacks";
    maps_init(&c->job.maps);
    int rc = prepare(c, take, result, f);
    if (rc == 0)
        rc = hold_and_copy(c, result, f);
    if (rc == 0) {
        note_missed(c, result);
        describe_threads(c);
        rc = stacks_job_finish(&c->job, out, result, f);
    }
    capture_done(c);
    return rc;
}
