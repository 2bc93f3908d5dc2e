/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of symbols: what is put in comes out, over many pages; what is cut off or changed is found
 * or at least harms nobody; a real program's table says what nm and addr2line say; the cache stays
 * within its limit.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collector/symbols_private.h"
#include "collector/symbols_read.h"
#include "common/text.h"
#include "tests/check.h"

#define PAGES_LIMIT ((size_t)64 << 20)

struct table {
    struct buf pages, root_bytes;
    struct symbols_root root;
};

static int take(void *context, uint32_t no, struct span bytes)
{
    struct table *t = context;
    if (no == UINT32_MAX)
        return buf_append_span(&t->root_bytes, bytes);
    CHECK_EQ_INT(t->pages.size_bytes, (size_t)no * SYMBOLS_PAGE_BYTES);
    return buf_append_span(&t->pages, bytes);
}

static struct span page_of(void *context, uint32_t no)
{
    struct table *t = context;
    size_t at = (size_t)no * SYMBOLS_PAGE_BYTES;
    if (at + SYMBOLS_PAGE_BYTES > t->pages.size_bytes)
        return span_of(NULL, 0);
    return span_of(t->pages.data + at, SYMBOLS_PAGE_BYTES);
}

static void init(struct table *t)
{
    *t = (struct table){.root = {.first = NULL}};
    buf_init(&t->pages, PAGES_LIMIT);
    buf_init(&t->root_bytes, SYMBOLS_ROOT_ROOM);
}

/* Takes what was built through its written form, and checks every page. */
static void take_in(struct table *t)
{
    REQUIRE(symbols_root_get(&t->root, buf_span(&t->root_bytes)) == 0);
    CHECK_EQ_INT(t->pages.size_bytes, (size_t)symbols_root_pages(&t->root) * SYMBOLS_PAGE_BYTES);
    for (uint32_t i = 0; i < symbols_root_pages(&t->root); i++)
        CHECK_EQ_INT(symbols_page_check(&t->root, i, page_of(t, i)), 0);
}

static void done(struct table *t)
{
    symbols_root_done(&t->root);
    buf_done(&t->pages);
    buf_done(&t->root_bytes);
}

static void end(struct table *t, struct symbols_build *b)
{
    static const uint8_t id[3] = {0xAB, 0xCD, 0xEF};
    REQUIRE(symbols_build_end(b, span_of(id, sizeof id), "nothing", take, t) == 0);
    symbols_build_close(b);
    take_in(t);
}

static void range(struct symbols_build *b, uint64_t start, uint64_t stop, unsigned depth,
                  unsigned rank, const char *name)
{
    uint32_t no;
    REQUIRE(symbols_build_name(b, name, &no) == 0);
    REQUIRE(symbols_build_range(b, start, stop, depth, rank, no) == 0);
}

static void line(struct symbols_build *b, uint64_t address, const char *file, uint32_t number)
{
    uint32_t no;
    REQUIRE(symbols_build_file(b, file, &no) == 0);
    REQUIRE(symbols_build_line(b, address, no, number) == 0);
}

/* "function file:line", "-" for what is not known. */
static const char *at(struct table *t, uint64_t address)
{
    static char text[300];
    struct symbols_place p = {.line = 0};
    if (symbols_table_find(&t->root, address, page_of, t, &p))
        return "-";
    text_format(text, sizeof text, "%s %s:%u", p.function[0] ? p.function : "-",
                p.file[0] ? p.file : "-", p.line);
    return text;
}

