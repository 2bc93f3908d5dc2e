/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls in words, with the arguments that tell on what a thread works or waits. Invariant:
 * an unknown number is shown as a number; what lies in the process's memory is read only through
 * the given eyes and is bounded. Called by triage_thread.c.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define TARGET_SIZE 120
#define PATH_SHOWN 96
#define POLLED_SHOWN 4
#define PAGE_BYTES 4096
#define FUTEX_COMMANDS 0x7f

/*
 * One letter for each argument: f file, F directory file (or AT_FDCWD), n bytes, d number, x bits,
 * p path, t time to wait, T moment or time not shown, m milliseconds, a address of a socket (its
 * length follows), l polled files (their number follows), c futex operation, k flock operation,
 * K fcntl command, s signal, w process, i kind of id, - not shown. A capital G first: the file is
 * given to, not taken from.
 */
struct call {
    long number;
    const char *name;
    const char *arguments;
    enum triage_call_kind kind;
};

static const struct call calls[] = {
    {SYS_read, "read", "f-n", 0},
    {SYS_write, "write", "Gf-n", 0},
    {SYS_readv, "readv", "f-d", 0},
    {SYS_writev, "writev", "Gf-d", 0},
    {SYS_pread64, "pread64", "f-nd", 0},
    {SYS_pwrite64, "pwrite64", "Gf-nd", 0},
    {SYS_preadv, "preadv", "f-d", 0},
    {SYS_pwritev, "pwritev", "Gf-d", 0},
    {SYS_recvfrom, "recvfrom", "f-nx", 0},
    {SYS_recvmsg, "recvmsg", "f-x", 0},
    {SYS_recvmmsg, "recvmmsg", "f-dxt", 0},
    {SYS_sendto, "sendto", "Gf-nx", 0},
    {SYS_sendmsg, "sendmsg", "Gf-x", 0},
    {SYS_sendmmsg, "sendmmsg", "Gf-dx", 0},
    {SYS_sendfile, "sendfile", "Gff-n", 0},
    {SYS_splice, "splice", "f-f-n", 0},
    {SYS_tee, "tee", "ffn", 0},
    {SYS_accept, "accept", "f", 0},
    {SYS_accept4, "accept4", "f--x", 0},
    {SYS_connect, "connect", "Gfa", 0},
    {SYS_shutdown, "shutdown", "fd", 0},
    {SYS_close, "close", "f", 0},
    {SYS_fsync, "fsync", "f", 0},
    {SYS_fdatasync, "fdatasync", "f", 0},
    {SYS_sync_file_range, "sync_file_range", "f", 0},
    {SYS_syncfs, "syncfs", "f", 0},
    {SYS_flock, "flock", "fk", CALL_IS_LOCK},
    {SYS_fcntl, "fcntl", "fK", CALL_IS_LOCK},
    {SYS_ioctl, "ioctl", "fx", 0},
    {SYS_ftruncate, "ftruncate", "fn", 0},
    {SYS_fallocate, "fallocate", "fxdn", 0},
    {SYS_getdents64, "getdents64", "f", 0},
    {SYS_lseek, "lseek", "fd", 0},
    {SYS_fstat, "fstat", "f", 0},
    {SYS_io_uring_enter, "io_uring_enter", "fddx", 0},
    {SYS_epoll_pwait, "epoll_pwait", "f-dm", 0},
#ifdef SYS_epoll_pwait2
    {SYS_epoll_pwait2, "epoll_pwait2", "f-dt", 0},
#endif
#ifdef SYS_copy_file_range
    {SYS_copy_file_range, "copy_file_range", "f-f-n", 0},
#endif
/* Older calls that newer architectures do not have. */
#ifdef SYS_epoll_wait
    {SYS_epoll_wait, "epoll_wait", "f-dm", 0},
#endif
#ifdef SYS_poll
    {SYS_poll, "poll", "l-m", 0},
#endif
#ifdef SYS_select
    {SYS_select, "select", "d", 0},
#endif
#ifdef SYS_pause
    {SYS_pause, "pause", "", 0},
#endif
#ifdef SYS_open
    {SYS_open, "open", "px", 0},
#endif
#ifdef SYS_stat
    {SYS_stat, "stat", "p", 0},
    {SYS_lstat, "lstat", "p", 0},
    {SYS_rename, "rename", "pp", 0},
    {SYS_unlink, "unlink", "p", 0},
    {SYS_mkdir, "mkdir", "p", 0},
    {SYS_access, "access", "p", 0},
#endif
#ifdef SYS_vfork
    {SYS_vfork, "vfork", "", CALL_IS_VFORK},
    {SYS_fork, "fork", "", 0},
#endif
    {SYS_ppoll, "ppoll", "l-t", 0},
    {SYS_pselect6, "pselect6", "d---t", 0},
    {SYS_futex, "futex", "xc", CALL_IS_FUTEX},
    {SYS_nanosleep, "nanosleep", "t", 0},
    {SYS_clock_nanosleep, "clock_nanosleep", "dxT", 0},
    {SYS_wait4, "wait4", "w", CALL_IS_WAIT},
    {SYS_waitid, "waitid", "iw", CALL_IS_WAIT},
    {SYS_rt_sigtimedwait, "rt_sigtimedwait", "--t", 0},
    {SYS_rt_sigsuspend, "rt_sigsuspend", "", 0},
    {SYS_restart_syscall, "restart_syscall", "", 0},
    {SYS_semop, "semop", "d-d", 0},
    {SYS_semtimedop, "semtimedop", "d-dt", 0},
    {SYS_msgrcv, "msgrcv", "d-nd", 0},
    {SYS_msgsnd, "msgsnd", "d-n", 0},
    {SYS_io_getevents, "io_getevents", "-dd-t", 0},
    {SYS_openat, "openat", "Fpx", 0},
    {SYS_newfstatat, "newfstatat", "Fp", 0},
    {SYS_unlinkat, "unlinkat", "Fp", 0},
    {SYS_mount, "mount", "pp", 0},
    {SYS_umount2, "umount2", "p", 0},
    {SYS_statfs, "statfs", "p", 0},
    {SYS_truncate, "truncate", "pn", 0},
    {SYS_chdir, "chdir", "p", 0},
    {SYS_execve, "execve", "p", 0},
    {SYS_execveat, "execveat", "Fp", 0},
    {SYS_kill, "kill", "ws", 0},
    {SYS_tgkill, "tgkill", "wds", 0},
    {SYS_ptrace, "ptrace", "xw", 0},
    {SYS_sync, "sync", "", 0},
    {SYS_msync, "msync", "xnx", 0},
    {SYS_mmap, "mmap", "xnxxf", 0},
    {SYS_munmap, "munmap", "xn", 0},
    {SYS_mremap, "mremap", "xnn", 0},
    {SYS_mprotect, "mprotect", "xnx", 0},
    {SYS_madvise, "madvise", "xnd", 0},
    {SYS_mlockall, "mlockall", "x", 0},
    {SYS_brk, "brk", "x", 0},
    {SYS_clone, "clone", "x", CALL_IS_VFORK},
    {SYS_clone3, "clone3", "", CALL_IS_VFORK},
    {SYS_exit, "exit", "d", 0},
    {SYS_exit_group, "exit_group", "d", 0},
    {SYS_sched_yield, "sched_yield", "", 0},
    {SYS_membarrier, "membarrier", "x", 0},
    {SYS_getrandom, "getrandom", "-n", 0},
    {SYS_process_vm_readv, "process_vm_readv", "w", 0},
    {SYS_mq_timedreceive, "mq_timedreceive", "f-n", 0},
    {SYS_mq_timedsend, "mq_timedsend", "Gf-n", 0},
    {SYS_finit_module, "finit_module", "f", 0},
};

