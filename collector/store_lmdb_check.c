/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is an LMDB 0.9 data file sound? Looked at before LMDB maps it, because LMDB trusts its file: a
 * file that was cut off is SIGBUS, a zeroed page an abort, a wrong free list overwrites live data.
 * Invariant: nothing outside the file is touched, whatever it holds. Called by store_lmdb_env.c;
 * the structures are those of mdb.c (MDB_page, MDB_node, MDB_db, MDB_meta), read by offset.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "collector/store_lmdb.h"
#include "common/port.h"

#define BUDGET_US 2000000
#define HEADER_SIZE 16 /* MDB_page up to mp_ptrs: pgno 8, pad 2, flags 2, lower 2, upper 2 */
#define NODE_SIZE 8    /* lo 2, hi 2, flags 2, ksize 2 */
#define META_SIZE 136
#define MAGIC 0xBEEFC0DEu
#define LMDB_VERSION 1u
#define PAGE_BRANCH 0x01u
#define PAGE_LEAF 0x02u
#define PAGE_OVERFLOW 0x04u
#define PAGE_META 0x08u
#define NODE_BIG 0x01u
#define INTEGER_KEY 0x08u
#define NO_PAGE UINT64_MAX
#define DEPTH_MAX 32
#define LMDB_KEY_MAX 511
#define MIN_PAGE_BYTES 512
#define MAX_PAGE_BYTES 32768

struct tree {
    uint32_t page_bytes; /* md_pad of the first one */
    uint16_t flags, depth;
    uint64_t branches, leaves, overflow, entries, root;
};

struct meta {
    uint32_t magic, version;
    struct tree free, main;
    uint64_t last_page, txn;
};

struct walk {
    const char *path;
    struct failure *f;
    const uint8_t *map;
    uint64_t pages, txn, deadline_us;
    uint32_t page_bytes;
    uint8_t *seen; /* one bit a page */
    bool free;     /* walking the free list's tree */
    bool stopped;  /* out of time: what was seen so far is sound */
    struct tree found;
};

struct node {
    struct span key;
    uint16_t flags;
    uint64_t child; /* branch */
    uint32_t size;  /* leaf: of the value */
    const uint8_t *data;
};

static uint16_t load16(const uint8_t *at)
{
    uint16_t x;
    memcpy(&x, at, sizeof x);
    return x;
}

static uint32_t load32(const uint8_t *at)
{
    uint32_t x;
    memcpy(&x, at, sizeof x);
    return x;
}

static uint64_t load64(const uint8_t *at)
{
    uint64_t x;
    memcpy(&x, at, sizeof x);
    return x;
}

TRAWL_PRINTF(3, 4)
static int damaged(struct failure *f, const char *path, const char *format, ...)
{
    char reason[128];
    struct failure why;
    va_list args;
    va_start(args, format);
    fail_va(&why, ERR_CORRUPT, format, args);
    va_end(args);
    memcpy(reason, why.text, sizeof reason);
    reason[sizeof reason - 1] = '\0';
    return fail(f, ERR_CORRUPT,
                "'%s' is damaged: %s; restore it from a backup or move it away to start empty",
                path, reason);
}

/* ---- meta pages ---- */

static struct tree tree_parse(const uint8_t *at)
{
    return (struct tree){load32(at),      load16(at + 4),  load16(at + 6),  load64(at + 8),
                         load64(at + 16), load64(at + 24), load64(at + 32), load64(at + 40)};
}

static int fail_cut(struct failure *f, const char *path, uint64_t has, uint64_t needs)
{
    return fail(f, ERR_CORRUPT,
                "'%s' is cut off: %" PRIu64 " bytes, its header needs %" PRIu64
                "; restore it from a backup or move it away to start empty",
                path, has, needs);
}

static int meta_read(int fd, const char *path, uint64_t at, struct meta *out, struct failure *f)
{
    uint8_t page[HEADER_SIZE + META_SIZE];
    ssize_t n = pread(fd, page, sizeof page, (off_t)at);
    if (n < 0) {
        int e = errno;
        return fail_errno(f, err_from_errno(e), e, "cannot read '%s'", path);
    }
    if ((size_t)n < sizeof page)
        return fail_cut(f, path, at + (uint64_t)n, at + sizeof page);
    const uint8_t *meta = page + HEADER_SIZE;
    *out = (struct meta){
        .magic = load32(meta),
        .version = load32(meta + 4),
        .free = tree_parse(meta + 24),
        .main = tree_parse(meta + 72),
        .last_page = load64(meta + 120),
        .txn = load64(meta + 128),
    };
    if (!(load16(page + 10) & PAGE_META) || out->magic != MAGIC)
        return damaged(f, path, "no header at byte %" PRIu64, at);
    if (out->version != LMDB_VERSION)
        return fail(f, ERR_VERSION, "'%s' has LMDB format %u, this program reads %u", path,
                    (unsigned)out->version, LMDB_VERSION);
    return 0;
}

