/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory map of a process, as /proc/PID/maps tells it (proc(5)). Read before the process is
 * held, looked up while it is: maps_find() neither allocates nor calls the system. Called by stacks
 * and unwind.
 */
#ifndef TRAWL_AGENT_OS_LINUX_MAPS_H
#define TRAWL_AGENT_OS_LINUX_MAPS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

#define MAPS_MAX (1u << 20)        /* more mappings than this are refused */
#define MAPS_TEXT_MAX (256u << 20) /* bytes of text and of paths */

/* One line. [start, end) holds the file's bytes from `offset` on. */
struct map {
    uint64_t start, end, offset, inode;
    uint32_t device_major, device_minor;
    bool readable, writable, executable, shared;
    uint32_t path; /* see maps_path() */
};

/* Sorted by address and not overlapping. */
struct maps {
    struct map *list;
    size_t count, capacity;
    struct buf paths;
};

void maps_init(struct maps *maps);
void maps_done(struct maps *maps);

/* Replaces what is there by `text`. ERR_CORRUPT (a line that is none, or out of order), ERR_LIMIT,
 * ERR_NOMEM. */
int maps_parse(struct maps *maps, struct span text, struct failure *f);
/* Reads /proc/PID/maps. ERR_GONE, ERR_DENIED besides. */
int maps_read(struct maps *maps, uint32_t pid, struct failure *f);

/* The mapping that holds `address`, or NULL. */
const struct map *maps_find(const struct maps *maps, uint64_t address);
/* Path or "[stack]"-like name, "" for anonymous memory; valid until the next parse. */
const char *maps_path(const struct maps *maps, const struct map *map);

#endif
