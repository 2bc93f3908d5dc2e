/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a dying process that is worth having: stacks of all threads, what the dynamic
 * loader knows, small writable mappings, the first page of each mapped file, and what the failing
 * thread's registers and stack point to. Invariant: at most limits->pool_bytes are copied, and what
 * its owner keeps out of cores stays out. Called by crash_take.c.
 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/crash_linux.h"
#include "agent/os/linux/stacks_linux.h"
#include "common/port.h"

#define RED_ZONE 128u
#define STACK_FAILED_BYTES (1u << 20) /* of the thread that failed */
#define STACK_LEAST_BYTES (8u << 10)
#define STACK_GAP_BYTES (1u << 20) /* so far below its stack a pointer may be after an overflow */
#define LOADER_PAGES 1024u
#define HEADER_PAGES 512u
#define POINTED_PAGES 256u
#define PYTHON_PAGES 512u
#define SECOND_PAGES 64u
#define TLS_PAGES 2u
#define POINTED_US 2000u

/* ---- what its owner keeps out ---- */

static bool is_own_memory(const Elf64_Phdr *p)
{
    return p->p_type == PT_LOAD && (p->p_flags & PF_W) && p->p_memsz > 0;
}

static size_t segment_count(const struct os_crash *c, const Elf64_Ehdr *e)
{
    size_t most = (c->core_head.size_bytes - e->e_phoff) / sizeof(Elf64_Phdr);
    return e->e_phnum < most ? e->e_phnum : most;
}

/*
 * madvise(2), MADV_DONTDUMP: the kernel gives such a mapping no bytes in the core. Where no mapping
 * has any (coredump_filter), it says nothing of secrets.
 */
static void note_kept_out(struct os_crash *c)
{
    Elf64_Ehdr e;
    size_t out = 0, in = 0;
    memcpy(&e, c->core_head.data, sizeof e);
    size_t count = segment_count(c, &e);
    for (size_t i = 0; i < count; i++) {
        Elf64_Phdr p;
        memcpy(&p, c->core_head.data + e.e_phoff + i * sizeof p, sizeof p);
        out += is_own_memory(&p) && p.p_filesz == 0;
        in += is_own_memory(&p) && p.p_filesz > 0;
    }
    if (out == 0 || in == 0)
        return;
    struct area *list = calloc(out, sizeof *list);
    if (!list)
        return;
    size_t used = 0;
    for (size_t i = 0; i < count && used < out; i++) {
        Elf64_Phdr p;
        memcpy(&p, c->core_head.data + e.e_phoff + i * sizeof p, sizeof p);
        if (is_own_memory(&p) && p.p_filesz == 0)
            list[used++] = (struct area){
                .start = p.p_vaddr, .end = p.p_vaddr + p.p_memsz, .flags = AREA_DONT_DUMP};
    }
    c->dump.areas = (struct areas){list, used, used};
}

/* ---- stacks ---- */

/* [*start, *end) of a thread's stack, at most `most` bytes; false: there is none. */
static bool plan_stack(const struct os_crash *c, uint64_t pointer, uint64_t most, uint64_t *start,
                       uint64_t *end, bool *whole)
{
    const struct maps *maps = &c->dump.maps;
    if (pointer < 2 * RED_ZONE || pointer >> 47)
        return false;
    const struct map *map = maps_find(maps, pointer);
    *start = (pointer - RED_ZONE) & ~(uint64_t)15;
    for (uint64_t gap = 0; !map && gap < STACK_GAP_BYTES; gap += SEGMENTS_PAGE) {
        map = maps_find(maps, (pointer | (SEGMENTS_PAGE - 1)) + 1 + gap);
        if (map && !map->writable)
            map = NULL;
    }
    if (!map || !dump_may_copy(&c->dump, map))
        return false;
    if (*start < map->start)
        *start = map->start;
    *whole = map->end - *start <= most;
    *end = *whole ? map->end : *start + most;
    return true;
}

static uint64_t share_of(size_t index, uint64_t each)
{
    return index == 0 && each < STACK_FAILED_BYTES ? STACK_FAILED_BYTES : each;
}