static const struct call *find(const struct triage_call *call)
{
    if (call->how != CALL_MADE || call->narrow)
        return NULL;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (calls[i].number >= 0 && (uint64_t)calls[i].number == call->number)
            return &calls[i];
    return NULL;
}

/* ---- parsing ---- */

static int take_argument(struct span *text, uint64_t *out)
{
    struct span field;
    if (proc_take_field(text, &field) < 0 || !proc_starts_with(field, "0x"))
        return ERR_CORRUPT;
    field = span_of(field.data + 2, field.size_bytes - 2);
    return text_take_hex(&field, out) < 0 || field.size_bytes > 0 ? ERR_CORRUPT : 0;
}

/* "NUMBER 0xARG1 ... 0xARG6 0xSP 0xPC", "-1 0xSP 0xPC" or "running". */
int triage_parse_call(struct span text, struct triage_call *out)
{
    struct triage_call call = {.how = CALL_MADE};
    if (proc_starts_with(text, "running")) {
        *out = (struct triage_call){.how = CALL_RUNNING};
        return 0;
    }
    if (proc_starts_with(text, "-1")) {
        *out = (struct triage_call){.how = CALL_NONE};
        return 0;
    }
    if (proc_take_number(&text, &call.number) < 0)
        return ERR_CORRUPT;
    for (size_t i = 0; i < 6; i++)
        if (take_argument(&text, &call.arguments[i]) < 0)
            return ERR_CORRUPT;
    *out = call;
    return 0;
}

