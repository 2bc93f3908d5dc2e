/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of rules: its rules one after the other, and the clauses of each in their fixed order.
 * See language.h and parse_private.h.
 */
#include "rule/parse_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define HOUR_US INT64_C(3600000000)
#define FOR_MAX_US (24 * HOUR_US)

/* ---- words ---- */

const struct token *parse_peek(const struct parser *p)
{
    return &p->tokens.list[p->at];
}

const struct token *parse_next(struct parser *p)
{
    const struct token *t = &p->tokens.list[p->at];
    if (t->kind != TOKEN_END)
        p->at++;
    return t;
}

bool parse_sees(const struct parser *p, const char *keyword)
{
    const struct token *t = parse_peek(p);
    return t->kind == TOKEN_WORD && !t->is_quoted && strcmp(t->text, keyword) == 0;
}

bool parse_take(struct parser *p, const char *keyword)
{
    if (!parse_sees(p, keyword))
        return false;
    p->at++;
    return true;
}

int parse_fail(struct parser *p, const struct token *at, const char *format, ...)
{
    char text[FAILURE_TEXT_SIZE];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return fail(p->f, ERR_INVALID, "line %u: %s", (unsigned)at->line, text);
}

int parse_expected(struct parser *p, const char *what)
{
    const struct token *t = parse_peek(p);
    if (t->kind == TOKEN_END)
        return parse_fail(p, t, "the file ends where %s is expected", what);
    return parse_fail(p, t, "expected %s, not '%s'", what, t->text);
}

int parse_expect(struct parser *p, const char *keyword, const char *what)
{
    return parse_take(p, keyword) ? 0 : parse_expected(p, what);
}

int parse_name(struct parser *p, const char *what, const char **out)
{
    const struct token *t = parse_peek(p);
    if (t->kind != TOKEN_WORD)
        return parse_expected(p, what);
    if (!*t->text)
        return parse_fail(p, t, "%s is empty", what);
    *out = parse_next(p)->text;
    return 0;
}

int parse_duration(struct parser *p, const char *what, int64_t least_us, int64_t most_us,
                   int64_t *out)
{
    char least[32], most[32];
    const struct token *t = parse_peek(p);
    if (t->kind != TOKEN_WORD || text_duration_us(t->text, out))
        return parse_expected(p, what);
    if (*out < least_us || *out > most_us) {
        text_put_duration(least_us, least, sizeof least);
        text_put_duration(most_us, most, sizeof most);
        return parse_fail(p, t, "'%s' is out of range: %s to %s", t->text, least, most);
    }
    p->at++;
    return 0;
}

int parse_count(struct parser *p, const char *what, uint64_t most, uint32_t *out)
{
    uint64_t value;
    const struct token *t = parse_peek(p);
    if (t->kind != TOKEN_WORD || text_u64(t->text, &value))
        return parse_expected(p, what);
    if (value < 1 || value > most)
        return parse_fail(p, t, "'%s' is out of range: 1 to %llu", t->text,
                          (unsigned long long)most);
    *out = (uint32_t)value;
    p->at++;
    return 0;
}

int parse_copy(struct parser *p, const char *text, size_t length, const char **out)
{
    struct tokens *t = &p->tokens;
    if (length + 1 > t->words_limit - t->words_bytes)
        return fail(p->f, ERR_LIMIT, "the words of the rules take too much room");
    char *copy = t->words + t->words_bytes;
    memcpy(copy, text, length);
    copy[length] = '\0';
    t->words_bytes += length + 1;
    *out = copy;
    return 0;
}

/* A comma at the end of one word or at the beginning of the next joins them. */
int parse_list(struct parser *p, const char *what, const char **out)
{
    char joined[RULE_SELECTOR_SIZE];
    size_t length = 0; /* no terminator: parse_copy() puts it */
    const struct token *first = parse_peek(p), *t;
    do {
        const char *word;
        int e = parse_name(p, what, &word);
        if (e)
            return e;
        size_t bytes = strlen(word);
        if (length + bytes >= sizeof joined)
            return parse_fail(p, first, "%s is longer than %d characters", what,
                              RULE_SELECTOR_SIZE - 1);
        for (size_t i = 0; i < bytes; i++)
            joined[length + i] = word[i];
        length += bytes;
        t = parse_peek(p);
    } while (length == 0 || joined[length - 1] == ',' ||
             (t->kind == TOKEN_WORD && t->text[0] == ','));
    return parse_copy(p, joined, length, out);
}