TEST(what_is_innermost_is_named)
{
    struct table t;
    struct symbols_build *b;
    init(&t);
    REQUIRE(symbols_build_open(&b) == 0);
    range(b, 0x100, 0x200, 0, 1, "_alias");
    range(b, 0x100, 0x200, 0, 9, "outer");
    range(b, 0x120, 0x180, 2, 0, "inlined");
    range(b, 0x130, 0x140, 3, 0, "deepest");
    range(b, 0x100, 0x1f0, 1, 0, "outer_dwarf");
    range(b, 0x300, 0x310, 0, 1, "other");
    range(b, 0x400, 0x400, 0, 1, "empty");
    range(b, 0x500, UINT64_MAX, 0, 1, "too far");
    line(b, 0x100, "/src/a.c", 10);
    line(b, 0x130, "/src/b.h", 7);
    line(b, 0x140, "/src/a.c", 12);
    line(b, 0x140, "/src/a.c", 13);
    REQUIRE(symbols_build_line(b, 0x1f0, 0, 0) == 0);
    line(b, 0x1f0, "/src/c.c", 1); /* where another sequence ends */
    REQUIRE(symbols_build_line(b, 0x200, 0, 0) == 0);
    end(&t, b);
    CHECK_EQ_STR(at(&t, 0xff), "-");
    CHECK_EQ_STR(at(&t, 0x100), "outer_dwarf /src/a.c:10");
    CHECK_EQ_STR(at(&t, 0x11f), "outer_dwarf /src/a.c:10");
    CHECK_EQ_STR(at(&t, 0x120), "inlined /src/a.c:10");
    CHECK_EQ_STR(at(&t, 0x130), "deepest /src/b.h:7");
    CHECK_EQ_STR(at(&t, 0x13f), "deepest /src/b.h:7");
    CHECK_EQ_STR(at(&t, 0x140), "inlined /src/a.c:13");
    CHECK_EQ_STR(at(&t, 0x180), "outer_dwarf /src/a.c:13");
    CHECK_EQ_STR(at(&t, 0x1f0), "outer /src/c.c:1");
    CHECK_EQ_STR(at(&t, 0x200), "-");
    CHECK_EQ_STR(at(&t, 0x30f), "other -:0");
    CHECK_EQ_STR(at(&t, 0x310), "-");
    CHECK_EQ_STR(at(&t, 0x400), "-");
    CHECK_EQ_STR(at(&t, UINT64_MAX), "-");
    CHECK_EQ_INT(t.root.functions, 2);
    CHECK_EQ_INT(t.root.lines, 4);
    CHECK_EQ_STR(t.root.missing, "nothing");
    done(&t);
}

TEST(ranges_that_cross_are_borne)
{
    struct table t;
    struct symbols_build *b;
    init(&t);
    REQUIRE(symbols_build_open(&b) == 0);
    range(b, 0x100, 0x200, 0, 1, "a");
    range(b, 0x180, 0x280, 1, 1, "b");
    range(b, 0x1c0, 0x300, 2, 1, "c");
    range(b, 0x290, 0x400, 0, 1, "d");
    range(b, 0x2f0, 0x310, 200, 1, "deep");
    end(&t, b);
    CHECK_EQ_STR(at(&t, 0x17f), "a -:0");
    CHECK_EQ_STR(at(&t, 0x180), "b -:0");
    CHECK_EQ_STR(at(&t, 0x1c0), "c -:0");
    CHECK_EQ_STR(at(&t, 0x2f0), "deep -:0");
    CHECK_EQ_STR(at(&t, 0x310), "d -:0");
    CHECK_EQ_STR(at(&t, 0x400), "-");
    done(&t);
}

TEST(long_texts_are_cut_at_the_right_end)
{
    char name[400], file[400];
    struct table t;
    struct symbols_build *b;
    struct symbols_place p;
    memset(name, 'n', sizeof name - 1);
    memset(file, 'f', sizeof file - 1);
    name[sizeof name - 1] = file[sizeof file - 1] = '\0';
    memcpy(file + sizeof file - 12, "/src/last.c", 12);
    init(&t);
    REQUIRE(symbols_build_open(&b) == 0);
    range(b, 1, 2, 0, 0, name);
    line(b, 1, file, 5);
    end(&t, b);
    REQUIRE(symbols_table_find(&t.root, 1, page_of, &t, &p) == 0);
    CHECK_EQ_INT(strlen(p.function), SYMBOLS_FUNCTION_SIZE - 1);
    CHECK_EQ_STR(p.file, "src/last.c");
    done(&t);
}

