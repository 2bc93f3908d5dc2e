/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of groups*.c share. Private to them.
 *
 *   groups.c          counting: the one commit
 *   groups_cache.c    groups, hosts and cursors in memory
 *   groups_rows.c     rows in, rows out, the chain of commits
 *   groups_act.c      incidents and orders for what was decided
 *   groups_read.c     as people see them; what is forgotten
 *   groups_want.c     what people want of the next one; told to agents; resolve
 *   groups_symbols.c  merging and splitting when names arrive
 */
#ifndef TRAWL_COLLECTOR_GROUPS_PRIVATE_H
#define TRAWL_COLLECTOR_GROUPS_PRIVATE_H

#include "collector/groups.h"
#include "collector/keys.h"

#define GROUPS_BUCKETS 1024
#define GROUPS_CACHED_MAX 2000 /* in memory; what was seen longest ago goes first */
#define GROUPS_TOLD_MAX 100000 /* ids of exceptions remembered, so that none counts twice */
#define GROUPS_TOLD_US (7 * 24 * 3600 * INT64_C(1000000))
#define GROUPS_FLYING_MAX 8192
#define GROUPS_ACTIONS_MAX 1000
#define GROUPS_RENAMES_MAX 1000
#define GROUPS_WANTS_MAX 32

struct group_host {
    struct list link; /* group->hosts, the last one seen first */
    const struct host *host;
    trawl_v1_GroupHost record;
};

struct group {
    struct list link;         /* groups->recent */
    struct list by_signature; /* of its own signature; others lead here through the store */
    struct list by_id;
    trawl_v1_Group record;
    struct group_state state;
    struct list hosts;
    uint32_t flying; /* commits on their way: it stays in memory */
};

/* A host's place in the count. */
struct lane {
    struct list link;
    struct host *host;
    uint8_t state_id[16];
    uint64_t counted; /* highest event number, as submitted */
    struct group_quota quota;
};

/* Evidence that was decided upon: row "p", until it is ordered and what is wanted has come. */
struct action {
    struct list link;
    struct groups *groups;
    uint64_t no; /* in which order they were decided */
    trawl_v1_Exception exception;
    uint32_t kinds, wanted; /* group_kinds_mask() */
    bool opens;
    uint8_t done; /* ACTION_... */
    bool busy;    /* a commit is on its way */
    char because[16];
    char incident[24]; /* once there is one */
};
enum { ACTION_NOTHING, ACTION_FIRST, ACTION_WAITS };

struct groups {
    struct collector *collector;
    struct group_limits limits;
    struct list by_signature[GROUPS_BUCKETS], by_id[GROUPS_BUCKETS], lanes[GROUPS_BUCKETS];
    struct list recent;
    size_t cached;
    struct list flying[256]; /* struct counting, by the last byte of the id */
    size_t flying_count;
    uint64_t version; /* of the last commit submitted */
    uint32_t chained; /* commits of the chain on their way */
    bool broken;      /* one failed: nothing is counted until all have come back */
    struct group_quota fleet;
    size_t told;
    struct list actions;
    size_t action_count;
    uint64_t action_no;
    struct list followers;
    char wants[GROUPS_WANTS_MAX][16]; /* ids, newest first */
    size_t want_count;
    char (*renames)[16]; /* ids of groups whose frames may have got names */
    size_t rename_count;
};

/* ---- rows ---- */

#define ROWS_MAX 1000 /* of one commit */
struct group_row {
    enum store_op_type type;
    struct key key;
    size_t end; /* of its value in `bytes` */
};
struct group_rows {
    struct group_row *list;
    size_t count, capacity;
    struct buf bytes;
    int e; /* the first error; later calls do nothing */
};
void group_rows_init(struct group_rows *rows);
void group_rows_done(struct group_rows *rows);
void group_rows_delete(struct group_rows *rows, struct key key);
/* Appends what stands in rows->bytes since the last row as the value of `key`. */
void group_rows_put(struct group_rows *rows, struct key key);
void group_rows_put_text(struct group_rows *rows, struct key key, const char *text);
void group_rows_put_u64(struct group_rows *rows, struct key key, uint64_t value);
void group_rows_put_group(struct group_rows *rows, const struct group *group); /* with its state */
void group_rows_put_host(struct group_rows *rows, const char *id, const trawl_v1_GroupHost *host);
/*
 * One link of the chain: fails unless every commit of the chain before it held. `done` is called
 * through groups_landed(). Takes nothing; rows can be freed afterwards.
 */
int group_rows_commit(struct groups *groups, struct group_rows *rows, store_done_fn done,
                      void *context);
/* To be called first in every `done` of the chain. */
void groups_landed(struct groups *groups, const struct failure *why);

/* Rows that begin with `prefix`, on and on until all were seen; non-zero stops. */
int groups_scan(struct groups *groups, struct span prefix, store_row_fn row, void *context);
/* One row; ERR_NOTFOUND, ERR_CORRUPT. */
int groups_row(struct groups *groups, const struct key *key, struct buf *value);

/* ---- cache ---- */

struct group *cache_by_id(struct groups *groups, const char *id, int *e); /* loads; NULL */
struct group *cache_by_signature(struct groups *groups, const uint8_t signature[16], int *e);
struct group *cache_add(struct groups *groups, const trawl_v1_Group *record,
                        const struct group_state *state);
void cache_rehash(struct groups *groups, struct group *group); /* its signature has changed */
struct group_host *cache_host(struct groups *groups, struct group *group, const struct host *host,
                              bool *fresh);
struct lane *cache_lane(struct groups *groups, struct host *host);
void cache_touch(struct groups *groups, struct group *group);
void cache_trim(struct groups *groups);
void cache_forget(struct groups *groups); /* everything, after the chain broke */
void groups_new_id(struct groups *groups, char id[16]);
struct group_names groups_names(struct groups *groups);
int64_t groups_now_us(const struct groups *groups);

/* ---- acting ---- */

/* A decision's row, and after its commit the action itself. */
void act_put(struct group_rows *rows, const trawl_v1_Exception *e,
             const struct group_decision *decision);
int act_add(struct groups *groups, const trawl_v1_Exception *e,
            const struct group_decision *decision);
int act_load(struct groups *groups);
void act_tick(struct groups *groups);
void act_forget(struct groups *groups);

/* ---- wants ---- */

int want_load(struct groups *groups);
void want_changed(struct groups *groups, const struct group *group); /* and tells all */
void want_put(struct group_rows *rows, const struct group *group);

/* ---- symbols ---- */

void groups_symbols_open(struct groups *groups);
void groups_rename_later(struct groups *groups, const char *id);
void groups_rename_some(struct groups *groups); /* once a second */

#endif
