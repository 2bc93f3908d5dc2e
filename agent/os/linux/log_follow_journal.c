/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal as it grows, by systemd's own program: a fixed path, fixed arguments, an environment
 * of our own. Invariant: it ends with whoever started it, or when its output is read no more.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/linux/logs_linux.h"
#include "agent/os/log_follow.h"
#include "common/text.h"

#define PROGRAM "/usr/bin/journalctl"

bool os_journal_exists(const char *root)
{
    return logs_has_journal(root);
}

/* sd_journal_get_cursor(3): "s=...;i=...;b=...;m=...;t=...;x=...", all of it hexadecimal. */
static bool is_cursor(const char *text)
{
    for (; *text; text++)
        if (!((*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'z') || *text == '=' ||
              *text == ';'))
            return false;
    return true;
}

/* Only calls that are safe between fork(2) and execve(2). */
static _Noreturn void be_child(const char *program, const char *const *list, int output)
{
    static const char *const environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8",
                                              "SYSTEMD_COLORS=0", NULL};
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(null, 2) < 0)
        _exit(127);
#ifdef SYS_close_range
    (void)syscall(SYS_close_range, 3, ~0u, 0);
#endif
    /* execve(2) takes pointers to what it does not change.
     * NOLINTNEXTLINE(performance-no-int-to-ptr) */
    execve(program, (char *const *)(uintptr_t)list, (char *const *)(uintptr_t)environment);
    _exit(127);
}

int os_journal_start(const char *root, const char *cursor, int *fd, int *pid, struct failure *f)
{
    char program[PROC_PATH_SIZE], after[OS_JOURNAL_CURSOR_SIZE + 32];
    int ends[2];
    if (!is_cursor(cursor) || text_format(after, sizeof after, "--after-cursor=%s", cursor) ||
        text_format(program, sizeof program, "%s%s", root, PROGRAM))
        return fail(f, ERR_INVALID, "'%s' is no place in the journal", cursor);
    const char *const list[] = {"journalctl",
                                "--quiet",
                                "--no-pager",
                                "--follow",
                                "--output=export",
                                "--output-fields=MESSAGE,_PID,_COMM,_SYSTEMD_UNIT,_TRANSPORT",
                                cursor[0] ? after : "--lines=0",
                                cursor[0] ? "--no-tail" : NULL,
                                NULL};
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make a pipe");
    pid_t child = fork();
    if (child == 0)
        be_child(program, list, ends[1]);
    int error = errno;
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return fail_errno(f, err_from_errno(error), error, "cannot start '%s'", program);
    }
    (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
    *pid = child;
    *fd = ends[0];
    return 0;
}

void os_journal_stop(int pid)
{
    if (pid <= 0)
        return;
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

int os_journal_read(int fd, void *data, size_t size_bytes, size_t *got)
{
    ssize_t n;
    do
        n = read(fd, data, size_bytes);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? ERR_AGAIN : ERR_IO;
    *got = (size_t)n;
    return n > 0 ? 0 : ERR_CLOSED;
}
