/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conditions on what happens: process, exception, log, hang. Invariant: a rule names processes and
 * files by pattern, among those that are followed anyway; nothing here leads to a file being opened
 * or a program being run. Called by parse_condition.c.
 */
#include "rule/parse_private.h"

#include <string.h>

#include "common/text.h"

#define MOMENT_US INT64_C(1000000) /* of what is not said "N times in D" */
#define DAY_US (24 * INT64_C(3600000000))
#define PROBE_LEAST_US INT64_C(100000)
#define PROBE_MOST_US INT64_C(3600000000)

static int parse_process_glob(struct parser *p, const char *what, unsigned wants, const char **out)
{
    const struct token *t = parse_peek(p);
    int e = parse_name(p, what, out);
    if (!e && strchr(*out, '/'))
        return parse_fail(p, t, "'%s' is a path: a process is meant by its name", *out);
    if (!e && wants)
        e = parse_interest(p, *out, wants);
    return e;
}

/* [of PROCESS] */
static int parse_of(struct parser *p, unsigned wants, const char **out)
{
    if (!parse_take(p, "of"))
        return 0;
    return parse_process_glob(p, "the name of a process behind 'of'", wants, out);
}

/* [N times in D] */
static int parse_times(struct parser *p, struct rule_term *t)
{
    const struct token *at = parse_peek(p);
    t->times = 1;
    t->window_us = MOMENT_US;
    if (at->kind != TOKEN_WORD || at->is_quoted || at->text[0] < '0' || at->text[0] > '9')
        return 0;
    int e = parse_count(p, "how many times", RULE_TIMES_MAX, &t->times);
    if (!e && !parse_take(p, "time"))
        e = parse_expect(p, "times", "'times in DURATION'");
    if (!e)
        e = parse_expect(p, "in", "'in DURATION'");
    return e ? e : parse_duration(p, "a duration such as '10m'", MOMENT_US, DAY_US, &t->window_us);
}

/* ---- process ---- */

static const char *const states[] = {"running", "sleeping", "uninterruptible",
                                     "stopped", "zombie",   NULL};

const char *rule_state_word(enum rule_thread_state state)
{
    return states[state];
}

static int parse_state(struct parser *p, struct rule_term *t)
{
    char hint[PARSE_HINT_SIZE];
    const struct token *at = parse_peek(p);
    const char *word;
    int e = parse_name(p, "a state of threads", &word);
    if (e)
        return e;
    for (size_t i = 0; states[i]; i++) {
        if (strcmp(word, states[i]) != 0)
            continue;
        t->state = (enum rule_thread_state)i;
        return 0;
    }
    parse_hint(word, states, hint, sizeof hint);
    return parse_fail(p, at, "unknown state '%s'%s", word,
                      hint[0] ? hint
                              : ": there are running, sleeping, uninterruptible, stopped, zombie");
}

static int parse_threads(struct parser *p, struct rule_term *t)
{
    t->kind = RULE_THREADS;
    int e = parse_expect(p, "in", "'in' and a state, as in 'threads in uninterruptible > 10'");
    if (!e)
        e = parse_state(p, t);
    if (!e)
        e = parse_compare(p, &t->compare);
    const struct token *at = parse_peek(p);
    if (!e && (at->kind != TOKEN_WORD || rule_number_parse(at->text, &t->limit) ||
               t->limit.unit != RULE_PLAIN || t->limit.per != RULE_LEVEL || t->limit.milli < 0 ||
               t->limit.milli % 1000))
        return parse_expected(p, "a number of threads");
    if (e)
        return e;
    parse_next(p);
    return parse_interest(p, t->of, RULE_WANTS_THREADS);
}

int parse_process(struct parser *p, struct rule_term *t)
{
    int e = parse_process_glob(p, "the name of a process", 0, &t->of);
    if (e)
        return e;
    if (parse_take(p, "not")) {
        t->kind = RULE_NOT_RUNNING;
        e = parse_expect(p, "running", "'running'");
    } else if (parse_take(p, "restarted")) {
        t->kind = RULE_RESTARTED;
        e = parse_times(p, t);
    } else if (parse_take(p, "threads")) {
        return parse_threads(p, t);
    } else {
        return parse_expected(p, "'not running', 'restarted' or 'threads in STATE > N' (counters "
                                 "are written 'process.rss of NAME > 2G')");
    }
    return e ? e : parse_interest(p, t->of, RULE_WANTS_RUNNING);
}

/* ---- exception ---- */

/* By the numbers of trawl.v1.ExceptionSource; the words are those that trawl exceptions shows, as
 * one word. */
static const char *const sources[] = {"crash",     "oom-kill",    "fault-line",   "hung-task",
                                      "hardware",  "unit-result", "process-exit", "log-trace",
                                      "c++-throw", "hang",        "reported",     "windows-error",
                                      NULL};
#define SOURCES (sizeof sources / sizeof sources[0] - 1)

const char *rule_source_word(uint32_t source)
{
    return source >= 1 && source <= SOURCES ? sources[source - 1] : NULL;
}

