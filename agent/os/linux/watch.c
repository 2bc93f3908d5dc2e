/* SPDX-License-Identifier: Apache-2.0 */
/* How watched processes end, and who else is there. See agent/os/watch.h. */
#include "agent/os/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* include/uapi/linux/pidfd.h of 6.15; older headers know nothing of it. */
#define INFO_EXIT (UINT64_C(1) << 3)
struct pidfd_info_64 {
    uint64_t mask;
    uint64_t cgroup;
    uint32_t pid, tgid, ppid;
    uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
#define GET_INFO _IOWR(0xFF, 11, struct pidfd_info_64)

static int read_stat(uint32_t pid, struct proc_stat *out)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    int e = proc_read_pid("", pid, "stat", data, sizeof data, &text, NULL);
    return e ? e : proc_parse_stat(text, out);
}

int os_watch_open(uint32_t pid, uint64_t start_ticks, int *out, struct failure *f)
{
    struct proc_stat stat;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0 && errno == ESRCH)
        return fail(f, ERR_GONE, "process %u has ended", pid);
    if (fd < 0)
        return fail_errno(f, errno == EMFILE ? ERR_LIMIT : ERR_UNSUPPORTED, errno,
                          "cannot hold process %u", pid);
    if (read_stat(pid, &stat) || stat.start_ticks != start_ticks) {
        close(fd);
        return fail(f, ERR_GONE, "process %u has ended", pid);
    }
    *out = fd;
    return 0;
}

void os_watch_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

int os_watch_exit(int fd, struct os_exit *out)
{
    struct pidfd_info_64 info = {.mask = INFO_EXIT};
    if (ioctl(fd, GET_INFO, &info) < 0)
        return errno == ESRCH || errno == ENODATA ? ERR_AGAIN : ERR_UNSUPPORTED;
    if (!(info.mask & INFO_EXIT))
        return ERR_AGAIN;
    *out =
        (struct os_exit){.by_signal = WIFSIGNALED(info.exit_code),
                         .code = WIFSIGNALED(info.exit_code) ? WTERMSIG(info.exit_code)
                                                             : WEXITSTATUS(info.exit_code),
                         .dumped_core = WIFSIGNALED(info.exit_code) && WCOREDUMP(info.exit_code)};
    return 0;
}

int os_watch_who(uint32_t pid, struct os_watch_who *out)
{
    char data[PROC_TEXT_SIZE];
    struct proc_stat stat;
    struct span text;
    int e = read_stat(pid, &stat);
    if (e)
        return e;
    *out = (struct os_watch_who){.parent = stat.parent};
    if (proc_read_pid("", pid, "cgroup", data, sizeof data, &text, NULL) ||
        proc_cgroup_unit(text, out->unit, sizeof out->unit))
        out->unit[0] = '\0';
    return 0;
}

int os_watch_children(uint32_t pid, uint32_t *out, size_t most, size_t *count)
{
    char leaf[48], data[PROC_TEXT_SIZE];
    struct span text;
    uint64_t child;
    (void)text_format(leaf, sizeof leaf, "task/%u/children", pid);
    int e = proc_read_pid("", pid, leaf, data, sizeof data, &text, NULL);
    if (e)
        return e == ERR_GONE ? ERR_UNSUPPORTED : e;
    for (*count = 0; *count < most && proc_take_number(&text, &child) == 0;)
        out[(*count)++] = (uint32_t)child;
    return 0;
}

uint64_t os_watch_began_us(uint64_t start_ticks)
{
    long per_second = sysconf(_SC_CLK_TCK);
    return start_ticks * 1000000 / (uint64_t)(per_second > 0 ? per_second : 100);
}
