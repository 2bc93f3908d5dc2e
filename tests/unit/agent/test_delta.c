/* SPDX-License-Identifier: Apache-2.0 */
/* Cores made up in memory: what a later one is told as, and that applying it gives the same file.
 */
#include "agent/delta.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "common/patch.h"
#include "tests/check.h"

#define PAGES 64
#define SEGMENTS 2
#define NOTES 100 /* bytes, so that the first segment is aligned by a gap */
#define BASE_ADDRESS 0x7f0000000000u
#define FIRST 4096

static const struct os_process process = {.pid = 42, .start_ticks = 4711};

/* A core of two segments of PAGES pages; `moved`: the second lies elsewhere in the file. */
static void make_core(struct buf *out, unsigned seed, size_t gap_pages)
{
    Elf64_Ehdr head = {.e_type = ET_CORE,
                       .e_phoff = sizeof head,
                       .e_phentsize = sizeof(Elf64_Phdr),
                       .e_phnum = SEGMENTS};
    memcpy(head.e_ident, ELFMAG, SELFMAG);
    buf_append(out, &head, sizeof head);
    for (size_t i = 0; i < SEGMENTS; i++) {
        Elf64_Phdr ph = {.p_type = PT_LOAD,
                         .p_vaddr = BASE_ADDRESS + i * 0x1000000,
                         .p_offset = FIRST + i * (PAGES + gap_pages) * DELTA_PAGE,
                         .p_filesz = PAGES * DELTA_PAGE};
        buf_append(out, &ph, sizeof ph);
    }
    while (out->size_bytes < FIRST)
        buf_append_byte(out, 7);
    for (size_t page = 0; page < SEGMENTS * PAGES + gap_pages; page++) {
        bool is_gap = page >= PAGES && page < PAGES + gap_pages;
        for (size_t i = 0; i < DELTA_PAGE; i++)
            buf_append_byte(
                out,
                is_gap ? 0 : (uint8_t)((page - (page >= PAGES ? gap_pages : 0)) * 31 + i * seed));
    }
}

static int collect(void *context, struct span bytes, struct failure *f)
{
    (void)f;
    return buf_append_span(context, bytes);
}

/* Feeds in pieces of `step` bytes. */
static void run(struct delta *d, struct span core, size_t step)
{
    struct failure f = {0, ""};
    for (size_t at = 0; at < core.size_bytes; at += step) {
        size_t some = core.size_bytes - at < step ? core.size_bytes - at : step;
        REQUIRE(delta_feed(d, span_of(core.data + at, some), &f) == 0);
    }
    REQUIRE(delta_end(d, &f) == 0);
}

/* ---- applying ---- */

struct file {
    struct span base;
    struct buf bytes;
};

static int on_copy(void *context, uint64_t at, uint64_t base_at, uint64_t count, struct failure *f)
{
    struct file *file = context;
    (void)f;
    REQUIRE(at == file->bytes.size_bytes);
    REQUIRE(base_at + count <= file->base.size_bytes);
    return buf_append(&file->bytes, file->base.data + base_at, (size_t)count);
}

static int on_data(void *context, uint64_t at, struct span bytes, struct failure *f)
{
    struct file *file = context;
    (void)f;
    REQUIRE(at == file->bytes.size_bytes);
    return buf_append_span(&file->bytes, bytes);
}

static int on_zero(void *context, uint64_t at, uint64_t count, struct failure *f)
{
    struct file *file = context;
    (void)f;
    REQUIRE(at == file->bytes.size_bytes);
    for (uint64_t i = 0; i < count; i++)
        buf_append_byte(&file->bytes, 0);
    return 0;
}

static int apply(struct span patch, struct span base, struct file *file, size_t step,
                 struct failure *f)
{
    struct patch p;
    struct patch_target target = {on_copy, on_data, on_zero, file};
    file->base = base;
    buf_init(&file->bytes, 8u << 20);
    patch_init(&p, &target, base.size_bytes, 8u << 20);
    int e = 0;
    for (size_t at = 0; !e && at < patch.size_bytes; at += step) {
        size_t some = patch.size_bytes - at < step ? patch.size_bytes - at : step;
        e = patch_feed(&p, span_of(patch.data + at, some), f);
    }
    return e ? e : patch_end(&p, f);
}

struct cores {
    struct buf first, second, passed, list, patch;
};

static void init(struct cores *c)
{
    buf_init(&c->first, 8u << 20);
    buf_init(&c->second, 8u << 20);
    buf_init(&c->passed, 8u << 20);
    buf_init(&c->list, 8u << 20);
    buf_init(&c->patch, 8u << 20);
}

static void done(struct cores *c)
{
    buf_done(&c->first);
    buf_done(&c->second);
    buf_done(&c->passed);
    buf_done(&c->list);
    buf_done(&c->patch);
}

