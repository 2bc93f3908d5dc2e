/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening perf events and reading their rings. Invariant: a ring's tail moves only over what was
 * handed out, so the kernel counts as lost what it had no room for and never overwrites. Called by
 * profile_perf.c.
 */
#include "agent/os/linux/perf_events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/linux/perf_record.h"
#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define TASKS_MAX 65536
#define LIST_ROUNDS 8
#define DESCRIPTORS_SPARE 64
#define RING_BYTES_LEAST ((size_t)2 * PERF_RECORD_BYTES_MAX) /* for whom little may be locked */

/* ---- what is asked of the kernel ---- */

static void describe(const struct perf_events *events, struct perf_event_attr *attr)
{
    memset(attr, 0, sizeof *attr);
    attr->size = sizeof *attr;
    attr->type = PERF_TYPE_SOFTWARE;
    attr->config = PERF_COUNT_SW_CPU_CLOCK;
    attr->freq = 1;
    attr->sample_freq = events->hz;
    attr->sample_type = PERF_SAMPLE_WANTED;
    attr->sample_regs_user = PERF_REGS_WANTED;
    attr->sample_stack_user = PERF_STACK_BYTES;
    attr->exclude_callchain_user = 1;
    attr->exclude_kernel = events->no_kernel;
    attr->exclude_callchain_kernel = events->no_kernel;
    attr->exclude_hv = 1;
    attr->exclude_idle = 1;
    attr->inherit = !events->everyone;
    attr->inherit_thread = !events->everyone && !events->old_kernel;
    attr->use_clockid = 1;
    attr->clockid = CLOCK_MONOTONIC;
    attr->comm = attr->comm_exec = attr->task = attr->mmap = attr->mmap2 = 1;
}

/* A kernel before 5.13 does not know inherit_thread: then children are followed as well, and left
 * out by the reader. */
static int event_open(struct perf_events *events, pid_t tid, uint32_t cpu)
{
    struct perf_event_attr attr;
    describe(events, &attr);
    int fd = (int)syscall(SYS_perf_event_open, &attr, tid, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0 && errno == EINVAL && attr.inherit_thread) {
        events->old_kernel = true;
        attr.inherit_thread = 0;
        fd = (int)syscall(SYS_perf_event_open, &attr, tid, (int)cpu, -1, PERF_FLAG_FD_CLOEXEC);
    }
    return fd;
}

int perf_paranoid(int64_t *out)
{
    char data[32], text[32];
    struct span all, field;
    int e = proc_read("/proc/sys/kernel/perf_event_paranoid", data, sizeof data, &all, NULL);
    if (e || proc_take_field(&all, &field))
        return ERR_NOTFOUND;
    text_copy_span(text, sizeof text, field);
    return text_i64(text, out) ? ERR_NOTFOUND : 0;
}

/* Why an event cannot be opened, and what would help. */
static int explain(int error, struct failure *f)
{
    int64_t paranoid;
    if (error == ENOENT || error == ENOSYS || error == EOPNOTSUPP || error == ENODEV)
        return fail(f, ERR_UNSUPPORTED, "this kernel has no perf events");
    if (error == ESRCH)
        return fail(f, ERR_GONE, "process ended");
    if (error != EACCES && error != EPERM)
        return fail_errno(f, err_from_errno(error), error, "cannot open perf events");
    if (perf_paranoid(&paranoid))
        return fail(f, ERR_DENIED, "perf events are not permitted: needs CAP_PERFMON");
    return fail(f, ERR_DENIED,
                "perf events are not permitted (perf_event_paranoid %lld): needs CAP_PERFMON",
                (long long)paranoid);
}

/* ---- rings ---- */

/* The kernel wants a power of two of pages besides the page of control. */
static size_t choose_ring_bytes(size_t cpus)
{
    size_t bytes = PERF_RING_BYTES_MAX;
    while (bytes > PERF_RING_BYTES_MIN && bytes * cpus > PERF_RINGS_BYTES_MAX)
        bytes /= 2;
    return bytes;
}

