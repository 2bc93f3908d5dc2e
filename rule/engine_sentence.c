/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rule saw, in words: "redis-server process.rss 3.1 GiB > 2 GiB for 30 s". Invariant: each
 * sentence has the value as it was compared and the limit in the same unit. Called by
 * engine_judge.c when a rule decides, and for its status.
 */
#include "rule/engine_private.h"

#include <math.h>
#include <string.h>

#include "common/text.h"

#define WORDS_MAX 4096
#define VALUE_SIZE 48

/* ---- values ---- */

/* "2.0 GiB" -> "2 GiB" */
static void tidy(char *text)
{
    char *zero = strstr(text, ".0 ");
    if (zero)
        memmove(zero, zero + 2, strlen(zero + 2) + 1);
}

static void put_plain(double v, char *out, size_t size_bytes)
{
    bool is_long = fabs(v) >= 1000 && fabs(v) < 1e15;
    (void)text_format(out, size_bytes, is_long ? "%.0f" : "%.3g", v);
}

static void put_value(double v, enum shown shown, bool is_percent, const char *per, char *out)
{
    char text[32] = "";
    double size = fabs(v);
    bool is_huge = !(size < 9e18);
    if (is_percent) {
        put_plain(v * 100, text, sizeof text);
        (void)text_format(out, VALUE_SIZE, "%s %%", text);
        return;
    }
    if (shown == SHOWN_BYTES && !is_huge) {
        text_put_size((uint64_t)size, text, sizeof text);
        tidy(text);
        (void)text_format(out, VALUE_SIZE, "%s%s%s", v < 0 ? "-" : "", text, per);
        return;
    }
    if (shown == SHOWN_TIME && !is_huge) {
        text_put_duration((int64_t)v, text, sizeof text);
        tidy(text);
    } else {
        put_plain(v, text, sizeof text);
    }
    (void)text_format(out, VALUE_SIZE, "%s%s", text, per);
}

static void put_span_us(uint64_t us, char *out, size_t size_bytes)
{
    text_put_duration(us > INT64_MAX ? INT64_MAX : (int64_t)us, out, size_bytes);
    tidy(out);
}

static const char *per_of(const struct cell *c, const struct rule_term *t)
{
    static const char *const pers[] = {"", "/s", "/m", "/h"};
    if (c->form == FORM_AGO)
        return c->r.is_count ? "/s" : "";
    return pers[t->limit.per];
}

/* ---- why not ---- */

static const char *gap_reason(const struct rule_engine *e, uint32_t slot)
{
    const struct rule_moment *m = e->moment;
    const char *reason = m && m->reason ? m->reason(m->context, slot) : NULL;
    return reason && *reason ? reason : "it has no value";
}

static void put_lack(const struct rule_engine *e, const struct rule_term *t, const struct cell *c,
                     struct buf *out)
{
    char span[32];
    put_span_us(t->kind == RULE_AGO          ? (uint64_t)t->window_us
                : t->limit.per == RULE_PER_H ? UINT64_C(3600000000)
                                             : UINT64_C(60000000),
                span, sizeof span);
    switch (c->lack) {
    case LACK_GAP:
        (void)buf_append_str(out, gap_reason(e, c->r.slot));
        break;
    case LACK_FELL:
        (void)buf_append_str(out, "it fell, so it began anew");
        break;
    case LACK_YOUNG:
        (void)buf_printf(out, "it has no value from %s ago", span);
        break;
    case LACK_OTHER:
        (void)buf_printf(out, "'%s' has no value", t->other);
        break;
    case LACK_ZERO:
        if (t->kind == RULE_RATIO)
            (void)buf_printf(out, "'%s' is 0", t->other);
        else
            (void)buf_printf(out, "it was 0 %s ago, which nothing compares with", span);
        break;
    case LACK_CPUS:
        (void)buf_append_str(out, "'cpu.count' has no value");
        break;
    case LACK_WINDOWS:
        (void)buf_printf(out, "more than %d series are compared over time", RULE_WINDOWS_MAX);
        break;
    case LACK_WRONG:
        (void)buf_append_str(out, c->misfit);
        break;
    default:
        (void)buf_append_str(out, "it was seen once only");
    }
}

/* ---- terms ---- */

