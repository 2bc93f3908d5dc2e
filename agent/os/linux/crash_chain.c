/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doing for a core pattern that was there before us what the kernel would have done. Invariant: a
 * file is written with no more rights than the process itself had, and never of a process that is
 * protected from dumps; a program is started as the kernel starts it: no environment, in "/",
 * nothing open but the core (and the pidfd where it asks for one). Called by
 * agent/crash_handler.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/os/core_pattern.h"
#include "agent/os/linux/crash_linux.h"
#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define LEAST_CORE 4096u /* fs/binfmt_elf.c, min_coredump */
#define PAGE 4096u
#define GROUPS_MAX 1024
#define PIPE_BYTES (1 << 20)
#define PIECE_BYTES (1u << 18)
#define PIDFD_IN_CHILD 3

struct os_chain {
    pid_t child;
    int fd; /* of the program's input, or of the socket to who writes the file */
};

/* ---- the program ---- */

static _Noreturn void be_program(const struct os_core_name *name, int input, int pidfd,
                                 bool wants_pidfd)
{
    char *no_environment[] = {NULL};
    struct sigaction usual = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &usual, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int spare = fcntl(input, F_DUPFD, 16);
    int spare_pidfd = wants_pidfd ? fcntl(pidfd, F_DUPFD, 16) : -1;
    if (spare < 0 || dup2(spare, 0) < 0 || (wants_pidfd && dup2(spare_pidfd, PIDFD_IN_CHILD) < 0))
        _exit(127);
    syscall(SYS_close_range, wants_pidfd ? PIDFD_IN_CHILD + 1 : PIDFD_IN_CHILD, ~0u, 0);
    if (!wants_pidfd)
        close(PIDFD_IN_CHILD);
    close(1);
    close(2);
    if (chdir("/") == 0)
        execve(name->words[0], name->words, no_environment);
    _exit(127);
}

static int start_program(struct os_chain *chain, const struct os_crash *c, const char *pattern,
                         const struct os_core_name *name, struct failure *f)
{
    int ends[2], pidfd = c->arguments.pidfd;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make a pipe");
    (void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
    chain->child = fork();
    if (chain->child == 0)
        be_program(name, ends[0], pidfd, pidfd >= 0 && strstr(pattern, "%F") != NULL);
    int e = errno;
    close(ends[0]);
    chain->fd = ends[1];
    return chain->child < 0
               ? fail_errno(f, err_from_errno(e), e, "cannot start '%s'", name->words[0])
               : 0;
}

/* ---- the file ---- */

struct owner {
    uint64_t uid, gid, umask, caps;
    gid_t groups[GROUPS_MAX];
    size_t group_count;
    int root, cwd;
};

static bool take_octal(struct span s, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < s.size_bytes; i++) {
        if (s.data[i] < '0' || s.data[i] > '7')
            return i > 0;
        *out = *out * 8 + (uint64_t)(s.data[i] - '0');
    }
    return s.size_bytes > 0;
}

/* proc(5), status: the fourth of "Uid:" and "Gid:" is that of file access. */
static int read_owner(const struct os_crash *c, struct owner *o)
{
    struct span text = buf_span(&c->status), line;
    uint64_t group;
    for (int i = 0; i < 2; i++) {
        if (proc_find_key(text, i ? "Gid:" : "Uid:", &line))
            return ERR_CORRUPT;
        for (int k = 0; k < 4; k++)
            if (proc_take_number(&line, i ? &o->gid : &o->uid))
                return ERR_CORRUPT;
    }
    if (proc_find_key(text, "Umask:", &line) || !take_octal(line, &o->umask) ||
        proc_find_key(text, "CapEff:", &line) || text_take_hex(&line, &o->caps))
        return ERR_CORRUPT;
    if (proc_find_key(text, "Groups:", &line))
        return ERR_CORRUPT;
    while (o->group_count < GROUPS_MAX && proc_take_number(&line, &group) == 0)
        o->groups[o->group_count++] = (gid_t)group;
    return 0;
}

static int open_place(const struct os_crash *c, const char *leaf)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, "", c->arguments.pid, leaf);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Becomes what the process was, and cannot become more. */
static bool become(const struct owner *o)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct caps[2];
    memset(caps, 0, sizeof caps);
    caps[0].effective = caps[0].permitted = (uint32_t)o->caps;
    caps[1].effective = caps[1].permitted = (uint32_t)(o->caps >> 32);
    if (fchdir(o->root) != 0 || chroot(".") != 0 || fchdir(o->cwd) != 0 ||
        setgroups(o->group_count, o->groups) != 0 || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 ||
        setresgid((gid_t)o->gid, (gid_t)o->gid, (gid_t)o->gid) != 0 ||
        setresuid((uid_t)o->uid, (uid_t)o->uid, (uid_t)o->uid) != 0 ||
        syscall(SYS_capset, &header, caps) != 0)
        return false;
    umask((mode_t)o->umask);
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* fs/coredump.c: what was there goes; no link is followed, no other's file is written. */
static int make_file(const char *path, const struct owner *o)
{
    struct stat st;
    (void)unlink(path);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1 ||
        (uint64_t)st.st_uid != o->uid || (st.st_mode & 0677) != 0600) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* Fills a piece up to its end or the end of the input. */
static size_t fill(int fd, uint8_t *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, bytes + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    return done;
}

