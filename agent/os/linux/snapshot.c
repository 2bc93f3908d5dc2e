/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making, opening and ending the twin. Invariant: a twin that was made is ended by snapshot_end()
 * or by our death. Called by dump.c; snapshot.h says what is promised and in which order.
 */
#include "agent/os/linux/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/linux/inject.h"
#include "agent/os/linux/procfs.h"

#define OTHERWISE "--live takes a core without a snapshot"
#define TWIN_WAIT_US 2000000 /* for the twin's stop */
#define TWIN_END_US 30000000 /* for its end: gigabytes are unmapped first */
#define CANDIDATES_MAX 4     /* threads that are tried, one after the other */
#define TWINS_MAX 8
#define GIB (1ull << 30)

uint64_t snapshot_predict_us(const struct os_costs *costs, uint64_t small_bytes,
                             uint64_t huge_bytes, size_t threads)
{
    return (uint64_t)costs->stop_us + (uint64_t)costs->snapshot_us +
           (uint64_t)threads * costs->thread_us +
           (uint64_t)((double)small_bytes / (double)GIB * costs->table_gib_us) +
           (uint64_t)((double)huge_bytes / (double)GIB * costs->huge_table_gib_us);
}

/* ---- before ---- */

/* In ticks since boot, as field 22 of /proc/PID/stat counts. */
static uint64_t now_ticks(void)
{
    struct timespec t;
    long hertz = sysconf(_SC_CLK_TCK);
    uint64_t per_second = hertz > 0 ? (uint64_t)hertz : 100;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * per_second + (uint64_t)t.tv_nsec * per_second / 1000000000;
}

int snapshot_prepare(struct snapshot *snapshot, const struct stop *stop, const struct maps *maps,
                     struct failure *f)
{
    memset(snapshot, 0, sizeof *snapshot);
    snapshot->mem_fd = -1;
    snapshot->process = stop->process;
    snapshot->made_ticks = now_ticks();
    int rc = snapshot_check(stop, f);
    if (rc)
        return rc;
    void *work = mmap(NULL, sizeof *snapshot->work, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (work == MAP_FAILED)
        return fail(f, ERR_NOMEM, "no memory for a snapshot");
    snapshot->work = work;
    snapshot->work_bytes = sizeof *snapshot->work;
    return inject_find_code(snapshot->work, (pid_t)stop->process.pid, maps, f);
}

void snapshot_done(struct snapshot *snapshot)
{
    if (snapshot->mem_fd >= 0)
        close(snapshot->mem_fd);
    if (snapshot->work)
        munmap(snapshot->work, snapshot->work_bytes);
    snapshot->mem_fd = -1;
    snapshot->work = NULL;
}

/* ---- while it is held ---- */

struct choice {
    struct stop_thread *thread;
    unsigned fitness;
};

/* stop->threads has the registers from before an EINTR was mended. */
static void weigh(struct snapshot *snapshot, struct stop_thread *thread, struct choice *best,
                  const char **why)
{
    struct user_regs_struct regs = thread->regs;
    if ((int64_t)regs.rax == -EINTR && ptrace(PTRACE_GETREGS, thread->tid, 0, &regs) != 0)
        return;
    unsigned fitness = inject_fitness(snapshot->work, thread->tid, &regs, why);
    if (fitness > best->fitness)
        *best = (struct choice){thread, fitness};
}

/* The best of those behind the first `tried`... a thread that was tried is marked in `skip`. */
static struct stop_thread *choose(struct snapshot *snapshot, struct stop *stop, const pid_t *skip,
                                  size_t skip_count, const char **why)
{
    struct choice best = {NULL, 0};
    for (size_t i = 0; i < stop->count && best.fitness < INJECT_FITNESS_MAX; i++) {
        bool tried = false;
        for (size_t k = 0; k < skip_count; k++)
            tried |= skip[k] == stop->threads[i].tid;
        if (!tried && stop->threads[i].state == STOP_HELD)
            weigh(snapshot, &stop->threads[i], &best, why);
    }
    return best.thread;
}

static int explain(const struct inject *inject, struct failure *f)
{
    int error = (int)-inject->result;
    switch (error) {
    case EAGAIN:
        return fail(f, ERR_REFUSED,
                    "no snapshot is possible: the process may not have another child (limit of "
                    "processes of its user or control group); " OTHERWISE);
    case ENOMEM:
        return fail(f, ERR_REFUSED,
                    "no snapshot is possible: not enough memory for a copy of the process, as "
                    "vm.overcommit_memory counts it; " OTHERWISE);
    default:
        return fail_errno(f, ERR_REFUSED, error, "no snapshot is possible: clone");
    }
}

static int make_with(struct snapshot *snapshot, struct stop *stop, struct stop_thread *thread,
                     struct failure *f)
{
    struct inject *inject = snapshot->work;
    struct inject_call call = {SYS_clone, {CLONE_FILES | CLONE_FS, 0, 0, 0, 0, 0}, true};
    int rc = inject_call(inject, thread->tid, &call, stop_until_us(stop), f);
    snapshot->pid = inject->child;
    stop->child = inject->child;
    snapshot->begun |= inject->begun;
    if (rc && inject->begun)
        thread->state = STOP_MISSED; /* let go as soon as it stops; it heals itself */
    if (rc)
        return rc;
    if (inject->result < 0)
        return explain(inject, f);
    snapshot->inner_pid = (pid_t)inject->result;
    return inject->child ? 0 : fail(f, ERR_IO, "snapshot of the process escaped");
}

int snapshot_make(struct snapshot *snapshot, struct stop *stop, struct failure *f)
{
    pid_t tried[CANDIDATES_MAX];
    snapshot->work->controls = snapshot->clone_controls;
    const char *why = NULL;
    for (size_t i = 0; i < CANDIDATES_MAX; i++) {
        struct stop_thread *thread = choose(snapshot, stop, tried, i, &why);
        if (!thread)
            break;
        int rc = make_with(snapshot, stop, thread, f);
        if (rc != ERR_UNSUPPORTED)
            return rc;
        why = f ? f->text : "";
        tried[i] = thread->tid;
    }
    if (!why)
        return fail(f, ERR_TIMEOUT, "no thread of the process stopped in time");
    char text[FAILURE_TEXT_SIZE];
    snprintf(text, sizeof text, "%s", why);
    return fail(f, ERR_REFUSED, "no snapshot is possible: %s; " OTHERWISE, text);
}

/* ---- after it was let go ---- */

/* Best effort: without it, the twin is only as likely to be killed as the process itself. */
static void offer_to_oom(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, "1000", 4);
    close(fd);
}

