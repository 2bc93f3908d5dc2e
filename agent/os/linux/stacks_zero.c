/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks without a stop: where a sleeping thread's stack is stands in /proc/PID/task/TID/syscall
 * (proc(5)). Invariant: the process is only read; a copy counts only when the thread has not run
 * between two looks, told by that file and by how long it ran in all. Called by agent/worker.c, in
 * the worker.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/stacks_linux.h"
#include "agent/os/linux/stop.h"
#include "common/port.h"
#include "common/text.h"

#define TRIES 4
#define THREADS_MAX 32768
#define STAMP_BYTES 512

/* What tells whether a thread has run: its system call line, and its times. */
struct stamp {
    char text[STAMP_BYTES];
    size_t size_bytes;
    bool running;
    uint64_t sp, pc;
};

struct look {
    struct stacks_job job;
    size_t most;
    uint8_t *scratch;
    int failed_code; /* why some thread's system call could not be read; 0: it could */
};

/* ---- one look at one thread ---- */

static int append_file(struct stamp *stamp, pid_t pid, pid_t tid, const char *name)
{
    char leaf[64];
    struct span text;
    snprintf(leaf, sizeof leaf, "task/%d/%s", tid, name);
    int rc = proc_read_pid("", (uint32_t)pid, leaf, stamp->text + stamp->size_bytes,
                           sizeof stamp->text - stamp->size_bytes, &text, NULL);
    if (rc == 0)
        stamp->size_bytes += text.size_bytes;
    return rc;
}

/* Where the kernel does not count times, it counts how often a processor was given up. */
static int append_switches(struct stamp *stamp, pid_t pid, pid_t tid)
{
    static const char *const keys[] = {"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"};
    char leaf[64], data[PROC_TEXT_SIZE];
    struct span text, value;
    snprintf(leaf, sizeof leaf, "task/%d/status", tid);
    int rc = proc_read_pid("", (uint32_t)pid, leaf, data, sizeof data, &text, NULL);
    for (size_t i = 0; rc == 0 && i < sizeof keys / sizeof keys[0]; i++) {
        rc = proc_find_key(text, keys[i], &value);
        if (rc == 0 && value.size_bytes < sizeof stamp->text - stamp->size_bytes) {
            memcpy(stamp->text + stamp->size_bytes, value.data, value.size_bytes);
            stamp->size_bytes += value.size_bytes;
        }
    }
    return rc;
}

static int take_hex(struct span field, uint64_t *out)
{
    if (!proc_starts_with(field, "0x"))
        return ERR_CORRUPT;
    field = span_of(field.data + 2, field.size_bytes - 2);
    return text_take_hex(&field, out) || field.size_bytes ? ERR_CORRUPT : 0;
}

/* "running", or "NUMBER ... SP PC". */
static int parse_syscall(struct stamp *stamp)
{
    struct span line = span_of(stamp->text, stamp->size_bytes), field, last = {NULL, 0}, before;
    stamp->running = proc_starts_with(line, "running");
    if (stamp->running)
        return 0;
    before = last;
    while (proc_take_field(&line, &field) == 0) {
        before = last;
        last = field;
    }
    return take_hex(before, &stamp->sp) || take_hex(last, &stamp->pc) ? ERR_CORRUPT : 0;
}

static int take_stamp(struct stamp *stamp, pid_t pid, pid_t tid)
{
    memset(stamp, 0, sizeof *stamp);
    int rc = append_file(stamp, pid, tid, "syscall");
    if (rc == 0)
        rc = parse_syscall(stamp);
    if (rc == 0 && append_file(stamp, pid, tid, "schedstat") != 0)
        rc = append_switches(stamp, pid, tid);
    return rc;
}

static bool same_stamp(const struct stamp *a, const struct stamp *b)
{
    return a->size_bytes == b->size_bytes && memcmp(a->text, b->text, a->size_bytes) == 0;
}

/* ---- copying ---- */

/* As much as can be read of [start, start + size_bytes), in memory of its own. */
static size_t copy_memory(const struct look *look, uint64_t start, size_t size_bytes,
                          uint8_t **data)
{
    struct iovec local = {look->scratch, size_bytes};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    struct iovec remote = {(void *)(uintptr_t)start, size_bytes};
    *data = NULL;
    ssize_t got =
        size_bytes ? process_vm_readv((pid_t)look->job.take->process.pid, &local, 1, &remote, 1, 0)
                   : 0;
    if (got > 0)
        *data = malloc((size_t)got);
    if (!*data)
        return 0;
    memcpy(*data, look->scratch, (size_t)got);
    return (size_t)got;
}

static void drop_copy(struct stacks_copy *copy)
{
    free(copy->data);
    free(copy->second);
    copy->data = copy->second = NULL;
    copy->size_bytes = copy->second_bytes = 0;
}

