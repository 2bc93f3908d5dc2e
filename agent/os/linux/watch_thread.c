/* SPDX-License-Identifier: Apache-2.0 */
/* Whether threads of watched processes stand still, and in what. See agent/os/watch.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/watch_linux.h"
#include "agent/os/watch.h"
#include "common/text.h"

#define THREADS_MAX 256
#define FILES_MAX 4096
#define LISTENERS_MAX 512

int os_watch_runs_open(uint32_t pid)
{
    return proc_open_pid(pid, "schedstat", NULL);
}

int os_watch_runs(int fd, struct os_watch_runs *out)
{
    char data[96];
    struct proc_schedstat s;
    ssize_t got = pread(fd, data, sizeof data, 0);
    if (got <= 0)
        return ERR_GONE;
    int e = proc_parse_schedstat(span_of(data, (size_t)got), &s);
    if (!e)
        *out = (struct os_watch_runs){s.run_ns + s.wait_ns, s.switches};
    return e;
}

static int read_leaf(uint32_t pid, uint32_t tid, const char *name, char *data, size_t size_bytes,
                     struct span *text)
{
    char leaf[64];
    (void)text_format(leaf, sizeof leaf, "task/%u/%s", tid, name);
    return proc_read_pid("", pid, leaf, data, size_bytes, text, NULL);
}

static uint64_t ticks_us(uint64_t ticks)
{
    return os_watch_began_us(ticks);
}

static int read_state(uint32_t pid, uint32_t tid, struct proc_stat *stat)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    int e = read_leaf(pid, tid, "stat", data, sizeof data, &text);
    return e ? e : proc_parse_stat(text, stat);
}

int os_watch_thread(uint32_t pid, uint32_t tid, struct os_watch_thread *out)
{
    char data[PROC_TEXT_SIZE];
    struct span text, value;
    struct proc_stat stat;
    struct os_watch_thread t = {0};
    uint64_t other = 0;
    int e = read_state(pid, tid, &stat);
    if (!e)
        e = read_leaf(pid, tid, "status", data, sizeof data, &text);
    if (e)
        return e;
    if (proc_find_key(text, "voluntary_ctxt_switches:", &value) ||
        proc_take_number(&value, &t.voluntary) ||
        proc_find_key(text, "nonvoluntary_ctxt_switches:", &value) ||
        proc_take_number(&value, &other))
        return ERR_CORRUPT;
    t.state = stat.state;
    t.switches = t.voluntary + other;
    t.system_us = ticks_us(stat.system_ticks);
    t.user_us = ticks_us(stat.user_ticks);
    *out = t;
    return 0;
}

int os_watch_blocked(uint32_t pid, uint32_t *tids, size_t most, size_t *count)
{
    char path[PROC_PATH_SIZE];
    uint32_t *list = NULL;
    size_t threads = 0;
    struct proc_stat stat;
    proc_path(path, "", pid, "task");
    int e = proc_numbers(path, &list, &threads, THREADS_MAX, NULL);
    if (e && e != ERR_LIMIT)
        return e;
    *count = 0;
    for (size_t i = 0; i < threads && *count < most; i++)
        if (read_state(pid, list[i], &stat) == 0 && stat.state == 'D')
            tids[(*count)++] = list[i];
    free(list);
    return 0;
}

/* ---- with privilege ---- */

