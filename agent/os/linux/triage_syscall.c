/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls in words: the ones that threads wait in, with the argument that tells on what.
 * Invariant: an unknown number is shown as a number. Called by triage_thread.c.
 */
#include <sys/syscall.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define TARGET_SIZE 160

enum argument { NOTHING, FILE_NUMBER, FUTEX, POLL, CHILD };

struct call {
    uint64_t number;
    const char *name;
    enum argument argument;
};

static const struct call calls[] = {
    {SYS_read, "read", FILE_NUMBER},
    {SYS_write, "write", FILE_NUMBER},
    {SYS_readv, "readv", FILE_NUMBER},
    {SYS_writev, "writev", FILE_NUMBER},
    {SYS_pread64, "pread64", FILE_NUMBER},
    {SYS_pwrite64, "pwrite64", FILE_NUMBER},
    {SYS_recvfrom, "recvfrom", FILE_NUMBER},
    {SYS_recvmsg, "recvmsg", FILE_NUMBER},
    {SYS_recvmmsg, "recvmmsg", FILE_NUMBER},
    {SYS_sendto, "sendto", FILE_NUMBER},
    {SYS_sendmsg, "sendmsg", FILE_NUMBER},
    {SYS_sendfile, "sendfile", FILE_NUMBER},
    {SYS_splice, "splice", FILE_NUMBER},
    {SYS_accept, "accept", FILE_NUMBER},
    {SYS_accept4, "accept4", FILE_NUMBER},
    {SYS_connect, "connect", FILE_NUMBER},
    {SYS_close, "close", FILE_NUMBER},
    {SYS_fsync, "fsync", FILE_NUMBER},
    {SYS_fdatasync, "fdatasync", FILE_NUMBER},
    {SYS_flock, "flock", FILE_NUMBER},
    {SYS_fcntl, "fcntl", FILE_NUMBER},
    {SYS_ioctl, "ioctl", FILE_NUMBER},
    {SYS_ftruncate, "ftruncate", FILE_NUMBER},
    {SYS_fallocate, "fallocate", FILE_NUMBER},
    {SYS_getdents64, "getdents64", FILE_NUMBER},
    {SYS_io_uring_enter, "io_uring_enter", FILE_NUMBER},
    {SYS_epoll_pwait, "epoll_pwait", FILE_NUMBER},
#ifdef SYS_epoll_pwait2
    {SYS_epoll_pwait2, "epoll_pwait2", FILE_NUMBER},
#endif
/* Older calls that newer architectures do not have. */
#ifdef SYS_epoll_wait
    {SYS_epoll_wait, "epoll_wait", FILE_NUMBER},
#endif
#ifdef SYS_poll
    {SYS_poll, "poll", POLL},
#endif
#ifdef SYS_select
    {SYS_select, "select", NOTHING},
#endif
#ifdef SYS_pause
    {SYS_pause, "pause", NOTHING},
#endif
#ifdef SYS_open
    {SYS_open, "open", NOTHING},
#endif
#ifdef SYS_vfork
    {SYS_vfork, "vfork", NOTHING},
#endif
    {SYS_ppoll, "ppoll", POLL},
    {SYS_pselect6, "pselect6", NOTHING},
    {SYS_futex, "futex", FUTEX},
    {SYS_nanosleep, "nanosleep", NOTHING},
    {SYS_clock_nanosleep, "clock_nanosleep", NOTHING},
    {SYS_wait4, "wait4", CHILD},
    {SYS_waitid, "waitid", NOTHING},
    {SYS_rt_sigtimedwait, "rt_sigtimedwait", NOTHING},
    {SYS_rt_sigsuspend, "rt_sigsuspend", NOTHING},
    {SYS_restart_syscall, "restart_syscall", NOTHING},
    {SYS_semtimedop, "semtimedop", NOTHING},
    {SYS_semop, "semop", NOTHING},
    {SYS_msgrcv, "msgrcv", NOTHING},
    {SYS_msgsnd, "msgsnd", NOTHING},
    {SYS_io_getevents, "io_getevents", NOTHING},
    {SYS_openat, "openat", NOTHING},
    {SYS_sync, "sync", NOTHING},
    {SYS_msync, "msync", NOTHING},
    {SYS_mmap, "mmap", NOTHING},
    {SYS_munmap, "munmap", NOTHING},
    {SYS_mprotect, "mprotect", NOTHING},
    {SYS_madvise, "madvise", NOTHING},
    {SYS_brk, "brk", NOTHING},
    {SYS_clone, "clone", NOTHING},
    {SYS_execve, "execve", NOTHING},
    {SYS_exit_group, "exit_group", NOTHING},
    {SYS_sched_yield, "sched_yield", NOTHING},
    {SYS_mq_timedreceive, "mq_timedreceive", FILE_NUMBER},
};

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
                                        "wait and requeue"};
    uint64_t operation = value & 0x7f;
    return operation < sizeof names / sizeof names[0] ? names[operation] : "?";
}

