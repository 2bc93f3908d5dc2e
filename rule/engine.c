/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, closing, other rules, accounts of limits, and how a rule stands. See engine.h. */
#include "rule/engine_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

_Static_assert(ACCOUNTS_MAX >= 2 * RULES_MAX, "old rules and new ones have accounts together");

/* ---- accounts ---- */

uint32_t account_used(const struct account *a, int64_t now_us, int64_t window_us)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < a->count; i++)
        used += a->fired_us[i] > now_us - window_us;
    return used;
}

void account_add(struct account *a, int64_t fired_us)
{
    if (a->count == RULE_LIMIT_MAX) {
        memmove(a->fired_us, a->fired_us + 1, (RULE_LIMIT_MAX - 1) * sizeof a->fired_us[0]);
        a->count--;
    }
    a->fired_us[a->count++] = fired_us;
}

/* The one that can be missed best: not used, and fired longest ago. */
static size_t find_spare(const struct rule_engine *e)
{
    size_t best = SIZE_MAX;
    int64_t best_us = INT64_MAX;
    for (size_t i = 0; i < e->account_count; i++) {
        const struct account *a = e->accounts[i];
        int64_t last_us = a->count ? a->fired_us[a->count - 1] : INT64_MIN;
        if (a->is_used || (best != SIZE_MAX && last_us >= best_us))
            continue;
        best = i;
        best_us = last_us;
    }
    return best;
}

struct account *engine_account(struct rule_engine *e, const char *name)
{
    for (size_t i = 0; i < e->account_count; i++)
        if (strcmp(e->accounts[i]->name, name) == 0)
            return e->accounts[i];
    struct account *a;
    if (e->account_count == ACCOUNTS_MAX) {
        size_t spare = find_spare(e);
        if (spare == SIZE_MAX)
            return NULL;
        a = e->accounts[spare];
    } else {
        a = malloc(sizeof *a);
        if (!a)
            return NULL;
        e->accounts[e->account_count++] = a;
    }
    *a = (struct account){.count = 0};
    (void)text_copy(a->name, sizeof a->name, name);
    return a;
}

/* ---- terms and rules ---- */

void terms_done(struct term_state *terms, size_t count)
{
    for (size_t i = 0; terms && i < count; i++) {
        struct term_state *t = &terms[i];
        for (uint32_t k = 0; k < t->cell_count; k++) {
            free(t->cells[k].window);
            free(t->cells[k].r.instance);
        }
        for (uint32_t k = 0; k < t->base_count; k++)
            free(t->bases[k].instance);
        free(t->cells);
        free(t->bases);
        free(t->times);
        free(t->watched);
    }
    free(terms);
}

static int term_init(struct term_state *t, const struct rule_term *term)
{
    bool has_times =
        term->kind == RULE_EXCEPTION || term->kind == RULE_LOG || term->kind == RULE_RESTARTED;
    bool has_watched = term->kind == RULE_THREADS || term->kind == RULE_LOOP;
    t->term = term;
    t->limit = rule_number_value(&term->limit);
    t->until = rule_number_value(&term->until);
    t->name_hash = engine_hash(term->name);
    t->other_hash = engine_hash(term->other);
    if (has_times)
        t->times = calloc(term->times, sizeof *t->times);
    if (has_watched)
        t->watched = calloc(TERM_PROCESSES, sizeof *t->watched);
    return (has_times && !t->times) || (has_watched && !t->watched) ? ERR_NOMEM : 0;
}

static int make_terms(const struct rule_set *set, struct term_state **out)
{
    struct term_state *terms = calloc(set->term_count + 1, sizeof *terms);
    int r = terms ? 0 : ERR_NOMEM;
    for (size_t i = 0; !r && i < set->term_count; i++)
        r = term_init(&terms[i], &set->terms[i]);
    if (r)
        terms_done(terms, terms ? set->term_count : 0);
    else
        *out = terms;
    return r;
}

static const struct rule_state *old_state(const struct rule_engine *e, const struct account *a)
{
    for (size_t i = 0; e->rules && i < e->set->count; i++)
        if (e->rules[i].account == a)
            return &e->rules[i];
    return NULL;
}

