/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading /proc of a dying process: as few calls as possible, since it waits for them. Invariant:
 * whatever the number of its threads and files is, a limited number of calls is made. Called by
 * crash_take.c.
 */
#include "agent/os/linux/crash_proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "common/port.h"
#include "common/text.h"

#define NAMED_THREADS_MAX 1024
#define NAMED_ASIDE 16 /* names of more threads are read by a thread of ours */
#define INNER_THREADS_MAX 256
#define FDS_MAX 256
#define OUTPUTS 3 /* descriptors below this one are its outputs */

void crash_init(struct os_crash *c, const struct os_crash_arguments *arguments)
{
    c->arguments = *arguments;
    c->start_ticks = arguments->start_ticks;
    c->wall_us = port_wall_us();
    memcpy(c->id, arguments->id, sizeof c->id);
    text_copy(c->name, sizeof c->name, arguments->name);
    buf_init(&c->core_head, CRASH_HEAD_MAX);
    buf_init(&c->assembled, 64u << 20);
    buf_init(&c->status, PROC_TEXT_SIZE);
    buf_init(&c->limits, PROC_TEXT_SIZE);
    buf_init(&c->cgroup, PROC_TEXT_SIZE);
    buf_init(&c->auxv, DUMP_AUXV_MAX);
    maps_init(&c->dump.maps);
    areas_init(&c->dump.areas);
    c->dump.stop.pid_fd = -1;
    for (size_t i = 0; i < CRASH_LOG_FILES; i++)
        c->log_fds[i] = -1;
}

void os_crash_close(struct os_crash *c)
{
    if (!c)
        return;
    crash_forget(c);
    dump_close(&c->dump);
    crash_notes_done(&c->notes);
    buf_done(&c->core_head);
    buf_done(&c->assembled);
    free(c->threads);
    free(c);
}

void crash_forget(struct os_crash *c)
{
    for (size_t i = 0; i < CRASH_LOG_FILES; i++) {
        if (c->log_fds[i] >= 0)
            close(c->log_fds[i]);
        c->log_fds[i] = -1;
        c->log_paths[i][0] = '\0';
    }
    unwind_close(c->unwind);
    c->unwind = NULL;
    maps_done(&c->dump.maps);
    areas_done(&c->dump.areas);
    copies_done(&c->dump.copies);
    buf_done(&c->status);
    buf_done(&c->limits);
    buf_done(&c->cgroup);
    buf_done(&c->auxv);
    crash_join_tasks(c);
    free(c->tasks);
    c->tasks = NULL;
    c->task_count = 0;
    for (size_t i = 0; c->threads && i < c->dump.stop.count; i++)
        c->threads[i] =
            (struct crash_thread){.tid = c->threads[i].tid, .inner_tid = c->threads[i].inner_tid};
    c->executable[0] = c->unit[0] = '\0';
    c->exe_device = c->exe_inode = 0;
    c->verified = c->has_memory = false;
    /* The start time may be that of another process; what the notes say is the kernel's word. */
    text_copy(c->name, sizeof c->name, c->notes.has_process ? c->notes.name : c->arguments.name);
}

/* ---- who it is ---- */

static int read_start(uint32_t pid, uint64_t *ticks, char *name, size_t size_bytes)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat_line;
    if (proc_read_pid("", pid, "stat", data, sizeof data, &text, NULL) ||
        proc_parse_stat(text, &stat_line))
        return ERR_GONE;
    *ticks = stat_line.start_ticks;
    if (name)
        text_copy(name, size_bytes, stat_line.name);
    return 0;
}

/* FNV-1a, twice: an id needs to differ, not to be a secret. */
static void make_id(const void *data, size_t size_bytes, uint8_t out[16])
{
    const uint8_t *bytes = data;
    uint64_t hash[2] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u};
    for (size_t i = 0; i < size_bytes; i++) {
        hash[0] = (hash[0] ^ bytes[i]) * 0x100000001b3u;
        hash[1] = (hash[1] ^ bytes[size_bytes - 1 - i]) * 0x100000001b3u;
    }
    for (int i = 0; i < 2; i++)
        hash[i] = (hash[i] ^ hash[i] >> 29) * 0xbf58476d1ce4e5b9u;
    memcpy(out, hash, 16);
}

