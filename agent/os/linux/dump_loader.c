/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that a debugger cannot do without: the dynamic loader's list of files (r_debug and
 * link_map of <link.h>, found through DT_DEBUG of the executable), the executable's data, small
 * writable mappings; of threads their stacks and thread-local storage; and what pointers lead to.
 * Invariant: everything read here is the process's own and trusted in nothing: every loop has a
 * limit. Called by dump_mini.c and dump.c.
 */
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <string.h>
#include <sys/uio.h>

#include "agent/os/linux/dump_linux.h"
#include "common/port.h"

#define HEADERS_MAX 64
#define DYNAMIC_MAX 512
#define FILES_MAX 4096
#define NAME_BYTES 256
#define SMALL_FILE_BYTES (1u << 20) /* data of the executable and of libraries */
#define SMALL_OWN_BYTES (64u << 10) /* anonymous mappings */
#define RELRO_BYTES (256u << 10)    /* data that became read-only */
#define RED_ZONE 128u
#define TLS_BELOW SEGMENTS_PAGE /* blocks lie below the thread pointer (ELF TLS, variant II) */
#define TLS_THREADS_MANY 256u   /* of so many, only the page of the thread pointer */
#define TLS_ABOVE_MANY 1u
#define TLS_ABOVE 2560u  /* glibc's struct pthread above it */
#define WORDS_MAX 32768u /* looked at on stacks and in registers, all threads */
#define WORDS_OF_THREAD_MAX 1024u
#define WORDS_OF_MS 40000u /* looked at in a ms */
#define WORDS_POINTED 32u  /* looked at behind a pointer: 256 bytes */
#define TIME_WORDS 256u    /* the clock is asked so often */

/* ---- before: the loader's list ---- */

static bool peek(const struct dump *d, uint64_t address, void *out, size_t bytes)
{
    struct iovec local = {out, bytes};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    struct iovec remote = {(void *)(uintptr_t)address, bytes};
    return process_vm_readv(d->process.pid, &local, 1, &remote, 1, 0) == (ssize_t)bytes;
}

static uint64_t auxiliary(const struct dump *d, uint64_t type)
{
    Elf64_auxv_t entry;
    for (size_t at = 0; at + sizeof entry <= d->auxv_bytes; at += sizeof entry) {
        memcpy(&entry, d->auxv + at, sizeof entry);
        if (entry.a_type == type)
            return entry.a_un.a_val;
    }
    return 0;
}

/* The executable's dynamic section, from its program headers in memory; 0: it has none. */
static uint64_t find_dynamic(const struct dump *d, uint64_t *bytes)
{
    uint64_t at = auxiliary(d, AT_PHDR), count = auxiliary(d, AT_PHNUM), bias = 0, found = 0;
    for (uint64_t i = 0; i < count && i < HEADERS_MAX; i++) {
        Elf64_Phdr header;
        if (!peek(d, at + i * sizeof header, &header, sizeof header))
            return 0;
        if (header.p_type == PT_PHDR)
            bias = at - header.p_vaddr;
        if (header.p_type == PT_DYNAMIC) {
            found = header.p_vaddr;
            *bytes = header.p_memsz;
        }
    }
    return found ? found + bias : 0;
}

static uint64_t find_list(const struct dump *d, uint64_t dynamic, uint64_t bytes)
{
    for (uint64_t i = 0; i < DYNAMIC_MAX && i * sizeof(Elf64_Dyn) < bytes; i++) {
        Elf64_Dyn entry;
        if (!peek(d, dynamic + i * sizeof entry, &entry, sizeof entry) || entry.d_tag == DT_NULL)
            return 0;
        if (entry.d_tag == DT_DEBUG)
            return entry.d_un.d_ptr;
    }
    return 0;
}

static void want(struct dump *d, uint64_t start, uint64_t bytes, size_t pages_max)
{
    const struct map *map = maps_find(&d->maps, start);
    if (map && dump_may_copy(d, map) && bytes <= SMALL_FILE_BYTES && start <= UINT64_MAX - bytes)
        copies_want_range(&d->copies, start, start + bytes, pages_max);
}

