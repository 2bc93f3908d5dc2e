/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rules would have done, from what is stored: series of one host on their grids and its
 * exceptions go through the engine that the agent has, second by second. Pure. Invariant: a second
 * without a sample is a gap to the engine, as it was to the agent. Used by cmd_rules_test.c.
 */
#ifndef TRAWL_CLI_RULES_REPLAY_H
#define TRAWL_CLI_RULES_REPLAY_H

#include "cli/series.h"
#include "rule/engine.h"

struct replay_event {
    int64_t at_us; /* collector time */
    struct rule_event event;
};

struct replay {
    const char *host;
    const struct series_set *series; /* those of other hosts are not looked at; sorted */
    const struct replay_event *events;
    size_t event_count; /* by time */
    int64_t from_us, to_us;
};

/* A decision, with the moment in collector time. */
typedef void (*replay_fn)(void *context, int64_t at_us, const struct rule_decision *decision);

/* Takes `set` (also when it fails). ERR_NOMEM, ERR_LIMIT (more series than an engine looks at). */
int replay_run(const struct replay *replay, struct rule_set *set, replay_fn decided, void *context);

#endif
