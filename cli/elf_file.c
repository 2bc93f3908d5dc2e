/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small reader of ELF headers, sections and notes, either width and byte order. Invariant: every
 * read lies within the file, and there are at most SECTIONS_MAX of sections. Called by
 * symbols_files.c.
 */
#include "cli/elf_file.h"

#include <stdlib.h>
#include <string.h>

#include "cli/file.h"
#include "common/port.h"

#define SECTIONS_MAX 65535u
#define NAMES_MAX (1u << 20)
#define NOTE_MAX (64u << 10)
#define CHUNK_SYMBOLS 2048u
#define SYMBOLS_MAX (16u << 20)
#define HEAD_MAX 64u
#define SECTION_HEAD_MAX 64u
#define NOTE_BUILD_ID 3u

enum { CLASS_32 = 1, CLASS_64 = 2, DATA_LITTLE = 1, DATA_BIG = 2 };
enum { TYPE_PROGRAM = 2, TYPE_LIBRARY = 3, TYPE_CORE = 4, TYPE_OBJECT = 1 };
enum { SECTION_SYMTAB = 2, SECTION_NOTE = 7, SECTION_NOBITS = 8, SECTION_DYNSYM = 11 };
enum { SYMBOL_FUNCTION = 2 };

struct reader {
    int file;
    uint64_t size_bytes;
    bool wide, big;
    uint64_t sections_at;
    uint32_t section_count, section_bytes, names_index;
    char *names;
    size_t names_bytes;
    bool has_line_section, has_info_section;
    struct elf_file *out;
    struct failure *f;
};

struct section {
    uint32_t name, type;
    uint64_t offset, size_bytes;
};

static uint64_t number(const struct reader *r, const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * (r->big ? bytes - 1 - i : i));
    return value;
}

static int read_at(const struct reader *r, void *out, size_t size_bytes, uint64_t at)
{
    if (at > r->size_bytes || size_bytes > r->size_bytes - at)
        return fail(r->f, ERR_CORRUPT, "it is cut off: something in it goes beyond its %llu bytes",
                    (unsigned long long)r->size_bytes);
    int n = file_read(r->file, out, size_bytes, at);
    if (n < 0 || (size_t)n != size_bytes)
        return fail(r->f, ERR_IO, "it cannot be read to its end");
    return 0;
}

/* ---- heads ---- */

static int check_type(const struct reader *r, uint64_t type)
{
    if (type == TYPE_PROGRAM || type == TYPE_LIBRARY)
        return 0;
    return fail(r->f, ERR_INVALID, "it is %s: add the linked program or library",
                type == TYPE_OBJECT ? "an object file"
                : type == TYPE_CORE ? "a core file"
                                    : "neither a program nor a library");
}

static int read_head(struct reader *r)
{
    static const uint8_t magic[4] = {0x7f, 'E', 'L', 'F'};
    uint8_t head[HEAD_MAX] = {0};
    if (r->size_bytes < 52 || read_at(r, head, r->size_bytes < HEAD_MAX ? 52 : HEAD_MAX, 0) ||
        memcmp(head, magic, sizeof magic) != 0 || (head[4] != CLASS_32 && head[4] != CLASS_64) ||
        (head[5] != DATA_LITTLE && head[5] != DATA_BIG))
        return fail(r->f, ERR_INVALID,
                    "it is not an ELF file: a program, a shared library or a .debug file would be "
                    "right");
    r->wide = head[4] == CLASS_64;
    r->big = head[5] == DATA_BIG;
    r->sections_at = r->wide ? number(r, head + 0x28, 8) : number(r, head + 0x20, 4);
    const uint8_t *counts = head + (r->wide ? 0x3A : 0x2E);
    r->section_bytes = (uint32_t)number(r, counts, 2);
    r->section_count = (uint32_t)number(r, counts + 2, 2);
    r->names_index = (uint32_t)number(r, counts + 4, 2);
    int e = check_type(r, number(r, head + 0x10, 2));
    if (e == 0 && r->sections_at > r->size_bytes)
        e = fail(r->f, ERR_CORRUPT, "it is cut off: it has %llu bytes, and sections behind them",
                 (unsigned long long)r->size_bytes);
    if (e == 0 && (!r->sections_at || r->section_bytes < (r->wide ? 64u : 40u) ||
                   r->section_bytes > SECTION_HEAD_MAX))
        e = fail(r->f, ERR_NOTFOUND,
                 "it has no sections, so no symbols: add the file before it "
                 "was stripped");
    return e;
}