void os_crash_identify(struct os_crash_arguments *a)
{
    struct span boot;
    char data[64] = "", text[160];
    if (proc_read("/proc/sys/kernel/random/boot_id", data, sizeof data - 1, &boot, NULL))
        boot = span_of(data, 0);
    if (read_start(a->pid, &a->start_ticks, a->name, sizeof a->name))
        a->start_ticks = 0;
    if (a->start_ticks)
        snprintf(text, sizeof text, "%.36s %u %llu", data, a->pid,
                 (unsigned long long)a->start_ticks);
    else
        snprintf(text, sizeof text, "%.36s %u at %lld", data, a->pid, (long long)a->time_s);
    make_id(text, strlen(text), a->id);
}

/* /proc/self/fdinfo of a pidfd: "Pid:\t123". */
static int pid_of_pidfd(int pidfd)
{
    char path[64], data[512];
    struct span text, line;
    uint64_t pid;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    if (proc_read(path, data, sizeof data, &text, NULL) || proc_find_key(text, "Pid:", &line) ||
        text_take_u64(&line, &pid) || pid > INT32_MAX)
        return -1;
    return (int)pid;
}

static void read_text(const struct os_crash *c, const char *leaf, struct buf *out)
{
    char data[PROC_TEXT_SIZE];
    struct span text;
    if (proc_read_pid("", c->arguments.pid, leaf, data, sizeof data, &text, NULL) == 0)
        (void)buf_append_span(out, text);
}

static int read_executable(uint32_t pid, uint64_t *device, uint64_t *inode)
{
    char path[PROC_PATH_SIZE];
    struct stat st;
    proc_path(path, "", pid, "exe");
    if (stat(path, &st) != 0)
        return errno == ENOENT || errno == ESRCH ? ERR_GONE : ERR_DENIED;
    *device = st.st_dev;
    *inode = st.st_ino;
    return 0;
}

int crash_read_identity(struct os_crash *c, bool any_state, struct failure *f)
{
    struct span state;
    uint64_t ticks = 0;
    if (pid_of_pidfd(c->arguments.pidfd) != (int)c->arguments.pid ||
        read_start(c->arguments.pid, &ticks, NULL, 0))
        return fail(f, ERR_GONE, "pid %u is no more the process that failed", c->arguments.pid);
    if (c->start_ticks == 0)
        c->start_ticks = ticks;
    if (ticks != c->start_ticks)
        return fail(f, ERR_GONE, "pid %u began anew meanwhile", c->arguments.pid);
    read_text(c, "status", &c->status);
    bool is_dumped = proc_find_key(buf_span(&c->status), "CoreDumping:", &state) == 0 &&
                     state.size_bytes > 0 && state.data[0] == '1';
    if (!is_dumped && !any_state)
        return fail(f, ERR_GONE, "pid %u is not being dumped", c->arguments.pid);
    read_text(c, "auxv", &c->auxv);
    (void)read_executable(c->arguments.pid, &c->exe_device, &c->exe_inode);
    return 0;
}

int crash_match_notes(const struct os_crash *c, struct failure *f)
{
    struct span theirs = c->notes.auxv;
    if (c->auxv.size_bytes == 0 || theirs.size_bytes < c->auxv.size_bytes ||
        memcmp(c->auxv.data, theirs.data, c->auxv.size_bytes) != 0)
        return fail(f, ERR_GONE, "pid %u is not the process of this core", c->arguments.pid);
    return 0;
}

int crash_check_identity(struct os_crash *c, struct failure *f)
{
    uint64_t ticks = 0, device = 0, inode = 0;
    if (read_start(c->arguments.pid, &ticks, NULL, 0) || ticks != c->start_ticks)
        return fail(f, ERR_GONE, "pid %u ended while it was read", c->arguments.pid);
    (void)read_executable(c->arguments.pid, &device, &inode);
    if (device != c->exe_device || inode != c->exe_inode)
        return fail(f, ERR_GONE, "pid %u changed its program while it was read", c->arguments.pid);
    return 0;
}

