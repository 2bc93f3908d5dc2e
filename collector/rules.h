/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of the fleet: one file, kept with a version in partition "rules" (keys.h), and each
 * agent told those whose selector names its host. Invariant: what is kept was read without an
 * error, and agents are told of a change only when it is committed; a file that is refused changes
 * nothing. Loop thread; asked by ops_rules.c, fleet.c, firings.c.
 */
#ifndef TRAWL_COLLECTOR_RULES_H
#define TRAWL_COLLECTOR_RULES_H

#include "collector/roster.h"
#include "collector/store.h"
#include "proto/codec.h"
#include "rule/language.h"

struct rules;
struct collector;

/* Reads what was stored. What is damaged is not given to agents: they go by what they have. */
int rules_open(struct rules **out, struct collector *c, struct failure *f);
void rules_close(struct rules *rules); /* NULL is fine */

/* Fills all but any_counter. The struct is 61 KB: the caller's, not on a stack. */
void rules_view(const struct rules *rules, trawl_v1_RuleFile *out);

/*
 * Another file, as `who`; then `done`, then agents are told. ERR_INVALID: "line 4: unknown counter
 * ..."; ERR_LIMIT: too long, too many; ERR_BUSY: another change is on its way. `any_counter`: names
 * of counters are not looked up in what hosts have sent.
 */
int rules_set(struct rules *rules, struct span text, bool any_counter, const char *who,
              store_done_fn done, void *context, struct failure *f);
/* Without the rules of these names, all or none. ERR_NOTFOUND, with the nearest name. */
int rules_remove(struct rules *rules, const trawl_v1_RuleNames *names, const char *who,
                 store_done_fn done, void *context, struct failure *f);

/* An agent was welcomed. */
void rules_host_here(struct rules *rules, struct host *host);
/* Its labels are others now. */
void rules_host_changed(struct rules *rules, struct host *host);
/* Once a second: tells agents that a change did not reach yet. */
void rules_tick(struct rules *rules);

/* The rule of this name, if it is meant for the host; NULL. Borrowed until the loop goes on. */
const struct rule *rules_for(const struct rules *rules, const struct host *host, const char *name);

#endif
