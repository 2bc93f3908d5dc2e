/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which memory of a process goes into a core file, and where it lies: from its mappings, what smaps
 * says of them, and which of their pages exist. Memory that was never touched costs nothing,
 * however much of it is reserved. Deciding is pure (segments.c), smaps has a parser of its own
 * (segments_areas.c), pages are looked up in segments_pages.c. Called by dump*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_SEGMENTS_H
#define TRAWL_AGENT_OS_LINUX_SEGMENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/os/linux/maps.h"
#include "common/buf.h"
#include "common/err.h"

#define SEGMENTS_PAGE 4096u

/* ---- what smaps says (kernel: Documentation/filesystems/proc.rst, "VmFlags") ---- */

enum area_flag {
    AREA_DONT_FORK = 1,    /* dc: is not in a snapshot */
    AREA_WIPE_ON_FORK = 2, /* wf: is empty in a snapshot */
    AREA_DONT_DUMP = 4,    /* dd: its owner does not want it in a core */
    AREA_DEVICE = 8,       /* io, pf: no memory; reading it may do something */
};

struct area {
    uint64_t start, end;
    uint64_t resident_bytes, swapped_bytes;
    uint64_t own_bytes;  /* private pages ("Anonymous") */
    uint64_t huge_bytes; /* of those, in huge pages */
    uint32_t flags;      /* enum area_flag */
};

/* Sorted by address and not overlapping. */
struct areas {
    struct area *list;
    size_t count, capacity;
};

void areas_init(struct areas *areas);
void areas_done(struct areas *areas);
/* One line of smaps. Unknown keys are skipped. ERR_CORRUPT (a mapping's line that is none, out of
 * order, or a value before the first one), ERR_LIMIT (more than MAPS_MAX), ERR_NOMEM. */
int areas_feed(struct areas *areas, struct span line);
/* Reads /proc/PID/smaps: 27 ms a GiB, during which mmap(2) and its kin wait in the process, so only
 * once. ERR_GONE, ERR_DENIED besides. */
int areas_read(struct areas *areas, pid_t pid, struct failure *f);
/* The mapping that holds `address`, or NULL. */
const struct area *areas_find(const struct areas *areas, uint64_t address);

/* ---- what of a mapping goes in ---- */

enum segment_content {
    SEGMENT_NOTHING = 0, /* it is not in the core at all */
    SEGMENT_ANONYMOUS,   /* pages that exist; the rest reads as zeros */
    SEGMENT_FILE,        /* pages that differ from the file; the rest is in the file */
    SEGMENT_SHARED,      /* as ANONYMOUS, of memory shared with other processes */
    SEGMENT_WHOLE,       /* every page: the vdso, a deleted file */
};
/* `area` may be NULL: nothing is known of it but its line in maps. */
enum segment_content segment_content(const struct maps *maps, const struct map *map,
                                     const struct area *area);
/* Whether the path is that of shared memory, which is in no file that anybody could open later. */
bool segment_is_shared_memory(const struct maps *maps, const struct map *map);

/* [start, end) of one mapping, in whole pages. */
struct segment {
    uint64_t start, end;
    uint32_t map;    /* index into the maps it was made from */
    uint8_t content; /* enum segment_content */
    bool filled;     /* its bytes are in the file; else it has none: zeros, or those of a file */
};

/*
 * Sorted, not overlapping. A run of pages that do not exist is a segment of its own when it is at
 * least hole_bytes long; that doubles whenever there would be more than `limit` segments.
 */
struct segments {
    struct segment *list;
    size_t count, capacity, limit;
    uint64_t hole_bytes;
    uint64_t filled_bytes; /* valid after segments_finish() */
};
#define SEGMENTS_LIMIT 60000
#define SEGMENTS_HOLE_BYTES 65536
#define SEGMENTS_HOLE_BYTES_MAX (1ull << 30)

void segments_init(struct segments *segments, size_t limit);
void segments_done(struct segments *segments);

/* Finds the next run of pages to be filled in [from, to), in whole pages. ERR_NOTFOUND: none. */
struct segment_run {
    uint64_t start, end;
};
typedef int (*segments_next_fn)(void *context, const struct map *map, enum segment_content content,
                                uint64_t from, uint64_t to, struct segment_run *run);
/* Adds a mapping, in rising order. `head`: its first page is filled in any case (an ELF header).
 * ERR_NOMEM, what `next` returns. */
int segments_add(struct segments *segments, const struct maps *maps, size_t map,
                 enum segment_content content, bool head, segments_next_fn next, void *context);
/* Counts the bytes. */
void segments_finish(struct segments *segments);

/* ---- which pages exist ---- */

#define PAGES_REGIONS 512

struct page_region { /* include/uapi/linux/fs.h, Linux >= 6.7 */
    uint64_t start, end, categories;
};

/* The pages of one process. Those of shared memory are asked of its file or, without privilege, of
 * the page tables of `shared_pid`: a snapshot has none of it. */
struct pages {
    pid_t pid;
    int pagemap_fd, shared_fd; /* shared_fd: pagemap of shared_pid; may equal pagemap_fd */
    bool scan;                 /* PAGEMAP_SCAN works */
    uint64_t skipped_bytes;    /* address space that could not be looked through */
    /* The mapping of shared memory that is being looked through. */
    uint64_t file_start;
    int file_fd;
    /* What was found last, for [known_start, known_end). */
    uint64_t known_start, known_end;
    int known_fd;
    enum segment_content known_content;
    struct page_region regions[PAGES_REGIONS];
    size_t region_count;
};

/* ERR_GONE, ERR_DENIED, ERR_IO. `old_kernel`: as if there were no PAGEMAP_SCAN (tests). */
int pages_open(struct pages *pages, pid_t pid, pid_t shared_pid, bool old_kernel,
               struct failure *f);
void pages_close(struct pages *pages);
/* A segments_next_fn; `context` is a struct pages. Faults nothing in. */
int pages_next(void *context, const struct map *map, enum segment_content content, uint64_t from,
               uint64_t to, struct segment_run *run);

#endif