/* Zeros become holes, as the kernel leaves them out. */
static _Noreturn void be_writer(const char *path, const struct owner *o, int input, uint64_t limit)
{
    static uint8_t piece[PIECE_BYTES];
    uint64_t at = 0;
    /* Our copy of the kernel's pipe goes: it would keep the process. */
    if (dup2(input, 0) < 0)
        _exit(1);
    input = 0;
    int fd = become(o) ? make_file(path, o) : -1;
    if (fd < 0)
        _exit(1);
    for (size_t got = 1; got > 0 && at < limit;) {
        got = fill(input, piece, sizeof piece);
        if (got > limit - at)
            got = (size_t)(limit - at);
        for (size_t i = 0; i < got; i += PAGE) {
            size_t some = got - i < PAGE ? got - i : PAGE;
            if (!is_zero(piece + i, some) &&
                pwrite(fd, piece + i, some, (off_t)(at + i)) != (ssize_t)some)
                _exit(1);
        }
        at += got;
    }
    _exit(ftruncate(fd, (off_t)at) != 0);
}

static int start_writer(struct os_chain *chain, const struct os_crash *c, const char *path,
                        struct failure *f)
{
    struct owner *o = calloc(1, sizeof *o);
    int ends[2] = {-1, -1}, rc = 0;
    if (!o)
        return fail(f, ERR_NOMEM, "no memory to write a core");
    o->root = open_place(c, "root");
    o->cwd = open_place(c, "cwd");
    if (!c->verified || read_owner(c, o) || o->root < 0 || o->cwd < 0)
        rc = fail(f, ERR_GONE, "no core file: it is not known whose it would be");
    else if (pipe2(ends, O_CLOEXEC) != 0)
        rc = fail_errno(f, err_from_errno(errno), errno, "cannot make a pipe");
    if (rc == 0) {
        (void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
        chain->child = fork();
        if (chain->child == 0) {
            close(ends[1]);
            be_writer(path, o, ends[0], c->arguments.core_limit);
        }
        if (chain->child < 0)
            rc = fail_errno(f, err_from_errno(errno), errno, "cannot write a core file");
        close(ends[0]);
        chain->fd = ends[1];
    }
    if (o->root >= 0)
        close(o->root);
    if (o->cwd >= 0)
        close(o->cwd);
    free(o);
    return rc;
}

/* ---- the whole ---- */

static void words_of(const struct os_crash *c, struct os_core_words *words,
                     const struct utsname *host)
{
    char data[8];
    struct span text;
    *words = (struct os_core_words){
        .arguments = &c->arguments,
        .comm = c->threads && c->dump.stop.count && c->threads[0].name[0] ? c->threads[0].name
                                                                          : c->notes.name,
        .executable = c->executable,
        .host = host->nodename,
        .cpu = -1,
    };
    words->uses_pid =
        proc_read("/proc/sys/kernel/core_uses_pid", data, sizeof data, &text, NULL) == 0 &&
        text.size_bytes > 0 && text.data[0] != '0';
}

static bool is_wanted(const struct os_crash *c, const char *pattern)
{
    if (pattern[0] == '\0' || pattern[0] == '@')
        return false;
    return pattern[0] == '|' ||
           (c->arguments.core_limit >= LEAST_CORE && c->arguments.dumpable == 1);
}

int os_chain_open(struct os_chain **out, const struct os_crash *c, const char *pattern,
                  struct failure *f)
{
    struct os_core_words words;
    struct utsname host;
    *out = NULL;
    if (!is_wanted(c, pattern))
        return 0;
    struct os_core_name *name = malloc(sizeof *name);
    struct os_chain *chain = calloc(1, sizeof *chain);
    if (!name || !chain || uname(&host) != 0) {
        free(name);
        free(chain);
        return fail(f, ERR_NOMEM, "no memory for the program that was there before");
    }
    chain->fd = -1;
    words_of(c, &words, &host);
    int rc = os_core_pattern_expand(pattern, &words, name);
    if (rc)
        (void)fail(f, rc, "core pattern '%s' cannot be followed", pattern);
    else if (pattern[0] == '|')
        rc = start_program(chain, c, pattern, name, f);
    else
        rc = start_writer(chain, c, name->words[0], f);
    free(name);
    if (rc) {
        free(chain);
        return rc;
    }
    signal(SIGPIPE, SIG_IGN);
    *out = chain;
    return 0;
}

int os_chain_feed(struct os_chain *chain, struct span bytes)
{
    while (bytes.size_bytes > 0) {
        ssize_t put = write(chain->fd, bytes.data, bytes.size_bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return ERR_CLOSED;
        bytes = span_of(bytes.data + put, bytes.size_bytes - (size_t)put);
    }
    return 0;
}

int os_chain_splice(struct os_chain *chain, int core_fd)
{
    for (;;) {
        ssize_t moved = splice(core_fd, NULL, chain->fd, NULL, PIPE_BYTES, SPLICE_F_MOVE);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return errno == EPIPE ? ERR_CLOSED : ERR_IO;
        if (moved == 0)
            return 0;
    }
}

static bool kernel_waits(void)
{
    char data[16];
    struct span text;
    uint64_t limit;
    return proc_read("/proc/sys/kernel/core_pipe_limit", data, sizeof data, &text, NULL) == 0 &&
           proc_take_number(&text, &limit) == 0 && limit > 0;
}

void os_chain_close(struct os_chain *chain, int core_fd)
{
    bool later = core_fd >= 0 && kernel_waits();
    if (chain && chain->fd >= 0)
        close(chain->fd);
    if (core_fd >= 0 && !later)
        close(core_fd);
    if (chain)
        while (waitpid(chain->child, NULL, 0) < 0 && errno == EINTR)
            ;
    if (later)
        close(core_fd);
    free(chain);
}
