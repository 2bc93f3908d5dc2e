/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of rules as it is, the change that is being stored, and telling agents. Invariant:
 * `text`, `set` and `selects` are of one file, the one that the store has. Called by ops_rules.c,
 * fleet.c, firings.c.
 */
#include "collector/rules.h"

#include <stdlib.h>
#include <string.h>

#include "collector/collector.h"
#include "collector/fleet.h"
#include "collector/keys.h"
#include "collector/rules_check.h"
#include "collector/select.h"
#include "common/log.h"
#include "common/text.h"

#define TELL_MOST 500 /* agents told in one turn of the loop */

/* One file, read. */
struct reading {
    struct buf text;
    struct rule_set *set;
    struct select *selects; /* of each rule */
    uint64_t version;
    int64_t changed_us;
    char by[96];
};

struct rules {
    struct collector *collector;
    struct reading now, next;
    bool is_damaged; /* what is stored cannot be read */
    bool storing;
    bool telling; /* some agents were not told of `now` */
    store_done_fn done;
    void *context;
};

static void reading_done(struct reading *r)
{
    buf_done(&r->text);
    rule_set_close(r->set);
    free(r->selects);
    *r = (struct reading){.version = 0};
    buf_init(&r->text, RULES_FILE_MAX);
}

static int read_selectors(struct reading *r, struct failure *f)
{
    r->selects = calloc(r->set->count + 1, sizeof *r->selects);
    if (!r->selects)
        return fail(f, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < r->set->count; i++) {
        const struct rule *rule = &r->set->rules[i];
        struct failure why;
        if (select_parse(rule->selector, &r->selects[i], &why))
            return fail(f, ERR_INVALID, "line %u: rule '%.64s': %.300s", (unsigned)rule->line,
                        rule->name, why.text);
    }
    return 0;
}

/* On failure *r is empty. */
static int read_text(struct reading *r, struct span text, const struct rule_catalogue *known,
                     struct failure *f)
{
    reading_done(r);
    int e = rule_parse(text, known, &r->set, f);
    if (!e)
        e = read_selectors(r, f);
    if (!e && buf_append_span(&r->text, text))
        e = fail(f, ERR_LIMIT, "a file of rules may have %u KiB: this one has %zu",
                 RULES_FILE_MAX / 1024, text.size_bytes / 1024 + 1);
    if (e)
        reading_done(r);
    return e;
}

/* ---- opening ---- */

struct loading {
    struct rules *rules;
    int e;
};

static void got(void *context, int err, struct span value)
{
    struct loading *loading = context;
    struct reading *now = &loading->rules->now;
    trawl_v1_RuleFile *file = err ? NULL : malloc(sizeof *file);
    struct failure f = {0};
    loading->e = err == ERR_NOTFOUND ? 0 : err;
    if (!err && !file)
        loading->e = ERR_NOMEM;
    if (file) {
        loading->e = codec_get_rule_file(file, value, &f);
        if (!loading->e)
            loading->e = read_text(now, span_of(file->text.bytes, file->text.size), NULL, &f);
        now->version = file->version;
        now->changed_us = file->changed_us;
        text_copy(now->by, sizeof now->by, file->by);
    }
    free(file);
}

int rules_open(struct rules **out, struct collector *c, struct failure *f)
{
    struct rules *rules = calloc(1, sizeof *rules);
    if (!rules)
        return fail(f, ERR_NOMEM, "out of memory");
    rules->collector = c;
    reading_done(&rules->now);
    reading_done(&rules->next);
    struct loading loading = {rules, 0};
    kv_get(c->store, KEYS_RULES_PART, span_str(KEYS_RULES_SET), got, &loading);
    if (loading.e) {
        rules->is_damaged = true;
        log_error("the rules that are stored cannot be read (%s): agents go by those they have, "
                  "until 'trawl rules set'",
                  err_text(loading.e));
    }
    *out = rules;
    return 0;
}

void rules_close(struct rules *rules)
{
    if (!rules)
        return;
    reading_done(&rules->now);
    reading_done(&rules->next);
    free(rules);
}

/* ---- asking ---- */

