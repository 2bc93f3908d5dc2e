/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `and`, `or`, `not` and parentheses. Invariant: `and` and `or` are never mixed without
 * parentheses, so that nobody has to know which binds tighter; depth and number of terms are
 * bounded. Called by parse.c.
 */
#include "rule/parse_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

static int parse_any(struct parser *p, uint16_t *out);

static int add_node(struct parser *p, struct rule_node node, uint16_t *out)
{
    struct rule *r = p->rule;
    if (r->node_count == RULE_NODES_MAX)
        return fail(p->f, ERR_LIMIT,
                    "line %u: this condition is too long: write it as several rules",
                    (unsigned)parse_peek(p)->line);
    r->nodes[r->node_count] = node;
    *out = (uint16_t)r->node_count++;
    return 0;
}

static int add_term(struct parser *p, struct rule_term **out)
{
    struct rule_set *s = p->set;
    if (p->rule->term_count == RULE_TERMS_MAX)
        return fail(p->f, ERR_LIMIT,
                    "line %u: a condition has at most %d comparisons: write it as several rules",
                    (unsigned)parse_peek(p)->line, RULE_TERMS_MAX);
    if (s->term_count == p->term_capacity) {
        size_t capacity = p->term_capacity ? 2 * p->term_capacity : 16;
        struct rule_term *more = realloc(s->terms, capacity * sizeof *more);
        if (!more)
            return fail(p->f, ERR_NOMEM, "out of memory for rules");
        s->terms = more;
        p->term_capacity = capacity;
    }
    *out = &s->terms[s->term_count++];
    **out = (struct rule_term){.line = parse_peek(p)->line,
                               .name = "",
                               .of = "",
                               .other = "",
                               .other_of = "",
                               .type = "",
                               .path = "",
                               .pattern = ""};
    return 0;
}

static int parse_one_of(struct parser *p, struct rule_term *term)
{
    static const char *const words[] = {"process", "exception", "log", "hang", "not", NULL};
    const struct token *t = parse_peek(p);
    char hint[PARSE_HINT_SIZE];
    if (t->kind != TOKEN_WORD)
        return parse_expected(p, "a condition");
    if (parse_take(p, "process"))
        return parse_process(p, term);
    if (parse_take(p, "exception"))
        return parse_exception(p, term);
    if (parse_take(p, "log"))
        return parse_log(p, term);
    if (parse_take(p, "hang"))
        return parse_hang(p, term);
    if (strchr(t->text, '.'))
        return parse_counter(p, term);
    parse_hint(t->text, words, hint, sizeof hint);
    return parse_fail(p, t, "unknown condition '%s'%s", t->text,
                      hint[0] ? hint
                              : ": there are a counter such as cpu.busy, process, exception, log "
                                "and hang");
}

static int parse_term(struct parser *p, uint16_t *out)
{
    struct rule_term *term = NULL;
    int e = add_term(p, &term);
    if (term)
        e = parse_one_of(p, term);
    if (e)
        return e;
    struct rule_node node = {RULE_TERM, (uint16_t)p->rule->term_count++, 0};
    return add_node(p, node, out);
}

static int parse_inner(struct parser *p, uint16_t *out)
{
    parse_next(p);
    int e = parse_any(p, out);
    if (e)
        return e;
    if (parse_peek(p)->kind != TOKEN_CLOSE)
        return parse_expected(p, "')', 'and' or 'or'");
    parse_next(p);
    return 0;
}

static int parse_unary(struct parser *p, uint16_t *out)
{
    const struct token *t = parse_peek(p);
    bool is_not = parse_sees(p, "not");
    if (!is_not && t->kind != TOKEN_OPEN)
        return parse_term(p, out);
    if (++p->depth > RULE_DEPTH_MAX)
        return parse_fail(p, t, "parentheses and 'not' go more than %d deep", RULE_DEPTH_MAX);
    int e;
    if (is_not) {
        struct rule_node node = {RULE_NOT, 0, 0};
        parse_next(p);
        p->inside_not++;
        e = parse_unary(p, &node.left);
        p->inside_not--;
        if (!e)
            e = add_node(p, node, out);
    } else {
        e = parse_inner(p, out);
    }
    p->depth--;
    return e;
}

static int parse_any(struct parser *p, uint16_t *out)
{
    int e = parse_unary(p, out);
    enum rule_op op = 0;
    while (!e && (parse_sees(p, "and") || parse_sees(p, "or"))) {
        const struct token *t = parse_next(p);
        enum rule_op now = strcmp(t->text, "and") == 0 ? RULE_AND : RULE_OR;
        if (op && op != now)
            return parse_fail(p, t,
                              "'and' and 'or' are mixed: say by parentheses what belongs together");
        op = now;
        struct rule_node node = {op, *out, 0};
        e = parse_unary(p, &node.right);
        if (!e)
            e = add_node(p, node, out);
    }
    return e;
}

int parse_condition(struct parser *p, uint16_t *root)
{
    return parse_any(p, root);
}
