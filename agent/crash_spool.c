/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the crash spool. Invariant: nothing outside the directory is ever opened, whatever lies
 * in it: the handler begins as root, and the directory is not root's. Called by crash_handler,
 * crashes and crash_command.
 */
#include "agent/crash_spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/crash_table.h"
#include "common/port.h"
#include "common/text.h"

#define ID_DIGITS 32
#define ENTRIES_MAX 65536 /* looked at in one pass */

/* ---- open ---- */

int crash_spool_open(struct crash_spool *spool, const char *path, struct failure *f)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot open '%s'", path);
    if (fstat(fd, &st) != 0) {
        int e = errno;
        close(fd);
        return fail_errno(f, err_from_errno(e), e, "cannot examine '%s'", path);
    }
    *spool = (struct crash_spool){
        .fd = fd, .table = -1, .uid = st.st_uid, .gid = st.st_gid, .size_bytes = CRASH_SPOOL_BYTES};
    text_copy(spool->path, sizeof spool->path, path);
    return 0;
}

int crash_spool_make(struct crash_spool *spool, const char *path, struct failure *f)
{
    int rc = port_make_dirs(path, f);
    if (rc == 0)
        rc = crash_spool_open(spool, path, f);
    if (rc)
        return rc;
    rc = crash_table_make(spool->fd, f);
    if (rc)
        crash_spool_close(spool);
    return rc;
}

void crash_spool_close(struct crash_spool *spool)
{
    if (spool->fd >= 0)
        close(spool->fd);
    spool->fd = -1;
}

/* ---- names ---- */

void crash_spool_name(const uint8_t id[16], const char *ending, char out[CRASH_NAME_SIZE])
{
    text_put_hex(id, 16, out);
    (void)text_format(out + ID_DIGITS, CRASH_NAME_SIZE - ID_DIGITS, ".%s", ending);
}

bool crash_spool_id(const char *name, uint8_t id[16])
{
    char digits[ID_DIGITS + 1];
    return strlen(name) > ID_DIGITS && name[ID_DIGITS] == '.' &&
           !text_copy_span(digits, sizeof digits, span_of(name, ID_DIGITS)) &&
           !text_parse_hex(digits, id, 16);
}

