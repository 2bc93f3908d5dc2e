/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations.Top: every second the hosts' rows and those of their processes that have most of what
 * is asked. Invariant: of a round at most `limit` processes are kept and sent, the greatest first;
 * every host has its own row. Called through the table in ops_hosts.c.
 */
#include <stdlib.h>
#include <string.h>

#include "collector/fleet.h"
#include "collector/ops.h"
#include "collector/top.h"
#include "common/text.h"

#define LIMIT_MAX 10000

typedef uint64_t (*measure_fn)(const trawl_v1_TopRow *row);

struct top_call {
    struct call *call; /* NULL: over */
    trawl_v1_TopRequest request;
    measure_fn measure;
    trawl_v1_TopRow *best; /* a heap: the least of them is the first; NULL without a limit */
    size_t count;
    uint32_t round;
    uv_timer_t timer;
};

/* ---- what is compared ---- */

static uint64_t cpu(const trawl_v1_TopRow *row)
{
    return row->cpu_permille;
}

static uint64_t rss(const trawl_v1_TopRow *row)
{
    return row->memory_bytes;
}

static uint64_t read_rate(const trawl_v1_TopRow *row)
{
    return row->read_bytes_s;
}

static uint64_t write_rate(const trawl_v1_TopRow *row)
{
    return row->write_bytes_s;
}

static uint64_t threads(const trawl_v1_TopRow *row)
{
    return row->threads;
}

static measure_fn find_measure(const char *by)
{
    static const struct {
        const char *name;
        measure_fn measure;
    } table[] = {{"", cpu},           {"cpu", cpu},          {"rss", rss},
                 {"read", read_rate}, {"write", write_rate}, {"threads", threads}};
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (!strcmp(table[i].name, by))
            return table[i].measure;
    return NULL;
}

/* ---- the best of a round ---- */

static void swap(trawl_v1_TopRow *a, trawl_v1_TopRow *b)
{
    trawl_v1_TopRow row = *a;
    *a = *b;
    *b = row;
}

/* The first of `count` may be too great for its place. */
static void sift_down(struct top_call *t, size_t count)
{
    for (size_t at = 0, child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && t->measure(&t->best[child + 1]) < t->measure(&t->best[child]))
            child++;
        if (t->measure(&t->best[at]) <= t->measure(&t->best[child]))
            return;
        swap(&t->best[at], &t->best[child]);
    }
}

static void keep_row(struct top_call *t, const trawl_v1_TopRow *row)
{
    if (t->count == t->request.limit) {
        if (t->measure(row) <= t->measure(&t->best[0]))
            return;
        t->best[0] = *row;
        sift_down(t, t->count);
        return;
    }
    size_t at = t->count++;
    t->best[at] = *row;
    for (size_t up; at && (up = (at - 1) / 2, t->measure(&t->best[at]) < t->measure(&t->best[up]));
         at = up)
        swap(&t->best[at], &t->best[up]);
}

/* ---- sending ---- */

static int send_row(struct top_call *t, const trawl_v1_TopRow *row)
{
    trawl_v1_TopRow copy = *row;
    struct buf wire;
    copy.round = t->round;
    buf_init(&wire, 4096);
    int e = codec_put_top_row(&wire, &copy);
    if (!e)
        e = call_reply(t->call, buf_span(&wire));
    buf_done(&wire);
    return e;
}

/* Takes the least away until the heap is in order, the greatest first. */
static int send_best(struct top_call *t)
{
    int e = 0;
    for (size_t left = t->count; left > 1; left--) {
        swap(&t->best[0], &t->best[left - 1]);
        sift_down(t, left - 1);
    }
    for (size_t i = 0; i < t->count && !e; i++)
        e = send_row(t, &t->best[i]);
    t->count = 0;
    return e;
}

static int on_row(void *context, const trawl_v1_TopRow *row)
{
    struct top_call *t = context;
    if (!row->pid || !t->best)
        return send_row(t, row);
    keep_row(t, row);
    return 0;
}

static int on_host(void *context, struct host *host, const trawl_v1_Host *view)
{
    (void)view;
    struct top_call *t = context;
    return top_each(t->call->collector->top, host, on_row, t);
}

static void on_timer(uv_timer_t *timer)
{
    struct top_call *t = timer->data;
    struct failure f = {0};
    if (!t->call || t->call->finishing || call_is_full(t->call))
        return; /* a slow reader gets fewer rounds */
    t->round++;
    if (ops_each_host(t->call, t->request.selector, on_host, t, &f)) {
        call_finish(t->call, &f);
        return;
    }
    if (!send_best(t) && !t->request.follow)
        call_finish(t->call, NULL);
}

/* ---- life ---- */

static int prepare(struct top_call *t, struct span request, struct failure *f)
{
    int e = codec_get_top_request(&t->request, request, f);
    if (e)
        return e;
    text_clean(t->request.by);
    t->measure = find_measure(t->request.by);
    if (!t->measure)
        return fail(f, ERR_INVALID, "unknown order '%s': cpu, rss, read, write and threads exist",
                    t->request.by);
    if (t->request.limit > LIMIT_MAX)
        return fail(f, ERR_INVALID, "at most %d processes can be asked for", LIMIT_MAX);
    if (t->request.limit) {
        t->best = calloc(t->request.limit, sizeof(*t->best));
        if (!t->best)
            return fail(f, ERR_NOMEM, "out of memory");
    }
    return 0;
}

int top_message(struct call *call, struct span request, struct failure *f)
{
    struct top_call *t = calloc(1, sizeof(*t));
    if (!t)
        return fail(f, ERR_NOMEM, "out of memory");
    int e = prepare(t, request, f);
    if (e) {
        free(t);
        return e;
    }
    t->call = call;
    call->state = t;
    uv_timer_init(call->collector->loop, &t->timer);
    t->timer.data = t;
    if (!call->collector->top_watchers++)
        fleet_watch(call->collector, true);
    uv_timer_start(&t->timer, on_timer, 0, 1000);
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct top_call *t = handle->data;
    free(t->best);
    free(t);
}

void top_ended(struct call *call)
{
    struct top_call *t = call->state;
    if (!t)
        return;
    t->call = NULL;
    if (!--call->collector->top_watchers)
        fleet_watch(call->collector, false);
    uv_close((uv_handle_t *)&t->timer, on_closed);
}
