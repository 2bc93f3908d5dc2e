/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each call is made, waited for and cleaned up in one function; nothing is kept between calls. See
 * file.h. Called by transfer.c and unpack.c.
 */
#include "cli/file.h"

#include <uv.h>

#include "common/xxh64.h"

#define READ_SIZE (64 * 1024)
#define MODE 0600

int file_fail(struct failure *f, int status, const char *verb, const char *path)
{
    int code = status == UV_ENOSPC                         ? ERR_FULL
               : status == UV_EACCES || status == UV_EPERM ? ERR_DENIED
                                                           : ERR_IO;
    return fail(f, code, "cannot %s '%.200s': %s", verb, path, uv_strerror(status));
}

static int open_with(const char *path, int flags)
{
    uv_fs_t request;
    int file = uv_fs_open(NULL, &request, path, flags, MODE, NULL);
    uv_fs_req_cleanup(&request);
    return file;
}

int file_open_read(const char *path)
{
    return open_with(path, UV_FS_O_RDONLY);
}

int file_open_part(const char *path)
{
    return open_with(path, UV_FS_O_RDWR | UV_FS_O_CREAT);
}

int file_open_new(const char *path)
{
    return open_with(path, UV_FS_O_WRONLY | UV_FS_O_CREAT | UV_FS_O_TRUNC);
}

void file_remove(const char *path)
{
    uv_fs_t request;
    (void)uv_fs_unlink(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
}

int64_t file_size(int file)
{
    uv_fs_t request;
    int r = uv_fs_fstat(NULL, &request, file, NULL);
    int64_t size = r < 0 ? r : (int64_t)request.statbuf.st_size;
    uv_fs_req_cleanup(&request);
    return size;
}

int file_truncate(int file, uint64_t size_bytes)
{
    uv_fs_t request;
    int r = uv_fs_ftruncate(NULL, &request, file, (int64_t)size_bytes, NULL);
    uv_fs_req_cleanup(&request);
    return r;
}

int file_sync(int file)
{
    uv_fs_t request;
    int r = uv_fs_fsync(NULL, &request, file, NULL);
    uv_fs_req_cleanup(&request);
    return r;
}

int file_rename(const char *from, const char *to)
{
    uv_fs_t request;
    int r = uv_fs_rename(NULL, &request, from, to, NULL);
    uv_fs_req_cleanup(&request);
    return r;
}

int file_read(int file, void *out, size_t size_bytes, uint64_t at)
{
    uv_fs_t request;
    uv_buf_t room = uv_buf_init(out, (unsigned)size_bytes);
    int n = (int)uv_fs_read(NULL, &request, file, &room, 1, (int64_t)at, NULL);
    uv_fs_req_cleanup(&request);
    return n;
}

int file_write(int file, struct span bytes, uint64_t at)
{
    size_t written = 0;
    while (written < bytes.size_bytes) {
        uv_fs_t request;
        uv_buf_t rest = uv_buf_init((char *)(uintptr_t)(bytes.data + written),
                                    (unsigned)(bytes.size_bytes - written));
        int n = (int)uv_fs_write(NULL, &request, file, &rest, 1, (int64_t)(at + written), NULL);
        uv_fs_req_cleanup(&request);
        if (n <= 0)
            return n < 0 ? n : UV_EIO;
        written += (size_t)n;
    }
    return 0;
}

typedef void (*feed_fn)(void *context, struct span bytes);

static int feed_file(int file, uint64_t size_bytes, feed_fn feed, void *context)
{
    static char room[READ_SIZE]; /* one at a time: everything here runs on one thread */
    uint64_t at = 0;
    while (at < size_bytes) {
        uint64_t left = size_bytes - at;
        int n = file_read(file, room, left < READ_SIZE ? (size_t)left : READ_SIZE, at);
        if (n <= 0)
            return n < 0 ? n : UV_EOF;
        feed(context, span_of(room, (size_t)n));
        at += (uint64_t)n;
    }
    return 0;
}

static void feed_sha256(void *context, struct span bytes)
{
    pki_sha256_add(context, bytes);
}

int file_hash(int file, uint64_t size_bytes, struct pki_sha256 *hash)
{
    return feed_file(file, size_bytes, feed_sha256, hash);
}

static void feed_xxh64(void *context, struct span bytes)
{
    xxh64_add(context, bytes);
}

int file_sum(int file, uint64_t size_bytes, uint64_t *out)
{
    struct xxh64 sum;
    xxh64_init(&sum, 0);
    int r = feed_file(file, size_bytes, feed_xxh64, &sum);
    *out = xxh64_end(&sum);
    return r;
}

uint64_t file_free_bytes(const char *path)
{
    uv_fs_t request;
    uint64_t bytes = UINT64_MAX;
    if (uv_fs_statfs(NULL, &request, path, NULL) == 0) {
        const uv_statfs_t *s = request.ptr;
        bytes = s->f_bavail * s->f_bsize;
    }
    uv_fs_req_cleanup(&request);
    return bytes;
}
