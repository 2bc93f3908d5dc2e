/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory that crash handler and agent share, STATE/crash: what lies in it, and how much of
 * it there may be. It belongs to the agent's user; every file is 0600. Invariant: a crash whose
 * marker was made is in exactly one of: ID.begun (its handler lives, or has died), ID.pb (to be
 * told), the table's records (to be told), ID.told. Called by crash_handler and crashes.
 *
 *     ID.begun        made first of all, locked (flock(2)) while its handler lives; who it is
 *     ID.ENDING       evidence: txt, json, folded, log, core.zst (small), full.zst (all memory);
 *                     ID.ENDING.tmp until it is whole
 *     ID.pb           trawl.v1.Exception, written last; renamed to ID.told once it was told
 *     SITE.site       trawl.v1.Exception of what was looked at at this place
 *     table           sites, and records of crashes that are only counted; of fixed size
 *     wants           trawl.v1.Wants
 */
#ifndef TRAWL_AGENT_CRASH_SPOOL_H
#define TRAWL_AGENT_CRASH_SPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "trawl.pb.h"

#define CRASH_PATH_SIZE 512
#define CRASH_NAME_SIZE 64 /* "<32 hex digits>.ENDING" */
#define CRASH_SPOOL_BYTES (UINT64_C(64) << 20)
#define CRASH_FREE_BYTES (UINT64_C(16) << 20) /* left to others on this disk */
#define CRASH_KEEP_US UINT64_C(86400000000)
#define CRASH_FILES_MAX_LISTED 16
#define CRASH_HELD_MAX 256 /* crashes with evidence */
#define CRASH_BEGUN ".tmp" /* behind the name of a file that is not whole yet */

struct crash_spool {
    int fd;    /* of the directory */
    int table; /* -1: not open */
    char path[CRASH_PATH_SIZE];
    uint32_t uid, gid; /* whose it is */
    uint64_t size_bytes;
};

/* ERR_NOTFOUND, ERR_DENIED, ERR_IO. A symbolic link is refused. */
int crash_spool_open(struct crash_spool *spool, const char *path, struct failure *f);
/* Makes directory and table where they are missing, as the user we are now. */
int crash_spool_make(struct crash_spool *spool, const char *path, struct failure *f);
void crash_spool_close(struct crash_spool *spool);

/* "<hex of id>.ENDING" */
void crash_spool_name(const uint8_t id[16], const char *ending, char out[CRASH_NAME_SIZE]);
bool crash_spool_has(const struct crash_spool *spool, const uint8_t id[16], const char *ending);
void crash_spool_remove(const struct crash_spool *spool, const uint8_t id[16], const char *ending);
/* All evidence of a crash, whole or begun; what is to be told of it stays. */
void crash_spool_drop(const struct crash_spool *spool, const uint8_t id[16]);
/* Evidence whose writer has died. */
void crash_spool_drop_begun(const struct crash_spool *spool, const uint8_t id[16]);
/* Written under another name first. */
int crash_spool_put(const struct crash_spool *spool, const char *name, struct span data,
                    struct failure *f);
/* Appends the contents to *out. ERR_NOTFOUND, ERR_LIMIT. */
int crash_spool_get(const struct crash_spool *spool, const char *name, struct buf *out);

/* The marker, which comes to be with its owner, lock and contents at once, so that the agent can
 * always read who it was. *fd holds its lock. ERR_EXISTS: another handler has it. */
int crash_spool_begin(const struct crash_spool *spool, const uint8_t id[16], struct span who,
                      int *fd, struct failure *f);
/* Whether the handler of a marker has died. */
bool crash_spool_is_orphan(const struct crash_spool *spool, const char *name, uint64_t age_us);

/*
 * Makes room for `need_bytes` of evidence of `process`. In this order, and no further, give way:
 * later evidence of a place (its frames) that there is older evidence of, the newest first; for a
 * program that has no evidence yet, the newest of the program that has the most; else what the same
 * program told long ago, but its first. ERR_FULL: there is no room.
 */
int crash_spool_room(const struct crash_spool *spool, const char *process, uint64_t need_bytes);
/* For a whole core: the others together have at most `most_bytes`; old ones that were told give
 * way. ERR_FULL: they wait to be fetched. */
