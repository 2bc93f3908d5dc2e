/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a list of names of code made at run time: what was asked for stays sorted and
 * asked for, and a name found holds its address.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/os/linux/perf_map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t wanted[] = {0, 0x10, 0x1000, 0x1008, 0x3ef41500, UINT64_MAX};
    const size_t count = sizeof wanted / sizeof wanted[0];
    struct perf_map map;
    memset(&map, 0, sizeof map);
    map.fd = -1;
    assert(perf_map_ask(&map, wanted, count, NULL) == 0);
    perf_map_feed(&map, span_of(data, size));
    perf_map_feed(&map, span_of(data, size / 2));
    assert(map.count == count);
    for (size_t i = 0; i < count; i++) {
        const struct perf_map_name *found = perf_map_find(&map, wanted[i]);
        assert(map.names[i].address == wanted[i]);
        assert(!found || (found->start <= wanted[i] && strlen(found->name) <= PERF_MAP_NAME_MAX));
    }
    assert(perf_map_find(&map, 0x77) == NULL);
    assert(map.name_bytes <= PERF_MAP_NAMES_MAX);
    perf_map_close(&map);
    return 0;
}