static void take_first(struct cores *c, size_t step)
{
    struct delta *d;
    struct failure f = {0, ""};
    make_core(&c->first, 3, 0);
    REQUIRE(delta_open(&d, &process, span_of(NULL, 0), collect, &c->passed, &f) == 0);
    run(d, buf_span(&c->first), step);
    CHECK(!delta_is_patch(d));
    REQUIRE(delta_write_list(d, collect, &c->list, &f) == 0);
    delta_close(d);
}

static uint64_t take_second(struct cores *c, size_t step)
{
    struct delta *d;
    struct failure f = {0, ""};
    REQUIRE(delta_open(&d, &process, buf_span(&c->list), collect, &c->patch, &f) == 0);
    run(d, buf_span(&c->second), step);
    CHECK(delta_is_patch(d));
    uint64_t shared = delta_shared_bytes(d);
    delta_close(d);
    return shared;
}

TEST(without_a_base_the_core_is_passed_on)
{
    struct cores c;
    init(&c);
    take_first(&c, 1000);
    CHECK(span_equal(buf_span(&c.first), buf_span(&c.passed)));
    done(&c);
}

static void check_round_trip(size_t gap_pages, size_t step)
{
    struct cores c;
    struct file file;
    struct failure f = {0, ""};
    init(&c);
    take_first(&c, step);
    make_core(&c.second, 3, gap_pages);
    /* One page of each segment has changed. */
    c.second.data[FIRST + 5 * DELTA_PAGE + 9] ^= 1;
    c.second.data[FIRST + (PAGES + gap_pages + 7) * DELTA_PAGE] ^= 1;
    uint64_t shared = take_second(&c, step);
    CHECK_EQ_INT(shared, (SEGMENTS * PAGES - 2) * DELTA_PAGE);
    CHECK(c.patch.size_bytes < 16 * DELTA_PAGE);
    CHECK_EQ_INT(apply(buf_span(&c.patch), buf_span(&c.first), &file, step, &f), 0);
    CHECK(span_equal(buf_span(&c.second), buf_span(&file.bytes)));
    buf_done(&file.bytes);
    done(&c);
}

TEST(only_changed_pages_are_sent)
{
    check_round_trip(0, 1u << 20);
    check_round_trip(0, 777);
}

TEST(pages_are_found_by_address_when_they_moved_in_the_file)
{
    check_round_trip(3, 1u << 20);
    check_round_trip(11, 4097);
}

TEST(what_is_no_core_is_sent_whole)
{
    struct cores c;
    struct file file;
    struct failure f = {0, ""};
    init(&c);
    take_first(&c, 4096);
    for (size_t i = 0; i < 10000; i++)
        buf_append_byte(&c.second, (uint8_t)(i * 7 + 1));
    CHECK_EQ_INT(take_second(&c, 100), 0);
    CHECK_EQ_INT(apply(buf_span(&c.patch), buf_span(&c.first), &file, 64, &f), 0);
    CHECK(span_equal(buf_span(&c.second), buf_span(&file.bytes)));
    buf_done(&file.bytes);
    done(&c);
}

TEST(a_list_of_another_process_is_refused)
{
    struct cores c;
    struct delta *d;
    struct failure f = {0, ""};
    struct os_process other = process;
    init(&c);
    take_first(&c, 4096);
    other.start_ticks++;
    CHECK_EQ_INT(delta_open(&d, &other, buf_span(&c.list), collect, &c.patch, &f), ERR_CONFLICT);
    c.list.size_bytes -= 8;
    CHECK_EQ_INT(delta_open(&d, &process, buf_span(&c.list), collect, &c.patch, &f), ERR_CONFLICT);
    done(&c);
}

TEST(a_patch_that_reaches_too_far_is_refused)
{
    struct buf p;
    struct file file;
    struct failure f = {0, ""};
    static const uint8_t base[100];
    static const struct {
        enum patch_op op;
        uint64_t at, count;
        int error;
    } rows[] = {
        {PATCH_COPY, 90, 11, ERR_CORRUPT},      {PATCH_COPY, UINT64_MAX, 1, ERR_CORRUPT},
        {PATCH_ZERO, 0, UINT64_MAX, ERR_LIMIT}, {PATCH_END, 0, 1, ERR_CORRUPT},
        {(enum patch_op)9, 0, 1, ERR_CORRUPT},  {PATCH_COPY, 90, 10, ERR_CORRUPT /* no end */}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        buf_init(&p, 4096);
        patch_put_head(&p, sizeof base);
        patch_put_record(&p, rows[i].op, rows[i].at, rows[i].count);
        CHECK_EQ_INT(apply(buf_span(&p), span_of(base, sizeof base), &file, 4096, &f),
                     rows[i].error);
        buf_done(&file.bytes);
        buf_done(&p);
    }
    buf_init(&p, 4096);
    patch_put_head(&p, 99);
    CHECK_EQ_INT(apply(buf_span(&p), span_of(base, sizeof base), &file, 3, &f), ERR_CONFLICT);
    buf_done(&file.bytes);
    buf_done(&p);
}
