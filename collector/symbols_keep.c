/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes the table that a child made into the store: checked page by page, packed, a few rows at a
 * time, so that the loop is never held up. Invariant: the build-id's own row, which makes the table
 * visible, is written last; what it replaced is dropped after that. Called by symbols_run.c.
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "collector/keys.h"
#include "collector/store.h"
#include "collector/symbols_private.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"
#include "common/zip.h"

#define ROWS_AT_ONCE 16
#define ZIP_LEVEL 3
#define NUMBER_SIZE 32

static void put_count(uint32_t value, char out[NUMBER_SIZE])
{
    char digits[NUMBER_SIZE];
    text_format(digits, sizeof digits, "%u", value);
    size_t length = strlen(digits), at = 0;
    for (size_t i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
}

static void put_counts(uint32_t functions, uint32_t lines, char out[2 * NUMBER_SIZE + 32])
{
    char f[NUMBER_SIZE], l[NUMBER_SIZE];
    put_count(functions, f);
    put_count(lines, l);
    if (lines)
        text_format(out, 2 * NUMBER_SIZE + 32, "%s functions, %s lines", f, l);
    else
        text_format(out, 2 * NUMBER_SIZE + 32, "%s functions, no lines", f);
}

/* ---- what is said of it ---- */

static struct span build_id_of(const struct symbols_add *a)
{
    return span_of(a->root.build_id, a->root.build_id_bytes);
}

static void describe(struct symbols_add *a, bool kept)
{
    char now[2 * NUMBER_SIZE + 32], before[2 * NUMBER_SIZE + 32];
    trawl_v1_SymbolFile *r = &a->reply;
    put_counts(a->root.functions, a->root.lines, now);
    put_counts(a->old.functions, a->old.lines, before);
    if (!kept)
        text_format(r->text, sizeof r->text, "%s: %s; what was there is as good or better: %s",
                    a->label, now, before);
    else if (!a->old.generation)
        text_format(r->text, sizeof r->text, "%s: %s", a->label, now);
    else if (!a->old.lines && a->root.lines)
        text_format(r->text, sizeof r->text, "%s: %s; replaces a table without lines", a->label,
                    now);
    else
        text_format(r->text, sizeof r->text, "%s: %s; replaces one with %s", a->label, now, before);
    size_t length = strlen(r->text);
    if (a->root.missing[0] && kept)
        text_format(r->text + length, sizeof r->text - length, "; %s", a->root.missing);
    text_clean(r->text);
}

static void fill_reply(struct symbols_add *a, bool kept)
{
    trawl_v1_SymbolFile *r = &a->reply;
    struct clock *clock = a->symbols->collector->clock;
    *r = (trawl_v1_SymbolFile){.functions = a->root.functions,
                               .lines = a->root.lines,
                               .kept = kept,
                               .added_us = clock->wall_us(clock),
                               .size_bytes = a->stored_bytes};
    text_copy(r->name, sizeof r->name, a->name);
    text_copy(r->added_by, sizeof r->added_by, a->by);
    r->build_id.size = (pb_size_t)a->root.build_id_bytes;
    memcpy(r->build_id.bytes, a->root.build_id, a->root.build_id_bytes);
    describe(a, kept);
}

/* More lines, then more functions. */
static bool is_better(const struct symbols_root *now, const struct symbols_known *old)
{
    if (now->lines != old->lines)
        return now->lines > old->lines;
    return now->functions > old->functions;
}

/* ---- rows ---- */

static void on_dropped(void *context, const struct failure *why)
{
    (void)context;
    if (why->code)
        log_warn("a table of symbols that is not used any more stays: %s", why->text);
}

static void drop_table(struct symbols_add *a, uint64_t generation)
{
    char part[KEYS_PARTITION_SIZE];
    keys_symbols_part(part, build_id_of(a), generation);
    (void)part_drop(a->symbols->collector->store, part, on_dropped, NULL);
}

static void give_up(struct symbols_add *a, int code, const char *text)
{
    struct failure f;
    fail(&f, code, "the table of '%s' cannot be stored: %s", a->label, text);
    drop_table(a, a->generation);
    symbols_add_fail(a, &f);
}

static int read_bytes(const struct symbols_add *a, void *out, size_t size_bytes, uint64_t at)
{
    uint8_t *bytes = out;
    for (size_t done = 0; done < size_bytes;) {
        ssize_t n = pread(a->table, bytes + done, size_bytes - done, (off_t)(at + done));
        if (n <= 0)
            return ERR_IO;
        done += (size_t)n;
    }
    return 0;
}

/* The plain bytes of row `no` (0: the root), checked. */
static int read_row(struct symbols_add *a, uint32_t no, uint8_t page[SYMBOLS_ROOT_ROOM],
                    size_t *size_bytes)
{
    if (no == 0) {
        struct buf root;
        buf_init(&root, SYMBOLS_ROOT_BYTES);
        int e = symbols_root_put(&a->root, &root);
        *size_bytes = root.size_bytes;
        if (e == 0)
            memcpy(page, root.data, root.size_bytes);
        buf_done(&root);
        return e;
    }
    *size_bytes = SYMBOLS_PAGE_BYTES;
    int e = read_bytes(a, page, SYMBOLS_PAGE_BYTES,
                       SYMBOLS_ROOT_ROOM + (uint64_t)(no - 1) * SYMBOLS_PAGE_BYTES);
    return e ? e : symbols_page_check(&a->root, no - 1, span_of(page, SYMBOLS_PAGE_BYTES));
}

static void write_rows(struct symbols_add *a);
static void write_file(struct symbols_add *a);

static void on_stored(void *context, const struct failure *why)
{
    struct symbols_add *a = context;
    a->busy--;
    if (a->done)
        drop_table(a, a->generation);
    else if (why->code)
        give_up(a, why->code, why->text);
    else if (a->next_row <= symbols_root_pages(&a->root))
        write_rows(a);
    else
        write_file(a);
    symbols_add_release(a);
}

static int commit_rows(struct symbols_add *a, struct buf *packed)
{
    struct store_op ops[ROWS_AT_ONCE];
    struct key keys[ROWS_AT_ONCE];
    size_t ends[ROWS_AT_ONCE], count = 0;
    uint8_t page[SYMBOLS_ROOT_ROOM];
    char part[KEYS_PARTITION_SIZE];
    for (; count < ROWS_AT_ONCE && a->next_row <= symbols_root_pages(&a->root); count++) {
        size_t size_bytes;
        int e = read_row(a, a->next_row, page, &size_bytes);
        if (e == 0)
            e = zip_pack(span_of(page, size_bytes), ZIP_LEVEL, packed);
        if (e)
            return e;
        keys[count] = keys_symbol_page(a->next_row++);
        ends[count] = packed->size_bytes;
    }
    for (size_t i = 0, at = 0; i < count; at = ends[i++])
        ops[i] = (struct store_op){.type = STORE_PUT,
                                   .key = key_span(&keys[i]),
                                   .value = span_of(packed->data + at, ends[i] - at)};
    a->stored_bytes += packed->size_bytes;
    keys_symbols_part(part, build_id_of(a), a->generation);
    a->busy++;
    int e = kv_commit(a->symbols->collector->store, part, ops, count, on_stored, a);
    if (e)
        a->busy--;
    return e;
}

static void write_rows(struct symbols_add *a)
{
    struct buf packed;
    buf_init(&packed, ROWS_AT_ONCE * (size_t)SYMBOLS_ROW_MAX);
    int e = commit_rows(a, &packed);
    buf_done(&packed);
    if (e)
        give_up(a, e, err_text(e));
}

/* ---- the build-id's row ---- */

static void on_visible(void *context, const struct failure *why)
{
    struct symbols_add *a = context;
    struct symbols *s = a->symbols;
    struct symbols_known known = {.build_id_bytes = (uint8_t)a->root.build_id_bytes,
                                  .functions = a->root.functions,
                                  .lines = a->root.lines,
                                  .generation = a->generation,
                                  .size_bytes = a->stored_bytes,
                                  .added_us = a->reply.added_us};
    memcpy(known.build_id, a->root.build_id, a->root.build_id_bytes);
    a->busy--;
    if (why->code || symbols_known_put(s, &known)) {
        give_up(a, why->code ? why->code : ERR_NOMEM, why->code ? why->text : "out of memory");
    } else {
        if (a->old.generation)
            drop_table(a, a->old.generation);
        log_info("%s added symbols: %s", a->by, a->reply.text);
        if (s->added && !s->stopping)
            s->added(s->added_context, build_id_of(a));
        symbols_add_answer(a);
    }
    symbols_add_release(a);
}

static void write_file(struct symbols_add *a)
{
    struct buf value;
    struct key key = keys_symbol_file(build_id_of(a));
    fill_reply(a, true);
    buf_init(&value, sizeof a->reply + 64);
    int e = buf_append_u64(&value, a->generation);
    if (e == 0)
        e = codec_put_symbol_file(&value, &a->reply);
    struct store_op op = {.type = STORE_PUT, .key = key_span(&key), .value = buf_span(&value)};
    a->busy++;
    if (e == 0)
        e = kv_commit(a->symbols->collector->store, KEYS_SYMBOLS_FILES, &op, 1, on_visible, a);
    buf_done(&value);
    if (e) {
        a->busy--;
        give_up(a, e, err_text(e));
    }
}

/* ---- the whole ---- */

static int read_root(struct symbols_add *a)
{
    uint8_t bytes[SYMBOLS_ROOT_ROOM];
    struct stat st;
    struct span in, root;
    uint32_t size;
    int e = read_bytes(a, bytes, sizeof bytes, 0);
    if (e)
        return e;
    in = span_of(bytes, sizeof bytes);
    e = span_take_u32(&in, &size);
    if (e == 0)
        e = span_take(&in, size, &root);
    if (e == 0)
        e = symbols_root_get(&a->root, root);
    if (e || fstat(a->table, &st))
        return e ? e : ERR_IO;
    uint64_t wanted =
        SYMBOLS_ROOT_ROOM + (uint64_t)symbols_root_pages(&a->root) * SYMBOLS_PAGE_BYTES;
    return (uint64_t)st.st_size == wanted ? 0 : ERR_CORRUPT;
}

static uint64_t make_generation(void)
{
    uint64_t number = 0;
    while (!number)
        port_random(&number, sizeof number);
    return number;
}

void symbols_keep(struct symbols_add *a)
{
    struct failure f;
    struct stat st;
    if (read_root(a)) {
        fail(&f, ERR_REFUSED, "it is damaged: the table made of it is not as it should be");
        symbols_add_fail(a, &f);
        return;
    }
    const struct symbols_known *old = symbols_known_find(a->symbols, build_id_of(a));
    if (old)
        a->old = *old;
    if (old && !is_better(&a->root, old)) {
        a->stored_bytes = old->size_bytes;
        fill_reply(a, false);
        symbols_add_answer(a);
        return;
    }
    if (fstat(a->table, &st) == 0)
        symbols_known_shrink(a->symbols, (uint64_t)st.st_size, build_id_of(a));
    a->generation = make_generation();
    write_rows(a);
}
