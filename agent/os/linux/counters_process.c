/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of the processes that are followed: proc(5), /proc/PID/{stat,io,schedstat,fd}.
 * Invariant: a series belongs to one process from its start to its end; a pid used again gets
 * series of its own. Called by counters.c, and by the agent for values that only its broker can
 * read.
 */
#include "agent/os/linux/counters_process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/text.h"

#define NAMED_MAX 64 /* processes followed by name, besides the busiest */
#define BUSIEST_MAX 512
#define RENAME_US UINT64_C(60000000)
#define IO_STALE_US UINT64_C(5000000)
#define SCANNED_DEFAULT 500
#define REREAD_US UINT64_C(10000000)

#define CPU(name)                                              \
    {                                                          \
        NULL, "process." name, "us", OS_COUNT, COUNTER_TICK_US \
    }
#define COUNT(name)                             \
    {                                           \
        NULL, "process." name, "1", OS_COUNT, 1 \
    }
#define BYTES(name)                                 \
    {                                               \
        NULL, "process." name, "bytes", OS_COUNT, 1 \
    }

enum row {
    ROW_CPU_USER,
    ROW_CPU_SYSTEM,
    ROW_MINOR_FAULTS,
    ROW_MAJOR_FAULTS,
    ROW_THREADS,
    ROW_RSS,
    ROW_VIRTUAL,
    ROW_FDS,
    ROW_READ_BYTES,
    ROW_WRITE_BYTES,
    ROW_SWITCHES,
    ROW_RUNQUEUE_DELAY,
    ROWS
};

static const struct counter_row rows[] = {
    CPU("cpu_user"),
    CPU("cpu_system"),
    COUNT("minor_faults"),
    COUNT("major_faults"),
    {NULL, "process.threads", "1", OS_GAUGE, 1},
    {NULL, "process.rss", "bytes", OS_GAUGE, 1},
    {NULL, "process.virtual", "bytes", OS_GAUGE, 1},
    {NULL, "process.fds", "1", OS_GAUGE, 1},
    BYTES("read_bytes"),
    BYTES("write_bytes"),
    COUNT("context_switches"),
    {NULL, "process.runqueue_delay", "us", OS_COUNT, 1},
};
static const struct group_type type = {rows, ROWS, 2 * BUSIEST_MAX, 1};

static const struct counter_row host_rows[] = {
    {NULL, "processes.count", "1", OS_GAUGE, 1},
    {NULL, "processes.followed", "1", OS_GAUGE, 1},
    {NULL, "processes.left_out", "1", OS_GAUGE, 1},
};
static const struct group_type host_type = {host_rows, 3, 0, 1};

/* ---- which are followed ---- */

struct followed *followed_find(struct processes *p, uint32_t pid)
{
    for (size_t i = 0; i < p->followed_count; i++)
        if (p->followed[i].pid == pid)
            return &p->followed[i];
    return NULL;
}

static int open_leaf(const struct processes *p, uint32_t pid, const char *leaf, int flags)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, p->root, pid, leaf);
    return open(path, O_CLOEXEC | O_NONBLOCK | flags);
}

static void note_reason(char *out, int error, const struct processes *p, uint32_t pid,
                        const char *leaf)
{
    struct failure f;
    (void)fail_errno(&f, ERR_IO, error, "cannot read '%s/proc/%u/%s'", p->root, pid, leaf);
    (void)text_copy(out, FOLLOWED_REASON_SIZE, f.text);
}

static bool has_room(const struct processes *p, bool named)
{
    return named ? p->named_count < p->named_limit
                 : p->followed_count - p->named_count < p->busy_limit;
}

static void open_others(struct processes *p, struct followed *process)
{
    process->io_fd = open_leaf(p, process->pid, "io", O_RDONLY);
    if (process->io_fd < 0) {
        process->io_error = errno;
        note_reason(process->io_reason, errno, p, process->pid, "io");
    }
    process->files_fd = p->files_counted ? open_leaf(p, process->pid, "fd", O_PATH) : -1;
}

