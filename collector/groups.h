/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions become counts, groups, samples, and orders for evidence. Decisions are group.h's; here
 * they meet the store, incidents and hosts. Invariants: a count, the number of the event it came
 * from and its sample are one commit, so a record that is sent again is never counted again and
 * none that was acknowledged is lost; what was decided is written down (row "p") before anything is
 * ordered, so a restart goes on with it. Memory is a bounded cache of the store. Loop thread.
 */
#ifndef TRAWL_COLLECTOR_GROUPS_H
#define TRAWL_COLLECTOR_GROUPS_H

#include "collector/collector.h"
#include "collector/group.h"
#include "collector/roster.h"
#include "common/list.h"

struct groups;
int groups_open(struct groups **out, struct collector *c, struct failure *f);
void groups_close(struct groups *groups);

/*
 * Counts one exception of the host, checked and with its times in collector time (`host`, `skew_us`
 * set). `done` comes after the commit, in order with other commits. ERR_BUSY: an earlier commit
 * failed; it must be sent again.
 */
int groups_count(struct groups *groups, struct host *host, trawl_v1_Exception *e,
                 store_done_fn done, void *context);
/* Once a second: what is to be ordered, what came of it, what is too old. */
void groups_tick(struct groups *groups);
/* A host connected: it is told what is wanted. */
void groups_host_here(struct groups *groups, struct host *host);

/* The ID of the group that `text` names: its ID or any unique part; of a merged one the group that
 * it is in now. ERR_NOTFOUND, ERR_CONFLICT. */
int groups_find(struct groups *groups, const char *text, char id[16], struct failure *f);
/* As people see it. ERR_NOTFOUND. */
int groups_get(struct groups *groups, const char *id, trawl_v1_Group *out);
/* Non-zero return stops and is returned. */
typedef int (*groups_group_fn)(void *context, const trawl_v1_Group *group);
int groups_each(struct groups *groups, groups_group_fn each, void *context);
typedef int (*groups_host_fn)(void *context, const trawl_v1_GroupHost *host);
int groups_each_host(struct groups *groups, const char *id, groups_host_fn each, void *context);
typedef int (*groups_sample_fn)(void *context, const trawl_v1_Exception *sample);
int groups_each_sample(struct groups *groups, const char *id, groups_sample_fn each, void *context);

/* The next `count` exceptions of the group gather these kinds, too; 0: none any more. */
int groups_want(struct groups *groups, const char *id, const trawl_v1_WantRequest *want,
                const char *who, store_done_fn done, void *context, struct failure *f);
int groups_resolve(struct groups *groups, const char *id, const char *who, store_done_fn done,
                   void *context, struct failure *f);

/* Hears of every exception once it is counted. Embed. */
struct groups_follower {
    struct list link;
    void (*counted)(struct groups_follower *follower, const trawl_v1_Exception *e);
};
void groups_follow(struct groups *groups, struct groups_follower *follower);
void groups_unfollow(struct groups_follower *follower);

#endif
