/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The form in which symbols of one ELF file are kept: a root and pages, so that a lookup touches
 * four pages, however large the program is. Pure. The reader of ELF files makes one
 * (symbols_build), and who keeps it checks it again, page by page: it was made from bytes that came
 * from outside. Invariant: whatever bytes stand in root and pages, nothing is read outside of them.
 *
 *   root   "TSY1", build-id, counts, what is missing, first address of each page of addresses
 *   pages  of SYMBOLS_PAGE_BYTES: those of functions, then of lines, then of text
 *   function page   u32 bytes used, then (varint address delta, varint name)...
 *   line page       u32 bytes used, then (varint address delta * 2 + same file, zigzag line delta,
 *                   varint file unless the same)...
 *   text page       texts with their zeros, none across a page's end
 *
 * An entry holds from its address to the next one's. A name or file is an offset over all text
 * pages; 0: not known. Functions are flat: where one was inlined, the innermost is named.
 */
#ifndef TRAWL_COLLECTOR_SYMBOLS_TABLE_H
#define TRAWL_COLLECTOR_SYMBOLS_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

#define SYMBOLS_PAGE_BYTES 32768u
#define SYMBOLS_ROOT_BYTES 61440u /* with room for the row around it */
#define SYMBOLS_PAGES_MAX 8192u   /* 256 MiB */
#define SYMBOLS_BUILD_ID_BYTES 20
#define SYMBOLS_ADDRESS_MAX (UINT64_C(1) << 62)
#define SYMBOLS_MISSING_SIZE 96
#define SYMBOLS_FUNCTION_SIZE 128
#define SYMBOLS_FILE_SIZE 96

/* In a file of ours: the root (u32 size, then the bytes), then the pages. */
#define SYMBOLS_ROOT_ROOM 65536u

struct symbols_root {
    uint8_t build_id[SYMBOLS_BUILD_ID_BYTES];
    size_t build_id_bytes;
    uint32_t functions; /* with code of their own */
    uint32_t lines;     /* entries */
    uint32_t function_pages, line_pages, text_pages;
    char missing[SYMBOLS_MISSING_SIZE]; /* in words; empty: nothing */
    uint64_t *first;                    /* of each function page, then of each line page; owned */
};

/* Appends. ERR_LIMIT: more than SYMBOLS_ROOT_BYTES. */
int symbols_root_put(const struct symbols_root *root, struct buf *out);
/* ERR_CORRUPT, ERR_LIMIT, ERR_NOMEM; *out is then untouched. symbols_root_done() frees. */
int symbols_root_get(struct symbols_root *out, struct span in);
void symbols_root_done(struct symbols_root *root);
uint32_t symbols_root_pages(const struct symbols_root *root);

/* Whether page `no` (from 0) is what the root says. ERR_CORRUPT. */
int symbols_page_check(const struct symbols_root *root, uint32_t no, struct span page);

struct symbols_place {
    char function[SYMBOLS_FUNCTION_SIZE]; /* empty: not known */
    char file[SYMBOLS_FILE_SIZE];
    uint32_t line;
};
/* Page `no`, valid until the next call; a span without data: it cannot be had. */
typedef struct span (*symbols_page_fn)(void *context, uint32_t no);
/* `address` itself is looked up. ERR_NOTFOUND: neither function nor line is known there. */
int symbols_table_find(const struct symbols_root *root, uint64_t address, symbols_page_fn page,
                       void *context, struct symbols_place *out);

#endif
