/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data directory: `trawl-store` (format version and fleet), `lock`, `ballast`, and the folders
 * of the two environments. Invariants: `trawl-store` is written last, so a directory without it
 * holds nothing that was acknowledged; the lock is held from before anything is looked at. The
 * ballast is disk space that is given up when the disk is full, so that deletes still work. Called
 * by store_lmdb.c and store_lmdb_write.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "collector/store_lmdb.h"
#include "common/port.h"
#include "common/text.h"

#define BALLAST_BYTES (16 * 1024 * 1024)
#define BALLAST_MARGIN (16 * 1024 * 1024)
#define FULL_BYTES (256 * 1024) /* less than this is a full disk */
#define INFO_BYTES 1024

static int fail_path(struct failure *f, const char *action, const char *path)
{
    int e = errno;
    return fail_errno(f, err_from_errno(e), e, "cannot %s '%s'", action, path);
}

int store_dir_path(char *out, const char *directory, const char *name, struct failure *f)
{
    if (text_format(out, STORE_PATH_SIZE, "%s/%s", directory, name) < 0)
        return fail(f, ERR_LIMIT, "path too long: '%s'", directory);
    return 0;
}

int store_dir_sync(const char *directory, struct failure *f)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_path(f, "open directory", directory);
    /* Some file systems cannot, and need not (EINVAL). */
    int r = fsync(fd) < 0 && errno != EINVAL ? fail_path(f, "sync directory", directory) : 0;
    close(fd);
    return r;
}

/* ---- who it belongs to ---- */

static bool take_line(struct span *s, const char *word, char *out, size_t size_bytes)
{
    struct span line;
    size_t length = strlen(word);
    return text_take_until(s, '\n', &line) == 0 && line.size_bytes > length &&
           memcmp(line.data, word, length) == 0 &&
           text_copy_span(out, size_bytes, span_of(line.data + length, line.size_bytes - length)) ==
               0;
}

static int check_info(struct span info, const char *directory, const char *fleet, struct failure *f)
{
    char version[24], owner[256];
    uint64_t number;
    if (!take_line(&info, "trawl-store ", version, sizeof version) ||
        text_u64(version, &number) < 0)
        return fail(f, ERR_CORRUPT, "'%s/trawl-store' is damaged; restore it from a backup",
                    directory);
    if (number > STORE_FORMAT_VERSION)
        return fail(f, ERR_VERSION,
                    "'%s' was written by a newer version (data format %" PRIu64
                    ", this program knows %d); run that version",
                    directory, number, STORE_FORMAT_VERSION);
    if (!take_line(&info, "fleet ", owner, sizeof owner))
        return fail(f, ERR_CORRUPT, "'%s/trawl-store' is damaged; restore it from a backup",
                    directory);
    if (strcmp(owner, fleet) != 0)
        return fail(f, ERR_FOREIGN, "'%s' belongs to fleet '%s', not '%s'; name another directory",
                    directory, owner, fleet);
    return 0;
}

static int read_info(const char *directory, const char *fleet, struct failure *f)
{
    char path[STORE_PATH_SIZE];
    int r = store_dir_path(path, directory, "trawl-store", f);
    if (r < 0)
        return r;
    if (!port_exists(path))
        return fail(f, ERR_NOTFOUND, "no data directory at '%s'", directory);
    struct buf info;
    buf_init(&info, INFO_BYTES);
    r = port_read_file(path, &info, f);
    if (r == 0)
        r = check_info(buf_span(&info), directory, fleet, f);
    buf_done(&info);
    return r;
}

static int write_info(const char *directory, const char *fleet, struct failure *f)
{
    char path[STORE_PATH_SIZE], info[INFO_BYTES];
    int r = store_dir_path(path, directory, "trawl-store", f);
    if (r < 0)
        return r;
    if (text_format(info, sizeof info, "trawl-store %d\nfleet %s\n", STORE_FORMAT_VERSION, fleet) <
        0)
        return fail(f, ERR_LIMIT, "name of the fleet too long: '%s'", fleet);
    return port_write_file(path, span_str(info), true, f);
}

/* ---- the lock ---- */

static int fail_locked(int fd, const char *directory, struct failure *f)
{
    char pid[24] = "";
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    uint64_t number;
    pid[n > 0 ? n : 0] = '\0';
    pid[strcspn(pid, "\n")] = '\0';
    if (text_u64(pid, &number) < 0)
        return fail(f, ERR_BUSY, "another collector runs on '%s'", directory);
    return fail(f, ERR_BUSY, "another collector (pid %" PRIu64 ") runs on '%s'", number, directory);
}

/* The number is for people only: what it cannot say, flock(2) still does. */
static void write_pid(int fd)
{
    char pid[24];
    text_format(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, strlen(pid), 0) < 0)
        return;
}

/* Not port_lock_file(): a store that was closed may be opened again by the same process. */
static int lock(const char *directory, int *out, struct failure *f)
{
    char path[STORE_PATH_SIZE];
    int r = store_dir_path(path, directory, "lock", f);
    if (r < 0)
        return r;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail_path(f, "open", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        r = errno == EWOULDBLOCK ? fail_locked(fd, directory, f) : fail_path(f, "lock", path);
        close(fd);
        return r;
    }
    write_pid(fd);
    *out = fd;
    return 0;
}