static const struct {
    long number;
    const char *name;
    bool waits; /* an event loop rests here */
} calls[] = {
    {SYS_epoll_wait, "epoll_wait", true},
    {SYS_epoll_pwait, "epoll_pwait", true},
#ifdef SYS_epoll_pwait2
    {SYS_epoll_pwait2, "epoll_pwait2", true},
#endif
    {SYS_poll, "poll", true},
    {SYS_ppoll, "ppoll", true},
    {SYS_select, "select", true},
    {SYS_pselect6, "pselect6", true},
    {426, "io_uring_enter", true},
    {SYS_read, "read", false},
    {SYS_readv, "readv", false},
    {SYS_pread64, "pread64", false},
    {SYS_write, "write", false},
    {SYS_writev, "writev", false},
    {SYS_pwrite64, "pwrite64", false},
    {SYS_open, "open", false},
    {SYS_openat, "openat", false},
    {SYS_close, "close", false},
    {SYS_stat, "stat", false},
    {SYS_fstat, "fstat", false},
    {SYS_fsync, "fsync", false},
    {SYS_fdatasync, "fdatasync", false},
    {SYS_futex, "futex", false},
    {SYS_nanosleep, "nanosleep", false},
    {SYS_clock_nanosleep, "clock_nanosleep", false},
    {SYS_connect, "connect", false},
    {SYS_accept, "accept", false},
    {SYS_accept4, "accept4", false},
    {SYS_recvfrom, "recvfrom", false},
    {SYS_recvmsg, "recvmsg", false},
    {SYS_sendto, "sendto", false},
    {SYS_sendmsg, "sendmsg", false},
    {SYS_wait4, "wait4", false},
    {SYS_waitid, "waitid", false},
    {SYS_flock, "flock", false},
    {SYS_fcntl, "fcntl", false},
    {SYS_vfork, "vfork", false},
    {SYS_clone, "clone", false},
    {SYS_execve, "execve", false},
    {SYS_munmap, "munmap", false},
    {SYS_unlink, "unlink", false},
    {SYS_rename, "rename", false},
};

static void name_call(struct os_peek *out)
{
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        if (calls[i].number != out->syscall)
            continue;
        (void)text_copy(out->syscall_name, sizeof out->syscall_name, calls[i].name);
        out->is_waiting = calls[i].waits;
    }
}

/* "7 0x... 0x..." or "running" (proc(5), /proc/PID/syscall). */
static int look_at_call(struct os_peek *out)
{
    char data[256];
    struct span text;
    uint64_t number;
    int e = read_leaf(out->pid, out->tid, "syscall", data, sizeof data, &text);
    if (e)
        return e;
    if (proc_take_number(&text, &number) == 0 && number <= INT32_MAX) {
        out->has_syscall = true;
        out->syscall = (int32_t)number;
        name_call(out);
    }
    if (read_leaf(out->pid, out->tid, "wchan", data, sizeof data, &text) == 0 &&
        !span_equal(text, span_str("0")))
        (void)text_copy_span(out->wait, sizeof out->wait, text);
    return 0;
}

struct listeners {
    uint64_t inodes[LISTENERS_MAX];
    uint16_t ports[LISTENERS_MAX];
    size_t count;
};

static void each_listener(void *context, uint16_t port, uint64_t inode)
{
    struct listeners *l = context;
    if (l->count == LISTENERS_MAX)
        return;
    l->inodes[l->count] = inode;
    l->ports[l->count++] = port;
}

static void add_port(struct os_peek *out, uint16_t port)
{
    for (uint32_t i = 0; i < out->port_count; i++)
        if (out->ports[i] == port)
            return;
    if (out->port_count < OS_PEEK_PORTS)
        out->ports[out->port_count++] = port;
}

static void match_file(struct os_peek *out, const struct listeners *l, uint32_t file)
{
    char leaf[32], target[64];
    uint64_t inode;
    (void)text_format(leaf, sizeof leaf, "fd/%u", file);
    if (proc_link_pid("", out->pid, leaf, target, sizeof target, NULL) ||
        proc_parse_inode(span_str(target), "socket", &inode))
        return;
    for (size_t i = 0; i < l->count; i++)
        if (l->inodes[i] == inode)
            add_port(out, l->ports[i]);
}

static void find_ports(struct os_peek *out)
{
    char path[PROC_PATH_SIZE];
    struct listeners l = {.count = 0};
    uint32_t *files = NULL;
    size_t count = 0;
    if (watch_listeners(out->pid, 0, each_listener, &l) || l.count == 0)
        return;
    proc_path(path, "", out->pid, "fd");
    int e = proc_numbers(path, &files, &count, FILES_MAX, NULL);
    for (size_t i = 0; (!e || e == ERR_LIMIT) && i < count; i++)
        match_file(out, &l, files[i]);
    free(files);
}

void os_peek(uint32_t pid, uint32_t tid, bool with_ports, struct os_peek *out)
{
    struct proc_stat stat;
    *out = (struct os_peek){.pid = pid, .tid = tid ? tid : pid};
    out->error = read_state(pid, out->tid, &stat);
    if (out->error)
        return;
    out->state = stat.state;
    out->error = look_at_call(out);
    if (proc_link_pid("", pid, "exe", out->executable, sizeof out->executable, NULL))
        out->executable[0] = '\0';
    if (with_ports)
        find_ports(out);
}
