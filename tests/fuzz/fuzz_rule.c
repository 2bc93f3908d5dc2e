/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of rules from hostile hands: what is refused has a sentence with its line; what is taken is
 * written back as text that is read as the same rules; and the engine runs them on series of just
 * the names they ask for, with values made from the same bytes, without firing over a limit.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "rule/engine.h"

#define SECONDS 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fired {
    const struct rule_set *set;
    uint32_t count[RULES_MAX];
};

static void decided(void *context, const struct rule_decision *d)
{
    struct fired *fired = context;
    size_t rule = (size_t)(d->rule - fired->set->rules);
    assert(rule < fired->set->count && d->sentence[0]);
    assert(memchr(d->sentence, '\0', sizeof d->sentence));
    if (d->verdict == RULE_FIRED)
        assert(++fired->count[rule] <= d->rule->limit);
}

/* Some hold a value, some rise, some have gaps. */
static int64_t value_at(const uint8_t *data, size_t size, size_t slot, size_t second)
{
    uint8_t byte = data[(slot * 7 + second * (slot % 3)) % size];
    return byte % 11 == 0 ? RULE_GAP
           : slot % 2     ? (int64_t)second * byte
                          : (int64_t)byte << slot % 40;
}

static void happen(struct rule_engine *e, const uint8_t *data, size_t size, size_t second,
                   uint64_t now_us)
{
    const struct rule_set *set = rule_engine_set(e);
    uint8_t byte = data[second % size];
    uint32_t counts[RULE_THREAD_STATES] = {byte, byte, byte, byte, byte};
    const struct rule_term *t = &set->terms[second % set->term_count];
    struct rule_event event = {byte % 14, t->type, t->of, byte, byte};
    rule_engine_exception(e, &event, now_us);
    rule_engine_process(e, t->of, byte, byte & 1, now_us);
    rule_engine_threads(e, t->of, byte, counts, now_us);
    rule_engine_loop(e, t->of, byte, (enum rule_health)(byte % 4), now_us);
    rule_engine_probe(e, t->probe, (enum rule_health)(byte % 4), t->of, byte, NULL, now_us);
    rule_engine_log(e, t->path, t->of, byte, span_of(data, size), now_us);
    if (byte == 7)
        rule_engine_processes_known(e);
}

static void run(struct rule_set *set, const uint8_t *data, size_t size)
{
    static struct fired fired;
    struct rule_engine *e;
    int64_t values[64];
    uint64_t now_us = 1;
    memset(&fired, 0, sizeof fired);
    fired.set = set;
    size_t terms = set->term_count;
    if (rule_engine_open(&e, set, decided, &fired))
        return;
    for (uint32_t slot = 0; slot < 64 && terms; slot++) {
        const struct rule_term *t = &set->terms[slot / 2 % terms];
        struct rule_series s = {slot % 2 && *t->other ? t->other : t->name,
                                slot % 3 ? t->of : "",
                                slot % 4 ? "us" : "bytes",
                                slot % 5 > 1,
                                slot,
                                slot};
        assert(rule_engine_define(e, slot, &s) >= 0);
    }
    for (size_t second = 0; second < SECONDS && terms; second++) {
        for (size_t slot = 0; slot < 64; slot++)
            values[slot] = value_at(data, size, slot, second);
        struct rule_moment m = {.mono_us = now_us, .values = values, .count = 64};
        assert(rule_engine_step(e, &m) == 0);
        happen(e, data, size, second, now_us);
        now_us += 1000000 * (data[second % size] == 99 ? 20u : 1u);
    }
    rule_engine_close(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rule_set *one = NULL, *two = NULL;
    struct failure f = {0};
    struct buf text, again;
    int e = rule_parse(span_of(data, size), NULL, &one, &f);
    if (e) {
        assert(!one && f.code == e && f.text[0]);
        return 0;
    }
    buf_init(&text, 16 * RULE_TEXT_MAX);
    buf_init(&again, 16 * RULE_TEXT_MAX);
    assert(rule_set_print(one, &text) == 0);
    /* Canonical text may be longer than a file may be: then only that is said. */
    e = rule_parse(buf_span(&text), NULL, &two, &f);
    assert(e == 0 || (e == ERR_LIMIT && text.size_bytes > RULE_TEXT_MAX));
    if (!e) {
        assert(rule_set_print(two, &again) == 0);
        assert(span_equal(buf_span(&text), buf_span(&again)) && two->count == one->count);
    }
    rule_set_close(two);
    if (size > 0)
        run(one, data, size);
    else
        rule_set_close(one);
    buf_done(&text);
    buf_done(&again);
    return 0;
}
