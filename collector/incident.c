/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state machine of captures. Invariant: `record` of a target is what will be stored next; at
 * most one commit per target is on its way, and watchers and dispatch hear of a state after its
 * commit. A commit that fails is repeated by the next tick, so a full disk delays a state and loses
 * none.
 */
#include "collector/incident.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "collector/dispatch.h"
#include "collector/fleet.h"
#include "collector/incident_store.h"
#include "collector/keys.h"
#include "common/id.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

/* Somebody who waits for a target's next commit. */
struct stored {
    struct list link;
    store_done_fn done;
    void *context;
};

static int64_t now_us(struct incidents *incidents)
{
    struct clock *clock = incidents->collector->clock;
    return clock->wall_us(clock);
}

bool state_is_final(trawl_v1_State state)
{
    return state >= trawl_v1_State_DONE;
}

const char *state_name(trawl_v1_State state)
{
    static const char *const names[] = {"unknown", "queued",    "sent",    "running",
                                        "done",    "partial",   "refused", "failed",
                                        "expired", "cancelled", "gone"};
    return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

/* ---- watchers ---- */

void incident_watch(struct incident *incident, struct watcher *watcher)
{
    list_push(&incident->watchers, &watcher->link);
}

void incident_unwatch(struct watcher *watcher)
{
    list_remove(&watcher->link);
}

static void tell_target(const struct target *target)
{
    LIST_EACH (at, &target->capture->incident->watchers) {
        struct watcher *w = LIST_ENTRY(at, struct watcher, link);
        if (w->target)
            w->target(w, &target->record);
    }
}

static void tell_incident(const struct incident *incident)
{
    LIST_EACH (at, &incident->watchers) {
        struct watcher *w = LIST_ENTRY(at, struct watcher, link);
        if (w->incident)
            w->incident(w, &incident->record);
    }
}

/* ---- finishing ---- */

static void finish_incident(struct incidents *incidents, struct incident *incident)
{
    if (incident_store_summarise(incidents, incident))
        log_warn("incident %s: its rows could not be counted", incident->record.id);
    incident->record.finished = true;
    incident->record.to_us = now_us(incidents);
    if (incident_store_put(incidents, incident, NULL, NULL))
        log_warn("incident %s: the store does not take its end now", incident->record.id);
    tell_incident(incident);
}

/* A capture goes when its last target is final and stored. */
static bool capture_is_over(const struct capture *capture)
{
    if (capture->open)
        return false;
    LIST_EACH (at, &capture->targets) {
        const struct target *t = LIST_ENTRY(at, struct target, link);
        if (t->storing || t->dirty)
            return false;
    }
    return true;
}

static void settle(struct incidents *incidents, struct capture *capture)
{
    struct incident *incident = capture->incident;
    if (!capture_is_over(capture))
        return;
    capture_free(capture);
    if (list_empty(&incident->captures))
        finish_incident(incidents, incident);
}

/* ---- storing a target ---- */

static void store_target(struct incidents *incidents, struct target *target);

static void answer_waiting(struct target *target, const struct failure *why)
{
    struct list mine;
    list_init(&mine);
    for (struct list *at; (at = list_first(&target->waiting));) {
        list_remove(at);
        list_push(&mine, at);
    }
    for (struct list *at; (at = list_first(&mine));) {
        struct stored *s = LIST_ENTRY(at, struct stored, link);
        list_remove(at);
        if (s->done)
            s->done(s->context, why);
        free(s);
    }
}

static void on_target_stored(void *context, const struct failure *why)
{
    struct target *target = context;
    struct capture *capture = target->capture;
    struct incidents *incidents = capture->incident->incidents;
    target->storing = false;
    if (why->code) {
        target->dirty = true; /* the tick tries again */
        answer_waiting(target, why);
        return;
    }
    if (target->dirty) {
        store_target(incidents, target);
        return;
    }
    tell_target(target);
    answer_waiting(target, why);
    dispatch_pump(incidents->collector->dispatch, capture);
    settle(incidents, capture);
}

/* Before its capture is stored a change waits for the tick: creation may fail and free it all. */
static void store_target(struct incidents *incidents, struct target *target)
{
    target->dirty = true;
    if (target->storing || !target->capture->stored)
        return;
    if (incident_store_put_target(incidents, target, on_target_stored, target))
        return;
    target->storing = true;
    target->dirty = false;
}

void target_move(struct target *target, trawl_v1_State state, const char *reason)
{
    struct incidents *incidents = target->capture->incident->incidents;
    if (state_is_final(target->record.state))
        return;
    target->record.state = state;
    target->record.updated_us = now_us(incidents);
    text_copy(target->record.reason, sizeof(target->record.reason), reason);
    if (state_is_final(state)) {
        assert(target->capture->open > 0);
        target->capture->open--;
        log_info("%s %s: %s%s%s", target->record.incident, target->record.host, state_name(state),
                 *reason ? ": " : "", reason);
    }
    store_target(incidents, target);
}

/* ---- creating ---- */

struct creation {
    struct incidents *incidents;
    struct incident *incident;
    struct capture *capture;
    bool fresh;    /* the incident was made for it */
    bool finished; /* what the incident was before */
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
        tell_incident(incident);
    } else {
        finish_incident(incidents, incident);
    }
}

