/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How counters look. Invariant: every form shows gaps as gaps. Pure; called by cmd_counters.c.
 */
#include "cli/render_series.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/jsonl.h"
#include "common/text.h"

#define SIDE_BY_SIDE 8 /* series in columns; more are shown one row per sample */
#define LABEL_LIMIT 256
#define PLOT_BESIDE 64
#define PLOT_LEAST 20
#define PLOT_MOST 120

/* Time spent per second is a share: 1,000,000 us/s are one core, or one disk, wholly busy. */
static void render_sample(const struct series *s, double value, char *out)
{
    char number[RENDER_TEXT_SIZE];
    if (isnan(value)) {
        text_copy(out, RENDER_TEXT_SIZE, RENDER_GAP);
    } else if (s->is_rate && strcmp(s->unit, "us") == 0) {
        text_format(out, RENDER_TEXT_SIZE, "%.1f %%", value / 1e4);
    } else {
        render_value(value, s->unit, number);
        text_format(out, RENDER_TEXT_SIZE, "%s%s", number, s->is_rate ? "/s" : "");
    }
}

static const char *kind_text(const struct series *s)
{
    return s->is_rate ? "rate" : s->kind == trawl_v1_Kind_COUNT ? "count" : "gauge";
}

static const char *or_blank(const char *text)
{
    return text[0] ? text : " ";
}

static void sample_cell(struct render_table *t, const struct series *s, double value)
{
    char text[RENDER_TEXT_SIZE];
    render_sample(s, value, text);
    render_cell(t, RENDER_PLAIN, text);
}

static void pid_cell(struct render_table *t, const struct series *s)
{
    if (s->pid)
        render_cellf(t, RENDER_PLAIN, "%u", s->pid);
    else
        render_cell(t, RENDER_PLAIN, " ");
}

static void label_cells(struct render_table *t, const struct series *s)
{
    render_cell(t, RENDER_PLAIN, s->host);
    render_cell(t, RENDER_PLAIN, s->name);
    render_cell(t, RENDER_PLAIN, or_blank(s->instance));
}

/* ---- one row per series ---- */

static const struct render_column SUMMARY[] = {
    {"HOST", false},   {"COUNTER", false}, {"INSTANCE", false}, {"PID", true},
    {"LAST", true},    {"MIN", true},      {"AVG", true},       {"MAX", true},
    {"SAMPLES", true}, {"GAPS", true},     {"WHY", false},
};
#define SUMMARY_COUNT (sizeof SUMMARY / sizeof SUMMARY[0])

int render_series_summary(const struct series_set *set, bool wide, bool color, struct buf *out)
{
    struct render_table t;
    render_table_init(&t, SUMMARY, wide ? SUMMARY_COUNT : SUMMARY_COUNT - 1);
    for (size_t i = 0; i < set->count; i++) {
        const struct series *s = &set->list[i];
        struct series_summary m = series_summarise(s);
        label_cells(&t, s);
        pid_cell(&t, s);
        sample_cell(&t, s, m.last);
        sample_cell(&t, s, m.least);
        sample_cell(&t, s, m.mean);
        sample_cell(&t, s, m.most);
        render_cellf(&t, RENDER_PLAIN, "%zu", m.present);
        render_cellf(&t, m.gaps ? RENDER_WARN : RENDER_PLAIN, "%zu", m.gaps);
        if (wide)
            render_cell(&t, RENDER_PLAIN, or_blank(s->gap_reason));
    }
    int r = render_table_put(&t, color, out);
    render_table_done(&t);
    return r;
}

/* ---- rows of time ---- */

static int64_t first_us(const struct series_set *set)
{
    int64_t first = INT64_MAX;
    for (size_t i = 0; i < set->count; i++)
        if (set->list[i].from_us < first)
            first = set->list[i].from_us;
    return first;
}

static int64_t last_us(const struct series_set *set)
{
    int64_t last = INT64_MIN;
    for (size_t i = 0; i < set->count; i++) {
        const struct series *s = &set->list[i];
        int64_t end = s->from_us + (int64_t)s->count * s->step_us;
        if (end > last)
            last = end;
    }
    return last;
}

/* The value in the step that begins at `us`. */
static double value_at(const struct series *s, int64_t us)
{
    if (us + s->step_us <= s->from_us)
        return NAN;
    int64_t i = (us - s->from_us + s->step_us - 1) / s->step_us;
    return i < 0 || i >= (int64_t)s->count ? NAN : s->values[i];
}

static bool differ(const struct series_set *set, bool by_name)
{
    for (size_t i = 1; i < set->count; i++)
        if (by_name ? strcmp(set->list[i].name, set->list[0].name) != 0
                    : strcmp(set->list[i].host, set->list[0].host) != 0)
            return true;
    return false;
}

