/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small readings that triage and net share. Called by triage*.c and net.c.
 */
#include "agent/os/linux/triage_read.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"

int proc_stat_of(const char *root, const struct os_process *process, struct proc_stat *out,
                 struct failure *f)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    int result = proc_read_pid(root, process->pid, "stat", data, sizeof data, &text, f);
    if (result == ERR_GONE)
        return fail(f, ERR_GONE, "process %u has ended", process->pid);
    if (result < 0)
        return result;
    if (proc_parse_stat(text, out) < 0)
        return fail(f, ERR_CORRUPT, "not as expected '%s/proc/%u/stat'", root, process->pid);
    if (out->start_ticks != process->start_ticks)
        return fail(f, ERR_GONE, "process %u has ended, its pid is in use again", process->pid);
    return 0;
}

bool proc_has_own_namespace(const char *root, uint32_t pid, const char *name)
{
    char leaf[32], theirs[64], ours[64], own[PROC_PATH_SIZE];
    (void)text_format(leaf, sizeof leaf, "ns/%s", name);
    (void)text_format(own, sizeof own, "%s/proc/self/ns/%s", root, name);
    return proc_link_pid(root, pid, leaf, theirs, sizeof theirs, NULL) == 0 &&
           proc_link(own, ours, sizeof ours, NULL) == 0 && strcmp(theirs, ours) != 0;
}

int proc_open_links(const char *root, uint32_t pid, int *dir, struct failure *f)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, root, pid, "fd");
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(f, errno == ENOENT ? ERR_GONE : err_from_errno(errno), errno,
                          "cannot read '%s'", path);
    *dir = fd;
    return 0;
}

bool proc_read_link(int dir, uint32_t fd, char *out, size_t size_bytes)
{
    char name[16];
    (void)text_format(name, sizeof name, "%u", fd);
    ssize_t length = readlinkat(dir, name, out, size_bytes - 1);
    if (length < 0)
        return false;
    out[length] = '\0';
    return true;
}

void proc_name_of(const char *root, uint32_t pid, char *out)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat;
    out[0] = '\0';
    if (pid != 0 && proc_read_pid(root, pid, "stat", data, sizeof data, &text, NULL) == 0 &&
        proc_parse_stat(text, &stat) == 0)
        proc_full_name(root, pid, stat.name, out);
}
