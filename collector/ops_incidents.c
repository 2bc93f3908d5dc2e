/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on incidents: Capture, Incidents, Cancel, and the table row of Fetch (fetch.c), Show
 * and Watch (ops_show.c). A capture is answered after it was committed: from then on it survives
 * anything.
 */
#include <stdlib.h>
#include <string.h>

#include "collector/brake.h"
#include "collector/fetch.h"
#include "collector/incident.h"
#include "collector/incident_store.h"
#include "collector/ingest.h"
#include "collector/ops.h"
#include "collector/ops_show.h"
#include "collector/sample.h"
#include "common/log.h"
#include "common/text.h"
#include "proto/kinds.h"

#define PARALLEL_DEFAULT 20
#define CONTAINER_LEAST 4 /* characters */
#define PARALLEL_MAX 10000
#define SECOND_US 1000000ull
#define EXPIRE_DEFAULT_US (3600 * SECOND_US)
#define EXPIRE_MAX_US (7 * 86400 * SECOND_US)
#define LAST_MAX_US (24 * 3600 * SECOND_US)

/* ---- checking a request ---- */

static int check_process(const trawl_v1_CaptureRequest *r, struct failure *f)
{
    const trawl_v1_ProcessSelector *p = &r->process;
    int given =
        !!p->name[0] + !!p->pid + !!p->unit[0] + !!p->port + !!p->container[0] + !!p->command[0];
    if (given > 1)
        return fail(f, ERR_INVALID,
                    "give one of --process, --pid, --unit, --port, --container and --command, not "
                    "several");
    if (p->container[0] && strlen(p->container) < CONTAINER_LEAST)
        return fail(f, ERR_INVALID, "container '%s' is too short: at least %d characters of its ID",
                    p->container, CONTAINER_LEAST);
    if (p->port > 65535)
        return fail(f, ERR_INVALID, "port %u does not exist: 1 to 65535 would be right", p->port);
    return 0;
}

static int check_limits(trawl_v1_CaptureRequest *r, int64_t now_us, struct failure *f)
{
    if (!r->max_parallel)
        r->max_parallel = PARALLEL_DEFAULT;
    if (!r->expire_us)
        r->expire_us = EXPIRE_DEFAULT_US;
    if (r->in_us > EXPIRE_MAX_US)
        return fail(f, ERR_INVALID, "the instant asked for lies after the expiry");
    if (r->in_us)
        r->at_us = now_us + (int64_t)r->in_us;
    if (r->max_parallel > PARALLEL_MAX)
        return fail(f, ERR_INVALID, "at most %d hosts can run at once", PARALLEL_MAX);
    if (r->last_us > LAST_MAX_US)
        return fail(f, ERR_INVALID, "--last goes to 24h");
    if (r->expire_us > EXPIRE_MAX_US)
        return fail(f, ERR_INVALID, "an order is kept for 7 days at most");
    if (r->at_us && (r->at_us < now_us - 1000000 || r->at_us > now_us + (int64_t)r->expire_us))
        return fail(f, ERR_INVALID, "the instant asked for lies in the past or after the expiry");
    if (r->request_id.size && r->request_id.size != 16)
        return fail(f, ERR_INVALID, "request_id has %u bytes, not 16",
                    (unsigned)r->request_id.size);
    return 0;
}

/* ---- Capture ---- */

struct capturing {
    struct call *call; /* NULL: the caller is gone; the capture stands */
    struct incident *incident;
    trawl_v1_CaptureReply reply;
    struct host **hosts;
    size_t count, capacity;
};

static int collect_host(void *context, struct host *host, const trawl_v1_Host *view)
{
    struct capturing *capturing = context;
    if (view->state == trawl_v1_HostState_REVOKED)
        return 0;
    if (BUF_GROW(capturing->hosts, capturing->count, &capturing->capacity, 64))
        return ERR_NOMEM;
    capturing->hosts[capturing->count++] = host;
    return 0;
}

static const char *label_of(const struct host *host, const char *key)
{
    for (pb_size_t i = 0; i < host->record.labels_count; i++)
        if (!strcmp(host->record.labels[i].key, key))
            return host->record.labels[i].value;
    return "";
}

