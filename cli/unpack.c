/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads packed bytes, gives them to zip_unstream, writes what is not zero. See unpack.h. Invariant:
 * plain_bytes is the place in the plain file, and the sum has taken all before it, holes included.
 * Called by transfer.c.
 */
#include "cli/unpack.h"

#include <string.h>

#include "cli/file.h"
#include "common/port.h"
#include "common/text.h"
#include "common/zip_unstream.h"

#define READ_SIZE (64 * 1024)
#define BLOCK_SIZE 4096
#define FREE_LEAST ((uint64_t)64 << 20) /* stays free on the disk */
#define FREE_EVERY ((uint64_t)64 << 20) /* looked at after so many bytes */

/* ---- plain bytes into a file with holes ---- */

static bool is_zero(const uint8_t *at, size_t size_bytes)
{
    return at[0] == 0 && memcmp(at, at + 1, size_bytes - 1) == 0;
}

static int check_room(struct unpack *u)
{
    if (u->looked_bytes && u->written_bytes - u->looked_bytes < FREE_EVERY)
        return 0;
    u->looked_bytes = u->written_bytes;
    if (file_free_bytes(u->plain) > FREE_LEAST)
        return 0;
    return fail(&u->why, ERR_FULL,
                "cannot unpack '%.200s': less than 64 MiB are left on the disk; make room and "
                "fetch again",
                u->plain);
}

static int write_run(struct unpack *u, struct span bytes, uint64_t at)
{
    int r = bytes.size_bytes > 0 ? file_write(u->out, bytes, at) : 0;
    if (r < 0)
        return file_fail(&u->why, r, "write", u->plain);
    u->written_bytes += bytes.size_bytes;
    return 0;
}

/* Blocks are those of the file, so that a hole is one however the bytes came. */
static int on_plain(void *context, struct span bytes)
{
    struct unpack *u = context;
    uint64_t at = u->plain_bytes;
    size_t from = 0, to = 0; /* the run that is not zero */
    int r = check_room(u);
    xxh64_add(&u->sum, bytes);
    while (r == 0 && to < bytes.size_bytes) {
        size_t size = BLOCK_SIZE - (size_t)((at + to) % BLOCK_SIZE);
        size = size < bytes.size_bytes - to ? size : bytes.size_bytes - to;
        bool zero = is_zero(bytes.data + to, size);
        if (zero) {
            r = write_run(u, span_of(bytes.data + from, to - from), at + from);
            from = to + size;
        }
        to += size;
    }
    if (r == 0)
        r = write_run(u, span_of(bytes.data + from, to - from), at + from);
    u->plain_bytes += bytes.size_bytes;
    return r;
}

/* ---- differences from another file ---- */

static int on_copy(void *context, uint64_t at, uint64_t base_at, uint64_t count_bytes,
                   struct failure *f)
{
    static uint8_t room[READ_SIZE];
    struct unpack *u = context;
    (void)at;
    while (count_bytes > 0) {
        size_t some = count_bytes < sizeof room ? (size_t)count_bytes : sizeof room;
        int n = file_read(u->base, room, some, base_at);
        if (n <= 0)
            return fail(f, ERR_IO, "cannot read the core that '%.200s' is told from", u->plain);
        int r = on_plain(u, span_of(room, (size_t)n));
        if (r < 0)
            return r;
        base_at += (uint64_t)n;
        count_bytes -= (uint64_t)n;
    }
    return 0;
}

static int on_data(void *context, uint64_t at, struct span bytes, struct failure *f)
{
    (void)at;
    (void)f;
    return on_plain(context, bytes);
}

static int on_zero(void *context, uint64_t at, uint64_t count_bytes, struct failure *f)
{
    static const uint8_t zeros[READ_SIZE];
    int r = 0;
    (void)at;
    (void)f;
    while (r == 0 && count_bytes > 0) {
        size_t some = count_bytes < sizeof zeros ? (size_t)count_bytes : sizeof zeros;
        r = on_plain(context, span_of(zeros, some));
        count_bytes -= some;
    }
    return r;
}

static int on_patch(void *context, struct span bytes)
{
    struct unpack *u = context;
    return patch_feed(&u->patch, bytes, &u->why);
}

/* ---- life ---- */

static void close_files(struct unpack *u)
{
    if (u->in >= 0)
        port_close(u->in);
    if (u->out >= 0)
        port_close(u->out);
    if (u->base >= 0)
        port_close(u->base);
    u->in = u->out = u->base = -1;
}

void unpack_init(struct unpack *u)
{
    *u = (struct unpack){.in = -1, .out = -1, .base = -1};
}