static bool ends_term(const struct parser *p)
{
    static const char *const words[] = {"and", "or", "for", "then", "of", "type", NULL};
    const struct token *t = parse_peek(p);
    for (size_t i = 0; words[i]; i++)
        if (parse_sees(p, words[i]))
            return true;
    return t->kind != TOKEN_WORD || (t->text[0] >= '0' && t->text[0] <= '9');
}

static int parse_source(struct parser *p, struct rule_term *t)
{
    char hint[PARSE_HINT_SIZE];
    const struct token *at = parse_peek(p);
    if (ends_term(p))
        return 0;
    for (uint32_t i = 0; i < SOURCES; i++) {
        if (!parse_take(p, sources[i]))
            continue;
        t->source = i + 1;
        return 0;
    }
    parse_hint(at->text, sources, hint, sizeof hint);
    return parse_fail(p, at, "unknown source of exceptions '%s'%s", at->text,
                      hint[0] ? hint
                              : ": there are crash, oom-kill, fault-line, hung-task, hardware, "
                                "unit-result, process-exit, log-trace, c++-throw, hang, reported, "
                                "windows-error; a type is written 'exception type SIGSEGV'");
}

int parse_exception(struct parser *p, struct rule_term *t)
{
    t->kind = RULE_EXCEPTION;
    int e = parse_source(p, t);
    if (!e && parse_take(p, "type"))
        e = parse_name(p, "a type such as SIGSEGV or 'java.lang.*'", &t->type);
    if (!e)
        e = parse_of(p, 0, &t->of);
    return e ? e : parse_times(p, t);
}

/* ---- log ---- */

int parse_log(struct parser *p, struct rule_term *t)
{
    t->kind = RULE_LOG;
    const struct token *at = parse_peek(p);
    int e;
    if (parse_sees(p, "of")) {
        e = parse_of(p, RULE_WANTS_LOG, &t->of);
    } else {
        e = parse_name(p, "the path of a followed log, or 'of' and a process", &t->path);
        if (!e && t->path[0] != '/' && t->path[0] != '*')
            return parse_fail(p, at,
                              "'%s' is no whole path: '/var/log/shop/*.log' or 'log of "
                              "PROCESS' would be right",
                              t->path);
    }
    if (!e)
        e = parse_expect(p, "has", "'has' and a pattern");
    if (!e)
        e = parse_name(p, "a pattern such as \"connection refused\"", &t->pattern);
    return e ? e : parse_times(p, t);
}

/* ---- hang ---- */

static bool is_ipv4(struct span host)
{
    uint64_t part;
    for (int i = 0; i < 4; i++) {
        if (text_take_u64(&host, &part) || part > 255)
            return false;
        if (i == 3 || host.size_bytes == 0 || host.data[0] != '.')
            return i == 3 && host.size_bytes == 0;
        host = span_of(host.data + 1, host.size_bytes - 1);
    }
    return false;
}

static bool is_ipv6(struct span host)
{
    size_t colons = 0;
    for (size_t i = 0; i < host.size_bytes; i++) {
        colons += host.data[i] == ':';
        if (!strchr("0123456789abcdefABCDEF:.", host.data[i]) || !host.data[i])
            return false;
    }
    return colons >= 2 && host.size_bytes < 46;
}

/* HOST[:PORT], HOST an address, of version 6 in brackets. */
static int check_address(struct parser *p, const struct token *at, struct span s, bool needs_port)
{
    const char *text = (const char *)s.data;
    size_t end = 0;
    bool is_bracketed = s.size_bytes > 0 && text[0] == '[';
    while (end < s.size_bytes && text[end] != (is_bracketed ? ']' : ':'))
        end++;
    bool is_address = is_bracketed
                          ? end < s.size_bytes && is_ipv6(span_of(text + 1, end ? end - 1 : 0))
                          : is_ipv4(span_of(text, end));
    if (!is_address)
        return parse_fail(p, at,
                          "'%s': its host is no address such as 127.0.0.1 or [::1] (names "
                          "are not looked up)",
                          at->text);
    struct span port = span_of(text + end + is_bracketed, s.size_bytes - end - is_bracketed);
    uint64_t number = 0;
    if (port.size_bytes == 0 && !needs_port)
        return 0;
    if (port.size_bytes < 2 || port.data[0] != ':')
        return parse_fail(p, at, "'%s': a port is missing", at->text);
    port = span_of(port.data + 1, port.size_bytes - 1);
    if (text_take_u64(&port, &number) || port.size_bytes || number < 1 || number > 65535)
        return parse_fail(p, at, "'%s': its port is no number from 1 to 65535", at->text);
    return 0;
}

static int check_printable(struct parser *p, const struct token *at, const char *text)
{
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c > '~')
            return parse_fail(p, at, "'%s' holds a blank or a letter outside of ASCII", at->text);
    return 0;
}

