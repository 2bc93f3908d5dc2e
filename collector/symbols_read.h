/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an ELF file to a table of symbols. ELF and DWARF come from outside and the libraries that
 * read them can be crashed: only the child (symbols_child.c) may call this, and tests. Invariant:
 * the file is not changed, and no other file is opened.
 */
#ifndef TRAWL_COLLECTOR_SYMBOLS_READ_H
#define TRAWL_COLLECTOR_SYMBOLS_READ_H

#include "collector/symbols_build.h"

/*
 * Reads .symtab or .dynsym, .gnu_debugdata, DWARF functions and lines of what `fd` is open for
 * (regular file, from its beginning) and writes the table. ERR_INVALID (not ELF, not linked),
 * ERR_CORRUPT (cut off), ERR_NOTFOUND (no build-id, or no symbols at all), ERR_LIMIT.
 */
int symbols_read(int fd, symbols_write_fn write, void *context, struct failure *f);

/* What the file's readers share. */
struct symbols_area {
    uint64_t start, end;
};
struct symbols_mangled {
    uint64_t start;
    uint32_t name;
};
struct symbols_reader {
    struct Elf *elf;
    struct symbols_build *build;
    struct symbols_area *code; /* sections with instructions, sorted */
    size_t code_count;
    struct symbols_mangled *mangled; /* symbols with a C++ or Rust name, sorted */
    size_t mangled_count, mangled_capacity;
    uint32_t bad_units; /* of debug information, passed over */
    bool is_split;      /* split DWARF */
};

/* NULL: not in code. */
const struct symbols_area *symbols_code_at(const struct symbols_reader *r, uint64_t address);
/* The number of a name as people write it: demangled, without parameters. ERR_LIMIT, ERR_NOMEM. */
int symbols_name(struct symbols_reader *r, const char *raw, uint32_t *out);
bool symbols_is_mangled(const char *raw);

/* symbols_elf.c: the symbol tables of `elf`, which is r->elf or lay packed in it. */
struct Elf;
int symbols_elf_read(struct symbols_reader *r, struct Elf *elf, bool dynamic_too);
/* .gnu_debugdata unpacked (xz); empty when there is none. */
int symbols_elf_unpack(struct symbols_reader *r, struct buf *out);
/* symbols_dwarf.c: functions and lines. 0 also where there is no debug information. */
int symbols_dwarf_read(struct symbols_reader *r);

#endif
