/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What counts against limits, as bytes and back. Times are kept as ages, because no clock of one
 * life means anything in the next. Invariant: a record that is not exactly what was written is
 * refused whole, and then every limit counts as used up. Called by whoever keeps the record.
 *
 * Layout (version 1): "TRWR", version byte, number of accounts; of each: length and bytes of the
 * name, fingerprint (8 bytes), 1 if firing, number of ages, ages in microseconds, oldest first;
 * then FNV-1a of all before it (8 bytes). Numbers without a size are varints.
 */
#include "rule/engine_private.h"

#include <string.h>

#include "common/text.h"

#define VERSION 1
#define HEAD_BYTES 5
#define SUM_BYTES 8
#define DAY_US UINT64_C(86400000000)

static const char magic[] = "TRWR";

static uint64_t sum_of(const uint8_t *data, size_t size_bytes)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < size_bytes; i++)
        hash = (hash ^ data[i]) * UINT64_C(1099511628211);
    return hash;
}

/* ---- writing ---- */

/* The oldest that still counts against any limit. */
static uint32_t first_that_counts(const struct account *a, int64_t now_us)
{
    uint32_t i = 0;
    while (i < a->count && a->fired_us[i] <= now_us - (int64_t)DAY_US)
        i++;
    return i;
}

static bool is_kept(const struct account *a, int64_t now_us)
{
    return a->is_firing || first_that_counts(a, now_us) < a->count;
}

static int put_account(struct buf *out, const struct account *a, int64_t now_us)
{
    uint32_t first = first_that_counts(a, now_us);
    int e = buf_append_varint(out, strlen(a->name));
    if (!e)
        e = buf_append_str(out, a->name);
    if (!e)
        e = buf_append_u64(out, a->fingerprint);
    if (!e)
        e = buf_append_byte(out, a->is_firing);
    if (!e)
        e = buf_append_varint(out, a->count - first);
    for (uint32_t i = first; !e && i < a->count; i++)
        e = buf_append_varint(out,
                              a->fired_us[i] < now_us ? (uint64_t)(now_us - a->fired_us[i]) : 0);
    return e;
}

int rule_engine_record(const struct rule_engine *e, uint64_t mono_us, struct buf *out)
{
    struct buf b;
    size_t count = 0;
    int64_t now_us = (int64_t)mono_us;
    buf_init(&b, RULE_RECORD_MAX);
    for (size_t i = 0; i < e->account_count; i++)
        count += is_kept(e->accounts[i], now_us);
    int r = buf_append_str(&b, magic);
    if (!r)
        r = buf_append_byte(&b, VERSION);
    if (!r)
        r = buf_append_varint(&b, count);
    for (size_t i = 0; !r && i < e->account_count; i++)
        if (is_kept(e->accounts[i], now_us))
            r = put_account(&b, e->accounts[i], now_us);
    if (!r)
        r = buf_append_u64(&b, sum_of(b.data, b.size_bytes));
    if (!r)
        r = buf_append_span(out, buf_span(&b));
    buf_done(&b);
    return r;
}

/* ---- reading ---- */

/* What one entry says; times are on the clock of the life that now begins. */
static int take_account(struct span *s, int64_t now_us, uint64_t elapsed_us, struct account *a)
{
    uint64_t length = 0, count = 0, age;
    uint8_t firing = 0;
    struct span name = {.data = NULL};
    int e = span_take_varint(s, &length);
    if (!e && (length < 1 || length >= sizeof a->name))
        return ERR_CORRUPT;
    if (!e)
        e = span_take(s, (size_t)length, &name);
    if (!e)
        e = text_copy_span(a->name, sizeof a->name, name) || !text_is_name(a->name);
    if (!e)
        e = span_take_u64(s, &a->fingerprint);
    if (!e)
        e = span_take_u8(s, &firing);
    if (!e)
        e = span_take_varint(s, &count);
    if (e || firing > 1 || count > RULE_LIMIT_MAX)
        return ERR_CORRUPT;
    a->is_firing = firing;
    for (uint64_t i = 0; i < count; i++) {
        if (span_take_varint(s, &age))
            return ERR_CORRUPT;
        age = age > DAY_US ? DAY_US : age;
        a->fired_us[a->count++] = now_us - (int64_t)age - (int64_t)elapsed_us;
    }
    return 0;
}

static int check(struct span record, struct failure *f)
{
    if (record.size_bytes < HEAD_BYTES + 1 + SUM_BYTES || record.size_bytes > RULE_RECORD_MAX ||
        memcmp(record.data, magic, 4) != 0)
        return fail(f, ERR_CORRUPT, "the record of rules is damaged: it is none");
    size_t body = record.size_bytes - SUM_BYTES;
    struct span tail = span_of(record.data + body, SUM_BYTES);
    uint64_t sum = 0;
    if (span_take_u64(&tail, &sum) || sum != sum_of(record.data, body))
        return fail(f, ERR_CORRUPT, "the record of rules is damaged: its check sum differs");
    if (record.data[4] != VERSION)
        return fail(f, ERR_VERSION, "the record of rules has version %u, not %d", record.data[4],
                    VERSION);
    return 0;
}

static void apply(struct rule_engine *e, const struct account *from)
{
    struct account *to = engine_account(e, from->name);
    if (!to)
        return;
    memcpy(to->fired_us, from->fired_us, sizeof to->fired_us);
    to->count = from->count;
    to->is_firing = from->is_firing && to->is_used && to->fingerprint == from->fingerprint;
}

static int read_all(struct rule_engine *e, struct span record, uint64_t mono_us,
                    uint64_t elapsed_us, bool is_applied)
{
    struct span s = span_of(record.data + HEAD_BYTES, record.size_bytes - HEAD_BYTES - SUM_BYTES);
    uint64_t count;
    if (span_take_varint(&s, &count) || count > ACCOUNTS_MAX)
        return ERR_CORRUPT;
    for (uint64_t i = 0; i < count; i++) {
        struct account a = {.count = 0};
        int r = take_account(&s, (int64_t)mono_us, elapsed_us, &a);
        if (r)
            return r;
        if (is_applied)
            apply(e, &a);
    }
    return s.size_bytes ? ERR_CORRUPT : 0;
}

/* As if each rule had just fired as often as any may. */
static void use_up(struct rule_engine *e, uint64_t mono_us)
{
    for (size_t i = 0; i < e->set->count; i++) {
        struct account *a = e->rules[i].account;
        for (uint32_t k = 0; k < RULE_LIMIT_MAX; k++)
            account_add(a, (int64_t)mono_us);
    }
}

int rule_engine_restore(struct rule_engine *e, struct span record, uint64_t mono_us,
                        uint64_t elapsed_us, struct failure *f)
{
    int r = check(record, f);
    elapsed_us = elapsed_us > DAY_US ? DAY_US : elapsed_us;
    if (!r && read_all(e, record, mono_us, elapsed_us, false))
        r = fail(f, ERR_CORRUPT, "the record of rules is damaged");
    if (r)
        use_up(e, mono_us);
    else
        (void)read_all(e, record, mono_us, elapsed_us, true);
    e->revision++;
    return r;
}

uint64_t rule_engine_revision(const struct rule_engine *e)
{
    return e->revision;
}
