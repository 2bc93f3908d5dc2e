/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal as it grows, by systemd's own program, with fixed arguments. Invariant: it ends with
 * whoever started it, or when its output is read no more.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/linux/logs_linux.h"
#include "agent/os/log_follow.h"
#include "common/text.h"

/* Of every entry, and of those of the init system (systemd.journal-fields(7)). */
#define FIELDS                                          \
    "--output-fields=MESSAGE,_PID,_COMM,_SYSTEMD_UNIT," \
    "MESSAGE_ID,UNIT,USER_UNIT,UNIT_RESULT,EXIT_CODE,EXIT_STATUS,N_RESTARTS"

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

int os_journal_start(const char *root, const char *cursor, int *fd, int *pid, struct failure *f)
{
    char program[PROC_PATH_SIZE], after[OS_JOURNAL_CURSOR_SIZE + 32];
    int output;
    if (!is_cursor(cursor) || text_format(after, sizeof after, "--after-cursor=%s", cursor) ||
        text_format(program, sizeof program, "%s%s", root, LOGS_JOURNALCTL))
        return fail(f, ERR_INVALID, "'%s' is no place in the journal", cursor);
    const char *const list[] = {"journalctl",
                                "--quiet",
                                "--no-pager",
                                "--follow",
                                "--output=export",
                                FIELDS,
                                cursor[0] ? after : "--lines=0",
                                cursor[0] ? "--no-tail" : NULL,
                                NULL};
    int e = logs_start_journal(program, list, pid, &output, f);
    if (e)
        return e;
    (void)fcntl(output, F_SETFL, O_NONBLOCK);
    *fd = output;
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