static int read_section(const struct reader *r, uint32_t index, struct section *out)
{
    uint8_t head[SECTION_HEAD_MAX];
    int e = read_at(r, head, r->section_bytes, r->sections_at + (uint64_t)index * r->section_bytes);
    if (e)
        return e;
    out->name = (uint32_t)number(r, head, 4);
    out->type = (uint32_t)number(r, head + 4, 4);
    out->offset = r->wide ? number(r, head + 0x18, 8) : number(r, head + 0x10, 4);
    out->size_bytes = r->wide ? number(r, head + 0x20, 8) : number(r, head + 0x14, 4);
    return 0;
}

/* With more sections than the head can count, or names behind them, the first section says so. */
static int read_counts(struct reader *r)
{
    uint8_t head[SECTION_HEAD_MAX];
    if (r->section_count && r->names_index != 0xffff)
        return 0;
    int e = read_at(r, head, r->section_bytes, r->sections_at);
    if (e)
        return e;
    uint64_t count = r->wide ? number(r, head + 0x20, 8) : number(r, head + 0x14, 4);
    if (!r->section_count && (count == 0 || count > SECTIONS_MAX))
        return fail(r->f, ERR_CORRUPT, "its section table has no sensible size");
    if (!r->section_count)
        r->section_count = (uint32_t)count;
    if (r->names_index == 0xffff)
        r->names_index = (uint32_t)number(r, head + (r->wide ? 0x28 : 0x18), 4);
    return 0;
}

static int read_names(struct reader *r)
{
    struct section names;
    int e = r->names_index < r->section_count ? read_section(r, r->names_index, &names)
                                              : fail(r->f, ERR_CORRUPT, "its sections are damaged");
    if (e)
        return e;
    if (names.size_bytes == 0 || names.size_bytes > NAMES_MAX)
        return fail(r->f, ERR_CORRUPT, "its sections have no sensible names");
    r->names_bytes = (size_t)names.size_bytes;
    r->names = malloc(r->names_bytes);
    if (!r->names)
        return fail(r->f, ERR_NOMEM, "out of memory");
    e = read_at(r, r->names, r->names_bytes, names.offset);
    r->names[r->names_bytes - 1] = '\0';
    return e;
}

/* ---- what is in it ---- */

/* Notes (elf(5)): name size, description size, type; both padded to 4 bytes. */
static void find_build_id(struct reader *r, const uint8_t *notes, size_t size_bytes)
{
    for (size_t at = 0; size_bytes - at >= 12;) {
        uint64_t name = number(r, notes + at, 4), bytes = number(r, notes + at + 4, 4);
        uint64_t type = number(r, notes + at + 8, 4);
        at += 12;
        uint64_t padded = (name + 3) & ~UINT64_C(3);
        if (padded > size_bytes - at || bytes > size_bytes - at - padded)
            return;
        const uint8_t *text = notes + at + padded;
        if (type == NOTE_BUILD_ID && name == 4 && memcmp(notes + at, "GNU", 4) == 0 && bytes > 0 &&
            bytes <= ELF_FILE_BUILD_ID) {
            memcpy(r->out->build_id, text, (size_t)bytes);
            r->out->build_id_bytes = (size_t)bytes;
            return;
        }
        bytes = (bytes + 3) & ~UINT64_C(3);
        if (bytes > size_bytes - at - padded)
            return;
        at += (size_t)(padded + bytes);
    }
}

