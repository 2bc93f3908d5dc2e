/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selectors: parsed once into terms that point into a copy of the text, then matched against many
 * hosts. Invariant: every term of a parsed selector has a non-empty value and, unless it names
 * hosts, a non-empty key. Used by the handlers of Operations.
 */
#include "collector/select.h"

#include <string.h>

#include "common/text.h"

static int parse_term(char *term, struct select_term *out, struct failure *f)
{
    char *equal = strchr(term, '=');
    if (!equal) {
        if (!*term)
            return fail(
                f, ERR_INVALID,
                "empty term in selector: terms are 'key=value', 'key!=value' or a host name");
        *out = (struct select_term){SELECT_HOST, "", term};
        return 0;
    }
    bool different = equal > term && equal[-1] == '!';
    const char *value = equal + 1;
    *equal = '\0';
    if (different)
        equal[-1] = '\0';
    if (!*term || !*value)
        return fail(f, ERR_INVALID,
                    "selector term '%s%s%s' lacks a %s: 'key=value' or 'key!=value' would be right",
                    term, different ? "!=" : "=", value, *term ? "value" : "key");
    *out = (struct select_term){different ? SELECT_DIFFERENT : SELECT_EQUAL, term, value};
    return 0;
}

int select_parse(const char *text, struct select *out, struct failure *f)
{
    if (!*text)
        return fail(
            f, ERR_INVALID,
            "no hosts selected: give a selector such as 'role=web', 'web-*' or '*' for all");
    struct select s = {.count = 0};
    if (text_copy(s.text, sizeof(s.text), text))
        return fail(f, ERR_INVALID, "selector is longer than %d characters", SELECT_TEXT_SIZE - 1);
    memcpy(out->text, s.text, sizeof(s.text));
    char *rest = out->text;
    while (rest) {
        char *comma = strchr(rest, ',');
        if (comma)
            *comma = '\0';
        if (s.count == SELECT_MAX_TERMS)
            return fail(f, ERR_INVALID, "selector has more than %d terms", SELECT_MAX_TERMS);
        int e = parse_term(rest, &s.terms[s.count++], f);
        if (e)
            return e;
        rest = comma ? comma + 1 : NULL;
    }
    memcpy(out->terms, s.terms, sizeof(s.terms));
    out->count = s.count;
    return 0;
}

static const char *attribute(const trawl_v1_Host *host, const char *key)
{
    for (pb_size_t i = 0; i < host->labels_count; i++)
        if (!strcmp(host->labels[i].key, key))
            return host->labels[i].value;
    for (pb_size_t i = 0; i < host->facts_count; i++)
        if (!strcmp(host->facts[i].key, key))
            return host->facts[i].value;
    return NULL;
}

bool select_match(const struct select *s, const trawl_v1_Host *host)
{
    bool named = false, any_host_term = false;
    for (size_t i = 0; i < s->count; i++) {
        const struct select_term *t = &s->terms[i];
        if (t->op == SELECT_HOST) {
            any_host_term = true;
            named = named || text_glob(t->value, host->name);
            continue;
        }
        const char *have = attribute(host, t->key);
        bool equal = have && text_glob(t->value, have);
        if (equal != (t->op == SELECT_EQUAL))
            return false;
    }
    return named || !any_host_term;
}
