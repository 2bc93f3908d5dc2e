/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathers the records of an incident and sends them as parts, with the report's lines at the end;
 * or sends the targets as they are and then every change. Invariant: the parts and the report are
 * made from the same records. Called through the table in ops_incidents.c.
 */
#include "collector/ops_show.h"

#include <stdlib.h>
#include <string.h>

#include "collector/group_report.h"
#include "collector/groups.h"
#include "collector/incident.h"
#include "collector/incident_store.h"
#include "collector/ingest.h"
#include "collector/query.h"
#include "collector/report.h"
#include "common/text.h"

#define MAX_ROWS 20000
#define MAX_EVENTS 2000
#define REPORT_MAX_BYTES (1024 * 1024)
#define MAX_STACKS 8
#define TIMELINE_AFTER_US 5000000

struct gathered {
    struct collector *collector;
    struct incident *incident;
    trawl_v1_Target *targets;
    trawl_v1_Artifact *artifacts;
    trawl_v1_Event *events;
    trawl_v1_Group *group; /* NULL: no exception opened it */
    trawl_v1_Exception *samples;
    size_t target_count, artifact_count, event_count, sample_count;
};

static int gather_target(void *context, const trawl_v1_Target *target)
{
    struct gathered *g = context;
    if (g->target_count == MAX_ROWS)
        return ERR_LIMIT;
    if (BUF_GROW(g->targets, g->target_count, NULL, 1))
        return ERR_NOMEM;
    g->targets[g->target_count++] = *target;
    return 0;
}

static int gather_artifact(void *context, const trawl_v1_Artifact *artifact)
{
    struct gathered *g = context;
    if (g->artifact_count == MAX_ROWS)
        return ERR_LIMIT;
    if (BUF_GROW(g->artifacts, g->artifact_count, NULL, 1))
        return ERR_NOMEM;
    g->artifacts[g->artifact_count++] = *artifact;
    return 0;
}

static int gather_event(void *context, const trawl_v1_Event *event)
{
    struct gathered *g = context;
    if (g->event_count == MAX_EVENTS)
        return 1;
    if (BUF_GROW(g->events, g->event_count, NULL, 1))
        return ERR_NOMEM;
    g->events[g->event_count++] = *event;
    return 0;
}

static int compare_events(const void *a, const void *b)
{
    int64_t x = ((const trawl_v1_Event *)a)->wall_us, y = ((const trawl_v1_Event *)b)->wall_us;
    return (x > y) - (x < y);
}

/* A sample in the incident's time is in its timeline, too. */
static int gather_sample(void *context, const trawl_v1_Exception *sample)
{
    struct gathered *g = context;
    const trawl_v1_Incident *i = &g->incident->record;
    if (g->sample_count == GROUP_SAMPLES_MAX)
        return 1;
    g->samples[g->sample_count++] = *sample;
    if (sample->wall_us < i->from_us || sample->wall_us > i->to_us + TIMELINE_AFTER_US)
        return 0;
    trawl_v1_Event event = {.wall_us = sample->wall_us, .pid = sample->pid};
    text_copy(event.host, sizeof event.host, sample->host);
    text_copy(event.process, sizeof event.process, sample->process);
    group_exception_line(sample, event.text, sizeof event.text);
    return gather_event(g, &event);
}

static int compare_samples(const void *a, const void *b)
{
    const trawl_v1_Exception *x = a, *y = b;
    return (x->wall_us < y->wall_us) - (x->wall_us > y->wall_us);
}

