/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log files that a process has open. The worker may be more privileged than the process, so it must
 * not be made to read for it: a file is taken only if it is the very one (inode) that the kernel
 * says this process has open for writing, and a rotated one is looked for inside the process's root
 * without following links and must belong to the same owner. Called by logs.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/os/linux/logs_linux.h"
#include "common/text.h"

#define FDS_MAX 20000
#define WINDOW_FIRST (256u * 1024)
#define WINDOW_LIMIT (8u * 1024 * 1024)
#define DELETED " (deleted)"

struct search {
    const char *root;
    const struct os_process *process;
    int64_t from_us;
    struct logs_file *files;
    size_t count;
    char *missing;
    size_t missing_size_bytes;
};

/* ---- which files ---- */

static bool contains(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

static bool is_log(uint32_t fd, const char *target)
{
    struct span path = span_str(target);
    if (target[0] != '/' || proc_starts_with(path, "/dev/") || proc_starts_with(path, "/memfd:") ||
        proc_starts_with(path, "/proc/") || proc_starts_with(path, "/sys/"))
        return false;
    if (proc_ends_with(path, DELETED))
        path.size_bytes -= strlen(DELETED);
    return fd == 1 || fd == 2 || proc_ends_with(path, ".log") || proc_ends_with(path, ".err") ||
           proc_ends_with(path, ".out") || contains(target, "/log/") || contains(target, "/logs/");
}

/* proc(5), /proc/PID/fdinfo: flags (octal), and from Linux 5.14 the inode they are of. */
static int read_flags(const struct search *s, uint32_t fd, uint64_t *flags, uint64_t *inode)
{
    char leaf[32], data[1024];
    struct span text, value;
    (void)text_format(leaf, sizeof leaf, "fdinfo/%u", fd);
    if (proc_read_pid(s->root, s->process->pid, leaf, data, sizeof data, &text, NULL) < 0 ||
        proc_find_key(text, "flags:", &value) < 0)
        return ERR_NOTFOUND;
    *flags = 0;
    for (size_t i = 0; i < value.size_bytes; i++) {
        if (value.data[i] < '0' || value.data[i] > '7' || *flags >> 60)
            return ERR_CORRUPT;
        *flags = *flags << 3 | (uint64_t)(value.data[i] - '0');
    }
    if (proc_find_key(text, "ino:", &value) < 0 || proc_take_number(&value, inode) < 0)
        *inode = 0;
    return 0;
}

static bool is_writable(uint64_t flags)
{
    uint64_t mode = flags & O_ACCMODE;
    return !(flags & O_PATH) && (mode == O_WRONLY || mode == O_RDWR);
}

/* Kernels that do not tell the inode: only a file of the process's own user. */
static bool is_the_same(const struct search *s, const struct stat *st, uint64_t inode)
{
    return inode != 0 ? st->st_ino == inode : st->st_uid == s->process->uid;
}

static bool is_known(const struct search *s, const struct stat *st)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->files[i].device == st->st_dev && s->files[i].inode == st->st_ino)
            return true;
    return false;
}

static void add_file(struct search *s, int fd, const struct stat *st, const char *path)
{
    struct logs_file *file = &s->files[s->count++];
    *file = (struct logs_file){.fd = fd, .device = st->st_dev, .inode = st->st_ino};
    (void)text_copy(file->path, sizeof file->path, path);
}

/* ---- the one that was rotated away ---- */

static int open_inside(const struct search *s, const char *path)
{
    char root[PROC_PATH_SIZE];
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY,
                           .resolve =
                               RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    proc_path(root, s->root, s->process->pid, "root");
    int directory = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -1;
    long fd = syscall(SYS_openat2, directory, path, &how, sizeof how);
    close(directory);
    return (int)fd;
}

static void add_rotated(struct search *s, const struct stat *current, const char *path)
{
    char rotated[PROC_PATH_SIZE];
    struct stat st;
    if (s->count == LOGS_FILES_MAX || text_format(rotated, sizeof rotated, "%s.1", path) < 0)
        return;
    int fd = open_inside(s, rotated);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == current->st_uid &&
        (int64_t)st.st_mtime >= s->from_us / 1000000 && !is_known(s, &st))
        add_file(s, fd, &st, rotated);
    else
        close(fd);
}

/* ---- opening ---- */

/* Returns the file opened for reading, or -1. */
static int open_log(struct search *s, uint32_t fd, const char *target, struct stat *st)
{
    char leaf[32], path[PROC_PATH_SIZE];
    uint64_t flags, inode;
    struct failure f;
    (void)text_format(leaf, sizeof leaf, "fd/%u", fd);
    proc_path(path, s->root, s->process->pid, leaf);
    if (stat(path, st) < 0 || !S_ISREG(st->st_mode) || read_flags(s, fd, &flags, &inode) < 0 ||
        !is_writable(flags))
        return -1;
    int opened = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (opened < 0) {
        (void)fail_errno(&f, ERR_IO, errno, "cannot read it");
        logs_miss(s->missing, s->missing_size_bytes, target, f.text);
        return -1;
    }
    if (fstat(opened, st) == 0 && S_ISREG(st->st_mode) && is_the_same(s, st, inode) &&
        !is_known(s, st))
        return opened;
    close(opened);
    return -1;
}

