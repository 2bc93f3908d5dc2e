/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of artifacts, by libuv's synchronous calls: small writes into the page cache. Called by
 * capture and upload on the loop thread.
 */
#include "agent/evidence.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define META_MAX 16384

static void path_of(const char *directory, uint32_t no, const char *ending,
                    char out[EVIDENCE_PATH_SIZE])
{
    (void)text_format(out, EVIDENCE_PATH_SIZE, "%s/%06u.%s", directory, (unsigned)no, ending);
}

static void unlink_path(const char *path)
{
    uv_fs_t request;
    uv_fs_unlink(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
}

static int open_path(const char *path, int flags)
{
    uv_fs_t request;
    int file = uv_fs_open(NULL, &request, path, flags, 0600, NULL);
    uv_fs_req_cleanup(&request);
    return file;
}

static int code_of(int uv_error)
{
    switch (uv_error) {
    case UV_ENOSPC:
        return ERR_FULL;
    case UV_EACCES:
    case UV_EPERM:
        return ERR_DENIED;
    case UV_ENOENT:
        return ERR_NOTFOUND;
    default:
        return ERR_IO;
    }
}

int evidence_open(struct evidence *e, const char *directory, uint32_t no, uint64_t limit_bytes,
                  struct failure *f)
{
    char path[EVIDENCE_PATH_SIZE];
    *e = (struct evidence){.no = no, .file = -1, .limit_bytes = limit_bytes};
    text_copy(e->directory, sizeof e->directory, directory);
    path_of(directory, no, "data", path);
    int file = open_path(path, UV_FS_O_WRONLY | UV_FS_O_CREAT | UV_FS_O_TRUNC);
    if (file < 0)
        return fail(f, code_of(file), "cannot create '%s': %s", path, uv_strerror(file));
    e->hash = pki_sha256_open();
    if (!e->hash) {
        port_close(file);
        return fail(f, ERR_NOMEM, "out of memory");
    }
    e->file = file;
    return 0;
}

int evidence_write(void *context, struct span bytes)
{
    struct evidence *e = context;
    if (bytes.size_bytes > e->limit_bytes - e->size_bytes)
        return ERR_LIMIT;
    pki_sha256_add(e->hash, bytes);
    e->size_bytes += bytes.size_bytes;
    while (bytes.size_bytes > 0) {
        uv_fs_t request;
        uv_buf_t piece = uv_buf_init((char *)bytes.data, (unsigned)bytes.size_bytes);
        int n = uv_fs_write(NULL, &request, e->file, &piece, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        if (n == UV_EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? code_of(n) : ERR_IO;
        bytes = span_of(bytes.data + n, bytes.size_bytes - (size_t)n);
    }
    return 0;
}

static void end(struct evidence *e, uint8_t hash[32])
{
    if (e->file >= 0)
        port_close(e->file);
    e->file = -1;
    if (e->hash)
        pki_sha256_close(e->hash, hash);
    e->hash = NULL;
}

int evidence_seal(struct evidence *e, trawl_v1_Artifact *meta, struct failure *f)
{
    meta->no = e->no;
    meta->size_bytes = e->size_bytes;
    meta->sha256.size = 32;
    end(e, meta->sha256.bytes);
    int error = evidence_save(e->directory, meta, f);
    if (error)
        evidence_remove(e->directory, e->no);
    return error;
}

void evidence_drop(struct evidence *e)
{
    if (e->file < 0)
        return;
    end(e, NULL);
    evidence_remove(e->directory, e->no);
}

int evidence_save(const char *directory, const trawl_v1_Artifact *meta, struct failure *f)
{
    char path[EVIDENCE_PATH_SIZE];
    struct buf out;
    path_of(directory, meta->no, "pb", path);
    buf_init(&out, META_MAX);
    int e = codec_put_artifact(&out, meta);
    e = e ? fail(f, e, "cannot encode artifact %u", (unsigned)meta->no)
          : port_write_file(path, buf_span(&out), true, f);
    buf_done(&out);
    return e;
}

static int check_size(const char *directory, uint32_t no, uint64_t size_bytes, struct failure *f)
{
    char path[EVIDENCE_PATH_SIZE];
    uv_fs_t request;
    path_of(directory, no, "data", path);
    int e = uv_fs_stat(NULL, &request, path, NULL);
    uint64_t found = request.statbuf.st_size;
    uv_fs_req_cleanup(&request);
    if (e || found != size_bytes)
        return fail(f, ERR_CORRUPT, "artifact %u is not complete on this host's disk",
                    (unsigned)no);
    return 0;
}

int evidence_load(const char *directory, uint32_t no, trawl_v1_Artifact *meta, struct failure *f)
{
    char path[EVIDENCE_PATH_SIZE];
    struct buf in;
    path_of(directory, no, "pb", path);
    buf_init(&in, META_MAX);
    int e = port_read_file(path, &in, f);
    if (!e)
        e = codec_get_artifact(meta, buf_span(&in), f);
    if (!e)
        e = check_size(directory, no, meta->size_bytes, f);
    buf_done(&in);
    return e;
}

int evidence_open_file(const char *directory, uint32_t no, struct failure *f)
{
    char path[EVIDENCE_PATH_SIZE];
    path_of(directory, no, "data", path);
    int file = open_path(path, UV_FS_O_RDONLY);
    if (file < 0)
        return fail(f, code_of(file), "cannot open '%s': %s", path, uv_strerror(file));
    return file;
}

void evidence_remove(const char *directory, uint32_t no)
{
    char path[EVIDENCE_PATH_SIZE];
    path_of(directory, no, "pb", path);
    unlink_path(path);
    path_of(directory, no, "data", path);
    unlink_path(path);
}

int evidence_rename(const char *directory, uint32_t no, uint32_t new_no, struct failure *f)
{
    char from[EVIDENCE_PATH_SIZE], to[EVIDENCE_PATH_SIZE];
    trawl_v1_Artifact *meta = calloc(1, sizeof *meta);
    if (!meta)
        return fail(f, ERR_NOMEM, "out of memory");
    int e = evidence_load(directory, no, meta, f);
    path_of(directory, no, "data", from);
    path_of(directory, new_no, "data", to);
    if (!e) {
        uv_fs_t request;
        int r = uv_fs_rename(NULL, &request, from, to, NULL);
        uv_fs_req_cleanup(&request);
        e = r ? fail(f, code_of(r), "cannot rename '%s': %s", from, uv_strerror(r)) : 0;
    }
    meta->no = new_no;
    if (!e)
        e = evidence_save(directory, meta, f);
    if (!e)
        evidence_remove(directory, no);
    free(meta);
    return e;
}