/* What tells this column from the others. */
static int put_label(const struct series_set *set, const struct series *s, struct buf *out)
{
    struct buf raw;
    buf_init(&raw, LABEL_LIMIT);
    bool names = differ(set, true), hosts = differ(set, false);
    int r = 0;
    if (hosts || !names)
        r = buf_printf(&raw, "%s", s->host);
    if (r == 0 && names)
        r = buf_printf(&raw, "%s%s", raw.size_bytes ? " " : "", s->name);
    if (r == 0 && s->instance[0])
        r = buf_printf(&raw, "/%s", s->instance);
    if (r == 0 && s->pid)
        r = buf_printf(&raw, "[%u]", s->pid);
    if (r == 0)
        r = text_append_safe(out, buf_span(&raw), false);
    if (r == 0)
        r = buf_append_byte(out, '\0');
    buf_done(&raw);
    return r;
}

static int put_side_by_side(const struct series_set *set, int64_t now_us, bool color,
                            struct buf *out)
{
    struct render_column columns[1 + SIDE_BY_SIDE] = {{"TIME", false}};
    struct render_table t;
    struct buf labels;
    char when[RENDER_TEXT_SIZE];
    int r = 0;
    buf_init(&labels, SIDE_BY_SIDE * 8 * LABEL_LIMIT);
    for (size_t i = 0; r == 0 && i < set->count; i++)
        r = put_label(set, &set->list[i], &labels);
    if (r == 0) {
        const char *label = (const char *)labels.data;
        for (size_t i = 0; i < set->count; i++, label += strlen(label) + 1)
            columns[1 + i] = (struct render_column){label, true};
        render_table_init(&t, columns, 1 + set->count);
        int64_t end = last_us(set), step = set->list[0].step_us;
        for (int64_t us = first_us(set); us < end && t.error == 0; us += step) {
            render_clock(us, now_us, when);
            render_cell(&t, RENDER_PLAIN, when);
            for (size_t i = 0; i < set->count; i++)
                sample_cell(&t, &set->list[i], value_at(&set->list[i], us));
        }
        r = render_table_put(&t, color, out);
        render_table_done(&t);
    }
    buf_done(&labels);
    return r;
}

static int put_long(const struct series_set *set, int64_t now_us, bool color, struct buf *out)
{
    static const struct render_column columns[] = {{"TIME", false},    {"HOST", false},
                                                   {"COUNTER", false}, {"INSTANCE", false},
                                                   {"PID", true},      {"VALUE", true}};
    struct render_table t;
    char when[RENDER_TEXT_SIZE];
    render_table_init(&t, columns, sizeof columns / sizeof columns[0]);
    for (size_t i = 0; i < set->count; i++) {
        const struct series *s = &set->list[i];
        for (size_t k = 0; k < s->count; k++) {
            render_clock(s->from_us + (int64_t)k * s->step_us, now_us, when);
            render_cell(&t, RENDER_PLAIN, when);
            label_cells(&t, s);
            pid_cell(&t, s);
            sample_cell(&t, s, s->values[k]);
        }
    }
    int r = render_table_put(&t, color, out);
    render_table_done(&t);
    return r;
}

int render_series_times(const struct series_set *set, int64_t now_us, bool color, struct buf *out)
{
    if (set->count == 0)
        return 0;
    return set->count <= SIDE_BY_SIDE ? put_side_by_side(set, now_us, color, out)
                                      : put_long(set, now_us, color, out);
}

/* ---- plots ---- */

static int plot_cell(struct render_table *t, const struct series *s, size_t width)
{
    struct buf line;
    bool *gaps = calloc(s->count ? s->count : 1, sizeof *gaps);
    if (!gaps)
        return ERR_NOMEM;
    for (size_t i = 0; i < s->count; i++)
        gaps[i] = isnan(s->values[i]);
    buf_init(&line, 8 * PLOT_MOST);
    int r = render_sparkline(&line, s->values, gaps, s->count, width);
    render_cell(t, RENDER_PLAIN, buf_str(&line));
    buf_done(&line);
    free(gaps);
    return r;
}

int render_series_plot(const struct series_set *set, unsigned columns, bool color, struct buf *out)
{
    static const struct render_column titles[] = {
        {"HOST", false}, {"COUNTER", false}, {"INSTANCE", false}, {"MIN", true},
        {"MAX", true},   {"LAST", true},     {"PLOT", false}};
    struct render_table t;
    size_t width = columns > PLOT_BESIDE + PLOT_LEAST ? columns - PLOT_BESIDE : PLOT_LEAST;
    int r = 0;
    render_table_init(&t, titles, sizeof titles / sizeof titles[0]);
    for (size_t i = 0; r == 0 && i < set->count; i++) {
        struct series_summary m = series_summarise(&set->list[i]);
        label_cells(&t, &set->list[i]);
        sample_cell(&t, &set->list[i], m.least);
        sample_cell(&t, &set->list[i], m.most);
        sample_cell(&t, &set->list[i], m.last);
        r = plot_cell(&t, &set->list[i], width < PLOT_MOST ? width : PLOT_MOST);
    }
    if (r == 0)
        r = render_table_put(&t, color, out);
    render_table_done(&t);
    return r;
}

