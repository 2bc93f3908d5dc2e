/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules back to text: one form for each rule, whatever way it was written. Invariant: rule_parse()
 * reads from it the same rule. Called by whoever shows rules, and by the engine to tell whether a
 * rule has changed.
 */
#include "rule/language.h"

#include <string.h>

#include "common/text.h"

#define MOMENT_US INT64_C(1000000)
#define RULE_PRINT_MAX 32768

/* ---- words ---- */

static bool is_bare(const char *text)
{
    static const char *const keywords[] = {"and",  "or",    "not",   "for", "then", "of",
                                           "type", "has",   "until", "in",  "on",   "when",
                                           "rule", "peers", "limit", "/",   NULL};
    if (!*text || *text == '#')
        return false;
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c > '~' || strchr("()<>\"\\,", *c))
            return false;
    for (size_t i = 0; keywords[i]; i++)
        if (strcmp(text, keywords[i]) == 0)
            return false;
    return true;
}

static int put_word(struct buf *out, const char *text)
{
    if (is_bare(text))
        return buf_append_str(out, text);
    int e = buf_append_byte(out, '"');
    for (; !e && *text; text++) {
        if (*text == '"' || *text == '\\')
            e = buf_append_byte(out, '\\');
        if (!e)
            e = buf_append_byte(out, (uint8_t)*text);
    }
    return e ? e : buf_append_byte(out, '"');
}

static int put_duration(struct buf *out, int64_t us)
{
    static const struct {
        int64_t us;
        const char *unit;
    } units[] = {{INT64_C(86400000000), "d"},
                 {INT64_C(3600000000), "h"},
                 {60000000, "m"},
                 {1000000, "s"},
                 {1000, "ms"},
                 {1, "us"}};
    size_t i = 0;
    while (us % units[i].us)
        i++;
    return buf_printf(out, "%lld%s", (long long)(us / units[i].us), units[i].unit);
}

static int put_of(struct buf *out, const char *of)
{
    if (!*of)
        return 0;
    int e = buf_append_str(out, " of ");
    return e ? e : put_word(out, of);
}

static int put_times(struct buf *out, const struct rule_term *t)
{
    if (t->times == 1 && t->window_us == MOMENT_US)
        return 0;
    int e = buf_printf(out, " %u times in ", (unsigned)t->times);
    return e ? e : put_duration(out, t->window_us);
}

static int put_limit(struct buf *out, enum rule_compare compare, const struct rule_number *n)
{
    char number[64];
    rule_number_put(n, number, sizeof number);
    return buf_printf(out, " %s %s", rule_compare_word(compare), number);
}

/* ---- terms ---- */

static int put_counter(struct buf *out, const struct rule_term *t)
{
    int e = put_word(out, t->name);
    if (!e)
        e = put_of(out, t->of);
    if (!e && t->kind == RULE_RATIO) {
        e = buf_append_str(out, " / ");
        if (!e)
            e = put_word(out, t->other);
        if (!e)
            e = put_of(out, t->other_of);
    }
    if (!e)
        e = put_limit(out, t->compare, &t->limit);
    if (!e && t->kind == RULE_AGO) {
        e = buf_append_str(out, " ");
        if (!e)
            e = put_duration(out, t->window_us);
        if (!e)
            e = buf_append_str(out, " ago");
    }
    if (!e && t->has_until) {
        e = buf_append_str(out, " until");
        if (!e)
            e = put_limit(out, t->until_compare, &t->until);
    }
    return e;
}

static int put_process(struct buf *out, const struct rule_term *t)
{
    int e = buf_append_str(out, "process ");
    if (!e)
        e = put_word(out, t->of);
    if (e)
        return e;
    if (t->kind == RULE_NOT_RUNNING)
        return buf_append_str(out, " not running");
    if (t->kind == RULE_RESTARTED) {
        e = buf_append_str(out, " restarted");
        return e ? e : put_times(out, t);
    }
    e = buf_printf(out, " threads in %s", rule_state_word(t->state));
    return e ? e : put_limit(out, t->compare, &t->limit);
}

static int put_exception(struct buf *out, const struct rule_term *t)
{
    int e = buf_append_str(out, "exception");
    if (!e && t->source)
        e = buf_printf(out, " %s", rule_source_word(t->source));
    if (!e && *t->type) {
        e = buf_append_str(out, " type ");
        if (!e)
            e = put_word(out, t->type);
    }
    if (!e)
        e = put_of(out, t->of);
    return e ? e : put_times(out, t);
}

static int put_log(struct buf *out, const struct rule_term *t)
{
    int e = buf_append_str(out, "log");
    if (!e && *t->path)
        e = buf_append_str(out, " ");
    if (!e && *t->path)
        e = put_word(out, t->path);
    if (!e)
        e = put_of(out, t->of);
    if (!e)
        e = buf_append_str(out, " has ");
    if (!e)
        e = put_word(out, t->pattern);
    return e ? e : put_times(out, t);
}

static int put_probe(struct buf *out, const struct rule_probe *p)
{
    bool is_watchdog = p->kind == RULE_WATCHDOG;
    int e = buf_append_str(out, "hang ");
    if (!e)
        e = put_word(out, p->target);
    if (!e && *p->send) {
        e = buf_append_str(out, " send=");
        if (!e)
            e = put_word(out, p->send);
    }
    if (!e && p->every_us != (is_watchdog ? 30 * MOMENT_US : 5 * MOMENT_US)) {
        e = buf_append_str(out, " every=");
        if (!e)
            e = put_duration(out, p->every_us);
    }
    if (!e && p->timeout_us != 2 * MOMENT_US) {
        e = buf_append_str(out, " timeout=");
        if (!e)
            e = put_duration(out, p->timeout_us);
    }
    if (!e && p->failures != (is_watchdog ? 1 : 3))
        e = buf_printf(out, " failures=%u", (unsigned)p->failures);
    return e;
}

