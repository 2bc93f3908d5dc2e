/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two files of rules in the state directory: "rules" (what the collector sent) and
 * "rules.limits" (what counts against limits). Invariant: each is replaced whole. Private to
 * rules.c.
 */
#ifndef TRAWL_AGENT_RULES_KEEP_H
#define TRAWL_AGENT_RULES_KEEP_H

#include "agent/state.h"
#include "common/clock.h"
#include "rule/engine.h"

#define RULES_TEXT_MAX (64u << 10)

/* ERR_NOTFOUND: none were kept. Appends the text. */
int rules_keep_read(const struct state *state, uint64_t *version, struct buf *text,
                    struct failure *f);
int rules_keep_write(const struct state *state, uint64_t version, struct span text,
                     struct failure *f);

/* The engine's record with its time; gives it back to an engine that made no step yet. */
int rules_keep_limits(const struct state *state, const struct rule_engine *engine,
                      struct clock *clock, const char *boot_id, struct failure *f);
/* ERR_NOTFOUND: none was kept. On other errors every limit counts as used up. */
int rules_keep_restore(const struct state *state, struct rule_engine *engine, struct clock *clock,
                       const char *boot_id, struct failure *f);

#endif