static int open_base(struct unpack *u, const char *path, uint64_t limit_bytes, struct failure *f)
{
    struct patch_target target = {on_copy, on_data, on_zero, u};
    u->base = file_open_read(path);
    int64_t size = u->base < 0 ? u->base : file_size(u->base);
    if (size < 0)
        return file_fail(f, (int)size, "read", path);
    u->is_patch = true;
    patch_init(&u->patch, &target, (uint64_t)size, limit_bytes);
    return 0;
}

static int open_files(struct unpack *u, struct failure *f)
{
    u->in = file_open_read(u->packed);
    if (u->in < 0)
        return file_fail(f, u->in, "read", u->packed);
    u->out = file_open_new(u->plain);
    return u->out < 0 ? file_fail(f, u->out, "write", u->plain) : 0;
}

int unpack_open(struct unpack *u, const struct unpack_settings *settings, struct failure *f)
{
    unpack_init(u);
    text_copy(u->packed, sizeof u->packed, settings->packed);
    text_copy(u->plain, sizeof u->plain, settings->plain);
    u->expected_bytes = settings->expected_bytes;
    u->limit_bytes = settings->limit_bytes;
    if (u->expected_bytes > u->limit_bytes) {
        char size[32];
        text_put_size(u->expected_bytes, size, sizeof size);
        return fail(f, ERR_LIMIT, "'%.200s' would have %s unpacked: allow it with --max-size",
                    u->plain, size);
    }
    uint64_t limit = u->expected_bytes ? u->expected_bytes : u->limit_bytes;
    int r = settings->base ? open_base(u, settings->base, limit, f) : 0;
    if (r == 0)
        r = open_files(u, f);
    if (r == 0) {
        xxh64_init(&u->sum, 0);
        /* Differences may be a little longer than the file, when all of it differs. */
        r = u->is_patch ? zip_unstream_open(&u->zip, 2 * limit, on_patch, u)
                        : zip_unstream_open(&u->zip, limit, on_plain, u);
        if (r)
            r = fail(f, ERR_NOMEM, "out of memory");
    }
    if (r)
        unpack_close(u);
    return r;
}

static int fail_stream(struct unpack *u, int code, struct failure *f)
{
    if (u->why.code) {
        *f = u->why;
        return f->code;
    }
    if (code == ERR_LIMIT && !u->expected_bytes) {
        char size[32];
        text_put_size(u->limit_bytes, size, sizeof size);
        return fail(f, ERR_LIMIT,
                    "'%.200s' would have more than %s unpacked: allow it with --max-size", u->plain,
                    size);
    }
    if (code == ERR_NOMEM)
        return fail(f, code, "out of memory");
    return fail(f, ERR_CORRUPT, "all of '%.200s' came and it cannot be unpacked: it stays as it is",
                u->packed);
}

static int finish(struct unpack *u, struct failure *f)
{
    bool wrong_size = u->expected_bytes && u->plain_bytes != u->expected_bytes;
    if (u->is_patch && patch_end(&u->patch, &u->why))
        return fail_stream(u, ERR_CORRUPT, f);
    if (zip_unstream_end(u->zip) < 0 || wrong_size)
        return fail_stream(u, ERR_CORRUPT, f);
    int r = file_truncate(u->out, u->plain_bytes); /* it may end in a hole */
    if (r == 0)
        r = file_sync(u->out);
    if (r < 0)
        return file_fail(f, r, "write", u->plain);
    close_files(u);
    return 0;
}

static int read_and_feed(struct unpack *u, struct failure *f)
{
    static uint8_t room[READ_SIZE];
    int n = file_read(u->in, room, sizeof room, u->taken_bytes);
    if (n < 0)
        return file_fail(f, n, "read", u->packed);
    if (n == 0)
        return finish(u, f);
    u->taken_bytes += (uint64_t)n;
    int r = zip_unstream_feed(u->zip, span_of(room, (size_t)n));
    return r < 0 ? fail_stream(u, r, f) : 1;
}

int unpack_step(struct unpack *u, uint64_t budget_us, struct failure *f)
{
    uint64_t end_us = port_mono_us() + budget_us;
    int r;
    do
        r = read_and_feed(u, f);
    while (r > 0 && port_mono_us() < end_us);
    if (r <= 0)
        unpack_close(u);
    return r;
}

void unpack_close(struct unpack *u)
{
    bool half = u->out >= 0;
    close_files(u);
    zip_unstream_close(u->zip);
    u->zip = NULL;
    if (half)
        file_remove(u->plain);
}
