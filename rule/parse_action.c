/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rule does, how often at most, and whose rings it keeps besides: `capture KIND,... [of
 * PROCESS]`, `limit N/h`, `peers LABEL`. Invariant: each kind is one of proto/kinds.h and was
 * written out; no word stands for several, so that nobody captures memory without having said so.
 * Called by parse.c.
 */
#include "rule/parse_private.h"

#include <string.h>

#include "common/text.h"
#include "proto/kinds.h"

#define HOUR_US INT64_C(3600000000)

static int add_kind(struct parser *p, const struct token *at, const char *word)
{
    struct rule *r = p->rule;
    char hint[PARSE_HINT_SIZE];
    size_t i = 0;
    while (KINDS[i] && strcmp(KINDS[i], word) != 0)
        i++;
    if (!KINDS[i]) {
        parse_hint(word, KINDS, hint, sizeof hint);
        return parse_fail(p, at, "unknown kind of evidence '%s'%s", word,
                          hint[0] ? hint : ": " KINDS_WORDS " exist");
    }
    if (strcmp(word, "crash") == 0)
        return parse_fail(p, at,
                          "'crash' is gathered by itself when a process crashes: name "
                          "another kind");
    for (uint32_t k = 0; k < r->what_count; k++)
        if (r->what[k] == KINDS[i])
            return parse_fail(p, at, "'%s' is named twice", word);
    if (r->what_count == RULE_KINDS_MAX)
        return parse_fail(p, at, "more than %d kinds", RULE_KINDS_MAX);
    r->what[r->what_count++] = KINDS[i];
    return 0;
}

int parse_action(struct parser *p)
{
    const char *list;
    char word[RULE_WORD_SIZE];
    struct span rest, kind;
    int e = parse_expect(p, "capture", "'capture' and kinds of evidence");
    const struct token *at = parse_peek(p);
    if (!e)
        e = parse_list(p, "a kind of evidence: " KINDS_WORDS, &list);
    if (e)
        return e;
    rest = span_str(list);
    while (!e && text_take_until(&rest, ',', &kind) == 0) {
        (void)text_copy_span(word, sizeof word, kind);
        e = add_kind(p, at, word);
    }
    if (!e && list[strlen(list) - 1] == ',')
        return parse_fail(p, at, "a kind of evidence is missing behind the comma");
    if (e || !parse_take(p, "of"))
        return e;
    at = parse_peek(p);
    e = parse_name(p, "the name of a process behind 'of'", &p->rule->of);
    if (!e && (strchr(p->rule->of, '/') || strlen(p->rule->of) > 63))
        return parse_fail(p, at, "'%s' is no name of a process", p->rule->of);
    return e;
}

int parse_limit(struct parser *p)
{
    uint64_t value;
    struct rule *r = p->rule;
    if (!parse_take(p, "limit"))
        return parse_expected(p, r->of[0] ? "a limit such as 'limit 3/h'"
                                          : "'of PROCESS' or a limit such as 'limit 3/h'");
    const struct token *at = parse_peek(p);
    struct span text = span_str(at->text);
    if (at->kind != TOKEN_WORD || text_take_u64(&text, &value) || text.size_bytes != 2 ||
        text.data[0] != '/' || (text.data[1] != 'h' && text.data[1] != 'd'))
        return parse_expected(p, "how many captures in an hour or a day, such as '3/h' or '5/d'");
    if (value < 1 || value > RULE_LIMIT_MAX)
        return parse_fail(p, at, "'%s' is out of range: 1 to %d captures", at->text,
                          RULE_LIMIT_MAX);
    r->limit = (uint32_t)value;
    r->limit_us = text.data[1] == 'h' ? HOUR_US : 24 * HOUR_US;
    p->at++;
    return 0;
}

int parse_peers(struct parser *p)
{
    struct rule *r = p->rule;
    const char *list;
    char word[RULE_WORD_SIZE];
    struct span rest, label;
    if (!parse_take(p, "peers"))
        return 0;
    const struct token *at = parse_peek(p);
    int e = parse_list(p, "a label behind 'peers'", &list);
    if (e)
        return e;
    if (list[strlen(list) - 1] == ',')
        return parse_fail(p, at, "a label is missing behind the comma");
    rest = span_str(list);
    while (!e && text_take_until(&rest, ',', &label) == 0) {
        (void)text_copy_span(word, sizeof word, label);
        if (!text_is_name(word))
            return parse_fail(p, at,
                              "'%s' is no label: the key alone is written, as in 'peers "
                              "role' (hosts with the same value of it are meant)",
                              word);
        if (r->peer_count == RULE_PEERS_MAX)
            return parse_fail(p, at, "more than %d labels", RULE_PEERS_MAX);
        e = parse_copy(p, word, strlen(word), &r->peers[r->peer_count++]);
    }
    return e;
}