const char *parse_hint(const char *text, const char *const *names, char *out, size_t size_bytes)
{
    const char *near = text_nearest(text, names);
    out[0] = '\0';
    if (near)
        (void)text_format(out, size_bytes, ": did you mean '%s'?", near);
    return out;
}

int parse_interest(struct parser *p, const char *process, unsigned wants)
{
    struct rule_set *s = p->set;
    for (size_t i = 0; i < s->process_count; i++) {
        if (strcmp(s->processes[i].name, process) != 0)
            continue;
        s->processes[i].wants |= wants;
        return 0;
    }
    if (s->process_count == RULE_PROCESSES_MAX)
        return fail(p->f, ERR_LIMIT,
                    "line %u: the rules name more than %d different processes; a glob such as "
                    "'shop-*' names many at once",
                    (unsigned)p->rule->line, RULE_PROCESSES_MAX);
    s->processes[s->process_count++] = (struct rule_process){process, wants};
    return 0;
}

/* ---- clauses ---- */

/* The collector has the last word (it knows the hosts); here is refused what no host could be. */
static int check_selector(struct parser *p, const struct token *at, const char *selector)
{
    struct span rest = span_str(selector), term;
    char text[RULE_SELECTOR_SIZE];
    if (selector[strlen(selector) - 1] == ',')
        return parse_fail(p, at, "the selector '%s' ends in a comma", selector);
    while (text_take_until(&rest, ',', &term) == 0) {
        (void)text_copy_span(text, sizeof text, term);
        const char *equal = strchr(text, '=');
        bool has_key = equal && (equal > text + 1 || (equal == text + 1 && text[0] != '!'));
        if (!text[0] || (equal && (!has_key || !equal[1])))
            return parse_fail(p, at,
                              "'%s' is no term of a selector: 'key=value', 'key!=value', a host "
                              "name, a glob such as 'web-*', or '*' for all",
                              text);
    }
    return 0;
}

static int parse_selector(struct parser *p)
{
    const struct token *at = parse_peek(p);
    if (parse_sees(p, "when"))
        return parse_expected(p, "a selector such as 'role=web', 'web-*' or '*' for all hosts");
    int e = parse_list(p, "a selector such as 'role=web', 'web-*' or '*' for all hosts",
                       &p->rule->selector);
    return e ? e : check_selector(p, at, p->rule->selector);
}

/* How long a condition can stay true at most: what happens is over after its window. */
static int64_t lasts_us(const struct rule *r, const struct rule_term *terms, uint16_t node)
{
    const struct rule_node *n = &r->nodes[node];
    if (n->op == RULE_NOT)
        return INT64_MAX;
    if (n->op == RULE_TERM) {
        enum rule_term_kind kind = terms[n->left].kind;
        bool happens = kind == RULE_EXCEPTION || kind == RULE_LOG || kind == RULE_RESTARTED;
        return happens ? terms[n->left].window_us : INT64_MAX;
    }
    int64_t left = lasts_us(r, terms, n->left), right = lasts_us(r, terms, n->right);
    bool both = n->op == RULE_AND;
    return (left < right) == both ? left : right;
}

static int parse_for(struct parser *p)
{
    struct rule *r = p->rule;
    const struct token *at = parse_peek(p);
    if (!parse_take(p, "for"))
        return 0;
    int e =
        parse_duration(p, "a duration such as '30s' behind 'for'", 1000000, FOR_MAX_US, &r->for_us);
    if (!e && r->for_us > lasts_us(r, p->set->terms + p->first_term, r->root))
        return parse_fail(p, at,
                          "this can never be true for so long: what happens is over at once; "
                          "without 'for', or '3 times in 10m' behind it, would be right");
    return e;
}

