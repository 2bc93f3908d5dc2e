/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differences between two cores of one process. The new core's own program headers, which come
 * first, say which address each page of the file has; the same address is then looked up in the
 * page list of the earlier core. Invariant: what is not surely equal is sent. Called by the worker.
 */
#include "agent/delta.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "common/patch.h"
#include "common/port.h"
#include "common/xxh64.h"

#define LIST_MAGIC "TRWLPGS1"
#define LIST_SEGMENT_SIZE 24
#define HEADERS_MAX (8u << 20) /* of a core: program headers */
#define HASH_BLOCK 8192u       /* hashes allocated at once */
#define HASH_BLOCKS (DELTA_PAGES_MAX / HASH_BLOCK)
#define RUN_BYTES (256u << 10) /* of changed pages, before they are written */
#define RUN_MAX (16u << 20)    /* of one record: who applies it does other things in between */
#define OUT_MAX (RUN_BYTES + 1024)
#define LIST_PIECE (32u << 10) /* of a page list: handed over at a time */

/* [address, address + size_bytes) of memory stands at [offset, ...) of the file. */
struct segment {
    uint64_t address, offset, size_bytes;
};

struct delta {
    delta_write_fn write;
    void *context;
    struct os_process process;
    uint64_t seed;
    /* The base: in the list that was handed in. */
    bool has_base;
    struct span base_segments, base_hashes;
    uint64_t base_bytes;
    size_t base_count;
    /* The new core: its segments by rising offset, and the hash of each page so far. */
    struct buf headers;
    bool has_segments, no_segments;
    struct segment *segments;
    size_t segment_count, segment_hint;
    uint64_t *hashes[HASH_BLOCKS]; /* blocks of HASH_BLOCK: none is moved when more come */
    size_t hash_count;
    bool too_large;
    uint8_t partial[DELTA_PAGE];
    size_t partial_bytes;
    uint64_t at;
    /* The run of equal records that is being gathered. */
    enum patch_op run_op;
    uint64_t run_base_at, run_bytes;
    struct buf run_data, out;
    uint64_t shared_bytes;
};

static uint64_t read_u64(struct span s, size_t index)
{
    struct span one = span_of(s.data + index * sizeof(uint64_t), sizeof(uint64_t));
    uint64_t value = 0;
    (void)span_take_u64(&one, &value);
    return value;
}

static struct segment base_segment(const struct delta *d, size_t index)
{
    struct span s = d->base_segments;
    return (struct segment){read_u64(s, 3 * index), read_u64(s, 3 * index + 1),
                            read_u64(s, 3 * index + 2)};
}

/* ---- the list of the base ---- */

static int read_list(struct delta *d, struct span list)
{
    struct span magic;
    uint32_t pid, count, reserved;
    uint64_t start_ticks;
    if (span_take(&list, sizeof LIST_MAGIC - 1, &magic) ||
        !span_equal(magic, span_str(LIST_MAGIC)) || span_take_u32(&list, &pid) ||
        span_take_u32(&list, &reserved) || span_take_u64(&list, &start_ticks) ||
        span_take_u64(&list, &d->seed) || span_take_u64(&list, &d->base_bytes) ||
        span_take_u32(&list, &count) || span_take_u32(&list, &reserved))
        return ERR_CORRUPT;
    if (pid != d->process.pid || start_ticks != d->process.start_ticks)
        return ERR_CONFLICT;
    uint64_t pages = d->base_bytes / DELTA_PAGE;
    if (pages > DELTA_PAGES_MAX ||
        span_take(&list, (size_t)count * LIST_SEGMENT_SIZE, &d->base_segments) ||
        list.size_bytes != pages * sizeof(uint64_t))
        return ERR_CORRUPT;
    d->base_hashes = list;
    d->base_count = count;
    for (size_t i = 1; i < count; i++)
        if (base_segment(d, i - 1).address >= base_segment(d, i).address)
            return ERR_CORRUPT; /* they are searched by halves */
    d->has_base = true;
    return 0;
}

