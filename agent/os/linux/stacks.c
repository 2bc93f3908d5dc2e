/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capturing the stacks of a process: plan and allocate, hold and copy, release, unwind, write.
 * Invariant: while the process is held only copy_stacks() runs, and it only copies into memory that
 * is there. Called by agent/worker.c, in the worker.
 */
#include "agent/os/stacks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "agent/os/linux/maps.h"
#include "agent/os/linux/procfs.h"
#include "agent/os/linux/stacks_text.h"
#include "agent/os/linux/stop.h"
#include "agent/os/linux/unwind.h"
#include "common/port.h"
#include "common/text.h"

#define STACK_BYTES_MAX (64u << 10) /* of one thread */
#define POOL_BYTES_MAX (512u << 20) /* of all */
#define POOL_SPARE (256u << 10)     /* for stacks that grew since they were measured */
#define STACK_GROWTH (8u << 10)     /* the same, of one thread */
#define RED_ZONE 128                /* bytes below the stack pointer that are in use: psABI 3.2.2 */
#define BATCH_PARTS 64              /* pieces copied by one call */
#define BATCH_BYTES (1u << 20)      /* and how many bytes: between calls the time is looked at */

/* What was copied of one thread. */
struct stack_copy {
    uint64_t start;
    size_t size_bytes;
    uint8_t *data;
    bool unmapped; /* the stack pointer was in no mapping known */
};

/* Pieces gathered for the next process_vm_readv(). */
struct batch {
    struct iovec local[BATCH_PARTS], remote[BATCH_PARTS];
    struct stack_copy *copy[BATCH_PARTS];
    size_t count, size_bytes;
};

struct capture {
    struct stop stop;
    struct maps maps;
    struct unwind *unwind;
    struct stack_copy *copies; /* as many as stop.capacity */
    char (*names)[STACKS_COMM_SIZE];
    uint8_t *pool;
    size_t pool_bytes, pool_used;
    struct batch batch;
    struct stacks_set set;
    int64_t wall_us;
    uint64_t expected_us;
};

/* ---- before: what is there, and how much of it ---- */

static void read_comm(pid_t pid, pid_t tid, char *out, size_t size_bytes)
{
    char leaf[64], data[64];
    struct span text, line;
    snprintf(leaf, sizeof leaf, "task/%d/comm", tid);
    text_copy(out, size_bytes, "?");
    if (proc_read_pid("", (uint32_t)pid, leaf, data, sizeof data, &text, NULL) == 0 &&
        proc_take_line(&text, &line) == 0)
        text_copy_span(out, size_bytes, line);
}

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

/* From the stack pointer to the end of its mapping, at most STACK_BYTES_MAX. */
static size_t stack_size(const struct maps *maps, uint64_t pointer)
{
    const struct map *map = pointer ? maps_find(maps, pointer) : NULL;
    if (!map || map->end - pointer + RED_ZONE > STACK_BYTES_MAX)
        return STACK_BYTES_MAX;
    return (size_t)(map->end - pointer) + RED_ZONE;
}

/* Measures the stacks as they are now: idle threads cost their few KiB and not the maximum. */
static size_t measure(struct capture *c, uint64_t *expected_bytes)
{
    pid_t pid = (pid_t)c->stop.process.pid;
    size_t total = POOL_SPARE;
    *expected_bytes = 0;
    for (size_t i = 0; i < c->stop.count; i++) {
        pid_t tid = c->stop.threads[i].tid;
        size_t size = stack_size(&c->maps, read_stack_pointer(pid, tid));
        read_comm(pid, tid, c->names[i], sizeof c->names[i]);
        *expected_bytes += size;
        size += STACK_GROWTH;
        total += size < STACK_BYTES_MAX ? size : STACK_BYTES_MAX;
    }
    return total < POOL_BYTES_MAX ? total : POOL_BYTES_MAX;
}