static void want_list(struct dump *d, size_t pages_max)
{
    struct r_debug head;
    uint64_t bytes = 0, dynamic = find_dynamic(d, &bytes);
    if (dynamic == 0)
        return;
    want(d, dynamic, bytes, pages_max);
    uint64_t list = find_list(d, dynamic, bytes);
    if (list == 0 || !peek(d, list, &head, sizeof head))
        return;
    want(d, list, sizeof head, pages_max);
    uint64_t at = (uintptr_t)head.r_map;
    for (int i = 0; at != 0 && i < FILES_MAX; i++) {
        struct link_map file;
        if (!peek(d, at, &file, sizeof file))
            return;
        want(d, at, sizeof file, pages_max);
        want(d, (uintptr_t)file.l_name, NAME_BYTES, pages_max);
        want(d, (uintptr_t)file.l_ld, SEGMENTS_PAGE, pages_max);
        at = (uintptr_t)file.l_next;
    }
}

static bool is_small_data(const struct dump *d, const struct map *map)
{
    uint64_t bytes = map->end - map->start;
    const char *path = maps_path(&d->maps, map);
    if (map->shared || !dump_may_copy(d, map))
        return false;
    if (map->inode != 0 && path[0] == '/')
        return map->writable ? bytes <= SMALL_FILE_BYTES
                             : !map->executable && map->offset != 0 && bytes <= RELRO_BYTES &&
                                   map + 1 < d->maps.list + d->maps.count &&
                                   map[1].path == map->path && map[1].writable;
    return map->writable && bytes <= SMALL_OWN_BYTES;
}

size_t dump_want_loader(struct dump *d, size_t pages_max)
{
    want_list(d, pages_max);
    size_t pages = d->copies.count;
    /* Data of files first: it is there that variables are. */
    for (int own = 0; own < 2; own++) {
        for (size_t i = 0; i < d->maps.count; i++) {
            const struct map *map = &d->maps.list[i];
            if ((map->inode == 0) == (own != 0) && is_small_data(d, map))
                copies_want_range(&d->copies, map->start, map->end, pages_max);
        }
    }
    return pages;
}

/* ---- held: threads ---- */

static void want_stack(struct dump *d, const struct user_regs_struct *regs, uint64_t bytes_max,
                       size_t pages_max)
{
    const struct map *map = maps_find(&d->maps, regs->rsp);
    uint64_t start = regs->rsp - RED_ZONE, end = start + bytes_max;
    if (regs->rsp < SEGMENTS_PAGE || end < start || (map && !dump_may_copy(d, map)))
        return;
    if (map && start < map->start)
        start = map->start;
    bool cut = !map || end < map->end;
    if (map && end > map->end)
        end = map->end;
    size_t without = copies_want_range(&d->copies, start, end, pages_max);
    if (without > 0 && without >= (end - start) / SEGMENTS_PAGE)
        d->stacks_missed++;
    else if (cut || without > 0)
        d->stacks_cut++;
}

void dump_want_threads(struct dump *d, uint64_t stack_bytes_max, size_t pages_max)
{
    for (size_t i = 0; i < d->stop.count; i++) {
        if (d->stop.threads[i].state == STOP_HELD)
            want_stack(d, &d->stop.threads[i].regs, stack_bytes_max, pages_max);
    }
    /* What there is no room for can be missed more easily here than there. */
    for (size_t i = 0; i < d->stop.count; i++) {
        uint64_t pointer = d->stop.threads[i].regs.fs_base;
        bool many = d->stop.count > TLS_THREADS_MANY;
        uint64_t below = many ? 0 : TLS_BELOW, above = many ? TLS_ABOVE_MANY : TLS_ABOVE;
        if (d->stop.threads[i].state == STOP_HELD && pointer > below &&
            pointer < UINT64_MAX - above)
            copies_want_range(&d->copies, pointer - below, pointer + above, pages_max);
    }
}

/* ---- held: what pointers lead to ---- */

struct hunt {
    struct dump *d;
    uint64_t until_us;
    uint32_t words_left, to_clock;
    bool over;
    const struct map *last; /* where the last pointer led: the next often does too */
    bool fit;               /* and whether that is worth having */
};

