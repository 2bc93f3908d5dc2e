/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step: values, truth of every term, of every condition, and what follows for every rule.
 * Three-valued: what is unknown decides only where nothing that is known decides (`true or unknown`
 * is true). Invariant: a rule goes FIRED or SUPPRESSED, then QUIET, in turns. Called by whoever
 * owns the engine, through rule_engine_step().
 */
#include "rule/engine_private.h"

#include <string.h>

#include "common/text.h"

/* ---- terms ---- */

const struct cell *term_culprit(const struct term_state *t)
{
    const struct cell *best = NULL;
    for (uint32_t i = 0; i < t->cell_count; i++) {
        const struct cell *c = &t->cells[i];
        if (c->now == TRUE && (!best || c->since_us < best->since_us))
            best = c;
    }
    return best;
}

/*
 * Of several series one suffices. A series without a value says nothing, as long as another has
 * one; but one that was true a moment ago may be so still.
 */
static void term_cells(struct term_state *t)
{
    struct outcome o = {UNKNOWN, UNKNOWN, 0};
    uint64_t true_us = UINT64_MAX, false_us = 0;
    bool is_true = false, is_false = false, is_doubtful = false, holds = false;
    for (uint32_t i = 0; i < t->cell_count; i++) {
        const struct cell *c = &t->cells[i];
        if (c->now == TRUE) {
            is_true = true;
            true_us = c->since_us < true_us ? c->since_us : true_us;
        } else if (c->now == FALSE) {
            is_false = true;
            false_us = c->since_us > false_us ? c->since_us : false_us;
        } else {
            is_doubtful |= c->truth == TRUE;
        }
        holds |= c->hold == TRUE;
    }
    bool is_known = is_true || (is_false && !is_doubtful);
    if (is_known) {
        o.truth = is_true ? TRUE : FALSE;
        o.since_us = is_true ? true_us : false_us;
    }
    o.hold = holds ? TRUE : is_known ? FALSE : UNKNOWN;
    t->out = o;
}

void term_step(struct rule_engine *e, struct term_state *t, uint64_t step_us, uint64_t dead_us)
{
    enum rule_term_kind kind = t->term->kind;
    if (kind != RULE_COUNTER && kind != RULE_RATIO && kind != RULE_AGO) {
        term_happen(e, t, dead_us);
        return;
    }
    for (uint32_t i = 0; i < t->base_count; i++)
        (void)reading_step(&t->bases[i], e->moment);
    for (uint32_t i = 0; i < t->cell_count; i++)
        cell_step(e, t, &t->cells[i], step_us, dead_us);
    term_cells(t);
}

/* ---- conditions ---- */

static enum truth invert(enum truth truth)
{
    return truth == TRUE ? FALSE : truth == FALSE ? TRUE : UNKNOWN;
}

/* `strong` decides alone: FALSE of `and`, TRUE of `or`. */
static enum truth join(enum truth a, enum truth b, enum truth strong)
{
    if (a == strong || b == strong)
        return strong;
    return a == UNKNOWN || b == UNKNOWN ? UNKNOWN : a;
}

/* One that decides alone has done so since the earlier one; what needs both, since the later one.
 */
static uint64_t join_since(struct outcome a, struct outcome b, enum truth strong)
{
    if (a.truth == strong && b.truth == strong)
        return a.since_us < b.since_us ? a.since_us : b.since_us;
    if (a.truth == strong)
        return a.since_us;
    if (b.truth == strong)
        return b.since_us;
    return a.since_us > b.since_us ? a.since_us : b.since_us;
}

struct outcome node_outcome(const struct rule_engine *e, size_t rule, uint16_t at)
{
    const struct rule_node *n = &e->set->rules[rule].nodes[at];
    if (n->op == RULE_TERM)
        return e->terms[e->rules[rule].first_term + n->left].out;
    struct outcome a = node_outcome(e, rule, n->left);
    if (n->op == RULE_NOT)
        return (struct outcome){invert(a.truth), invert(a.hold), a.since_us};
    struct outcome b = node_outcome(e, rule, n->right);
    enum truth strong = n->op == RULE_AND ? FALSE : TRUE;
    return (struct outcome){join(a.truth, b.truth, strong), join(a.hold, b.hold, strong),
                            join_since(a, b, strong)};
}

/* ---- rules ---- */

/* Whose process it is: the first term that is true of one. */
static void find_process(const struct rule_engine *e, size_t rule, struct rule_decision *d)
{
    const struct rule *r = &e->set->rules[rule];
    for (uint32_t i = 0; i < r->term_count && !d->pid; i++) {
        const struct term_state *t = &e->terms[e->rules[rule].first_term + i];
        const struct cell *c = term_culprit(t);
        const struct watched *w = t->watched ? term_watched(t) : NULL;
        const char *name = c && c->r.pid ? c->r.instance : w ? w->name : t->process;
        uint32_t pid = c && c->r.pid ? c->r.pid : w ? w->pid : t->pid;
        if (t->out.truth != TRUE || !*name || (*r->of && !text_glob(r->of, name)))
            continue;
        (void)text_copy(d->process, sizeof d->process, name);
        d->pid = pid;
    }
    if (*r->of && !d->pid)
        (void)text_copy(d->process, sizeof d->process, r->of);
}

