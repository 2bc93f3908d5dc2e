/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a bundle, piece by piece. Invariant: the hash has taken exactly the bytes before
 * received_bytes, which are those in the part. Called by cmd_fetch.c.
 */
#include "cli/transfer.h"

#include <inttypes.h>
#include <string.h>
#include <uv.h>

#include "common/port.h"
#include "common/text.h"

#define READ_SIZE (64 * 1024)
#define MODE 0600

static int fail_file(struct failure *f, int status, const char *verb, const char *path)
{
    int code = status == UV_ENOSPC                         ? ERR_FULL
               : status == UV_EACCES || status == UV_EPERM ? ERR_DENIED
                                                           : ERR_IO;
    return fail(f, code, "cannot %s '%.200s': %s", verb, path, uv_strerror(status));
}

static int open_file(const char *path, int flags)
{
    uv_fs_t request;
    int file = uv_fs_open(NULL, &request, path, flags, MODE, NULL);
    uv_fs_req_cleanup(&request);
    return file;
}

static void close_file(int file)
{
    uv_fs_t request;
    (void)uv_fs_close(NULL, &request, file, NULL);
    uv_fs_req_cleanup(&request);
}

static void remove_file(const char *path)
{
    uv_fs_t request;
    (void)uv_fs_unlink(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
}

/* Negative: of libuv. */
static int64_t size_of(int file)
{
    uv_fs_t request;
    int r = uv_fs_fstat(NULL, &request, file, NULL);
    int64_t size = r < 0 ? r : (int64_t)request.statbuf.st_size;
    uv_fs_req_cleanup(&request);
    return size;
}

/* Feeds the first `bytes` of the file to the hash. 0 or an error of libuv. */
static int hash_file(int file, uint64_t bytes, struct pki_sha256 *hash)
{
    static char room[READ_SIZE]; /* one at a time: everything here runs on one thread */
    uint64_t at = 0;
    while (at < bytes) {
        uint64_t left = bytes - at;
        uv_buf_t piece = uv_buf_init(room, (unsigned)(left < READ_SIZE ? left : READ_SIZE));
        uv_fs_t request;
        int n = (int)uv_fs_read(NULL, &request, file, &piece, 1, (int64_t)at, NULL);
        uv_fs_req_cleanup(&request);
        if (n <= 0)
            return n < 0 ? n : UV_EOF;
        pki_sha256_add(hash, span_of(room, (size_t)n));
        at += (uint64_t)n;
    }
    return 0;
}

static bool has_hash(const trawl_v1_Artifact *artifact, const uint8_t sum[32])
{
    return artifact->sha256.size == 32 && pki_equal(artifact->sha256.bytes, sum, 32);
}

/* Whether the file under its real name is there and right. */
static bool is_present(const char *path, const trawl_v1_Artifact *artifact)
{
    uint8_t sum[32];
    int file = open_file(path, UV_FS_O_RDONLY);
    if (file < 0)
        return false;
    bool is_right = size_of(file) == (int64_t)artifact->size_bytes;
    struct pki_sha256 *hash = is_right ? pki_sha256_open() : NULL;
    if (hash) {
        is_right = hash_file(file, artifact->size_bytes, hash) == 0;
        pki_sha256_close(hash, sum);
        is_right = is_right && has_hash(artifact, sum);
    }
    close_file(file);
    return is_right;
}

/* What of the part can be gone on with: whole pieces, unless it is longer than it may be. */
static uint64_t usable_bytes(const trawl_v1_Artifact *artifact, int64_t size)
{
    if (size <= 0 || (uint64_t)size > artifact->size_bytes)
        return 0;
    return (uint64_t)size / CODEC_PIECE_SIZE * CODEC_PIECE_SIZE;
}

static int open_part(struct transfer *t, struct failure *f)
{
    uv_fs_t request;
    t->file = open_file(t->part_path, UV_FS_O_RDWR | UV_FS_O_CREAT);
    if (t->file < 0) {
        int status = t->file;
        t->file = -1;
        return fail_file(f, status, "write", t->part_path);
    }
    t->received_bytes = usable_bytes(t->artifact, size_of(t->file));
    int r = uv_fs_ftruncate(NULL, &request, t->file, (int64_t)t->received_bytes, NULL);
    uv_fs_req_cleanup(&request);
    if (r == 0)
        r = hash_file(t->file, t->received_bytes, t->hash);
    if (r < 0)
        return fail_file(f, r, "read", t->part_path);
    t->next_piece = (uint32_t)(t->received_bytes / CODEC_PIECE_SIZE);
    t->resumed = t->next_piece > 0;
    return 0;
}

int transfer_open(struct transfer *t, const char *path, const trawl_v1_Artifact *artifact,
                  bool *present, struct failure *f)
{
    *t = (struct transfer){.artifact = artifact, .file = -1};
    if (text_copy(t->path, sizeof t->path, path) < 0 ||
        text_format(t->part_path, sizeof t->part_path, "%s.part", path) < 0)
        return fail(f, ERR_INVALID, "path too long: '%.100s...'", path);
    *present = is_present(path, artifact);
    if (*present)
        return 0;
    t->hash = pki_sha256_open();
    if (!t->hash)
        return fail(f, ERR_NOMEM, "out of memory");
    int r = open_part(t, f);
    if (r < 0)
        transfer_close(t);
    return r;
}

static int check_piece(const struct transfer *t, const trawl_v1_Piece *piece, struct failure *f)
{
    const trawl_v1_Artifact *a = t->artifact;
    uint64_t after = t->received_bytes + piece->data.size;
    if (t->ended || piece->no != t->next_piece)
        return fail(f, ERR_PROTOCOL, "piece %u of '%s/%s' came out of turn", piece->no, a->host,
                    a->file);
    if (after > a->size_bytes || (!piece->last && piece->data.size != CODEC_PIECE_SIZE) ||
        (piece->last && after != a->size_bytes))
        return fail(f, ERR_PROTOCOL, "piece %u of '%s/%s' has a wrong size", piece->no, a->host,
                    a->file);
    return 0;
}

int transfer_piece(struct transfer *t, trawl_v1_Piece *piece, struct failure *f)
{
    int r = check_piece(t, piece, f);
    if (r < 0)
        return r;
    size_t written = 0;
    while (written < piece->data.size) {
        uv_fs_t request;
        uv_buf_t rest = uv_buf_init((char *)(piece->data.bytes + written),
                                    (unsigned)(piece->data.size - written));
        int n = (int)uv_fs_write(NULL, &request, t->file, &rest, 1,
                                 (int64_t)(t->received_bytes + written), NULL);
        uv_fs_req_cleanup(&request);
        if (n <= 0)
            return fail_file(f, n < 0 ? n : UV_EIO, "write", t->part_path);
        written += (size_t)n;
    }
    pki_sha256_add(t->hash, span_of(piece->data.bytes, piece->data.size));
    t->received_bytes += piece->data.size;
    t->next_piece++;
    t->ended = piece->last;
    return 0;
}

static int move_into_place(struct transfer *t, struct failure *f)
{
    uv_fs_t request;
    int r = uv_fs_fsync(NULL, &request, t->file, NULL);
    uv_fs_req_cleanup(&request);
    close_file(t->file);
    t->file = -1;
    if (r < 0)
        return fail_file(f, r, "write", t->part_path);
    r = uv_fs_rename(NULL, &request, t->part_path, t->path, NULL);
    uv_fs_req_cleanup(&request);
    return r < 0 ? fail_file(f, r, "make", t->path) : 0;
}

int transfer_finish(struct transfer *t, struct failure *f)
{
    uint8_t sum[32];
    const trawl_v1_Artifact *a = t->artifact;
    pki_sha256_close(t->hash, sum);
    t->hash = NULL;
    if (t->received_bytes == a->size_bytes && has_hash(a, sum))
        return move_into_place(t, f);
    bool is_short = t->received_bytes != a->size_bytes;
    uint64_t received = t->received_bytes;
    transfer_discard(t);
    if (is_short)
        return fail(f, ERR_CORRUPT,
                    "artifact '%s' of host '%s' ended after %" PRIu64 " of %" PRIu64
                    " bytes: not kept",
                    a->file, a->host, received, (uint64_t)a->size_bytes);
    return fail(f, ERR_CORRUPT, "artifact '%s' of host '%s' differs from its hash: not kept",
                a->file, a->host);
}

void transfer_close(struct transfer *t)
{
    if (t->hash)
        pki_sha256_close(t->hash, NULL);
    t->hash = NULL;
    if (t->file >= 0)
        close_file(t->file);
    t->file = -1;
}

void transfer_discard(struct transfer *t)
{
    transfer_close(t);
    remove_file(t->part_path);
}
