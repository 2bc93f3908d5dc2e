/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trawl rules test: when rules of a file would have fired, host by host, from what is stored.
 * Invariant: nothing is changed anywhere; what a rule could not be told is said, never taken as
 * "did not fire". Called by cmd_rules.c.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/cmd_rules.h"
#include "cli/jsonl.h"
#include "cli/names.h"
#include "cli/rules_replay.h"
#include "common/text.h"
#include "proto/codec.h"

#define WIRE_LIMIT (64u << 10)
#define LINE_LIMIT 8192
#define FIRST_EVENTS 64
#define NAMES_AT_ONCE 32 /* of a request for counters */

struct testing {
    struct cli *cli;
    struct buf text;
    struct rule_set *set;
    struct names asked;  /* hosts of -l */
    struct names *means; /* of each rule: hosts of its selector */
    struct names *into;  /* where on_host() puts a name */
    struct series_set series;
    trawl_v1_Exception *exceptions;
    size_t exception_count, exception_capacity;
    int64_t from_us, to_us;
    struct render_table table;
    const char *host; /* being replayed */
    size_t fired, hosts_fired;
    bool host_fired;
    int error;
};

/* ---- asking ---- */

static int on_host(void *owner, struct span message, struct failure *f)
{
    struct testing *t = owner;
    trawl_v1_Host host;
    int r = codec_get_host(&host, message, f);
    return r < 0 ? r : names_add(t->into, host.name);
}

static int ask_hosts(struct testing *t, const char *selector, struct names *into, struct failure *f)
{
    trawl_v1_HostsRequest request = {.selector = ""};
    struct buf wire;
    t->into = into;
    text_copy(request.selector, sizeof request.selector, selector);
    buf_init(&wire, WIRE_LIMIT);
    int r = codec_put_hosts_request(&wire, &request);
    if (r == 0)
        r = cli_call(t->cli, METHOD_OPS_HOSTS, &wire, on_host, t, f);
    buf_done(&wire);
    return r;
}

/* Rules with the selector of an earlier one mean the same hosts. A rule may mean none. */
static int ask_means(struct testing *t, struct failure *f)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < t->set->count; i++) {
        const char *selector = t->set->rules[i].selector;
        size_t same = 0;
        while (same < i && strcmp(t->set->rules[same].selector, selector) != 0)
            same++;
        for (size_t k = 0; same < i && r == 0 && k < t->means[same].count; k++)
            r = names_add(&t->means[i], t->means[same].list[k]);
        if (same < i)
            continue;
        r = ask_hosts(t, selector, &t->means[i], f);
        if (r == ERR_NOTFOUND)
            r = 0;
    }
    return r;
}

static int on_samples(void *owner, struct span message, struct failure *f)
{
    struct testing *t = owner;
    trawl_v1_Samples samples;
    int r = codec_get_samples(&samples, message, f);
    if (r == 0)
        r = series_add(&t->series, &samples);
    return r == ERR_LIMIT ? fail(f, r, "too many samples: ask for a shorter time") : r;
}

static int gather_names(const struct rule_set *set, struct names *names)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < set->term_count; i++) {
        if (set->terms[i].name[0])
            r = names_add(names, set->terms[i].name);
        if (r == 0 && set->terms[i].other[0])
            r = names_add(names, set->terms[i].other);
    }
    return r;
}

static int ask_counters(struct testing *t, const char *selector, struct failure *f)
{
    trawl_v1_CountersRequest *request = calloc(1, sizeof *request);
    struct names names = {.list = NULL};
    struct buf wire;
    int r = request ? gather_names(t->set, &names) : ERR_NOMEM;
    buf_init(&wire, WIRE_LIMIT);
    for (size_t i = 0; r == 0 && i < names.count; i += NAMES_AT_ONCE) {
        memset(request, 0, sizeof *request);
        text_copy(request->selector, sizeof request->selector, selector);
        request->from_us = t->from_us;
        request->to_us = t->to_us;
        for (size_t k = i; k < names.count && k < i + NAMES_AT_ONCE; k++)
            text_copy(request->names[request->names_count++], sizeof request->names[0],
                      names.list[k]);
        buf_clear(&wire);
        r = codec_put_counters_request(&wire, request);
        if (r == 0)
            r = cli_call(t->cli, METHOD_OPS_COUNTERS, &wire, on_samples, t, f);
        if (r == ERR_NOTFOUND) /* no samples: its rules are blind, and say so */
            r = 0;
    }
    buf_done(&wire);
    names_done(&names);
    free(request);
    return r;
}