static void on_incident_stored(void *context, const struct failure *why)
{
    struct creation *creation = context;
    struct incidents *incidents = creation->incidents;
    struct capture *capture = creation->capture;
    if (why->code) {
        abandon(incidents, creation->incident, capture, creation->fresh, creation->finished);
        creation->done(creation->context, why);
    } else {
        capture->stored = true;
        creation->done(creation->context, why);
        dispatch_pump(incidents->collector->dispatch, capture);
        settle(incidents, capture);
    }
    free(creation);
}

static void on_capture_stored(void *context, const struct failure *why)
{
    struct creation *creation = context;
    struct failure f = *why;
    if (!f.code) {
        int e = incident_store_put(creation->incidents, creation->incident, on_incident_stored,
                                   creation);
        if (!e)
            return;
        fail(&f, e, "the collector cannot store now: %s", err_text(e));
    }
    on_incident_stored(creation, &f);
}

static void new_id(char *out, size_t size_bytes, int64_t at_us)
{
    char time_text[32], random_text[6];
    uint8_t random_bytes[5];
    text_put_time(at_us, time_text, sizeof(time_text));
    port_random(random_bytes, sizeof(random_bytes));
    id_base32(random_bytes, 5, random_text);
    text_format(out, size_bytes, "INC-%.2s%.2s%.2s-%s", time_text + 2, time_text + 5, time_text + 8,
                random_text);
}