/* ---- arguments ---- */

struct writing {
    const struct triage_eyes *eyes;
    char *out;
    size_t size_bytes;
    bool any;
};

static void comma(struct writing *w)
{
    if (w->any)
        triage_add(w->out, w->size_bytes, ", ");
    w->any = true;
}

static bool memory(const struct writing *w, uint64_t address, void *out, size_t size_bytes)
{
    return address != 0 && w->eyes->read_memory &&
           w->eyes->read_memory(w->eyes->context, address, out, size_bytes) == 0;
}

static void put_file(struct writing *w, uint64_t argument)
{
    char target[TARGET_SIZE];
    uint64_t fd = argument & UINT32_MAX;
    if ((int32_t)fd < 0)
        triage_add(w->out, w->size_bytes, "%d", (int)(int32_t)fd);
    else if (w->eyes->target_of && w->eyes->target_of(w->eyes->context, fd, target, sizeof target))
        triage_add(w->out, w->size_bytes, "%llu -> %s", (unsigned long long)fd, target);
    else
        triage_add(w->out, w->size_bytes, "%llu", (unsigned long long)fd);
}

/* A path may end before a page that is not there: read to the end of its page, then the rest. */
static void put_path(struct writing *w, uint64_t address)
{
    char path[PATH_SHOWN + 1] = "";
    size_t room = PATH_SHOWN, first = (size_t)(PAGE_BYTES - address % PAGE_BYTES);
    if (first > room)
        first = room;
    if (!memory(w, address, path, first)) {
        triage_add(w->out, w->size_bytes, "0x%llx", (unsigned long long)address);
        return;
    }
    if (first < room && !memchr(path, '\0', first) &&
        !memory(w, address + first, path + first, room - first))
        path[first] = '\0';
    triage_add(w->out, w->size_bytes, "\"%s\"%s", path, strlen(path) == PATH_SHOWN ? "..." : "");
}