static int parse_clauses(struct parser *p)
{
    int e = parse_expect(p, "on", "'on' and a selector of hosts");
    if (!e)
        e = parse_selector(p);
    if (!e)
        e = parse_expect(p, "when", "'when' and a condition");
    if (!e)
        e = parse_condition(p, &p->rule->root);
    if (!e)
        e = parse_for(p);
    if (!e)
        e = parse_expect(p, "then",
                         p->rule->for_us ? "'then capture'"
                                         : "'and', 'or', 'for DURATION' or 'then capture'");
    if (!e)
        e = parse_action(p);
    if (!e)
        e = parse_limit(p);
    return e ? e : parse_peers(p);
}

/* ---- rules ---- */

static int parse_header(struct parser *p)
{
    const struct token *t = parse_peek(p);
    if (!parse_take(p, "rule"))
        return parse_expected(p, p->set->count ? "'rule' and the next one's name, or 'peers'"
                                               : "'rule' and its name");
    p->rule->line = t->line;
    p->rule->begin_bytes = t->begin_bytes;
    t = parse_peek(p);
    int e = parse_name(p, "the rule's name", &p->rule->name);
    if (e)
        return e;
    if (!text_is_name(p->rule->name))
        return parse_fail(p, t,
                          "'%s' is no name of a rule: letters, digits, '-', '_' and '.', "
                          "at most 63",
                          p->rule->name);
    for (size_t i = 0; i < p->set->count; i++)
        if (strcmp(p->set->rules[i].name, p->rule->name) == 0)
            return parse_fail(p, t, "there is a rule '%s' already, in line %u", p->rule->name,
                              (unsigned)p->set->rules[i].line);
    return 0;
}

static int add_rule(struct parser *p)
{
    struct rule_set *s = p->set;
    if (s->count == RULES_MAX)
        return fail(p->f, ERR_LIMIT, "line %u: a file has at most %d rules",
                    (unsigned)parse_peek(p)->line, RULES_MAX);
    if (s->count == p->rule_capacity) {
        size_t capacity = p->rule_capacity ? 2 * p->rule_capacity : 8;
        struct rule *more = realloc(s->rules, capacity * sizeof *more);
        if (!more)
            return fail(p->f, ERR_NOMEM, "out of memory for rules");
        s->rules = more;
        p->rule_capacity = capacity;
    }
    assert(s->rules);
    struct rule *r = &s->rules[s->count];
    p->rule = r;
    *r = (struct rule){.of = "", .selector = "", .name = ""};
    p->first_term = s->term_count;
    int e = parse_header(p);
    if (!e)
        e = parse_clauses(p);
    if (e)
        return e;
    r->end_bytes = p->tokens.list[p->at - 1].end_bytes;
    s->count++;
    return 0;
}

/* The terms lie still only now. */
static void link_terms(struct rule_set *s)
{
    const struct rule_term *next = s->terms;
    for (size_t i = 0; i < s->count; i++) {
        s->rules[i].terms = next;
        next += s->rules[i].term_count;
    }
}

int rule_parse(struct span text, const struct rule_catalogue *known, struct rule_set **out,
               struct failure *f)
{
    struct parser p = {.known = known, .f = f};
    int e = tokens_read(text, &p.tokens, f);
    if (e)
        return e;
    p.set = calloc(1, sizeof *p.set);
    if (!p.set) {
        tokens_done(&p.tokens);
        return fail(f, ERR_NOMEM, "out of memory for rules");
    }
    while (!e && parse_peek(&p)->kind != TOKEN_END)
        e = add_rule(&p);
    p.set->words = p.tokens.words;
    p.tokens.words = NULL;
    tokens_done(&p.tokens);
    if (e) {
        rule_set_close(p.set);
        return e;
    }
    link_terms(p.set);
    *out = p.set;
    return 0;
}

void rule_set_close(struct rule_set *set)
{
    if (!set)
        return;
    free(set->rules);
    free(set->terms);
    free(set->words);
    free(set);
}

const struct rule *rule_find(const struct rule_set *set, const char *name)
{
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->rules[i].name, name) == 0)
            return &set->rules[i];
    return NULL;
}
