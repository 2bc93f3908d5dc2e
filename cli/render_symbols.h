/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbols for people and for programs: what became of the files given, and what the collector has.
 * Pure. Used by cmd_symbols.c.
 */
#ifndef TRAWL_CLI_RENDER_SYMBOLS_H
#define TRAWL_CLI_RENDER_SYMBOLS_H

#include "cli/render.h"
#include "cli/symbols_files.h"
#include "proto/codec.h"

/* The files that did not come to the collector with their reasons, with `wide` all of them; then
 * the sum in one line. */
int render_symbols_added(const struct symbols_files *files, bool wide, bool color, struct buf *out);
/* A line per file, then one of the sum. */
int render_symbols_added_json(const struct symbols_files *files, int exit_code, struct buf *out);

extern const struct render_column SYMBOLS_COLUMNS[];
extern const size_t SYMBOLS_COLUMN_COUNT;
void render_symbol_file(struct render_table *table, const trawl_v1_SymbolFile *file, bool wide,
                        int64_t now_us);
int render_symbol_file_json(const trawl_v1_SymbolFile *file, struct buf *out);

#endif
