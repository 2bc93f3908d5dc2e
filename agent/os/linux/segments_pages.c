/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of a mapping exist, asked of the kernel without touching any of them: PAGEMAP_SCAN
 * where there is one, else /proc/PID/pagemap in pieces (kernel: Documentation/admin-guide/mm/
 * pagemap.rst); of shared memory, which has no page tables in a snapshot, by lseek(2) in its file.
 * Invariant: runs come in rising order, within what was asked. Called by dump_write.c.
 */
#include "agent/os/linux/segments.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"

/* include/uapi/linux/fs.h, Linux >= 6.7 */
struct scan_argument {
    uint64_t size, flags, start, end, walk_end, vec, vec_count, max_pages;
    uint64_t inverted, mask, any_of, returned;
};
#define SCAN_REQUEST _IOWR('f', 16, struct scan_argument)
#define PAGE_FILE (1u << 2)
#define PAGE_PRESENT (1u << 3)
#define PAGE_SWAPPED (1u << 4)
#define PAGE_ZERO (1u << 5)

/* The bits of an entry of pagemap. */
#define ENTRY_FILE (1ull << 61)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_PRESENT (1ull << 63)
#define ENTRIES 2048
/* A single mapping is looked through so far without PAGEMAP_SCAN: half a second. */
#define SLOW_BYTES_MAX (256ull << 30)

int pages_open(struct pages *pages, pid_t pid, pid_t shared_pid, bool old_kernel, struct failure *f)
{
    memset(pages, 0, sizeof *pages);
    pages->pid = pid;
    pages->file_fd = pages->known_fd = pages->shared_fd = -1;
    pages->scan = !old_kernel;
    pages->pagemap_fd = proc_open_pid((uint32_t)pid, "pagemap", f);
    if (pages->pagemap_fd < 0)
        return pages->pagemap_fd;
    /* Only asked when its file cannot be; the process may have ended since its snapshot. */
    pages->shared_fd = shared_pid == pid ? pages->pagemap_fd
                                         : proc_open_pid((uint32_t)shared_pid, "pagemap", NULL);
    return 0;
}

void pages_close(struct pages *pages)
{
    if (pages->shared_fd >= 0 && pages->shared_fd != pages->pagemap_fd)
        close(pages->shared_fd);
    if (pages->pagemap_fd >= 0)
        close(pages->pagemap_fd);
    if (pages->file_fd >= 0)
        close(pages->file_fd);
    pages->pagemap_fd = pages->shared_fd = pages->file_fd = -1;
}

/* ---- page tables ---- */

/* Adds pages to what is known, joined to what they touch. False: no more room. */
static bool add_region(struct pages *pages, uint64_t start, uint64_t end)
{
    struct page_region *last =
        pages->region_count ? &pages->regions[pages->region_count - 1] : NULL;
    if (last && last->end == start) {
        last->end = end;
        return true;
    }
    if (pages->region_count == PAGES_REGIONS)
        return false;
    pages->regions[pages->region_count++] = (struct page_region){start, end, 0};
    return true;
}

/* ERR_UNSUPPORTED: this kernel cannot. */
static int scan(struct pages *pages, int fd, bool shared, uint64_t from, uint64_t to)
{
    struct scan_argument argument = {.size = sizeof argument,
                                     .start = from,
                                     .end = to,
                                     .vec = (uintptr_t)pages->regions,
                                     .vec_count = PAGES_REGIONS,
                                     .any_of = PAGE_PRESENT | PAGE_SWAPPED,
                                     .returned = PAGE_PRESENT};
    if (!shared)
        argument.mask = argument.inverted = PAGE_FILE | PAGE_ZERO;
    int found = ioctl(fd, SCAN_REQUEST, &argument);
    if (found < 0)
        return errno == ENOTTY || errno == EINVAL ? ERR_UNSUPPORTED
               : errno == ESRCH                   ? ERR_GONE
                                                  : err_from_errno(errno);
    pages->region_count = (size_t)found <= PAGES_REGIONS ? (size_t)found : PAGES_REGIONS;
    pages->known_end =
        pages->region_count == PAGES_REGIONS ? pages->regions[PAGES_REGIONS - 1].end : to;
    return 0;
}

static bool is_filled(uint64_t entry, bool shared)
{
    return (entry & (ENTRY_PRESENT | ENTRY_SWAPPED)) && (shared || !(entry & ENTRY_FILE));
}