static int on_exception(void *owner, struct span message, struct failure *f)
{
    struct testing *t = owner;
    if (BUF_GROW(t->exceptions, t->exception_count, &t->exception_capacity, FIRST_EVENTS))
        return fail(f, ERR_NOMEM, "out of memory");
    int r = codec_get_exception(&t->exceptions[t->exception_count], message, f);
    t->exception_count += r == 0;
    return r;
}

static int ask_exceptions(struct testing *t, const char *selector, struct failure *f)
{
    trawl_v1_ExceptionsRequest request = {.from_us = t->from_us, .to_us = t->to_us};
    struct buf wire;
    bool is_needed = false;
    for (size_t i = 0; i < t->set->term_count; i++)
        is_needed |= t->set->terms[i].kind == RULE_EXCEPTION;
    if (!is_needed)
        return 0;
    text_copy(request.selector, sizeof request.selector, selector);
    buf_init(&wire, WIRE_LIMIT);
    int r = codec_put_exceptions_request(&wire, &request);
    if (r == 0)
        r = cli_call(t->cli, METHOD_OPS_EXCEPTIONS, &wire, on_exception, t, f);
    buf_done(&wire);
    return r;
}

/* ---- showing ---- */

static const char *verdict_word(enum rule_verdict verdict)
{
    switch (verdict) {
    case RULE_FIRED:
        return "fires";
    case RULE_SUPPRESSED:
        return "held back by its limit";
    case RULE_BLIND:
        return "cannot be told";
    case RULE_QUIET:
    case RULE_SEES:
        break;
    }
    return NULL;
}

static void put_row(struct testing *t, int64_t at_us, const struct rule_decision *d)
{
    char at[RENDER_TEXT_SIZE];
    render_clock(at_us, t->cli->now_us, at);
    render_cell(&t->table, RENDER_PLAIN, t->host);
    render_cell(&t->table, RENDER_PLAIN, at);
    render_cell(&t->table, RENDER_PLAIN, d->rule->name);
    render_cell(&t->table, d->verdict == RULE_FIRED ? RENDER_BAD : RENDER_WARN,
                verdict_word(d->verdict));
    render_cell(&t->table, RENDER_PLAIN, d->sentence);
}

static int put_line(struct testing *t, int64_t at_us, const struct rule_decision *d)
{
    struct failure ignored;
    struct buf line;
    buf_init(&line, LINE_LIMIT);
    struct jsonl j = {.out = &line};
    jsonl_object(&j, NULL);
    jsonl_str(&j, "host", t->host);
    jsonl_time(&j, "time", at_us);
    jsonl_str(&j, "rule", d->rule->name);
    jsonl_word(&j, "verdict", verdict_word(d->verdict));
    jsonl_str_or_null(&j, "process", d->process);
    jsonl_u64_or_null(&j, "pid", d->pid);
    jsonl_str(&j, "sentence", d->sentence);
    int r = jsonl_line(&j);
    if (r == 0)
        r = cli_write(t->cli, &line, &ignored);
    buf_done(&line);
    return r;
}

static bool is_meant(const struct testing *t, const char *rule)
{
    for (size_t i = 0; i < t->set->count; i++)
        if (strcmp(t->set->rules[i].name, rule) == 0)
            return names_has(&t->means[i], t->host);
    return false;
}

static void on_decided(void *context, int64_t at_us, const struct rule_decision *decision)
{
    struct testing *t = context;
    if (!verdict_word(decision->verdict) || !is_meant(t, decision->rule->name))
        return;
    t->fired += decision->verdict == RULE_FIRED;
    t->host_fired |= decision->verdict == RULE_FIRED;
    if (t->cli->output != CLI_JSON)
        put_row(t, at_us, decision);
    else if (t->error == 0)
        t->error = put_line(t, at_us, decision);
}

