/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an ELF file's symbols into a table, checks the table, and looks addresses up in it: without
 * a collector. `bench_symbols FILE` prints times and sizes; `bench_symbols FILE -` answers hex
 * addresses from standard input, "function<TAB>file:line" a line, as they are (no call before
 * them). Run by people, and by the scenario of symbols, which compares with addr2line.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "collector/symbols_read.h"
#include "common/port.h"
#include "common/text.h"
#include "common/zip.h"

#define LOOKUPS 200000u

static struct buf pages, root_bytes;
static struct symbols_root root;

static int take(void *context, uint32_t no, struct span bytes)
{
    (void)context;
    return buf_append_span(no == UINT32_MAX ? &root_bytes : &pages, bytes);
}

static struct span page_of(void *context, uint32_t no)
{
    (void)context;
    return span_of(pages.data + (size_t)no * SYMBOLS_PAGE_BYTES, SYMBOLS_PAGE_BYTES);
}

static void answer(void)
{
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        uint64_t address;
        struct symbols_place place = {.line = 0};
        line[strcspn(line, "\n")] = '\0';
        struct span digits = span_str(line);
        if (text_take_hex(&digits, &address) ||
            symbols_table_find(&root, address, page_of, NULL, &place))
            printf("?\t?:0\n");
        else
            printf("%s\t%s:%u\n", place.function[0] ? place.function : "?",
                   place.file[0] ? place.file : "?", place.line);
    }
}

static size_t packed_bytes(void)
{
    size_t sum = root_bytes.size_bytes;
    for (uint32_t i = 0; i < symbols_root_pages(&root); i++) {
        struct buf packed;
        buf_init(&packed, 2 * SYMBOLS_PAGE_BYTES);
        if (symbols_page_check(&root, i, page_of(NULL, i)) ||
            zip_pack(page_of(NULL, i), 3, &packed))
            exit(1);
        sum += packed.size_bytes;
        buf_done(&packed);
    }
    return sum;
}

static double lookup_us(void)
{
    uint64_t low = root.first[0],
             high = root.first[root.function_pages ? root.function_pages - 1 : 0];
    uint64_t span = high > low ? high - low : 1, at = 1;
    struct symbols_place place;
    uint64_t begin = port_mono_us();
    for (uint32_t i = 0; i < LOOKUPS; i++) {
        at = at * UINT64_C(6364136223846793005) + 1442695040888963407u;
        (void)symbols_table_find(&root, low + (at >> 20) % span, page_of, NULL, &place);
    }
    return (double)(port_mono_us() - begin) / LOOKUPS;
}

static void print_figures(const char *path, uint64_t read_us)
{
    struct stat st;
    struct rusage used;
    char file[32], table[32], packed[32];
    if (stat(path, &st) || getrusage(RUSAGE_SELF, &used))
        exit(1);
    long resident_kib = used.ru_maxrss;
    uint64_t begin = port_mono_us();
    size_t size = packed_bytes();
    uint64_t pack_us = port_mono_us() - begin;
    text_put_size((uint64_t)st.st_size, file, sizeof file);
    text_put_size(pages.size_bytes, table, sizeof table);
    text_put_size(size, packed, sizeof packed);
    printf("%s: %s, read in %.2f s, at most %ld MiB resident (with the file's pages)\n", path, file,
           (double)read_us / 1e6, resident_kib >> 10);
    printf("  %u functions, %u lines%s%s\n", root.functions, root.lines,
           root.missing[0] ? "; " : "", root.missing);
    printf("  table %s, packed %s in %.2f s, looked up in %.1f us\n", table, packed,
           (double)pack_us / 1e6, lookup_us());
}

int main(int argc, char **argv)
{
    struct failure f = {0};
    int fd = argc > 1 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) {
        fprintf(stderr, "usage: bench_symbols FILE [-]\n");
        return 2;
    }
    buf_init(&pages, (size_t)SYMBOLS_PAGES_MAX * SYMBOLS_PAGE_BYTES);
    buf_init(&root_bytes, SYMBOLS_ROOT_ROOM);
    uint64_t begin = port_mono_us();
    if (symbols_read(fd, take, NULL, &f) || symbols_root_get(&root, buf_span(&root_bytes))) {
        fprintf(stderr, "%s: %s\n", argv[1], f.code ? f.text : "bad root");
        return 1;
    }
    uint64_t read_us = port_mono_us() - begin;
    if (argc > 2)
        answer();
    else
        print_figures(argv[1], read_us);
    symbols_root_done(&root);
    buf_done(&pages);
    buf_done(&root_bytes);
    close(fd);
    return 0;
}
