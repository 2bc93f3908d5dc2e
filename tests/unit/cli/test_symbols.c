/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `trawl symbols` says (golden), with hostile paths and names among it; the reader of ELF
 * headers on the fuzz corpus's programs, cut at every byte; what a directory gives.
 */
#include "tests/unit/common/scratch.h"

#include <string.h>

#include "cli/render_symbols.h"
#include "tests/unit/cli/golden.h"

#define NOW INT64_C(1795442525000000) /* 2026-11-23T14:02:05Z */
#define CORPUS TESTS_DIR "/fuzz/corpus/symbols_elf/"
#define LIMIT (1 << 20)

static struct symbols_file file_of(char *path, enum symbols_state state, const char *text)
{
    struct symbols_file file = {.path = path, .state = state};
    text_copy(file.text, sizeof file.text, text);
    if (state != SYMBOLS_REFUSED) {
        file.elf.build_id_bytes = 20;
        memset(file.elf.build_id, 0x5a, 20);
    }
    return file;
}

TEST(what_became_of_the_files_is_said)
{
    char a[] = "build/redis-server", b[] = "build/libpay.so", c[] = "build/notes\033[2J.txt",
         d[] = "build/later";
    struct symbols_file list[] = {
        file_of(a, SYMBOLS_ADDED, "redis-server: 4,812 functions, 61,204 lines"),
        file_of(b, SYMBOLS_AS_GOOD, "the collector has a table that is as good"),
        file_of(c, SYMBOLS_REFUSED, "it is not an ELF file"), file_of(d, SYMBOLS_UNSENT, "")};
    struct symbols_files files = {.list = list, .count = 4, .duplicates = 2, .without_id = 1};
    struct buf text;
    list[0].functions = 4812;
    list[0].lines = 61204;
    buf_init(&text, LIMIT);
    CHECK_EQ_INT(render_symbols_added(&files, false, false, &text), 0);
    CHECK_EQ_INT(buf_append_str(&text, "---- wide\n"), 0);
    CHECK_EQ_INT(render_symbols_added(&files, true, false, &text), 0);
    CHECK_EQ_INT(buf_append_str(&text, "---- one\n"), 0);
    files.count = 1;
    files.duplicates = files.without_id = 0;
    CHECK_EQ_INT(render_symbols_added(&files, false, false, &text), 0);
    CHECK_EQ_INT(buf_append_str(&text, "---- json\n"), 0);
    files.count = 4;
    CHECK_EQ_INT(render_symbols_added_json(&files, 3, &text), 0);
    golden_check("symbols_added", buf_str(&text));
    buf_done(&text);
}

TEST(what_the_collector_has_is_listed)
{
    trawl_v1_SymbolFile files[2] = {
        {.name = "redis-server",
         .functions = 4812,
         .lines = 61204,
         .size_bytes = 1288490,
         .added_us = NOW - 60000000,
         .added_by = "developer/alice"},
        {.name = "evil\033]0;name", .functions = 3, .size_bytes = 600, .added_us = NOW}};
    struct render_table table;
    struct buf text;
    for (size_t i = 0; i < 2; i++) {
        files[i].build_id.size = 20;
        memset(files[i].build_id.bytes, 0xA0 + (int)i, 20);
    }
    buf_init(&text, LIMIT);
    for (int wide = 0; wide < 2; wide++) {
        render_table_init(&table, SYMBOLS_COLUMNS, SYMBOLS_COLUMN_COUNT);
        for (size_t i = 0; i < 2; i++)
            render_symbol_file(&table, &files[i], wide, NOW);
        CHECK_EQ_INT(render_table_put(&table, false, &text), 0);
        render_table_done(&table);
    }
    for (size_t i = 0; i < 2; i++)
        CHECK_EQ_INT(render_symbol_file_json(&files[i], &text), 0);
    golden_check("symbols_list", buf_str(&text));
    buf_done(&text);
}

TEST(headers_tell_what_is_worth_sending)
{
    static const struct {
        const char *name;
        bool lines, functions;
    } programs[] = {{"tiny", true, true},      {"tiny4", true, true},
                    {"tinyxx", true, true},    {"tiny.debug", true, true},
                    {"tiny.nog", false, true}, {"tiny.mini", false, false}};
    struct failure f = {.code = 0};
    struct elf_file first, file;
    REQUIRE(elf_file_read(CORPUS "tiny", &first, &f) == 0);
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) {
        char path[512];
        text_format(path, sizeof path, CORPUS "%s", programs[i].name);
        REQUIRE(elf_file_read(path, &file, &f) == 0);
        CHECK_EQ_INT(file.build_id_bytes, 20);
        CHECK_EQ_INT(file.has_lines, programs[i].lines);
        CHECK_EQ_INT(file.functions > 0, programs[i].functions);
        bool is_same = memcmp(file.build_id, first.build_id, 20) == 0;
        CHECK_EQ_INT(is_same, strncmp(programs[i].name, "tiny.", 5) == 0 || i == 0);
    }
    CHECK_EQ_INT(elf_file_read(TESTS_DIR "/golden/keys.txt", &file, &f), ERR_INVALID);
    CHECK(elf_file_read("/nowhere/at/all", &file, &f) < 0);
}

/* Of a program cut anywhere something is missing, and it is said. */
TEST_LIMIT(a_program_that_was_cut_is_refused, 60)
{
    struct buf whole;
    char path[512];
    struct failure f = {.code = 0};
    struct elf_file file;
    unsigned taken = 0;
    buf_init(&whole, LIMIT);
    REQUIRE(port_read_file(CORPUS "tiny.nog", &whole, &f) == 0);
    scratch("cut", path);
    for (size_t size = 0; size < whole.size_bytes; size++) {
        FILE *out = fopen(path, "wb");
        REQUIRE(out && fwrite(whole.data, 1, size, out) == size);
        fclose(out);
        f = (struct failure){.code = 0};
        if (elf_file_read(path, &file, &f) == 0)
            taken++;
        else
            CHECK(f.code && f.text[0]);
    }
    CHECK_EQ_INT(taken, 0);
    buf_done(&whole);
}

TEST(a_directory_gives_the_best_of_each_build_id)
{
    struct symbols_files files = {.list = NULL};
    struct failure f = {.code = 0};
    REQUIRE(symbols_files_add(&files, CORPUS, &f) == 0);
    CHECK_EQ_INT(files.count, 3); /* tiny, tiny4, tinyxx */
    CHECK_EQ_INT(files.duplicates, 3);
    for (size_t i = 0; i < files.count; i++)
        CHECK(files.list[i].elf.has_lines);
    CHECK_EQ_INT(symbols_files_add(&files, "/nowhere/at/all", &f), ERR_NOTFOUND);
    CHECK_EQ_INT(symbols_files_add(&files, "/dev/null", &f), ERR_INVALID);
    REQUIRE(symbols_files_add(&files, CORPUS "cut", &f) == 0);
    CHECK_EQ_INT(files.list[files.count - 1].state, SYMBOLS_REFUSED);
    CHECK(strstr(files.list[files.count - 1].text, "cut off") != NULL);
    symbols_files_done(&files);
}
