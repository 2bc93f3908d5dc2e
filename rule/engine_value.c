/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From samples to values, and from values to truth: levels, rates, changes over a minute or an
 * hour, ratios, and what it was some time ago. Invariant: whatever cannot be told from the samples
 * is UNKNOWN with a reason (enum lack). Called by engine_judge.c, once a second for each cell.
 */
#include "rule/engine_private.h"

#include <math.h>

#define SECOND 1e6

bool compare(double value, enum rule_compare how, double limit)
{
    switch (how) {
    case RULE_ABOVE:
        return value > limit;
    case RULE_AT_LEAST:
        return value >= limit;
    case RULE_BELOW:
        return value < limit;
    default:
        return value <= limit;
    }
}

/* ---- readings ---- */

static int64_t raw_value(const struct rule_moment *m, uint32_t slot)
{
    return slot < m->count ? m->values[slot] : RULE_GAP;
}

/* As far as the difference of two 64-bit numbers goes; a count's never falls. */
static double difference(int64_t now, int64_t before)
{
    return now >= before ? (double)((uint64_t)now - (uint64_t)before)
                         : -(double)((uint64_t)before - (uint64_t)now);
}

enum lack reading_step(struct reading *r, const struct rule_moment *m)
{
    int64_t raw = raw_value(m, r->slot);
    r->has_value = r->has_rate = r->has_fallen = false;
    if (raw == RULE_GAP)
        return LACK_GAP;
    uint64_t past_us = m->mono_us - r->last_us;
    bool has_past = r->has_last && past_us > 0 && past_us <= RULE_HOLD_US;
    r->has_fallen = r->is_count && r->has_last && raw < r->last;
    if (has_past && !r->has_fallen) {
        r->rate = difference(raw, r->last) / r->scale / ((double)past_us / SECOND);
        r->has_rate = true;
    }
    r->value = r->is_count ? r->rate : (double)raw / r->scale;
    r->has_value = !r->is_count || r->has_rate;
    r->has_last = true;
    r->last = raw;
    r->last_us = m->mono_us;
    return r->has_value ? LACK_NONE : r->has_fallen ? LACK_FELL : LACK_FIRST;
}

/* ---- what it was ---- */

static const struct point *point(const struct window *w, uint32_t number)
{
    return &w->at[number % WINDOW_POINTS];
}

/* The newest point that is `age_us` old, give or take a bucket; NULL: there is none. */
static const struct point *window_look(struct window *w, uint64_t now_us, uint64_t age_us)
{
    uint32_t first = w->next - w->count;
    uint64_t least_us = age_us - w->bucket_us / 4;
    if (w->has_old && w->next - w->old > w->count)
        w->has_old = false; /* overwritten */
    uint32_t number = w->has_old ? w->old + 1 : first;
    for (; number != w->next && now_us - point(w, number)->mono_us >= least_us; number++) {
        w->old = number;
        w->has_old = true;
    }
    if (!w->has_old || now_us - point(w, w->old)->mono_us > age_us + 2 * w->bucket_us)
        return NULL;
    return point(w, w->old);
}

static void window_push(struct window *w, int64_t raw, uint64_t now_us)
{
    if (w->count > 0 && now_us - point(w, w->next - 1)->mono_us < w->bucket_us * 3 / 4)
        return;
    w->at[w->next % WINDOW_POINTS] = (struct point){raw, now_us};
    w->next++;
    if (w->count < WINDOW_POINTS)
        w->count++;
}

static void window_clear(struct window *w)
{
    w->count = 0;
    w->has_old = false;
}

/* How fast it rose between two points that lie next to each other. */
static enum lack rate_between(const struct window *w, const struct point *a, int64_t raw,
                              uint64_t mono_us, double scale, double *out)
{
    uint64_t past_us = mono_us - a->mono_us;
    if (past_us == 0 || past_us > 3 * w->bucket_us)
        return LACK_YOUNG;
    *out = difference(raw, a->raw) / scale / ((double)past_us / SECOND);
    return LACK_NONE;
}

/* Of a count, rates over a bucket are compared: those of single seconds would be noise. */
static enum lack ago_of_count(struct cell *c, const struct point *then, uint64_t now_us,
                              double *was)
{
    struct window *w = c->window;
    if (w->count < 3 || w->next - w->old >= w->count)
        return LACK_YOUNG; /* nothing before it */
    enum lack lack =
        rate_between(w, point(w, w->old - 1), then->raw, then->mono_us, c->r.scale, was);
    if (lack == LACK_NONE)
        lack = rate_between(w, point(w, w->next - 2), c->r.last, now_us, c->r.scale, &c->value);
    return lack;
}