/* -ENOBUFS: so much may not be locked (perf_event_mlock_kb, RLIMIT_MEMLOCK). */
static int ring_map(const struct perf_events *events, struct perf_ring *ring, int fd)
{
    void *base = mmap(NULL, events->page_bytes + events->ring_bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return errno == EPERM || errno == ENOMEM ? -ENOBUFS : -errno;
    ring->base = base;
    ring->fd = fd;
    return 0;
}

static int keep(struct perf_events *events, int fd)
{
    if (events->fd_count == events->fd_capacity)
        return -EMFILE;
    events->fds[events->fd_count++] = fd;
    return 0;
}

/* Opens an event and leads it into its processor's ring. 0 or -errno. */
static int add_event(struct perf_events *events, pid_t tid, struct perf_ring *ring)
{
    int fd = event_open(events, tid, ring->cpu);
    if (fd < 0)
        return -errno;
    int e = keep(events, fd);
    if (e) {
        close(fd);
        return e;
    }
    if (!ring->base)
        return ring_map(events, ring, fd);
    return ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, ring->fd) ? -errno : 0;
}

/* All processors of one thread. A processor that is switched off has no event. */
static int add_thread(struct perf_events *events, pid_t tid)
{
    for (size_t i = 0; i < events->ring_count; i++) {
        int e = add_event(events, tid, &events->rings[i]);
        if (e && e != -ENODEV)
            return e;
    }
    return 0;
}

/* ---- all threads ---- */

static bool is_known(const uint32_t *list, size_t count, uint32_t tid)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list[middle] < tid)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && list[low] == tid;
}

/* Those in `now` that are not in `before`; a thread that ends meanwhile is no fault. */
static int add_new(struct perf_events *events, const uint32_t *before, size_t before_count,
                   const uint32_t *now, size_t now_count, size_t *added)
{
    *added = 0;
    for (size_t i = 0; i < now_count; i++) {
        if (is_known(before, before_count, now[i]))
            continue;
        int e = add_thread(events, (pid_t)now[i]);
        if (e && e != -ESRCH)
            return e;
        (*added)++;
    }
    return 0;
}

/* Until a list has nothing new: from then on every thread's parent passes its event on. */
static int add_all(struct perf_events *events, pid_t pid)
{
    char path[PROC_PATH_SIZE];
    uint32_t *before = NULL, *now;
    size_t before_count = 0, now_count, added = 1;
    int e = 0;
    proc_path(path, "", (uint32_t)pid, "task");
    for (int round = 0; round < LIST_ROUNDS && added > 0 && e == 0; round++) {
        if (proc_numbers(path, &now, &now_count, TASKS_MAX, NULL)) {
            e = -ESRCH;
            break;
        }
        e = add_new(events, before, before_count, now, now_count, &added);
        free(before);
        before = now;
        before_count = now_count;
    }
    free(before);
    return e;
}

static int add_everyone(struct perf_events *events)
{
    events->everyone = true;
    return add_thread(events, -1);
}

/* ---- opening ---- */

static size_t count_threads(pid_t pid)
{
    char path[PROC_PATH_SIZE];
    uint32_t *list;
    size_t count;
    proc_path(path, "", (uint32_t)pid, "task");
    if (proc_numbers(path, &list, &count, TASKS_MAX, NULL))
        return 0;
    free(list);
    return count;
}

