/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making tables of symbols: texts once each, ranges made flat, lines in order, pages. Invariant:
 * entries of a page ascend and none is split. Called by symbols_read.
 */
#include "collector/symbols_build.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/xxh64.h"

#define FIRST_CAPACITY 1024
#define TEXTS_MAX ((size_t)SYMBOLS_PAGES_MAX * SYMBOLS_PAGE_BYTES)
#define PAGE_HEAD 4
#define ENTRY_BYTES_MAX 25 /* three varints of 10, 10 and 5 bytes */

struct range {
    uint64_t start, end;
    uint32_t name;
    uint8_t depth, rank;
};

struct line {
    uint64_t address;
    uint32_t order, file, line;
};

struct symbols_build {
    struct buf texts;
    uint32_t *slots; /* offsets into texts, hashed; 0: free */
    size_t slot_count, text_count;
    struct range *ranges;
    size_t range_count, range_capacity;
    struct line *lines;
    size_t line_count, line_capacity;
    uint64_t *first; /* of the pages written */
    uint32_t pages;
    struct symbols_root root;
    symbols_write_fn write;
    void *context;
};

int symbols_build_open(struct symbols_build **out)
{
    struct symbols_build *b = calloc(1, sizeof *b);
    if (!b)
        return ERR_NOMEM;
    buf_init(&b->texts, TEXTS_MAX);
    b->slot_count = FIRST_CAPACITY;
    b->slots = calloc(b->slot_count, sizeof *b->slots);
    if (!b->slots || buf_append_byte(&b->texts, 0)) {
        symbols_build_close(b);
        return ERR_NOMEM;
    }
    *out = b;
    return 0;
}

void symbols_build_close(struct symbols_build *b)
{
    if (!b)
        return;
    buf_done(&b->texts);
    free(b->slots);
    free(b->ranges);
    free(b->lines);
    free(b->first);
    free(b);
}

size_t symbols_build_ranges(const struct symbols_build *b)
{
    return b->range_count;
}

size_t symbols_build_lines(const struct symbols_build *b)
{
    return b->line_count;
}

/* ---- texts ---- */

static size_t find_slot(const struct symbols_build *b, struct span text)
{
    size_t at = (size_t)xxh64(text, 0) & (b->slot_count - 1);
    while (b->slots[at]) {
        const char *there = (const char *)b->texts.data + b->slots[at];
        if (strncmp(there, (const char *)text.data, text.size_bytes) == 0 &&
            there[text.size_bytes] == '\0')
            break;
        at = (at + 1) & (b->slot_count - 1);
    }
    return at;
}

static int grow_slots(struct symbols_build *b)
{
    uint32_t *old = b->slots;
    size_t old_count = b->slot_count;
    if (b->text_count * 2 < b->slot_count)
        return 0;
    uint32_t *slots = calloc(old_count * 2, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    b->slots = slots;
    b->slot_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++)
        if (old[i])
            b->slots[find_slot(b, span_str((const char *)b->texts.data + old[i]))] = old[i];
    free(old);
    return 0;
}

/* Not across the end of a page. */
static int append_text(struct symbols_build *b, struct span text, uint32_t *out)
{
    static const uint8_t zeros[SYMBOLS_FUNCTION_SIZE];
    size_t left = SYMBOLS_PAGE_BYTES - b->texts.size_bytes % SYMBOLS_PAGE_BYTES;
    int r = left <= text.size_bytes ? buf_append(&b->texts, zeros, left) : 0;
    size_t at = b->texts.size_bytes;
    if (r == 0)
        r = buf_append_span(&b->texts, text);
    if (r == 0)
        r = buf_append_byte(&b->texts, 0);
    *out = (uint32_t)at;
    return r;
}

static int intern(struct symbols_build *b, struct span text, uint32_t *out)
{
    int r = grow_slots(b);
    if (r)
        return r;
    size_t at = find_slot(b, text);
    if (!b->slots[at]) {
        r = append_text(b, text, &b->slots[at]);
        if (r) {
            b->slots[at] = 0;
            return r;
        }
        b->text_count++;
    }
    *out = b->slots[at];
    return 0;
}

int symbols_build_name(struct symbols_build *b, const char *name, uint32_t *out)
{
    size_t size = strnlen(name, SYMBOLS_FUNCTION_SIZE - 1);
    *out = 0;
    return size ? intern(b, span_of(name, size), out) : 0;
}

/* From a '/' on where there is one. */
int symbols_build_file(struct symbols_build *b, const char *file, uint32_t *out)
{
    size_t size = strlen(file);
    *out = 0;
    if (size > SYMBOLS_FILE_SIZE - 1) {
        file += size - (SYMBOLS_FILE_SIZE - 1);
        const char *slash = strchr(file, '/');
        if (slash && slash[1])
            file = slash + 1;
        size = strlen(file);
    }
    return size ? intern(b, span_of(file, size), out) : 0;
}