static void put_counter_name(const struct rule_term *t, const struct cell *c, struct buf *out)
{
    const char *of = c ? c->r.instance : t->of;
    (void)buf_printf(out, "%s%s%s", of, *of ? " " : "", t->name);
    if (t->kind == RULE_RATIO)
        (void)buf_printf(out, " / %s", t->other);
}

static const struct cell *any_cell(const struct term_state *t)
{
    const struct cell *c = term_culprit(t);
    for (uint32_t i = 0; !c && i < t->cell_count; i++)
        if (t->cells[i].now != UNKNOWN)
            c = &t->cells[i];
    return c || !t->cell_count ? c : &t->cells[0];
}

static void put_compared(const struct term_state *t, const struct cell *c, struct buf *out)
{
    const struct rule_term *term = t->term;
    bool is_percent = term->limit.unit == RULE_PERCENT;
    enum shown shown = c->form == FORM_RATIO ? SHOWN_PLAIN : c->shown;
    char value[VALUE_SIZE], limit[VALUE_SIZE], span[32];
    put_value(c->value, shown, is_percent, per_of(c, term), value);
    (void)buf_printf(out, " %s%s %s ", value, c->now == TRUE ? "" : ", not",
                     rule_compare_word(term->compare));
    if (c->form != FORM_AGO) {
        put_value(t->limit, shown, is_percent, per_of(c, term), limit);
        (void)buf_append_str(out, limit);
        return;
    }
    rule_number_put(&term->limit, limit, sizeof limit);
    put_span_us((uint64_t)term->window_us, span, sizeof span);
    (void)buf_printf(out, "%s %s ago ", limit, span);
    put_value(c->line, shown, false, per_of(c, term), value);
    (void)buf_printf(out, "(%s)", value);
}

static void put_counter(const struct rule_engine *e, const struct term_state *t, struct buf *out)
{
    const struct cell *c = any_cell(t);
    put_counter_name(t->term, c, out);
    if (!c) {
        (void)buf_append_str(out, " is not there");
    } else if (c->now == UNKNOWN) {
        (void)buf_append_str(out, " is unknown: ");
        put_lack(e, t->term, c, out);
    } else {
        put_compared(t, c, out);
    }
}

static void put_times(const struct rule_term *t, struct buf *out)
{
    char span[32];
    if (t->times <= 1)
        return;
    put_span_us((uint64_t)t->window_us, span, sizeof span);
    (void)buf_printf(out, " %u times in %s", (unsigned)t->times, span);
}

static void put_exception(const struct rule_engine *e, const struct term_state *t, struct buf *out)
{
    if (t->out.truth != TRUE) {
        (void)buf_append_str(out, "no ");
        (void)rule_term_print(e->set, t->term, out);
        return;
    }
    (void)buf_printf(out, "exception %s%s%s", t->detail, *t->process ? " of " : "", t->process);
    put_times(t->term, out);
}

static void put_threads(const struct term_state *t, struct buf *out)
{
    const struct watched *w = term_watched(t);
    bool is_true = w != NULL;
    for (size_t i = 0; !w && i < TERM_PROCESSES; i++)
        w = t->watched[i].pid ? &t->watched[i] : NULL;
    if (!w) {
        (void)buf_printf(out, "threads of %s are unknown: they were not looked at", t->term->of);
        return;
    }
    (void)buf_printf(out, "%s threads in %s %u%s %s %lld", w->name, rule_state_word(t->term->state),
                     (unsigned)w->value, is_true ? "" : ", not",
                     rule_compare_word(t->term->compare), (long long)t->term->limit.milli / 1000);
}

static void put_probe(const struct rule_engine *e, const struct term_state *t, struct buf *out)
{
    const char *target = e->set->probes[t->term->probe].target;
    if (t->out.truth != UNKNOWN)
        (void)buf_printf(out, "%s %s", target,
                         t->out.truth == TRUE ? "does not answer" : "answers");
    else
        (void)buf_printf(out, "%s is unknown: %s", target,
                         *t->detail ? t->detail : "it was not asked yet");
}