bool followed_add(struct os_counters *c, struct processes *p, const struct known *known)
{
    if (!has_room(p, known->named))
        return false;
    struct instance *instance = instance_open(&type, span_str(known->name), known->pid);
    if (!instance)
        return false;
    int stat_fd = open_leaf(p, known->pid, "stat", O_RDONLY);
    if (stat_fd < 0) {
        free(instance);
        return false;
    }
    struct followed *process = &p->followed[p->followed_count++];
    *process = (struct followed){.pid = known->pid,
                                 .start_ticks = known->start_ticks,
                                 .named = known->named,
                                 .busy_us = c->mono_us,
                                 .instance = instance,
                                 .stat_fd = stat_fd};
    (void)text_copy(process->comm, sizeof process->comm, known->comm);
    p->named_count += known->named;
    open_others(p, process);
    return true;
}

static void close_followed(struct processes *p, struct followed *process)
{
    threads_done(p, process);
    close(process->stat_fd);
    if (process->io_fd >= 0)
        close(process->io_fd);
    if (process->files_fd >= 0)
        close(process->files_fd);
}

void followed_remove(struct os_counters *c, struct processes *p, struct followed *process)
{
    assert(process >= p->followed && process < p->followed + p->followed_count);
    close_followed(p, process);
    p->named_count -= process->named;
    instance_close(c, &type, process->instance);
    *process = p->followed[--p->followed_count];
}

/* ---- values of one process ---- */

static const char *const unexpected = "its file in /proc is not as expected";

