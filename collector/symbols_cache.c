/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Roots and pages of tables in memory, found by generation and number. Invariant: together they
 * hold at most the limit, and the newest stays whatever its size. Called by symbols.c.
 */
#include <stdlib.h>
#include <string.h>

#include "collector/symbols_private.h"

#define BUCKETS 4096u
#define ROOT UINT32_MAX

struct entry {
    struct list link;   /* newest last */
    struct entry *next; /* in its bucket */
    uint64_t generation;
    uint32_t no;
    size_t size_bytes; /* all it holds */
    struct symbols_root root;
    uint8_t page[];
};

struct symbols_cache {
    size_t limit_bytes, size_bytes;
    struct list entries;
    struct entry *buckets[BUCKETS];
};

int symbols_cache_open(struct symbols_cache **out, size_t limit_bytes)
{
    struct symbols_cache *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NOMEM;
    c->limit_bytes = limit_bytes;
    list_init(&c->entries);
    *out = c;
    return 0;
}

static struct entry **place_of(struct symbols_cache *c, uint64_t generation, uint32_t no)
{
    uint64_t hash = (generation ^ no * UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xBF58476D1CE4E5B9);
    struct entry **at = &c->buckets[(hash >> 32) % BUCKETS];
    while (*at && ((*at)->generation != generation || (*at)->no != no))
        at = &(*at)->next;
    return at;
}

static void drop(struct symbols_cache *c, struct entry *e)
{
    *place_of(c, e->generation, e->no) = e->next;
    c->size_bytes -= e->size_bytes;
    list_remove(&e->link);
    symbols_root_done(&e->root);
    free(e);
}

void symbols_cache_close(struct symbols_cache *c)
{
    if (!c)
        return;
    LIST_EACH (at, &c->entries)
        drop(c, LIST_ENTRY(at, struct entry, link));
    free(c);
}

static struct entry *get(struct symbols_cache *c, uint64_t generation, uint32_t no)
{
    struct entry *e = *place_of(c, generation, no);
    if (e) {
        list_remove(&e->link);
        list_push(&c->entries, &e->link);
    }
    return e;
}

const struct symbols_root *symbols_cache_root(struct symbols_cache *c, uint64_t generation)
{
    const struct entry *e = get(c, generation, ROOT);
    return e ? &e->root : NULL;
}

struct span symbols_cache_page(struct symbols_cache *c, uint64_t generation, uint32_t no)
{
    const struct entry *e = get(c, generation, no);
    return e ? span_of(e->page, SYMBOLS_PAGE_BYTES) : span_of(NULL, 0);
}

static struct entry *put(struct symbols_cache *c, uint64_t generation, uint32_t no,
                         size_t page_bytes, size_t more_bytes)
{
    struct entry **at = place_of(c, generation, no);
    if (*at)
        drop(c, *at);
    struct entry *e = calloc(1, sizeof *e + page_bytes);
    if (!e)
        return NULL;
    e->generation = generation;
    e->no = no;
    e->size_bytes = sizeof *e + page_bytes + more_bytes;
    at = place_of(c, generation, no);
    *at = e;
    list_push(&c->entries, &e->link);
    c->size_bytes += e->size_bytes;
    for (struct list *oldest; c->size_bytes > c->limit_bytes &&
                              (oldest = list_first(&c->entries)) != NULL && oldest != &e->link;)
        drop(c, LIST_ENTRY(oldest, struct entry, link));
    return e;
}

int symbols_cache_put_root(struct symbols_cache *c, uint64_t generation, struct symbols_root *root)
{
    size_t firsts = ((size_t)root->function_pages + root->line_pages + 1) * sizeof *root->first;
    struct entry *e = put(c, generation, ROOT, 0, firsts);
    if (!e) {
        symbols_root_done(root);
        return ERR_NOMEM;
    }
    e->root = *root;
    root->first = NULL;
    return 0;
}

int symbols_cache_put_page(struct symbols_cache *c, uint64_t generation, uint32_t no,
                           struct span page)
{
    struct entry *e = page.size_bytes == SYMBOLS_PAGE_BYTES
                          ? put(c, generation, no, SYMBOLS_PAGE_BYTES, 0)
                          : NULL;
    if (!e)
        return page.size_bytes == SYMBOLS_PAGE_BYTES ? ERR_NOMEM : ERR_CORRUPT;
    memcpy(e->page, page.data, page.size_bytes);
    return 0;
}

size_t symbols_cache_bytes(const struct symbols_cache *c)
{
    return c->size_bytes;
}
