/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on what was sampled: CounterNames, Counters, Events. Handler functions for serve.c.
 */
#include <stdlib.h>
#include <string.h>

#include "collector/ops.h"
#include "collector/query.h"
#include "common/text.h"

/* ---- CounterNames ---- */

#define MAX_NAMES 512

struct naming {
    struct collector *collector;
    const struct host *last_host[MAX_NAMES];
    trawl_v1_CounterName names[MAX_NAMES];
    size_t count;
    const struct host *host;
    struct failure *f;
};

static int count_name(void *context, const trawl_v1_Descriptor *d)
{
    struct naming *n = context;
    size_t i = 0;
    while (i < n->count && strcmp(n->names[i].name, d->name) != 0)
        i++;
    if (i == MAX_NAMES)
        return 0;
    if (i == n->count) {
        n->names[n->count++] = (trawl_v1_CounterName){.kind = d->kind};
        text_copy(n->names[i].name, sizeof(n->names[i].name), d->name);
        text_copy(n->names[i].unit, sizeof(n->names[i].unit), d->unit);
    }
    n->names[i].series++;
    n->names[i].hosts += n->last_host[i] != n->host;
    n->last_host[i] = n->host;
    return 0;
}

static int name_host(void *context, struct host *host, const trawl_v1_Host *view)
{
    (void)view;
    struct naming *n = context;
    n->host = host;
    return query_descriptors(n->collector, host, count_name, n, n->f);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const trawl_v1_CounterName *)a)->name, ((const trawl_v1_CounterName *)b)->name);
}

static int reply_names(struct call *call, struct naming *n)
{
    int e = 0;
    qsort(n->names, n->count, sizeof(n->names[0]), compare_names);
    for (size_t i = 0; i < n->count && !e; i++) {
        struct buf wire;
        buf_init(&wire, 1024);
        e = codec_put_counter_name(&wire, &n->names[i]);
        if (!e)
            e = call_reply(call, buf_span(&wire));
        buf_done(&wire);
    }
    return e;
}

static int names_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_HostsRequest r;
    struct naming *n = calloc(1, sizeof(*n));
    if (!n)
        return fail(f, ERR_NOMEM, "out of memory");
    int e = codec_get_hosts_request(&r, request, f);
    if (!e) {
        n->collector = call->collector;
        n->f = f;
        e = ops_each_host(call, r.selector, name_host, n, f);
    }
    if (!e)
        e = reply_names(call, n);
    if (!e)
        call_finish(call, NULL);
    free(n);
    return e;
}

/* ---- Counters ---- */

struct counting {
    struct call *call;
    struct query_counters query;
    const char *names[32];
    size_t replies;
    struct failure *f;
};

static int reply_samples(void *context, const trawl_v1_Samples *samples)
{
    struct counting *c = context;
    struct buf wire;
    buf_init(&wire, STORE_VALUE_MAX);
    int e = codec_put_samples(&wire, samples);
    if (!e)
        e = call_reply(c->call, buf_span(&wire));
    buf_done(&wire);
    c->replies++;
    return e;
}

static int count_host(void *context, struct host *host, const trawl_v1_Host *view)
{
    (void)view;
    struct counting *c = context;
    return query_counters(c->call->collector, host, &c->query, reply_samples, c, c->f);
}

static int no_such_counter(const trawl_v1_CountersRequest *r, struct failure *f)
{
    return fail(
        f, ERR_NOTFOUND,
        "no samples of '%s' in this time on these hosts: 'trawl counters' without a name lists "
        "what exists",
        r->names[0]);
}

static int counters_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_CountersRequest *r = malloc(sizeof(*r));
    struct counting c = {.call = call, .f = f};
    if (!r)
        return fail(f, ERR_NOMEM, "out of memory");
    int e = codec_get_counters_request(r, request, f);
    if (!e && !r->names_count)
        e = fail(f, ERR_INVALID, "no counter named: 'trawl counters' without a name lists them");
    if (!e && r->to_us <= r->from_us)
        e = fail(f, ERR_INVALID, "the time asked for ends before it begins");
    if (!e) {
        for (pb_size_t i = 0; i < r->names_count; i++)
            c.names[i] = r->names[i];
        c.query =
            (struct query_counters){c.names, r->names_count, r->instance, r->from_us, r->to_us};
        e = ops_each_host(call, r->selector, count_host, &c, f);
    }
    if (!e && !c.replies)
        e = no_such_counter(r, f);
    if (!e)
        call_finish(call, NULL);
    free(r);
    return e;
}

/* ---- Events ---- */

static int reply_event(void *context, const trawl_v1_Event *event)
{
    struct buf wire;
    buf_init(&wire, 4096);
    int e = codec_put_event(&wire, event);
    if (!e)
        e = call_reply(context, buf_span(&wire));
    buf_done(&wire);
    return e;
}

struct telling {
    struct call *call;
    const trawl_v1_EventsRequest *request;
    struct failure *f;
};

static int tell_host(void *context, struct host *host, const trawl_v1_Host *view)
{
    (void)view;
    struct telling *t = context;
    return query_events(t->call->collector, host, t->request->from_us, t->request->to_us,
                        reply_event, t->call, t->f);
}

static int events_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_EventsRequest r;
    int e = codec_get_events_request(&r, request, f);
    struct telling t = {call, &r, f};
    if (!e && r.follow)
        e = fail(f, ERR_UNSUPPORTED, "events cannot be followed: ask for a time window");
    if (!e)
        e = ops_each_host(call, r.selector, tell_host, &t, f);
    if (!e)
        call_finish(call, NULL);
    return e;
}

const struct handler counter_handlers[] = {
    {METHOD_OPS_COUNTER_NAMES, names_message, NULL, NULL, NULL},
    {METHOD_OPS_COUNTERS, counters_message, NULL, NULL, NULL},
    {METHOD_OPS_EVENTS, events_message, NULL, NULL, NULL},
    {.message = NULL},
};
