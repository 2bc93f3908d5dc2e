/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parser of /proc/PID/smaps, line by line. Invariant: the list is sorted and does not overlap, or
 * feeding failed; so the binary search is right for any input. Called by dump.c; fuzzed by
 * fuzz_smaps.c.
 */
#include "agent/os/linux/segments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define KIB 1024u

void areas_init(struct areas *areas)
{
    memset(areas, 0, sizeof *areas);
}

void areas_done(struct areas *areas)
{
    free(areas->list);
    areas_init(areas);
}

static int add_area(struct areas *areas, uint64_t start, uint64_t end)
{
    if (start >= end || (areas->count > 0 && start < areas->list[areas->count - 1].end))
        return ERR_CORRUPT;
    if (areas->count >= MAPS_MAX)
        return ERR_LIMIT;
    if (BUF_GROW(areas->list, areas->count, &areas->capacity, 256))
        return ERR_NOMEM;
    areas->list[areas->count++] = (struct area){.start = start, .end = end};
    return 0;
}

/* "7f00-7f10 r-xp ...": only the addresses matter, the rest is in maps. */
static int feed_mapping(struct areas *areas, struct span field)
{
    uint64_t start, end;
    uint8_t dash;
    if (text_take_hex(&field, &start) || span_take_u8(&field, &dash) || dash != '-' ||
        text_take_hex(&field, &end) || field.size_bytes > 0)
        return ERR_CORRUPT;
    return add_area(areas, start, end);
}

/* "rd wr mr mw me ac " */
static uint32_t parse_flags(struct span line)
{
    static const struct {
        char name[3];
        uint32_t flag;
    } known[] = {{"dc", AREA_DONT_FORK},
                 {"wf", AREA_WIPE_ON_FORK},
                 {"dd", AREA_DONT_DUMP},
                 {"io", AREA_DEVICE},
                 {"pf", AREA_DEVICE}};
    uint32_t flags = 0;
    struct span field;
    while (proc_take_field(&line, &field) == 0) {
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
            if (span_equal(field, span_str(known[i].name)))
                flags |= known[i].flag;
        }
    }
    return flags;
}

static int feed_value(struct areas *areas, struct span key, struct span rest)
{
    static const struct {
        const char *name;
        size_t offset;
    } known[] = {{"Rss:", offsetof(struct area, resident_bytes)},
                 {"Swap:", offsetof(struct area, swapped_bytes)},
                 {"Anonymous:", offsetof(struct area, own_bytes)},
                 {"AnonHugePages:", offsetof(struct area, huge_bytes)}};
    if (areas->count == 0)
        return ERR_CORRUPT;
    struct area *area = &areas->list[areas->count - 1];
    if (span_equal(key, span_str("VmFlags:")))
        area->flags = parse_flags(rest);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint64_t value;
        if (!span_equal(key, span_str(known[i].name)))
            continue;
        if (proc_take_number(&rest, &value) || value > UINT64_MAX / KIB)
            return ERR_CORRUPT;
        value *= KIB;
        /* Never more than there is room for: sums of them do not overflow. */
        if (value > area->end - area->start)
            value = area->end - area->start;
        memcpy((char *)area + known[i].offset, &value, sizeof value);
    }
    return 0;
}

int areas_feed(struct areas *areas, struct span line)
{
    struct span field;
    if (proc_take_field(&line, &field) != 0)
        return 0;
    if (field.data[field.size_bytes - 1] == ':')
        return feed_value(areas, field, line);
    return feed_mapping(areas, field);
}

static int feed_line(void *context, struct span line)
{
    return areas_feed(context, line);
}

int areas_read(struct areas *areas, pid_t pid, struct failure *f)
{
    char path[32];
    struct failure cause = {0, ""};
    snprintf(path, sizeof path, "/proc/%d/smaps", pid);
    areas->count = 0;
    /* The kernel locks the process's mappings meanwhile: whoever is nice makes mmap(2) there wait
     * for as long as others keep him from running. */
    int priority = getpriority(PRIO_PROCESS, 0);
    setpriority(PRIO_PROCESS, 0, 0);
    int rc = proc_each_line(path, feed_line, areas, &cause);
    setpriority(PRIO_PROCESS, 0, priority);
    if (rc == 0 && areas->count == 0)
        rc = fail(&cause, ERR_GONE, "process ended");
    if (rc && cause.code == 0)
        fail(&cause, rc, "cannot use '%s': %s", path, err_text(rc));
    if (rc && f)
        *f = cause;
    return rc;
}

const struct area *areas_find(const struct areas *areas, uint64_t address)
{
    size_t low = 0, high = areas->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (address < areas->list[middle].start)
            high = middle;
        else if (address >= areas->list[middle].end)
            low = middle + 1;
        else
            return &areas->list[middle];
    }
    return NULL;
}