/* Wants them; only counts when the set has no room at all yet. */
static size_t want_stacks(struct os_crash *c, uint64_t each, bool want)
{
    size_t pages = 0;
    struct dump *d = &c->dump;
    for (size_t i = 0; i < d->stop.count; i++) {
        struct crash_thread *t = &c->threads[i];
        uint64_t start, end;
        bool whole;
        if (!plan_stack(c, d->stop.threads[i].regs.rsp, share_of(i, each), &start, &end, &whole))
            continue;
        pages += (size_t)((end - (start & ~(uint64_t)(SEGMENTS_PAGE - 1)) + SEGMENTS_PAGE - 1) /
                          SEGMENTS_PAGE);
        if (!want)
            continue;
        size_t without = copies_want_range(&d->copies, start, end, SIZE_MAX);
        t->stack_start = start;
        t->stack_bytes = (size_t)(end - start);
        t->end_copied = whole && without == 0;
        d->stacks_cut += !whole || without > 0;
    }
    return pages;
}

static void want_storage(struct dump *d)
{
    for (size_t i = 0; i < d->stop.count; i++) {
        uint64_t pointer = d->stop.threads[i].regs.fs_base;
        const struct map *map = pointer ? maps_find(&d->maps, pointer) : NULL;
        if (map && map->writable && dump_may_copy(d, map))
            (void)copies_want(&d->copies, pointer);
    }
}

/* gdb and lldb know a file by the ELF header at its beginning, the unwinder by its build-id. */
static void want_headers(struct dump *d)
{
    size_t wanted = 0;
    for (size_t i = 0; i < d->maps.count && wanted < HEADER_PAGES; i++) {
        const struct map *map = &d->maps.list[i];
        const char *path = maps_path(&d->maps, map);
        bool is_vdso = strcmp(path, "[vdso]") == 0;
        if (is_vdso)
            (void)copies_want_range(&d->copies, map->start, map->end, SIZE_MAX);
        if (map->readable && map->offset == 0 && map->inode != 0 && dump_may_copy(d, map))
            wanted += copies_want(&d->copies, map->start);
    }
}

/* ---- reading ---- */

static bool lie_together(const struct copies *copies, const uint8_t *first, uint64_t start,
                         uint64_t end)
{
    uint64_t page = start & ~(uint64_t)(SEGMENTS_PAGE - 1);
    for (uint64_t at = page; at < end; at += SEGMENTS_PAGE)
        if (copies_find(copies, at) != first + (at - page))
            return false;
    return true;
}

static size_t pages_of(uint64_t bytes)
{
    return (size_t)(bytes / SEGMENTS_PAGE);
}

/* A handler with a stack of its own (sigaltstack(2)): where the thread was before. */
static int fetch_second(struct os_crash *c)
{
    struct dump *d = &c->dump;
    struct crash_thread *t = &c->threads[0];
    uint64_t page = t->stack_start & ~(uint64_t)(SEGMENTS_PAGE - 1), start, end, before;
    const uint8_t *first = copies_find(&d->copies, page);
    bool whole;
    if (!first || t->stack_bytes == 0 ||
        !lie_together(&d->copies, first, page, t->stack_start + t->stack_bytes))
        return 0;
    struct stacks_copy copy = {.start = t->stack_start,
                               .size_bytes = t->stack_bytes,
                               .data = (uint8_t *)first + (t->stack_start - page),
                               .sp = d->stop.threads[0].regs.rsp};
    before = stacks_find_signal(&copy);
    if (!before || !plan_stack(c, before, SECOND_PAGES * SEGMENTS_PAGE, &start, &end, &whole))
        return 0;
    if (copies_want_range(&d->copies, start, end, SIZE_MAX) > 0)
        return 0;
    t->second_start = start;
    t->second_bytes = (size_t)(end - start);
    return copies_fetch(&d->copies, d->process.pid, NULL);
}

static int fetch_failed_first(struct os_crash *c)
{
    struct dump *d = &c->dump;
    size_t threads = d->stop.count;
    int rc = copies_fetch(&d->copies, d->process.pid, NULL);
    if (rc == 0)
        rc = fetch_second(c);
    if (rc)
        return rc;
    d->stop.count = 1; /* only what the failing thread points to */
    d->stop.limit_us = UINT64_MAX / 2;
    d->stop.began_us = 0;
    rc = dump_fetch_pointed(d, port_mono_us() + POINTED_US);
    d->stop.count = threads;
    return rc == ERR_TIMEOUT ? 0 : rc;
}

