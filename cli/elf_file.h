/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be told of an ELF file (elf(5)) from its headers: its build-id, and whether it is worth
 * sending for its symbols. Nothing of DWARF is read. Invariant: the file may be anything; no size
 * or offset in it is believed before it was compared with the file's. Used by `trawl symbols`.
 */
#ifndef TRAWL_CLI_ELF_FILE_H
#define TRAWL_CLI_ELF_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define ELF_FILE_BUILD_ID 20

struct elf_file {
    uint8_t build_id[ELF_FILE_BUILD_ID];
    size_t build_id_bytes;
    uint64_t size_bytes; /* of the file */
    bool has_lines;      /* .debug_line and .debug_info */
    uint64_t functions;  /* in .symtab; 0 also where only .dynsym is there */
    bool has_some;       /* .symtab, .dynsym, .gnu_debugdata or lines */
};

/*
 * `path` is a regular file. ERR_INVALID: not ELF, or no program or library; ERR_CORRUPT: cut off;
 * ERR_NOTFOUND: without build-id, or stripped of everything; ERR_IO, ERR_DENIED. The sentence says
 * what would be right, without the path.
 */
int elf_file_read(const char *path, struct elf_file *out, struct failure *f);

#endif
