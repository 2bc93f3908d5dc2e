/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of exceptions as table rows, as a page and as JSON. Pure. Invariant: a page shows counts
 * as the collector gave them, exact; what is a sample is called one. Used by the commands about
 * groups.
 */
#ifndef TRAWL_CLI_RENDER_GROUP_H
#define TRAWL_CLI_RENDER_GROUP_H

#include "cli/jsonl.h"
#include "cli/render.h"
#include "proto/codec.h"

#define RENDER_GROUP_HOSTS 1024 /* on a page; all of them are in JSON */
#define RENDER_GROUP_SAMPLES 16

const char *render_group_state(trawl_v1_GroupState state); /* "new", "regressed" */

const struct render_column *render_group_columns(bool wide, size_t *count);
void render_group_row(struct render_table *t, const trawl_v1_Group *group, bool wide,
                      int64_t now_us);

/* What ShowGroup said, gathered. */
struct render_group {
    trawl_v1_Group group; /* id "" until it came */
    trawl_v1_GroupHost *hosts;
    size_t host_count;
    trawl_v1_Exception *samples; /* newest first */
    size_t sample_count;
    uint32_t hosts_left_out, samples_left_out;
};

/* Takes a part; lines are the caller's. ERR_NOMEM. */
int render_group_part(struct render_group *g, const trawl_v1_GroupPart *part);
void render_group_done(struct render_group *g); /* a zeroed struct is fine */
/* Title, counts, hosts, versions, incidents, what it wants; the newest sample in whole. */
int render_group_page(struct buf *out, const struct render_group *g, int64_t now_us, bool color);

/* "G-7F2QK  the next one gives core as well" after `trawl want`; the same for `trawl resolve`. */
int render_group_wanted(struct buf *out, const trawl_v1_Group *group);
int render_group_resolved(struct buf *out, const trawl_v1_Group *group);

void render_group_members(struct jsonl *j, const trawl_v1_Group *group);
int render_group_json(struct buf *out, const trawl_v1_Group *group);
/* One line each, with "part": group, host, sample, line. */
int render_group_part_json(struct buf *out, const trawl_v1_GroupPart *part);

#endif
