/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that `trawl symbols add` was given: named ones, and ELF files with a build-id found in
 * directories. Invariant: of files with one build-id only the best is in the list; symbolic links
 * within a directory are passed over, for what they lead to in it is found by itself. Used by
 * cmd_symbols.c.
 */
#ifndef TRAWL_CLI_SYMBOLS_FILES_H
#define TRAWL_CLI_SYMBOLS_FILES_H

#include "cli/elf_file.h"

#define SYMBOLS_FILES_LIMIT 20000 /* in the list */
#define SYMBOLS_FILES_DEPTH 32    /* of directories */

enum symbols_state { SYMBOLS_UNSENT, SYMBOLS_ADDED, SYMBOLS_AS_GOOD, SYMBOLS_REFUSED };

struct symbols_file {
    char *path;
    struct elf_file elf;
    enum symbols_state state;
    uint32_t functions, lines; /* as the collector counted them */
    char text[FAILURE_TEXT_SIZE];
};

struct symbols_files {
    struct symbols_file *list;
    size_t count, capacity;
    uint64_t seen;       /* files looked at */
    uint64_t duplicates; /* of a build-id that is in the list */
    uint64_t without_id; /* ELF files in directories that have no build-id */
};

/* A file or directory. What is wrong with a named file stands in its state and text; only what is
 * wrong with the run itself is an error (ERR_NOTFOUND, ERR_DENIED, ERR_LIMIT, ERR_NOMEM). */
int symbols_files_add(struct symbols_files *files, const char *path, struct failure *f);
void symbols_files_done(struct symbols_files *files);
const char *symbols_state_name(enum symbols_state state); /* "added", "as good", ... */

#endif