static void put_time(struct writing *w, uint64_t address)
{
    struct timespec time;
    char text[32];
    if (address == 0) {
        triage_add(w->out, w->size_bytes, "no time limit");
    } else if (memory(w, address, &time, sizeof time) && time.tv_sec >= 0 &&
               time.tv_sec < INT32_MAX && time.tv_nsec >= 0 && time.tv_nsec < 1000000000) {
        text_put_duration((int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000, text, sizeof text);
        triage_add(w->out, w->size_bytes, "%s", text);
    } else {
        triage_add(w->out, w->size_bytes, "a time limit");
    }
}

static void put_milliseconds(struct writing *w, uint64_t argument)
{
    int32_t ms = (int32_t)(uint32_t)argument;
    if (ms < 0)
        triage_add(w->out, w->size_bytes, "no time limit");
    else
        triage_add(w->out, w->size_bytes, "%d ms", (int)ms);
}

static void put_address(struct writing *w, uint64_t address, uint64_t length)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un local;
    } a;
    char text[INET6_ADDRSTRLEN] = "?";
    size_t size = length < sizeof a ? (size_t)length : sizeof a;
    memset(&a, 0, sizeof a);
    if (size < sizeof a.any.sa_family || !memory(w, address, &a, size)) {
        triage_add(w->out, w->size_bytes, "0x%llx", (unsigned long long)address);
    } else if (a.any.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &a.in.sin_addr, text, sizeof text);
        triage_add(w->out, w->size_bytes, "%s:%u", text, (unsigned)ntohs(a.in.sin_port));
    } else if (a.any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &a.in6.sin6_addr, text, sizeof text);
        triage_add(w->out, w->size_bytes, "[%s]:%u", text, (unsigned)ntohs(a.in6.sin6_port));
    } else if (a.any.sa_family == AF_UNIX) {
        bool abstract = a.local.sun_path[0] == '\0';
        triage_add(w->out, w->size_bytes, "%s%.*s", abstract ? "@" : "",
                   (int)(sizeof a.local.sun_path - 1), a.local.sun_path + abstract);
    } else {
        triage_add(w->out, w->size_bytes, "family %u", (unsigned)a.any.sa_family);
    }
}

static void put_polled(struct writing *w, uint64_t address, uint64_t count)
{
    struct pollfd polled[POLLED_SHOWN];
    size_t shown = count < POLLED_SHOWN ? (size_t)count : POLLED_SHOWN;
    triage_add(w->out, w->size_bytes, "%llu files", (unsigned long long)count);
    if (shown == 0 || !memory(w, address, polled, shown * sizeof polled[0]))
        return;
    for (size_t i = 0; i < shown; i++) {
        triage_add(w->out, w->size_bytes, "%s", i ? " and " : ": ");
        put_file(w, (uint64_t)(uint32_t)polled[i].fd);
    }
    if (count > shown)
        triage_add(w->out, w->size_bytes, "...");
}

/* futex(2): the operation without its flags. */
static const char *futex_operation(uint64_t value)
{
    static const char *const names[] = {"wait",
                                        "wake",
                                        "fd",
                                        "requeue",
                                        "compare and requeue",
                                        "wake and operate",
                                        "lock with inheritance",
                                        "unlock with inheritance",
                                        "try lock with inheritance",
                                        "wait",
                                        "wake",
                                        "wait and requeue",
                                        "compare and requeue with inheritance",
                                        "lock with inheritance"};
    uint64_t operation = value & FUTEX_COMMANDS;
    return operation < sizeof names / sizeof names[0] ? names[operation] : "?";
}

static const char *flock_operation(uint64_t value)
{
    switch (value & ~(uint64_t)LOCK_NB) {
    case LOCK_SH:
        return "read lock";
    case LOCK_EX:
        return "write lock";
    case LOCK_UN:
        return "unlock";
    default:
        return "?";
    }
}

static const char *fcntl_command(uint64_t value)
{
    switch (value) {
    case F_SETLKW:
    case F_OFD_SETLKW:
        return "lock, waiting";
    case F_SETLK:
    case F_OFD_SETLK:
        return "lock";
    case F_GETLK:
        return "look at a lock";
    case F_GETFL:
    case F_SETFL:
        return "flags";
    default:
        return "?";
    }
}

static const char *id_kind(uint64_t value)
{
    switch (value) {
    case P_ALL:
        return "any child";
    case P_PID:
        return "child";
    case P_PGID:
        return "group";
    default:
        return "pidfd";
    }
}