static void copy_stack(const struct look *look, struct stacks_copy *copy)
{
    struct stacks_copy plan;
    stacks_plan_copy(&look->job.maps, copy->sp, look->most, copy);
    copy->size_bytes = copy_memory(look, copy->start, copy->size_bytes, &copy->data);
    uint64_t before = copy->size_bytes ? stacks_find_signal(copy) : 0;
    if (!before)
        return;
    memset(&plan, 0, sizeof plan);
    stacks_plan_copy(&look->job.maps, before, look->most, &plan);
    copy->second_start = plan.start;
    copy->second_bytes = copy_memory(look, plan.start, plan.size_bytes, &copy->second);
}

/* One try. Returns whether it is settled: copied, or nothing to be had. */
static bool try_thread(struct look *look, struct stacks_copy *copy)
{
    struct stamp before, after;
    pid_t pid = (pid_t)look->job.take->process.pid;
    int rc = take_stamp(&before, pid, copy->tid);
    copy->why = NULL;
    if (rc == ERR_GONE) {
        copy->ended = true;
        return true;
    }
    if (rc) {
        look->failed_code = rc;
        copy->why = "its registers cannot be read without a stop";
        return true;
    }
    if (before.running) {
        copy->why = "it was running";
        return false;
    }
    copy->sp = before.sp;
    copy->pc = before.pc;
    copy_stack(look, copy);
    if (copy->python)
        python_copy(look->job.python, copy->python);
    if (take_stamp(&after, pid, copy->tid) == 0 && same_stamp(&before, &after)) {
        copy->taken = copy->few = true;
        return true;
    }
    drop_copy(copy);
    copy->why = "it moved while it was looked at";
    return false;
}

static void look_at(struct look *look, struct stacks_copy *copy)
{
    pid_t pid = (pid_t)look->job.take->process.pid, tracer;
    struct python *python = look->job.python;
    stacks_read_name(pid, copy->tid, copy->name, sizeof copy->name);
    if (python && !python->missing)
        copy->python = python_find(python, 0, stacks_inner_tid(pid, copy->tid));
    for (int i = 0; i < TRIES && !try_thread(look, copy); i++)
        ;
    stop_thread_status(pid, copy->tid, &tracer, &copy->state);
}

static int look_at_all(struct look *look, struct os_result *result, struct failure *f)
{
    char path[64];
    uint32_t *tids;
    size_t count;
    snprintf(path, sizeof path, "/proc/%u/task", look->job.take->process.pid);
    int rc = proc_numbers(path, &tids, &count, THREADS_MAX, f);
    if (rc && rc != ERR_LIMIT)
        return rc;
    if (rc == ERR_LIMIT)
        os_result_miss(result, "threads after the first %d", THREADS_MAX);
    look->job.copies = calloc(count + 1, sizeof *look->job.copies);
    look->most = stacks_bytes_max(count);
    look->scratch = malloc(look->most);
    if (!look->job.copies || !look->scratch) {
        free(tids);
        return fail(f, ERR_NOMEM, "no memory for %zu threads", count);
    }
    if (look->job.python)
        python_list(look->job.python);
    for (size_t i = 0; i < count; i++) {
        struct stacks_copy *copy = &look->job.copies[look->job.count++];
        copy->tid = (pid_t)tids[i];
        look_at(look, copy);
        result->threads += !copy->ended;
        result->threads_missed += !copy->ended && !copy->taken;
    }
    free(tids);
    return 0;
}

/* ---- the whole ---- */

static int verdict(const struct look *look, const struct os_result *result, struct failure *f)
{
    if (result->threads == 0)
        return fail(f, ERR_GONE, "process ended");
    if (look->failed_code && result->threads_missed == result->threads)
        return fail(f, look->failed_code == ERR_DENIED ? ERR_DENIED : ERR_UNSUPPORTED,
                    "cannot read what system calls the threads are in: %s",
                    err_text(look->failed_code));
    return 0;
}

static void look_done(struct look *look)
{
    for (size_t i = 0; i < look->job.count; i++)
        drop_copy(&look->job.copies[i]);
    stacks_job_done(&look->job);
    free(look->scratch);
    free(look);
}

int os_stacks0_capture(const struct os_take *take, const struct os_output *out,
                       struct os_result *result, struct failure *f)
{
    memset(result, 0, sizeof *result);
    struct look *look = calloc(1, sizeof *look);
    if (!look)
        return fail(f, ERR_NOMEM, "no memory to capture");
    look->job.head.kind = "stacks0";
    maps_init(&look->job.maps);
    int rc = stop_check_target(&take->process, f);
    if (rc == 0)
        rc = stacks_job_open(&look->job, take, f);
    look->job.head.wall_us = port_wall_us();
    if (rc == 0)
        rc = look_at_all(look, result, f);
    /* Whatever was read, was read of the process that was meant. */
    if (rc == 0)
        rc = stop_check_target(&take->process, f);
    if (rc == 0)
        rc = verdict(look, result, f);
    if (rc == 0)
        rc = stacks_job_finish(&look->job, out, result, f);
    look_done(look);
    return rc;
}
