/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a capture comes into being: an incident to hold it, its targets, then everything committed
 * before anyone is told. Invariants: a creation that fails leaves nothing of itself in memory; in
 * the store an incident is open before there is a capture that was added to it, and a new one is
 * not there before its capture is, so that a collector killed in between either goes on with the
 * capture or never had it. Called through incident_capture() by ops_incidents.c.
 */
#include "collector/incident_store.h"

#include <stdlib.h>
#include <string.h>

#include "collector/dispatch.h"
#include "common/port.h"
#include "common/text.h"

struct creation {
    struct incidents *incidents;
    struct incident *incident;
    struct capture *capture;
    bool fresh;    /* the incident was made for it */
    bool finished; /* what the incident was before */
    bool halfway;  /* of incident and capture, one is stored */
    store_done_fn done;
    void *context;
};

/* Takes back a capture that could not be stored, and an incident that holds nothing else, unless
 * somebody watches it: then it ends empty. */
static void abandon(struct incidents *incidents, struct incident *incident, struct capture *capture,
                    bool fresh, bool finished)
{
    if (capture)
        capture_free(capture);
    if (!list_empty(&incident->captures))
        return;
    if (fresh && list_empty(&incident->watchers)) {
        incidents->count--;
        incident_free(incident);
    } else if (finished) {
        incident->record.finished = true;
        (void)incident_store_put(incidents, incident, NULL,
                                 NULL); /* else the next start finds it */
        incident_tell(incident);
    } else {
        (void)incident_store_summarise(incidents, incident); /* part of it may be stored */
        incident_finish(incidents, incident);
    }
}

static void on_created(struct creation *creation, const struct failure *why)
{
    struct incidents *incidents = creation->incidents;
    struct capture *capture = creation->capture;
    if (why->code) {
        abandon(incidents, creation->incident, capture, creation->fresh, creation->finished);
        creation->done(creation->context, why);
    } else {
        capture->stored = true;
        LIST_EACH (at, &capture->targets)
            target_sum(LIST_ENTRY(at, struct target, link));
        creation->done(creation->context, why);
        dispatch_pump(incidents->collector->dispatch, capture);
        incident_settle(incidents, capture);
    }
    free(creation);
}

static void on_stored(void *context, const struct failure *why);

/* A new incident comes after its capture, another one before it. */
static int store_half(struct creation *c)
{
    if (c->fresh == c->halfway)
        return incident_store_put(c->incidents, c->incident, on_stored, c);
    return incident_store_put_capture(c->incidents, c->capture, on_stored, c);
}

static void on_stored(void *context, const struct failure *why)
{
    struct creation *creation = context;
    struct failure f = *why;
    if (!f.code && !creation->halfway) {
        creation->halfway = true;
        int e = store_half(creation);
        if (!e)
            return;
        fail(&f, e, "the collector cannot store now: %s", err_text(e));
    }
    on_created(creation, &f);
}

static void new_id(char *out, size_t size_bytes, int64_t at_us)
{
    char time_text[32], random_text[6];
    uint8_t random_bytes[5];
    text_put_time(at_us, time_text, sizeof(time_text));
    port_random(random_bytes, sizeof(random_bytes));
    text_put_base32(random_bytes, 5, random_text);
    text_format(out, size_bytes, "INC-%.2s%.2s%.2s-%s", time_text + 2, time_text + 5, time_text + 8,
                random_text);
}

static void fill_incident(struct incidents *incidents, const trawl_v1_CaptureRequest *request,
                          const struct incident_cause *cause, trawl_v1_Incident *out)
{
    memset(out, 0, sizeof(*out));
    out->created_us = incidents_now_us(incidents);
    do
        new_id(out->id, sizeof(out->id), out->created_us);
    while (incident_by_id(incidents, out->id));
    text_copy(out->cause, sizeof(out->cause), cause->text);
    text_clean(out->cause); /* it may have been cut within a character */
    text_copy(out->group, sizeof(out->group), cause->group);
    text_copy(out->rule, sizeof(out->rule), cause->rule ? cause->rule : "");
    text_copy(out->note, sizeof(out->note), request->note);
    out->from_us = out->created_us - (int64_t)request->last_us;
    if (cause->from_us && cause->from_us < out->from_us)
        out->from_us = cause->from_us;
    out->to_us = out->created_us;
    out->what_count = request->what_count;
    memcpy(out->what, request->what, sizeof(out->what));
    text_copy(out->selector, sizeof(out->selector), request->selector);
    out->has_process = request->has_process;
    out->process = request->process;
    out->request_id.size = request->request_id.size;
    memcpy(out->request_id.bytes, request->request_id.bytes, sizeof(out->request_id.bytes));
    out->pause_max_us = request->pause_max_us;
    out->canary = request->canary;
    out->max_parallel = request->max_parallel;
    out->last_us = request->last_us;
    out->for_us = request->for_us;
    out->at_us = request->at_us;
    out->fallback = request->fallback;
    out->live = request->live;
    out->allow_pause = request->allow_pause;
}