/* ---- threads ---- */

/* There may be hundreds: three calls for each. The kernel gives a name in one piece. */
static void read_name(int folder, uint32_t tid, char name[CRASH_COMM_SIZE])
{
    char leaf[32], data[CRASH_COMM_SIZE];
    (void)text_format(leaf, sizeof leaf, "%u/comm", tid);
    int fd = openat(folder, leaf, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, data, sizeof data);
    close(fd);
    while (got > 0 && data[got - 1] == '\n')
        got--;
    if (got > 0)
        (void)text_copy_span(name, CRASH_COMM_SIZE, span_of(data, (size_t)got));
}

static int open_tasks(const struct os_crash *c)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, "", c->arguments.pid, "task");
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void read_tasks(struct os_crash *c)
{
    char path[PROC_PATH_SIZE];
    uint32_t *list = NULL;
    size_t count = 0;
    proc_path(path, "", c->arguments.pid, "task");
    (void)proc_numbers(path, &list, &count, NAMED_THREADS_MAX, NULL);
    int folder = list ? open_tasks(c) : -1;
    if (folder >= 0)
        c->tasks = calloc(count + 1, sizeof *c->tasks);
    for (; c->tasks && c->task_count < count; c->task_count++) {
        struct crash_task *task = &c->tasks[c->task_count];
        task->tid = list[c->task_count];
        read_name(folder, task->tid, task->name);
    }
    if (folder >= 0)
        close(folder);
    free(list);
}

static void *read_tasks_aside(void *context)
{
    read_tasks(context);
    return NULL;
}

static void start_tasks(struct os_crash *c)
{
    struct span line;
    uint64_t threads = 0;
    bool are_many = proc_find_key(buf_span(&c->status), "Threads:", &line) == 0 &&
                    proc_take_number(&line, &threads) == 0 && threads > NAMED_ASIDE;
    c->reads_tasks = are_many && pthread_create(&c->reader, NULL, read_tasks_aside, c) == 0;
    if (!c->reads_tasks)
        read_tasks(c);
}

void crash_join_tasks(struct os_crash *c)
{
    if (c->reads_tasks)
        (void)pthread_join(c->reader, NULL);
    c->reads_tasks = false;
}

static const char *name_of(const struct os_crash *c, pid_t tid)
{
    size_t low = 0, high = c->task_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->tasks[middle].tid == (uint32_t)tid)
            return c->tasks[middle].name;
        if (c->tasks[middle].tid < (uint32_t)tid)
            low = middle + 1;
        else
            high = middle;
    }
    return "";
}

/* The last number of "NSpid:": the innermost. */
static bool inner_of(struct span status, uint64_t *inner, size_t *depth)
{
    struct span line;
    *depth = 0;
    if (proc_find_key(status, "NSpid:", &line))
        return false;
    while (proc_take_number(&line, inner) == 0)
        ++*depth;
    return *depth > 0;
}

/* In a pid namespace of its own the notes have other numbers than /proc. */
static void map_threads(struct os_crash *c)
{
    char data[PROC_TEXT_SIZE], leaf[64];
    size_t depth;
    for (size_t i = c->arguments.tid ? 1 : 0; i < c->dump.stop.count; i++)
        c->threads[i].tid = 0;
    if (c->task_count > INNER_THREADS_MAX)
        crash_miss(c, "numbers and names of threads beyond %d", INNER_THREADS_MAX);
    for (size_t i = 0; i < c->task_count && i < INNER_THREADS_MAX; i++) {
        struct span text;
        uint64_t inner = 0;
        snprintf(leaf, sizeof leaf, "task/%u/status", c->tasks[i].tid);
        if (proc_read_pid("", c->arguments.pid, leaf, data, sizeof data, &text, NULL) ||
            !inner_of(text, &inner, &depth))
            continue;
        for (size_t k = 0; k < c->dump.stop.count; k++)
            if (c->threads[k].inner_tid == (pid_t)inner)
                c->threads[k].tid = (pid_t)c->tasks[i].tid;
    }
}