static void fill_file(const struct reading *r, trawl_v1_RuleFile *out)
{
    memset(out, 0, sizeof *out);
    out->text.size = (pb_size_t)r->text.size_bytes;
    if (r->text.size_bytes)
        memcpy(out->text.bytes, r->text.data, r->text.size_bytes);
    out->version = r->version;
    out->count = r->set ? (uint32_t)r->set->count : 0;
    out->changed_us = r->changed_us;
    text_copy(out->by, sizeof out->by, r->by);
}

void rules_view(const struct rules *rules, trawl_v1_RuleFile *out)
{
    fill_file(&rules->now, out);
}

const struct rule *rules_for(const struct rules *rules, const struct host *host, const char *name)
{
    const struct reading *now = &rules->now;
    trawl_v1_Host *view = malloc(sizeof *view);
    const struct rule *found = NULL;
    for (size_t i = 0; view && now->set && i < now->set->count; i++) {
        if (strcmp(now->set->rules[i].name, name) != 0)
            continue;
        roster_view(rules->collector->roster, host, view);
        if (select_match(&now->selects[i], view))
            found = &now->set->rules[i];
    }
    free(view);
    return found;
}

/* ---- telling ---- */

static int put_rules_of(const struct rules *rules, const struct host *host, struct buf *out)
{
    const struct reading *now = &rules->now;
    trawl_v1_Host *view = malloc(sizeof *view);
    int e = view ? 0 : ERR_NOMEM;
    if (view)
        roster_view(rules->collector->roster, host, view);
    for (size_t i = 0; !e && now->set && i < now->set->count; i++) {
        const struct rule *rule = &now->set->rules[i];
        if (!select_match(&now->selects[i], view))
            continue;
        struct span text =
            span_of(now->text.data + rule->begin_bytes, rule->end_bytes - rule->begin_bytes);
        e = buf_append_span(out, text);
        if (!e)
            e = buf_append_byte(out, '\n');
    }
    free(view);
    return e;
}

static int send_pieces(struct session *session, struct span text, uint64_t version)
{
    trawl_v1_CollectorMessage *m = calloc(1, sizeof *m);
    int e = m ? 0 : ERR_NOMEM;
    bool is_last = false;
    for (uint32_t no = 0; !e && !is_last; no++) {
        trawl_v1_RulePiece *piece = &m->body.rules;
        size_t size = sizeof piece->text.bytes;
        if (size > text.size_bytes)
            size = text.size_bytes;
        is_last = size == text.size_bytes;
        m->which_body = trawl_v1_CollectorMessage_rules_tag;
        piece->version = version;
        piece->no = no;
        piece->last = is_last;
        piece->text.size = (pb_size_t)size;
        if (size)
            memcpy(piece->text.bytes, text.data, size);
        text = span_of(text.data + size, text.size_bytes - size);
        e = session_send(session, m);
    }
    free(m);
    return e;
}

/* False: another time. */
static bool tell(struct rules *rules, struct host *host)
{
    struct buf text;
    if (rules->is_damaged || !rules->now.version)
        return true;
    buf_init(&text, RULES_FILE_MAX + RULES_MAX);
    int e = put_rules_of(rules, host, &text);
    if (!e)
        e = send_pieces(host->session, buf_span(&text), rules->now.version);
    if (!e)
        host->rules_version = rules->now.version;
    buf_done(&text);
    return !e;
}

struct round {
    struct rules *rules;
    size_t told;
};

static int tell_host(void *context, struct host *host)
{
    struct round *round = context;
    if (!host->session || !session_is_ready(host->session) ||
        host->rules_version == round->rules->now.version)
        return 0;
    if (round->told == TELL_MOST) {
        round->rules->telling = true;
        return 1;
    }
    round->told++;
    if (!tell(round->rules, host))
        round->rules->telling = true;
    return 0;
}

static void tell_all(struct rules *rules)
{
    struct round round = {rules, 0};
    rules->telling = false;
    roster_each(rules->collector->roster, tell_host, &round);
}

void rules_tick(struct rules *rules)
{
    if (rules->telling)
        tell_all(rules);
}