/* The same hosts again for the same selector, so that a dry run tells the truth. */
static int take_sample(struct capturing *capturing, const trawl_v1_CaptureRequest *r)
{
    if (!r->sample || r->sample >= capturing->count)
        return 0;
    struct sample_host *list = calloc(capturing->count, sizeof *list);
    struct host **chosen = calloc(r->sample, sizeof *chosen);
    size_t count = 0;
    for (size_t i = 0; list && i < capturing->count; i++) {
        const struct host *host = capturing->hosts[i];
        list[i] = (struct sample_host){host->record.name, label_of(host, r->spread),
                                       host->session != NULL, i};
    }
    if (list && chosen)
        count = sample_hosts(list, capturing->count, r->sample, span_str(r->selector));
    for (size_t i = 0; i < count; i++)
        chosen[i] = capturing->hosts[list[i].index];
    if (count) {
        memcpy(capturing->hosts, chosen, count * sizeof(struct host *));
        capturing->count = count;
    }
    free(list);
    free(chosen);
    return count ? 0 : ERR_NOMEM;
}

static void fill_reply(struct capturing *capturing)
{
    trawl_v1_CaptureReply *reply = &capturing->reply;
    for (size_t i = 0; i < capturing->count; i++) {
        const struct host *host = capturing->hosts[i];
        if (reply->names_count < sizeof(reply->names) / sizeof(reply->names[0]))
            text_copy(reply->names[reply->names_count++], sizeof(reply->names[0]),
                      host->record.name);
        reply->hosts++;
        reply->online += host->session != NULL;
    }
}

static void capturing_free(struct capturing *capturing)
{
    free(capturing->hosts);
    free(capturing);
}

static void answer_capture(struct capturing *capturing)
{
    struct buf wire;
    buf_init(&wire, 64 * 1024);
    codec_put_capture_reply(&wire, &capturing->reply);
    call_answer(capturing->call, buf_span(&wire));
    buf_done(&wire);
}

static void on_captured(void *context, const struct failure *why)
{
    struct capturing *capturing = context;
    struct call *call = capturing->call;
    if (call) {
        call->state = NULL;
        if (why->code)
            call_finish(call, why);
        else
            answer_capture(capturing);
    }
    capturing_free(capturing);
}

static void capture_ended(struct call *call)
{
    struct capturing *capturing = call->state;
    if (capturing)
        capturing->call = NULL;
}

static bool is_being_stored(const struct incident *incident)
{
    LIST_EACH (at, &incident->captures)
        if (!LIST_ENTRY(at, struct capture, link)->stored)
            return true;
    return false;
}

/* A request that came before (the answer was lost) gets the same answer. */
static bool answer_again(struct call *call, const trawl_v1_CaptureRequest *r)
{
    struct failure f;
    struct incident *incident =
        r->request_id.size ? incident_by_request(call->collector->incidents, r->request_id.bytes)
                           : NULL;
    if (!incident)
        return false;
    if (is_being_stored(incident)) {
        fail(&f, ERR_BUSY, "the same request is being stored now: ask again");
        call_finish(call, &f);
        return true;
    }
    trawl_v1_CaptureReply *reply = calloc(1, sizeof(*reply));
    if (!reply)
        return false;
    struct buf wire;
    buf_init(&wire, 4096);
    text_copy(reply->incident, sizeof(reply->incident), incident->record.id);
    for (pb_size_t i = 0; i < incident->record.states_count; i++)
        reply->hosts += incident->record.states[i].count;
    codec_put_capture_reply(&wire, reply);
    call_answer(call, buf_span(&wire));
    buf_done(&wire);
    free(reply);
    return true;
}

static int start_capture(struct call *call, struct capturing *capturing,
                         const trawl_v1_CaptureRequest *r, struct failure *f)
{
    char who[160];
    text_format(who, sizeof(who), "%s/%s", call->who->role, call->who->name);
    capturing->reply.names_count = 0; /* only a dry run lists them */
    call->state = capturing;
    int e = incident_capture(call->collector->incidents, r, capturing->hosts, capturing->count, who,
                             &capturing->incident, on_captured, capturing, f);
    if (e) {
        call->state = NULL;
        return e;
    }
    const char *id = capturing->incident->record.id;
    text_copy(capturing->reply.incident, sizeof(capturing->reply.incident), id);
    log_info("%s captures on %u hosts ('%s'): %s", who, capturing->reply.hosts, r->selector, id);
    return 0;
}