/* Reads a file of one record into the caller's memory. Returns 0 or an errno. */
static int read_record(int fd, void *data, size_t size_bytes, struct span *out)
{
    ssize_t got;
    do {
        got = pread(fd, data, size_bytes, 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno;
    *out = span_of(data, (size_t)got);
    return 0;
}

static void give_stat(struct os_counters *c, struct processes *p, struct followed *process,
                      const struct proc_stat *stat)
{
    struct instance *i = process->instance;
    counter_value(c, &type, i, ROW_CPU_USER, stat->user_ticks);
    counter_value(c, &type, i, ROW_CPU_SYSTEM, stat->system_ticks);
    counter_value(c, &type, i, ROW_MINOR_FAULTS, stat->minor_faults);
    counter_value(c, &type, i, ROW_MAJOR_FAULTS, stat->major_faults);
    counter_value(c, &type, i, ROW_THREADS, stat->threads);
    if (stat->rss_pages <= UINT64_MAX / p->page_bytes)
        counter_value(c, &type, i, ROW_RSS, stat->rss_pages * p->page_bytes);
    counter_value(c, &type, i, ROW_VIRTUAL, stat->virtual_bytes);
}

static void give_files(struct os_counters *c, struct processes *p, struct followed *process)
{
    struct stat st;
    if (counter_has(c, process->instance, ROW_FDS))
        return;
    if (!p->files_counted)
        counter_gap(c, &type, process->instance, ROW_FDS, "needs kernel 6.2 or newer");
    else if (process->files_fd < 0 || fstat(process->files_fd, &st) < 0 || st.st_size < 0)
        counter_gap(c, &type, process->instance, ROW_FDS,
                    "cannot read its directory of open files");
    else
        counter_value(c, &type, process->instance, ROW_FDS, (uint64_t)st.st_size);
}

static void give_io(struct os_counters *c, struct followed *process, uint64_t reads,
                    uint64_t writes)
{
    counter_value(c, &type, process->instance, ROW_READ_BYTES, reads);
    counter_value(c, &type, process->instance, ROW_WRITE_BYTES, writes);
}

static void gap_io(struct os_counters *c, struct followed *process, const char *reason)
{
    counter_gap(c, &type, process->instance, ROW_READ_BYTES, reason);
    counter_gap(c, &type, process->instance, ROW_WRITE_BYTES, reason);
}

static bool lacks_privilege(int error)
{
    return error == EACCES || error == EPERM;
}

static void take_io(struct os_counters *c, struct processes *p, struct followed *process)
{
    uint8_t data[512];
    struct span text;
    uint64_t reads, writes;
    int error = read_record(process->io_fd, data, sizeof data, &text);
    if (error) { /* opened, but its permission is asked for again at each reading */
        close(process->io_fd);
        process->io_fd = -1;
        process->io_error = error;
        note_reason(process->io_reason, error, p, process->pid, "io");
        gap_io(c, process, process->io_reason);
    } else if (proc_parse_io(text, &reads, &writes) < 0) {
        gap_io(c, process, unexpected);
    } else {
        give_io(c, process, reads, writes);
    }
}

static void sample_io(struct os_counters *c, struct processes *p, struct followed *process)
{
    bool fresh = process->io_us != 0 && c->mono_us - process->io_us <= IO_STALE_US;
    if (process->io_fd >= 0)
        take_io(c, p, process);
    else if (fresh && process->io.error == 0)
        give_io(c, process, process->io.read_bytes, process->io.write_bytes);
    else
        gap_io(c, process, process->io_reason);
}

static void sample_threads(struct os_counters *c, struct processes *p, struct followed *process,
                           uint32_t threads)
{
    const char *reason = threads_update(c, p, process, threads);
    if (reason) {
        counter_gap(c, &type, process->instance, ROW_SWITCHES, reason);
        counter_gap(c, &type, process->instance, ROW_RUNQUEUE_DELAY, reason);
        return;
    }
    counter_value(c, &type, process->instance, ROW_SWITCHES, process->switches);
    counter_value(c, &type, process->instance, ROW_RUNQUEUE_DELAY, process->wait_ns / 1000);
}

/* After exec the process is another program: its series end and those of the new name begin. */
static void rename_followed(struct os_counters *c, struct processes *p, struct followed *process,
                            const char *comm)
{
    char name[OS_PROCESS_NAME_SIZE];
    if (process->renamed_us != 0 && c->mono_us - process->renamed_us < RENAME_US)
        return;
    process->renamed_us = c->mono_us;
    (void)text_copy(process->comm, sizeof process->comm, comm);
    proc_full_name(p->root, process->pid, comm, name);
    if (strcmp(name, process->instance->name) == 0)
        return;
    struct instance *instance = instance_open(&type, span_str(name), process->pid);
    if (!instance)
        return;
    instance_close(c, &type, process->instance);
    process->instance = instance;
}

/* False when the process has ended. */
static bool read_one(struct os_counters *c, struct processes *p, struct followed *process)
{
    uint8_t data[PROC_STAT_SIZE];
    char reason[FOLLOWED_REASON_SIZE];
    struct span text = {0};
    struct proc_stat stat;
    int error = read_record(process->stat_fd, data, sizeof data, &text);
    if (error == ESRCH || error == ENOENT)
        return false;
    if (error)
        note_reason(reason, error, p, process->pid, "stat");
    if (error || proc_parse_stat(text, &stat) < 0) {
        for (size_t i = 0; i < ROWS; i++)
            counter_gap(c, &type, process->instance, i, error ? reason : unexpected);
        return true;
    }
    if (stat.start_ticks != process->start_ticks) /* a recorded tree: a file is only a file */
        return false;
    if (strcmp(stat.name, process->comm) != 0)
        rename_followed(c, p, process, stat.name);
    give_stat(c, p, process, &stat);
    give_files(c, p, process);
    sample_io(c, p, process);
    sample_threads(c, p, process, stat.threads);
    process->read_us = c->mono_us;
    process->ticks = stat.user_ticks + stat.system_ticks;
    process->ended = proc_has_ended(&stat);
    return true;
}

/* It did not run, so that its numbers are what they were. */
static void repeat_one(struct os_counters *c, struct processes *p, struct followed *process)
{
    struct instance *instance = process->instance;
    if (process->io_us != 0)
        process->io_us = c->mono_us;
    if (process->io_fd < 0)
        sample_io(c, p, process);
    for (size_t i = 0; i < ROWS; i++)
        if (instance->series[i].has_value)
            counter_value(c, &type, instance, i, instance->series[i].raw);
    give_files(c, p, process);
}

/*
 * Most processes sleep most of the time; scheduler statistics, which are cheap to read, tell. Their
 * memory can be taken away while they sleep and their files closed by a process that shares them,
 * so all is read again now and then, not of all processes in the same second.
 */
static bool sample_one(struct os_counters *c, struct processes *p, struct followed *process)
{
    bool ran = threads_read(p, process);
    uint64_t age_us = c->mono_us - process->read_us;
    uint64_t limit_us = REREAD_US - process->pid % 8 * (REREAD_US / 16);
    process->idle = !ran && process->read_us != 0 && age_us < limit_us;
    if (!process->idle)
        return read_one(c, p, process);
    repeat_one(c, p, process);
    return true;
}

static void followed_sample(struct os_counters *c, struct processes *p)
{
    size_t i = 0;
    while (i < p->followed_count) {
        if (sample_one(c, p, &p->followed[i])) {
            instance_end(c, &type, p->followed[i].instance, unexpected);
            i++;
        } else {
            scan_doubt(p, p->followed[i].pid);
            followed_remove(c, p, &p->followed[i]);
        }
    }
}

/* ---- the topic ---- */

/* Kernels before 6.2 give a directory of open files the size 0; a recorded tree gives another. */
static bool are_files_counted(const char *root)
{
    struct stat st;
    return root[0] == '\0' && stat("/proc/self/fd", &st) == 0 && st.st_size > 0;
}

static int allocate(struct processes *p)
{
    p->busy_limit = p->busiest + p->busiest / 2; /* those that were busy stay for a while */
    p->named_limit = p->names ? NAMED_MAX : 0;
    p->followed = calloc(p->busy_limit + p->named_limit + 1, sizeof *p->followed);
    p->top = calloc(p->busiest + 1, sizeof(struct known *));
    if (!p->followed || !p->top)
        return ERR_NOMEM;
    return group_init(&p->host, &host_type);
}

int processes_open(struct processes **out, struct os_counters *c,
                   const struct os_counter_settings *settings, struct failure *f)
{
    struct processes *p = calloc(1, sizeof *p);
    if (!p)
        return fail(f, ERR_NOMEM, "out of memory for processes");
    p->root = c->root;
    p->names = settings->processes;
    p->busiest = settings->busiest < BUSIEST_MAX ? settings->busiest : BUSIEST_MAX;
    p->max_scanned =
        settings->max_processes_scanned ? settings->max_processes_scanned : SCANNED_DEFAULT;
    p->files_counted = are_files_counted(c->root);
    long page_bytes = sysconf(_SC_PAGESIZE);
    p->page_bytes = page_bytes > 0 ? (uint64_t)page_bytes : 4096;
    if (allocate(p) < 0) {
        processes_close(p);
        return fail(f, ERR_NOMEM, "out of memory for processes");
    }
    *out = p;
    return 0;
}

void processes_close(struct processes *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->followed_count; i++) {
        close_followed(p, &p->followed[i]);
        free(p->followed[i].instance);
    }
    free(p->followed);
    scan_done(p);
    group_done(&p->host);
    free(p);
}

void processes_sample(struct os_counters *c, struct processes *p)
{
    scan_sample(c, p);
    followed_sample(c, p);
    struct instance *host = group_host(&p->host);
    if (p->reason[0] != '\0') {
        group_gap(c, &p->host, p->reason);
        return;
    }
    counter_value(c, &host_type, host, 0, p->user_count);
    counter_value(c, &host_type, host, 1, p->followed_count);
    counter_value(c, &host_type, host, 2, p->left_out);
}

void os_counters_on_process(struct os_counters *c,
                            void (*changed)(void *context, const struct os_process_change *change),
                            void *context)
{
    c->processes->changed = changed;
    c->processes->changed_context = context;
}

bool os_counters_each_process(const struct os_counters *counters,
                              void (*each)(void *context, const struct os_process_change *process),
                              void *context)
{
    return scan_each(counters->processes, each, context);
}

/* ---- values that only the broker can read ---- */

/* What the broker told of a process that does not run still holds. */
static bool wants_io(const struct followed *process)
{
    bool known = process->idle && process->io_us != 0 && process->io.error == 0;
    return process->io_fd < 0 && lacks_privilege(process->io_error) && !known;
}

/* Each time from another one on, so that all have their turn when there are more than `count`. */
size_t os_counters_want_io(struct os_counters *c, uint32_t *pids, size_t count)
{
    struct processes *p = c->processes;
    size_t wanted = 0, asked = 0;
    for (; asked < p->followed_count && wanted < count; asked++) {
        const struct followed *process = &p->followed[(p->io_next + asked) % p->followed_count];
        if (wants_io(process))
            pids[wanted++] = process->pid;
    }
    p->io_next = wanted == count && count > 0 ? p->io_next + asked : 0;
    return wanted;
}

/* Kept for the next sample, which gives them only if the process is still the same one. */
void os_counters_give_io(struct os_counters *c, const struct os_process_io *io, size_t count)
{
    struct processes *p = c->processes;
    for (size_t i = 0; i < count; i++) {
        struct followed *process = followed_find(p, io[i].pid);
        if (!process || process->io_fd >= 0)
            continue;
        process->io = io[i];
        process->io_us = c->mono_us;
        if (io[i].error != 0)
            note_reason(process->io_reason, io[i].error, p, io[i].pid, "io");
    }
}
