/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of a bundle, piece by piece. Invariant: the hash has taken exactly the bytes before
 * received_bytes, which are those in the part. Called by cmd_fetch.c.
 */
#include "cli/transfer.h"

#include <inttypes.h>
#include <string.h>

#include "cli/file.h"
#include "common/port.h"
#include "common/text.h"

#define STAMP_LIMIT 1024
#define STAMP_FORMAT "unpacked from sha256 %s\nbytes %" PRIu64 "\nxxh64 %016" PRIx64 "\n"

static bool has_hash(const trawl_v1_Artifact *artifact, const uint8_t sum[32])
{
    return artifact->sha256.size == 32 && pki_equal(artifact->sha256.bytes, sum, 32);
}

static bool is_packed(const trawl_v1_Artifact *artifact)
{
    return artifact->encoding[0];
}

/* ---- what is there ---- */

static bool sha256_of_file(const char *path, uint64_t size_bytes, uint8_t sum[32])
{
    int file = file_open_read(path);
    if (file < 0)
        return false;
    bool read = file_size(file) == (int64_t)size_bytes;
    struct pki_sha256 *hash = read ? pki_sha256_open() : NULL;
    read = hash && file_hash(file, size_bytes, hash) == 0;
    pki_sha256_close(hash, read ? sum : NULL);
    port_close(file);
    return read;
}

/* FILE.unpacked beside an unpacked file, by which a later fetch knows it: of which stored bytes it
 * was made, how large it is and its XXH64. */
static int write_stamp(const struct transfer *t, uint64_t sum, struct failure *f)
{
    char packed[65], text[STAMP_LIMIT];
    text_put_hex(t->artifact->sha256.bytes, 32, packed);
    text_format(text, sizeof text, STAMP_FORMAT, packed, t->plain_bytes, sum);
    return port_write_file(t->stamp_path, span_str(text), true, f);
}

static bool has_sum(const char *path, uint64_t *size_bytes, uint64_t *sum)
{
    int file = file_open_read(path);
    if (file < 0)
        return false;
    int64_t size = file_size(file);
    bool read = size >= 0 && file_sum(file, (uint64_t)size, sum) == 0;
    port_close(file);
    *size_bytes = (uint64_t)size;
    return read;
}

/* The stamp is what it would be if the file were written now. */
static bool has_stamp(struct transfer *t)
{
    char packed[65], wanted[STAMP_LIMIT];
    uint64_t sum;
    struct buf text;
    buf_init(&text, STAMP_LIMIT);
    bool same =
        port_read_file(t->stamp_path, &text, NULL) == 0 && has_sum(t->path, &t->plain_bytes, &sum);
    if (same) {
        text_put_hex(t->artifact->sha256.bytes, 32, packed);
        text_format(wanted, sizeof wanted, STAMP_FORMAT, packed, t->plain_bytes, sum);
        same = span_equal(buf_span(&text), span_str(wanted));
    }
    buf_done(&text);
    return same;
}

/* Whether the file under its real name is there and right. */
static bool is_present(struct transfer *t)
{
    uint8_t sum[32];
    const trawl_v1_Artifact *a = t->artifact;
    if (!is_packed(a))
        return sha256_of_file(t->path, a->size_bytes, sum) && has_hash(a, sum);
    if (!has_stamp(t))
        return false;
    file_remove(t->part_path); /* it may have been left */
    return true;
}

/* What of the part can be gone on with: all or whole pieces, unless it is longer than it may be. */
static uint64_t usable_bytes(const trawl_v1_Artifact *artifact, int64_t size)
{
    if (size <= 0 || (uint64_t)size > artifact->size_bytes)
        return 0;
    if ((uint64_t)size == artifact->size_bytes)
        return artifact->size_bytes;
    return (uint64_t)size / CODEC_PIECE_SIZE * CODEC_PIECE_SIZE;
}

static int open_part(struct transfer *t, struct failure *f)
{
    t->file = file_open_part(t->part_path);
    if (t->file < 0) {
        int status = t->file;
        t->file = -1;
        return file_fail(f, status, "write", t->part_path);
    }
    t->received_bytes = usable_bytes(t->artifact, file_size(t->file));
    int r = file_truncate(t->file, t->received_bytes);
    if (r == 0)
        r = file_hash(t->file, t->received_bytes, t->hash);
    if (r < 0)
        return file_fail(f, r, "read", t->part_path);
    t->next_piece = (uint32_t)(t->received_bytes / CODEC_PIECE_SIZE);
    t->resumed = t->received_bytes > 0;
    return 0;
}