void rules_host_here(struct rules *rules, struct host *host)
{
    host->rules_version = 0;
    rules_host_changed(rules, host);
}

void rules_host_changed(struct rules *rules, struct host *host)
{
    if (!host->session || !session_is_ready(host->session) || tell(rules, host))
        return;
    host->rules_version = 0;
    rules->telling = true;
}

/* ---- changing ---- */

static void on_stored(void *context, const struct failure *why)
{
    struct rules *rules = context;
    rules->storing = false;
    if (why->code) {
        reading_done(&rules->next);
    } else {
        reading_done(&rules->now);
        rules->now = rules->next;
        rules->next = (struct reading){.version = 0};
        buf_init(&rules->next.text, RULES_FILE_MAX);
        rules->is_damaged = false;
        log_info("%s changed the rules: %zu of them, version %llu", rules->now.by,
                 rules->now.set->count, (unsigned long long)rules->now.version);
    }
    rules->done(rules->context, why);
    if (!why->code)
        tell_all(rules);
}

static int store_next(struct rules *rules, struct failure *f)
{
    trawl_v1_RuleFile *file = malloc(sizeof *file);
    struct buf wire;
    buf_init(&wire, STORE_VALUE_MAX);
    int e = file ? 0 : ERR_NOMEM;
    if (file)
        fill_file(&rules->next, file);
    if (!e)
        e = codec_put_rule_file(&wire, file);
    struct store_op op = {STORE_PUT, span_str(KEYS_RULES_SET), buf_span(&wire)};
    if (!e)
        e = kv_commit(rules->collector->store, KEYS_RULES_PART, &op, 1, on_stored, rules);
    buf_done(&wire);
    free(file);
    return e ? fail(f, e, "the rules cannot be stored now: %s", err_text(e)) : 0;
}

static int change(struct rules *rules, struct span text, const struct rule_catalogue *known,
                  const char *who, store_done_fn done, void *context, struct failure *f)
{
    struct clock *clock = rules->collector->clock;
    if (rules->storing)
        return fail(f, ERR_BUSY, "another change of the rules is being stored: try again");
    int e = read_text(&rules->next, text, known, f);
    if (!e)
        e = rules_check(rules->next.set, f);
    if (!e) {
        rules->next.version = rules->now.version + 1;
        rules->next.changed_us = clock->wall_us(clock);
        text_copy(rules->next.by, sizeof rules->next.by, who);
        rules->done = done;
        rules->context = context;
        e = store_next(rules, f);
    }
    if (e)
        reading_done(&rules->next);
    rules->storing = !e;
    return e;
}

int rules_set(struct rules *rules, struct span text, bool any_counter, const char *who,
              store_done_fn done, void *context, struct failure *f)
{
    struct rules_known known = {.count = 0};
    struct rule_set *set = NULL;
    int r = rule_parse(text, NULL, &set, f);
    if (r)
        return r;
    if (!any_counter)
        rules_known_read(&known, rules->collector, set);
    rule_set_close(set);
    struct rule_catalogue catalogue = {known.counters, known.count};
    int e = change(rules, text, known.count ? &catalogue : NULL, who, done, context, f);
    rules_known_done(&known);
    return e;
}

int rules_remove(struct rules *rules, const trawl_v1_RuleNames *names, const char *who,
                 store_done_fn done, void *context, struct failure *f)
{
    struct buf text, rest;
    if (!names->names_count)
        return fail(f, ERR_INVALID, "no rule named: 'trawl rules list' lists them");
    buf_init(&text, RULES_FILE_MAX);
    int e = buf_append_span(&text, buf_span(&rules->now.text));
    if (e)
        fail(f, e, "out of memory");
    for (pb_size_t i = 0; !e && i < names->names_count; i++) {
        buf_init(&rest, RULES_FILE_MAX);
        e = rule_text_without(buf_span(&text), names->names[i], &rest, f);
        buf_done(&text);
        text = rest;
    }
    if (!e)
        e = change(rules, buf_span(&text), NULL, who, done, context, f);
    buf_done(&text);
    return e;
}
