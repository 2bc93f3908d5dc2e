/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of which build-id, and looking it up. Invariant: a build-id is known only when its
 * table is stored whole; a table that cannot be read is as if it was not there, never a wrong name.
 * Called by groups, ops_symbols.
 */
#include "collector/symbols.h"

#include <stdlib.h>
#include <string.h>

#include "collector/keys.h"
#include "collector/store.h"
#include "collector/symbols_private.h"
#include "common/log.h"
#include "common/text.h"
#include "common/zip.h"

#define FIRST_CAPACITY 64
#define LEFT_MAX 1000 /* partitions taken away at a start; the rest at the next */

static void on_dropped(void *context, const struct failure *why)
{
    (void)context;
    if (why->code)
        log_warn("a table of symbols that is not used any more stays: %s", why->text);
}

static void drop_table(struct symbols *s, struct span build_id, uint64_t generation)
{
    char part[KEYS_PARTITION_SIZE];
    struct failure f;
    keys_symbols_part(part, build_id, generation);
    int e = part_drop(s->collector->store, part, on_dropped, s);
    if (e) {
        fail(&f, e, "%s", err_text(e));
        on_dropped(s, &f);
    }
}

/* ---- what is known ---- */

static struct span id_of(const struct symbols_known *known)
{
    return span_of(known->build_id, known->build_id_bytes);
}

static int compare(struct span a, const struct symbols_known *known)
{
    struct span b = id_of(known);
    size_t both = a.size_bytes < b.size_bytes ? a.size_bytes : b.size_bytes;
    int order = memcmp(a.data, b.data, both);
    return order ? order : a.size_bytes < b.size_bytes ? -1 : a.size_bytes > b.size_bytes;
}