int snapshot_open(struct snapshot *snapshot, struct failure *f)
{
    siginfo_t info;
    char path[32];
    int rc = stop_wait(snapshot->pid, stop_now_us() + TWIN_WAIT_US, &info);
    if (rc || (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED))
        return fail(f, rc ? rc : ERR_GONE, "snapshot of the process ended");
    /* Were we to die before: it ends by itself, through its frame. */
    if (ptrace(PTRACE_SETOPTIONS, snapshot->pid, 0, PTRACE_O_EXITKILL) != 0)
        return fail_errno(f, ERR_GONE, errno, "snapshot of the process ended");
    offer_to_oom(snapshot->pid);
    snprintf(path, sizeof path, "/proc/%d/mem", snapshot->pid);
    snapshot->mem_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (snapshot->mem_fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot open '%s'", path);
    return 0;
}

static bool has_ended(pid_t pid)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat;
    return proc_read_pid("", (uint32_t)pid, "stat", data, sizeof data, &text, NULL) != 0 ||
           proc_parse_stat(text, &stat) != 0 || proc_has_ended(&stat);
}

bool snapshot_is_orphan(const struct snapshot *snapshot)
{
    struct os_process now;
    return has_ended((pid_t)snapshot->process.pid) ||
           os_process_get("", snapshot->process.pid, &now, NULL) != 0 ||
           now.start_ticks != snapshot->process.start_ticks;
}

/* As its tracer we are told first; only then is it a zombie of the process. Who was its tracer may
 * be gone: then it is only watched. */
static int kill_twin(pid_t pid, struct failure *f)
{
    uint64_t until_us = stop_now_us() + TWIN_END_US;
    kill(pid, SIGKILL);
    while (stop_now_us() < until_us) {
        siginfo_t info;
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | __WALL) != 0 && errno != EINTR &&
            has_ended(pid))
            return 0;
        struct timespec nap = {0, 200000};
        nanosleep(&nap, NULL);
    }
    return fail(f, ERR_TIMEOUT, "snapshot %d of the process does not end", pid);
}

int snapshot_end(struct snapshot *snapshot, uint64_t *pause_us, struct failure *f)
{
    pid_t twins[TWINS_MAX];
    size_t count = 0, reaped = 0;
    if (snapshot->mem_fd >= 0)
        close(snapshot->mem_fd);
    snapshot->mem_fd = -1;
    if (!snapshot->begun)
        return 0;
    if (snapshot->pid) {
        int rc = kill_twin(snapshot->pid, f);
        if (rc)
            return rc;
    }
    if (snapshot->inner_pid > 0)
        twins[count++] = snapshot->inner_pid;
    else
        count = snapshot_find_twins(&snapshot->process, snapshot->made_ticks, twins, TWINS_MAX);
    int rc = count ? snapshot_reap(&snapshot->process, twins, count, &snapshot->reap_controls,
                                   &reaped, pause_us, f)
                   : 0;
    if (rc == 0) {
        snapshot->pid = snapshot->inner_pid = 0;
        snapshot->begun = false;
    }
    return rc == ERR_GONE ? 0 : rc;
}