/* ---- for programs ---- */

int render_series_json(const struct series *s, struct buf *out)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_str(&j, "host", s->host);
    jsonl_str(&j, "counter", s->name);
    jsonl_str(&j, "instance", s->instance);
    if (s->pid)
        jsonl_u64(&j, "pid", s->pid);
    jsonl_str(&j, "unit", s->unit);
    jsonl_str(&j, "kind", kind_text(s));
    jsonl_time(&j, "from", s->from_us);
    jsonl_u64(&j, "step_us", s->step_us);
    jsonl_int(&j, "skew_error_us", s->skew_error_us);
    jsonl_str(&j, "gap_reason", s->gap_reason);
    jsonl_list(&j, "values");
    for (size_t i = 0; i < s->count; i++)
        jsonl_real(&j, NULL, s->values[i]);
    return jsonl_line(&j);
}

/* RFC 4180, and safe for a terminal. */
static int csv_text(struct buf *out, const char *text)
{
    struct buf safe;
    if (!strpbrk(text, ",\"\r\n"))
        return text_append_safe(out, span_str(text), false);
    buf_init(&safe, 8 * LABEL_LIMIT);
    int r = text_append_safe(&safe, span_str(text), false);
    if (r == 0)
        r = buf_append_byte(out, '"');
    for (size_t i = 0; r == 0 && i < safe.size_bytes; i++) {
        if (safe.data[i] == '"')
            r = buf_append_byte(out, '"');
        if (r == 0)
            r = buf_append_byte(out, safe.data[i]);
    }
    buf_done(&safe);
    return r < 0 ? r : buf_append_byte(out, '"');
}

static int csv_row(const struct series *s, size_t i, struct buf *out)
{
    const char *const texts[] = {s->host, s->name, s->instance};
    char when[32];
    text_put_time(s->from_us + (int64_t)i * s->step_us, when, sizeof when);
    int r = buf_append_str(out, when);
    for (size_t k = 0; r == 0 && k < sizeof texts / sizeof texts[0]; k++) {
        r = buf_append_byte(out, ',');
        if (r == 0)
            r = csv_text(out, texts[k]);
    }
    if (r == 0)
        r = buf_printf(out, ",%u,", s->pid);
    if (r == 0)
        r = csv_text(out, s->unit);
    if (r == 0)
        r = buf_append_str(out, s->is_rate ? "/s," : ",");
    if (r == 0 && !isnan(s->values[i]))
        r = buf_printf(out, "%.15g", s->values[i]);
    return r < 0 ? r : buf_append_byte(out, '\n');
}

int render_series_csv(const struct series *s, bool title, struct buf *out)
{
    int r = title ? buf_append_str(out, "time,host,counter,instance,pid,unit,value\n") : 0;
    for (size_t i = 0; r == 0 && i < s->count; i++)
        r = csv_row(s, i, out);
    return r;
}

/* ---- names ---- */

const struct render_column *render_name_columns(size_t *count)
{
    static const struct render_column columns[] = {
        {"COUNTER", false}, {"UNIT", false}, {"KIND", false}, {"HOSTS", true}, {"SERIES", true}};
    *count = sizeof columns / sizeof columns[0];
    return columns;
}

static const char *name_kind(const trawl_v1_CounterName *name)
{
    return name->kind == trawl_v1_Kind_COUNT   ? "count"
           : name->kind == trawl_v1_Kind_GAUGE ? "gauge"
                                               : "unknown";
}

void render_name_row(struct render_table *t, const trawl_v1_CounterName *name)
{
    render_cell(t, RENDER_PLAIN, name->name);
    render_cell(t, RENDER_PLAIN, name->unit);
    render_cell(t, RENDER_PLAIN, name_kind(name));
    render_cellf(t, RENDER_PLAIN, "%u", name->hosts);
    render_cellf(t, RENDER_PLAIN, "%u", name->series);
}

int render_name_json(struct buf *out, const trawl_v1_CounterName *name)
{
    struct jsonl j = {.out = out};
    jsonl_object(&j, NULL);
    jsonl_str(&j, "counter", name->name);
    jsonl_str(&j, "unit", name->unit);
    jsonl_str(&j, "kind", name_kind(name));
    jsonl_u64(&j, "hosts", name->hosts);
    jsonl_u64(&j, "series", name->series);
    return jsonl_line(&j);
}