/* The one that failed may be beyond those that were listed. */
static void name_failed(struct os_crash *c)
{
    struct crash_thread *t = &c->threads[0];
    int folder = t->tid > 0 && !t->name[0] ? open_tasks(c) : -1;
    if (folder < 0)
        return;
    read_name(folder, (uint32_t)t->tid, t->name);
    close(folder);
}

void crash_name_threads(struct os_crash *c)
{
    uint64_t inner = 0;
    size_t depth = 0;
    crash_join_tasks(c);
    if (inner_of(buf_span(&c->status), &inner, &depth) && depth > 1)
        map_threads(c);
    if (c->arguments.tid == 0)
        c->arguments.tid = (uint32_t)c->threads[0].tid;
    for (size_t i = 0; i < c->dump.stop.count; i++) {
        struct crash_thread *t = &c->threads[i];
        /* The core has them under the numbers that are right for who reads it here. */
        c->dump.stop.threads[i].tid = t->tid ? t->tid : t->inner_tid;
        (void)text_copy(t->name, sizeof t->name, name_of(c, t->tid));
    }
    name_failed(c);
    c->dump.stop.process.pid = (uint32_t)c->dump.stop.threads[0].tid;
}

/* ---- files that it logged to ---- */

/* Through the descriptor, whatever its path leads to by now; a device is never opened. */
static int open_log(const char *link)
{
    struct stat st;
    char self[64];
    int fd = -1, place = open(link, O_PATH | O_CLOEXEC);
    if (place < 0)
        return -1;
    snprintf(self, sizeof self, "/proc/self/fd/%d", place);
    if (fstat(place, &st) == 0 && S_ISREG(st.st_mode))
        fd = open(self, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    close(place);
    return fd;
}

static bool is_known_log(const struct os_crash *c, const char *path)
{
    for (size_t i = 0; i < CRASH_LOG_FILES; i++)
        if (strcmp(c->log_paths[i], path) == 0)
            return true;
    return false;
}

static void add_log(struct os_crash *c, uint32_t fd)
{
    char leaf[32], link[PROC_PATH_SIZE], target[256];
    size_t at = 0;
    snprintf(leaf, sizeof leaf, "fd/%u", fd);
    if (proc_link_pid("", c->arguments.pid, leaf, target, sizeof target, NULL))
        return;
    if (target[0] != '/' || strncmp(target, "/dev/", 5) == 0 || strncmp(target, "/proc/", 6) == 0 ||
        (fd >= OUTPUTS && !proc_ends_with(span_str(target), ".log")) || is_known_log(c, target))
        return;
    while (at < CRASH_LOG_FILES && c->log_fds[at] >= 0)
        at++;
    if (at == CRASH_LOG_FILES)
        return;
    proc_path(link, "", c->arguments.pid, leaf);
    c->log_fds[at] = open_log(link);
    if (c->log_fds[at] >= 0)
        text_copy(c->log_paths[at], sizeof c->log_paths[at], target);
}

static void open_logs(struct os_crash *c)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, "", c->arguments.pid, "fd");
    DIR *dir = opendir(path);
    struct dirent *entry;
    add_log(c, 1);
    add_log(c, 2);
    for (int i = 0; dir && i < FDS_MAX && (entry = readdir(dir)) != NULL; i++) {
        uint64_t fd;
        if (text_u64_in(entry->d_name, OUTPUTS, INT32_MAX, &fd) == 0)
            add_log(c, (uint32_t)fd);
    }
    if (dir)
        closedir(dir);
}

void crash_read_texts(struct os_crash *c)
{
    char comm[OS_PROCESS_NAME_SIZE];
    start_tasks(c);
    read_text(c, "limits", &c->limits);
    read_text(c, "cgroup", &c->cgroup);
    (void)proc_link_pid("", c->arguments.pid, "exe", c->executable, sizeof c->executable, NULL);
    (void)proc_cgroup_unit(buf_span(&c->cgroup), c->unit, sizeof c->unit);
    text_copy(comm, sizeof comm, c->name);
    proc_full_name("", c->arguments.pid, comm, c->name);
    if (c->arguments.dumpable == 1)
        open_logs(c);
}