/* ---- what is gathered ---- */

int symbols_build_range(struct symbols_build *b, uint64_t start, uint64_t end, unsigned depth,
                        unsigned rank, uint32_t name)
{
    if (start >= end || end >= SYMBOLS_ADDRESS_MAX || !name)
        return 0;
    if (b->range_count >= SYMBOLS_ENTRIES_MAX)
        return ERR_LIMIT;
    if (BUF_GROW(b->ranges, b->range_count, &b->range_capacity, FIRST_CAPACITY))
        return ERR_NOMEM;
    if (depth >= SYMBOLS_DEPTH_MAX)
        depth = SYMBOLS_DEPTH_MAX - 1;
    b->ranges[b->range_count++] = (struct range){start, end, name, (uint8_t)depth, (uint8_t)rank};
    return 0;
}

int symbols_build_line(struct symbols_build *b, uint64_t address, uint32_t file, uint32_t line)
{
    if (address >= SYMBOLS_ADDRESS_MAX)
        return 0;
    if (b->line_count >= SYMBOLS_ENTRIES_MAX)
        return ERR_LIMIT;
    if (BUF_GROW(b->lines, b->line_count, &b->line_capacity, FIRST_CAPACITY))
        return ERR_NOMEM;
    /* Where one sequence ends another one may begin: the end comes first. */
    uint32_t order = file ? (uint32_t)b->line_count + 1 : 0;
    b->lines[b->line_count++] = (struct line){address, order, file, file ? line : 0};
    return 0;
}

/* ---- pages ---- */

struct pager {
    struct symbols_build *build;
    bool lines;
    uint8_t page[SYMBOLS_PAGE_BYTES];
    struct buf entries;
    bool has_next, has_last;
    struct line next; /* may still be replaced by one at the same address */
    struct line last; /* written */
    uint32_t count, pages;
};

static int write_page(struct symbols_build *b, uint64_t first, struct span page)
{
    if (b->pages >= SYMBOLS_PAGES_MAX)
        return ERR_LIMIT;
    b->first[b->pages] = first;
    return b->write(b->context, b->pages++, page);
}

static int flush_page(struct pager *p, uint64_t first)
{
    size_t used = p->entries.size_bytes;
    if (!used)
        return 0;
    memset(p->page, 0, sizeof p->page);
    for (size_t i = 0; i < PAGE_HEAD; i++)
        p->page[i] = (uint8_t)(used >> (8 * i));
    memcpy(p->page + PAGE_HEAD, p->entries.data, used);
    buf_clear(&p->entries);
    p->pages++;
    return write_page(p->build, first, span_of(p->page, sizeof p->page));
}

static int put_entry(struct pager *p, const struct line *before, const struct line *e)
{
    struct buf *out = &p->entries;
    uint64_t delta = e->address - before->address;
    bool same = e->file == before->file;
    if (!p->lines) {
        int r = buf_append_varint(out, delta);
        return r ? r : buf_append_varint(out, e->file);
    }
    int r = buf_append_varint(out, delta << 1 | same);
    if (r == 0)
        r = buf_append_zigzag(out, (int64_t)e->line - before->line);
    return r || same ? r : buf_append_varint(out, e->file);
}

/* Of the page that is being filled. */
static int settle(struct pager *p, uint64_t *first)
{
    const struct line *e = &p->next;
    bool same = p->has_last && p->last.file == e->file && p->last.line == e->line;
    bool nothing = !p->has_last && !e->file;
    if (!p->has_next || same || nothing)
        return 0;
    if (p->entries.size_bytes + ENTRY_BYTES_MAX > SYMBOLS_PAGE_BYTES - PAGE_HEAD) {
        int r = flush_page(p, *first);
        if (r)
            return r;
    }
    struct line before = p->last;
    if (!p->entries.size_bytes) {
        *first = e->address;
        before = (struct line){.address = e->address};
    }
    p->last = *e;
    p->has_last = true;
    p->count += e->file != 0;
    return put_entry(p, &before, e);
}

/* Addresses never descend. */
static int add(struct pager *p, uint64_t *first, const struct line *e)
{
    int r = p->has_next && p->next.address != e->address ? settle(p, first) : 0;
    p->next = *e;
    p->has_next = true;
    return r;
}

static int end_pages(struct pager *p, uint64_t *first)
{
    int r = settle(p, first);
    return r ? r : flush_page(p, *first);
}

/* ---- functions ---- */

static int compare_ranges(const void *left, const void *right)
{
    const struct range *a = left, *b = right;
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    if (a->depth != b->depth)
        return a->depth < b->depth ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return a->name < b->name ? -1 : a->name > b->name;
}