static void put_process(const struct term_state *t, struct buf *out)
{
    const char *of = t->term->of;
    bool is_true = t->out.truth == TRUE;
    const struct watched *w;
    switch (t->term->kind) {
    case RULE_NOT_RUNNING:
        (void)buf_printf(out, "%s %s", of,
                         is_true                   ? "is not running"
                         : t->out.truth == UNKNOWN ? "is unknown: processes were not listed yet"
                                                   : "is running");
        return;
    case RULE_RESTARTED:
        (void)buf_printf(out, "%s %srestarted", is_true ? t->process : of, is_true ? "" : "not ");
        put_times(t->term, out);
        return;
    default:
        w = term_watched(t);
        (void)buf_printf(out, "event loop of %s %s", w ? w->name : of, w ? "stands still" : "goes");
    }
}

static void put_term(const struct rule_engine *e, const struct term_state *t, struct buf *out)
{
    const char *unavailable = e->unavailable[t->term->kind];
    if (unavailable) {
        (void)rule_term_print(e->set, t->term, out);
        (void)buf_printf(out, " is unknown: %s", unavailable);
        return;
    }
    switch (t->term->kind) {
    case RULE_COUNTER:
    case RULE_RATIO:
    case RULE_AGO:
        put_counter(e, t, out);
        break;
    case RULE_EXCEPTION:
        put_exception(e, t, out);
        break;
    case RULE_LOG:
        if (t->out.truth != TRUE)
            (void)buf_append_str(out, "no ");
        (void)rule_term_print(e->set, t->term, out);
        break;
    case RULE_THREADS:
        put_threads(t, out);
        break;
    case RULE_PROBE:
        put_probe(e, t, out);
        break;
    default:
        put_process(t, out);
    }
}

/* ---- conditions ---- */

/* Of what is true by `or`, the sides that are true; of all else, everything. */
static void put_node(const struct rule_engine *e, size_t rule, uint16_t at, struct buf *out)
{
    const struct rule_node *n = &e->set->rules[rule].nodes[at];
    if (n->op == RULE_TERM) {
        put_term(e, &e->terms[e->rules[rule].first_term + n->left], out);
        return;
    }
    if (n->op == RULE_NOT) {
        put_node(e, rule, n->left, out);
        return;
    }
    bool left = true, right = true;
    if (n->op == RULE_OR && node_outcome(e, rule, at).truth == TRUE) {
        left = node_outcome(e, rule, n->left).truth == TRUE;
        right = node_outcome(e, rule, n->right).truth == TRUE;
    }
    if (left)
        put_node(e, rule, n->left, out);
    if (left && right)
        (void)buf_append_str(out, ", ");
    if (right)
        put_node(e, rule, n->right, out);
}

static void finish(struct buf *words, char *out, size_t size_bytes)
{
    (void)text_copy(out, size_bytes, buf_str(words));
    text_clean(out); /* it may have been cut within a character */
    buf_done(words);
}

void sentence_fired(const struct rule_engine *e, size_t rule, uint64_t since_us, uint64_t now_us,
                    char *out, size_t size_bytes)
{
    struct buf words;
    char span[32];
    buf_init(&words, WORDS_MAX);
    put_node(e, rule, e->set->rules[rule].root, &words);
    if (e->set->rules[rule].for_us > 0) {
        put_span_us(now_us - since_us, span, sizeof span);
        (void)buf_printf(&words, " for %s", span);
    }
    finish(&words, out, size_bytes);
}

void sentence_state(const struct rule_engine *e, size_t rule, char *out, size_t size_bytes)
{
    struct buf words;
    buf_init(&words, WORDS_MAX);
    put_node(e, rule, e->set->rules[rule].root, &words);
    finish(&words, out, size_bytes);
}

void sentence_blind(const struct rule_engine *e, size_t rule, char *out, size_t size_bytes)
{
    const struct rule *r = &e->set->rules[rule];
    struct buf words;
    bool has_any = false;
    buf_init(&words, WORDS_MAX);
    for (uint32_t i = 0; i < r->term_count; i++) {
        const struct term_state *t = &e->terms[e->rules[rule].first_term + i];
        if (t->out.truth != UNKNOWN)
            continue;
        if (has_any)
            (void)buf_append_str(&words, ", ");
        put_term(e, t, &words);
        has_any = true;
    }
    finish(&words, out, size_bytes);
}