bool crash_spool_has(const struct crash_spool *spool, const uint8_t id[16], const char *ending)
{
    char name[CRASH_NAME_SIZE];
    struct stat st;
    crash_spool_name(id, ending, name);
    return fstatat(spool->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

void crash_spool_remove(const struct crash_spool *spool, const uint8_t id[16], const char *ending)
{
    char name[CRASH_NAME_SIZE];
    crash_spool_name(id, ending, name);
    (void)unlinkat(spool->fd, name, 0);
}

static bool ends_with(const char *name, const char *ending)
{
    size_t length = strlen(name), tail = strlen(ending);
    return length >= tail && strcmp(name + length - tail, ending) == 0;
}

int crash_spool_each(const struct crash_spool *spool, const char *ending,
                     int (*each)(void *context, const char *name), void *context)
{
    int fd = openat(spool->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return ERR_IO;
    }
    struct dirent *entry;
    for (int i = 0; rc == 0 && i < ENTRIES_MAX && (entry = readdir(dir)) != NULL; i++) {
        char name[CRASH_NAME_SIZE];
        if (ends_with(entry->d_name, ending) && !text_copy(name, sizeof name, entry->d_name))
            rc = each(context, name);
    }
    closedir(dir);
    return rc;
}

/* ---- files ---- */

static int write_all(int fd, struct span data)
{
    while (data.size_bytes > 0) {
        ssize_t n = write(fd, data.data, data.size_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return errno ? errno : EIO;
        data = span_of(data.data + n, data.size_bytes - (size_t)n);
    }
    return 0;
}

int crash_spool_put(const struct crash_spool *spool, const char *name, struct span data,
                    struct failure *f)
{
    char temporary[CRASH_NAME_SIZE + 8];
    (void)text_format(temporary, sizeof temporary, "%s.tmp", name);
    int fd = openat(spool->fd, temporary,
                    O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    int e = fd < 0 ? errno : write_all(fd, data);
    if (fd >= 0 && close(fd) != 0 && e == 0)
        e = errno;
    if (e == 0 && renameat(spool->fd, temporary, spool->fd, name) != 0)
        e = errno;
    if (e == 0)
        return 0;
    (void)unlinkat(spool->fd, temporary, 0);
    return fail_errno(f, err_from_errno(e), e, "cannot write '%s/%s'", spool->path, name);
}

int crash_spool_get(const struct crash_spool *spool, const char *name, struct buf *out)
{
    int fd = openat(spool->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    int rc = 0;
    if (fd < 0)
        return errno == ENOENT ? ERR_NOTFOUND : err_from_errno(errno);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        rc = ERR_INVALID;
    while (rc == 0) {
        uint8_t *room;
        ssize_t n = 0;
        rc = buf_reserve(out, 1, &room);
        if (rc == 0)
            n = read(fd, room, out->capacity_bytes - out->size_bytes);
        if (n < 0 && errno != EINTR)
            rc = ERR_IO;
        if (n == 0)
            break;
        if (n > 0)
            buf_commit(out, (size_t)n);
    }
    /* A file that ends exactly at the limit asks for one byte too much. */
    if (rc == ERR_LIMIT && (off_t)out->size_bytes == st.st_size)
        rc = 0;
    close(fd);
    return rc;
}

/* ---- markers ---- */

static int fill_marker(const struct crash_spool *spool, int fd, struct span who)
{
    if (geteuid() == 0 && fchown(fd, spool->uid, spool->gid) != 0)
        return errno;
    (void)flock(fd, LOCK_EX | LOCK_NB);
    /* On a full disk it is empty: its name says that there was one. */
    (void)write_all(fd, who);
    return 0;
}

int crash_spool_begin(const struct crash_spool *spool, const uint8_t id[16], struct span who,
                      int *out, struct failure *f)
{
    char name[CRASH_NAME_SIZE], begun[CRASH_NAME_SIZE];
    crash_spool_name(id, "begun", name);
    crash_spool_name(id, "begun" CRASH_BEGUN, begun);
    int fd = openat(spool->fd, begun,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make '%s/%s'", spool->path,
                          name);
    int e = fill_marker(spool, fd, who);
    /* Not by a new name for it: another handler's marker would be gone. */
    if (e == 0 && linkat(spool->fd, begun, spool->fd, name, 0) != 0)
        e = errno;
    (void)unlinkat(spool->fd, begun, 0);
    if (e) {
        close(fd);
        return fail_errno(f, err_from_errno(e), e, "cannot make '%s/%s'", spool->path, name);
    }
    *out = fd;
    return 0;
}

bool crash_spool_is_orphan(const struct crash_spool *spool, const char *name, uint64_t age_us)
{
    struct stat st;
    int fd = openat(spool->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool is_old = fstat(fd, &st) == 0 &&
                  port_wall_us() - (int64_t)st.st_mtim.tv_sec * 1000000 >= (int64_t)age_us;
    bool is_free = is_old && flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return is_free;
}

/* ---- evidence ---- */

static const struct {
    const char *tail, *ending;
    bool packed;
} endings[] = {
    {".txt", "txt", false}, {".json", "json", false},    {".folded", "folded", false},
    {".log", "log", false}, {".core.zst", "core", true}, {".full.zst", "full", true},
};

static bool as_evidence(const char *name, struct crash_spool_file *out)
{
    uint8_t id[16];
    if (!crash_spool_id(name, id))
        return false;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        if (strcmp(name + ID_DIGITS, endings[i].tail) != 0)
            continue;
        memset(out, 0, sizeof *out);
        text_copy(out->name, sizeof out->name, name);
        text_copy(out->ending, sizeof out->ending, endings[i].ending);
        out->packed = endings[i].packed;
        return true;
    }
    return false;
}

bool crash_spool_is_evidence(const char *name)
{
    struct crash_spool_file file;
    return as_evidence(name, &file);
}

void crash_spool_drop_begun(const struct crash_spool *spool, const uint8_t id[16])
{
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char ending[32];
        (void)text_format(ending, sizeof ending, "%s" CRASH_BEGUN, endings[i].tail + 1);
        crash_spool_remove(spool, id, ending);
    }
}

void crash_spool_drop(const struct crash_spool *spool, const uint8_t id[16])
{
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        crash_spool_remove(spool, id, endings[i].tail + 1);
    crash_spool_drop_begun(spool, id);
}

int crashes_find(const char *directory, const uint8_t id[16], struct crash_spool_file *out,
                 size_t max, size_t *count)
{
    struct crash_spool spool;
    int rc = crash_spool_open(&spool, directory, NULL);
    *count = 0;
    for (size_t i = 0; rc == 0 && i < sizeof endings / sizeof endings[0] && *count < max; i++) {
        struct stat st;
        char name[CRASH_NAME_SIZE];
        crash_spool_name(id, endings[i].tail + 1, name);
        if (fstatat(spool.fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            as_evidence(name, &out[*count]))
            out[(*count)++].size_bytes = (uint64_t)st.st_size;
    }
    if (rc == 0)
        crash_spool_close(&spool);
    return rc ? rc : *count ? 0 : ERR_NOTFOUND;
}
