/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a memory map: either refused whole, or sorted, without overlap, and every address of
 * it is found in the mapping that holds it.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/os/linux/maps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_map(const struct maps *maps, size_t index)
{
    const struct map *map = &maps->list[index];
    assert(map->start < map->end);
    assert(index == 0 || maps->list[index - 1].end <= map->start);
    assert(maps_find(maps, map->start) == map);
    assert(maps_find(maps, map->end - 1) == map);
    assert(maps_find(maps, map->end) != map);
    const char *path = maps_path(maps, map);
    assert(map->path + strlen(path) < maps->paths.size_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct maps maps;
    struct failure f = {0, ""};
    maps_init(&maps);
    int rc = maps_parse(&maps, span_of(data, size), &f);
    assert(rc == 0 || (maps.count == 0 && f.code == rc && f.text[0] != '\0'));
    for (size_t i = 0; i < maps.count; i++)
        check_map(&maps, i);
    assert(maps_find(&maps, UINT64_MAX) == NULL || maps.count > 0);
    maps_done(&maps);
    return 0;
}
