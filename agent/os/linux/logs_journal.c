/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal, read by systemd's own program: a fixed path, fixed arguments, an environment of our
 * own, output through a pipe that is bounded in time and size. Invariant: when the function
 * returns, the child has ended and is reaped; when we die, the kernel ends it. Called by logs.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/linux/logs_linux.h"
#include "common/port.h"
#include "common/text.h"

#define TIME_US UINT64_C(10000000)
#define OUTPUT_BYTES (16u * 1024 * 1024)
#define READ_BYTES (64u * 1024)
#define ARGUMENT_SIZE (PROC_UNIT_SIZE + 32)

bool logs_is_unit_name(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && !strchr(":-_.\\@", c))
            return false;
    }
    return length > 0 && length < PROC_UNIT_SIZE && name[0] != '-';
}

/* The directory may be there although nothing writes a journal. */
static bool is_filled(const char *path)
{
    bool filled = false;
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    for (struct dirent *entry; !filled && (entry = readdir(dir)) != NULL;)
        filled = entry->d_name[0] != '.';
    closedir(dir);
    return filled;
}

bool logs_has_journal(const char *root)
{
    static const char *const directories[] = {"/run/log/journal", "/var/log/journal"};
    char path[PROC_PATH_SIZE];
    bool found = false;
    for (size_t i = 0; i < 2; i++) {
        (void)text_format(path, sizeof path, "%s%s", root, directories[i]);
        found |= is_filled(path);
    }
    (void)text_format(path, sizeof path, "%s%s", root, LOGS_JOURNALCTL);
    return found && access(path, X_OK) == 0;
}

/* ---- arguments ---- */

struct arguments {
    char program[PROC_PATH_SIZE];
    char since[32], until[32];
    char unit[ARGUMENT_SIZE], about[ARGUMENT_SIZE], pid[32];
    const char *list[16];
};

/* A scope holds a whole login session or a pod: there only the process itself is asked for. */
static bool find_unit(const char *root, const struct os_process *process, char *out)
{
    char data[PROC_TEXT_SIZE];
    struct span text;
    return proc_read_pid(root, process->pid, "cgroup", data, sizeof data, &text, NULL) == 0 &&
           proc_cgroup_unit(text, out, PROC_UNIT_SIZE) == 0 && logs_is_unit_name(out) &&
           proc_ends_with(span_str(out), ".service");
}

static void make_arguments(const char *root, const struct os_process *process,
                           const struct logs_window *window, struct arguments *a)
{
    char unit[PROC_UNIT_SIZE];
    size_t n = 0;
    (void)text_format(a->program, sizeof a->program, "%s%s", root, LOGS_JOURNALCTL);
    (void)text_format(a->since, sizeof a->since, "--since=@%lld",
                      (long long)window->from_us / 1000000);
    (void)text_format(a->until, sizeof a->until, "--until=@%lld",
                      (long long)window->to_us / 1000000 + 1);
    (void)text_format(a->pid, sizeof a->pid, "_PID=%u", process->pid);
    a->list[n++] = "journalctl";
    a->list[n++] = "--no-pager";
    a->list[n++] = "--quiet";
    a->list[n++] = "--output=short-iso-precise";
    a->list[n++] = a->since;
    a->list[n++] = a->until;
    a->list[n++] = a->pid;
    if (find_unit(root, process, unit)) {
        (void)text_format(a->unit, sizeof a->unit, "_SYSTEMD_UNIT=%s", unit);
        (void)text_format(a->about, sizeof a->about, "UNIT=%s", unit);
        a->list[n++] = "+";
        a->list[n++] = a->unit;
        a->list[n++] = "+";
        a->list[n++] = a->about; /* what systemd itself says of the unit */
        a->list[n++] = "_PID=1";
    }
    a->list[n] = NULL;
}

/* ---- the child ---- */

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

int logs_start_journal(const char *program, const char *const *list, pid_t *pid, int *output,
                       struct failure *f)
{
    int ends[2];
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
    *pid = child;
    *output = ends[0];
    return 0;
}

/* ---- its output ---- */

/* Gives whole lines; what is left, or cut because it is too long, is kept for the next time. */
static size_t give_lines(struct logs_window *window, uint8_t *data, size_t size)
{
    size_t begin = 0;
    const uint8_t *end;
    while (begin < size && (end = memchr(data + begin, '\n', size - begin)) != NULL) {
        size_t length = (size_t)(end - data) - begin;
        logs_window_line(window, span_of(data + begin, length));
        begin += length + 1;
    }
    if (begin == 0 && size == READ_BYTES) {
        logs_window_line(window, span_of(data, size));
        return 0;
    }
    memmove(data, data + begin, size - begin);
    return size - begin;
}

static int wait_readable(int fd, uint64_t deadline_us)
{
    uint64_t now_us = port_mono_us();
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (now_us >= deadline_us)
        return ERR_TIMEOUT;
    int ready = poll(&p, 1, (int)((deadline_us - now_us) / 1000) + 1);
    if (ready < 0 && errno != EINTR)
        return ERR_IO;
    return ready > 0 ? 0 : ERR_AGAIN;
}

static int read_output(int fd, struct logs_window *window, struct failure *f)
{
    uint8_t *data = malloc(READ_BYTES);
    uint64_t deadline_us = port_mono_us() + TIME_US, total = 0;
    size_t held = 0;
    int result = 0;
    if (!data)
        return fail(f, ERR_NOMEM, "out of memory reading the journal");
    while (result == 0) {
        int ready = wait_readable(fd, deadline_us);
        if (ready == ERR_AGAIN)
            continue;
        if (ready < 0) {
            result = fail(f, ready, "journal: %s", err_text(ready));
            break;
        }
        ssize_t got = read(fd, data + held, READ_BYTES - held);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        held = give_lines(window, data, held + (size_t)got);
        total += (uint64_t)got;
        if (total > OUTPUT_BYTES)
            result = fail(f, ERR_LIMIT, "journal: more than 16 MiB");
    }
    if (held > 0)
        logs_window_line(window, span_of(data, held));
    free(data);
    return result;
}

int logs_read_journal(const char *root, const struct os_process *process,
                      struct logs_window *window, struct failure *f)
{
    struct arguments a = {0};
    pid_t pid = -1;
    int output = -1, status = 0;
    make_arguments(root, process, window, &a);
    int result = logs_start_journal(a.program, a.list, &pid, &output, f);
    if (result < 0)
        return result;
    result = read_output(output, window, f);
    close(output);
    if (result < 0)
        (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (result == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return fail(f, ERR_IO, "cannot start '%s'", a.program);
    return result;
}
