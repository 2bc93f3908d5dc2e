/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Explains a selector that matched no host. Invariant: the terms are read as collector/select.h
 * describes them, but only to explain. Called by cli_explain_no_match().
 */
#include "cli/nomatch.h"

#include <string.h>

#include "common/text.h"

static void add_term(struct nomatch *n, char *term)
{
    struct nomatch_term *t = &n->terms[n->term_count++];
    char *equal = strchr(term, '=');
    *t = (struct nomatch_term){.value = term};
    if (!equal)
        return;
    t->is_different = equal > term && equal[-1] == '!';
    *equal = '\0';
    if (t->is_different)
        equal[-1] = '\0';
    t->key = term;
    t->value = equal + 1;
}

void nomatch_init(struct nomatch *n, const char *selector)
{
    *n = (struct nomatch){.term_count = 0};
    text_copy(n->text, sizeof n->text, selector);
    char *rest = n->text;
    while (rest && n->term_count < NOMATCH_TERMS) {
        char *comma = strchr(rest, ',');
        if (comma)
            *comma = '\0';
        add_term(n, rest);
        rest = comma ? comma + 1 : NULL;
    }
}

static void note(struct nomatch *n, int r)
{
    if (n->error == 0 && r < 0)
        n->error = r;
}

static void see_attribute(struct nomatch *n, const char *key, const char *value)
{
    note(n, names_add(&n->keys, key));
    for (size_t i = 0; i < n->term_count; i++) {
        struct nomatch_term *t = &n->terms[i];
        if (!t->key || strcmp(t->key, key) != 0)
            continue;
        t->key_exists = true;
        t->value_exists = t->value_exists || text_glob(t->value, value);
        note(n, names_add(&t->values, value));
    }
}

void nomatch_host(struct nomatch *n, const trawl_v1_Host *host)
{
    note(n, names_add(&n->hosts, host->name));
    for (pb_size_t i = 0; i < host->labels_count; i++)
        see_attribute(n, host->labels[i].key, host->labels[i].value);
    for (pb_size_t i = 0; i < host->facts_count; i++)
        see_attribute(n, host->facts[i].key, host->facts[i].value);
    for (size_t i = 0; i < n->term_count; i++)
        if (!n->terms[i].key && text_glob(n->terms[i].value, host->name))
            n->terms[i].value_exists = true;
}

static int explain_term(struct nomatch *n, struct nomatch_term *t, struct failure *f)
{
    char what[96];
    if (!t->key && !t->value_exists) {
        names_sort(&n->hosts);
        return names_fail(f, ERR_NOTFOUND, "host", t->value, names_list(&n->hosts));
    }
    if (t->key && !t->key_exists) {
        names_sort(&n->keys);
        return names_fail(f, ERR_INVALID, "label or fact", t->key, names_list(&n->keys));
    }
    if (t->key && !t->is_different && !t->value_exists) {
        names_sort(&t->values);
        text_format(what, sizeof what, "value of '%.63s'", t->key);
        return names_fail(f, ERR_NOTFOUND, what, t->value, names_list(&t->values));
    }
    return 0;
}

int nomatch_fail(struct nomatch *n, const char *selector, struct failure *f)
{
    if (n->error)
        return fail(f, n->error, "%s", err_text(n->error));
    if (n->hosts.count == 0)
        return fail(f, ERR_NOTFOUND,
                    "no host is enrolled yet: 'trawl enroll' gives a token for the first");
    for (size_t i = 0; i < n->term_count; i++) {
        int r = explain_term(n, &n->terms[i], f);
        if (r < 0)
            return r;
    }
    return fail(f, ERR_NOTFOUND, "no host matches all of '%.120s' ('trawl hosts' lists %zu)",
                selector, n->hosts.count);
}

void nomatch_done(struct nomatch *n)
{
    for (size_t i = 0; i < n->term_count; i++)
        names_done(&n->terms[i].values);
    names_done(&n->keys);
    names_done(&n->hosts);
}