static bool is_page_size(uint32_t bytes)
{
    return bytes >= MIN_PAGE_BYTES && bytes <= MAX_PAGE_BYTES && (bytes & (bytes - 1)) == 0;
}

static bool tree_is_plausible(const struct tree *t, uint64_t pages, uint16_t flags)
{
    if (t->flags & ~flags)
        return false;
    if (t->root == NO_PAGE)
        return t->depth == 0 && t->entries == 0;
    return t->root >= 2 && t->root < pages && t->depth > 0 && t->depth <= DEPTH_MAX;
}

/* The newer of the two, as LMDB chooses. An older one is never good enough: it lacks what was said
 * to be safe. */
static int metas_read(int fd, const char *path, struct meta *out, struct failure *f)
{
    struct meta metas[2] = {{.magic = 0}};
    int r = meta_read(fd, path, 0, &metas[0], f);
    if (r != 0)
        return r;
    if (!is_page_size(metas[0].free.page_bytes))
        return damaged(f, path, "page size %u", (unsigned)metas[0].free.page_bytes);
    r = meta_read(fd, path, metas[0].free.page_bytes, &metas[1], f);
    if (r != 0)
        return r;
    *out = metas[metas[0].txn < metas[1].txn];
    if (metas[0].free.page_bytes != metas[1].free.page_bytes)
        return damaged(f, path, "its two headers differ in page size");
    /* Transactions are written to one and the other in turn; both are 0 in a new file. */
    uint64_t low = metas[0].txn, high = metas[1].txn;
    if (low + high > 0 && (low % 2 != 0 || (low + 1 != high && high + 1 != low)))
        return damaged(f, path, "its two headers do not follow each other");
    return 0;
}

static int header_check(int fd, const char *path, struct meta *meta, struct failure *f)
{
    int r = metas_read(fd, path, meta, f);
    if (r != 0)
        return r;
    struct stat st;
    if (fstat(fd, &st) < 0) {
        int e = errno;
        return fail_errno(f, err_from_errno(e), e, "cannot examine '%s'", path);
    }
    uint64_t page_bytes = meta->free.page_bytes;
    if (meta->last_page < 1 || meta->last_page >= UINT64_MAX / 2 / page_bytes)
        return damaged(f, path, "its header says %" PRIu64 " pages", meta->last_page);
    uint64_t needed = (meta->last_page + 1) * page_bytes;
    if ((uint64_t)st.st_size < needed)
        return fail_cut(f, path, (uint64_t)st.st_size, needed);
    if (!tree_is_plausible(&meta->free, meta->last_page + 1, INTEGER_KEY) ||
        !tree_is_plausible(&meta->main, meta->last_page + 1, 0))
        return damaged(f, path, "a root in its header");
    return 0;
}

/* ---- trees ---- */

/* Counts a run of pages as used, once. */
static int mark(struct walk *w, uint64_t page, uint64_t count)
{
    if (page < 2 || page >= w->pages || count > w->pages - page)
        return damaged(w->f, w->path, "page %" PRIu64 " is referred to but not there", page);
    for (uint64_t i = page; i < page + count; i++) {
        if (w->seen[i / 8] & 1u << i % 8)
            return damaged(w->f, w->path, "page %" PRIu64 " is used twice", i);
        w->seen[i / 8] |= (uint8_t)(1u << i % 8);
    }
    return 0;
}

static int compare(const struct walk *w, struct span a, struct span b)
{
    if (w->free) {
        uint64_t x = load64(a.data), y = load64(b.data);
        return x < y ? -1 : x > y;
    }
    size_t least = a.size_bytes < b.size_bytes ? a.size_bytes : b.size_bytes;
    int order = memcmp(a.data, b.data, least);
    return order ? order : (a.size_bytes > b.size_bytes) - (a.size_bytes < b.size_bytes);
}