/* ---- replaying ---- */

static int by_time(const void *a, const void *b)
{
    const struct replay_event *x = a, *y = b;
    return x->at_us < y->at_us ? -1 : x->at_us > y->at_us;
}

static size_t events_of(const struct testing *t, struct replay_event *out)
{
    size_t count = 0;
    for (size_t i = 0; i < t->exception_count; i++) {
        const trawl_v1_Exception *e = &t->exceptions[i];
        if (strcmp(e->host, t->host) != 0)
            continue;
        out[count++] =
            (struct replay_event){e->last_us ? e->last_us : e->wall_us,
                                  {(uint32_t)e->source, e->type, e->process, e->pid, e->count}};
    }
    if (count > 1)
        qsort(out, count, sizeof *out, by_time);
    return count;
}

static int replay_host(struct testing *t, const char *host, struct failure *f)
{
    struct replay_event *events = calloc(t->exception_count + 1, sizeof *events);
    struct rule_set *set = NULL;
    if (!events)
        return fail(f, ERR_NOMEM, "out of memory");
    t->host = host;
    t->host_fired = false;
    int r = rule_parse(buf_span(&t->text), NULL, &set, f);
    if (r == 0) {
        struct replay replay = {host,       &t->series, events, events_of(t, events),
                                t->from_us, t->to_us};
        r = replay_run(&replay, set, on_decided, t);
        if (r < 0)
            fail(f, r, "cannot replay '%s': %s", host, err_text(r));
    }
    t->hosts_fired += t->host_fired;
    free(events);
    return r < 0 ? r : t->error;
}

static int replay_all(struct testing *t, struct failure *f)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < t->asked.count; i++)
        r = replay_host(t, t->asked.list[i], f);
    if (r == 0)
        r = cli_write_table(t->cli, &t->table, f);
    if (r == 0 && t->cli->output != CLI_JSON)
        cli_note(t->cli, "would have fired %zu time%s, on %zu of %zu hosts", t->fired,
                 t->fired == 1 ? "" : "s", t->hosts_fired, t->asked.count);
    return r;
}

static int run(struct testing *t, struct failure *f)
{
    const struct cmd_rules_options *options = t->cli->options;
    char selector[CLI_SELECT_SIZE];
    int r =
        cli_window(t->cli, options->last_us, options->from, options->to, &t->from_us, &t->to_us, f);
    if (r == 0)
        r = rules_read_file(t->cli->words[1], &t->text, f);
    if (r == 0)
        r = rule_parse(buf_span(&t->text), NULL, &t->set, f);
    if (r == 0)
        r = cli_selector(t->cli, t->cli->word_count, false, selector, sizeof selector, f);
    if (r == 0 && !(t->means = calloc(t->set->count + 1, sizeof *t->means)))
        r = fail(f, ERR_NOMEM, "out of memory");
    if (r == 0)
        r = ask_hosts(t, selector, &t->asked, f);
    if (r == ERR_NOTFOUND)
        r = cli_explain_no_match(t->cli, selector, f);
    if (r == 0)
        r = ask_means(t, f);
    if (r == 0)
        r = ask_counters(t, selector, f);
    if (r == 0)
        r = ask_exceptions(t, selector, f);
    return r == 0 ? replay_all(t, f) : r;
}

int rules_test(struct cli *cli, struct failure *f)
{
    static const struct render_column columns[] = {
        {"HOST", false}, {"WHEN", false}, {"RULE", false}, {"VERDICT", false}, {"WHY", false}};
    struct testing t = {.cli = cli};
    buf_init(&t.text, RULES_TEXT_MAX);
    render_table_init(&t.table, columns, CLI_COUNT(columns));
    int r = run(&t, f);
    for (size_t i = 0; t.means && i < t.set->count; i++)
        names_done(&t.means[i]);
    free(t.means);
    names_done(&t.asked);
    series_done(&t.series);
    free(t.exceptions);
    rule_set_close(t.set);
    buf_done(&t.text);
    render_table_done(&t.table);
    return r;
}
