/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a file of rules can be meant as it stands. Invariant: nothing is changed here. Called by
 * rules.c before a file is kept.
 */
#include "collector/rules_check.h"

#include <stdlib.h>
#include <string.h>

#include "collector/query.h"
#include "collector/roster.h"
#include "common/text.h"

#define NAME_SIZE 64
#define UNIT_SIZE 16
#define ENTRY_SIZE (NAME_SIZE + UNIT_SIZE)

/* ---- counters ---- */

struct gathering {
    struct rules_known *known;
    struct collector *collector;
    const struct rule_set *set;
};

static bool is_known(const struct rules_known *known, const char *name)
{
    for (size_t i = 0; i < known->count; i++)
        if (!strcmp(known->counters[i].name, name))
            return true;
    return !*name;
}

static bool all_are_known(const struct gathering *g)
{
    for (size_t i = 0; i < g->set->term_count; i++)
        if (!is_known(g->known, g->set->terms[i].name) ||
            !is_known(g->known, g->set->terms[i].other))
            return false;
    return true;
}

static int note_descriptor(void *context, const trawl_v1_Descriptor *d)
{
    struct rules_known *known = ((struct gathering *)context)->known;
    if (known->count == RULES_KNOWN_MAX || is_known(known, d->name))
        return 0;
    char *entry = known->texts + known->count * ENTRY_SIZE;
    text_copy(entry, NAME_SIZE, d->name);
    text_copy(entry + NAME_SIZE, UNIT_SIZE, d->unit);
    known->counters[known->count++] =
        (struct rule_counter){entry, entry + NAME_SIZE, d->kind == trawl_v1_Kind_COUNT};
    return 0;
}

static int note_host(void *context, struct host *host)
{
    struct gathering *g = context;
    struct failure ignored;
    (void)query_descriptors(g->collector, host, note_descriptor, g, &ignored);
    return all_are_known(g);
}

void rules_known_read(struct rules_known *known, struct collector *c, const struct rule_set *set)
{
    struct gathering g = {known, c, set};
    *known = (struct rules_known){.count = 0};
    known->counters = calloc(RULES_KNOWN_MAX, sizeof *known->counters);
    known->texts = calloc(RULES_KNOWN_MAX, ENTRY_SIZE);
    if (known->counters && known->texts)
        roster_each(c->roster, note_host, &g);
}

void rules_known_done(struct rules_known *known)
{
    free(known->counters);
    free(known->texts);
    *known = (struct rules_known){.count = 0};
}

/* ---- conditions ---- */

/* NULL: agents tell their engine what it takes. */
static const char *why_not(const struct rule_term *term)
{
    switch (term->kind) {
    case RULE_THREADS:
        return "agents do not count threads by state for rules: compare a counter of the process, "
               "or 'pressure.io.full'";
    case RULE_LOG:
        return "agents do not give lines of logs to rules: 'exception log-trace' means error "
               "traces in logs";
    case RULE_PROBE:
        return "agents do not ask probes for rules: set 'probe' on the host and write 'exception "
               "hang'";
    case RULE_LOOP:
        return "agents do not tell rules of event loops: write 'exception hang of PROCESS'";
    case RULE_COUNTER:
    case RULE_RATIO:
    case RULE_AGO:
    case RULE_NOT_RUNNING:
    case RULE_RESTARTED:
    case RULE_EXCEPTION:
    case RULE_TERM_KINDS:
        break;
    }
    return NULL;
}

int rules_check(const struct rule_set *set, struct failure *f)
{
    for (size_t i = 0; i < set->term_count; i++) {
        const char *why = why_not(&set->terms[i]);
        if (why)
            return fail(f, ERR_INVALID, "line %u: %s", (unsigned)set->terms[i].line, why);
    }
    return 0;
}
