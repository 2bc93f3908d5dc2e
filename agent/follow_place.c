/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far each log is dealt with, in a mapped file: a store is all it takes, and what was stored
 * survives our death. Invariant: a damaged file means that nothing is remembered, never a wrong
 * place: a place counts only for the very file (device, inode, birth), and not beyond its size.
 */
#include <string.h>

#include "agent/follow_private.h"
#include "common/text.h"

#define MAGIC UINT64_C(0x31474F4C57415254) /* "TRAWLOG1" */
#define PLACES 128

struct layout {
    uint64_t magic;
    char cursor[OS_JOURNAL_CURSOR_SIZE];
    struct follow_place places[PLACES];
};

static struct layout *layout_of(struct follow_places *places)
{
    return (struct layout *)(void *)places->map.data;
}

int follow_places_open(struct follow_places *places, const char *directory, struct failure *f)
{
    char path[STATE_PATH_SIZE];
    bool fresh;
    *places = (struct follow_places){0};
    if (text_format(path, sizeof path, "%s/logs.places", directory))
        return fail(f, ERR_LIMIT, "path too long: '%s'", directory);
    int e = port_map_open(&places->map, path, sizeof(struct layout), &fresh, f);
    if (e)
        return e;
    struct layout *layout = layout_of(places);
    places->is_first = fresh || layout->magic != MAGIC;
    if (places->is_first)
        memset(layout, 0, sizeof *layout);
    layout->magic = MAGIC;
    layout->cursor[sizeof layout->cursor - 1] = '\0';
    return 0;
}

void follow_places_close(struct follow_places *places)
{
    port_map_close(&places->map);
}

struct follow_place *follow_places_get(struct follow_places *places, const struct os_log *log,
                                       int64_t wall_us)
{
    struct layout *layout = layout_of(places);
    struct follow_place *best = &layout->places[0];
    for (size_t i = 0; i < PLACES; i++) {
        struct follow_place *p = &layout->places[i];
        if (p->inode == log->inode && p->device == log->device && p->born_us == log->born_us) {
            p->used_us = (uint64_t)wall_us;
            return p;
        }
        if (p->used_us < best->used_us)
            best = p;
    }
    *best = (struct follow_place){log->device, log->inode,        log->born_us,
                                  UINT64_MAX,  (uint64_t)wall_us, 0};
    return best;
}

char *follow_places_cursor(struct follow_places *places)
{
    return layout_of(places)->cursor;
}
