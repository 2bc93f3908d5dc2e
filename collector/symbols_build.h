/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathers functions and lines in any order and writes them as a table (symbols_table.h). Pure but
 * for the callback that takes the pages. Invariant: what is written passes symbols_page_check(),
 * whatever was put in. Called by symbols_read, in the child, and by tests.
 */
#ifndef TRAWL_COLLECTOR_SYMBOLS_BUILD_H
#define TRAWL_COLLECTOR_SYMBOLS_BUILD_H

#include "collector/symbols_table.h"

#define SYMBOLS_ENTRIES_MAX (16u << 20) /* ranges, and lines */
#define SYMBOLS_DEPTH_MAX 64

struct symbols_build;

int symbols_build_open(struct symbols_build **out);
void symbols_build_close(struct symbols_build *build); /* NULL is fine */

/* The number of a text; 0 for "". Names keep their beginning, files their end. ERR_LIMIT,
 * ERR_NOMEM. */
int symbols_build_name(struct symbols_build *build, const char *name, uint32_t *out);
int symbols_build_file(struct symbols_build *build, const char *file, uint32_t *out);

/*
 * A function's code, [start, end): depth 0 as a symbol says it, 1 as debug information says it,
 * from 2 on inlined ones. The deepest is shown; of two at one depth the one that begins later, and
 * when they begin together the one of higher rank. Empty or too high ranges are passed over.
 */
int symbols_build_range(struct symbols_build *build, uint64_t start, uint64_t end, unsigned depth,
                        unsigned rank, uint32_t name);
/* From this address on; of several at one address the last counts. file 0: a sequence ends. */
int symbols_build_line(struct symbols_build *build, uint64_t address, uint32_t file, uint32_t line);

/* How much was put in so far. */
size_t symbols_build_ranges(const struct symbols_build *build);
size_t symbols_build_lines(const struct symbols_build *build);

/* Page `no` from 0, in order; the root comes last, with no = UINT32_MAX. */
typedef int (*symbols_write_fn)(void *context, uint32_t no, struct span bytes);
int symbols_build_end(struct symbols_build *build, struct span build_id, const char *missing,
                      symbols_write_fn write, void *context);

#endif
