/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Setting the probe, and reading what its program writes (throws_probe.h). Called by throws_look.c,
 * throws.c.
 */
#include "agent/os/linux/throws_probe.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/os/linux/perf_events.h"
#include "agent/os/linux/procfs.h"
#include "agent/os/linux/throws_program.h"
#include "common/text.h"

#define RING_BYTES ((size_t)2 << 20) /* 160 throws: more than the cut-off lets come in 0.2 s */
#define PMU "/sys/bus/event_source/devices/uprobe/type"
#define PATH_SIZE 64

/* ---- the kernel ---- */

static int bpf(int command, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, command, attr, sizeof *attr);
}

static int explain(int error, const char *what, struct failure *f)
{
    int64_t paranoid;
    if (error == ENOENT || error == ENOSYS || error == EOPNOTSUPP || error == ENODEV ||
        error == EINVAL)
        return fail_errno(f, ERR_UNSUPPORTED, error,
                          "this kernel cannot %s (uprobes and bpf rings, since Linux 5.8)", what);
    if (error == ESRCH)
        return fail(f, ERR_GONE, "process ended");
    if (error != EACCES && error != EPERM)
        return fail_errno(f, err_from_errno(error), error, "cannot %s", what);
    if (perf_paranoid(&paranoid))
        return fail(f, ERR_DENIED, "not permitted to %s: needs root, or CAP_PERFMON and CAP_BPF",
                    what);
    return fail(f, ERR_DENIED,
                "not permitted to %s (perf_event_paranoid %lld): needs root, or CAP_PERFMON and "
                "CAP_BPF",
                what, (long long)paranoid);
}

static int read_pmu(uint32_t *out, struct failure *f)
{
    char data[32];
    struct span text;
    uint64_t number;
    if (proc_read(PMU, data, sizeof data, &text, NULL) || proc_take_number(&text, &number))
        return fail(f, ERR_UNSUPPORTED, "this kernel has no uprobes ('" PMU "')");
    *out = (uint32_t)number;
    return 0;
}

/* Maps count as locked memory before Linux 5.11. */
static void allow_locked(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_MEMLOCK, &limit);
    }
}

static int make_maps(struct throws_probe *p, struct failure *f)
{
    union bpf_attr counts = {.map_type = BPF_MAP_TYPE_ARRAY,
                             .key_size = 4,
                             .value_size = THROWS_COUNTS * 8,
                             .max_entries = 1,
                             .map_flags = BPF_F_MMAPABLE};
    union bpf_attr ring = {.map_type = BPF_MAP_TYPE_RINGBUF, .max_entries = RING_BYTES};
    allow_locked();
    p->counts_fd = bpf(BPF_MAP_CREATE, &counts);
    if (p->counts_fd < 0)
        return explain(errno, "count in a map (bpf)", f);
    p->ring_fd = bpf(BPF_MAP_CREATE, &ring);
    return p->ring_fd < 0 ? explain(errno, "make a ring (bpf)", f) : 0;
}

static int make_program(struct throws_probe *p, struct failure *f)
{
    struct bpf_insn program[THROWS_PROGRAM_MAX];
    /* These few instructions are offered under GPL-2.0 besides: their helpers are for programs
     * under it only (bpf-helpers(7)). */
    union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_KPROBE,
                           .insns = (uint64_t)(uintptr_t)program,
                           .license = (uint64_t)(uintptr_t) "GPL"};
    attr.insn_cnt = (uint32_t)throws_program(program, p->counts_fd, p->ring_fd);
    p->program_fd = bpf(BPF_PROG_LOAD, &attr);
    return p->program_fd < 0 ? explain(errno, "run a program at a probe (bpf)", f) : 0;
}

static int map_all(struct throws_probe *p, struct failure *f)
{
    void *counts = mmap(NULL, p->page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->counts_fd, 0);
    void *consumer = mmap(NULL, p->page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->ring_fd, 0);
    void *producer = mmap(NULL, p->page_bytes + 2 * RING_BYTES, PROT_READ, MAP_SHARED, p->ring_fd,
                          (off_t)p->page_bytes);
    p->counts = counts == MAP_FAILED ? NULL : counts;
    p->consumer = consumer == MAP_FAILED ? NULL : consumer;
    p->producer = producer == MAP_FAILED ? NULL : producer;
    if (!p->counts || !p->consumer || !p->producer)
        return fail_errno(f, err_from_errno(errno), errno, "cannot map the ring of the probe");
    return 0;
}

/* ---- opening ---- */

static void reset(struct throws_probe *p)
{
    memset(p, 0, sizeof *p);
    p->program_fd = p->counts_fd = p->ring_fd = -1;
    for (size_t i = 0; i < THROWS_PLACES_MAX; i++)
        p->events[i] = -1;
    p->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
}