int crash_spool_room_whole(const struct crash_spool *spool, uint64_t most_bytes);
/* Removes what is older than CRASH_KEEP_US and was told, and what is beyond the size. */
void crash_spool_tidy(const struct crash_spool *spool);

/* One file of evidence. */
struct crash_spool_file {
    char name[CRASH_NAME_SIZE];
    char ending[16]; /* "txt", "json", "folded", "log", "core", "full" */
    bool packed;     /* zstd */
    uint64_t size_bytes;
};
/* The evidence of one crash, at most `max` files; *count is set. ERR_NOTFOUND: there is none. */
int crashes_find(const char *directory, const uint8_t id[16], struct crash_spool_file *out,
                 size_t max, size_t *count);

/* Calls `each` for all names that end so (".pb"); non-zero stops. The name is a copy. */
int crash_spool_each(const struct crash_spool *spool, const char *ending,
                     int (*each)(void *context, const char *name), void *context);
/* Whether a file of this name is evidence, and whole. */
bool crash_spool_is_evidence(const char *name);
/* The id in a file's name. */
bool crash_spool_id(const char *name, uint8_t id[16]);

/* ---- the table ---- */

#define CRASH_SITE_WHOLE 3 /* described whole in an hour, of one site */
#define CRASH_SITES 256
#define CRASH_RECORDS 4096
#define CRASH_NEW_PER_S 2 /* new sites where one is known already */

/* A crash that is only counted. */
struct crash_record {
    uint64_t site; /* 0: none */
    uint8_t id[16];
    int64_t wall_us;
    int64_t last_us;
    uint64_t count;
    uint64_t start_ticks;
    uint32_t pid, tid, uid, signal;
    int32_t signal_code;
    uint32_t why; /* enum crash_why */
    char process[64];
    char thread[16];
    char type[32];
};

enum crash_why { CRASH_BY_SITE, CRASH_DISK_FULL };

/*
 * Whether this crash is to be described whole; if so it is counted as such. *site: whose frames it
 * has when it is not. ERR_IO: no table (then it is to be described).
 */
int crash_table_claim(struct crash_spool *spool, uint64_t weak, uint64_t strong, int64_t now_us,
                      bool *whole, uint64_t *site);
/* There was no room for what was claimed: does not count, and is tried again in CRASH_RETRY_S. */
#define CRASH_RETRY_S 10
void crash_table_unclaim(struct crash_spool *spool, uint64_t site, int64_t now_us);
/* Counts it. When all records are taken, they are counted per site. ERR_IO. */
int crash_table_count(struct crash_spool *spool, const struct crash_record *record);
/*
 * Calls `each` for every record, oldest first, and removes those for which it returned 0; ERR_AGAIN
 * leaves it and the rest of its site for later. The table is not locked meanwhile.
 */
int crash_table_drain(struct crash_spool *spool,
                      int (*each)(void *context, const struct crash_record *record), void *context);
/* Whether a marker's crash has been counted in the table: among the last that were. */
bool crash_table_knows(struct crash_spool *spool, const uint8_t id[16]);
uint32_t crash_table_waiting(struct crash_spool *spool);

#define CRASH_GIVEN 64      /* of the newest it is known what was given */
#define CRASH_GIVEN_SPARE 8 /* for one wish, of places that were not the one that was meant */

/* What somebody wants, given by one crash. */
struct crash_given {
    char group[16];
    int64_t asked_us;
    uint64_t site; /* as crash_table_claim()'s `strong` */
    uint8_t id[16];
    uint32_t left; /* that it covered then */
    uint32_t reserved;
};

/*
 * Whether this crash is to give what is wanted: a site gives as many times as were `left` when it
 * gave first, and never again for the same word (group and asked_us), however late it is heard that
 * the wish is granted. If so it is noted. False also without a table: never twice.
 */
bool crash_table_give(struct crash_spool *spool, const struct crash_given *given);
/* The crash `id` could not give it after all. */
void crash_table_give_back(struct crash_spool *spool, const uint8_t id[16]);

#endif