/* As many descriptors as we may have: one event is one. */
static void raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max &&
        limit.rlim_cur < 2 * PERF_EVENTS_MAX + DESCRIPTORS_SPARE) {
        rlim_t wanted = 2 * PERF_EVENTS_MAX + DESCRIPTORS_SPARE;
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int allocate(struct perf_events *events, uint32_t hz, struct failure *f)
{
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
    memset(events, 0, sizeof *events);
    events->hz = hz;
    events->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    if (cpus < 1 || cpus > PERF_CPUS_MAX)
        return fail(f, ERR_LIMIT, "%ld processors, limit %d", cpus, PERF_CPUS_MAX);
    events->ring_count = (size_t)cpus;
    events->ring_bytes = choose_ring_bytes(events->ring_count);
    events->fd_capacity = 2 * PERF_EVENTS_MAX; /* threads may be born while we list them */
    events->rings = calloc(events->ring_count, sizeof *events->rings);
    events->fds = calloc(events->fd_capacity, sizeof *events->fds);
    events->record = malloc(PERF_RECORD_BYTES_MAX);
    if (!events->rings || !events->fds || !events->record)
        return fail(f, ERR_NOMEM, "no memory for %ld rings", cpus);
    for (size_t i = 0; i < events->ring_count; i++)
        events->rings[i] = (struct perf_ring){.cpu = (uint32_t)i, .fd = -1};
    return 0;
}

static void drop_events(struct perf_events *events)
{
    for (size_t i = 0; i < events->ring_count; i++) {
        if (events->rings[i].base)
            munmap(events->rings[i].base, events->page_bytes + events->ring_bytes);
        events->rings[i].base = NULL;
    }
    for (size_t i = 0; i < events->fd_count; i++)
        close(events->fds[i]);
    events->fd_count = 0;
}

static int start(struct perf_events *events, pid_t pid)
{
    size_t threads = count_threads(pid);
    if (threads == 0)
        return -ESRCH;
    if (threads * events->ring_count > PERF_EVENTS_MAX)
        return add_everyone(events);
    int e = add_all(events, pid);
    if (e != -EMFILE)
        return e;
    drop_events(events);
    return add_everyone(events);
}

/* With rings as large as may be. */
static int start_large(struct perf_events *events, pid_t pid)
{
    int e = start(events, pid);
    while (e == -ENOBUFS && events->ring_bytes > RING_BYTES_LEAST) {
        drop_events(events);
        events->everyone = false;
        events->ring_bytes /= 2;
        e = start(events, pid);
    }
    return e;
}

int perf_events_open(struct perf_events *events, pid_t pid, uint32_t hz, struct failure *f)
{
    int e = allocate(events, hz, f);
    if (e) {
        perf_events_close(events);
        return e;
    }
    raise_limit();
    int rc = start_large(events, pid);
    if (rc == -EACCES || rc == -EPERM) {
        /* The second best: what the process does itself, without the kernel's part. */
        drop_events(events);
        events->everyone = false;
        events->no_kernel = true;
        events->ring_bytes = choose_ring_bytes(events->ring_count);
        rc = start_large(events, pid);
    }
    if (rc == 0)
        return 0;
    perf_events_close(events);
    return explain(-rc, f);
}

void perf_events_close(struct perf_events *events)
{
    if (events->rings && events->fds)
        drop_events(events);
    free(events->rings);
    free(events->fds);
    free(events->record);
    memset(events, 0, sizeof *events);
}

/* ---- reading ---- */

/* A record that goes over the end of the ring is put together first. */
static const uint8_t *whole(struct perf_events *events, const uint8_t *data, uint64_t at,
                            size_t size_bytes)
{
    size_t offset = (size_t)(at & (events->ring_bytes - 1));
    size_t first = events->ring_bytes - offset;
    if (size_bytes <= first)
        return data + offset;
    memcpy(events->record, data + offset, first);
    memcpy(events->record + first, data, size_bytes - first);
    return events->record;
}

static int drain_ring(struct perf_events *events, struct perf_ring *ring, perf_record_fn each,
                      void *context)
{
    struct perf_event_mmap_page *control = (void *)ring->base;
    const uint8_t *data = ring->base + events->page_bytes;
    uint64_t head = __atomic_load_n(&control->data_head, __ATOMIC_ACQUIRE);
    uint64_t tail = control->data_tail;
    int rc = 0;
    if (head - tail > events->ring_bytes)
        return ERR_CORRUPT;
    while (tail < head && rc == 0) {
        struct perf_event_header header;
        memcpy(&header, whole(events, data, tail, sizeof header), sizeof header);
        if (header.size < sizeof header || header.size > head - tail)
            return ERR_CORRUPT;
        rc = each(context, span_of(whole(events, data, tail, header.size), header.size));
        tail += header.size;
        /* One by one: what was read makes room at once. */
        __atomic_store_n(&control->data_tail, tail, __ATOMIC_RELEASE);
    }
    return rc;
}

int perf_events_drain(struct perf_events *events, perf_record_fn each, void *context)
{
    for (size_t i = 0; i < events->ring_count; i++) {
        if (!events->rings[i].base)
            continue;
        int rc = drain_ring(events, &events->rings[i], each, context);
        if (rc)
            return rc;
    }
    return 0;
}