static int check_request(struct call *call, trawl_v1_CaptureRequest *r, struct failure *f)
{
    struct clock *clock = call->collector->clock;
    if (r->exception.size)
        return fail(f, ERR_INVALID,
                    "evidence of an exception is ordered by the collector itself: 'trawl want' "
                    "asks for more of the next one");
    for (pb_size_t i = 0; i < r->what_count; i++)
        text_clean(r->what[i]);
    int e = kinds_complete(r, f);
    text_clean(r->selector);
    text_clean(r->spread);
    text_clean(r->note);
    text_clean(r->process.name);
    text_clean(r->process.unit);
    text_clean(r->process.container);
    text_clean(r->process.command);
    if (!e && r->has_process && r->process.start_ticks && !r->process.pid)
        e = fail(f, ERR_INVALID, "a start time was given without the pid that it belongs to");
    if (!e)
        e = check_process(r, f);
    if (!e)
        e = check_limits(r, clock->wall_us(clock), f);
    if (!e && r->spread[0] && !r->sample)
        e = fail(f, ERR_INVALID, "--spread goes with --sample N: how many hosts to take");
    if (!e && !r->selector[0])
        e = fail(f, ERR_INVALID, "no hosts selected: give a selector such as 'role=web' or '*'");
    return e;
}

static int capture_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_CaptureRequest r;
    int e = codec_get_capture_request(&r, request, f);
    if (!e)
        e = check_request(call, &r, f);
    if (e)
        return e;
    if (answer_again(call, &r))
        return 0;
    struct capturing *capturing = calloc(1, sizeof(*capturing));
    if (!capturing)
        return fail(f, ERR_NOMEM, "out of memory");
    capturing->call = call;
    e = ops_each_host(call, r.selector, collect_host, capturing, f);
    if (!e && !r.dry_run && brake_is_on(call->collector->brake))
        e = brake_refuse(call->collector->brake, f);
    if (!e && !capturing->count)
        e = fail(f, ERR_NOTFOUND, "every host that matches '%s' was revoked", r.selector);
    if (!e && take_sample(capturing, &r))
        e = fail(f, ERR_NOMEM, "out of memory");
    if (!e)
        fill_reply(capturing);
    if (!e && !r.dry_run)
        e = start_capture(call, capturing, &r, f);
    if (!e && r.dry_run)
        answer_capture(capturing);
    if (e || r.dry_run)
        capturing_free(capturing);
    return e;
}

/* ---- Incidents, Cancel ---- */

static int reply_incident(struct call *call, struct incident *incident)
{
    struct buf wire;
    if (!incident->record.finished)
        incident_store_summarise(call->collector->incidents, incident);
    buf_init(&wire, 16 * 1024);
    int e = codec_put_incident(&wire, &incident->record);
    if (!e)
        e = call_reply(call, buf_span(&wire));
    buf_done(&wire);
    return e;
}

struct listing {
    struct call *call;
    trawl_v1_IncidentsRequest request;
};

static int list_one(void *context, struct incident *incident)
{
    struct listing *l = context;
    int64_t at = incident->record.created_us;
    if (at < l->request.from_us || (l->request.to_us && at > l->request.to_us))
        return 0;
    return reply_incident(l->call, incident);
}

static int incidents_message(struct call *call, struct span request, struct failure *f)
{
    struct listing l = {.call = call};
    int e = codec_get_incidents_request(&l.request, request, f);
    if (!e)
        e = incident_each(call->collector->incidents, list_one, &l);
    if (!e)
        call_finish(call, NULL);
    return e;
}

static int cancel_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_IncidentRequest r;
    int e = codec_get_incident_request(&r, request, f);
    if (e)
        return e;
    struct incident *incident = incident_find(call->collector->incidents, r.incident, f);
    if (!incident)
        return f->code;
    if (incident->record.finished)
        return fail(f, ERR_EXPIRED, "%s has ended already: nothing is left to cancel",
                    incident->record.id);
    char reason[256];
    text_format(reason, sizeof(reason), "cancelled by %s/%s", call->who->role, call->who->name);
    incident_cancel(call->collector->incidents, incident, reason);
    log_info("%s: %s", incident->record.id, reason);
    e = reply_incident(call, incident);
    if (!e)
        call_finish(call, NULL);
    return e;
}

const struct handler incident_handlers[] = {
    {METHOD_OPS_CAPTURE, capture_message, NULL, NULL, capture_ended},
    {METHOD_OPS_INCIDENTS, incidents_message, NULL, NULL, NULL},
    {METHOD_OPS_CANCEL, cancel_message, NULL, NULL, NULL},
    {METHOD_OPS_SHOW, show_message, NULL, NULL, NULL},
    {METHOD_OPS_WATCH, watch_message, NULL, NULL, watch_ended},
    {METHOD_OPS_FETCH, fetch_message, NULL, fetch_more, fetch_ended},
    {.message = NULL},
};
