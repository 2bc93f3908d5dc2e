/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The newest values of the few counters that `trawl top` shows, per host, kept in memory: a window
 * on the stream, nothing stored. Fed by ingest; read by the handler of Operations.Top.
 */
#ifndef TRAWL_COLLECTOR_TOP_H
#define TRAWL_COLLECTOR_TOP_H

#include "collector/roster.h"

struct top;
int top_open(struct top **out, struct collector *c, struct failure *f);
void top_close(struct top *top);
void top_descriptors(struct top *top, struct host *host, const trawl_v1_Descriptors *list);
void top_block(struct top *top, struct host *host, const trawl_v1_CounterBlock *block);
/* Calls `each` with the host's own row and one per process, nothing for a host without data. */
typedef int (*top_row_fn)(void *context, const trawl_v1_TopRow *row);
int top_each(struct top *top, struct host *host, top_row_fn each, void *context);

#endif
