/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbols as they are stored: found by build-id with the rule for return addresses, frames named by
 * them, a damaged row no name, and what an interrupted upload left taken away at the next start.
 */
#include "collector/symbols_private.h"

#include "collector/keys.h"
#include "collector/symbols_build.h"
#include "common/zip.h"
#include "tests/unit/collector/store_kit.h"

#define GENERATION UINT64_C(0x1122334455667788)

static const uint8_t id[20] = {0xAB, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
static struct kit kit;
static struct settings settings;
static struct collector collector;
static char part[KEYS_PARTITION_SIZE];

static void put(const char *where, struct key key, struct span value)
{
    struct store_op op = {.type = STORE_PUT, .key = key_span(&key), .value = value};
    REQUIRE(kit_commit(&kit, where, &op, 1, NULL) == 0);
}

static int take(void *context, uint32_t no, struct span bytes)
{
    struct buf packed;
    (void)context;
    buf_init(&packed, SYMBOLS_ROW_MAX);
    REQUIRE(zip_pack(bytes, 3, &packed) == 0);
    put(part, keys_symbol_page(no == UINT32_MAX ? 0 : no + 1), buf_span(&packed));
    buf_done(&packed);
    return 0;
}

static void range(struct symbols_build *b, uint64_t start, uint64_t end, unsigned depth,
                  const char *name)
{
    uint32_t no;
    REQUIRE(symbols_build_name(b, name, &no) == 0);
    REQUIRE(symbols_build_range(b, start, end, depth, 0, no) == 0);
}

static void store_table(void)
{
    struct symbols_build *b;
    uint32_t file;
    keys_symbols_part(part, span_of(id, sizeof id), GENERATION);
    REQUIRE(symbols_build_open(&b) == 0);
    range(b, 0x100, 0x200, 0, "outer");
    range(b, 0x120, 0x130, 2, "inlined");
    range(b, 0x200, 0x300, 0, "behind");
    REQUIRE(symbols_build_file(b, "/src/a.c", &file) == 0);
    REQUIRE(symbols_build_line(b, 0x100, file, 11) == 0);
    REQUIRE(symbols_build_line(b, 0x200, 0, 0) == 0);
    REQUIRE(symbols_build_end(b, span_of(id, sizeof id), "", take, NULL) == 0);
    symbols_build_close(b);
}

static void store_file(void)
{
    trawl_v1_SymbolFile file = {.functions = 2, .lines = 1, .build_id = {.size = sizeof id}};
    struct buf value;
    memcpy(file.build_id.bytes, id, sizeof id);
    buf_init(&value, 4096);
    REQUIRE(buf_append_u64(&value, GENERATION) == 0);
    REQUIRE(codec_put_symbol_file(&value, &file) == 0);
    put(KEYS_SYMBOLS_FILES, keys_symbol_file(span_of(id, sizeof id)), buf_span(&value));
    buf_done(&value);
}

static struct symbols *open_symbols(void)
{
    struct symbols *s = NULL;
    struct failure f = {0};
    settings.records_max_bytes = kit.settings.records_max_bytes;
    collector = (struct collector){.settings = &settings, .store = kit.store};
    REQUIRE(symbols_open(&s, &collector, &f) == 0);
    return s;
}

static const char *found(struct symbols *s, uint64_t offset, bool exact)
{
    static char text[300];
    struct symbol symbol;
    if (symbols_find(s, span_of(id, sizeof id), offset, exact, &symbol))
        return "-";
    text_format(text, sizeof text, "%s %s:%u", symbol.function, symbol.file, symbol.line);
    return text;
}

static int on_name(void *context, const char *name)
{
    (void)name;
    ++*(int *)context;
    return 0;
}

TEST(a_return_address_belongs_to_the_call_before_it)
{
    kit_init(&kit, NULL);
    kit_create(&kit);
    store_table();
    store_file();
    struct symbols *s = open_symbols();
    for (int i = 0; i < 2; i++) { /* from the store, then from memory */
        CHECK_EQ_STR(found(s, 0x100, true), "outer /src/a.c:11");
        CHECK_EQ_STR(found(s, 0x100, false), "-");
        CHECK_EQ_STR(found(s, 0x120, true), "inlined /src/a.c:11");
        CHECK_EQ_STR(found(s, 0x120, false), "outer /src/a.c:11");
        CHECK_EQ_STR(found(s, 0x200, false), "outer /src/a.c:11");
        CHECK_EQ_STR(found(s, 0x200, true), "behind :0");
        CHECK_EQ_STR(found(s, 0x300, true), "-");
        CHECK_EQ_STR(found(s, 0, false), "-");
    }
    struct symbol symbol;
    CHECK_EQ_INT(symbols_find(s, span_of("x", 1), 0x100, true, &symbol), ERR_NOTFOUND);
    CHECK_EQ_INT(symbols_find(s, span_of(NULL, 0), 0x100, true, &symbol), ERR_NOTFOUND);
    symbols_close(s);
    kit_close(&kit);
}

TEST(a_damaged_row_is_no_name)
{
    kit_init(&kit, NULL);
    kit_create(&kit);
    store_table();
    store_file();
    put(part, keys_symbol_page(1), span_str("not packed"));
    struct symbols *s = open_symbols();
    CHECK_EQ_STR(found(s, 0x100, true), " /src/a.c:11"); /* the page of functions is gone */
    put(part, keys_symbol_page(0), span_str("nothing"));
    symbols_close(s);
    s = open_symbols();
    CHECK_EQ_STR(found(s, 0x100, true), "-");
    symbols_close(s);
    kit_close(&kit);
}

TEST(a_table_without_its_row_is_taken_away_at_the_start)
{
    int parts = 0;
    kit_init(&kit, NULL);
    kit_create(&kit);
    store_table();
    struct symbols *s = open_symbols();
    CHECK_EQ_STR(found(s, 0x100, true), "-");
    symbols_close(s);
    kit_reopen(&kit);
    REQUIRE(part_list(kit.store, KEYS_SYMBOLS_PARTS, on_name, &parts) == 0);
    CHECK_EQ_INT(parts, 0);
    store_table();
    store_file();
    s = open_symbols(); /* control: with its row it stays */
    CHECK_EQ_STR(found(s, 0x100, true), "outer /src/a.c:11");
    symbols_close(s);
    kit_reopen(&kit);
    REQUIRE(part_list(kit.store, KEYS_SYMBOLS_PARTS, on_name, &parts) == 0);
    CHECK_EQ_INT(parts, 1);
    kit_close(&kit);
}