static void fill_incident(struct incidents *incidents, const trawl_v1_CaptureRequest *request,
                          const char *who, trawl_v1_Incident *out)
{
    memset(out, 0, sizeof(*out));
    out->created_us = now_us(incidents);
    struct failure ignored;
    do
        new_id(out->id, sizeof(out->id), out->created_us);
    while (incident_find(incidents, out->id, &ignored));
    text_format(out->cause, sizeof(out->cause), "capture by %s", who);
    text_copy(out->note, sizeof(out->note), request->note);
    out->from_us = out->created_us - (int64_t)request->last_us;
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

static int check_not_open(const struct incident *incident, struct host *const *hosts,
                          size_t host_count, struct failure *f)
{
    LIST_EACH (c_at, &incident->captures)
        LIST_EACH (t_at, &LIST_ENTRY(c_at, struct capture, link)->targets) {
            const struct target *t = LIST_ENTRY(t_at, struct target, link);
            for (size_t i = 0; i < host_count; i++)
                if (t->host == hosts[i] && !state_is_final(t->record.state))
                    return fail(f, ERR_BUSY,
                                "host '%s' is still %s in %s: wait for it or cancel it",
                                t->record.host, state_name(t->record.state), incident->record.id);
        }
    return 0;
}

static struct incident *place_for(struct incidents *incidents,
                                  const trawl_v1_CaptureRequest *request, struct host *const *hosts,
                                  size_t host_count, const char *who, struct failure *f)
{
    struct incident *incident;
    if (request->into[0]) {
        incident = incident_find(incidents, request->into, f);
        return incident && !check_not_open(incident, hosts, host_count, f) ? incident : NULL;
    }
    trawl_v1_Incident record;
    fill_incident(incidents, request, who, &record);
    incident = incident_new(incidents, &record);
    if (!incident)
        fail(f, ERR_NOMEM, "out of memory");
    return incident;
}

int incident_capture(struct incidents *incidents, const trawl_v1_CaptureRequest *request,
                     struct host *const *hosts, size_t host_count, const char *who,
                     struct incident **out, store_done_fn done, void *context, struct failure *f)
{
    struct incident *incident = place_for(incidents, request, hosts, host_count, who, f);
    if (!incident)
        return f->code;
    bool fresh = !incident->capture_count, finished = incident->record.finished;
    struct capture *capture = capture_new(incident, incident->capture_count + 1, request);
    struct creation *creation = calloc(1, sizeof(*creation));
    int e = capture && creation ? add_targets(capture, hosts, host_count) : ERR_NOMEM;
    if (!e) {
        capture->expires_us = now_us(incidents) + (int64_t)request->expire_us;
        incident->record.expires_us = capture->expires_us;
        incident->record.finished = false;
        *creation = (struct creation){incidents, incident, capture, fresh, finished, done, context};
        e = incident_store_put_capture(incidents, capture, on_capture_stored, creation);
    }
    if (e) {
        free(creation);
        abandon(incidents, incident, capture, fresh, finished);
        return fail(f, e, "the capture cannot be stored now: %s", err_text(e));
    }
    *out = incident;
    return 0;
}

/* ---- finding ---- */

int incident_each(struct incidents *incidents, incident_each_fn each, void *context)
{
    LIST_EACH (at, &incidents->all) {
        int e = each(context, LIST_ENTRY(at, struct incident, link));
        if (e)
            return e;
    }
    return 0;
}

static void upper(char *text)
{
    for (; *text; text++)
        if (*text >= 'a' && *text <= 'z')
            *text = (char)(*text - 'a' + 'A');
}

struct incident *incident_find(struct incidents *incidents, const char *text, struct failure *f)
{
    char wanted[32];
    struct incident *found = NULL;
    if (!*text || text_copy(wanted, sizeof(wanted), text)) {
        fail(f, ERR_NOTFOUND, "no incident '%.40s': 'trawl incidents' lists them", text);
        return NULL;
    }
    upper(wanted);
    LIST_EACH (at, &incidents->all) {
        struct incident *incident = LIST_ENTRY(at, struct incident, link);
        if (!strcmp(incident->record.id, wanted))
            return incident;
        if (!strstr(incident->record.id, wanted))
            continue;
        if (found) {
            fail(f, ERR_CONFLICT, "'%s' could be '%s' or '%s': give more of the ID", text,
                 found->record.id, incident->record.id);
            return NULL;
        }
        found = incident;
    }
    if (!found)
        fail(f, ERR_NOTFOUND, "no incident '%s': 'trawl incidents' lists them", text);
    return found;
}

struct incident *incident_by_request(struct incidents *incidents, const uint8_t request_id[16])
{
    LIST_EACH (at, &incidents->all) {
        struct incident *incident = LIST_ENTRY(at, struct incident, link);
        if (incident->record.request_id.size == 16 &&
            !memcmp(incident->record.request_id.bytes, request_id, 16))
            return incident;
        LIST_EACH (c_at, &incident->captures) { /* of one added by `into` */
            const struct capture *capture = LIST_ENTRY(c_at, struct capture, link);
            if (capture->request.request_id.size == 16 &&
                !memcmp(capture->request.request_id.bytes, request_id, 16))
                return incident;
        }
    }
    return NULL;
}

static struct incident *by_id(struct incidents *incidents, const char *id)
{
    LIST_EACH (at, &incidents->all) {
        struct incident *incident = LIST_ENTRY(at, struct incident, link);
        if (!strcmp(incident->record.id, id))
            return incident;
    }
    return NULL;
}

/* A host can be a target of several captures of an incident: the order tells them apart. 0: any
 * that was sent. */
static struct target *target_of(struct incident *incident, const struct host *host, uint64_t order)
{
    LIST_EACH (c_at, &incident->captures)
        LIST_EACH (t_at, &LIST_ENTRY(c_at, struct capture, link)->targets) {
            struct target *t = LIST_ENTRY(t_at, struct target, link);
            if (t->host == host && t->record.order && (!order || t->record.order == order))
                return t;
        }
    return NULL;
}

/* ---- verdicts ---- */

static void done_now(store_done_fn done, void *context)
{
    static const struct failure none = {0};
    done(context, &none);
}

static void take_verdict(struct target *t, const trawl_v1_Verdict *v)
{
    trawl_v1_State state = v->state == trawl_v1_State_QUEUED ? trawl_v1_State_SENT : v->state;
    t->record.verdict_no = v->no;
    t->record.processes = v->processes;
    t->record.artifacts = v->artifacts;
    t->record.longest_pause_us = v->longest_pause_us;
    t->record.at_error_us = v->at_error_us;
    target_move(t, state, v->reason);
}

int incident_verdict(struct incidents *incidents, struct host *host,
                     const trawl_v1_Verdict *verdict, store_done_fn done, void *context,
                     struct failure *f)
{
    struct incident *incident = by_id(incidents, verdict->incident);
    struct target *t =
        incident && verdict->order ? target_of(incident, host, verdict->order) : NULL;
    if (!t || verdict->no < t->record.verdict_no) {
        done_now(done, context); /* of something that has ended here */
        return 0;
    }
    if (verdict->state < trawl_v1_State_QUEUED || verdict->state > trawl_v1_State_GONE)
        return fail(f, ERR_INVALID, "verdict with an unknown state");
    bool over = state_is_final(t->record.state);
    if (over && !state_is_final(verdict->state))
        dispatch_cancel(incidents->collector->dispatch, t, t->record.reason);
    bool known = over || verdict->no == t->record.verdict_no;
    if (known && !t->storing && !t->dirty) {
        done_now(done, context);
        return 0;
    }
    struct stored *s = calloc(1, sizeof(*s));
    if (!s)
        return fail(f, ERR_NOMEM, "out of memory");
    *s = (struct stored){.done = done, .context = context};
    list_push(&t->waiting, &s->link);
    if (!known) /* otherwise what it said is on its way to the store */
        take_verdict(t, verdict);
    return 0;
}

/* ---- ending ---- */

static void cancel_target(struct incidents *incidents, struct target *t, const char *reason)
{
    bool with_agent = t->record.state != trawl_v1_State_QUEUED;
    bool unsent = t->record.state == trawl_v1_State_SENT && !t->told;
    bool here = t->host->session && session_is_ready(t->host->session);
    if (!with_agent || !here || unsent) {
        target_move(t, trawl_v1_State_CANCELLED, reason);
        return;
    }
    t->cancelling = true;
    dispatch_cancel(incidents->collector->dispatch, t, reason);
}

void incident_cancel(struct incidents *incidents, struct incident *incident, const char *reason)
{
    if (list_empty(&incident->captures))
        return;
    text_copy(incident->record.stopped, sizeof(incident->record.stopped), reason);
    LIST_EACH (c_at, &incident->captures)
        LIST_EACH (t_at, &LIST_ENTRY(c_at, struct capture, link)->targets) {
            struct target *t = LIST_ENTRY(t_at, struct target, link);
            if (!state_is_final(t->record.state))
                cancel_target(incidents, t, reason);
        }
}

/* An order that runs has its own limits on the host; this long after expiry we stop waiting. */
#define GRACE_US (120 * 1000000ll)

static void expire_target(struct target *t, int64_t late_us)
{
    int64_t grace = GRACE_US + (int64_t)t->capture->request.for_us;
    if (t->record.state == trawl_v1_State_QUEUED)
        target_move(t, trawl_v1_State_EXPIRED,
                    t->host->session ? "its turn did not come before the order expired"
                                     : "host was offline until the order expired");
    else if (t->record.state == trawl_v1_State_SENT && late_us > grace)
        target_move(t, trawl_v1_State_EXPIRED, "the host did not start before the order expired");
    else if (late_us > grace)
        target_move(t, trawl_v1_State_FAILED, "the host gave no result before the order expired");
}

static void tick_capture(struct incidents *incidents, struct capture *capture)
{
    int64_t late_us = now_us(incidents) - capture->expires_us;
    LIST_EACH (at, &capture->targets) {
        struct target *t = LIST_ENTRY(at, struct target, link);
        if (late_us >= 0 && !state_is_final(t->record.state))
            expire_target(t, late_us);
        if (t->dirty && !t->storing)
            store_target(incidents, t);
    }
    dispatch_pump(incidents->collector->dispatch, capture);
}

void incidents_tick(struct incidents *incidents)
{
    LIST_EACH (at, &incidents->all) {
        struct incident *incident = LIST_ENTRY(at, struct incident, link);
        LIST_EACH (c_at, &incident->captures) {
            struct capture *capture = LIST_ENTRY(c_at, struct capture, link);
            if (!capture->stored)
                continue;
            tick_capture(incidents, capture);
            settle(incidents, capture);
        }
    }
}

/* ---- artifacts ---- */

bool incident_accepts(struct incidents *incidents, const char *incident, const struct host *host)
{
    struct incident *i = by_id(incidents, incident);
    return i && target_of(i, host, 0);
}

int incident_artifact(struct incidents *incidents, const trawl_v1_Artifact *artifact,
                      store_done_fn done, void *context, struct failure *f)
{
    struct incident *incident = by_id(incidents, artifact->incident);
    if (!incident)
        return fail(f, ERR_NOTFOUND, "no incident '%s'", artifact->incident);
    int e = incident_store_put_artifact(incidents, artifact, done, context);
    if (e)
        return fail(f, e, "the collector cannot store now: %s", err_text(e));
    LIST_EACH (at, &incident->watchers) {
        struct watcher *w = LIST_ENTRY(at, struct watcher, link);
        if (w->artifact)
            w->artifact(w, artifact);
    }
    return 0;
}

/* ---- life ---- */

int incidents_open(struct incidents **out, struct collector *c, struct failure *f)
{
    struct incidents *incidents = calloc(1, sizeof(*incidents));
    if (!incidents)
        return fail(f, ERR_NOMEM, "out of memory");
    incidents->collector = c;
    list_init(&incidents->all);
    int e = incident_store_load(incidents, f);
    if (e) {
        incidents_close(incidents);
        return e;
    }
    *out = incidents;
    return 0;
}

void incidents_close(struct incidents *incidents)
{
    if (!incidents)
        return;
    LIST_EACH (at, &incidents->all)
        incident_free(LIST_ENTRY(at, struct incident, link));
    free(incidents);
}
