/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conditions on counters: NAME [of INSTANCE] [/ OTHER [of INSTANCE]] > LIMIT [10m ago] [until <
 * LIMIT]. Invariant: what no counter could mean is refused here; what a counter of this kind cannot
 * mean is refused by rule_term_misfit(), here when the counters are known, else by the engine.
 * Called by parse_condition.c.
 */
#include "rule/parse_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define AGO_MIN_US INT64_C(60000000)
#define AGO_MAX_US INT64_C(3600000000)

static const char *const compares[] = {"", ">", ">=", "<", "<="};

const char *rule_compare_word(enum rule_compare compare)
{
    return compares[compare];
}

int parse_compare(struct parser *p, enum rule_compare *out)
{
    const struct token *t = parse_peek(p);
    if (t->kind != TOKEN_COMPARE)
        return parse_expected(p, "a comparison: '>', '>=', '<' or '<='");
    for (size_t i = 1; i < sizeof compares / sizeof compares[0]; i++)
        if (strcmp(t->text, compares[i]) == 0)
            *out = (enum rule_compare)i;
    p->at++;
    return 0;
}

/* ---- names ---- */

static const struct rule_counter *find_known(const struct parser *p, const char *name)
{
    for (size_t i = 0; i < p->known->count; i++)
        if (strcmp(p->known->list[i].name, name) == 0)
            return &p->known->list[i];
    return NULL;
}

static int unknown_counter(struct parser *p, const struct token *t)
{
    char hint[PARSE_HINT_SIZE] = "";
    const char **names = calloc(p->known->count + 1, sizeof *names);
    if (!names)
        return fail(p->f, ERR_NOMEM, "out of memory for rules");
    for (size_t i = 0; i < p->known->count; i++)
        names[i] = p->known->list[i].name;
    parse_hint(t->text, names, hint, sizeof hint);
    free(names);
    return parse_fail(p, t, "unknown counter '%s'%s", t->text,
                      hint[0] ? hint : ": trawl counters lists what there is");
}

static int parse_counter_name(struct parser *p, const char **name, const char **of)
{
    const struct token *t = parse_peek(p);
    int e = parse_name(p, "the name of a counter", name);
    if (e)
        return e;
    if (p->known && !find_known(p, *name))
        return unknown_counter(p, t);
    if (!parse_take(p, "of"))
        return 0;
    e = parse_name(p, "an instance, such as a disk or a process, behind 'of'", of);
    if (!e && strncmp(*name, "process.", 8) == 0)
        e = parse_interest(p, *of, RULE_WANTS_COUNTERS);
    return e;
}

/* ---- limits ---- */

static int parse_number(struct parser *p, struct rule_number *out)
{
    const struct token *t = parse_peek(p);
    if (t->kind != TOKEN_WORD)
        return parse_expected(p, "a number");
    if (t->is_quoted || rule_number_parse(t->text, out))
        return parse_fail(p, t,
                          "'%s' is no number: 90%%, 2G, 500ms, 100/s (in a second), 10M/m (in a "
                          "minute), 5/h, or 2x 10m ago would be right",
                          t->text);
    p->at++;
    return 0;
}

static bool is_upward(enum rule_compare compare)
{
    return compare == RULE_ABOVE || compare == RULE_AT_LEAST;
}

static int check_until(struct parser *p, const struct token *at, const struct rule_term *t)
{
    if (p->inside_not)
        return parse_fail(p, at,
                          "'until' has no meaning under 'not': turn the comparison round "
                          "instead");
    if ((t->until.unit == RULE_X) != (t->limit.unit == RULE_X) ||
        (t->until.unit == RULE_PERCENT) != (t->limit.unit == RULE_PERCENT) ||
        t->until.per != t->limit.per)
        return parse_fail(p, at, "the number behind 'until' must be of the same kind as the limit");
    if (is_upward(t->compare) == is_upward(t->until_compare))
        return parse_fail(p, at, "'until' goes the other way: '%s' ends with 'until %s'",
                          rule_compare_word(t->compare), is_upward(t->compare) ? "<" : ">");
    double limit = rule_number_value(&t->limit), until = rule_number_value(&t->until);
    if (is_upward(t->compare) ? until > limit : until < limit)
        return parse_fail(p, at,
                          "the number behind 'until' must be %s the limit, or the rule "
                          "would be over while it holds",
                          is_upward(t->compare) ? "below" : "above");
    return 0;
}