int store_dir_open(struct store_dir *dir, const char *directory, const char *fleet,
                   struct failure *f)
{
    dir->lock = -1;
    if (text_copy(dir->path, sizeof dir->path, directory) < 0)
        return fail(f, ERR_LIMIT, "path too long: '%s'", directory);
    /* Read twice: nothing is made in a directory that is not ours, nothing trusted before the lock.
     */
    int r = read_info(directory, fleet, f);
    if (r == 0)
        r = lock(directory, &dir->lock, f);
    if (r == 0)
        r = read_info(directory, fleet, f);
    if (r < 0)
        store_dir_close(dir);
    return r;
}

void store_dir_close(struct store_dir *dir)
{
    if (dir->lock >= 0)
        close(dir->lock);
    dir->lock = -1;
}

/* ---- the ballast ---- */

int ballast_put(const char *directory, struct failure *f)
{
    char path[STORE_PATH_SIZE];
    int r = store_dir_path(path, directory, "ballast", f);
    if (r < 0)
        return r;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail_path(f, "create", path);
    int error;
    do
        error = posix_fallocate(fd, 0, BALLAST_BYTES);
    while (error == EINTR);
    close(fd);
    if (error == 0)
        return 0;
    unlink(path);
    return fail_errno(f, err_from_errno(error), error, "cannot reserve %d MiB in '%s'",
                      BALLAST_BYTES / 1024 / 1024, path);
}

static uint64_t free_bytes(const char *directory)
{
    struct statvfs st;
    if (statvfs(directory, &st) < 0)
        return UINT64_MAX;
    return (uint64_t)st.f_bavail * st.f_frsize;
}

bool ballast_restore(const char *directory)
{
    return free_bytes(directory) >= BALLAST_BYTES + BALLAST_MARGIN &&
           ballast_put(directory, NULL) == 0;
}

void ballast_drop(const char *directory)
{
    char path[STORE_PATH_SIZE];
    if (store_dir_path(path, directory, "ballast", NULL) == 0)
        unlink(path);
}

bool disk_is_full(const char *directory)
{
    return free_bytes(directory) < FULL_BYTES;
}

/* ---- making one ---- */

static const char *const made_files[] = {"records/data.mdb",
                                         "records/lock.mdb",
                                         "pieces/data.mdb",
                                         "pieces/lock.mdb",
                                         "ballast",
                                         "trawl-store",
                                         "lock"};

/* Takes away what store_create() made; what else is there stays, and so do the folders then. */
static void unmake(const char *directory, bool made_directory)
{
    char path[STORE_PATH_SIZE];
    for (size_t i = 0; i < sizeof made_files / sizeof made_files[0]; i++) {
        if (store_dir_path(path, directory, made_files[i], NULL) == 0)
            unlink(path);
    }
    static const char *const folders[] = {"records", "pieces"};
    for (size_t i = 0; i < 2; i++) {
        if (store_dir_path(path, directory, folders[i], NULL) == 0)
            rmdir(path);
    }
    if (made_directory)
        rmdir(directory);
}

static int make_env(const char *directory, const char *what, struct failure *f)
{
    struct lmdb_env e;
    int r = lmdb_env_init(&e, what, directory, 0, f);
    if (r < 0)
        return r;
    r = port_make_dirs(e.directory, f);
    if (r == 0)
        r = lmdb_env_open(&e, true, f);
    lmdb_env_done(&e);
    return r;
}

static int make_all(const char *directory, const char *fleet, struct failure *f)
{
    int r = ballast_put(directory, f);
    if (r == 0)
        r = make_env(directory, "records", f);
    if (r == 0)
        r = make_env(directory, "pieces", f);
    if (r == 0)
        r = write_info(directory, fleet, f);
    return r;
}

/*
 * Rows without `trawl-store` are somebody's data, not the leavings of an interrupted
 * store_create(): those have no rows.
 */
static int refuse_used(const char *directory, struct failure *f)
{
    char path[STORE_PATH_SIZE];
    int r = store_dir_path(path, directory, "trawl-store", f);
    if (r < 0)
        return r;
    if (port_exists(path))
        return fail(f, ERR_EXISTS, "there is a data directory at '%s' already", directory);
    for (size_t i = 0; i < 3; i += 2) {
        struct stat st;
        r = store_dir_path(path, directory, made_files[i], f);
        if (r < 0)
            return r;
        if (stat(path, &st) == 0 && st.st_size > 2 * sysconf(_SC_PAGESIZE))
            return fail(f, ERR_EXISTS,
                        "'%s' holds data, but no 'trawl-store' beside it; move it away", path);
    }
    return 0;
}

int store_create(const char *directory, const char *fleet, struct failure *f)
{
    bool made_directory = !port_exists(directory);
    int fd = -1;
    int r = refuse_used(directory, f);
    if (r == 0)
        r = port_make_dirs(directory, f);
    if (r == 0)
        r = lock(directory, &fd, f);
    if (r < 0) {
        if (made_directory)
            rmdir(directory);
        return r;
    }
    r = refuse_used(directory, f);
    if (r == 0) {
        r = make_all(directory, fleet, f);
        if (r < 0)
            unmake(directory, made_directory);
    }
    close(fd);
    return r;
}