static void look_at(struct search *s, uint32_t fd)
{
    char leaf[32], target[PROC_PATH_SIZE];
    struct stat st;
    (void)text_format(leaf, sizeof leaf, "fd/%u", fd);
    if (proc_link_pid(s->root, s->process->pid, leaf, target, sizeof target, NULL) < 0 ||
        !is_log(fd, target))
        return;
    int opened = open_log(s, fd, target, &st);
    if (opened < 0)
        return;
    if (!proc_ends_with(span_str(target), DELETED))
        add_rotated(s, &st, target); /* before the present one: it is older */
    if (s->count < LOGS_FILES_MAX) {
        add_file(s, opened, &st, target);
        return;
    }
    close(opened);
}

size_t logs_open_files(const char *root, const struct os_process *process, int64_t from_us,
                       struct logs_file *files, char *missing, size_t size_bytes)
{
    struct search s = {.root = root,
                       .process = process,
                       .from_us = from_us,
                       .files = files,
                       .missing = missing,
                       .missing_size_bytes = size_bytes};
    char path[PROC_PATH_SIZE];
    uint32_t *fds = NULL;
    size_t count = 0, i = 0;
    struct failure f;
    proc_path(path, root, process->pid, "fd");
    if (proc_numbers(path, &fds, &count, FDS_MAX, &f) < 0)
        logs_miss(missing, size_bytes, "log files", f.text);
    for (; i < count && s.count < LOGS_FILES_MAX; i++)
        look_at(&s, fds[i]);
    if (i < count)
        logs_miss(missing, size_bytes, "log files", "only the first 8");
    free(fds);
    return s.count;
}

/* ---- reading ---- */

static int read_at(int fd, uint8_t *data, size_t size_bytes, uint64_t offset, size_t *got)
{
    size_t size = 0;
    while (size < size_bytes) {
        ssize_t n = pread(fd, data + size, size_bytes - size, (off_t)(offset + size));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            break;
        size += (size_t)n;
    }
    *got = size;
    return 0;
}

/* Whether the first line with a time is of before the window, so that no older ones are needed. */
static bool reaches_back(struct span text, const struct logs_window *window)
{
    struct span line;
    int64_t time_us;
    while (proc_take_line(&text, &line) == 0)
        if (logs_time(line, window->to_us, &time_us) == 0)
            return time_us < window->from_us;
    return false;
}

/* The end of the file, as much of it as is needed, beginning with a whole line. */
static int read_back(const struct logs_file *file, const struct logs_window *window, uint8_t *data,
                     struct span *out, bool *whole)
{
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return errno;
    uint64_t size = st.st_size > 0 ? (uint64_t)st.st_size : 0;
    for (uint64_t wanted = WINDOW_FIRST;; wanted *= 2) {
        uint64_t length = wanted < size ? wanted : size;
        size_t got = 0;
        int error = read_at(file->fd, data, (size_t)length, size - length, &got);
        if (error)
            return error;
        *out = span_of(data, got);
        *whole = length == size;
        if (*whole)
            return 0;
        const uint8_t *end = got > 0 ? memchr(data, '\n', got) : NULL;
        size_t skipped = end ? (size_t)(end - data) + 1 : got;
        *out = span_of(data + skipped, got - skipped);
        if (wanted >= WINDOW_LIMIT || reaches_back(*out, window))
            return 0;
    }
}

/* Without times nobody can tell what is of the window. */
static void take_last(struct logs_window *window, struct span text)
{
    if (text.size_bytes > WINDOW_FIRST) {
        size_t skipped = text.size_bytes - WINDOW_FIRST;
        const uint8_t *end = memchr(text.data + skipped, '\n', WINDOW_FIRST);
        if (end)
            skipped = (size_t)(end - text.data) + 1;
        text = span_of(text.data + skipped, text.size_bytes - skipped);
    }
    window->take_all = true;
    logs_window_text(window, text);
}

int logs_read_file(const struct logs_file *file, struct logs_window *window, char *missing,
                   size_t size_bytes, struct failure *f)
{
    struct span text = {0};
    bool whole = false;
    uint8_t *data = malloc(WINDOW_LIMIT);
    if (!data)
        return fail(f, ERR_NOMEM, "out of memory reading '%s'", file->path);
    int error = read_back(file, window, data, &text, &whole);
    if (error) {
        free(data);
        return fail_errno(f, ERR_IO, error, "cannot read '%s'", file->path);
    }
    logs_window_text(window, text);
    if (window->timed == 0 && text.size_bytes > 0) {
        take_last(window, text);
        logs_miss(missing, size_bytes, file->path, "no times in it, its last 256 KiB are given");
    } else if (!whole && !reaches_back(text, window)) {
        logs_miss(missing, size_bytes, file->path, "only its last 8 MiB were read");
    }
    free(data);
    return 0;
}
