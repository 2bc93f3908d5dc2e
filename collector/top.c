/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small window on the stream of counters: for each host the last two samples of the dozen series
 * that `trawl top` shows. Invariant: a rate is formed only from two present samples of one series;
 * anything else is shown as missing, never as zero. Series are found by name when their descriptors
 * pass.
 */
#include "collector/top.h"

#include <stdlib.h>
#include <string.h>

#include "collector/collector.h"
#include "common/text.h"
#include "proto/block.h"

enum what {
    HOST_BUSY,
    HOST_CORES,
    HOST_USED,
    HOST_LOAD,
    PROC_USER,
    PROC_SYSTEM,
    PROC_RSS,
    PROC_THREADS,
    PROC_READ,
    PROC_WRITE,
    WHAT_COUNT
};

static const char *const names[WHAT_COUNT] = {
    "cpu.busy",           "cpu.count",          "memory.used", "load.1m",
    "process.cpu_user",   "process.cpu_system", "process.rss", "process.threads",
    "process.read_bytes", "process.write_bytes"};

#define MAX_SERIES 192
#define RATE_END 1e18 /* no counter rises so fast: nonsense, and more than fits */

struct series {
    uint32_t id;
    enum what what;
    uint32_t pid;
    uint32_t scale;
    char process[64];
    int64_t value[2]; /* the newest, the one before */
    int64_t at_us[2];
};

struct window {
    struct list link;
    struct host *host;
    uint64_t epoch;
    uint64_t seq;  /* of the newest block */
    int64_t at_us; /* of its last sample, host time */
    size_t count;
    struct series series[MAX_SERIES];
};

struct top {
    struct collector *collector;
    struct list windows;
};

int top_open(struct top **out, struct collector *c, struct failure *f)
{
    struct top *top = calloc(1, sizeof(*top));
    if (!top)
        return fail(f, ERR_NOMEM, "out of memory");
    top->collector = c;
    list_init(&top->windows);
    *out = top;
    return 0;
}

void top_close(struct top *top)
{
    if (!top)
        return;
    LIST_EACH (at, &top->windows)
        free(LIST_ENTRY(at, struct window, link));
    free(top);
}

/* ---- feeding ---- */

/* The process series that was silent for longest makes room: processes come and go over days. */
static void make_room(struct window *w)
{
    size_t victim = 0;
    for (size_t i = 1; i < w->count; i++) {
        const struct series *s = &w->series[i], *v = &w->series[victim];
        bool is_better = (s->pid != 0) > (v->pid != 0);
        if (is_better || ((s->pid != 0) == (v->pid != 0) && s->at_us[0] < v->at_us[0]))
            victim = i;
    }
    size_t behind = --w->count - victim;
    memmove(&w->series[victim], &w->series[victim + 1], sizeof(w->series[0]) * behind);
}

static void add_series(struct window *w, const trawl_v1_Descriptor *d)
{
    for (size_t what = 0; what < WHAT_COUNT; what++) {
        if (strcmp(d->name, names[what]) != 0 || (what == HOST_BUSY && d->instance[0]))
            continue;
        for (size_t i = 0; i < w->count; i++)
            if (w->series[i].id == d->id)
                return;
        if (w->count == MAX_SERIES)
            make_room(w);
        struct series *s = &w->series[w->count++];
        *s = (struct series){.id = d->id, .what = (enum what)what, .pid = d->pid};
        s->scale = d->scale ? d->scale : 1;
        s->value[0] = s->value[1] = BLOCK_GAP;
        s->at_us[0] = s->at_us[1] = w->at_us;
        text_copy(s->process, sizeof(s->process), d->instance);
        return;
    }
}

void top_descriptors(struct top *top, struct host *host, const trawl_v1_Descriptors *list)
{
    struct window *w = host->window;
    if (!w) {
        w = calloc(1, sizeof(*w));
        if (!w)
            return;
        w->host = host;
        host->window = w;
        list_push(&top->windows, &w->link);
    }
    if (w->epoch != list->epoch) {
        w->epoch = list->epoch;
        w->count = 0;
        w->seq = 0;
        w->at_us = 0;
    }
    for (pb_size_t i = 0; i < list->list_count; i++)
        add_series(w, &list->list[i]);
}

struct feeding {
    struct window *window;
    const trawl_v1_CounterBlock *block;
};

static int feed_series(void *context, const struct block_view *view)
{
    struct feeding *feeding = context;
    struct window *w = feeding->window;
    for (size_t i = 0; i < w->count; i++) {
        struct series *s = &w->series[i];
        if (s->id != view->id)
            continue;
        for (size_t k = view->sample_count > 2 ? view->sample_count - 2 : 0; k < view->sample_count;
             k++) {
            s->value[1] = s->value[0];
            s->at_us[1] = s->at_us[0];
            s->value[0] = view->values[k];
            s->at_us[0] = feeding->block->from_us + (int64_t)k * feeding->block->step_us;
        }
        return 0;
    }
    return 0;
}