struct sweep {
    struct pager *pager;
    uint64_t first;
    uint64_t active; /* bit per depth */
    struct range at[SYMBOLS_DEPTH_MAX];
};

static int innermost(const struct sweep *s)
{
    return s->active ? 63 - __builtin_clzll(s->active) : -1;
}

static int show(struct sweep *s, uint64_t address)
{
    int depth = innermost(s);
    struct line e = {.address = address, .file = depth < 0 ? 0 : s->at[depth].name};
    return add(s->pager, &s->first, &e);
}

/* Ends what is over at `address`: each end shows what lies below it. */
static int end_until(struct sweep *s, uint64_t address)
{
    int r = 0;
    for (int depth; r == 0 && (depth = innermost(s)) >= 0 && s->at[depth].end <= address;) {
        uint64_t end = s->at[depth].end;
        while (depth >= 0 && s->at[depth].end <= end) {
            s->active &= ~(UINT64_C(1) << depth);
            depth = innermost(s);
        }
        r = show(s, end);
    }
    return r;
}

static int put_functions(struct symbols_build *b, struct pager *p)
{
    struct sweep s = {.pager = p};
    uint64_t counted = UINT64_MAX;
    int r = 0;
    if (b->range_count)
        qsort(b->ranges, b->range_count, sizeof *b->ranges, compare_ranges);
    for (size_t i = 0; r == 0 && i < b->range_count; i++) {
        const struct range *range = &b->ranges[i];
        if (range->depth <= 1 && range->start != counted) {
            counted = range->start;
            b->root.functions++;
        }
        r = end_until(&s, range->start);
        s.at[range->depth] = *range;
        s.active |= UINT64_C(1) << range->depth;
        if (r == 0)
            r = show(&s, range->start);
    }
    if (r == 0)
        r = end_until(&s, UINT64_MAX);
    return r ? r : end_pages(p, &s.first);
}

/* ---- lines ---- */

static int compare_lines(const void *left, const void *right)
{
    const struct line *a = left, *b = right;
    if (a->address != b->address)
        return a->address < b->address ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

static int put_lines(struct symbols_build *b, struct pager *p)
{
    uint64_t first = 0;
    int r = 0;
    if (b->line_count)
        qsort(b->lines, b->line_count, sizeof *b->lines, compare_lines);
    for (size_t i = 0; r == 0 && i < b->line_count; i++)
        r = add(p, &first, &b->lines[i]);
    return r ? r : end_pages(p, &first);
}

static int put_texts(struct symbols_build *b)
{
    uint8_t page[SYMBOLS_PAGE_BYTES];
    int r = 0;
    for (size_t at = 0; r == 0 && at < b->texts.size_bytes; at += sizeof page) {
        size_t left = b->texts.size_bytes - at;
        memset(page, 0, sizeof page);
        memcpy(page, b->texts.data + at, left < sizeof page ? left : sizeof page);
        b->root.text_pages++;
        r = write_page(b, 0, span_of(page, sizeof page));
    }
    return r;
}

static int put_addresses(struct symbols_build *b)
{
    struct pager *p = calloc(1, sizeof *p);
    if (!p)
        return ERR_NOMEM;
    p->build = b;
    buf_init(&p->entries, SYMBOLS_PAGE_BYTES);
    int r = put_functions(b, p);
    b->root.function_pages = p->pages;
    buf_done(&p->entries);
    memset(p, 0, sizeof *p);
    p->build = b;
    p->lines = true;
    buf_init(&p->entries, SYMBOLS_PAGE_BYTES);
    if (r == 0)
        r = put_lines(b, p);
    b->root.line_pages = p->pages;
    b->root.lines = p->count;
    buf_done(&p->entries);
    free(p);
    return r;
}

int symbols_build_end(struct symbols_build *b, struct span build_id, const char *missing,
                      symbols_write_fn write, void *context)
{
    if (build_id.size_bytes == 0 || build_id.size_bytes > SYMBOLS_BUILD_ID_BYTES)
        return ERR_INVALID;
    b->first = calloc(SYMBOLS_PAGES_MAX, sizeof *b->first);
    if (!b->first)
        return ERR_NOMEM;
    b->write = write;
    b->context = context;
    memcpy(b->root.build_id, build_id.data, build_id.size_bytes);
    b->root.build_id_bytes = build_id.size_bytes;
    text_copy(b->root.missing, sizeof b->root.missing, missing);
    int r = put_addresses(b);
    if (r == 0)
        r = put_texts(b);
    struct buf root;
    buf_init(&root, SYMBOLS_ROOT_ROOM);
    b->root.first = b->first;
    if (r == 0)
        r = symbols_root_put(&b->root, &root);
    if (r == 0)
        r = write(context, UINT32_MAX, buf_span(&root));
    buf_done(&root);
    return r;
}