void transfer_init(struct transfer *t)
{
    *t = (struct transfer){.file = -1, .max_bytes = TRANSFER_MAX_DEFAULT};
    unpack_init(&t->unpack);
}

static int set_paths(struct transfer *t, const char *path, struct failure *f)
{
    if (text_copy(t->path, sizeof t->path, path) < 0 ||
        text_format(t->part_path, sizeof t->part_path, "%s.part", path) < 0 ||
        text_format(t->plain_path, sizeof t->plain_path, "%s.unpack.part", path) < 0 ||
        text_format(t->stamp_path, sizeof t->stamp_path, "%s.unpacked", path) < 0)
        return fail(f, ERR_INVALID, "path too long: '%.100s...'", path);
    return 0;
}

bool transfer_is_present(const char *path, const trawl_v1_Artifact *artifact, uint64_t *plain_bytes)
{
    static struct transfer t; /* large, and only looked with */
    transfer_init(&t);
    t.artifact = artifact;
    bool there = set_paths(&t, path, NULL) == 0 && is_present(&t);
    *plain_bytes = t.plain_bytes;
    return there;
}

int transfer_open(struct transfer *t, const char *path, const trawl_v1_Artifact *artifact,
                  bool *present, struct failure *f)
{
    transfer_init(t);
    t->artifact = artifact;
    int r = set_paths(t, path, f);
    if (r < 0)
        return r;
    if (is_packed(artifact) && strcmp(artifact->encoding, "zstd") != 0 &&
        strcmp(artifact->encoding, PATCH_ENCODING) != 0)
        return fail(f, ERR_VERSION,
                    "'%s' is stored as '%s', which this version cannot unpack: use a newer one",
                    artifact->file, artifact->encoding);
    *present = is_present(t);
    if (*present)
        return 0;
    t->hash = pki_sha256_open();
    if (!t->hash)
        return fail(f, ERR_NOMEM, "out of memory");
    r = open_part(t, f);
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
    struct span data = span_of(piece->data.bytes, piece->data.size);
    r = file_write(t->file, data, t->received_bytes);
    if (r < 0)
        return file_fail(f, r, "write", t->part_path);
    pki_sha256_add(t->hash, data);
    t->received_bytes += piece->data.size;
    t->next_piece++;
    t->ended = piece->last;
    return 0;
}

static int rename_to_path(const struct transfer *t, const char *from, struct failure *f)
{
    int r = file_rename(from, t->path);
    return r < 0 ? file_fail(f, r, "make", t->path) : 0;
}

static int start_unpacking(struct transfer *t, struct failure *f)
{
    struct unpack_settings settings = {.packed = t->part_path,
                                       .plain = t->plain_path,
                                       .base = t->base_path[0] ? t->base_path : NULL,
                                       .expected_bytes = t->artifact->plain_bytes,
                                       .limit_bytes = t->max_bytes};
    if (strcmp(t->artifact->encoding, PATCH_ENCODING) == 0 && !settings.base)
        return fail(f, ERR_NOTFOUND, "'%s' is told from another core, which is not there",
                    t->artifact->file);
    int r = unpack_open(&t->unpack, &settings, f);
    return r < 0 ? r : 1;
}

static int move_into_place(struct transfer *t, struct failure *f)
{
    int r = file_sync(t->file);
    port_close(t->file);
    t->file = -1;
    if (r < 0)
        return file_fail(f, r, "write", t->part_path);
    return is_packed(t->artifact) ? start_unpacking(t, f) : rename_to_path(t, t->part_path, f);
}

int transfer_unpack(struct transfer *t, uint64_t budget_us, struct failure *f)
{
    int r = unpack_step(&t->unpack, budget_us, f);
    if (r != 0)
        return r;
    t->plain_bytes = t->unpack.plain_bytes;
    r = write_stamp(t, xxh64_end(&t->unpack.sum),
                    f); /* before the name: a file without its stamp would be made again */
    if (r == 0)
        r = rename_to_path(t, t->plain_path, f);
    if (r == 0)
        file_remove(t->part_path);
    return r;
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
        port_close(t->file);
    t->file = -1;
    unpack_close(&t->unpack);
}

void transfer_discard(struct transfer *t)
{
    transfer_close(t);
    file_remove(t->part_path);
}
