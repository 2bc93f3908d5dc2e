/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading tables of symbols: see the header for their form. Invariant: every number is compared
 * with what it counts before it is used; a page that is not as its root says is an error, never a
 * wrong name. Called by symbols and symbols_add.
 */
#include "collector/symbols_table.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

static const char MAGIC[4] = {'T', 'S', 'Y', '1'};

/* ---- root ---- */

uint32_t symbols_root_pages(const struct symbols_root *root)
{
    return root->function_pages + root->line_pages + root->text_pages;
}

void symbols_root_done(struct symbols_root *root)
{
    free(root->first);
    root->first = NULL;
}

static int put_firsts(const uint64_t *first, uint32_t count, struct buf *out)
{
    int r = 0;
    uint64_t before = 0;
    for (uint32_t i = 0; r == 0 && i < count; i++) {
        r = buf_append_varint(out, first[i] - before);
        before = first[i];
    }
    return r;
}

int symbols_root_put(const struct symbols_root *root, struct buf *out)
{
    size_t missing = strlen(root->missing), begin = out->size_bytes;
    int r = buf_append(out, MAGIC, sizeof MAGIC);
    if (r == 0)
        r = buf_append_byte(out, (uint8_t)root->build_id_bytes);
    if (r == 0)
        r = buf_append(out, root->build_id, root->build_id_bytes);
    const uint32_t numbers[] = {root->functions, root->lines, root->function_pages,
                                root->line_pages, root->text_pages};
    for (size_t i = 0; r == 0 && i < sizeof numbers / sizeof numbers[0]; i++)
        r = buf_append_varint(out, numbers[i]);
    if (r == 0)
        r = buf_append_byte(out, (uint8_t)missing);
    if (r == 0)
        r = buf_append(out, root->missing, missing);
    if (r == 0)
        r = put_firsts(root->first, root->function_pages, out);
    if (r == 0)
        r = put_firsts(root->first + root->function_pages, root->line_pages, out);
    return r == 0 && out->size_bytes - begin > SYMBOLS_ROOT_BYTES ? ERR_LIMIT : r;
}

static int get_u32(struct span *in, uint32_t *out)
{
    uint64_t value;
    if (span_take_varint(in, &value) || value > UINT32_MAX)
        return ERR_CORRUPT;
    *out = (uint32_t)value;
    return 0;
}

static int get_head(struct symbols_root *root, struct span *in)
{
    struct span magic, bytes;
    uint8_t size;
    if (span_take(in, sizeof MAGIC, &magic) || memcmp(magic.data, MAGIC, sizeof MAGIC) != 0)
        return ERR_CORRUPT;
    if (span_take_u8(in, &size) || size == 0 || size > SYMBOLS_BUILD_ID_BYTES ||
        span_take(in, size, &bytes))
        return ERR_CORRUPT;
    memcpy(root->build_id, bytes.data, size);
    root->build_id_bytes = size;
    uint32_t *const numbers[] = {&root->functions, &root->lines, &root->function_pages,
                                 &root->line_pages, &root->text_pages};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (get_u32(in, numbers[i]))
            return ERR_CORRUPT;
    if (span_take_u8(in, &size) || size >= SYMBOLS_MISSING_SIZE || span_take(in, size, &bytes))
        return ERR_CORRUPT;
    text_copy_span(root->missing, sizeof root->missing, bytes);
    text_clean(root->missing);
    return 0;
}

/* Ascending; the first page of a kind may begin anywhere. */
static int get_firsts(struct span *in, uint64_t *first, uint32_t count)
{
    uint64_t at = 0, delta;
    for (uint32_t i = 0; i < count; i++) {
        if (span_take_varint(in, &delta) || delta >= SYMBOLS_ADDRESS_MAX - at || (i && !delta))
            return ERR_CORRUPT;
        at += delta;
        first[i] = at;
    }
    return 0;
}

int symbols_root_get(struct symbols_root *out, struct span in)
{
    struct symbols_root root = {.first = NULL};
    int r = in.size_bytes > SYMBOLS_ROOT_BYTES ? ERR_LIMIT : get_head(&root, &in);
    if (r)
        return r;
    if (root.function_pages > SYMBOLS_PAGES_MAX || root.line_pages > SYMBOLS_PAGES_MAX ||
        root.text_pages > SYMBOLS_PAGES_MAX || symbols_root_pages(&root) > SYMBOLS_PAGES_MAX)
        return ERR_LIMIT;
    root.first = calloc((size_t)root.function_pages + root.line_pages + 1, sizeof *root.first);
    if (!root.first)
        return ERR_NOMEM;
    r = get_firsts(&in, root.first, root.function_pages);
    if (r == 0)
        r = get_firsts(&in, root.first + root.function_pages, root.line_pages);
    if (r == 0 && in.size_bytes)
        r = ERR_CORRUPT;
    if (r)
        symbols_root_done(&root);
    else
        *out = root;
    return r;
}

/* ---- entries ---- */

struct entry {
    uint64_t address;
    uint32_t text, line; /* name, or file with its line */
};

/* As span_take_varint(), for the one place where it is most of the work. */
static inline int take_number(struct span *s, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 10 && i < s->size_bytes; i++) {
        value |= (uint64_t)(s->data[i] & 127) << (7 * i);
        if (s->data[i] < 128) {
            s->data += i + 1;
            s->size_bytes -= i + 1;
            *out = value;
            return 0;
        }
    }
    return ERR_CORRUPT;
}

struct entries {
    struct span rest;
    struct entry now; /* the one before the next */
    bool lines;
};

