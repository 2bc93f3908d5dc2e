/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes may be held, decided by reading alone. Invariant: nothing here touches the
 * process; a refusal says why. Called by stop.c.
 */
#include "agent/os/linux/stop.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

/* The number behind `key` in the text of a status file; 0 when there is none. */
static uint64_t status_number(struct span text, const char *key)
{
    struct span value;
    uint64_t number = 0;
    if (proc_find_key(text, key, &value) == 0)
        text_take_u64(&value, &number);
    return number;
}

int stop_thread_status(pid_t pid, pid_t tid, pid_t *tracer, char *state)
{
    char leaf[64], data[PROC_TEXT_SIZE];
    struct span text, value;
    snprintf(leaf, sizeof leaf, "task/%d/status", tid);
    int rc = proc_read_pid("", (uint32_t)pid, leaf, data, sizeof data, &text, NULL);
    if (rc)
        return rc;
    *tracer = (pid_t)status_number(text, "TracerPid:");
    *state = '?';
    if (proc_find_key(text, "State:", &value) == 0 && value.size_bytes > 0)
        *state = (char)value.data[0];
    return 0;
}

static int check_identity(const struct os_process *process, struct failure *f)
{
    struct os_process now;
    int rc = os_process_get("", process->pid, &now, f);
    if (rc)
        return rc;
    if (now.start_ticks != process->start_ticks)
        return fail(f, ERR_GONE, "process ended, pid %u is another one now ('%s')", process->pid,
                    now.name);
    return 0;
}

static int check_ours(const struct os_process *process, struct failure *f)
{
    pid_t pid = (pid_t)process->pid;
    if (pid <= 1)
        return fail(f, ERR_REFUSED, "pid 1 is never stopped");
    if (pid == getpid() || pid == getppid())
        return fail(f, ERR_REFUSED, "pid %u is ourselves", process->pid);
    return 0;
}

static int check_kind(const struct os_process *process, struct failure *f)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat;
    int rc = proc_read_pid("", process->pid, "stat", data, sizeof data, &text, f);
    if (rc)
        return rc;
    rc = proc_parse_stat(text, &stat);
    if (rc)
        return fail(f, rc, "cannot read the state of pid %u", process->pid);
    if (proc_is_kernel_thread(&stat))
        return fail(f, ERR_REFUSED, "pid %u is a kernel thread", process->pid);
    return 0;
}

/* Says also who it is that traces. */
static int check_untraced(const struct os_process *process, struct failure *f)
{
    pid_t tracer = 0;
    char state;
    int rc = stop_thread_status((pid_t)process->pid, (pid_t)process->pid, &tracer, &state);
    if (rc)
        return fail(f, rc, "cannot read the state of pid %u", process->pid);
    if (state == 'X')
        return fail(f, ERR_GONE, "process ended");
    if (tracer == 0)
        return 0;
    char name[OS_PROCESS_NAME_SIZE] = "?";
    struct os_process other;
    if (os_process_get("", (uint32_t)tracer, &other, NULL) == 0)
        text_copy(name, sizeof name, other.name);
    return fail(f, ERR_REFUSED, "process is already traced by pid %d ('%s')", tracer, name);
}

/* The first bytes of the executable say for which machine it was made (elf(5)). */
static int check_machine(const struct os_process *process, struct failure *f)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/exe", process->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        return fail(f, ERR_DENIED, "process of user %u: needs root or CAP_SYS_PTRACE",
                    process->uid);
    if (fd < 0)
        return errno == ENOENT || errno == ESRCH /* it is ending: it has no program any more */
                   ? fail(f, ERR_GONE, "process ended")
                   : fail_errno(f, err_from_errno(errno), errno, "cannot open '%s'", path);
    Elf64_Ehdr head;
    ssize_t got = read(fd, &head, sizeof head);
    close(fd);
    if (got != (ssize_t)sizeof head || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
        return fail(f, ERR_UNSUPPORTED, "executable of pid %u is no ELF file", process->pid);
    if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_machine != EM_X86_64)
        return fail(f, ERR_UNSUPPORTED, "pid %u is not a 64-bit x86-64 process", process->pid);
    return 0;
}

int stop_check_target(const struct os_process *process, struct failure *f)
{
    int rc = check_identity(process, f);
    if (rc == 0)
        rc = check_kind(process, f);
    return rc ? rc : check_machine(process, f);
}

int stop_check(const struct os_process *process, struct failure *f)
{
    int rc = check_identity(process, f);
    if (rc == 0)
        rc = check_ours(process, f);
    if (rc == 0)
        rc = check_kind(process, f);
    if (rc == 0)
        rc = check_untraced(process, f);
    return rc ? rc : check_machine(process, f);
}
