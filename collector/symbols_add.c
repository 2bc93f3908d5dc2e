/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One upload of a file with symbols: pieces into a file without a name, so that nothing is left
 * whoever dies. Invariants: one write at a time is under way, in the pool, and the client waits
 * while the disk does; each upload is answered at most once and freed when its last callback came.
 * Called by ops_symbols.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "collector/symbols_private.h"
#include "common/text.h"

#define WRITE_BYTES (256u << 10)
#define BUFFER_BYTES (WRITE_BYTES + CODEC_PIECE_SIZE)
#define PATIENCE_MS 60000 /* of a client that sends nothing */
#define ROOM_LEFT_BYTES ((uint64_t)512 << 20)

/* ---- beginning and end ---- */

static void close_file(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void symbols_add_release(struct symbols_add *a)
{
    if (a->call || a->busy)
        return;
    list_remove(&a->link);
    a->symbols->add_count--;
    close_file(&a->elf);
    close_file(&a->table);
    buf_done(&a->filling);
    buf_done(&a->writing);
    buf_done(&a->said);
    symbols_root_done(&a->root);
    free(a);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct symbols_add *a = handle->data;
    a->busy--;
    symbols_add_release(a);
}

/* Nothing more is begun for it. The next one may have its turn. */
static void finish(struct symbols_add *a)
{
    struct symbols *s = a->symbols;
    a->done = true;
    symbols_kill(a);
    uv_close((uv_handle_t *)&a->patience, on_timer_closed);
    if (s->reading == a)
        s->reading = NULL;
    symbols_add_next(s);
}

void symbols_add_fail(struct symbols_add *a, const struct failure *why)
{
    if (a->done)
        return;
    if (a->call)
        call_finish(a->call, why);
    finish(a);
}

void symbols_add_answer(struct symbols_add *a)
{
    struct buf wire;
    if (a->done)
        return;
    buf_init(&wire, sizeof a->reply + 64);
    int e = codec_put_symbol_file(&wire, &a->reply);
    if (a->call && e == 0)
        call_answer(a->call, buf_span(&wire));
    buf_done(&wire);
    finish(a);
}

/* What is being stored is whole: it is stored to its end. */
void symbols_add_gone(struct symbols_add *a)
{
    struct failure f;
    a->call = NULL;
    fail(&f, ERR_CANCELLED, "the client is gone");
    a->busy++;
    if (!a->generation)
        symbols_add_fail(a, &f);
    a->busy--;
    symbols_add_release(a);
}

void symbols_add_next(struct symbols *s)
{
    LIST_EACH (at, &s->adds) {
        struct symbols_add *a = LIST_ENTRY(at, struct symbols_add, link);
        if (s->reading || s->stopping)
            return;
        if (a->is_queued && !a->done) {
            a->is_queued = false;
            s->reading = a;
            symbols_run(a);
        }
    }
}

static void on_impatient(uv_timer_t *timer)
{
    struct symbols_add *a = timer->data;
    struct failure f;
    symbols_add_fail(a, (fail(&f, ERR_TIMEOUT, "no piece came for %d s", PATIENCE_MS / 1000), &f));
}

void symbols_add_wait(struct symbols_add *a, uint64_t ms, uv_timer_cb late)
{
    (void)uv_timer_start(&a->patience, late, ms, 0);
}

/* ---- the file ---- */

static int open_nameless(const char *directory, int *out, struct failure *f)
{
    char path[600];
    if (text_format(path, sizeof path, "%s/symbols-XXXXXX", directory))
        return fail(f, ERR_LIMIT, "the data directory's path is too long");
    int fd = mkstemp(path);
    if (fd < 0)
        return fail_errno(f, err_from_errno(errno), errno, "cannot make a file in '%s'", directory);
    (void)unlink(path);
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    *out = fd;
    return 0;
}

/* The store's own disk is never filled by an upload. */
static int check_room(const char *directory, uint64_t size_bytes, struct failure *f)
{
    struct statvfs disk;
    char size[32], room[32];
    if (size_bytes > SYMBOLS_FILE_BYTES_MAX)
        return fail(f, ERR_LIMIT,
                    "it has %llu bytes, more than 2 GiB: 'objcopy --only-keep-debug' or 'strip "
                    "--strip-debug' makes it smaller",
                    (unsigned long long)size_bytes);
    if (statvfs(directory, &disk) != 0)
        return 0;
    uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (free_bytes >= ROOM_LEFT_BYTES && free_bytes - ROOM_LEFT_BYTES >= size_bytes)
        return 0;
    text_put_size(size_bytes, size, sizeof size);
    text_put_size(free_bytes, room, sizeof room);
    return fail(f, ERR_FULL, "no room: it has %s, and the collector's disk only %s left", size,
                room);
}

static int open_files(struct symbols_add *a, struct failure *f)
{
    const char *directory = a->symbols->collector->settings->data;
    int e = check_room(directory, a->declared_bytes, f);
    if (e == 0)
        e = open_nameless(directory, &a->elf, f);
    return e ? e : open_nameless(directory, &a->table, f);
}

int symbols_add_begin(struct symbols_add **out, struct symbols *s, struct call *call,
                      const trawl_v1_SymbolPiece *piece, struct failure *f)
{
    if (s->add_count >= SYMBOLS_ADDS_MAX)
        return fail(f, ERR_BUSY, "%d files are being added already: try again", SYMBOLS_ADDS_MAX);
    struct symbols_add *a = calloc(1, sizeof *a);
    if (!a)
        return fail(f, ERR_NOMEM, "out of memory");
    a->symbols = s;
    a->elf = a->table = -1;
    a->declared_bytes = piece->size_bytes;
    text_copy(a->name, sizeof a->name, piece->name[0] ? piece->name : "?");
    text_clean(a->name);
    const char *slash = strrchr(a->name, '/');
    text_copy(a->label, sizeof a->label, slash && slash[1] ? slash + 1 : a->name);
    text_clean(a->label);
    text_format(a->by, sizeof a->by, "%s/%s", call->who->role, call->who->name);
    int e = open_files(a, f);
    if (e) {
        close_file(&a->elf);
        close_file(&a->table);
        free(a);
        return e;
    }
    buf_init(&a->filling, BUFFER_BYTES);
    buf_init(&a->writing, BUFFER_BYTES);
    buf_init(&a->said, 64 * 1024);
    uv_timer_init(s->collector->loop, &a->patience);
    a->patience.data = a;
    a->busy = 1;
    a->call = call;
    list_push(&s->adds, &a->link);
    s->add_count++;
    *out = a;
    return 0;
}

/* ---- writing ---- */

static void flow(struct symbols_add *a)
{
    bool stop = a->is_writing && a->filling.size_bytes >= WRITE_BYTES;
    if (!a->call || a->done || stop == a->paused)
        return;
    a->paused = stop;
    if (stop)
        grpc_pause(a->call->grpc);
    else
        grpc_resume(a->call->grpc);
}

static void on_all_written(struct symbols_add *a)
{
    struct failure f;
    if (a->declared_bytes && a->received_bytes != a->declared_bytes) {
        fail(&f, ERR_CORRUPT, "it is cut off: %llu of %llu bytes came",
             (unsigned long long)a->received_bytes, (unsigned long long)a->declared_bytes);
        symbols_add_fail(a, &f);
        return;
    }
    (void)uv_timer_stop(&a->patience);
    a->is_queued = true;
    symbols_add_next(a->symbols);
}

static void on_written(uv_fs_t *request);

static void write_some(struct symbols_add *a)
{
    if (a->is_writing || a->done)
        return;
    if (!a->writing.size_bytes && (a->filling.size_bytes >= WRITE_BYTES || a->last)) {
        struct buf empty = a->writing;
        a->writing = a->filling;
        a->filling = empty;
    }
    if (!a->writing.size_bytes) {
        if (a->last && !a->filling.size_bytes && !a->is_queued)
            on_all_written(a);
        return;
    }
    a->is_writing = true;
    a->busy++;
    a->bytes = uv_buf_init((char *)a->writing.data, (unsigned)a->writing.size_bytes);
    a->write.data = a;
    int e = uv_fs_write(a->symbols->collector->loop, &a->write, a->elf, &a->bytes, 1,
                        (int64_t)a->written_bytes, on_written);
    if (e < 0) {
        a->write.result = e;
        on_written(&a->write);
    }
}

static void on_written(uv_fs_t *request)
{
    struct symbols_add *a = request->data;
    ssize_t n = request->result;
    struct failure f;
    uv_fs_req_cleanup(request);
    a->is_writing = false;
    if (n <= 0) {
        int code = n == UV_ENOSPC ? ERR_FULL : ERR_IO;
        fail(&f, code, "the collector cannot keep the file: %s",
             n < 0 ? uv_strerror((int)n) : "nothing was written");
        symbols_add_fail(a, &f);
    } else {
        a->written_bytes += (uint64_t)n;
        buf_consume(&a->writing, (size_t)n);
        write_some(a);
        flow(a);
    }
    a->busy--;
    symbols_add_release(a);
}

int symbols_add_piece(struct symbols_add *a, const trawl_v1_SymbolPiece *piece, struct failure *f)
{
    if (a->done)
        return 0;
    if (a->last)
        return fail(f, ERR_PROTOCOL, "a piece came after the last one");
    if (!piece->last && piece->data.size != CODEC_PIECE_SIZE)
        return fail(f, ERR_PROTOCOL, "a piece has %u bytes, not %d: only the last may be shorter",
                    (unsigned)piece->data.size, CODEC_PIECE_SIZE);
    a->received_bytes += piece->data.size;
    if (a->received_bytes > SYMBOLS_FILE_BYTES_MAX)
        return check_room("", a->received_bytes, f);
    int e = buf_append(&a->filling, piece->data.bytes, piece->data.size);
    if (e)
        return fail(f, e, "out of memory");
    a->last = piece->last;
    symbols_add_wait(a, PATIENCE_MS, on_impatient);
    a->busy++;
    write_some(a);
    a->busy--;
    flow(a);
    return 0;
}

int symbols_add_end(struct symbols_add *a, struct failure *f)
{
    if (a->last || a->done)
        return 0;
    return fail(f, ERR_PROTOCOL,
                "it is cut off: the call ended after %llu bytes, before a piece "
                "that says it is the last",
                (unsigned long long)a->received_bytes);
}
