/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of pages copied out of a held process. Invariant: no page is in it twice, and between
 * copies_init() and copies_done() nothing is allocated. Called by dump*.c, and of a process that is
 * dying by crash_memory.c.
 */
#include "agent/os/linux/dump_linux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define ADDRESS_MAX (1ull << 47)
#define WHOLE_PAGES (~(uint64_t)(SEGMENTS_PAGE - 1))
#define TOUCH_PAGES 8 /* fewer are touched as they are written to */

static void *map_memory(size_t bytes, int populate)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | populate, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void untouch(void *memory, size_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

static int make_room(struct copies *copies, size_t pages, bool touch, struct failure *f)
{
    memset(copies, 0, sizeof *copies);
    if (pages == 0)
        return 0;
    if (pages > UINT32_MAX / 4)
        return fail(f, ERR_LIMIT, "%zu pages are too many to be copied", pages);
    copies->table_size = 1;
    while (copies->table_size < pages * 2)
        copies->table_size *= 2;
    copies->capacity = pages;
    copies->is_touched = touch;
    copies->pool = map_memory(pages * SEGMENTS_PAGE, touch ? MAP_POPULATE : 0);
    copies->list = map_memory(pages * sizeof *copies->list, MAP_POPULATE);
    copies->table = map_memory(copies->table_size * sizeof *copies->table, MAP_POPULATE);
    if (copies->pool && copies->list && copies->table)
        return 0;
    copies_done(copies);
    return fail(f, ERR_NOMEM, "no memory to copy %zu pages", pages);
}

int copies_init(struct copies *copies, size_t pages, struct failure *f)
{
    return make_room(copies, pages, true, f);
}

int copies_init_untouched(struct copies *copies, size_t pages, struct failure *f)
{
    return make_room(copies, pages, false, f);
}

void copies_done(struct copies *copies)
{
    untouch(copies->pool, copies->capacity * SEGMENTS_PAGE);
    untouch(copies->list, copies->capacity * sizeof *copies->list);
    untouch(copies->table, copies->table_size * sizeof *copies->table);
    memset(copies, 0, sizeof *copies);
}

/* The place of a page in the table, or the empty one where it would be. */
static uint32_t *place_of(const struct copies *copies, uint64_t page)
{
    size_t at = (size_t)((page >> 12) * 0x9e3779b97f4a7c15ull >> 20) & (copies->table_size - 1);
    while (copies->table[at] && copies->list[copies->table[at] - 1].address != page)
        at = (at + 1) & (copies->table_size - 1);
    return &copies->table[at];
}

bool copies_want(struct copies *copies, uint64_t address)
{
    if (copies->capacity == 0 || address >= ADDRESS_MAX)
        return false;
    uint64_t page = address & WHOLE_PAGES;
    uint32_t *place = place_of(copies, page);
    if (*place)
        return true;
    if (copies->count == copies->capacity)
        return false;
    uint32_t slot = (uint32_t)copies->count++;
    copies->list[slot] = (struct copied_page){.address = page, .slot = slot};
    *place = slot + 1;
    return true;
}

size_t copies_want_range(struct copies *copies, uint64_t start, uint64_t end, size_t pages_max)
{
    size_t without = 0;
    for (uint64_t at = start & WHOLE_PAGES; at < end; at += SEGMENTS_PAGE) {
        if (copies->count >= pages_max || !copies_want(copies, at))
            without++;
    }
    return without;
}

/* Pages that lie one behind the other in the process and in the pool are one piece. */
static size_t gather(const struct copies *copies, struct iovec *local, struct iovec *remote)
{
    size_t pieces = 0;
    for (size_t i = copies->fetched; i < copies->count; i++) {
        uint64_t address = copies->list[i].address;
        if (pieces > 0 &&
            (uintptr_t)remote[pieces - 1].iov_base + remote[pieces - 1].iov_len == address) {
            remote[pieces - 1].iov_len += SEGMENTS_PAGE;
            local[pieces - 1].iov_len += SEGMENTS_PAGE;
            continue;
        }
        if (pieces == COPY_BATCH)
            break;
        local[pieces] = (struct iovec){copies->pool + i * SEGMENTS_PAGE, SEGMENTS_PAGE};
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
        remote[pieces++] = (struct iovec){(void *)(uintptr_t)address, SEGMENTS_PAGE};
    }
    return pieces;
}

/* One call (madvise(2), MADV_POPULATE_WRITE, since Linux 5.14) is cheaper than a fault for each
 * page; where it fails, there are the faults. */
static void touch_wanted(const struct copies *copies)
{
    size_t pages = copies->count - copies->fetched;
    if (!copies->is_touched && pages >= TOUCH_PAGES)
        (void)madvise(copies->pool + copies->fetched * SEGMENTS_PAGE, pages * SEGMENTS_PAGE,
                      MADV_POPULATE_WRITE);
}

int copies_fetch(struct copies *copies, pid_t pid, const struct stop *stop)
{
    struct iovec local[COPY_BATCH], remote[COPY_BATCH];
    touch_wanted(copies);
    while (copies->fetched < copies->count) {
        size_t pieces = gather(copies, local, remote);
        ssize_t got = process_vm_readv(pid, local, pieces, remote, pieces, 0);
        if (got < 0 && errno == ESRCH)
            return ERR_GONE;
        /* The kernel stops at the first page that is not there: that one is passed over. */
        size_t pages = got > 0 ? (size_t)got / SEGMENTS_PAGE : 0, wanted = 0;
        for (size_t i = 0; i < pieces; i++)
            wanted += local[i].iov_len / SEGMENTS_PAGE;
        for (size_t i = 0; i < pages; i++)
            copies->list[copies->fetched++].there = true;
        if (pages < wanted) {
            copies->fetched++;
            copies->unreadable++;
        }
        if (stop && !stop_time_left(stop))
            return ERR_TIMEOUT;
    }
    return 0;
}

const uint8_t *copies_find(const struct copies *copies, uint64_t address)
{
    if (copies->capacity == 0)
        return NULL;
    uint32_t at = *place_of(copies, address & WHOLE_PAGES);
    if (at == 0 || !copies->list[at - 1].there)
        return NULL;
    return copies->pool + (size_t)copies->list[at - 1].slot * SEGMENTS_PAGE;
}

static int by_address(const void *a, const void *b)
{
    uint64_t x = ((const struct copied_page *)a)->address;
    uint64_t y = ((const struct copied_page *)b)->address;
    return x < y ? -1 : x > y;
}

void copies_sort(struct copies *copies)
{
    size_t kept = 0;
    for (size_t i = 0; i < copies->fetched; i++) {
        if (copies->list[i].there)
            copies->list[kept++] = copies->list[i];
    }
    copies->count = copies->fetched = kept;
    if (kept > 0)
        qsort(copies->list, kept, sizeof *copies->list, by_address);
}

/* The first page at or behind an address. */
static size_t lower(const struct copies *copies, uint64_t address)
{
    size_t low = 0, high = copies->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (copies->list[middle].address + SEGMENTS_PAGE <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int copies_next(const struct copies *copies, uint64_t from, uint64_t to, struct segment_run *run)
{
    size_t at = lower(copies, from);
    if (at == copies->count || copies->list[at].address >= to)
        return ERR_NOTFOUND;
    run->start = copies->list[at].address > from ? copies->list[at].address : from;
    uint64_t end = copies->list[at].address + SEGMENTS_PAGE;
    while (++at < copies->count && copies->list[at].address == end && end < to)
        end += SEGMENTS_PAGE;
    run->end = end < to ? end : to;
    return 0;
}

void copies_overlay(const struct copies *copies, uint64_t start, uint8_t *bytes, size_t size)
{
    uint64_t end = start + size;
    for (size_t at = lower(copies, start); at < copies->count; at++) {
        const struct copied_page *page = &copies->list[at];
        if (page->address >= end)
            return;
        uint64_t from = page->address > start ? page->address : start;
        uint64_t to = page->address + SEGMENTS_PAGE < end ? page->address + SEGMENTS_PAGE : end;
        memcpy(bytes + (from - start),
               copies->pool + (size_t)page->slot * SEGMENTS_PAGE + (from - page->address),
               (size_t)(to - from));
    }
}