/* A group that cannot be read leaves the report without it. */
static int gather_group(struct gathered *g)
{
    struct groups *groups = g->collector->groups;
    const char *wanted = g->incident->record.group;
    char id[16];
    struct failure ignored;
    if (!wanted[0] || groups_find(groups, wanted, id, &ignored))
        return 0;
    g->group = malloc(sizeof(*g->group));
    g->samples = calloc(GROUP_SAMPLES_MAX, sizeof(*g->samples));
    if (!g->group || !g->samples)
        return ERR_NOMEM;
    if (groups_get(groups, id, g->group)) {
        free(g->group);
        g->group = NULL;
        return 0;
    }
    /* What a merge moved away keeps its samples: they are what the incident was opened for. */
    groups_each_sample(groups, wanted, gather_sample, g);
    qsort(g->samples, g->sample_count, sizeof(*g->samples), compare_samples);
    return 0;
}

static int gather_events(struct gathered *g, struct failure *f)
{
    const trawl_v1_Incident *i = &g->incident->record;
    int64_t to_us = (i->to_us > i->created_us ? i->to_us : i->created_us) + TIMELINE_AFTER_US;
    for (size_t t = 0; t < g->target_count; t++) {
        struct host *host = roster_find(g->collector->roster, g->targets[t].host);
        int e = host ? query_events(g->collector, host, i->from_us, to_us, gather_event, g, f) : 0;
        if (e < 0)
            return e;
        if (e)
            break; /* enough: the events artifacts have all */
    }
    if (g->event_count)
        qsort(g->events, g->event_count, sizeof(*g->events), compare_events);
    return 0;
}

static void done(struct gathered *g)
{
    free(g->targets);
    free(g->artifacts);
    free(g->events);
    free(g->group);
    free(g->samples);
}

static int gather(struct gathered *g, struct failure *f)
{
    struct incident_rows rows = {gather_target, gather_artifact, g};
    if (!g->incident->record.finished)
        incident_store_summarise(g->collector->incidents, g->incident);
    int e = incident_read(g->collector->incidents, g->incident, &rows);
    if (e)
        return fail(f, e, "incident %s cannot be read: %s", g->incident->record.id, err_text(e));
    e = gather_group(g);
    return e ? fail(f, e, "out of memory") : gather_events(g, f);
}

/* ---- sending parts ---- */

static int send_part(struct call *call, const trawl_v1_IncidentPart *part)
{
    struct buf wire;
    buf_init(&wire, 64 * 1024);
    int e = codec_put_incident_part(&wire, part);
    if (!e)
        e = call_reply(call, buf_span(&wire));
    buf_done(&wire);
    return e;
}

static int send_incident(struct call *call, const trawl_v1_Incident *incident)
{
    trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_incident_tag};
    part.body.incident = *incident;
    return send_part(call, &part);
}

static int send_target(struct call *call, const trawl_v1_Target *target)
{
    trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_target_tag};
    part.body.target = *target;
    return send_part(call, &part);
}

static int send_artifact(struct call *call, const trawl_v1_Artifact *artifact)
{
    trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_artifact_tag};
    part.body.artifact = *artifact;
    return send_part(call, &part);
}

static int send_records(struct call *call, const struct gathered *g)
{
    int e = send_incident(call, &g->incident->record);
    for (size_t i = 0; i < g->target_count && !e; i++)
        e = send_target(call, &g->targets[i]);
    for (size_t i = 0; i < g->artifact_count && !e; i++)
        e = send_artifact(call, &g->artifacts[i]);
    for (size_t i = 0; i < g->event_count && !e; i++) {
        trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_event_tag};
        part.body.event = g->events[i];
        e = send_part(call, &part);
    }
    return e;
}

static int send_stacks(struct call *call, const struct report_input *in)
{
    trawl_v1_StackGroup groups[MAX_STACKS];
    size_t count = report_stacks(in, groups, MAX_STACKS);
    int e = 0;
    for (size_t i = 0; i < count && !e; i++) {
        trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_stack_tag};
        part.body.stack = groups[i];
        e = send_part(call, &part);
    }
    return e;
}

