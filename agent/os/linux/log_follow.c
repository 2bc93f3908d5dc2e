/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and reading log files. Invariant: what is opened is a regular file with one name, reached
 * without a symbolic link: who may write the directory of a log cannot turn it into another file.
 * See os/log_follow.h.
 */
#include "agent/os/log_follow.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/os/linux/logs_linux.h"
#include "common/text.h"

/* ---- which ---- */

static void add_glob(const char *pattern, struct os_log_list *out)
{
    glob_t found = {0};
    if (pattern[0] != '/' || glob(pattern, 0, NULL, &found) != 0) {
        globfree(&found);
        return;
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        if (out->count == OS_LOG_LIST_MAX) {
            out->cut = true;
            break;
        }
        if (text_copy(out->paths[out->count], OS_LOG_PATH_SIZE, found.gl_pathv[i]) == 0)
            out->count++;
    }
    globfree(&found);
}

void os_log_expand(const char *globs, struct os_log_list *out)
{
    struct span list = span_str(globs), one;
    char pattern[OS_LOG_PATH_SIZE];
    out->count = 0;
    out->cut = false;
    while (text_take_until(&list, ',', &one) == 0)
        if (text_copy_span(pattern, sizeof pattern, one) == 0)
            add_glob(pattern, out);
}

/* ---- opening ---- */

int os_log_look(int fd, struct os_log *out)
{
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st) < 0)
        return ERR_IO;
    out->device = (uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor;
    out->inode = st.stx_ino;
    out->size_bytes = st.stx_size;
    out->born_us =
        st.stx_mask & STATX_BTIME ? st.stx_btime.tv_sec * 1000000 + st.stx_btime.tv_nsec / 1000 : 0;
    return 0;
}

static bool is_known(const struct os_log *known, const struct os_log *log)
{
    return known && known->inode && known->device == log->device && known->inode == log->inode;
}

/* Takes fd. */
static int hand_over(int opened, const struct os_log *known, int *fd, struct os_log *out)
{
    if (os_log_look(opened, out)) {
        close(opened);
        return ERR_IO;
    }
    *fd = opened;
    if (is_known(known, out)) {
        close(opened);
        *fd = -1;
    }
    return 0;
}

static int check(int fd, const char *path, struct failure *f)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return fail_errno(f, ERR_IO, errno, "cannot look at '%s'", path);
    if (!S_ISREG(st.st_mode))
        return fail(f, ERR_UNSUPPORTED, "'%s' is not followed: it is not a regular file", path);
    if (st.st_nlink > 1)
        return fail(f, ERR_UNSUPPORTED,
                    "'%s' is not followed: it has %llu names, and may be another's file", path,
                    (unsigned long long)st.st_nlink);
    return 0;
}

int os_log_open(const char *path, const struct os_log *known, int *fd, struct os_log *out,
                struct failure *f)
{
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW,
                           .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    int opened = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    if (opened < 0 && errno == ELOOP)
        return fail(f, ERR_UNSUPPORTED,
                    "'%s' is not followed: a symbolic link leads to it; name the file itself",
                    path);
    if (opened < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot open '%s'", path);
    int e = check(opened, path, f);
    if (e) {
        close(opened);
        return e;
    }
    e = hand_over(opened, known, fd, out);
    (void)text_copy(out->path, sizeof out->path, path);
    return e ? fail(f, e, "cannot look at '%s'", path) : 0;
}

int os_log_open_of(const char *root, const struct os_process *process, uint32_t index,
                   const struct os_log *known, int *fd, struct os_log *out, struct failure *f)
{
    struct logs_file files[LOGS_FILES_MAX];
    char missing[512] = "";
    size_t count = logs_open_files(root, process, INT64_MAX, files, missing, sizeof missing);
    int e = ERR_NOTFOUND;
    for (size_t i = 0; i < count; i++) {
        if (i != index) {
            close(files[i].fd);
            continue;
        }
        (void)text_copy(out->path, sizeof out->path, files[i].path);
        e = hand_over(files[i].fd, known, fd, out);
    }
    if (e == ERR_NOTFOUND)
        return fail(f, e, "process %u has no %s log file open%s%s", process->pid,
                    index ? "further" : "", missing[0] ? "; " : "", missing);
    return e ? fail(f, e, "cannot look at a log file of process %u", process->pid) : 0;
}

/* ---- reading ---- */

int os_log_read(int fd, void *data, size_t size_bytes, uint64_t offset, size_t *got)
{
    ssize_t n;
    do
        n = pread(fd, data, size_bytes, (off_t)offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return ERR_IO;
    *got = (size_t)n;
    return 0;
}

void os_log_close(int fd)
{
    if (fd >= 0)
        close(fd);
}
