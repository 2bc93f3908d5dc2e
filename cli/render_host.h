/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts, capabilities and the rows of `trawl top` as table rows and as JSON lines. Pure: the time
 * of day is an argument. Used by cmd_hosts.c and cmd_top.c.
 */
#ifndef TRAWL_CLI_RENDER_HOST_H
#define TRAWL_CLI_RENDER_HOST_H

#include "cli/render.h"
#include "proto/codec.h"

/* Columns of `trawl hosts`; `wide` has more. */
const struct render_column *render_host_columns(bool wide, size_t *count);
void render_host_row(struct render_table *t, const trawl_v1_Host *host, bool wide, int64_t now_us);
int render_host_json(struct buf *out, const trawl_v1_Host *host);
/* "dc=east role=web", in the order of their keys; `out` grows by it. */
int render_labels(struct buf *out, const trawl_v1_Host *host);

const struct render_column *render_capability_columns(size_t *count);
void render_capability_row(struct render_table *t, const trawl_v1_Capability *capability);
int render_capability_json(struct buf *out, const trawl_v1_Capability *capability);

const struct render_column *render_top_columns(size_t *count);
void render_top_row(struct render_table *t, const trawl_v1_TopRow *row);
int render_top_json(struct buf *out, const trawl_v1_TopRow *row);
/* Whether the field ("cpu", "memory", "threads", "read", "write", "load", "cores") is among those
 * that the row says it lacks. */
bool render_top_lacks(const trawl_v1_TopRow *row, const char *field);

#endif