static bool may_go_on(struct hunt *hunt)
{
    if (hunt->words_left == 0)
        hunt->over = true;
    else
        hunt->words_left--;
    if (hunt->to_clock-- == 0) {
        hunt->to_clock = TIME_WORDS;
        hunt->over |= port_mono_us() >= hunt->until_us;
    }
    return !hunt->over;
}

/* Data that is worth having: writable memory; constants are in their files. */
static bool leads_to_data(struct hunt *hunt, uint64_t word)
{
    if (word < 65536 || word >> 47)
        return false;
    if (!hunt->last || word < hunt->last->start || word >= hunt->last->end) {
        hunt->last = maps_find(&hunt->d->maps, word);
        hunt->fit = hunt->last && hunt->last->writable && dump_may_copy(hunt->d, hunt->last);
    }
    return hunt->fit;
}

static void follow(struct hunt *hunt, uint64_t word)
{
    if (!leads_to_data(hunt, word))
        return;
    bool room = copies_want(&hunt->d->copies, word);
    uint64_t behind = word + WORDS_POINTED * sizeof word - 1;
    if (room && behind < hunt->last->end)
        room = copies_want(&hunt->d->copies, behind);
    hunt->over |= !room;
}

/* Looks at the words of [start, start + words) that were copied. */
static void look_at(struct hunt *hunt, uint64_t start, uint32_t words,
                    void (*found)(struct hunt *hunt, uint64_t word))
{
    start = (start + 7) & ~7ull;
    for (uint32_t i = 0; i < words && may_go_on(hunt); i++) {
        uint64_t address = start + i * 8ull, word;
        const uint8_t *page = copies_find(&hunt->d->copies, address);
        if (!page)
            return;
        memcpy(&word, page + address % SEGMENTS_PAGE, sizeof word);
        found(hunt, word);
    }
}

/* A pointer of the first step: what lies behind it is looked at, and followed. */
static void look_behind(struct hunt *hunt, uint64_t word)
{
    if (leads_to_data(hunt, word))
        look_at(hunt, word, WORDS_POINTED, follow);
}

static void look_at_thread(struct hunt *hunt, const struct user_regs_struct *r, uint32_t words,
                           void (*found)(struct hunt *hunt, uint64_t word))
{
    const uint64_t registers[] = {r->rax, r->rbx, r->rcx, r->rdx, r->rsi, r->rdi, r->rbp, r->r8,
                                  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
    for (size_t i = 0; i < sizeof registers / sizeof registers[0] && may_go_on(hunt); i++)
        found(hunt, registers[i]);
    look_at(hunt, r->rsp, words, found);
}

static void look_at_all(struct hunt *hunt, void (*found)(struct hunt *hunt, uint64_t word))
{
    const struct stop *stop = &hunt->d->stop;
    uint32_t words = stop->count ? (uint32_t)(WORDS_MAX / stop->count) : 0;
    if (words > WORDS_OF_THREAD_MAX)
        words = WORDS_OF_THREAD_MAX;
    hunt->words_left = WORDS_MAX;
    for (size_t i = 0; i < stop->count && !hunt->over; i++) {
        if (stop->threads[i].state == STOP_HELD)
            look_at_thread(hunt, &stop->threads[i].regs, words, found);
    }
}

uint64_t dump_predict_pointed_us(const struct dump *d)
{
    uint64_t words = (uint64_t)d->stop.count * WORDS_OF_THREAD_MAX;
    return 2 * (words < WORDS_MAX ? words : WORDS_MAX) * 1000 / WORDS_OF_MS;
}

int dump_fetch_pointed(struct dump *d, uint64_t until_us)
{
    struct hunt hunt = {.d = d, .until_us = until_us};
    look_at_all(&hunt, follow);
    int rc = copies_fetch(&d->copies, d->process.pid, &d->stop);
    if (rc == 0 && !hunt.over) {
        look_at_all(&hunt, look_behind);
        rc = copies_fetch(&d->copies, d->process.pid, &d->stop);
    }
    return rc;
}