static void decide(struct rule_engine *e, size_t rule, enum rule_verdict verdict, uint64_t since_us)
{
    struct rule_decision d = {.verdict = verdict,
                              .rule = &e->set->rules[rule],
                              .mono_us = e->moment->mono_us,
                              .since_us = since_us};
    if (verdict == RULE_FIRED || verdict == RULE_SUPPRESSED) {
        find_process(e, rule, &d);
        sentence_fired(e, rule, since_us, d.mono_us, d.sentence, sizeof d.sentence);
    } else if (verdict == RULE_BLIND) {
        sentence_blind(e, rule, d.sentence, sizeof d.sentence);
    } else {
        sentence_state(e, rule, d.sentence, sizeof d.sentence);
    }
    e->decided(e->context, &d);
}

static void judge_sight(struct rule_engine *e, size_t rule, enum truth truth)
{
    struct rule_state *s = &e->rules[rule];
    uint64_t now_us = e->moment->mono_us;
    if (truth != UNKNOWN) {
        bool was_blind = s->is_blind;
        s->is_unknown = s->is_blind = false;
        if (was_blind)
            decide(e, rule, RULE_SEES, s->unknown_us);
        return;
    }
    if (!s->is_unknown)
        s->unknown_us = now_us;
    s->is_unknown = true;
    if (s->is_blind || now_us - s->unknown_us < RULE_BLIND_US)
        return;
    s->is_blind = true;
    decide(e, rule, RULE_BLIND, s->unknown_us);
}

static void begin(struct rule_engine *e, size_t rule, uint64_t since_us)
{
    struct rule_state *s = &e->rules[rule];
    const struct rule *r = &e->set->rules[rule];
    int64_t now_us = (int64_t)e->moment->mono_us;
    bool may = account_used(s->account, now_us, r->limit_us) < r->limit;
    s->account->is_firing = true;
    s->is_false = false;
    s->fired_us = e->moment->mono_us;
    if (may) {
        account_add(s->account, now_us);
        s->total++;
    } else {
        s->suppressed++;
    }
    e->revision++;
    decide(e, rule, may ? RULE_FIRED : RULE_SUPPRESSED, since_us);
}

static uint64_t quiet_after_us(const struct rule *r)
{
    uint64_t us = (uint64_t)r->for_us;
    return us < RULE_QUIET_MIN_US   ? RULE_QUIET_MIN_US
           : us > RULE_QUIET_MAX_US ? RULE_QUIET_MAX_US
                                    : us;
}

static void judge_end(struct rule_engine *e, size_t rule, enum truth hold)
{
    struct rule_state *s = &e->rules[rule];
    uint64_t now_us = e->moment->mono_us;
    if (hold != FALSE) {
        s->is_false = false;
        return;
    }
    if (!s->is_false || e->dead_us)
        s->false_us = now_us;
    s->is_false = true;
    if (now_us - s->false_us < quiet_after_us(&e->set->rules[rule]))
        return;
    s->account->is_firing = false;
    e->revision++;
    decide(e, rule, RULE_QUIET, s->fired_us);
}

static void judge(struct rule_engine *e, size_t rule)
{
    const struct rule *r = &e->set->rules[rule];
    struct outcome o = node_outcome(e, rule, r->root);
    uint64_t now_us = e->moment->mono_us;
    judge_sight(e, rule, o.truth);
    if (e->rules[rule].account->is_firing)
        judge_end(e, rule, o.hold);
    else if (o.truth == TRUE && now_us >= o.since_us && now_us - o.since_us >= (uint64_t)r->for_us)
        begin(e, rule, o.since_us);
}

int rule_engine_step(struct rule_engine *e, const struct rule_moment *moment)
{
    if (e->has_stepped && moment->mono_us <= e->last_us)
        return ERR_INVALID;
    uint64_t step_us = e->has_stepped ? moment->mono_us - e->last_us : 0;
    uint64_t dead_us = step_us > RULE_STEP_MAX_US ? step_us : 0;
    e->dead_us = dead_us;
    e->moment = moment;
    for (size_t i = 0; i < e->set->term_count; i++)
        term_step(e, &e->terms[i], step_us, dead_us);
    for (size_t i = 0; i < e->set->count; i++)
        judge(e, i);
    e->moment = NULL;
    e->has_stepped = true;
    e->last_us = moment->mono_us;
    return 0;
}
