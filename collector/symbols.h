/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a build-id and an address in the file to function, file and line: what people added by
 * `trawl symbols add` (ELF files with a symbol table, separate debug files), made into sorted
 * tables when it arrives and kept in the store. Invariant: a build-id's table is only ever replaced
 * by a better one (more lines, then more functions). ELF and DWARF are parsed in a child of ours.
 * Called by groups, ops_symbols, report. Loop thread.
 */
#ifndef TRAWL_COLLECTOR_SYMBOLS_H
#define TRAWL_COLLECTOR_SYMBOLS_H

#include "collector/collector.h"

struct symbols;
/* What an interrupted upload left behind is removed. ERR_NOMEM; the store's errors. */
int symbols_open(struct symbols **out, struct collector *c, struct failure *f);
/* Ends what is being added; before the loop ends. Handles are closed later, on the loop. */
void symbols_stop(struct symbols *symbols);
void symbols_close(struct symbols *symbols); /* after the loop; NULL is fine */

struct symbol {
    char function[128]; /* demangled where that is known */
    char file[96];      /* the path's end; empty: not known */
    uint32_t line;      /* 0: not known */
};
/*
 * `offset` as the ELF file counts addresses; `exact`: it is the instruction itself, else the one
 * behind a call. Inlined functions: the innermost. ERR_NOTFOUND: nothing is known of this build-id,
 * or of this place in it.
 */
int symbols_find(struct symbols *symbols, struct span build_id, uint64_t offset, bool exact,
                 struct symbol *out);

/* A table came or became better: groups may have to be told apart or put together. One listener. */
typedef void (*symbols_added_fn)(void *context, struct span build_id);
void symbols_on_added(struct symbols *symbols, symbols_added_fn added, void *context);

#endif
