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
#include "collector/upload.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

/* Somebody who waits for a target's next commit. */
struct stored {
    struct list link;
    store_done_fn done;
    void *context;
};

int64_t incidents_now_us(struct incidents *incidents)
{
    struct clock *clock = incidents->collector->clock;
    return clock->wall_us(clock);
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

void incident_tell(const struct incident *incident)
{
    LIST_EACH (at, &incident->watchers) {
        struct watcher *w = LIST_ENTRY(at, struct watcher, link);
        if (w->incident)
            w->incident(w, &incident->record);
    }
}

/* ---- finishing ---- */

void incident_finish(struct incidents *incidents, struct incident *incident)
{
    incident->record.finished = true;
    incident->record.to_us = incidents_now_us(incidents);
    if (incident_store_put(incidents, incident, NULL, NULL))
        log_warn("incident %s: the store does not take its end now", incident->record.id);
    incident_tell(incident);
}

/* A capture goes when its last target is final and stored. */
static bool capture_is_over(const struct capture *capture)
{
    return !capture->open && !capture->unsettled;
}

void incident_settle(struct incidents *incidents, struct capture *capture)
{
    struct incident *incident = capture->incident;
    if (!capture_is_over(capture))
        return;
    capture_free(capture);
    if (list_empty(&incident->captures))
        incident_finish(incidents, incident);
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
        target_recount(target);
        answer_waiting(target, why);
        return;
    }
    if (target->dirty) {
        store_target(incidents, target);
        return;
    }
    target_recount(target);
    target_sum(target);
    tell_target(target);
    if (state_is_final(target->record.state))
        upload_forget(incidents->collector, target->record.incident, target->record.host);
    answer_waiting(target, why);
    dispatch_pump(incidents->collector->dispatch, capture);
    incident_settle(incidents, capture);
}

/* Before its capture is stored a change waits for the tick: creation may fail and free it all. */
static void store_target(struct incidents *incidents, struct target *target)
{
    target->dirty = true;
    if (!target->storing && target->capture->stored &&
        !incident_store_put_target(incidents, target, on_target_stored, target)) {
        target->storing = true;
        target->dirty = false;
    }
    target_recount(target);
}

void target_move(struct target *target, trawl_v1_State state, const char *reason)
{
    struct incidents *incidents = target->capture->incident->incidents;
    if (state_is_final(target->record.state))
        return;
    target->record.state = state;
    target->record.updated_us = incidents_now_us(incidents);
    text_copy(target->record.reason, sizeof(target->record.reason), reason);
    if (state_is_final(state)) {
        assert(target->capture->open > 0);
        target->capture->open--;
        log_info("%s %s: %s%s%s", target->record.incident, target->record.host, state_name(state),
                 *reason ? ": " : "", reason);
    }
    store_target(incidents, target);
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
    struct incident *incident = incident_by_id(incidents, verdict->incident);
    struct target *t =
        incident && verdict->order ? incident_target(incident, host, verdict->order) : NULL;
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
    int64_t late_us = incidents_now_us(incidents) - capture->expires_us;
    LIST_EACH (at, &capture->targets) {
        if (late_us < 0 && !capture->unsettled)
            break; /* nothing has to be looked at */
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
            incident_settle(incidents, capture);
        }
    }
}

/* ---- artifacts ---- */

bool incident_accepts(struct incidents *incidents, const char *incident, const struct host *host)
{
    struct incident *i = incident_by_id(incidents, incident);
    LIST_EACH (at, &host->targets) {
        const struct target *t = LIST_ENTRY(at, struct target, of_host);
        if (t->capture->incident == i && t->record.order && !state_is_final(t->record.state))
            return true;
    }
    return false;
}

/* Counted when it is committed, and then told. */
struct recording {
    struct incident *incident;
    trawl_v1_Artifact artifact;
    store_done_fn done;
    void *context;
};

static void on_artifact_stored(void *context, const struct failure *why)
{
    struct recording *r = context;
    if (!why->code)
        incident_sum_artifact(r->incident, r->artifact.size_bytes);
    LIST_EACH (at, &r->incident->watchers) {
        struct watcher *w = LIST_ENTRY(at, struct watcher, link);
        if (w->artifact && !why->code)
            w->artifact(w, &r->artifact);
    }
    r->done(r->context, why);
    free(r);
}

int incident_artifact(struct incidents *incidents, const trawl_v1_Artifact *artifact,
                      store_done_fn done, void *context, struct failure *f)
{
    struct incident *incident = incident_by_id(incidents, artifact->incident);
    if (!incident)
        return fail(f, ERR_NOTFOUND, "no incident '%s'", artifact->incident);
    struct recording *r = malloc(sizeof(*r));
    if (!r)
        return fail(f, ERR_NOMEM, "out of memory");
    *r = (struct recording){incident, *artifact, done, context};
    int e = incident_store_put_artifact(incidents, artifact, on_artifact_stored, r);
    if (!e)
        return 0;
    free(r);
    return fail(f, e, "the collector cannot store now: %s", err_text(e));
}

/* ---- life ---- */

int incidents_open(struct incidents **out, struct collector *c, struct failure *f)
{
    struct incidents *incidents = calloc(1, sizeof(*incidents));
    if (!incidents)
        return fail(f, ERR_NOMEM, "out of memory");
    incidents->collector = c;
    list_init(&incidents->all);
    for (size_t i = 0; i < INCIDENT_BUCKETS; i++)
        list_init(&incidents->buckets[i]);
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