int crash_copy_memory(struct os_crash *c, const struct os_crash_limits *limits, struct failure *f)
{
    struct dump *d = &c->dump;
    size_t threads = d->stop.count, pool = pages_of(limits->pool_bytes);
    note_kept_out(c);
    uint64_t each = limits->pool_bytes / 8 * 7 / threads;
    if (each > limits->stack_bytes)
        each = limits->stack_bytes;
    if (each < STACK_LEAST_BYTES)
        each = STACK_LEAST_BYTES;
    each &= ~(uint64_t)(SEGMENTS_PAGE - 1);
    size_t need = want_stacks(c, each, false) + threads * TLS_PAGES + LOADER_PAGES + HEADER_PAGES +
                  SECOND_PAGES + POINTED_PAGES + PYTHON_PAGES;
    int rc = copies_init_untouched(&d->copies, need < pool ? need : pool, f);
    if (rc)
        return rc;
    want_stacks(c, each, true);
    want_storage(d);
    want_headers(d);
    dump_want_loader(d, d->copies.count + LOADER_PAGES);
    rc = fetch_failed_first(c);
    return rc ? fail(f, rc, "process ended while its memory was read") : 0;
}

/* ---- afterwards ---- */

/* The second one is looked at only when its pages lie together, as they do. */
static void find_second(struct os_crash *c, struct crash_thread *t)
{
    const uint8_t *first = copies_find(&c->dump.copies, t->second_start);
    uint64_t end = t->second_start + t->second_bytes;
    if (first && lie_together(&c->dump.copies, first, t->second_start, end))
        t->second = first + t->second_start % SEGMENTS_PAGE;
    else
        t->second_bytes = 0;
}

/* From the first page that could be read to the last one before a gap. */
static void find_stack(struct os_crash *c, struct crash_thread *t)
{
    const struct copies *copies = &c->dump.copies;
    uint64_t start = t->stack_start, end = start + t->stack_bytes, mask = SEGMENTS_PAGE - 1;
    while (start < end && !copies_find(copies, start))
        start = (start | mask) + 1;
    uint64_t stop = start;
    while (stop < end && copies_find(copies, stop))
        stop = (stop | mask) + 1;
    if (stop > end)
        stop = end;
    t->end_copied = t->end_copied && stop == end;
    t->stack_start = start;
    t->stack_bytes = start < stop ? (size_t)(stop - start) : 0;
    if (t->stack_bytes == 0)
        return;
    const uint8_t *first = copies_find(copies, start);
    if (lie_together(copies, first, start, stop)) {
        t->stack = first + (start & mask);
        return;
    }
    /* The buffer may move: filled here, pointed to at the end. */
    uint8_t *room;
    if (buf_reserve(&c->assembled, t->stack_bytes, &room)) {
        t->stack_bytes = 0;
        return;
    }
    for (uint64_t at = start; at < stop;) {
        uint64_t next = (at | mask) + 1 < stop ? (at | mask) + 1 : stop;
        (void)buf_append(&c->assembled, copies_find(copies, at) + (at & mask), (size_t)(next - at));
        at = next;
    }
}

void crash_find_stacks(struct os_crash *c)
{
    size_t at = 0;
    for (size_t i = 0; i < c->dump.stop.count; i++)
        if (c->threads[i].stack_bytes > 0)
            find_stack(c, &c->threads[i]);
    if (c->threads[0].second_bytes > 0)
        find_second(c, &c->threads[0]);
    for (size_t i = 0; i < c->dump.stop.count; i++) {
        struct crash_thread *t = &c->threads[i];
        if (t->stack || t->stack_bytes == 0)
            continue;
        if (t->stack_bytes > c->assembled.size_bytes - at) {
            t->stack_bytes = 0;
            continue;
        }
        t->stack = c->assembled.data + at;
        at += t->stack_bytes;
    }
}
