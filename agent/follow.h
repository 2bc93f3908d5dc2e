/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of exceptions that follows logs: files that the settings name, log files that followed
 * processes have open, the journal. The broker opens, we read. Invariants: of each file is
 * remembered, in the state directory, up to where nothing more will be told, so that an agent that
 * ends and starts again tells each trace once; at most FOLLOW_CYCLE_US of every FOLLOW_PERIOD_MS is
 * spent, and what had to be passed over is said. Called by sources.c.
 *
 * A file that is there at our very first look is followed from its end; one that we know from
 * before, from where we were; one that is made later, from its beginning.
 */
#ifndef TRAWL_AGENT_FOLLOW_H
#define TRAWL_AGENT_FOLLOW_H

#include "agent/sources.h"

#define FOLLOW_PERIOD_MS 200
#define FOLLOW_CYCLE_US UINT64_C(20000)
#define FOLLOW_FILES_MAX 64
#define FOLLOW_LAG_MAX (UINT64_C(64) << 20) /* farther behind, the rest is passed over ... */
#define FOLLOW_LAG_KEEP (UINT64_C(1) << 20) /* ... but for this much */
#define FOLLOW_GONE_US UINT64_C(60000000)   /* a file without a name is read on for so long */

/* The row of the table: see struct source. */
int follow_open(void **out, const struct source_context *context, struct failure *f);
void follow_second(void *source);
void follow_close(void *source);

#endif
