/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of exceptions that the crash handler writes down: picks up what waits in STATE/crash,
 * whether it was written while the agent ran or before. Invariant: what was told is marked as told
 * at once after it lies in the events ring. A row in sources.c; wants come from the uplink.
 */
#ifndef TRAWL_AGENT_CRASHES_H
#define TRAWL_AGENT_CRASHES_H

#include "agent/sources.h"

int crashes_open(void **out, const struct source_context *context, struct failure *f);
void crashes_second(void *source);
void crashes_close(void *source);

/* What the next crashes are to give; kept for the handler. Without the source: nothing happens. */
void crashes_set_wants(const trawl_v1_Wants *wants);

#endif
