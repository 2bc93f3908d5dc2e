/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of symbols share, and nobody else sees:
 *
 *   symbols.c        what is known of which build-id; looking up
 *   symbols_cache.c  pages in memory, the least used ones given up first
 *   symbols_add.c    one upload: pieces into a file without a name
 *   symbols_run.c    then the child that reads it
 *   symbols_keep.c   then its table, checked and stored
 */
#ifndef TRAWL_COLLECTOR_SYMBOLS_PRIVATE_H
#define TRAWL_COLLECTOR_SYMBOLS_PRIVATE_H

#include "collector/serve.h"
#include "collector/symbols.h"
#include "collector/symbols_table.h"

#define SYMBOLS_FILES_MAX 10000 /* build-ids; then the oldest gives way */
#define SYMBOLS_FILE_BYTES_MAX ((uint64_t)2 << 30)
#define SYMBOLS_ADDS_MAX 4 /* uploads at once; one of them is read at a time */
#define SYMBOLS_CACHE_BYTES ((size_t)64 << 20)
#define SYMBOLS_ROW_MAX (64 * 1024)
/* Of --records-max: what all tables together may take; then the oldest gives way. */
#define SYMBOLS_SHARE 4

/* ---- cache ---- */

struct symbols_cache;
int symbols_cache_open(struct symbols_cache **out, size_t limit_bytes);
void symbols_cache_close(struct symbols_cache *cache);
/* By a table's generation; valid until the next call of either. NULL, or no data: not there. */
const struct symbols_root *symbols_cache_root(struct symbols_cache *cache, uint64_t generation);
struct span symbols_cache_page(struct symbols_cache *cache, uint64_t generation, uint32_t no);
/* Takes the root (its `first`), also on failure. */
int symbols_cache_put_root(struct symbols_cache *cache, uint64_t generation,
                           struct symbols_root *root);
int symbols_cache_put_page(struct symbols_cache *cache, uint64_t generation, uint32_t no,
                           struct span page);
size_t symbols_cache_bytes(const struct symbols_cache *cache);

/* ---- what is known ---- */

struct symbols_known {
    uint8_t build_id[SYMBOLS_BUILD_ID_BYTES];
    uint8_t build_id_bytes;
    uint32_t functions, lines;
    uint64_t generation; /* names the partition of the table */
    uint64_t size_bytes; /* as stored */
    int64_t added_us;
};

struct symbols {
    struct collector *collector;
    struct symbols_known *known; /* sorted by build-id */
    size_t known_count, known_capacity;
    uint64_t stored_bytes;
    struct symbols_cache *cache;
    symbols_added_fn added;
    void *added_context;
    struct list adds; /* struct symbols_add */
    uint32_t add_count;
    struct symbols_add *reading; /* the one whose file is being read or stored */
    bool stopping;
};

struct symbols_known *symbols_known_find(struct symbols *s, struct span build_id);
/* Puts in or replaces. ERR_NOMEM. */
int symbols_known_put(struct symbols *s, const struct symbols_known *known);
/* Makes room for a table of this size, the oldest first; never takes `keep`. */
void symbols_known_shrink(struct symbols *s, uint64_t more_bytes, struct span keep);

/* ---- adding ---- */

struct symbols_add {
    struct list link;
    struct symbols *symbols;
    struct call *call;                 /* NULL: the client is gone */
    char name[256], label[80], by[96]; /* label: the name's last part, for sentences */
    int elf, table;                    /* files without a name; -1 */
    uint64_t declared_bytes, received_bytes;
    bool last;     /* all of it came */
    bool done;     /* answered, or failed: only to be freed */
    bool paused;   /* the client waits for the disk */
    unsigned busy; /* callbacks to come */

    struct buf filling, writing;
    uint64_t written_bytes;
    uv_fs_t write;
    uv_buf_t bytes;
    bool is_writing, is_queued;

    uv_timer_t patience; /* of the client, then of the child */
    uv_process_t child;
    uv_pipe_t said_pipe;
    struct buf said;
    char said_room[1024];
    bool has_child, has_pipe, overdue;
    int64_t exit_status;
    int exit_signal;

    struct symbols_root root;
    uint64_t generation, stored_bytes;
    uint32_t next_row;
    struct symbols_known old; /* what was there; without generation: nothing */
    trawl_v1_SymbolFile reply;
};

int symbols_add_begin(struct symbols_add **out, struct symbols *s, struct call *call,
                      const trawl_v1_SymbolPiece *piece, struct failure *f);
int symbols_add_piece(struct symbols_add *a, const trawl_v1_SymbolPiece *piece, struct failure *f);
int symbols_add_end(struct symbols_add *a, struct failure *f);
/* The call is over: nothing is answered any more. */
void symbols_add_gone(struct symbols_add *a);

/* A callback has come, or the call is gone: frees when nothing else holds it. */
void symbols_add_release(struct symbols_add *a);
void symbols_add_fail(struct symbols_add *a, const struct failure *why);
void symbols_add_answer(struct symbols_add *a);
void symbols_add_wait(struct symbols_add *a, uint64_t ms, uv_timer_cb late);
/* The next one that waits for its turn. */
void symbols_add_next(struct symbols *s);

void symbols_run(struct symbols_add *a);  /* starts the child */
void symbols_kill(struct symbols_add *a); /* if there is one */
void symbols_keep(struct symbols_add *a); /* the child has made its table */

#endif