static int parse_until(struct parser *p, struct rule_term *t)
{
    const struct token *at = parse_peek(p);
    if (!parse_take(p, "until"))
        return 0;
    t->has_until = true;
    int e = parse_compare(p, &t->until_compare);
    if (!e)
        e = parse_number(p, &t->until);
    return e ? e : check_until(p, at, t);
}

static int parse_ago(struct parser *p, struct rule_term *t, const struct token *at)
{
    if (t->kind == RULE_RATIO || t->limit.per != RULE_LEVEL)
        return parse_fail(p, at, "a factor stands alone: 'net.receive_bytes < 0.2x 10m ago'");
    if (t->limit.milli <= 0)
        return parse_fail(p, at, "a factor is above 0, as in '2x 10m ago'");
    t->kind = RULE_AGO;
    int e = parse_duration(p, "how long ago, such as '10m ago', behind a factor", AGO_MIN_US,
                           AGO_MAX_US, &t->window_us);
    return e ? e : parse_expect(p, "ago", "'ago'");
}

static int check_ratio(struct parser *p, const struct token *at, const struct rule_term *t)
{
    if (t->limit.per != RULE_LEVEL ||
        (t->limit.unit != RULE_PLAIN && t->limit.unit != RULE_PERCENT))
        return parse_fail(p, at, "a ratio is compared with a plain number or with '%%'");
    return 0;
}

static int check_limit(struct parser *p, const struct token *at, const struct rule_term *t)
{
    const struct rule_counter *known = p->known ? find_known(p, t->name) : NULL;
    if (t->kind == RULE_RATIO)
        return check_ratio(p, at, t);
    if (t->limit.unit == RULE_PERCENT && t->limit.per != RULE_LEVEL)
        return parse_fail(p, at,
                          "'%%' is a share of the time already: '10%%' with 'for 1m' would "
                          "be right");
    const char *misfit = known ? rule_term_misfit(t, known->unit, known->is_count) : NULL;
    return misfit ? parse_fail(p, at, "%s %s", t->name, misfit) : 0;
}

const char *rule_term_misfit(const struct rule_term *t, const char *unit, bool is_count)
{
    bool is_time = strcmp(unit, "us") == 0;
    if (t->kind != RULE_COUNTER)
        return NULL;
    if (t->limit.unit == RULE_PERCENT)
        return is_time && is_count ? NULL
                                   : "is no time, and has no '%': a ratio of two counters has, as "
                                     "in 'memory.available / memory.total < 10%'";
    if (is_count && t->limit.per == RULE_LEVEL)
        return is_time ? "only rises: '90%' (of the time) would be right"
                       : "only rises: '100/s', '10/m' or '5/h' would be right";
    if (t->limit.unit >= RULE_US && t->limit.unit <= RULE_H && !is_time)
        return "is no time: a number without 'us', 'ms', 's', 'm' or 'h' would be right";
    if (t->limit.unit >= RULE_KIB && t->limit.unit <= RULE_TIB && is_time)
        return "is a time: '500ms' would be right";
    return NULL;
}

/* ---- the whole ---- */

int parse_counter(struct parser *p, struct rule_term *t)
{
    t->kind = RULE_COUNTER;
    int e = parse_counter_name(p, &t->name, &t->of);
    if (!e && parse_take(p, "/")) {
        t->kind = RULE_RATIO;
        e = parse_counter_name(p, &t->other, &t->other_of);
    }
    if (!e)
        e = parse_compare(p, &t->compare);
    const struct token *at = parse_peek(p);
    if (!e)
        e = parse_number(p, &t->limit);
    if (!e && t->limit.unit == RULE_X)
        e = parse_ago(p, t, at);
    if (!e)
        e = check_limit(p, at, t);
    return e ? e : parse_until(p, t);
}