static int allocate(struct capture *c, struct failure *f)
{
    uint64_t expected_bytes;
    c->copies = calloc(c->stop.capacity, sizeof *c->copies);
    c->names = calloc(c->stop.capacity, sizeof *c->names);
    if (!c->copies || !c->names)
        return fail(f, ERR_NOMEM, "no memory for %zu threads", c->stop.capacity);
    /* calloc() may give pages that are not there yet. */
    memset(c->copies, 0, c->stop.capacity * sizeof *c->copies);
    c->pool_bytes = measure(c, &expected_bytes);
    void *pool = mmap(NULL, c->pool_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (pool == MAP_FAILED)
        return fail(f, ERR_NOMEM, "no memory for %zu bytes of stacks", c->pool_bytes);
    c->pool = pool;
    c->expected_us = stop_predict_us(&c->stop, expected_bytes);
    return 0;
}

static int prepare(struct capture *c, const struct os_process *process, uint32_t pause_max_us,
                   struct failure *f)
{
    int rc = stop_open(&c->stop, process, f);
    if (rc == 0)
        rc = maps_read(&c->maps, process->pid, f);
    if (rc == 0)
        rc = unwind_open(&c->unwind, (pid_t)process->pid, &c->maps, f);
    if (rc == 0)
        rc = allocate(c, f);
    if (rc == 0 && c->expected_us > pause_max_us) {
        char would[32], limit[32];
        text_put_duration((int64_t)c->expected_us, would, sizeof would);
        text_put_duration(pause_max_us, limit, sizeof limit);
        rc = fail(f, ERR_REFUSED, "pause would be %s, limit %s", would, limit);
    }
    return rc;
}

/* ---- under the pause ---- */

/* The kernel stops at the first page that is not there: what came before it is kept. */
static void share_out(struct batch *batch, size_t *at, size_t got)
{
    while (*at < batch->count && got >= batch->local[*at].iov_len) {
        batch->copy[*at]->size_bytes = batch->local[*at].iov_len;
        got -= batch->local[(*at)++].iov_len;
    }
    if (*at < batch->count)
        batch->copy[(*at)++]->size_bytes = got;
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

/* Decides what to copy of a thread, and adds it to the batch. */
static void plan_copy(struct capture *c, const struct stop_thread *thread, struct stack_copy *copy)
{
    uint64_t pointer = thread->regs.rsp;
    if (pointer < 2 * RED_ZONE || pointer > UINT64_MAX - STACK_BYTES_MAX)
        return;
    const struct map *map = maps_find(&c->maps, pointer);
    uint64_t start = (pointer - RED_ZONE) & ~(uint64_t)15;
    if (map && start < map->start)
        start = map->start;
    size_t size = STACK_BYTES_MAX;
    if (map && map->end - start < size)
        size = (size_t)(map->end - start);
    if (size > c->pool_bytes - c->pool_used)
        size = c->pool_bytes - c->pool_used;
    *copy = (struct stack_copy){.start = start, .data = c->pool + c->pool_used, .unmapped = !map};
    c->pool_used += size;
    size_t at = c->batch.count++;
    c->batch.local[at] = (struct iovec){copy->data, size};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    c->batch.remote[at] = (struct iovec){(void *)(uintptr_t)start, size};
    c->batch.copy[at] = copy;
    c->batch.size_bytes += size;
}

static int copy_stacks(void *context, struct stop *stop)
{
    struct capture *c = context;
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state != STOP_HELD)
            continue;
        plan_copy(c, &stop->threads[i], &c->copies[i]);
        if (c->batch.count == BATCH_PARTS || c->batch.size_bytes >= BATCH_BYTES) {
            int rc = flush_batch(c);
            if (rc)
                return rc;
        }
    }
    return flush_batch(c);
}

/* ---- after: frames ---- */

static int make_room(struct stacks_set *set, size_t *capacity, size_t used, struct failure *f)
{
    if (*capacity - used >= UNWIND_FRAMES_MAX)
        return 0;
    size_t wanted = *capacity * 2 + 16 * UNWIND_FRAMES_MAX;
    struct unwind_place *places = realloc(set->places, wanted * sizeof *places);
    if (!places)
        return fail(f, ERR_NOMEM, "no memory for %zu frames", wanted);
    set->places = places;
    *capacity = wanted;
    return 0;
}

/* How a thread ended up without all of its frames; NULL: with all. */
static const char *explain(const struct stack_copy *copy, const char *why)
{
    if (copy->size_bytes == 0)
        return "its stack could not be read";
    if (copy->unmapped)
        return "its stack is in no known mapping";
    return why;
}

static void walk_thread(struct capture *c, size_t index, size_t first)
{
    const struct stop_thread *thread = &c->stop.threads[index];
    const struct stack_copy *copy = &c->copies[index];
    struct stacks_thread *out = &c->set.threads[c->set.thread_count++];
    struct unwind_thread in = {.tid = thread->tid,
                               .regs = &thread->regs,
                               .stack = copy->data,
                               .stack_start = copy->start,
                               .stack_bytes = copy->size_bytes};
    const char *why;
    out->tid = thread->tid;
    out->first = first;
    out->count = unwind_walk(c->unwind, &in, c->set.places + first, UNWIND_FRAMES_MAX, &why);
    out->why = why ? explain(copy, why) : NULL;
    if (c->names[index][0] == '\0')
        read_comm((pid_t)c->stop.process.pid, thread->tid, c->names[index], sizeof c->names[index]);
    text_copy(out->comm, sizeof out->comm, c->names[index]);
}