static int send_lines(struct call *call, struct span text)
{
    struct span line;
    int e = 0;
    while (!e && !text_take_until(&text, '\n', &line)) {
        trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_line_tag};
        text_copy_span(part.body.line, sizeof(part.body.line), line);
        text_clean(part.body.line); /* it may have been cut within a character */
        e = send_part(call, &part);
    }
    return e;
}

static int send_report(struct call *call, const struct gathered *g)
{
    struct clock *clock = call->collector->clock;
    struct report_input in = {&g->incident->record,
                              g->targets,
                              g->target_count,
                              g->artifacts,
                              g->artifact_count,
                              g->events,
                              g->event_count,
                              clock->wall_us(clock),
                              g->group,
                              g->samples,
                              g->sample_count};
    struct buf text;
    buf_init(&text, REPORT_MAX_BYTES);
    int e = send_stacks(call, &in);
    if (!e)
        e = report_text(&in, &text);
    if (!e)
        e = send_lines(call, buf_span(&text));
    buf_done(&text);
    return e;
}

int show_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_IncidentRequest r;
    int e = codec_get_incident_request(&r, request, f);
    if (e)
        return e;
    struct gathered g = {.collector = call->collector};
    g.incident = incident_find(call->collector->incidents, r.incident, f);
    if (!g.incident)
        return f->code;
    e = gather(&g, f);
    if (!e)
        e = send_records(call, &g);
    if (!e)
        e = send_report(call, &g);
    done(&g);
    if (e)
        return f->code ? e : fail(f, e, "the answer could not be sent: %s", err_text(e));
    call_finish(call, NULL);
    return 0;
}

/* ---- Watch ---- */

struct watching {
    struct watcher watcher;
    struct call *call;
    struct incident *incident;
};

static void finish_watch(struct watching *w)
{
    trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_end_tag};
    part.body.end = true;
    if (!send_part(w->call, &part))
        call_finish(w->call, NULL);
}

static void on_incident(struct watcher *watcher, const trawl_v1_Incident *incident)
{
    struct watching *w = LIST_ENTRY(watcher, struct watching, watcher);
    if (w->call->finishing || send_incident(w->call, incident))
        return;
    if (incident->finished)
        finish_watch(w);
}

static void on_target(struct watcher *watcher, const trawl_v1_Target *target)
{
    struct watching *w = LIST_ENTRY(watcher, struct watching, watcher);
    if (!w->call->finishing)
        send_target(w->call, target);
}

static void on_artifact(struct watcher *watcher, const trawl_v1_Artifact *artifact)
{
    struct watching *w = LIST_ENTRY(watcher, struct watching, watcher);
    if (!w->call->finishing)
        send_artifact(w->call, artifact);
}

static int watch_target(void *context, const trawl_v1_Target *target)
{
    return send_target(context, target);
}

int watch_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_IncidentRequest r;
    int e = codec_get_incident_request(&r, request, f);
    if (e)
        return e;
    struct incidents *incidents = call->collector->incidents;
    struct incident *incident = incident_find(incidents, r.incident, f);
    struct watching *w = calloc(1, sizeof(*w));
    if (!incident || !w) {
        free(w);
        return incident ? fail(f, ERR_NOMEM, "out of memory") : f->code;
    }
    *w = (struct watching){
        {.incident = on_incident, .target = on_target, .artifact = on_artifact}, call, incident};
    list_init(&w->watcher.link);
    call->state = w;
    incident_watch(incident, &w->watcher);
    struct incident_rows rows = {watch_target, NULL, call};
    if (!incident->record.finished)
        incident_store_summarise(incidents, incident);
    e = send_incident(call, &incident->record);
    if (!e)
        e = incident_read(incidents, incident, &rows);
    if (e)
        return fail(f, e, "incident %s cannot be watched: %s", incident->record.id, err_text(e));
    if (incident->record.finished)
        finish_watch(w);
    return 0;
}

void watch_ended(struct call *call)
{
    struct watching *w = call->state;
    if (!w)
        return;
    incident_unwatch(&w->watcher);
    free(w);
}