/* Where it is, or would be. */
static size_t place_of(const struct symbols *s, struct span build_id)
{
    size_t low = 0, high = s->known_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(build_id, &s->known[middle]) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct symbols_known *symbols_known_find(struct symbols *s, struct span build_id)
{
    if (build_id.size_bytes == 0)
        return NULL;
    size_t at = place_of(s, build_id);
    return at < s->known_count && compare(build_id, &s->known[at]) == 0 ? &s->known[at] : NULL;
}

int symbols_known_put(struct symbols *s, const struct symbols_known *known)
{
    struct symbols_known *there = symbols_known_find(s, id_of(known));
    if (there) {
        s->stored_bytes += known->size_bytes - there->size_bytes;
        *there = *known;
        return 0;
    }
    if (BUF_GROW(s->known, s->known_count, &s->known_capacity, FIRST_CAPACITY))
        return ERR_NOMEM;
    size_t at = place_of(s, id_of(known));
    memmove(&s->known[at + 1], &s->known[at], (s->known_count - at) * sizeof *s->known);
    s->known[at] = *known;
    s->known_count++;
    s->stored_bytes += known->size_bytes;
    return 0;
}

/* Its row first: a table without one is taken away at the next start. */
static void forget(struct symbols *s, size_t at)
{
    struct symbols_known known = s->known[at];
    struct key key = keys_symbol_file(id_of(&known));
    struct store_op op = {.type = STORE_DELETE, .key = key_span(&key)};
    s->known_count--;
    memmove(&s->known[at], &s->known[at + 1], (s->known_count - at) * sizeof *s->known);
    s->stored_bytes -= known.size_bytes;
    (void)kv_commit(s->collector->store, KEYS_SYMBOLS_FILES, &op, 1, on_dropped, s);
    drop_table(s, id_of(&known), known.generation);
}

void symbols_known_shrink(struct symbols *s, uint64_t more_bytes, struct span keep)
{
    uint64_t limit = s->collector->settings->records_max_bytes / SYMBOLS_SHARE;
    while (s->known_count && (s->known_count >= SYMBOLS_FILES_MAX ||
                              (s->stored_bytes && s->stored_bytes + more_bytes > limit))) {
        size_t oldest = SIZE_MAX;
        for (size_t i = 0; i < s->known_count; i++)
            if (!span_equal(id_of(&s->known[i]), keep) &&
                (oldest == SIZE_MAX || s->known[i].added_us < s->known[oldest].added_us))
                oldest = i;
        if (oldest == SIZE_MAX)
            return;
        log_info("symbols take their share of --records-max: the oldest table gave way");
        forget(s, oldest);
    }
}

/* ---- at the start ---- */

static int on_file_row(void *context, struct span key, struct span value)
{
    trawl_v1_SymbolFile file;
    struct symbols_known known = {.generation = 0};
    (void)key;
    if (span_take_u64(&value, &known.generation) || codec_get_symbol_file(&file, value, NULL) ||
        file.build_id.size == 0)
        return 0;
    known.build_id_bytes = (uint8_t)file.build_id.size;
    memcpy(known.build_id, file.build_id.bytes, file.build_id.size);
    known.functions = file.functions;
    known.lines = file.lines;
    known.size_bytes = file.size_bytes;
    known.added_us = file.added_us;
    return symbols_known_put(context, &known);
}

static int load(struct symbols *s)
{
    return kv_scan_all(s->collector->store, KEYS_SYMBOLS_FILES, span_str("b"), span_str("b"),
                       on_file_row, s);
}

struct leftovers {
    struct symbols *s;
    size_t count;
    char parts[LEFT_MAX][KEYS_PARTITION_SIZE];
};

/* Whether a build-id's row names this very partition. */
static bool is_used(struct symbols *s, const char *part)
{
    char named[KEYS_PARTITION_SIZE], hex[2 * SYMBOLS_BUILD_ID_BYTES + 1];
    uint8_t build_id[SYMBOLS_BUILD_ID_BYTES];
    struct span rest = span_str(part + strlen(KEYS_SYMBOLS_PARTS)), digits;
    if (text_take_until(&rest, '/', &digits) || digits.size_bytes % 2 ||
        text_copy_span(hex, sizeof hex, digits) ||
        text_parse_hex(hex, build_id, digits.size_bytes / 2))
        return false;
    const struct symbols_known *known =
        symbols_known_find(s, span_of(build_id, digits.size_bytes / 2));
    if (!known)
        return false;
    keys_symbols_part(named, id_of(known), known->generation);
    return strcmp(named, part) == 0;
}

static int on_part(void *context, const char *part)
{
    struct leftovers *left = context;
    if (!is_used(left->s, part))
        text_copy(left->parts[left->count++], KEYS_PARTITION_SIZE, part);
    return left->count == LEFT_MAX;
}

/* Tables that were being stored when the collector died. */
static int drop_leftovers(struct symbols *s)
{
    struct leftovers *left = calloc(1, sizeof *left);
    if (!left)
        return ERR_NOMEM;
    left->s = s;
    (void)part_list(s->collector->store, KEYS_SYMBOLS_PARTS, on_part, left);
    for (size_t i = 0; i < left->count; i++)
        (void)part_drop(s->collector->store, left->parts[i], on_dropped, s);
    free(left);
    return 0;
}

int symbols_open(struct symbols **out, struct collector *c, struct failure *f)
{
    struct symbols *s = calloc(1, sizeof *s);
    if (!s)
        return fail(f, ERR_NOMEM, "out of memory");
    s->collector = c;
    list_init(&s->adds);
    int e = symbols_cache_open(&s->cache, SYMBOLS_CACHE_BYTES);
    if (e == 0)
        e = load(s);
    if (e == 0)
        e = drop_leftovers(s);
    if (e) {
        symbols_close(s);
        return fail(f, e, "the symbols that are stored cannot be read: %s", err_text(e));
    }
    *out = s;
    return 0;
}

void symbols_stop(struct symbols *s)
{
    struct failure f;
    if (!s)
        return;
    s->stopping = true;
    fail(&f, ERR_CLOSED, "the collector stops");
    LIST_EACH (at, &s->adds) {
        struct symbols_add *a = LIST_ENTRY(at, struct symbols_add, link);
        a->busy++;
        symbols_add_fail(a, &f);
        a->busy--;
        symbols_add_gone(a);
    }
}

void symbols_close(struct symbols *s)
{
    if (!s)
        return;
    symbols_cache_close(s->cache);
    free(s->known);
    free(s);
}

void symbols_on_added(struct symbols *s, symbols_added_fn added, void *context)
{
    s->added = added;
    s->added_context = context;
}

/* ---- looking up ---- */

struct lookup {
    struct symbols *s;
    const struct symbols_known *known;
    struct buf plain;
    int error;
};

static void on_row(void *context, int err, struct span value)
{
    struct lookup *l = context;
    buf_clear(&l->plain);
    l->error = err ? err : zip_unpack(value, &l->plain);
}

static int read_row(struct lookup *l, uint32_t no)
{
    char part[KEYS_PARTITION_SIZE];
    struct key key = keys_symbol_page(no);
    keys_symbols_part(part, id_of(l->known), l->known->generation);
    l->error = ERR_NOTFOUND;
    kv_get(l->s->collector->store, part, key_span(&key), on_row, l);
    return l->error;
}

static struct span get_page(void *context, uint32_t no)
{
    struct lookup *l = context;
    struct span page = symbols_cache_page(l->s->cache, l->known->generation, no);
    if (page.data)
        return page;
    if (read_row(l, no + 1) ||
        symbols_cache_put_page(l->s->cache, l->known->generation, no, buf_span(&l->plain)))
        return span_of(NULL, 0);
    return symbols_cache_page(l->s->cache, l->known->generation, no);
}

static const struct symbols_root *get_root(struct lookup *l)
{
    struct symbols_root root;
    const struct symbols_root *there = symbols_cache_root(l->s->cache, l->known->generation);
    if (there)
        return there;
    if (read_row(l, 0) || symbols_root_get(&root, buf_span(&l->plain)) ||
        symbols_cache_put_root(l->s->cache, l->known->generation, &root))
        return NULL;
    return symbols_cache_root(l->s->cache, l->known->generation);
}

/* The root stays while four pages come: the cache holds far more than that. */
int symbols_find(struct symbols *s, struct span build_id, uint64_t offset, bool exact,
                 struct symbol *out)
{
    struct lookup l = {.s = s, .known = symbols_known_find(s, build_id)};
    struct symbols_place place;
    if (!l.known || s->stopping)
        return ERR_NOTFOUND;
    buf_init(&l.plain, SYMBOLS_ROW_MAX);
    const struct symbols_root *root = get_root(&l);
    int e = root ? symbols_table_find(root, exact || !offset ? offset : offset - 1, get_page, &l,
                                      &place)
                 : ERR_NOTFOUND;
    buf_done(&l.plain);
    if (e)
        return e;
    text_copy(out->function, sizeof out->function, place.function);
    text_copy(out->file, sizeof out->file, place.file);
    out->line = place.line;
    return 0;
}
