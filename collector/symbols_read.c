/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading an ELF file for its symbols: is it whole, what is it, whose is it; then its tables
 * (symbols_elf.c) and debug information (symbols_dwarf.c). Invariant: a file that was cut off is
 * refused, never half read. Called by the child, and by tests.
 */
#include "collector/symbols_read.h"

#include <elfutils/libdwelf.h>
#include <gelf.h>
#include <libiberty/demangle.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/text.h"

#define MANGLED_MAX 4096 /* longer ones are kept as they are */
#define SECTIONS_MAX 65536

/* ---- names ---- */

bool symbols_is_mangled(const char *raw)
{
    return raw[0] == '_' && (raw[1] == 'Z' || raw[1] == 'R');
}

/* Rust's older form is a C++ name that ends with a hash: it is asked first. */
int symbols_name(struct symbols_reader *r, const char *raw, uint32_t *out)
{
    char *plain = NULL;
    if (symbols_is_mangled(raw) && strnlen(raw, MANGLED_MAX) < MANGLED_MAX) {
        plain = rust_demangle(raw, DMGL_NO_OPTS);
        if (!plain)
            plain = cplus_demangle_v3(raw, DMGL_NO_OPTS);
    }
    int e = symbols_build_name(r->build, plain ? plain : raw, out);
    free(plain);
    return e;
}

/* ---- sections ---- */

static int compare_areas(const void *left, const void *right)
{
    const struct symbols_area *a = left, *b = right;
    return a->start < b->start ? -1 : a->start > b->start;
}