void top_block(struct top *top, struct host *host, const trawl_v1_CounterBlock *block)
{
    (void)top;
    struct window *w = host->window;
    if (!w || w->epoch != block->epoch || !block->count || block->seq <= w->seq)
        return; /* resent blocks of the past are not news; the clock may have been set back */
    w->seq = block->seq;
    struct feeding feeding = {w, block};
    struct failure f;
    block_each(span_of(block->data.bytes, block->data.size), feed_series, &feeding, &f);
    w->at_us = block->from_us + (int64_t)(block->count - 1) * block->step_us;
}

/* ---- reading ---- */

/* What a row lacks is named in it. */
static void lacks(trawl_v1_TopRow *row, const char *what)
{
    char before[sizeof(row->missing)];
    text_copy(before, sizeof(before), row->missing);
    text_format(row->missing, sizeof(row->missing), "%s%s%s", before, *before ? ", " : "", what);
}

static bool fresh(const struct window *w, const struct series *s)
{
    return s->value[0] != BLOCK_GAP && s->at_us[0] + 2000000 > w->at_us;
}

/* Increase per second of a count; false without two samples or across a reset. */
static bool rate(const struct series *s, int64_t per, uint64_t *out)
{
    if (s->value[0] == BLOCK_GAP || s->value[1] == BLOCK_GAP || s->value[0] < s->value[1] ||
        s->at_us[0] <= s->at_us[1])
        return false;
    double seconds = (double)(s->at_us[0] - s->at_us[1]) / 1e6;
    double more = ((double)s->value[0] - (double)s->value[1]) / (double)s->scale;
    double result = more * (double)per / seconds;
    if (result >= RATE_END)
        return false;
    *out = (uint64_t)result;
    return true;
}

static void put_value(trawl_v1_TopRow *row, const struct series *s)
{
    uint64_t value = (uint64_t)(s->value[0] < 0 ? 0 : s->value[0]) / s->scale, per_second = 0;
    bool known = rate(s, 1, &per_second);
    switch (s->what) {
    case HOST_BUSY:
    case PROC_USER:
    case PROC_SYSTEM: /* us of CPU per second: 1,000 of them are a thousandth of a core */
        if (known)
            row->cpu_permille += (uint32_t)(per_second / 1000);
        else
            lacks(row, "cpu");
        break;
    case HOST_CORES:
        row->cores = (uint32_t)value;
        break;
    case HOST_USED:
    case PROC_RSS:
        row->memory_bytes = value;
        break;
    case HOST_LOAD:
        row->load_milli =
            (uint32_t)((uint64_t)(s->value[0] < 0 ? 0 : s->value[0]) * 1000 / s->scale);
        break;
    case PROC_THREADS:
        row->threads = (uint32_t)value;
        break;
    case PROC_READ:
    case PROC_WRITE:
        if (!known)
            lacks(row, s->what == PROC_READ ? "read" : "write");
        else if (s->what == PROC_READ)
            row->read_bytes_s = per_second;
        else
            row->write_bytes_s = per_second;
        break;
    case WHAT_COUNT:
        break;
    }
}

static bool fill_row(const struct window *w, uint32_t pid, trawl_v1_TopRow *row)
{
    bool any = false;
    *row = (trawl_v1_TopRow){.pid = pid};
    text_copy(row->host, sizeof(row->host), w->host->record.name);
    row->at_us = w->at_us - (w->host->record.skew_known ? w->host->record.skew_us : 0);
    for (size_t i = 0; i < w->count; i++) {
        const struct series *s = &w->series[i];
        if (s->pid != pid || (pid != 0) != (s->what >= PROC_USER))
            continue;
        if (!fresh(w, s)) {
            if (any && (s->what == PROC_READ || s->what == PROC_WRITE))
                lacks(row, s->what == PROC_READ ? "read" : "write");
            continue;
        }
        any = true;
        text_copy(row->process, sizeof(row->process), pid ? s->process : "");
        put_value(row, s);
    }
    return any;
}

int top_each(struct top *top, struct host *host, top_row_fn each, void *context)
{
    (void)top;
    const struct window *w = host->window;
    trawl_v1_TopRow row;
    if (!w || !w->at_us)
        return 0;
    int e = fill_row(w, 0, &row) ? each(context, &row) : 0;
    for (size_t i = 0; i < w->count && !e; i++)
        if (w->series[i].what == PROC_RSS && fill_row(w, w->series[i].pid, &row))
            e = each(context, &row);
    return e;
}