static int check_unit(struct parser *p, const struct token *at, const char *unit)
{
    static const char fine[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@";
    if (!unit[0] || unit[0] == '-' || unit[strspn(unit, fine)])
        return parse_fail(p, at, "'%s' is no name of a unit", unit);
    return 0;
}

static int parse_target(struct parser *p, struct rule_probe *probe)
{
    const struct token *at = parse_peek(p);
    int e = parse_name(p,
                       "what may hang: tcp:HOST:PORT, http://HOST/PATH, unit-watchdog:UNIT or "
                       "'loop of PROCESS'",
                       &probe->target);
    if (!e)
        e = check_printable(p, at, probe->target);
    if (e)
        return e;
    if (strncmp(at->text, "tcp:", 4) == 0) {
        probe->kind = RULE_TCP;
        return check_address(p, at, span_str(at->text + 4), true);
    }
    if (strncmp(at->text, "http://", 7) == 0) {
        probe->kind = RULE_HTTP;
        return check_address(p, at, span_of(at->text + 7, strcspn(at->text + 7, "/")), false);
    }
    if (strncmp(at->text, "unit-watchdog:", 14) == 0) {
        probe->kind = RULE_WATCHDOG;
        probe->every_us = INT64_C(30000000);
        probe->failures = 1;
        return check_unit(p, at, at->text + 14);
    }
    return parse_fail(p, at,
                      "unknown probe '%s': there are tcp:HOST:PORT, http://HOST/PATH, "
                      "unit-watchdog:UNIT and 'loop of PROCESS'",
                      at->text);
}

static int check_probe_times(struct parser *p, const struct token *at, const struct rule_probe *r)
{
    if (r->every_us < PROBE_LEAST_US || r->every_us > PROBE_MOST_US ||
        r->timeout_us < PROBE_LEAST_US || r->timeout_us > PROBE_MOST_US)
        return parse_fail(p, at, "'%s': times are from 100ms to 1h", at->text);
    return 0;
}

/* One of: every=5s timeout=2s failures=3 send=TEXT. */
static int parse_option(struct parser *p, struct rule_probe *r)
{
    const struct token *at = parse_next(p);
    const char *value = strchr(at->text, '=') + 1;
    uint64_t failures;
    int e;
    if (strncmp(at->text, "every=", 6) == 0) {
        e = text_duration_us(value, &r->every_us);
    } else if (strncmp(at->text, "timeout=", 8) == 0) {
        e = text_duration_us(value, &r->timeout_us);
    } else if (strncmp(at->text, "failures=", 9) == 0) {
        e = text_u64_in(value, 1, 1000, &failures);
        r->failures = e ? r->failures : (uint32_t)failures;
    } else if (strncmp(at->text, "send=", 5) == 0 && r->kind == RULE_TCP && *value) {
        r->send = value;
        e = strchr(value, ',') || strlen(value) > 63 ? ERR_INVALID : 0;
        return e ? parse_fail(p, at, "'%s': at most 63 characters without a comma", at->text)
                 : check_printable(p, at, value);
    } else {
        return parse_fail(p, at,
                          "unknown option '%s': there are every=5s, timeout=2s, failures=3 "
                          "and, for tcp, send=TEXT",
                          at->text);
    }
    return e ? parse_fail(p, at, "'%s': a duration such as 5s, or 1 to 1000 failures, is expected",
                          at->text)
             : check_probe_times(p, at, r);
}

static bool is_same_probe(const struct rule_probe *a, const struct rule_probe *b)
{
    return strcmp(a->target, b->target) == 0 && strcmp(a->send, b->send) == 0 &&
           a->every_us == b->every_us && a->timeout_us == b->timeout_us &&
           a->failures == b->failures;
}

static int add_probe(struct parser *p, const struct rule_probe *probe, uint32_t *out)
{
    struct rule_set *s = p->set;
    for (*out = 0; *out < s->probe_count; (*out)++)
        if (is_same_probe(&s->probes[*out], probe))
            return 0;
    if (s->probe_count == RULE_PROBES_MAX)
        return fail(p->f, ERR_LIMIT, "line %u: more than %d different probes",
                    (unsigned)parse_peek(p)->line, RULE_PROBES_MAX);
    s->probes[s->probe_count++] = *probe;
    return 0;
}

int parse_hang(struct parser *p, struct rule_term *t)
{
    struct rule_probe probe = {
        .target = "", .send = "", .every_us = 5000000, .timeout_us = 2000000, .failures = 3};
    if (parse_take(p, "loop")) {
        t->kind = RULE_LOOP;
        if (!parse_sees(p, "of"))
            return parse_expected(p, "'of' and the process whose event loop it is");
        return parse_of(p, RULE_WANTS_LOOP, &t->of);
    }
    t->kind = RULE_PROBE;
    int e = parse_target(p, &probe);
    while (!e && parse_peek(p)->kind == TOKEN_WORD && strchr(parse_peek(p)->text, '='))
        e = parse_option(p, &probe);
    return e ? e : add_probe(p, &probe, &t->probe);
}