int delta_open(struct delta **out, const struct os_process *process, struct span base,
               delta_write_fn write, void *context, struct failure *f)
{
    struct delta *d = calloc(1, sizeof *d);
    if (!d)
        return fail(f, ERR_NOMEM, "out of memory");
    d->process = *process;
    d->write = write;
    d->context = context;
    buf_init(&d->headers, HEADERS_MAX);
    buf_init(&d->run_data, RUN_BYTES);
    buf_init(&d->out, OUT_MAX);
    int e = 0;
    if (base.size_bytes > 0 && read_list(d, base))
        e = fail(f, ERR_CONFLICT, "the list of pages is not one of this process");
    else if (!d->has_base)
        port_random(&d->seed, sizeof d->seed);
    if (!e && d->has_base)
        e = patch_put_head(&d->out, d->base_bytes);
    if (e) {
        delta_close(d);
        return e;
    }
    *out = d;
    return 0;
}

void delta_close(struct delta *d)
{
    if (!d)
        return;
    buf_done(&d->headers);
    buf_done(&d->run_data);
    buf_done(&d->out);
    free(d->segments);
    for (size_t i = 0; i < HASH_BLOCKS; i++)
        free(d->hashes[i]);
    free(d);
}

bool delta_is_patch(const struct delta *d)
{
    return d->has_base;
}

uint64_t delta_shared_bytes(const struct delta *d)
{
    return d->shared_bytes;
}

/* ---- the new core's program headers (elf(5)) ---- */

static int take_segments(struct delta *d, const Elf64_Ehdr *head)
{
    d->segments = calloc(head->e_phnum + 1u, sizeof *d->segments);
    if (!d->segments)
        return ERR_NOMEM;
    uint64_t end = 0;
    for (size_t i = 0; i < head->e_phnum; i++) {
        Elf64_Phdr ph;
        memcpy(&ph, d->headers.data + head->e_phoff + i * sizeof ph, sizeof ph);
        if (ph.p_type != PT_LOAD || ph.p_filesz == 0)
            continue;
        if (ph.p_offset < end || ph.p_filesz > UINT64_MAX / 2 || ph.p_offset > UINT64_MAX / 2) {
            d->no_segments = true; /* not in the order of the file */
            d->segment_count = 0;
            return 0;
        }
        end = ph.p_offset + ph.p_filesz;
        d->segments[d->segment_count++] = (struct segment){ph.p_vaddr, ph.p_offset, ph.p_filesz};
    }
    d->has_segments = true;
    return 0;
}

/* Looks whether all of the program headers are there. What is no core, or one whose headers are not
 * in front, has no segments: all of it is sent. */
static int look_for_segments(struct delta *d, struct span page)
{
    Elf64_Ehdr head;
    if (d->has_segments || d->no_segments)
        return 0;
    int e = buf_append_span(&d->headers, page);
    if (e && e != ERR_LIMIT)
        return e;
    d->no_segments = e == ERR_LIMIT || d->headers.size_bytes < sizeof head;
    if (d->no_segments)
        return 0;
    memcpy(&head, d->headers.data, sizeof head);
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_type != ET_CORE ||
        head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phnum == PN_XNUM ||
        head.e_phoff > HEADERS_MAX) {
        d->no_segments = true;
        return 0;
    }
    if (head.e_phoff + head.e_phnum * sizeof(Elf64_Phdr) > d->headers.size_bytes)
        return 0; /* not yet */
    e = take_segments(d, &head);
    buf_done(&d->headers);
    return e;
}

/* Which address the page at `offset` of the file has; false: none. */
static bool address_of(struct delta *d, uint64_t offset, uint64_t *address)
{
    while (d->segment_hint < d->segment_count &&
           offset >= d->segments[d->segment_hint].offset + d->segments[d->segment_hint].size_bytes)
        d->segment_hint++;
    if (d->segment_hint == d->segment_count)
        return false;
    const struct segment *s = &d->segments[d->segment_hint];
    if (offset < s->offset || s->size_bytes - (offset - s->offset) < DELTA_PAGE)
        return false;
    *address = s->address + (offset - s->offset);
    return true;
}