int rule_term_print(const struct rule_set *set, const struct rule_term *t, struct buf *out)
{
    int e;
    switch (t->kind) {
    case RULE_COUNTER:
    case RULE_RATIO:
    case RULE_AGO:
        return put_counter(out, t);
    case RULE_NOT_RUNNING:
    case RULE_RESTARTED:
    case RULE_THREADS:
        return put_process(out, t);
    case RULE_EXCEPTION:
        return put_exception(out, t);
    case RULE_LOG:
        return put_log(out, t);
    case RULE_PROBE:
        return put_probe(out, &set->probes[t->probe]);
    case RULE_LOOP:
        e = buf_append_str(out, "hang loop");
        return e ? e : put_of(out, t->of);
    default:
        return ERR_INVALID;
    }
}

/* ---- conditions ---- */

static int put_node(const struct rule_set *set, const struct rule *r, uint16_t at, struct buf *out);

static int put_inner(const struct rule_set *set, const struct rule *r, uint16_t at, bool wrap,
                     struct buf *out)
{
    int e = wrap ? buf_append_str(out, "(") : 0;
    if (!e)
        e = put_node(set, r, at, out);
    return e || !wrap ? e : buf_append_str(out, ")");
}

static int put_node(const struct rule_set *set, const struct rule *r, uint16_t at, struct buf *out)
{
    const struct rule_node *n = &r->nodes[at];
    if (n->op == RULE_TERM)
        return rule_term_print(set, &r->terms[n->left], out);
    enum rule_op left = r->nodes[n->left].op, right = r->nodes[n->right].op;
    if (n->op == RULE_NOT) {
        int e = buf_append_str(out, "not ");
        return e ? e : put_inner(set, r, n->left, left == RULE_AND || left == RULE_OR, out);
    }
    /* `a and b and c` is read from the left; another grouping needs its parentheses. */
    bool wrap_left = left != n->op && (left == RULE_AND || left == RULE_OR);
    int e = put_inner(set, r, n->left, wrap_left, out);
    if (!e)
        e = buf_append_str(out, n->op == RULE_AND ? " and " : " or ");
    return e ? e : put_inner(set, r, n->right, right == RULE_AND || right == RULE_OR, out);
}

/* ---- rules ---- */

static int put_list(struct buf *out, const char *before, const char *const *words, uint32_t count)
{
    int e = buf_append_str(out, before);
    for (uint32_t i = 0; !e && i < count; i++)
        e = buf_printf(out, "%s%s", i ? "," : "", words[i]);
    return e;
}

static int put_selector(struct buf *out, const char *selector)
{
    bool is_plain = selector[0] != '#' && strcmp(selector, "when") != 0;
    for (const char *c = selector; *c; c++)
        is_plain &= *c > ' ' && *c <= '~' && !strchr("()<>\"\\", *c);
    return is_plain ? buf_append_str(out, selector) : put_word(out, selector);
}

int rule_print(const struct rule_set *set, const struct rule *r, struct buf *out)
{
    int e = buf_printf(out, "rule %s\n    on ", r->name);
    if (!e)
        e = put_selector(out, r->selector);
    if (!e)
        e = buf_append_str(out, "\n    when ");
    if (!e)
        e = put_node(set, r, r->root, out);
    if (!e && r->for_us) {
        e = buf_append_str(out, "\n    for ");
        if (!e)
            e = put_duration(out, r->for_us);
    }
    if (!e)
        e = put_list(out, "\n    then capture ", r->what, r->what_count);
    if (!e)
        e = put_of(out, r->of);
    if (!e)
        e = buf_printf(out, "\n    limit %u/%s\n", (unsigned)r->limit,
                       r->limit_us == INT64_C(3600000000) ? "h" : "d");
    if (!e && r->peer_count) {
        e = put_list(out, "    peers ", r->peers, r->peer_count);
        if (!e)
            e = buf_append_str(out, "\n");
    }
    return e;
}

int rule_set_print(const struct rule_set *set, struct buf *out)
{
    int e = 0;
    for (size_t i = 0; !e && i < set->count; i++) {
        e = i ? buf_append_str(out, "\n") : 0;
        if (!e)
            e = rule_print(set, &set->rules[i], out);
    }
    return e;
}

/* FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/). */
uint64_t rule_fingerprint(const struct rule_set *set, const struct rule *rule)
{
    struct buf text;
    uint64_t hash = UINT64_C(14695981039346656037);
    buf_init(&text, RULE_PRINT_MAX);
    /* What does not fit counts as far as it does. */
    (void)rule_print(set, rule, &text);
    for (size_t i = 0; i < text.size_bytes; i++)
        hash = (hash ^ text.data[i]) * UINT64_C(1099511628211);
    buf_done(&text);
    return hash;
}

int rule_text_without(struct span text, const char *name, struct buf *out, struct failure *f)
{
    struct rule_set *set;
    int e = rule_parse(text, NULL, &set, f);
    if (e)
        return e;
    const struct rule *r = rule_find(set, name);
    if (!r) {
        const char *names[RULES_MAX + 1] = {NULL};
        for (size_t i = 0; i < set->count; i++)
            names[i] = set->rules[i].name;
        const char *near = text_nearest(name, names);
        e = fail(f, ERR_NOTFOUND, "there is no rule '%s'%s%s%s", name,
                 near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
    } else {
        size_t end = r->end_bytes;
        if (end < text.size_bytes && text.data[end] == '\n')
            end++;
        e = buf_append(out, text.data, r->begin_bytes);
        if (!e)
            e = buf_append(out, text.data + end, text.size_bytes - end);
    }
    rule_set_close(set);
    return e;
}
