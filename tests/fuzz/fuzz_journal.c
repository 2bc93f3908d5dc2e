/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a journal in export format: texts stay terminated, the message lies within what was
 * given, each step takes something, results are of a unit. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/follow_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct os_unit_results *results, const struct follow_entry *entry)
{
    const struct os_unit_record *r = &entry->unit_record;
    struct os_exception e;
    assert(memchr(r->unit, 0, sizeof r->unit) && memchr(r->message, 0, sizeof r->message));
    assert(memchr(entry->cursor, 0, sizeof entry->cursor) &&
           memchr(entry->comm, 0, sizeof entry->comm));
    if (os_unit_result_feed(results, r, &e))
        assert(e.unit[0] && e.type[0] && e.tag_count <= OS_EXCEPTION_TAGS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct os_unit_results *results = NULL;
    struct follow_entry entry = {.pid = 0};
    struct span s = span_of(data, size);
    bool is_whole;
    if (os_unit_results_open(&results))
        return 0;
    for (size_t before = size; follow_entry_take(&s, &entry, &is_whole) == 0;) {
        assert(s.size_bytes < before && s.data + s.size_bytes == data + size);
        before = s.size_bytes;
        if (entry.message.size_bytes)
            assert(entry.message.data > data && /* a name stands before it */
                   entry.message.data + entry.message.size_bytes <= s.data);
        if (!is_whole)
            continue;
        check(results, &entry);
        entry = (struct follow_entry){.pid = 0};
    }
    os_unit_results_close(results);
    return 0;
}
