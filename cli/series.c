/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series on their grids. Invariant: values[i] belongs to the moment from_us + i * step_us. Pure;
 * called by cmd_counters.c.
 */
#include "cli/series.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define FIRST_SERIES 16
#define FIRST_SAMPLES 256
#define GAP INT64_MIN
#define FAR_US (INT64_C(1) << 60) /* so that differences of times are numbers too */

/* ---- putting together ---- */

static bool is_of(const struct series *s, const trawl_v1_Samples *m)
{
    const trawl_v1_Descriptor *d = &m->descriptor;
    return s->pid == d->pid && s->step_us == m->step_us && strcmp(s->host, m->host) == 0 &&
           strcmp(s->name, d->name) == 0 && strcmp(s->instance, d->instance) == 0;
}

/* Runs of one series come together: the last is looked at first. */
static struct series *find(struct series_set *set, const trawl_v1_Samples *m)
{
    for (size_t i = set->count; i > 0; i--)
        if (is_of(&set->list[i - 1], m))
            return &set->list[i - 1];
    return NULL;
}

static struct series *append_series(struct series_set *set)
{
    if (BUF_GROW(set->list, set->count, &set->capacity, FIRST_SERIES))
        return NULL;
    struct series *s = &set->list[set->count++];
    memset(s, 0, sizeof *s);
    return s;
}

static struct series *begin(struct series_set *set, const trawl_v1_Samples *m)
{
    struct series *s = append_series(set);
    if (!s)
        return NULL;
    text_copy(s->host, sizeof s->host, m->host);
    text_copy(s->name, sizeof s->name, m->descriptor.name);
    text_copy(s->instance, sizeof s->instance, m->descriptor.instance);
    text_copy(s->unit, sizeof s->unit, m->descriptor.unit);
    s->kind = m->descriptor.kind;
    s->pid = m->descriptor.pid;
    s->from_us = m->from_us;
    s->step_us = m->step_us;
    return s;
}

static int reserve(struct series *s, size_t count)
{
    if (count > SERIES_MAX_SAMPLES)
        return ERR_LIMIT;
    if (count <= s->capacity)
        return 0;
    size_t capacity = s->capacity ? s->capacity : FIRST_SAMPLES;
    while (capacity < count)
        capacity *= 2;
    double *values = calloc(capacity, sizeof *values);
    if (!values)
        return ERR_NOMEM;
    if (s->count > 0)
        memcpy(values, s->values, s->count * sizeof *values);
    free(s->values);
    s->values = values;
    s->capacity = capacity;
    return 0;
}

