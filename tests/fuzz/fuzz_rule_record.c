/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of rules from a disk that lies. First byte odd: the check sum is put right, so that the
 * fields behind it are reached. Whatever comes in: no rule fires over its limit, after a refusal
 * none fires, and what was taken is written back and taken again.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "rule/engine.h"

#define SUM_BYTES 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char rules[] = "rule a on * when a.a > 0 then capture logs limit 2/h\n"
                            "rule b on * when a.a > 0 then capture logs limit 20/d\n";

static void decided(void *context, const struct rule_decision *d)
{
    uint32_t *fired = context;
    if (d->verdict == RULE_FIRED)
        assert(++fired[d->rule->name[0] == 'b'] <= d->rule->limit);
}

static void put_sum(uint8_t *record, size_t size)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < size - SUM_BYTES; i++)
        hash = (hash ^ record[i]) * UINT64_C(1099511628211);
    for (size_t i = 0; i < SUM_BYTES; i++)
        record[size - SUM_BYTES + i] = (uint8_t)(hash >> 8 * i);
}

static struct rule_engine *open_engine(uint32_t *fired)
{
    struct rule_set *set;
    struct rule_engine *e;
    struct failure f;
    if (rule_parse(span_str(rules), NULL, &set, &f) || rule_engine_open(&e, set, decided, fired))
        abort();
    struct rule_series s = {"a.a", "", "1", false, 1, 0};
    assert(rule_engine_define(e, 0, &s) == 1);
    return e;
}

static void check(struct span record)
{
    uint32_t fired[2] = {0, 0}, others[2] = {0, 0};
    struct failure f = {0};
    struct buf again;
    uint64_t now_us = 1000000;
    struct rule_engine *e = open_engine(fired), *other = open_engine(others);
    int r = rule_engine_restore(e, record, now_us, record.size_bytes, &f);
    assert(r == 0 || f.text[0]);
    buf_init(&again, RULE_RECORD_MAX);
    assert(rule_engine_record(e, now_us, &again) == 0);
    assert(rule_engine_restore(other, buf_span(&again), now_us, 0, &f) == 0);
    for (int i = 0; i < 400; i++) {
        int64_t value = i % 15 == 14;
        struct rule_moment m = {.mono_us = now_us += 1000000, .values = &value, .count = 1};
        assert(rule_engine_step(e, &m) == 0);
    }
    assert(r == 0 || fired[0] + fired[1] == 0);
    rule_engine_close(e);
    rule_engine_close(other);
    buf_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t bytes = size - 1;
    uint8_t *record = malloc(bytes + 1);
    if (!record)
        return 0;
    memcpy(record, data + 1, bytes);
    if (data[0] % 2 && bytes > SUM_BYTES)
        put_sum(record, bytes);
    check(span_of(record, bytes));
    free(record);
    return 0;
}