#define MANY 60000u

/* Functions of 16 bytes, then a gap of 16; a line each 8 bytes of code. */
static void build_many(struct table *t)
{
    struct symbols_build *b;
    char name[64];
    init(t);
    REQUIRE(symbols_build_open(&b) == 0);
    for (uint32_t i = MANY; i-- > 0;) {
        uint64_t start = UINT64_C(0x400000) + (uint64_t)i * 32;
        text_format(name, sizeof name, "namespace::function_number_%u", i);
        range(b, start, start + 16, i % 3 ? 0 : 1, 0, name);
        text_format(name, sizeof name, "/src/dir/file_%u.c", i / 7);
        line(b, start, name, i % 5000 + 1);
        line(b, start + 8, name, (i * 7919) % 100000 + 1);
        REQUIRE(symbols_build_line(b, start + 16, 0, 0) == 0);
    }
    end(t, b);
}

TEST_LIMIT(many_pages_are_as_right_as_one, 300)
{
    struct table t;
    char wanted[200];
    unsigned wrong = 0;
    build_many(&t);
    CHECK(t.root.function_pages > 5 && t.root.line_pages > 5 && t.root.text_pages > 5);
    CHECK_EQ_INT(t.root.functions, MANY);
    for (uint32_t i = 0; i < MANY; i += 13) {
        uint64_t start = UINT64_C(0x400000) + (uint64_t)i * 32;
        text_format(wanted, sizeof wanted, "namespace::function_number_%u /src/dir/file_%u.c:%u", i,
                    i / 7, i % 5000 + 1);
        wrong += strcmp(at(&t, start), wanted) != 0 || strcmp(at(&t, start + 7), wanted) != 0;
        text_format(wanted, sizeof wanted, "namespace::function_number_%u /src/dir/file_%u.c:%u", i,
                    i / 7, (i * 7919) % 100000 + 1);
        wrong += strcmp(at(&t, start + 15), wanted) != 0;
        wrong += strcmp(at(&t, start + 16), "-") != 0 || strcmp(at(&t, start + 31), "-") != 0;
    }
    CHECK_EQ_INT(wrong, 0);
    done(&t);
}

TEST_LIMIT(a_root_that_was_cut_or_changed_is_refused, 60)
{
    struct table t;
    build_many(&t);
    for (size_t size = 0; size < t.root_bytes.size_bytes; size++) {
        struct symbols_root root = {.first = NULL};
        uint8_t *exact = malloc(size ? size : 1);
        REQUIRE(exact != NULL);
        memcpy(exact, t.root_bytes.data, size);
        CHECK(symbols_root_get(&root, span_of(exact, size)) < 0);
        CHECK(root.first == NULL);
        free(exact);
    }
    CHECK(buf_append_byte(&t.root_bytes, 1) == 0);
    struct symbols_root root = {.first = NULL};
    CHECK_EQ_INT(symbols_root_get(&root, buf_span(&t.root_bytes)), ERR_CORRUPT);
    done(&t);
}

TEST_LIMIT(a_page_that_was_changed_harms_nobody, 60)
{
    struct table t;
    unsigned found = 0, random = 1;
    build_many(&t);
    for (unsigned i = 0; i < 300; i++) {
        random = random * 1103515245u + 12345u;
        uint32_t no = (random >> 8) % (t.root.function_pages + t.root.line_pages);
        uint8_t *page = t.pages.data + (size_t)no * SYMBOLS_PAGE_BYTES;
        uint8_t kept[SYMBOLS_PAGE_BYTES];
        memcpy(kept, page, sizeof kept);
        for (unsigned j = 0; j < 20; j++) {
            random = random * 1103515245u + 12345u;
            page[(random >> 7) % (j < 10 ? 40 : SYMBOLS_PAGE_BYTES)] ^= (uint8_t)(random >> 24);
        }
        found += symbols_page_check(&t.root, no, page_of(&t, no)) < 0;
        for (unsigned j = 0; j < 8; j++)
            (void)at(&t, t.root.first[no] + j * 9);
        memcpy(page, kept, sizeof kept);
    }
    CHECK(found > 250);
    done(&t);
}