struct described {
    bool (*target_of)(void *context, uint64_t fd, char *out, size_t size_bytes);
    void *context;
    uint64_t arguments[3];
};

static int describe_file(const struct call *call, const struct described *d, char *out,
                         size_t size_bytes)
{
    char target[TARGET_SIZE];
    uint64_t fd = d->arguments[0] & UINT32_MAX;
    if (!d->target_of(d->context, fd, target, sizeof target))
        return text_format(out, size_bytes, "%s(%llu)", call->name, (unsigned long long)fd);
    return text_format(out, size_bytes, "%s(%llu -> %s)", call->name, (unsigned long long)fd,
                       target);
}

static int describe(const struct call *call, const struct described *d, char *out,
                    size_t size_bytes)
{
    unsigned long long first = d->arguments[0], second = d->arguments[1];
    switch (call->argument) {
    case FILE_NUMBER:
        return describe_file(call, d, out, size_bytes);
    case FUTEX:
        return text_format(out, size_bytes, "futex(0x%llx, %s)", first,
                           futex_operation(d->arguments[1]));
    case POLL:
        return text_format(out, size_bytes, "%s(%llu files)", call->name, second);
    case CHILD:
        return text_format(out, size_bytes, "%s(pid %d)", call->name, (int)(int32_t)first);
    case NOTHING:
        break;
    }
    return text_format(out, size_bytes, "%s()", call->name);
}

static int take_argument(struct span *text, uint64_t *out)
{
    struct span field;
    if (proc_take_field(text, &field) < 0 || !proc_starts_with(field, "0x"))
        return ERR_CORRUPT;
    field = span_of(field.data + 2, field.size_bytes - 2);
    return text_take_hex(&field, out) < 0 || field.size_bytes > 0 ? ERR_CORRUPT : 0;
}

/* proc(5): "NUMBER 0xARG1 ... 0xARG6 0xSP 0xPC", "-1 0xSP 0xPC" or "running". */
int triage_describe_syscall(struct span text,
                            bool (*target_of)(void *context, uint64_t fd, char *out,
                                              size_t size_bytes),
                            void *context, char *out, size_t size_bytes)
{
    struct described d = {.target_of = target_of, .context = context};
    uint64_t number;
    if (proc_starts_with(text, "running"))
        return text_copy(out, size_bytes, "running");
    if (proc_starts_with(text, "-1"))
        return text_copy(out, size_bytes, "in no system call");
    if (proc_take_number(&text, &number) < 0)
        return ERR_CORRUPT;
    for (size_t i = 0; i < 3; i++)
        if (take_argument(&text, &d.arguments[i]) < 0)
            return ERR_CORRUPT;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (calls[i].number == number)
            return describe(&calls[i], &d, out, size_bytes);
    return text_format(out, size_bytes, "system call %llu", (unsigned long long)number);
}
