/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading /tmp/perf-PID.map once, from its beginning to its end, for a list of addresses.
 * Invariant: `names` stays sorted and its length fixed while lines come; a line that is none is
 * passed over. Called by unwind; fuzzed by fuzz_perf_map.c.
 */
#include "agent/os/linux/perf_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define READ_BYTES (64u << 10)
#define LINE_MAX_BYTES (READ_BYTES / 2) /* a longer line is none */

/* ---- the file ---- */

/* The pid as the process itself knows it: the last of NSpid (proc(5)). */
static uint64_t inner_pid(pid_t pid)
{
    char data[PROC_TEXT_SIZE];
    struct span text, line, field;
    uint64_t inner = (uint64_t)pid, number;
    if (proc_read_pid("", (uint32_t)pid, "status", data, sizeof data, &text, NULL) == 0 &&
        proc_find_key(text, "NSpid:", &line) == 0) {
        while (proc_take_field(&line, &field) == 0) {
            if (text_take_u64(&field, &number) == 0)
                inner = number;
        }
    }
    return inner;
}

/* The user that the process has, -1: not known. */
static int64_t owner_of(pid_t pid)
{
    char data[PROC_TEXT_SIZE];
    struct span text, line;
    uint64_t uid;
    if (proc_read_pid("", (uint32_t)pid, "status", data, sizeof data, &text, NULL) != 0 ||
        proc_find_key(text, "Uid:", &line) != 0 || proc_take_number(&line, &uid) != 0)
        return -1;
    return (int64_t)uid;
}

static bool may_be_read(int fd, pid_t pid)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
           (st.st_uid == 0 || (int64_t)st.st_uid == owner_of(pid));
}

void perf_map_open(struct perf_map *map, pid_t pid)
{
    char path[64], name[48];
    memset(map, 0, sizeof *map);
    map->fd = -1;
    snprintf(path, sizeof path, "/proc/%d/root/tmp", pid);
    snprintf(name, sizeof name, "perf-%llu.map", (unsigned long long)inner_pid(pid));
    int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder < 0)
        return;
    /* Looked at before it is opened for reading: a device may do something when opened. */
    int place = openat(folder, name, O_PATH | O_CLOEXEC | O_NOFOLLOW);
    close(folder);
    if (place < 0)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", place);
    if (may_be_read(place, pid))
        map->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    close(place);
}

static void forget_names(struct perf_map *map)
{
    for (size_t i = 0; i < map->count; i++)
        free(map->names[i].name);
    free(map->names);
    map->names = NULL;
    map->count = map->name_bytes = 0;
}

void perf_map_close(struct perf_map *map)
{
    forget_names(map);
    if (map->fd >= 0)
        close(map->fd);
    map->fd = -1;
}

/* ---- its lines ---- */

/* The first address asked for that is not before `address`. */
static size_t first_from(const struct perf_map *map, uint64_t address)
{
    size_t low = 0, high = map->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->names[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void set_name(struct perf_map *map, struct perf_map_name *entry, uint64_t start,
                     struct span name)
{
    size_t before = entry->name ? strlen(entry->name) + 1 : 0;
    size_t length = name.size_bytes < PERF_MAP_NAME_MAX ? name.size_bytes : PERF_MAP_NAME_MAX;
    if (map->name_bytes - before + length + 1 > PERF_MAP_NAMES_MAX) {
        map->cut = true;
        return;
    }
    char *copy = malloc(length + 1);
    if (!copy) {
        map->cut = true;
        return;
    }
    memcpy(copy, name.data, length);
    copy[length] = '\0';
    map->name_bytes = map->name_bytes - before + strlen(copy) + 1;
    free(entry->name);
    entry->name = copy;
    entry->start = start;
}

/* "START SIZE name", hexadecimal, with or without 0x; the name may have blanks. */
static int take_address(struct span *line, uint64_t *out)
{
    if (proc_starts_with(*line, "0x"))
        *line = span_of(line->data + 2, line->size_bytes - 2);
    uint8_t blank;
    return text_take_hex(line, out) || span_take_u8(line, &blank) || blank != ' ' ? ERR_CORRUPT : 0;
}

static void feed_line(struct perf_map *map, struct span line)
{
    uint64_t start, size;
    if (take_address(&line, &start) || take_address(&line, &size) || size == 0 ||
        start + size < start || line.size_bytes == 0)
        return;
    for (size_t i = first_from(map, start); i < map->count; i++) {
        if (map->names[i].address >= start + size)
            break;
        set_name(map, &map->names[i], start, line);
    }
}

void perf_map_feed(struct perf_map *map, struct span text)
{
    struct span line;
    while (text.size_bytes > 0 && text_take_until(&text, '\n', &line) == 0)
        feed_line(map, line);
}

/* How much of `data` is whole lines; all of it when it is one endless line. */
static size_t whole_lines(const uint8_t *data, size_t size_bytes)
{
    const uint8_t *end = memrchr(data, '\n', size_bytes);
    return end ? (size_t)(end - data) + 1 : size_bytes >= LINE_MAX_BYTES ? size_bytes : 0;
}

static void read_file(struct perf_map *map, uint8_t *room)
{
    size_t kept = 0;
    for (uint64_t total = 0;;) {
        ssize_t got = read(map->fd, room + kept, READ_BYTES - kept);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        total += (uint64_t)got;
        kept += (size_t)got;
        size_t whole = whole_lines(room, kept);
        perf_map_feed(map, span_of(room, whole));
        memmove(room, room + whole, kept - whole);
        kept -= whole;
        if (total >= PERF_MAP_BYTES_MAX) {
            map->cut = true;
            return;
        }
    }
    /* The last line may be without an end: the process may be writing it. */
}

int perf_map_ask(struct perf_map *map, const uint64_t *addresses, size_t count, struct failure *f)
{
    forget_names(map);
    map->cut = count > PERF_MAP_WANTED_MAX;
    if (count > PERF_MAP_WANTED_MAX)
        return fail(f, ERR_LIMIT, "%zu addresses in code made at run time, limit %d", count,
                    PERF_MAP_WANTED_MAX);
    if (count == 0)
        return 0;
    map->names = calloc(count, sizeof *map->names);
    if (!map->names)
        return fail(f, ERR_NOMEM, "no memory to name %zu addresses", count);
    map->count = count;
    for (size_t i = 0; i < count; i++)
        map->names[i].address = addresses[i];
    uint8_t *room = map->fd >= 0 ? malloc(READ_BYTES) : NULL;
    if (map->fd >= 0 && !room)
        return fail(f, ERR_NOMEM, "no memory to read names");
    if (room && lseek(map->fd, 0, SEEK_SET) == 0)
        read_file(map, room);
    free(room);
    return 0;
}

const struct perf_map_name *perf_map_find(const struct perf_map *map, uint64_t address)
{
    size_t at = first_from(map, address);
    if (at == map->count || map->names[at].address != address || !map->names[at].name)
        return NULL;
    return &map->names[at];
}
