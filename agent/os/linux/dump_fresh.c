/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings that came to be between the reading of the map and the hold: were they kept out of
 * forks, a snapshot would lack them, and nobody would know of them. The kernel is asked while the
 * process is held, through a file that was opened before (PROCMAP_QUERY, Linux >= 6.11;
 * include/uapi/linux/ fs.h): nothing is allocated and no text is made. On older kernels nothing is
 * found. Invariant: bounded by room and by the time of the hold. Called by dump_snapshot.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/os/linux/dump_linux.h"

struct map_query {
    uint64_t size, flags, address;
    uint64_t start, end, map_flags, page_size, offset, inode;
    uint32_t device_major, device_minor, name_bytes, build_id_bytes;
    uint64_t name, build_id;
};
#define MAP_QUERY _IOWR('f', 17, struct map_query)
#define MAP_READABLE 1u
#define MAP_SHARED_ 8u
#define MAP_OR_NEXT 16u
#define ASKED_MAX (1u << 16) /* mappings that are asked for: 1 us each */

int dump_fresh_open(struct dump_fresh *fresh, pid_t pid)
{
    char path[32];
    memset(fresh, 0, sizeof *fresh);
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    fresh->fd = open(path, O_RDONLY | O_CLOEXEC);
    return fresh->fd < 0 ? err_from_errno(errno) : 0;
}

void dump_fresh_close(struct dump_fresh *fresh)
{
    if (fresh->fd >= 0)
        close(fresh->fd);
    fresh->fd = -1;
}

static void add_gap(struct dump *d, struct dump_fresh *fresh, uint64_t start, uint64_t end)
{
    size_t before = d->copies.count;
    if (fresh->count == DUMP_FRESH_MAX ||
        (end - start) / SEGMENTS_PAGE > d->copies.capacity - before) {
        fresh->lost_bytes += end - start;
        return;
    }
    fresh->list[fresh->count++] = (struct segment_run){start, end};
    copies_want_range(&d->copies, start, end, SIZE_MAX);
}

/* What of [start, end) is in none of the mappings known; *at: the first that may reach it. */
static void add_gaps(struct dump *d, struct dump_fresh *fresh, uint64_t start, uint64_t end,
                     size_t *at)
{
    while (*at < d->maps.count && d->maps.list[*at].end <= start)
        ++*at;
    for (size_t i = *at; start < end; i++) {
        const struct map *known = i < d->maps.count ? &d->maps.list[i] : NULL;
        uint64_t until = known && known->start < end ? known->start : end;
        if (until > start)
            add_gap(d, fresh, start, until);
        start = known && known->end > until ? known->end : end;
    }
}

void dump_fresh_want(struct dump *d, struct dump_fresh *fresh, const struct stop *stop)
{
    uint64_t address = 0;
    size_t at = 0;
    for (uint32_t i = 0; i < ASKED_MAX && fresh->fd >= 0 && stop_time_left(stop); i++) {
        struct map_query query = {.size = sizeof query, .flags = MAP_OR_NEXT, .address = address};
        if (ioctl(fresh->fd, MAP_QUERY, &query) != 0 || query.end <= address)
            return;
        fresh->asked++;
        if ((query.map_flags & MAP_READABLE) && !(query.map_flags & MAP_SHARED_) &&
            query.inode == 0)
            add_gaps(d, fresh, query.start, query.end, &at);
        address = query.end;
    }
}
