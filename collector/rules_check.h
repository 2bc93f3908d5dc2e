/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file of rules is looked at for besides its language: the counters that hosts have sent,
 * and conditions that agents tell their engine. Private to rules.c and its check.
 */
#ifndef TRAWL_COLLECTOR_RULES_CHECK_H
#define TRAWL_COLLECTOR_RULES_CHECK_H

#include "rule/language.h"

#define RULES_FILE_MAX (60u << 10) /* as RuleFile.text */
#define RULES_KNOWN_MAX 1024

struct collector;

/* Counters that exist in the fleet, each once: of as many hosts as it takes to find those that
 * `set` names. None: no host has sent any so far. */
struct rules_known {
    struct rule_counter *counters;
    size_t count;
    char *texts;
};
void rules_known_read(struct rules_known *known, struct collector *c, const struct rule_set *set);
void rules_known_done(struct rules_known *known); /* a zeroed struct is fine */

/* ERR_INVALID, with the line: a condition of a kind that agents do not tell. */
int rules_check(const struct rule_set *set, struct failure *f);

#endif