static int walk_all(struct capture *c, struct failure *f)
{
    size_t capacity = 0, used = 0;
    c->set.threads = calloc(c->stop.count + 1, sizeof *c->set.threads);
    if (!c->set.threads)
        return fail(f, ERR_NOMEM, "no memory for %zu threads", c->stop.count);
    for (size_t i = 0; i < c->stop.count; i++) {
        if (c->stop.threads[i].state != STOP_HELD)
            continue;
        int rc = make_room(&c->set, &capacity, used, f);
        if (rc)
            return rc;
        walk_thread(c, i, used);
        used += c->set.threads[c->set.thread_count - 1].count;
    }
    return 0;
}

static int name_place(struct capture *c, size_t index, struct failure *f)
{
    struct unwind_frame frames[UNWIND_INLINED_MAX];
    size_t count = unwind_name(c->unwind, c->set.known[index].place, frames, UNWIND_INLINED_MAX);
    if (stacks_set_names(&c->set, index, frames, count))
        return fail(f, ERR_NOMEM, "no memory to name %zu frames", c->set.known_count);
    return 0;
}

static int unwind_all(struct capture *c, struct failure *f)
{
    int rc = unwind_start(c->unwind, f);
    if (rc == 0)
        rc = walk_all(c, f);
    if (rc == 0)
        rc = stacks_group(&c->set, f);
    for (size_t i = 0; rc == 0 && i < c->set.known_count; i++)
        rc = name_place(c, i, f);

    for (size_t i = 0; rc == 0 && i < c->set.group_count; i++) {
        struct stacks_group *group = &c->set.groups[i];
        stacks_signature(&c->set, &c->set.threads[c->set.order[group->first]], group->signature);
    }
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
                   c->names[index], state, (int)where.size_bytes, (const char *)where.data);
}

static void note_missing(struct capture *c, struct os_result *result)
{
    if (c->stop.overflow > 0)
        os_result_miss(result, "%zu threads more than expected", c->stop.overflow);
    for (size_t i = 0; i < c->stop.count; i++) {
        if (c->stop.threads[i].state == STOP_MISSED)
            add_missed(c, i, result);
    }
    if (unwind_lines_cut(c->unwind))
        os_result_miss(result, "source lines of some frames: time limit");
    if (unwind_modules_left(c->unwind) > 0)
        os_result_miss(result, "names from %zu of the files: more than %d",
                       unwind_modules_left(c->unwind), UNWIND_MODULES_MAX);
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

/* ---- the whole ---- */

static int write_text(struct capture *c, struct buf *out, struct os_result *result,
                      struct failure *f)
{
    const struct unwind_module *modules;
    size_t module_count = unwind_modules(c->unwind, &modules), left_out = 0;
    struct stacks_head head = {.process = c->stop.process.name,
                               .pid = c->stop.process.pid,
                               .wall_us = c->wall_us,
                               .pause_us = result->pause_us,
                               .expected_us = c->expected_us,
                               .threads = result->threads,
                               .missing = result->missing};
    int rc = stacks_write(&c->set, &head, modules, module_count, out, &left_out);
    if (rc)
        return fail(f, rc, "stacks do not fit into %zu bytes", out->limit_bytes);
    if (left_out > 0)
        os_result_miss(result, "%zu groups of stacks: text limit of %zu bytes", left_out,
                       out->limit_bytes);
    stacks_tops(&c->set, result);
    return 0;
}

static int hold_and_copy(struct capture *c, uint32_t pause_max_us, struct os_result *result,
                         struct failure *f)
{
    struct failure cause = {0, ""};
    c->wall_us = port_wall_us();
    int rc = stop_run(&c->stop, pause_max_us, copy_stacks, NULL, c, &cause);
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
    unwind_close(c->unwind);
    stacks_set_done(&c->set);
    maps_done(&c->maps);
    if (c->pool)
        munmap(c->pool, c->pool_bytes);
    free(c->copies);
    free(c->names);
    stop_close(&c->stop);
    free(c);
}

int os_stacks_capture(const struct os_process *process, uint32_t pause_max_us, struct buf *out,
                      struct os_result *result, struct failure *f)
{
    memset(result, 0, sizeof *result);
    struct capture *c = calloc(1, sizeof *c);
    if (!c)
        return fail(f, ERR_NOMEM, "no memory to capture");
    c->stop.pid_fd = -1;
    maps_init(&c->maps);
    int rc = prepare(c, process, pause_max_us, f);
    if (rc == 0)
        rc = hold_and_copy(c, pause_max_us, result, f);
    if (rc == 0)
        rc = unwind_all(c, f);
    if (rc == 0) {
        note_missing(c, result);
        rc = write_text(c, out, result, f);
    }
    capture_done(c);
    return rc;
}