static enum lack look_ago(const struct term_state *t, struct cell *c, uint64_t now_us)
{
    double was;
    enum lack lack = LACK_NONE;
    const struct point *then = window_look(c->window, now_us, (uint64_t)t->term->window_us);
    if (!then)
        return LACK_YOUNG;
    if (c->r.is_count) {
        lack = ago_of_count(c, then, now_us, &was);
        if (lack != LACK_NONE)
            return lack;
    } else {
        was = (double)then->raw / c->r.scale;
        c->value = c->r.value;
    }
    if (!(was > 0))
        return LACK_ZERO;
    c->line = was;
    return LACK_NONE;
}

static enum lack look_change(struct cell *c, uint64_t now_us)
{
    const struct point *then =
        window_look(c->window, now_us, WINDOW_BUCKETS * c->window->bucket_us);
    if (!then)
        return LACK_YOUNG;
    c->value = difference(c->r.last, then->raw) / c->r.scale;
    return LACK_NONE;
}

static enum lack look_window(const struct rule_engine *e, const struct term_state *t,
                             struct cell *c, enum lack lack)
{
    uint64_t now_us = e->moment->mono_us;
    if (!c->window)
        return LACK_WINDOWS;
    if (lack == LACK_GAP)
        return lack;
    if (c->r.has_fallen)
        window_clear(c->window);
    enum lack found = c->r.has_fallen       ? LACK_FELL
                      : c->form == FORM_AGO ? look_ago(t, c, now_us)
                                            : look_change(c, now_us);
    window_push(c->window, c->r.last, now_us);
    return found;
}

/* ---- the other forms ---- */

static enum lack look_rate(const struct rule_engine *e, const struct term_state *t, struct cell *c)
{
    if (!c->r.has_rate)
        return c->r.has_fallen ? LACK_FELL : LACK_FIRST;
    c->value = c->r.rate;
    if (t->term->limit.unit == RULE_PERCENT)
        c->value /= SECOND; /* microseconds in a second, as a share */
    if (!c->by_cpus)
        return LACK_NONE;
    int64_t cpus = e->cpus_slot == SLOT_NONE ? RULE_GAP : raw_value(e->moment, e->cpus_slot);
    if (cpus == RULE_GAP || cpus <= 0)
        return LACK_CPUS;
    c->value /= (double)cpus / e->cpus_scale;
    return LACK_NONE;
}

static enum lack look_ratio(const struct term_state *t, struct cell *c)
{
    if (c->base < 0 || !t->bases[c->base].has_value)
        return LACK_OTHER;
    double below = t->bases[c->base].value;
    if (below == 0)
        return LACK_ZERO;
    c->value = c->r.value / below;
    return LACK_NONE;
}

static enum lack look(const struct rule_engine *e, const struct term_state *t, struct cell *c)
{
    enum lack lack = reading_step(&c->r, e->moment);
    switch (c->form) {
    case FORM_LEVEL:
        c->value = c->r.value;
        return lack;
    case FORM_RATE:
        return lack == LACK_GAP ? lack : look_rate(e, t, c);
    case FORM_RATIO:
        return lack != LACK_NONE ? lack : look_ratio(t, c);
    case FORM_CHANGE:
    case FORM_AGO:
        return look_window(e, t, c, lack);
    default:
        return LACK_WRONG;
    }
}

/* ---- truth ---- */

static void cell_unknown(struct cell *c, uint64_t now_us, uint64_t step_us)
{
    c->now = c->hold = UNKNOWN;
    if (c->truth == UNKNOWN)
        return;
    if (now_us - c->seen_us > RULE_HOLD_US)
        c->truth = UNKNOWN;
    else
        c->since_us += step_us;
}

static void cell_known(const struct term_state *t, struct cell *c, uint64_t now_us,
                       uint64_t unknown_us)
{
    const struct rule_term *term = t->term;
    bool is_ago = c->form == FORM_AGO;
    bool is_true = compare(c->value, term->compare, is_ago ? c->line * t->limit : t->limit);
    enum truth truth = is_true ? TRUE : FALSE;
    if (c->truth != UNKNOWN && now_us - c->seen_us > RULE_HOLD_US)
        c->truth = UNKNOWN;
    c->since_us += unknown_us;
    if (c->truth != truth)
        c->since_us = now_us;
    c->truth = c->now = c->hold = truth;
    c->seen_us = now_us;
    if (term->has_until)
        c->hold = compare(c->value, term->until_compare, is_ago ? c->line * t->until : t->until)
                      ? FALSE
                      : TRUE;
}

void cell_step(struct rule_engine *e, struct term_state *t, struct cell *c, uint64_t step_us,
               uint64_t dead_us)
{
    c->lack = look(e, t, c);
    if (c->lack == LACK_NONE)
        /* From the last value that was missing until now nothing is known either. */
        cell_known(t, c, e->moment->mono_us, c->now == UNKNOWN ? step_us : dead_us);
    else
        cell_unknown(c, e->moment->mono_us, step_us);
}