static int open_entries(struct entries *e, struct span page, uint64_t first, bool lines)
{
    uint32_t used;
    if (span_take_u32(&page, &used) || span_take(&page, used, &e->rest))
        return ERR_CORRUPT;
    e->now = (struct entry){.address = first};
    e->lines = lines;
    return 0;
}

static int next_line(struct entries *e, uint64_t *delta)
{
    uint64_t head, file, raw;
    if (take_number(&e->rest, &head) || take_number(&e->rest, &raw))
        return ERR_CORRUPT;
    int64_t line = raw & 1 ? -(int64_t)(raw >> 1) - 1 : (int64_t)(raw >> 1);
    if (line < -(int64_t)e->now.line || line > (int64_t)UINT32_MAX - e->now.line)
        return ERR_CORRUPT;
    e->now.line = (uint32_t)((int64_t)e->now.line + line);
    *delta = head >> 1;
    if (head & 1)
        return 0;
    if (take_number(&e->rest, &file) || file > UINT32_MAX)
        return ERR_CORRUPT;
    e->now.text = (uint32_t)file;
    return 0;
}

/* ERR_NOTFOUND: no more. */
static int next_entry(struct entries *e)
{
    uint64_t delta, name;
    if (!e->rest.size_bytes)
        return ERR_NOTFOUND;
    if (e->lines) {
        if (next_line(e, &delta))
            return ERR_CORRUPT;
    } else {
        if (take_number(&e->rest, &delta) || take_number(&e->rest, &name) || name > UINT32_MAX)
            return ERR_CORRUPT;
        e->now.text = (uint32_t)name;
    }
    if (delta >= SYMBOLS_ADDRESS_MAX - e->now.address)
        return ERR_CORRUPT;
    e->now.address += delta;
    return 0;
}

/* ---- checking ---- */

/* Up to where the entries of an address page may go. */
static uint64_t page_end(const struct symbols_root *root, uint32_t no)
{
    bool last = no + 1 == root->function_pages || no + 1 == root->function_pages + root->line_pages;
    return last ? SYMBOLS_ADDRESS_MAX : root->first[no + 1];
}

int symbols_page_check(const struct symbols_root *root, uint32_t no, struct span page)
{
    struct entries e;
    if (page.size_bytes != SYMBOLS_PAGE_BYTES || no >= symbols_root_pages(root))
        return ERR_CORRUPT;
    if (no >= root->function_pages + root->line_pages)
        return page.data[page.size_bytes - 1] ? ERR_CORRUPT : 0;
    uint64_t before = 0, end = page_end(root, no);
    uint64_t texts = (uint64_t)root->text_pages * SYMBOLS_PAGE_BYTES;
    int r = open_entries(&e, page, root->first[no], no >= root->function_pages);
    for (uint32_t i = 0; r == 0; i++) {
        r = next_entry(&e);
        if (r)
            return r == ERR_NOTFOUND && i ? 0 : ERR_CORRUPT;
        bool ascends = i ? e.now.address > before : e.now.address == root->first[no];
        if (!ascends || e.now.address >= end || (e.now.text && e.now.text >= texts))
            return ERR_CORRUPT;
        before = e.now.address;
    }
    return r;
}

/* ---- looking up ---- */

/* The last of `count` pages that begins at or before the address; false: none does. */
static bool find_page(const uint64_t *first, uint32_t count, uint64_t address, uint32_t *out)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (first[middle] <= address)
            low = middle + 1;
        else
            high = middle;
    }
    *out = low - 1;
    return low > 0;
}

static int find_entry(struct span page, uint64_t first, uint64_t address, bool lines,
                      struct entry *out)
{
    struct entries e;
    struct entry found = {.text = 0};
    int r = page.data ? open_entries(&e, page, first, lines) : ERR_CORRUPT;
    while (r == 0) {
        r = next_entry(&e);
        if (r == 0 && e.now.address > address)
            break;
        if (r == 0)
            found = e.now;
    }
    if (r && r != ERR_NOTFOUND)
        return r;
    *out = found;
    return 0;
}

static void find_text(const struct symbols_root *root, uint32_t offset, symbols_page_fn page,
                      void *context, char *out, size_t size_bytes)
{
    uint32_t no = offset / SYMBOLS_PAGE_BYTES;
    size_t at = offset % SYMBOLS_PAGE_BYTES;
    out[0] = '\0';
    if (!offset || no >= root->text_pages)
        return;
    struct span texts = page(context, root->function_pages + root->line_pages + no);
    if (!texts.data || at >= texts.size_bytes)
        return;
    const uint8_t *begin = texts.data + at, *end = memchr(begin, 0, texts.size_bytes - at);
    if (!end)
        return;
    text_copy_span(out, size_bytes, span_of(begin, (size_t)(end - begin)));
    text_clean(out);
}

int symbols_table_find(const struct symbols_root *root, uint64_t address, symbols_page_fn page,
                       void *context, struct symbols_place *out)
{
    struct symbols_place place = {.line = 0};
    struct entry entry;
    uint32_t no;
    if (find_page(root->first, root->function_pages, address, &no) &&
        !find_entry(page(context, no), root->first[no], address, false, &entry))
        find_text(root, entry.text, page, context, place.function, sizeof place.function);
    const uint64_t *lines = root->first + root->function_pages;
    if (find_page(lines, root->line_pages, address, &no) &&
        !find_entry(page(context, root->function_pages + no), lines[no], address, true, &entry)) {
        find_text(root, entry.text, page, context, place.file, sizeof place.file);
        place.line = place.file[0] ? entry.line : 0;
    }
    if (!place.function[0] && !place.file[0])
        return ERR_NOTFOUND;
    *out = place;
    return 0;
}