static int add_targets(struct capture *capture, struct host *const *hosts, size_t host_count)
{
    uint32_t canaries = capture->request.canary;
    for (size_t i = 0; i < host_count; i++) {
        bool canary = canaries && hosts[i]->session;
        trawl_v1_Target record = {.state = trawl_v1_State_QUEUED, .capture = capture->no};
        record.wave = capture->request.canary && !canary ? 1 : 0;
        record.updated_us = capture->incident->record.created_us;
        record.host_last_seen_us = hosts[i]->record.last_seen_us;
        text_copy(record.incident, sizeof(record.incident), capture->incident->record.id);
        text_copy(record.host, sizeof(record.host), hosts[i]->record.name);
        if (!hosts[i]->session)
            text_copy(record.reason, sizeof(record.reason), "host is offline");
        if (!target_new(capture, hosts[i], &record))
            return ERR_NOMEM;
        canaries -= canary;
    }
    return 0;
}

/* Orders for exceptions have targets of their own and wait for each other (dispatch.c). */
static int check_not_open(const struct incident *incident, struct host *const *hosts,
                          size_t host_count, struct failure *f)
{
    for (size_t i = 0; i < host_count; i++)
        LIST_EACH (at, &hosts[i]->targets) {
            const struct target *t = LIST_ENTRY(at, struct target, of_host);
            if (t->capture->incident == incident && !t->capture->request.exception.size &&
                !state_is_final(t->record.state))
                return fail(f, ERR_BUSY, "host '%s' is still %s in %s: wait for it or cancel it",
                            t->record.host, state_name(t->record.state), incident->record.id);
        }
    return 0;
}

static struct incident *place_for(struct incidents *incidents,
                                  const trawl_v1_CaptureRequest *request, struct host *const *hosts,
                                  size_t host_count, const struct incident_cause *cause,
                                  struct failure *f)
{
    struct incident *incident;
    if (request->into[0]) {
        incident = incident_find(incidents, request->into, f);
        if (!incident || request->exception.size)
            return incident;
        return check_not_open(incident, hosts, host_count, f) ? NULL : incident;
    }
    trawl_v1_Incident record;
    fill_incident(incidents, request, cause, &record);
    incident = incident_new(incidents, &record);
    if (!incident)
        fail(f, ERR_NOMEM, "out of memory");
    return incident;
}

static int begin(struct incidents *incidents, const trawl_v1_CaptureRequest *request,
                 struct host *const *hosts, size_t host_count, const struct incident_cause *cause,
                 struct incident **out, store_done_fn done, void *context, struct failure *f)
{
    struct incident *incident = place_for(incidents, request, hosts, host_count, cause, f);
    if (!incident)
        return f->code;
    bool fresh = !incident->capture_count, finished = incident->record.finished;
    struct capture *capture = capture_new(incident, incident->capture_count + 1, request);
    struct creation *creation = calloc(1, sizeof(*creation));
    int e = capture && creation ? add_targets(capture, hosts, host_count) : ERR_NOMEM;
    if (!e) {
        capture->expires_us = incidents_now_us(incidents) + (int64_t)request->expire_us;
        incident->record.expires_us = capture->expires_us;
        incident->record.finished = false;
        *creation = (struct creation){.incidents = incidents,
                                      .incident = incident,
                                      .capture = capture,
                                      .fresh = fresh,
                                      .finished = finished,
                                      .done = done,
                                      .context = context};
        e = store_half(creation);
    }
    if (e) {
        free(creation);
        abandon(incidents, incident, capture, fresh, finished);
        return fail(f, e, "the capture cannot be stored now: %s", err_text(e));
    }
    *out = incident;
    return 0;
}

int incident_capture(struct incidents *incidents, const trawl_v1_CaptureRequest *request,
                     struct host *const *hosts, size_t host_count, const char *who,
                     struct incident **out, store_done_fn done, void *context, struct failure *f)
{
    char text[96];
    text_format(text, sizeof(text), "capture by %s", who);
    struct incident_cause cause = {.text = text, .group = ""};
    return begin(incidents, request, hosts, host_count, &cause, out, done, context, f);
}

int incident_capture_for(struct incidents *incidents, const trawl_v1_CaptureRequest *request,
                         struct host *host, const struct incident_cause *cause,
                         struct incident **out, store_done_fn done, void *context,
                         struct failure *f)
{
    return begin(incidents, request, &host, 1, cause, out, done, context, f);
}