static unsigned node_count(const uint8_t *page)
{
    return (load16(page + 12) - HEADER_SIZE) / 2u;
}

static struct node node_at(const uint8_t *page, unsigned i)
{
    const uint8_t *at = page + load16(page + HEADER_SIZE + 2 * i);
    uint32_t low = load16(at), high = load16(at + 2);
    uint16_t flags = load16(at + 4), key_size = load16(at + 6);
    return (struct node){
        .key = span_of(at + NODE_SIZE, key_size),
        .flags = flags,
        .child = (uint64_t)flags << 32 | high << 16 | low,
        .size = high << 16 | low,
        .data = at + NODE_SIZE + key_size,
    };
}

/* The nodes lie inside the page and fill exactly what its header says is filled. */
static bool nodes_fit(const struct walk *w, const uint8_t *page, bool leaf)
{
    uint32_t lower = load16(page + 12), upper = load16(page + 14), filled = 0;
    if (lower < HEADER_SIZE || lower % 2 || lower > upper || upper > w->page_bytes)
        return false;
    for (unsigned i = 0; i < node_count(page); i++) {
        uint32_t at = load16(page + HEADER_SIZE + 2 * i);
        if (at < upper || at % 2 || at + NODE_SIZE > w->page_bytes)
            return false;
        struct node node = node_at(page, i);
        uint64_t size = NODE_SIZE + node.key.size_bytes;
        if (leaf)
            size += node.flags & NODE_BIG ? 8 : node.size;
        size += size % 2;
        if (size > w->page_bytes - at || node.key.size_bytes > LMDB_KEY_MAX)
            return false;
        filled += (uint32_t)size;
    }
    return filled == w->page_bytes - upper;
}

/* Ascending, and between the keys that led here. The first key of a branch page counts as lowest.
 */
static bool keys_are_ordered(const struct walk *w, const uint8_t *page, bool leaf,
                             const struct span *low, const struct span *high)
{
    const struct span *before = low;
    struct span key, last = span_of(NULL, 0);
    for (unsigned i = leaf ? 0 : 1; i < node_count(page); i++) {
        key = node_at(page, i).key;
        if (w->free ? key.size_bytes != 8 : key.size_bytes == 0)
            return false;
        int order = before ? compare(w, *before, key) : -1;
        if (order > 0 || (order == 0 && before != low) || (order == 0 && !leaf))
            return false;
        last = key;
        before = &last;
    }
    return !before || before == low || !high || compare(w, *before, *high) < 0;
}

/* The value of a leaf's node, in the page or in a run of its own, whose pages are counted. */
static int value_check(struct walk *w, const struct node *node, struct span *value)
{
    if (node->flags & ~NODE_BIG)
        return damaged(w->f, w->path, "a row has flags 0x%x", (unsigned)node->flags);
    *value = span_of(node->data, node->size);
    if (!(node->flags & NODE_BIG))
        return 0;
    uint64_t first = load64(node->data);
    if (first < 2 || first >= w->pages)
        return damaged(w->f, w->path, "page %" PRIu64 " is referred to but not there", first);
    const uint8_t *page = w->map + first * w->page_bytes;
    uint32_t count = load32(page + 12);
    uint64_t needed = ((uint64_t)HEADER_SIZE - 1 + node->size) / w->page_bytes + 1;
    if (load64(page) != first || load16(page + 10) != PAGE_OVERFLOW || count < needed)
        return damaged(w->f, w->path, "page %" PRIu64 " does not hold a long value", first);
    w->found.overflow += count;
    *value = span_of(page + HEADER_SIZE, node->size);
    return mark(w, first, count);
}

/* A row of the free list: a count, then page numbers in descending order. */
static int free_row_check(struct walk *w, struct span key, struct span value)
{
    uint64_t count = value.size_bytes >= 8 ? load64(value.data) : UINT64_MAX;
    uint64_t before = w->pages;
    int r = 0;
    if (load64(key.data) > w->txn || count > value.size_bytes / 8 - 1)
        return damaged(w->f, w->path, "its list of free pages");
    for (uint64_t i = 1; r == 0 && i <= count; i++) {
        uint64_t page = load64(value.data + 8 * i);
        if (page >= before)
            return damaged(w->f, w->path, "its list of free pages is out of order");
        r = mark(w, page, 1);
        before = page;
    }
    return r;
}