static void put_argument(struct writing *w, char letter, uint64_t value)
{
    switch (letter) {
    case 'F':
        if ((int32_t)(uint32_t)value == AT_FDCWD) {
            triage_add(w->out, w->size_bytes, "here");
            break;
        }
        put_file(w, value);
        break;
    case 'f':
        put_file(w, value);
        break;
    case 'n':
        triage_add(w->out, w->size_bytes, "%llu B", (unsigned long long)value);
        break;
    case 'd':
        triage_add(w->out, w->size_bytes, "%lld", (long long)value);
        break;
    case 'p':
        put_path(w, value);
        break;
    case 't':
        put_time(w, value);
        break;
    case 'm':
        put_milliseconds(w, value);
        break;
    case 'c':
        triage_add(w->out, w->size_bytes, "%s", futex_operation(value));
        break;
    case 'k':
        triage_add(w->out, w->size_bytes, "%s", flock_operation(value));
        break;
    case 'K':
        triage_add(w->out, w->size_bytes, "%s", fcntl_command(value));
        break;
    case 'i':
        triage_add(w->out, w->size_bytes, "%s", id_kind(value));
        break;
    case 's':
        triage_add(w->out, w->size_bytes, "signal %u", (unsigned)(value & 127));
        break;
    case 'w':
        triage_add(w->out, w->size_bytes, "pid %d", (int)(int32_t)(uint32_t)value);
        break;
    default:
        triage_add(w->out, w->size_bytes, "0x%llx", (unsigned long long)value);
    }
}

static void put_arguments(struct writing *w, const char *letters, const uint64_t *arguments)
{
    if (*letters == 'G')
        letters++;
    for (size_t i = 0; i < 6 && letters[i]; i++) {
        uint64_t next = i + 1 < 6 ? arguments[i + 1] : 0;
        if (letters[i] == '-' || letters[i] == 'T')
            continue;
        comma(w);
        if (letters[i] == 'a')
            put_address(w, arguments[i], next);
        else if (letters[i] == 'l')
            put_polled(w, arguments[i], next);
        else
            put_argument(w, letters[i], arguments[i]);
    }
}

/* ---- the whole ---- */

int triage_describe_call(const struct triage_call *call, const struct triage_eyes *eyes, char *out,
                         size_t size_bytes)
{
    const struct call *found = find(call);
    struct writing w = {eyes, out, size_bytes, false};
    switch (call->how) {
    case CALL_UNKNOWN:
        return text_copy(out, size_bytes, "");
    case CALL_RUNNING:
        return text_copy(out, size_bytes, "running");
    case CALL_NONE:
        return text_copy(out, size_bytes, "in no system call");
    case CALL_MADE:
        break;
    }
    if (!found)
        return text_format(out, size_bytes, "system call %llu%s", (unsigned long long)call->number,
                           call->narrow ? " of a 32-bit program" : "");
    (void)text_format(out, size_bytes, "%s(", found->name);
    put_arguments(&w, found->arguments, call->arguments);
    triage_add(out, size_bytes, ")");
    return 0;
}

enum triage_call_kind triage_call_kind(const struct triage_call *call)
{
    const struct call *found = find(call);
    return found ? found->kind : CALL_IS_OTHER;
}

int64_t triage_call_file(const struct triage_call *call, const struct triage_eyes *eyes,
                         bool *writes)
{
    const struct call *found = find(call);
    struct pollfd polled;
    struct writing w = {.eyes = eyes};
    if (!found)
        return -1;
    const char *letters = found->arguments;
    *writes = letters[0] == 'G';
    letters += *writes;
    if (letters[0] == 'f')
        return (int64_t)(call->arguments[0] & INT32_MAX);
    if (letters[0] != 'l' || call->arguments[1] != 1 ||
        !memory(&w, call->arguments[0], &polled, sizeof polled) || polled.fd < 0)
        return -1;
    *writes = polled.events & POLLOUT && !(polled.events & POLLIN);
    return polled.fd;
}
