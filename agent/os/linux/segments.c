/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deciding what of each mapping goes into a core file, and cutting it into segments. Invariant: the
 * list is sorted and does not overlap, and a filled segment covers every run that was to be filled.
 * Pure. Called by dump_write.c.
 */
#include "agent/os/linux/segments.h"

#include <stdlib.h>
#include <string.h>

#define DELETED " (deleted)"

/* ---- what of a mapping goes in ---- */

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static bool is_deleted(const char *path)
{
    size_t length = strlen(path), tail = strlen(DELETED);
    return length > tail && strcmp(path + length - tail, DELETED) == 0;
}

bool segment_is_shared_memory(const struct maps *maps, const struct map *map)
{
    const char *path = maps_path(maps, map);
    return map->shared &&
           (map->inode == 0 || begins(path, "/dev/zero") || begins(path, "/dev/shm/") ||
            begins(path, "/SYSV") || begins(path, "/memfd:") || begins(path, "/anon_hugepage") ||
            begins(path, "[anon_shmem") || (is_deleted(path) && !begins(path, "/dev/")));
}

/* "[heap]", "[stack]", "[anon: ...]": memory; "[vvar]" and the like are the kernel's. */
static enum segment_content named_content(const char *path)
{
    if (strcmp(path, "[vdso]") == 0)
        return SEGMENT_WHOLE;
    if (begins(path, "[heap]") || begins(path, "[stack") || begins(path, "[anon"))
        return SEGMENT_ANONYMOUS;
    return SEGMENT_NOTHING;
}

enum segment_content segment_content(const struct maps *maps, const struct map *map,
                                     const struct area *area)
{
    const char *path = maps_path(maps, map);
    if (!map->readable && !map->writable && !map->executable)
        return SEGMENT_NOTHING;
    if (area && (area->flags & (AREA_DEVICE | AREA_DONT_DUMP)))
        return SEGMENT_NOTHING;
    if (segment_is_shared_memory(maps, map))
        return SEGMENT_SHARED;
    if (map->shared)
        return SEGMENT_NOTHING;
    if (path[0] == '[')
        return named_content(path);
    if (path[0] == '\0' || map->inode == 0)
        return SEGMENT_ANONYMOUS;
    if (begins(path, "/dev/") && !begins(path, "/dev/zero") && !begins(path, "/dev/shm/"))
        return SEGMENT_NOTHING;
    return is_deleted(path) ? SEGMENT_WHOLE : SEGMENT_FILE;
}

/* ---- cutting ---- */

void segments_init(struct segments *segments, size_t limit)
{
    memset(segments, 0, sizeof *segments);
    segments->limit = limit;
    segments->hole_bytes = SEGMENTS_HOLE_BYTES;
}

void segments_done(struct segments *segments)
{
    free(segments->list);
    segments->list = NULL;
    segments->count = segments->capacity = 0;
}

/* Fills holes that have become too short, and joins what touches then. */
static void join(struct segments *segments)
{
    size_t kept = 0;
    for (size_t i = 0; i < segments->count; i++) {
        struct segment s = segments->list[i];
        struct segment *before = kept > 0 ? &segments->list[kept - 1] : NULL;
        bool between = before && before->filled && before->map == s.map &&
                       i + 1 < segments->count && segments->list[i + 1].map == s.map;
        if (!s.filled && between && s.end - s.start < segments->hole_bytes)
            s.filled = true;
        if (before && before->filled && s.filled && before->map == s.map && before->end == s.start)
            before->end = s.end;
        else
            segments->list[kept++] = s;
    }
    segments->count = kept;
}

static int push(struct segments *segments, struct segment s)
{
    while (segments->count >= segments->limit && segments->hole_bytes < SEGMENTS_HOLE_BYTES_MAX) {
        segments->hole_bytes *= 2;
        join(segments);
    }
    if (BUF_GROW(segments->list, segments->count, &segments->capacity, 256))
        return ERR_NOMEM;
    segments->list[segments->count++] = s;
    return 0;
}

/* The mapping that is being added: what of it is not in the list yet. */
struct cut {
    struct segments *segments;
    struct segment open; /* the filled segment that may still grow; empty: none */
    uint64_t at;         /* end of what was pushed */
};

static int push_open(struct cut *cut)
{
    int rc = 0;
    if (cut->open.start > cut->at) {
        struct segment hole = cut->open;
        hole.start = cut->at;
        hole.end = cut->open.start;
        hole.filled = false;
        rc = push(cut->segments, hole);
    }
    if (rc == 0)
        rc = push(cut->segments, cut->open);
    cut->at = cut->open.end;
    cut->open.start = cut->open.end;
    return rc;
}

static int add_run(struct cut *cut, uint64_t start, uint64_t end)
{
    int rc = 0;
    bool open = cut->open.end > cut->open.start;
    if (open && start < cut->open.end + cut->segments->hole_bytes) {
        if (end > cut->open.end)
            cut->open.end = end;
        return 0;
    }
    if (open)
        rc = push_open(cut);
    cut->open.start = start;
    cut->open.end = end;
    return rc;
}

static int add_runs(struct cut *cut, const struct map *map, enum segment_content content,
                    segments_next_fn next, void *context)
{
    struct segment_run run;
    for (uint64_t from = map->start; from < map->end; from = run.end) {
        int rc = next(context, map, content, from, map->end, &run);
        if (rc == ERR_NOTFOUND)
            return 0;
        if (rc == 0 && (run.start < from || run.end <= run.start || run.end > map->end))
            rc = ERR_CORRUPT;
        if (rc == 0)
            rc = add_run(cut, run.start, run.end);
        if (rc)
            return rc;
    }
    return 0;
}

int segments_add(struct segments *segments, const struct maps *maps, size_t index,
                 enum segment_content content, bool head, segments_next_fn next, void *context)
{
    const struct map *map = &maps->list[index];
    int rc = 0;
    if (content == SEGMENT_NOTHING)
        return 0;
    struct cut cut = {.segments = segments, .at = map->start};
    cut.open = (struct segment){.start = map->start,
                                .end = map->start,
                                .map = (uint32_t)index,
                                .content = (uint8_t)content,
                                .filled = true};
    if (content == SEGMENT_WHOLE)
        cut.open.end = map->end;
    else if (head)
        cut.open.end = map->start + SEGMENTS_PAGE;
    if (content != SEGMENT_WHOLE)
        rc = add_runs(&cut, map, content, next, context);
    if (rc == 0 && cut.open.end > cut.open.start)
        rc = push_open(&cut);
    if (rc == 0 && cut.at < map->end) {
        struct segment tail = cut.open;
        tail.start = cut.at;
        tail.end = map->end;
        tail.filled = false;
        rc = push(segments, tail);
    }
    return rc;
}

void segments_finish(struct segments *segments)
{
    segments->filled_bytes = 0;
    for (size_t i = 0; i < segments->count; i++) {
        const struct segment *s = &segments->list[i];
        if (s->filled)
            segments->filled_bytes += s->end - s->start;
    }
}
