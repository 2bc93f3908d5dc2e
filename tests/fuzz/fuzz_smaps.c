/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the lines of smaps: what is kept is sorted, without overlap, and no sum of it
 * overflows; what is found for an address holds it.
 */
#include <assert.h>
#include <stdint.h>

#include "agent/os/linux/segments.h"
#include "common/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct areas areas;
    struct span text = span_of(data, size), line;
    areas_init(&areas);
    while (text.size_bytes > 0 && text_take_until(&text, '\n', &line) == 0) {
        if (areas_feed(&areas, line) != 0)
            break;
    }
    for (size_t i = 0; i < areas.count; i++) {
        const struct area *area = &areas.list[i];
        uint64_t bytes = area->end - area->start;
        assert(area->start < area->end);
        assert(i == 0 || areas.list[i - 1].end <= area->start);
        assert(area->resident_bytes <= bytes && area->swapped_bytes <= bytes);
        assert(area->own_bytes <= bytes && area->huge_bytes <= bytes);
        assert(areas_find(&areas, area->start) == area);
        assert(areas_find(&areas, area->end - 1) == area);
        assert(areas_find(&areas, area->end) != area);
    }
    areas_done(&areas);
    return 0;
}
