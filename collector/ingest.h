/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes in what agents send: checks a block or an event, makes records of it, moves the host's
 * cursor, and says when it is stored for good. Invariant: the cursor moves only over what was
 * committed or declared a gap, so that nothing acknowledged is lost and nothing is stored twice.
 */
#ifndef TRAWL_COLLECTOR_INGEST_H
#define TRAWL_COLLECTOR_INGEST_H

#include "collector/collector.h"
#include "collector/roster.h"

/* All return 0 (then `done` comes, in order, unless it was stored before: then at once),
 * ERR_INVALID for what breaks the protocol, or ERR_BUSY/ERR_FULL: the agent has to come back later.
 */
int ingest_descriptors(struct collector *c, struct host *host, trawl_v1_Descriptors *list,
                       store_done_fn done, void *context, struct failure *f);
int ingest_block(struct collector *c, struct host *host, trawl_v1_CounterBlock *block,
                 store_done_fn done, void *context, struct failure *f);
int ingest_event(struct collector *c, struct host *host, trawl_v1_Event *event, store_done_fn done,
                 void *context, struct failure *f);
/* Numbered with events; counted in its group. Changes *exception as it is stored. */
int ingest_exception(struct collector *c, struct host *host, trawl_v1_Exception *exception,
                     store_done_fn done, void *context, struct failure *f);
int ingest_gap(struct collector *c, struct host *host, const trawl_v1_Gap *gap, store_done_fn done,
               void *context, struct failure *f);

/* Whether a clock can show this: 1970 to 9999. Differences of such times do not overflow. */
bool ingest_is_time(int64_t us);

#endif
