/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules that mean this host, evaluated each second on what the agent knows, also while the
 * collector is away. Invariant: what counts against limits is on disk before a firing is told, and
 * a firing is in the events ring before anything is done about it. One thread; owned by the agent,
 * fed by the uplink (rules), the sampler (values), the watcher (exceptions) and the process scan.
 */
#ifndef TRAWL_AGENT_RULES_H
#define TRAWL_AGENT_RULES_H

#include "agent/sampler.h"
#include "agent/spool.h"
#include "agent/state.h"
#include "common/clock.h"

struct rules;

struct rules_settings { /* all borrowed */
    struct clock *clock;
    const struct state *state;
    struct spool *spool;
    const struct sampler *sampler;
    const char *boot_id;          /* of this boot; "" when it is not known */
    void (*added)(void *context); /* an event was put into the ring */
    void *context;
};

/* With the rules and the record of the last run. What cannot be read is said and left out; every
 * limit counts as used up then. ERR_NOMEM. */
int rules_open(struct rules **out, const struct rules_settings *settings, struct failure *f);
void rules_close(struct rules *rules); /* NULL is fine */

/* Each second, when the sampler's values are in. */
void rules_second(struct rules *rules);
/* Of these `context` is the struct rules. From the collector: what cannot be read is said, and the
 * old rules stay. */
void rules_piece(void *context, const trawl_v1_RulePiece *piece);
void rules_on_process(void *context, const struct os_process_change *change);
void rules_on_exception(void *context, const trawl_v1_Exception *exception);

#endif