const struct symbols_area *symbols_code_at(const struct symbols_reader *r, uint64_t address)
{
    size_t low = 0, high = r->code_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->code[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low && address < r->code[low - 1].end ? &r->code[low - 1] : NULL;
}

static int check_section(Elf *elf, Elf_Scn *section, uint64_t file_bytes, GElf_Shdr *head,
                         struct failure *f)
{
    if (!gelf_getshdr(section, head))
        return fail(f, ERR_CORRUPT, "its section table cannot be read: %s", elf_errmsg(-1));
    if (head->sh_type == SHT_NOBITS || head->sh_type == SHT_NULL)
        return 0;
    if (head->sh_offset <= file_bytes && head->sh_size <= file_bytes - head->sh_offset)
        return 0;
    size_t names;
    const char *name = NULL;
    if (elf_getshdrstrndx(elf, &names) == 0)
        name = elf_strptr(elf, names, head->sh_name);
    return fail(f, ERR_CORRUPT, "it is cut off: section '%.32s' goes beyond its %llu bytes",
                name ? name : "?", (unsigned long long)file_bytes);
}

/* Looks at every section, and keeps where code is. */
static int read_sections(struct symbols_reader *r, uint64_t file_bytes, struct failure *f)
{
    size_t count;
    if (elf_getshdrnum(r->elf, &count) != 0 || count == 0)
        return fail(f, ERR_CORRUPT, "it is cut off, or has no section table");
    if (count > SECTIONS_MAX)
        return fail(f, ERR_LIMIT, "it has more than %d sections", SECTIONS_MAX);
    r->code = calloc(count, sizeof *r->code);
    if (!r->code)
        return fail(f, ERR_NOMEM, "out of memory");
    for (Elf_Scn *section = NULL; (section = elf_nextscn(r->elf, section)) != NULL;) {
        GElf_Shdr head;
        int e = check_section(r->elf, section, file_bytes, &head, f);
        if (e)
            return e;
        if (head.sh_flags & SHF_EXECINSTR && head.sh_flags & SHF_ALLOC && head.sh_size &&
            head.sh_size < SYMBOLS_ADDRESS_MAX && head.sh_addr < SYMBOLS_ADDRESS_MAX)
            r->code[r->code_count++] =
                (struct symbols_area){head.sh_addr, head.sh_addr + head.sh_size};
    }
    qsort(r->code, r->code_count, sizeof *r->code, compare_areas);
    return 0;
}

static int check_head(struct symbols_reader *r, uint64_t file_bytes, struct failure *f)
{
    GElf_Ehdr head;
    if (elf_kind(r->elf) != ELF_K_ELF || !gelf_getehdr(r->elf, &head))
        return fail(f, ERR_INVALID,
                    "it is not an ELF file: add the program, a shared library or "
                    "its .debug file");
    if (head.e_type != ET_EXEC && head.e_type != ET_DYN)
        return fail(f, ERR_INVALID, "it is %s: add the linked program or library",
                    head.e_type == ET_REL    ? "an object file"
                    : head.e_type == ET_CORE ? "a core file"
                                             : "neither a program nor a library");
    if (head.e_shoff > file_bytes)
        return fail(f, ERR_CORRUPT, "it is cut off: its section table begins at %llu of %llu bytes",
                    (unsigned long long)head.e_shoff, (unsigned long long)file_bytes);
    return 0;
}

static int find_build_id(struct symbols_reader *r, struct span *out, struct failure *f)
{
    const void *bytes;
    ssize_t size = dwelf_elf_gnu_build_id(r->elf, &bytes);
    if (size <= 0)
        return fail(f, ERR_NOTFOUND,
                    "it has no build-id, by which frames name it: link it with "
                    "-Wl,--build-id (Go: -ldflags=-B=0x<40 hex digits>)");
    if (size > SYMBOLS_BUILD_ID_BYTES)
        return fail(f, ERR_LIMIT, "its build-id has %zd bytes, more than %d", size,
                    SYMBOLS_BUILD_ID_BYTES);
    *out = span_of(bytes, (size_t)size);
    return 0;
}

/* ---- the whole ---- */

static int read_packed(struct symbols_reader *r)
{
    struct buf plain;
    buf_init(&plain, (size_t)256 << 20);
    int e = symbols_elf_unpack(r, &plain);
    if (e == 0 && plain.size_bytes) {
        Elf *elf = elf_memory((char *)plain.data, plain.size_bytes);
        if (elf && elf_kind(elf) == ELF_K_ELF)
            e = symbols_elf_read(r, elf, false);
        elf_end(elf);
    }
    buf_done(&plain);
    return e;
}

static int compare_mangled(const void *left, const void *right)
{
    const struct symbols_mangled *a = left, *b = right;
    return a->start < b->start ? -1 : a->start > b->start;
}

static void say_missing(const struct symbols_reader *r, char out[SYMBOLS_MISSING_SIZE])
{
    out[0] = '\0';
    if (r->is_split)
        text_copy(out, SYMBOLS_MISSING_SIZE,
                  "split DWARF: what stands in its .dwo files is missing");
    else if (r->bad_units)
        text_format(out, SYMBOLS_MISSING_SIZE, "%u units of its debug information are damaged",
                    r->bad_units);
    else if (!symbols_build_lines(r->build))
        text_copy(out, SYMBOLS_MISSING_SIZE, "its .debug file would have lines");
}

static int write_table(struct symbols_reader *r, struct span build_id, symbols_write_fn write,
                       void *context, struct failure *f)
{
    char missing[SYMBOLS_MISSING_SIZE];
    if (!symbols_build_ranges(r->build) && !symbols_build_lines(r->build))
        return fail(f, ERR_NOTFOUND,
                    "it has neither a symbol table nor debug information: add the file before it "
                    "was stripped, or its .debug file");
    say_missing(r, missing);
    int e = symbols_build_end(r->build, build_id, missing, write, context);
    if (e == ERR_LIMIT)
        return fail(f, e, "its table would be larger than %u MiB",
                    SYMBOLS_PAGES_MAX * (SYMBOLS_PAGE_BYTES >> 10) >> 10);
    return e ? fail(f, e, "its table cannot be written: %s", err_text(e)) : 0;
}

static int read_all(struct symbols_reader *r, uint64_t file_bytes, symbols_write_fn write,
                    void *context, struct failure *f)
{
    struct span build_id;
    int e = check_head(r, file_bytes, f);
    if (e == 0)
        e = read_sections(r, file_bytes, f);
    if (e == 0)
        e = find_build_id(r, &build_id, f);
    if (e)
        return e;
    e = symbols_elf_read(r, r->elf, true);
    if (e == 0)
        e = read_packed(r);
    if (r->mangled_count)
        qsort(r->mangled, r->mangled_count, sizeof *r->mangled, compare_mangled);
    if (e == 0)
        e = symbols_dwarf_read(r);
    if (e)
        return fail(f, e, "it has more than %u functions or lines, or they need too much memory",
                    SYMBOLS_ENTRIES_MAX);
    return write_table(r, build_id, write, context, f);
}

int symbols_read(int fd, symbols_write_fn write, void *context, struct failure *f)
{
    struct symbols_reader r = {.elf = NULL};
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size < 0)
        return fail(f, ERR_IO, "it cannot be read");
    elf_version(EV_CURRENT);
    r.elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
    if (!r.elf)
        return fail(f, ERR_INVALID, "it is not an ELF file: %s", elf_errmsg(-1));
    int e = symbols_build_open(&r.build);
    e = e ? fail(f, e, "out of memory") : read_all(&r, (uint64_t)st.st_size, write, context, f);
    symbols_build_close(r.build);
    elf_end(r.elf);
    free(r.code);
    free(r.mangled);
    return e;
}