/* ---- real programs ---- */

static void read_program(struct table *t, const char *path, struct failure *f)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    init(t);
    if (symbols_read(fd, take, t, f) == 0)
        take_in(t);
    close(fd);
}

/* Each function that nm names begins where the table says so. */
TEST_LIMIT(functions_are_those_of_nm, 60)
{
    struct table t;
    struct failure f = {0};
    char text[512], wanted[160];
    unsigned compared = 0, wrong = 0;
    read_program(&t, VICTIMS_DIR "/frames", &f);
    REQUIRE(f.code == 0);
    FILE *nm = popen("nm --defined-only " VICTIMS_DIR "/frames", "r");
    REQUIRE(nm != NULL);
    while (fgets(text, sizeof text, nm)) {
        uint64_t address;
        struct span line_of = span_str(text), name;
        if (text_take_hex(&line_of, &address) || line_of.size_bytes < 4 ||
            (line_of.data[1] | 32) != 't')
            continue;
        name = span_of(line_of.data + 3, line_of.size_bytes - 4);
        text_format(wanted, sizeof wanted, "%.*s ", (int)name.size_bytes, (const char *)name.data);
        if (strchr(wanted, '.')) /* parts of functions go by the whole one's name */
            continue;
        const char *got = at(&t, address);
        if (strncmp(got, wanted, strlen(wanted)) == 0)
            compared++;
        else if (strcmp(got, "-") != 0) /* begins no function: _init, data */
            wrong++;
    }
    pclose(nm);
    CHECK(compared > 10);
    CHECK(wrong <= 1); /* one of two names for one place */
    CHECK(t.root.lines > 50 && t.root.build_id_bytes == 20);
    done(&t);
}

TEST(what_is_no_program_is_refused_in_words)
{
    struct table t;
    struct failure f = {0};
    read_program(&t, TESTS_DIR "/golden/keys.txt", &f);
    CHECK(f.code == ERR_INVALID && strstr(f.text, "not an ELF file"));
    done(&t);
}

/* ---- the cache ---- */

TEST(the_cache_keeps_the_newest_within_its_limit)
{
    struct symbols_cache *c;
    static uint8_t page[SYMBOLS_PAGE_BYTES];
    size_t limit = 20 * SYMBOLS_PAGE_BYTES;
    REQUIRE(symbols_cache_open(&c, limit) == 0);
    for (uint32_t i = 0; i < 200; i++) {
        page[0] = (uint8_t)i;
        REQUIRE(symbols_cache_put_page(c, 7 + i % 2, i, span_of(page, sizeof page)) == 0);
        CHECK(symbols_cache_bytes(c) <= limit);
        CHECK(i < 1 || symbols_cache_page(c, 7, 0).data != NULL); /* used again and again */
    }
    CHECK(symbols_cache_page(c, 8, 199).data && symbols_cache_page(c, 8, 199).data[0] == 199);
    CHECK(!symbols_cache_page(c, 7, 199).data);
    CHECK(!symbols_cache_page(c, 8, 101).data);
    CHECK(!symbols_cache_root(c, 7));
    struct symbols_root root = {.first = calloc(1, sizeof *root.first), .functions = 3};
    REQUIRE(symbols_cache_put_root(c, 7, &root) == 0);
    CHECK(symbols_cache_root(c, 7) && symbols_cache_root(c, 7)->functions == 3);
    CHECK_EQ_INT(symbols_cache_put_page(c, 7, 1, span_of(page, 5)), ERR_CORRUPT);
    symbols_cache_close(c);
}