int throws_probe_open(struct throws_probe *p, pid_t pid, const struct throws_place *places,
                      size_t count, struct failure *f)
{
    reset(p);
    p->pid = pid;
    p->place_count = count < THROWS_PLACES_MAX ? count : THROWS_PLACES_MAX;
    for (size_t i = 0; i < p->place_count; i++)
        p->places[i] = places[i];
    int e = read_pmu(&p->pmu, f);
    if (!e)
        e = make_maps(p, f);
    if (!e)
        e = make_program(p, f);
    if (!e)
        e = map_all(p, f);
    if (e)
        throws_probe_close(p);
    return e;
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void throws_probe_close(struct throws_probe *p)
{
    throws_probe_disarm(p);
    if (p->counts)
        munmap(p->counts, p->page_bytes);
    if (p->consumer)
        munmap(p->consumer, p->page_bytes);
    if (p->producer)
        munmap(p->producer, p->page_bytes + 2 * RING_BYTES);
    close_one(&p->program_fd);
    close_one(&p->counts_fd);
    close_one(&p->ring_fd);
    reset(p);
}

int throws_probe_try(struct failure *f)
{
    struct throws_probe p;
    int e = throws_probe_open(&p, getpid(), NULL, 0, f);
    if (!e)
        throws_probe_close(&p);
    return e;
}

/* ---- arming ---- */

/*
 * Who has a deadly signal pending while the kernel sets a probe or takes it away cannot take it
 * away: the kernel says "failed to unregister, leaking uprobe", and the process pays for it at
 * each throw until somebody sets and takes away a probe at the same place. So neither signals nor
 * our parent's death end us meanwhile; SIGKILL from outside still does.
 */
struct guard {
    sigset_t signals;
    int death;
    pid_t parent;
};

static void guard_begin(struct guard *g)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &g->signals);
    g->parent = getppid();
    g->death = 0;
    (void)prctl(PR_GET_PDEATHSIG, &g->death, 0, 0, 0);
    if (g->death)
        (void)prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
}

/* What would have ended us does so now; our end takes the probe away. */
static void guard_end(const struct guard *g)
{
    if (g->death) {
        (void)prctl(PR_SET_PDEATHSIG, g->death, 0, 0, 0);
        if (getppid() != g->parent)
            _exit(1);
    }
    sigprocmask(SIG_SETMASK, &g->signals, NULL);
}

/* By the descriptor, so that it is the very file that the process maps, deleted or not, in
 * whichever mount namespace. The event of a process holds for all who share its memory. */
static int arm_one(struct throws_probe *p, size_t i, struct failure *f)
{
    char path[PATH_SIZE];
    struct perf_event_attr attr;
    (void)text_format(path, sizeof path, "/proc/self/fd/%d", p->places[i].file_fd);
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = p->pmu;
    attr.uprobe_path = (uint64_t)(uintptr_t)path;
    attr.probe_offset = p->places[i].offset;
    p->events[i] = (int)syscall(SYS_perf_event_open, &attr, p->pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (p->events[i] < 0)
        return explain(errno, "set a probe (perf_event_open)", f);
    if (ioctl(p->events[i], PERF_EVENT_IOC_SET_BPF, p->program_fd))
        return explain(errno, "run a program at the probe (perf_event_open)", f);
    return 0;
}

int throws_probe_arm(struct throws_probe *p, struct failure *f)
{
    struct guard guard;
    int e = 0;
    guard_begin(&guard);
    for (size_t i = 0; i < p->place_count && !e; i++)
        e = arm_one(p, i, f);
    guard_end(&guard);
    p->armed = e == 0;
    if (e)
        throws_probe_disarm(p);
    return e;
}

void throws_probe_disarm(struct throws_probe *p)
{
    struct guard guard;
    guard_begin(&guard);
    for (size_t i = 0; i < THROWS_PLACES_MAX; i++)
        close_one(&p->events[i]);
    guard_end(&guard);
    p->armed = false;
}

/* ---- reading ---- */

uint64_t throws_probe_all(const struct throws_probe *p)
{
    return __atomic_load_n(&p->counts[THROWS_ALL], __ATOMIC_RELAXED);
}

uint64_t throws_probe_lost(const struct throws_probe *p)
{
    return __atomic_load_n(&p->counts[THROWS_LOST], __ATOMIC_RELAXED);
}

/* Documentation/bpf/ringbuf.rst: positions only grow; a record is 8 bytes of head, of which the
 * first four are its length with two flags on top, and what was asked, rounded up to 8. The data is
 * mapped twice in a row, so that a record over the end is in one piece. */
int throws_probe_drain(struct throws_probe *p, throws_hit_fn each, void *context)
{
    uint64_t *seen = (uint64_t *)(void *)p->consumer;
    const uint64_t *made = (const uint64_t *)(const void *)p->producer;
    const uint8_t *data = p->producer + p->page_bytes;
    uint64_t at = *seen, end = __atomic_load_n(made, __ATOMIC_ACQUIRE);
    int rc = 0;
    if (end - at > RING_BYTES)
        return ERR_CORRUPT;
    while (at < end && rc == 0) {
        const uint8_t *head = data + (at & (RING_BYTES - 1));
        uint32_t length = __atomic_load_n((const uint32_t *)(const void *)head, __ATOMIC_ACQUIRE);
        if (length & BPF_RINGBUF_BUSY_BIT)
            return 0; /* being written: next time */
        bool dropped = length & BPF_RINGBUF_DISCARD_BIT;
        length &= ~(uint32_t)(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);
        if (!dropped && length != sizeof(struct throws_hit))
            return ERR_CORRUPT;
        if (!dropped)
            rc = each(context, (const void *)(head + BPF_RINGBUF_HDR_SZ));
        at += (length + BPF_RINGBUF_HDR_SZ + 7) / 8 * 8;
        __atomic_store_n(seen, at, __ATOMIC_RELEASE);
    }
    return rc;
}
