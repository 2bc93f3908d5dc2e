/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of symbols as a child could have made it: the input is the root with its size in front,
 * then pages (what is not there is zeros). Checked: nothing is read outside, and what a page's
 * check let pass is found again in order.
 */
#include <assert.h>
#include <string.h>

#include "collector/symbols_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct span rest;

static struct span page_of(void *context, uint32_t no)
{
    static uint8_t page[SYMBOLS_PAGE_BYTES];
    size_t at = (size_t)no * SYMBOLS_PAGE_BYTES, left = 0;
    (void)context;
    if (at < rest.size_bytes)
        left = rest.size_bytes - at < sizeof page ? rest.size_bytes - at : sizeof page;
    if (no > 4096)
        return span_of(NULL, 0);
    memset(page, 0, sizeof page);
    if (left)
        memcpy(page, rest.data + at, left);
    return span_of(page, sizeof page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in = span_of(data, size), bytes;
    struct symbols_root root;
    struct symbols_place place;
    uint32_t root_size;
    if (span_take_u32(&in, &root_size) || span_take(&in, root_size, &bytes) ||
        symbols_root_get(&root, bytes))
        return 0;
    rest = in;
    uint32_t pages = symbols_root_pages(&root);
    assert(pages <= SYMBOLS_PAGES_MAX);
    for (uint32_t i = 0; i < pages && i < 16; i++) {
        int e = symbols_page_check(&root, i, page_of(NULL, i));
        if (i < root.function_pages + root.line_pages)
            for (uint64_t step = 0; step < 4; step++)
                if (!symbols_table_find(&root, root.first[i] + step * 5, page_of, NULL, &place))
                    assert(strlen(place.function) < sizeof place.function && e <= 0);
    }
    (void)symbols_table_find(&root, 0, page_of, NULL, &place);
    (void)symbols_table_find(&root, UINT64_MAX, page_of, NULL, &place);
    symbols_root_done(&root);
    return 0;
}