static int read_note(struct reader *r, const struct section *s)
{
    if (r->out->build_id_bytes || s->size_bytes > NOTE_MAX)
        return 0;
    uint8_t *notes = malloc(NOTE_MAX);
    if (!notes)
        return fail(r->f, ERR_NOMEM, "out of memory");
    int e = read_at(r, notes, (size_t)s->size_bytes, s->offset);
    if (e == 0)
        find_build_id(r, notes, (size_t)s->size_bytes);
    free(notes);
    return e;
}

static int count_functions(struct reader *r, const struct section *s)
{
    size_t entry = r->wide ? 24 : 16, info = r->wide ? 4 : 12, where = r->wide ? 6 : 14;
    uint64_t left = s->size_bytes / entry, at = s->offset;
    uint8_t *chunk = malloc(CHUNK_SYMBOLS * 24);
    int e = chunk ? 0 : fail(r->f, ERR_NOMEM, "out of memory");
    if (left > SYMBOLS_MAX)
        left = SYMBOLS_MAX;
    while (e == 0 && left > 0) {
        size_t count = left < CHUNK_SYMBOLS ? (size_t)left : CHUNK_SYMBOLS;
        e = read_at(r, chunk, count * entry, at);
        for (size_t i = 0; e == 0 && i < count; i++)
            r->out->functions += (chunk[i * entry + info] & 15) == SYMBOL_FUNCTION &&
                                 number(r, chunk + i * entry + where, 2) != 0;
        left -= count;
        at += count * entry;
    }
    free(chunk);
    return e;
}

static int take_section(struct reader *r, const struct section *s)
{
    const char *name = s->name < r->names_bytes ? r->names + s->name : "";
    if (s->type == SECTION_NOBITS)
        return 0;
    if (s->offset > r->size_bytes || s->size_bytes > r->size_bytes - s->offset)
        return fail(r->f, ERR_CORRUPT, "it is cut off: section '%.32s' goes beyond its %llu bytes",
                    name, (unsigned long long)r->size_bytes);
    r->has_info_section |= !strcmp(name, ".debug_info") || !strcmp(name, ".zdebug_info");
    r->has_line_section |= !strcmp(name, ".debug_line") || !strcmp(name, ".zdebug_line");
    r->out->has_some |= s->type == SECTION_SYMTAB || s->type == SECTION_DYNSYM ||
                        !strcmp(name, ".gnu_debugdata") || r->has_line_section;
    if (s->type == SECTION_NOTE)
        return read_note(r, s);
    return s->type == SECTION_SYMTAB ? count_functions(r, s) : 0;
}

static int read_all(struct reader *r)
{
    int e = read_head(r);
    if (e == 0)
        e = read_counts(r);
    if (e == 0)
        e = read_names(r);
    for (uint32_t i = 1; e == 0 && i < r->section_count; i++) {
        struct section s;
        e = read_section(r, i, &s);
        if (e == 0)
            e = take_section(r, &s);
    }
    r->out->has_lines = r->has_info_section && r->has_line_section;
    if (e == 0 && !r->out->build_id_bytes)
        e = fail(r->f, ERR_NOTFOUND,
                 "it has no build-id, by which frames name it: link it with -Wl,--build-id (Go: "
                 "-ldflags=-B=0x<40 hex digits>)");
    if (e == 0 && !r->out->has_some)
        e = fail(r->f, ERR_NOTFOUND,
                 "it has no symbols left: add the file before it was stripped, "
                 "or its .debug file");
    return e;
}

int elf_file_read(const char *path, struct elf_file *out, struct failure *f)
{
    struct elf_file file = {.size_bytes = 0};
    struct reader r = {.file = file_open_read(path), .out = &file, .f = f};
    if (r.file < 0)
        return file_fail(f, r.file, "open", path);
    int64_t size = file_size(r.file);
    int e = size < 0 ? file_fail(f, (int)size, "read", path) : 0;
    if (e == 0) {
        r.size_bytes = file.size_bytes = (uint64_t)size;
        e = read_all(&r);
    }
    free(r.names);
    port_close(r.file);
    if (e == 0)
        *out = file;
    return e;
}