/* Makes the grid hold [from, from + count) in steps relative to its present begin. */
static int widen(struct series *s, int64_t from, size_t count)
{
    assert(count > 0);
    size_t before = from < 0 ? (size_t)-from : 0;
    int64_t end = from + (int64_t)count;
    size_t after = end > (int64_t)s->count ? (size_t)(end - (int64_t)s->count) : 0;
    if (before > SERIES_MAX_SAMPLES || after > SERIES_MAX_SAMPLES)
        return ERR_LIMIT;
    int r = reserve(s, before + s->count + after);
    if (r < 0)
        return r;
    assert(s->values);
    if (before > 0 && s->count > 0)
        memmove(s->values + before, s->values, s->count * sizeof *s->values);
    for (size_t i = 0; i < before; i++)
        s->values[i] = NAN;
    for (size_t i = 0; i < after; i++)
        s->values[before + s->count + i] = NAN;
    s->count += before + after;
    s->from_us -= (int64_t)before * s->step_us;
    return 0;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

int series_add(struct series_set *set, const trawl_v1_Samples *m)
{
    bool is_far = m->from_us > FAR_US || m->from_us < -FAR_US;
    if (m->step_us == 0 || !m->has_descriptor || is_far)
        return ERR_INVALID;
    if (m->values_count == 0)
        return 0;
    struct series *s = find(set, m);
    if (!s && !(s = begin(set, m)))
        return ERR_NOMEM;
    double scale = m->descriptor.scale ? m->descriptor.scale : 1;
    int64_t at = floor_div(m->from_us - s->from_us + m->step_us / 2, m->step_us);
    int r = widen(s, at, m->values_count);
    if (r < 0)
        return r;
    at = at < 0 ? 0 : at;
    for (pb_size_t i = 0; i < m->values_count; i++)
        if (m->values[i] != GAP)
            s->values[(size_t)at + i] = (double)m->values[i] / scale;
    if (m->skew_error_us > s->skew_error_us)
        s->skew_error_us = m->skew_error_us;
    if (!s->gap_reason[0])
        text_copy(s->gap_reason, sizeof s->gap_reason, m->gap_reason);
    return 0;
}

void series_done(struct series_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        free(set->list[i].values);
    free(set->list);
    *set = (struct series_set){.list = NULL};
}

static int compare(const void *a, const void *b)
{
    const struct series *x = a, *y = b;
    int r = strcmp(x->name, y->name);
    if (r == 0)
        r = strcmp(x->host, y->host);
    if (r == 0)
        r = strcmp(x->instance, y->instance);
    if (r == 0)
        r = x->pid < y->pid ? -1 : x->pid > y->pid;
    if (r == 0)
        r = x->step_us < y->step_us ? -1 : x->step_us > y->step_us;
    return r;
}

void series_sort(struct series_set *set)
{
    if (set->count > 1)
        qsort(set->list, set->count, sizeof *set->list, compare);
}

/* ---- turning ---- */

static void to_rate(struct series *s)
{
    double seconds = (double)s->step_us / 1e6;
    for (size_t i = 0; i + 1 < s->count; i++) {
        double more = s->values[i + 1] - s->values[i];
        s->values[i] = more >= 0 ? more / seconds : NAN;
    }
    if (s->count > 0)
        s->count--;
    s->from_us += s->step_us;
    s->is_rate = true;
}

void series_rates(struct series_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        if (set->list[i].kind == trawl_v1_Kind_COUNT && !set->list[i].is_rate)
            to_rate(&set->list[i]);
}

/* In place: a bin is never before the first sample that falls into it. */
static void resample(struct series *s, int64_t step_us)
{
    int64_t first = floor_div(s->from_us, step_us);
    size_t bins = 0, i = 0;
    while (i < s->count) {
        int64_t bin = floor_div(s->from_us + (int64_t)i * s->step_us, step_us);
        double sum = 0;
        size_t present = 0;
        for (; i < s->count && floor_div(s->from_us + (int64_t)i * s->step_us, step_us) == bin; i++)
            if (!isnan(s->values[i])) {
                sum += s->values[i];
                present++;
            }
        s->values[bins++] = present ? sum / (double)present : NAN;
    }
    s->count = bins;
    s->from_us = first * step_us;
    s->step_us = (uint32_t)step_us;
}

/* A step finer than what was sampled would make bins out of nothing. */
int series_resample(struct series_set *set, int64_t step_us)
{
    if (step_us <= 0 || step_us > UINT32_MAX)
        return ERR_INVALID;
    for (size_t i = 0; i < set->count; i++)
        if (step_us < set->list[i].step_us)
            return ERR_INVALID;
    for (size_t i = 0; i < set->count; i++)
        resample(&set->list[i], step_us);
    return 0;
}

/* ---- sums ---- */

static bool same_sum(const struct series *a, const struct series *b)
{
    return a->step_us == b->step_us && a->is_rate == b->is_rate && strcmp(a->host, b->host) == 0 &&
           strcmp(a->name, b->name) == 0;
}

/* Widens `sum` to hold `s`, then adds. `held` says where something was added already. */
static int add_to_sum(struct series *sum, bool **held, const struct series *s)
{
    int64_t at = floor_div(s->from_us - sum->from_us + s->step_us / 2, s->step_us);
    size_t before = at < 0 ? (size_t)-at : 0, count = sum->count;
    int r = widen(sum, at, s->count);
    if (r < 0)
        return r;
    bool *grown = realloc(*held, sum->count ? sum->count * sizeof **held : 1);
    if (!grown)
        return ERR_NOMEM;
    *held = grown;
    memmove(grown + before, grown, count * sizeof *grown);
    memset(grown, 0, before * sizeof *grown);
    memset(grown + before + count, 0, (sum->count - before - count) * sizeof *grown);
    at = at < 0 ? 0 : at;
    for (size_t i = 0; i < s->count; i++) {
        size_t k = (size_t)at + i;
        sum->values[k] = grown[k] ? sum->values[k] + s->values[i] : s->values[i];
        grown[k] = true;
    }
    if (s->skew_error_us > sum->skew_error_us)
        sum->skew_error_us = s->skew_error_us;
    if (!sum->gap_reason[0])
        text_copy(sum->gap_reason, sizeof sum->gap_reason, s->gap_reason);
    return 0;
}

static int sum_run(struct series_set *out, const struct series *run, size_t count)
{
    bool *held = NULL;
    struct series *sum = append_series(out);
    if (!sum)
        return ERR_NOMEM;
    *sum = run[0];
    sum->values = NULL;
    sum->count = sum->capacity = 0;
    sum->instance[0] = '\0';
    sum->pid = 0;
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++)
        r = run[i].count > 0 ? add_to_sum(sum, &held, &run[i]) : 0;
    free(held);
    return r;
}

int series_sum_by_host(struct series_set *set)
{
    struct series_set sums = {.list = NULL};
    int r = 0;
    series_sort(set);
    for (size_t i = 0, n; r == 0 && i < set->count; i += n) {
        for (n = 1; i + n < set->count && same_sum(&set->list[i], &set->list[i + n]); n++)
            ;
        r = sum_run(&sums, &set->list[i], n);
    }
    if (r < 0) {
        series_done(&sums);
        return r;
    }
    series_done(set);
    *set = sums;
    return 0;
}

struct series_summary series_summarise(const struct series *s)
{
    struct series_summary m = {.last = NAN, .least = NAN, .most = NAN, .mean = NAN};
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) {
        double v = s->values[i];
        if (isnan(v)) {
            m.gaps++;
            continue;
        }
        m.least = m.present == 0 || v < m.least ? v : m.least;
        m.most = m.present == 0 || v > m.most ? v : m.most;
        m.last = v;
        sum += v;
        m.present++;
    }
    if (m.present)
        m.mean = sum / (double)m.present;
    return m;
}