/* From an address on, until something was found and the room is full or a piece ends. */
static int read_entries(struct pages *pages, int fd, bool shared, uint64_t from, uint64_t to)
{
    uint64_t entries[ENTRIES];
    pages->region_count = 0;
    for (uint64_t at = from; at < to;) {
        size_t want = (size_t)((to - at) / SEGMENTS_PAGE);
        if (want > ENTRIES)
            want = ENTRIES;
        ssize_t got = pread(fd, entries, want * 8, (off_t)(at / SEGMENTS_PAGE * 8));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 8) /* 0: the process ended */
            return got < 0 && errno != ESRCH ? err_from_errno(errno) : ERR_GONE;
        for (size_t i = 0; i < (size_t)got / 8; i++) {
            if (is_filled(entries[i], shared) && !add_region(pages, at, at + SEGMENTS_PAGE)) {
                pages->known_end = at;
                return 0;
            }
            at += SEGMENTS_PAGE;
        }
        pages->known_end = at;
        if (pages->region_count > 0)
            return 0;
    }
    return 0;
}

static int look(struct pages *pages, int fd, bool shared, const struct map *map, uint64_t from,
                uint64_t to)
{
    pages->known_start = from;
    pages->known_end = from;
    pages->region_count = 0;
    if (fd < 0) {
        pages->skipped_bytes += to - from;
        pages->known_end = to;
        return 0;
    }
    if (pages->scan) {
        int rc = scan(pages, fd, shared, from, to);
        if (rc != ERR_UNSUPPORTED)
            return rc;
        pages->scan = false;
    }
    if (from >= map->start + SLOW_BYTES_MAX) {
        pages->skipped_bytes += to - from;
        pages->known_end = to;
        return 0;
    }
    if (to > map->start + SLOW_BYTES_MAX)
        to = map->start + SLOW_BYTES_MAX;
    return read_entries(pages, fd, shared, from, to);
}

/* The first run that is known at or behind `from`. */
static bool find_known(const struct pages *pages, uint64_t from, uint64_t to,
                       struct segment_run *run)
{
    size_t low = 0, high = pages->region_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pages->regions[middle].end <= from)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == pages->region_count || pages->regions[low].start >= to)
        return false;
    run->start = pages->regions[low].start > from ? pages->regions[low].start : from;
    run->end = pages->regions[low].end < to ? pages->regions[low].end : to;
    return true;
}

static int next_by_tables(struct pages *pages, const struct map *map, enum segment_content content,
                          uint64_t from, uint64_t to, struct segment_run *run)
{
    bool shared = content == SEGMENT_SHARED;
    int fd = shared ? pages->shared_fd : pages->pagemap_fd;
    while (from < to) {
        bool known = pages->known_fd == fd && pages->known_content == content &&
                     from >= pages->known_start && from < pages->known_end;
        if (!known) {
            int rc = look(pages, fd, shared, map, from, to);
            if (rc) {
                pages->known_fd = -1;
                return rc;
            }
            pages->known_fd = fd;
            pages->known_content = content;
        }
        if (find_known(pages, from, to < pages->known_end ? to : pages->known_end, run))
            return 0;
        from = pages->known_end;
    }
    return ERR_NOTFOUND;
}

/* ---- shared memory: its file knows ---- */

/* Needs privilege. What is opened is memory: no file of a disk and no device. */
static int open_shared(struct pages *pages, const struct map *map)
{
    char path[96];
    if (pages->file_start == map->start && pages->file_fd >= 0)
        return pages->file_fd;
    if (pages->file_fd >= 0)
        close(pages->file_fd);
    snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", pages->pid,
             (unsigned long long)map->start, (unsigned long long)map->end);
    pages->file_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    pages->file_start = map->start;
    return pages->file_fd;
}

/* ERR_UNSUPPORTED: page tables must do. */
static int next_by_file(struct pages *pages, const struct map *map, uint64_t from, uint64_t to,
                        struct segment_run *run)
{
    int fd = open_shared(pages, map);
    if (fd < 0)
        return ERR_UNSUPPORTED;
    off_t data = lseek(fd, (off_t)(from - map->start + map->offset), SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? ERR_NOTFOUND : ERR_UNSUPPORTED;
    off_t hole = lseek(fd, data, SEEK_HOLE);
    uint64_t start = (uint64_t)data - map->offset + map->start;
    if (hole <= data)
        return ERR_UNSUPPORTED;
    if (start >= to)
        return ERR_NOTFOUND;
    run->start = start & ~(uint64_t)(SEGMENTS_PAGE - 1);
    if (run->start < from)
        run->start = from;
    run->end = ((uint64_t)hole - map->offset + map->start + SEGMENTS_PAGE - 1) &
               ~(uint64_t)(SEGMENTS_PAGE - 1);
    if (run->end > to)
        run->end = to;
    return 0;
}

int pages_next(void *context, const struct map *map, enum segment_content content, uint64_t from,
               uint64_t to, struct segment_run *run)
{
    struct pages *pages = context;
    int rc = ERR_UNSUPPORTED;
    if (content == SEGMENT_SHARED)
        rc = next_by_file(pages, map, from, to, run);
    return rc == ERR_UNSUPPORTED ? next_by_tables(pages, map, content, from, to, run) : rc;
}