static int leaf_check(struct walk *w, const uint8_t *page)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < node_count(page); i++) {
        struct node node = node_at(page, i);
        struct span value;
        r = value_check(w, &node, &value);
        if (r == 0 && w->free)
            r = free_row_check(w, node.key, value);
    }
    w->found.leaves++;
    w->found.entries += node_count(page);
    return r;
}

static int page_check(struct walk *w, uint64_t no, int levels, const struct span *low,
                      const struct span *high);

static int branch_check(struct walk *w, const uint8_t *page, int levels, const struct span *low,
                        const struct span *high)
{
    unsigned count = node_count(page);
    int r = 0;
    w->found.branches++;
    for (unsigned i = 0; r == 0 && i < count && !w->stopped; i++) {
        struct node node = node_at(page, i), next = {.child = 0};
        if (i + 1 < count)
            next = node_at(page, i + 1);
        r = page_check(w, node.child, levels - 1, i > 0 ? &node.key : low,
                       i + 1 < count ? &next.key : high);
    }
    return r;
}

/* `levels`: of the tree from here down; 1 for a leaf. NULL bounds: none. */
static int page_check(struct walk *w, uint64_t no, int levels, const struct span *low,
                      const struct span *high)
{
    int r = mark(w, no, 1);
    if (r < 0)
        return r;
    if ((w->found.leaves & 63) == 0 && port_mono_us() > w->deadline_us)
        w->stopped = true;
    const uint8_t *page = w->map + no * w->page_bytes;
    bool leaf = levels == 1;
    if (load64(page) != no || load16(page + 10) != (leaf ? PAGE_LEAF : PAGE_BRANCH))
        return damaged(w->f, w->path, "page %" PRIu64 " is not a %s page", no,
                       leaf ? "leaf" : "branch");
    unsigned least = leaf || w->free ? 1 : 2;
    if (!nodes_fit(w, page, leaf) || node_count(page) < least ||
        !keys_are_ordered(w, page, leaf, low, high))
        return damaged(w->f, w->path, "page %" PRIu64 " is inconsistent", no);
    return leaf ? leaf_check(w, page) : branch_check(w, page, levels, low, high);
}

static int tree_check(struct walk *w, const struct tree *t, bool is_free)
{
    w->free = is_free;
    w->found = (struct tree){.depth = t->depth};
    if (t->root == NO_PAGE)
        return 0;
    int r = page_check(w, t->root, t->depth, NULL, NULL);
    if (r < 0 || w->stopped)
        return r;
    if (w->found.branches != t->branches || w->found.leaves != t->leaves ||
        w->found.overflow != t->overflow || w->found.entries != t->entries)
        return damaged(w->f, w->path, "its header counts pages or rows that are not there");
    return 0;
}

static int trees_check(int fd, const char *path, const struct meta *meta, struct failure *f)
{
    struct walk w = {
        .path = path,
        .f = f,
        .pages = meta->last_page + 1,
        .txn = meta->txn,
        .page_bytes = meta->free.page_bytes,
        .deadline_us = port_mono_us() + BUDGET_US,
    };
    size_t size_bytes = (size_t)w.pages * w.page_bytes;
    w.seen = calloc(1, (size_t)(w.pages / 8 + 1));
    if (!w.seen)
        return fail(f, ERR_NOMEM, "cannot check '%s': out of memory", path);
    void *map = mmap(NULL, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
    int r;
    if (map == MAP_FAILED) {
        int e = errno;
        r = fail_errno(f, err_from_errno(e), e, "cannot map '%s'", path);
    } else {
        w.map = map;
        r = tree_check(&w, &meta->free, true);
        if (r == 0)
            r = tree_check(&w, &meta->main, false);
        munmap(map, size_bytes);
    }
    free(w.seen);
    return r;
}

int lmdb_check(const char *path, bool thorough, struct lmdb_layout *out, struct failure *f)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        int e = errno;
        return fail_errno(f, err_from_errno(e), e, "cannot open '%s'", path);
    }
    struct meta meta = {.magic = 0};
    int r = header_check(fd, path, &meta, f);
    if (r == 0 && thorough)
        r = trees_check(fd, path, &meta, f);
    close(fd);
    if (r == 0)
        *out = (struct lmdb_layout){meta.free.page_bytes, meta.last_page + 1};
    return r;
}