/* What a rule brings with it from before: all that it was, or only what counts against it. */
static void inherit(struct rule_engine *e, struct rule_state *s, uint64_t fingerprint)
{
    const struct rule_state *before = old_state(e, s->account);
    bool is_same = before && s->account->fingerprint == fingerprint;
    if (is_same) {
        s->fired_us = before->fired_us;
        s->suppressed = before->suppressed;
        s->total = before->total;
    } else {
        s->account->is_firing = false;
        s->account->fingerprint = fingerprint;
    }
}

static int make_rules(struct rule_engine *e, const struct rule_set *set, struct rule_state **out)
{
    struct rule_state *rules = calloc(set->count + 1, sizeof *rules);
    uint32_t term = 0;
    if (!rules)
        return ERR_NOMEM;
    for (size_t i = 0; i < set->count; i++) {
        rules[i].account = engine_account(e, set->rules[i].name);
        if (!rules[i].account) {
            free(rules);
            return ERR_NOMEM;
        }
        rules[i].account->is_used = true; /* so that none of these makes room for the next */
        rules[i].first_term = term;
        term += set->rules[i].term_count;
    }
    *out = rules;
    return 0;
}

/* Nothing fails from here on. */
static void take(struct rule_engine *e, struct rule_set *set, struct term_state *terms,
                 struct rule_state *rules)
{
    for (size_t i = 0; i < e->account_count; i++)
        e->accounts[i]->is_used = false;
    for (size_t i = 0; i < set->count; i++) {
        rules[i].account->is_used = true;
        inherit(e, &rules[i], rule_fingerprint(set, &set->rules[i]));
    }
    for (size_t i = 0; i < e->account_count; i++)
        e->accounts[i]->is_firing &= e->accounts[i]->is_used;
    if (e->set)
        terms_done(e->terms, e->set->term_count);
    free(e->rules);
    rule_set_close(e->set);
    e->set = set;
    e->terms = terms;
    e->rules = rules;
    e->cell_count = e->window_count = 0;
    e->cpus_slot = SLOT_NONE;
    e->processes_known = false;
    memset(e->used, 0, sizeof e->used);
    e->revision++;
}

int rule_engine_replace(struct rule_engine *e, struct rule_set *set)
{
    struct term_state *terms = NULL;
    struct rule_state *rules = NULL;
    int r = make_terms(set, &terms);
    if (!r) {
        r = make_rules(e, set, &rules);
        if (r)
            terms_done(terms, set->term_count);
    }
    if (r)
        rule_set_close(set);
    else
        take(e, set, terms, rules);
    return r;
}

int rule_engine_open(struct rule_engine **out, struct rule_set *set, rule_decided_fn decided,
                     void *context)
{
    struct rule_engine *e = calloc(1, sizeof *e);
    if (e)
        e->accounts = calloc(ACCOUNTS_MAX, sizeof(struct account *));
    if (!e || !e->accounts) {
        free(e);
        rule_set_close(set);
        return ERR_NOMEM;
    }
    e->decided = decided;
    e->context = context;
    int r = rule_engine_replace(e, set);
    if (r)
        rule_engine_close(e);
    else
        *out = e;
    return r;
}

void rule_engine_close(struct rule_engine *e)
{
    if (!e)
        return;
    if (e->set)
        terms_done(e->terms, e->set->term_count);
    for (size_t i = 0; i < e->account_count; i++)
        free(e->accounts[i]);
    free(e->accounts);
    free(e->rules);
    rule_set_close(e->set);
    free(e);
}

const struct rule_set *rule_engine_set(const struct rule_engine *e)
{
    return e->set;
}

/* ---- to be shown ---- */

void rule_engine_status(const struct rule_engine *e, size_t rule, struct rule_status *out)
{
    const struct rule_state *s = &e->rules[rule];
    *out = (struct rule_status){.is_firing = s->account->is_firing,
                                .is_blind = s->is_blind,
                                .suppressed = s->suppressed,
                                .total = s->total};
    out->fired = account_used(s->account, (int64_t)e->last_us, e->set->rules[rule].limit_us);
    sentence_state(e, rule, out->sentence, sizeof out->sentence);
}
