/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port.h on POSIX systems. Invariant: no descriptor is inherited by a started program, and what
 * fails leaves neither an open descriptor nor a temporary file. Called by all three programs.
 */
#include "common/port.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/text.h"

#define READ_BYTES 16384

#ifdef CLOCK_BOOTTIME
#define MONOTONIC CLOCK_BOOTTIME
#else
#define MONOTONIC CLOCK_MONOTONIC
#endif

/* ---- time and random ---- */

static struct timespec now(clockid_t clock)
{
    struct timespec ts;
    int r = clock_gettime(clock, &ts);
    assert(r == 0);
    return ts;
}

uint64_t port_mono_us(void)
{
    struct timespec ts = now(MONOTONIC);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int64_t port_wall_us(void)
{
    struct timespec ts = now(CLOCK_REALTIME);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void port_random(void *out, size_t size_bytes)
{
    uint8_t *at = out;
    while (size_bytes > 0) {
        ssize_t n = getrandom(at, size_bytes, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            abort();
        at += n;
        size_bytes -= (size_t)n;
    }
}

/* ---- files in general ---- */

static int open_again(const char *path, int flags, mode_t mode)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int fail_path(struct failure *f, const char *action, const char *path)
{
    int e = errno ? errno : EIO;
    return fail_errno(f, err_from_errno(e), e, "cannot %s '%s'", action, path);
}

/* flock(2): the lock belongs to the open file and ends with its last descriptor. */
static int lock(int fd, const char *path, struct failure *f)
{
    int r;
    do
        r = flock(fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return fail(f, ERR_BUSY, "cannot lock '%s': another process holds it", path);
    return fail_path(f, "lock", path);
}

/* ---- mapped files ---- */

/* Blocks for the whole length. A file system that cannot promise them only gets the length. */
static int allocate(int fd, size_t size_bytes)
{
    int e;
    do
        e = posix_fallocate(fd, 0, (off_t)size_bytes);
    while (e == EINTR);
    if (e == EOPNOTSUPP || e == EINVAL)
        e = ftruncate(fd, (off_t)size_bytes) < 0 ? errno : 0;
    return e;
}

/* Gives the file its size; what had another size is emptied first, so that it reads as zeros. */
static int give_size(int fd, const char *path, size_t size_bytes, bool *fresh, struct failure *f)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return fail_path(f, "examine", path);
    if (!S_ISREG(st.st_mode))
        return fail(f, ERR_INVALID, "cannot map '%s': not a regular file", path);
    bool is_fresh = st.st_size < 0 || (uint64_t)st.st_size != size_bytes;
    if (is_fresh && ftruncate(fd, 0) < 0)
        return fail_path(f, "empty", path);
    int e = allocate(fd, size_bytes);
    if (e != 0) {
        /* A half-made file would hold the last blocks of a full disk. */
        if (is_fresh && ftruncate(fd, 0) < 0)
            return fail_path(f, "empty", path);
        return fail_errno(f, err_from_errno(e), e, "cannot allocate %zu bytes for '%s'", size_bytes,
                          path);
    }
    *fresh = is_fresh;
    return 0;
}

static int map_fd(int fd, const char *path, size_t size_bytes, uint8_t **data, bool *fresh,
                  struct failure *f)
{
    bool is_fresh = false;
    int r = lock(fd, path, f);
    if (r == 0)
        r = give_size(fd, path, size_bytes, &is_fresh, f);
    if (r < 0)
        return r;
    void *at = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return fail_path(f, "map", path);
    *data = at;
    *fresh = is_fresh;
    return 0;
}

int port_map_open(struct port_map *map, const char *path, size_t size_bytes, bool *fresh,
                  struct failure *f)
{
    assert(size_bytes > 0 && size_bytes <= SSIZE_MAX);
    int fd = open_again(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail_path(f, "open", path);
    uint8_t *data = NULL;
    int r = map_fd(fd, path, size_bytes, &data, fresh, f);
    if (r < 0) {
        close(fd);
        return r;
    }
    *map = (struct port_map){.data = data, .size_bytes = size_bytes, .handle = fd};
    return 0;
}

void port_map_close(struct port_map *map)
{
    if (!map->data)
        return;
    munmap(map->data, map->size_bytes);
    close((int)map->handle);
    *map = (struct port_map){0};
}

/* ---- reading ---- */

static ssize_t read_again(int fd, void *out, size_t size_bytes)
{
    ssize_t n;
    do
        n = read(fd, out, size_bytes);
    while (n < 0 && errno == EINTR);
    return n;
}

/* Appends what one read gives. 1: more may follow, 0: the end. At the limit only the end is fine.
 */
static int read_piece(int fd, const char *path, struct buf *b, struct failure *f)
{
    uint8_t beyond, *room = &beyond;
    size_t left = b->limit_bytes - b->size_bytes;
    size_t wanted = left < READ_BYTES ? left : READ_BYTES;
    if (wanted > 0 && buf_reserve(b, wanted, &room) < 0)
        return fail(f, ERR_NOMEM, "cannot read '%s': out of memory", path);
    ssize_t n = read_again(fd, room, wanted > 0 ? wanted : 1);
    if (n < 0)
        return fail_path(f, "read", path);
    if (n > 0 && wanted == 0)
        return fail(f, ERR_LIMIT, "cannot read '%s': larger than %zu bytes", path, b->limit_bytes);
    buf_commit(b, (size_t)n);
    return n > 0;
}

int port_read_file(const char *path, struct buf *b, struct failure *f)
{
    int fd = open_again(path, O_RDONLY, 0);
    if (fd < 0)
        return fail_path(f, "open", path);
    size_t start = b->size_bytes;
    int r;
    do
        r = read_piece(fd, path, b, f);
    while (r > 0);
    if (r < 0)
        b->size_bytes = start;
    close(fd);
    return r;
}

/* ---- writing ---- */

static int write_all(int fd, struct span data)
{
    while (data.size_bytes > 0) {
        ssize_t n = write(fd, data.data, data.size_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data = span_of(data.data + n, data.size_bytes - (size_t)n);
    }
    return 0;
}

static int fail_too_long(struct failure *f, const char *path)
{
    return fail(f, ERR_LIMIT, "path too long: '%s'", path);
}

/* A name nobody guesses, in the same directory, so that rename(2) stays inside one file system. */
static int temporary_path(const char *path, char *out, size_t size_bytes, struct failure *f)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    port_random(random, sizeof random);
    text_put_hex(random, sizeof random, hex);
    if (text_format(out, size_bytes, "%s.%s.tmp", path, hex) < 0)
        return fail_too_long(f, path);
    return 0;
}

/* Makes the file with everything in it and on the disk, or not at all. */
static int write_new(const char *path, struct span data, mode_t mode, struct failure *f)
{
    int fd = open_again(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail_path(f, "create", path);
    int r = 0;
    if (write_all(fd, data) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0)
        r = fail_path(f, "write", path);
    if (close(fd) < 0 && r == 0)
        r = fail_path(f, "write", path);
    if (r < 0)
        unlink(path);
    return r;
}

static int directory_of(const char *path, char *out, size_t size_bytes, struct failure *f)
{
    const char *slash = strrchr(path, '/');
    struct span directory = span_of(path, slash ? (size_t)(slash - path) : 0);
    if (!slash)
        directory = span_str(".");
    else if (slash == path)
        directory = span_str("/");
    return text_copy_span(out, size_bytes, directory) < 0 ? fail_too_long(f, path) : 0;
}

/* A new name is on the disk only when its directory is; some file systems cannot (EINVAL). */
static int sync_directory(const char *path, struct failure *f)
{
    char directory[PATH_MAX];
    int r = directory_of(path, directory, sizeof directory, f);
    if (r < 0)
        return r;
    int fd = open_again(directory, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fail_path(f, "open directory", directory);
    if (fsync(fd) < 0 && errno != EINVAL)
        r = fail_path(f, "sync directory", directory);
    close(fd);
    return r;
}

int port_write_file(const char *path, struct span data, bool private_mode, struct failure *f)
{
    char temporary[PATH_MAX];
    int r = temporary_path(path, temporary, sizeof temporary, f);
    if (r == 0)
        r = write_new(temporary, data, private_mode ? 0600 : 0644, f);
    if (r < 0)
        return r;
    if (rename(temporary, path) < 0) {
        r = fail_path(f, "replace", path);
        unlink(temporary);
        return r;
    }
    return sync_directory(path, f);
}

/* ---- directories, existence, rights ---- */

static bool is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* What a parent answers does not matter while the whole path ends as a directory. */
int port_make_dirs(const char *path, struct failure *f)
{
    char part[PATH_MAX];
    if (text_copy(part, sizeof part, path) < 0)
        return fail_too_long(f, path);
    int reason = 0;
    for (char *slash = part[0] ? strchr(part + 1, '/') : NULL; slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0700) < 0 && errno != EEXIST && reason == 0)
            reason = errno;
        *slash = '/';
    }
    if (mkdir(part, 0700) == 0 || is_directory(path))
        return 0;
    if (reason == 0)
        reason = errno == EEXIST ? ENOTDIR : errno;
    return fail_errno(f, err_from_errno(reason), reason, "cannot create directory '%s'", path);
}

bool port_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

int port_check_private(const char *path, struct failure *f)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return fail_path(f, "examine", path);
    if (st.st_mode & 077)
        return fail(f, ERR_UNSAFE_KEY, "key file '%s' is open to others (mode %04o): chmod 600 it",
                    path, (unsigned)(st.st_mode & 07777));
    return 0;
}

int port_lock_file(const char *path, struct failure *f)
{
    int fd = open_again(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail_path(f, "open", path);
    int r = lock(fd, path, f);
    if (r < 0)
        close(fd);
    return r; /* on success the descriptor stays open on purpose: it is the lock */
}

/* ---- the machine ---- */

void port_close(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

int port_host_name(char *out, size_t size_bytes)
{
    char name[256];
    if (gethostname(name, sizeof name) < 0)
        return err_from_errno(errno);
    name[sizeof name - 1] = '\0';
    name[strcspn(name, ".")] = '\0';
    for (char *c = name; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c + ('a' - 'A'));
    return text_copy(out, size_bytes, name);
}
