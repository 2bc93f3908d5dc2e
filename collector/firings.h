/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules that fired on their hosts become incidents with the evidence that the rule names.
 * Invariant: a firing is a row (partition "rules") from before its event is acknowledged until its
 * captures are stored, and its captures' request_ids are made of its own, so that it is acted upon
 * once, over restarts of either side. What is captured is said by the rule as the collector has it,
 * never by the agent. Loop thread; called by ingest.c and once a second.
 */
#ifndef TRAWL_COLLECTOR_FIRINGS_H
#define TRAWL_COLLECTOR_FIRINGS_H

#include "collector/roster.h"
#include "collector/store.h"
#include "proto/codec.h"

#define FIRINGS_MAX 4096 /* on their way; of more only the event is kept */
/* Captures that rules may order at one host in an hour, whatever its agent says. */
#define FIRINGS_HOST_MOST 64

struct firings;
struct collector;

int firings_open(struct firings **out, struct collector *c, struct failure *f);
void firings_close(struct firings *firings); /* NULL is fine */

/* A RULE_FIRED of a host, complete. `done` when the row is stored; then it is acted upon. */
int firings_keep(struct firings *firings, const trawl_v1_Event *event, store_done_fn done,
                 void *context);
/* Once a second: what could not be ordered is tried again. */
void firings_tick(struct firings *firings);

#endif