/* The last segment of the base that begins at or below this address; base_count: none. */
static size_t search_base(const struct delta *d, uint64_t address)
{
    size_t low = 0, high = d->base_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (base_segment(d, middle).address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? low - 1 : d->base_count;
}

/* Where the base has this address, on a page of its file; false: it has not. */
static bool find_in_base(const struct delta *d, uint64_t address, uint64_t *base_at)
{
    size_t index = search_base(d, address);
    if (index == d->base_count)
        return false;
    struct segment s = base_segment(d, index);
    uint64_t inside = address - s.address, at = s.offset + inside;
    if (inside >= s.size_bytes || at < inside || at % DELTA_PAGE != 0 || at > d->base_bytes ||
        d->base_bytes - at < DELTA_PAGE)
        return false;
    *base_at = at;
    return true;
}

/* ---- writing ---- */

static int flush_out(struct delta *d, struct failure *f)
{
    int e = d->out.size_bytes ? d->write(d->context, buf_span(&d->out), f) : 0;
    buf_clear(&d->out);
    return e;
}

static int end_run(struct delta *d, struct failure *f)
{
    if (d->run_bytes == 0)
        return 0;
    int e = patch_put_record(&d->out, d->run_op, d->run_base_at, d->run_bytes);
    if (!e && d->run_op == PATCH_DATA)
        e = buf_append_span(&d->out, buf_span(&d->run_data));
    if (e)
        return fail(f, e, "out of memory");
    buf_clear(&d->run_data);
    d->run_bytes = 0;
    return flush_out(d, f);
}

static int add_to_run(struct delta *d, enum patch_op op, uint64_t base_at, struct span bytes,
                      struct failure *f)
{
    bool goes_on = d->run_bytes > 0 && d->run_op == op &&
                   (op != PATCH_COPY || d->run_base_at + d->run_bytes == base_at) &&
                   d->run_bytes + bytes.size_bytes <= (op == PATCH_DATA ? RUN_BYTES : RUN_MAX);
    int e = goes_on ? 0 : end_run(d, f);
    if (e)
        return e;
    if (!goes_on) {
        d->run_op = op;
        d->run_base_at = op == PATCH_COPY ? base_at : 0;
    }
    if (op == PATCH_DATA && buf_append_span(&d->run_data, bytes))
        return fail(f, ERR_NOMEM, "out of memory");
    d->run_bytes += bytes.size_bytes;
    return 0;
}

static bool is_zero(struct span page)
{
    static const uint8_t zeros[DELTA_PAGE];
    return memcmp(page.data, zeros, page.size_bytes) == 0;
}

static int put_page(struct delta *d, struct span page, uint64_t hash, bool has_address,
                    uint64_t address, struct failure *f)
{
    uint64_t base_at;
    if (is_zero(page))
        return add_to_run(d, PATCH_ZERO, 0, page, f);
    if (has_address && find_in_base(d, address, &base_at) &&
        read_u64(d->base_hashes, base_at / DELTA_PAGE) == hash) {
        d->shared_bytes += page.size_bytes;
        return add_to_run(d, PATCH_COPY, base_at, page, f);
    }
    return add_to_run(d, PATCH_DATA, 0, page, f);
}

/* Where there is no room there is no list, so no base: the core itself is whole. */
static void keep_hash(struct delta *d, uint64_t hash)
{
    size_t block = d->hash_count / HASH_BLOCK;
    if (!d->too_large && block < HASH_BLOCKS && !d->hashes[block])
        d->hashes[block] = malloc(HASH_BLOCK * sizeof(uint64_t));
    d->too_large = d->too_large || block >= HASH_BLOCKS || !d->hashes[block];
    if (!d->too_large)
        d->hashes[block][d->hash_count++ % HASH_BLOCK] = hash;
}

/* A whole page of the new core; at the file's end it may be shorter. */
static int take_page(struct delta *d, struct span page, struct failure *f)
{
    uint64_t address = 0;
    if (look_for_segments(d, page))
        return fail(f, ERR_NOMEM, "out of memory");
    bool has_address = page.size_bytes == DELTA_PAGE && address_of(d, d->at, &address);
    uint64_t hash = xxh64(page, d->seed);
    d->at += page.size_bytes;
    if (d->has_base)
        return put_page(d, page, hash, has_address, address, f);
    if (page.size_bytes == DELTA_PAGE)
        keep_hash(d, hash);
    return 0;
}

static int take_pages(struct delta *d, struct span bytes, struct failure *f)
{
    int e = 0;
    while (!e && bytes.size_bytes > 0) {
        size_t some = DELTA_PAGE - d->partial_bytes;
        if (d->partial_bytes == 0 && bytes.size_bytes >= DELTA_PAGE) {
            e = take_page(d, span_of(bytes.data, DELTA_PAGE), f);
        } else {
            if (some > bytes.size_bytes)
                some = bytes.size_bytes;
            memcpy(d->partial + d->partial_bytes, bytes.data, some);
            d->partial_bytes += some;
            if (d->partial_bytes == DELTA_PAGE) {
                d->partial_bytes = 0;
                e = take_page(d, span_of(d->partial, DELTA_PAGE), f);
            }
        }
        bytes = span_of(bytes.data + some, bytes.size_bytes - some);
    }
    return e;
}

int delta_feed(struct delta *d, struct span bytes, struct failure *f)
{
    int e = take_pages(d, bytes, f);
    if (!e && !d->has_base)
        e = d->write(d->context, bytes, f);
    return e;
}

int delta_end(struct delta *d, struct failure *f)
{
    int e = 0;
    if (d->partial_bytes > 0)
        e = take_page(d, span_of(d->partial, d->partial_bytes), f);
    d->partial_bytes = 0;
    if (e || !d->has_base)
        return e;
    e = end_run(d, f);
    if (!e && patch_put_record(&d->out, PATCH_END, 0, d->at))
        e = fail(f, ERR_NOMEM, "out of memory");
    return e ? e : flush_out(d, f);
}

/* ---- the list of this core ---- */

static int put_list_head(const struct delta *d, struct buf *out)
{
    int e = buf_append(out, LIST_MAGIC, sizeof LIST_MAGIC - 1);
    if (!e)
        e = buf_append_u32(out, d->process.pid);
    if (!e)
        e = buf_append_u32(out, 0);
    const uint64_t numbers[] = {d->process.start_ticks, d->seed, d->at};
    for (size_t i = 0; !e && i < sizeof numbers / sizeof numbers[0]; i++)
        e = buf_append_u64(out, numbers[i]);
    if (!e)
        e = buf_append_u32(out, (uint32_t)d->segment_count);
    return e ? e : buf_append_u32(out, 0);
}

bool delta_has_list(const struct delta *d)
{
    return !d->has_base && !d->too_large && d->has_segments;
}

static int put_segment(const struct segment *s, struct buf *out)
{
    int e = buf_append_u64(out, s->address);
    if (!e)
        e = buf_append_u64(out, s->offset);
    return e ? e : buf_append_u64(out, s->size_bytes);
}

/* Hands over what has gathered once it is enough. */
static int flush_list(struct buf *out, size_t at_least, delta_write_fn write, void *context,
                      struct failure *f)
{
    if (out->size_bytes == 0 || out->size_bytes < at_least)
        return 0;
    int e = write(context, buf_span(out), f);
    buf_clear(out);
    return e;
}

static int write_list(const struct delta *d, struct buf *out, delta_write_fn write, void *context,
                      struct failure *f)
{
    int e = put_list_head(d, out);
    for (size_t i = 0; !e && i < d->segment_count; i++) {
        e = put_segment(&d->segments[i], out);
        if (!e)
            e = flush_list(out, LIST_PIECE, write, context, f);
    }
    for (size_t i = 0; !e && i < d->hash_count; i++) {
        e = buf_append_u64(out, d->hashes[i / HASH_BLOCK][i % HASH_BLOCK]);
        if (!e)
            e = flush_list(out, LIST_PIECE, write, context, f);
    }
    return e ? e : flush_list(out, 0, write, context, f);
}

int delta_write_list(const struct delta *d, delta_write_fn write, void *context, struct failure *f)
{
    struct buf out;
    struct failure why = {0, ""};
    if (!delta_has_list(d))
        return fail(f, ERR_UNSUPPORTED, "no list of pages can be made of this core");
    buf_init(&out, 2 * LIST_PIECE);
    int e = write_list(d, &out, write, context, &why);
    buf_done(&out);
    if (e && f)
        *f = why;
    return e && !why.code ? fail(f, e, "no memory for a list of %zu pages", d->hash_count) : e;
}
