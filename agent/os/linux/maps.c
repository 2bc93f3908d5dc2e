/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parser of /proc/PID/maps. Invariant: the list is sorted and does not overlap, or parsing failed;
 * so the binary search is right for any input. Called by stacks.c and unwind_modules.c; fuzzed by
 * fuzz_maps.c.
 */
#include "agent/os/linux/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"

#define READ_BYTES 65536

void maps_init(struct maps *maps)
{
    memset(maps, 0, sizeof *maps);
    buf_init(&maps->paths, MAPS_TEXT_MAX);
}

void maps_done(struct maps *maps)
{
    free(maps->list);
    buf_done(&maps->paths);
    maps->list = NULL;
    maps->count = maps->capacity = 0;
}

static int take_byte(struct span *s, char wanted)
{
    uint8_t byte;
    struct span rest = *s;
    if (span_take_u8(&rest, &byte) || byte != (uint8_t)wanted)
        return ERR_CORRUPT;
    *s = rest;
    return 0;
}

/* "rw-p " */
static int take_permissions(struct span *s, struct map *map)
{
    struct span letters;
    if (span_take(s, 5, &letters) || letters.data[4] != ' ')
        return ERR_CORRUPT;
    map->readable = letters.data[0] == 'r';
    map->writable = letters.data[1] == 'w';
    map->executable = letters.data[2] == 'x';
    map->shared = letters.data[3] == 's';
    return 0;
}

static int take_device(struct span *s, struct map *map)
{
    uint64_t major, minor;
    if (text_take_hex(s, &major) || take_byte(s, ':') || text_take_hex(s, &minor) ||
        major > UINT32_MAX || minor > UINT32_MAX)
        return ERR_CORRUPT;
    map->device_major = (uint32_t)major;
    map->device_minor = (uint32_t)minor;
    return 0;
}

/* "7f00-7f10 r-xp 00000000 08:01 1234      /usr/lib/x.so" -> *out; the path is left in *line. */
static int parse_line(struct span *line, struct map *out)
{
    struct map map = {0};
    if (text_take_hex(line, &map.start) || take_byte(line, '-') || text_take_hex(line, &map.end) ||
        take_byte(line, ' ') || take_permissions(line, &map) || text_take_hex(line, &map.offset) ||
        take_byte(line, ' ') || take_device(line, &map) || take_byte(line, ' ') ||
        text_take_u64(line, &map.inode) || map.start >= map.end)
        return ERR_CORRUPT;
    while (take_byte(line, ' ') == 0)
        ;
    *out = map;
    return 0;
}

/* Neighbours of the same file share one copy of its path. */
static int add_path(struct maps *maps, struct map *map, struct span path)
{
    if (maps->count > 0) {
        const struct map *before = &maps->list[maps->count - 1];
        const char *same = maps_path(maps, before);
        if (span_equal(span_str(same), path)) {
            map->path = before->path;
            return 0;
        }
    }
    if (maps->paths.size_bytes > UINT32_MAX - 1)
        return ERR_LIMIT;
    map->path = (uint32_t)maps->paths.size_bytes;
    size_t before = maps->paths.size_bytes;
    int rc = buf_append_span(&maps->paths, path);
    if (rc == 0)
        rc = buf_append_byte(&maps->paths, 0);
    if (rc)
        maps->paths.size_bytes = before;
    return rc;
}

static int add_line(struct maps *maps, struct span line)
{
    struct map map;
    if (parse_line(&line, &map) || memchr(line.data, 0, line.size_bytes))
        return ERR_CORRUPT;
    if (maps->count > 0 && map.start < maps->list[maps->count - 1].end)
        return ERR_CORRUPT;
    if (maps->count >= MAPS_MAX)
        return ERR_LIMIT;
    if (BUF_GROW(maps->list, maps->count, &maps->capacity, 256))
        return ERR_NOMEM;
    int rc = add_path(maps, &map, line);
    if (rc == 0)
        maps->list[maps->count++] = map;
    return rc;
}

int maps_parse(struct maps *maps, struct span text, struct failure *f)
{
    maps->count = 0;
    buf_clear(&maps->paths);
    struct span line;
    while (text.size_bytes > 0 && text_take_until(&text, '\n', &line) == 0) {
        int rc = add_line(maps, line);
        if (rc) {
            maps->count = 0;
            return fail(f, rc, "cannot use line of memory map '%.*s': %s",
                        (int)(line.size_bytes < 80 ? line.size_bytes : 80), (const char *)line.data,
                        err_text(rc));
        }
    }
    return 0;
}

/* The kernel gives whole lines, a page of them at a time. */
static int read_text(int fd, struct buf *text, struct failure *f)
{
    for (;;) {
        uint8_t *room;
        int rc = buf_reserve(text, READ_BYTES, &room);
        if (rc)
            return fail(f, rc, "memory map is larger than %u bytes", MAPS_TEXT_MAX);
        ssize_t got = read(fd, room, READ_BYTES);
        if (got == 0)
            return 0;
        if (got > 0)
            buf_commit(text, (size_t)got);
        else if (errno == ESRCH)
            return fail(f, ERR_GONE, "process ended");
        else if (errno != EINTR)
            return fail_errno(f, err_from_errno(errno), errno, "cannot read memory map");
    }
}

int maps_read(struct maps *maps, uint32_t pid, struct failure *f)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%u/maps", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        int code = error == ENOENT || error == ESRCH ? ERR_GONE : err_from_errno(error);
        return fail_errno(f, code, error, "cannot open '%s'", path);
    }
    struct buf text;
    buf_init(&text, MAPS_TEXT_MAX);
    int rc = read_text(fd, &text, f);
    close(fd);
    if (rc == 0)
        rc = maps_parse(maps, buf_span(&text), f);
    buf_done(&text);
    return rc;
}

const struct map *maps_find(const struct maps *maps, uint64_t address)
{
    size_t low = 0, high = maps->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (address < maps->list[middle].start)
            high = middle;
        else if (address >= maps->list[middle].end)
            low = middle + 1;
        else
            return &maps->list[middle];
    }
    return NULL;
}

const char *maps_path(const struct maps *maps, const struct map *map)
{
    return (const char *)maps->paths.data + map->path;
}
