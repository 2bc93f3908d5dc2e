/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders out. Invariant: the host's order counter is committed before the target that uses the
 * number, and the target before the order is sent; a crash in between skips a number and runs
 * nothing twice. Called by incident.c after every stored change and by fleet.c when hosts come and
 * go.
 */
#include "collector/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "collector/brake.h"
#include "collector/fleet.h"
#include "collector/ingest.h"
#include "common/log.h"
#include "common/text.h"

#define MAX_PROCESSES 16

struct dispatch {
    struct collector *collector;
};

int dispatch_open(struct dispatch **out, struct collector *c, struct failure *f)
{
    struct dispatch *dispatch = calloc(1, sizeof(*dispatch));
    if (!dispatch)
        return fail(f, ERR_NOMEM, "out of memory");
    dispatch->collector = c;
    *out = dispatch;
    return 0;
}

void dispatch_close(struct dispatch *dispatch)
{
    free(dispatch);
}

/* ---- sending ---- */

struct counting {
    const char *host;
    uint32_t highest;
};

static int count_artifact(void *context, const trawl_v1_Artifact *a)
{
    struct counting *counting = context;
    if (!strcmp(a->host, counting->host) && a->no > counting->highest)
        counting->highest = a->no;
    return 0;
}

/* A later capture into the same incident goes on where the earlier one's artifacts end. */
static uint32_t first_artifact(struct dispatch *dispatch, const struct target *target)
{
    if (target->capture->no <= 1)
        return 1;
    struct counting counting = {target->record.host, 0};
    struct incident_rows rows = {NULL, count_artifact, &counting};
    incident_read(dispatch->collector->incidents, target->capture->incident, &rows);
    return counting.highest + 1;
}

static void fill_order(struct dispatch *dispatch, const struct target *target, trawl_v1_Order *o)
{
    const struct capture *capture = target->capture;
    const trawl_v1_CaptureRequest *r = &capture->request;
    struct clock *clock = dispatch->collector->clock;
    int64_t left_us = capture->expires_us - clock->wall_us(clock);
    o->order = target->record.order;
    text_copy(o->incident, sizeof(o->incident), target->record.incident);
    o->what_count = r->what_count;
    memcpy(o->what, r->what, sizeof(o->what));
    o->has_process = r->has_process;
    o->process = r->process;
    o->last_us = r->last_us;
    o->for_us = r->for_us;
    o->at_us = r->at_us;
    o->pause_max_us = r->pause_max_us;
    o->fallback = r->fallback;
    o->live = r->live;
    o->allow_pause = r->allow_pause;
    o->exception.size = r->exception.size;
    memcpy(o->exception.bytes, r->exception.bytes, sizeof(o->exception.bytes));
    o->expires_in_us = left_us > 0 ? (uint64_t)left_us : 1;
    o->max_processes = MAX_PROCESSES;
    o->first_artifact = first_artifact(dispatch, target);
}

static void send_order(struct dispatch *dispatch, struct target *target)
{
    struct session *session = target->host->session;
    if (target->told || !session || !session_is_ready(session))
        return;
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_order_tag};
    fill_order(dispatch, target, &m.body.order);
    target->told = !session_send(session, &m);
    target_recount(target);
}

/* Gives the target its number. The number is committed with the state, then the pump sends. */
static void start_target(struct dispatch *dispatch, struct target *target)
{
    struct host *host = target->host;
    uint64_t before = host->last_order++;
    if (roster_save_cursors(dispatch->collector->roster, host, NULL, NULL)) {
        host->last_order = before;
        return;
    }
    target->record.order = host->last_order;
    target->record.state_id.size = sizeof(host->state_id);
    memcpy(target->record.state_id.bytes, host->state_id, sizeof(host->state_id));
    target_move(target, trawl_v1_State_SENT, "");
}

/* ---- waves ---- */

static void stop_rest(struct capture *capture, const struct target *bad)
{
    char reason[320];
    text_format(reason, sizeof(reason), "stopped: canary '%s' %s: %.200s", bad->record.host,
                state_name(bad->record.state), bad->record.reason);
    text_clean(reason); /* it may have been cut within a character */
    text_copy(capture->incident->record.stopped, sizeof(capture->incident->record.stopped), reason);
    capture->is_stopped = true;
    LIST_EACH (at, &capture->targets) {
        struct target *t = LIST_ENTRY(at, struct target, link);
        if (t->record.wave && t->record.state == trawl_v1_State_QUEUED)
            target_move(t, trawl_v1_State_CANCELLED, reason);
    }
}

/* Artifacts of a host are numbered through an incident: of its orders one is under way at a time.
 */
static bool another_is_under_way(const struct target *target)
{
    const struct capture *own = target->capture;
    LIST_EACH (at, &target->host->targets) {
        const struct target *t = LIST_ENTRY(at, struct target, of_host);
        const struct capture *capture = t->capture;
        bool under_way =
            t->record.state == trawl_v1_State_SENT || t->record.state == trawl_v1_State_RUNNING;
        if (capture == own || capture->incident != own->incident ||
            (!capture->request.exception.size && !own->request.exception.size))
            continue; /* people's captures have no host in common (incident_create.c) */
        if (under_way || t->storing)
            return true;
    }
    return false;
}

/* An agent that waits for an instant does nothing else meanwhile: exceptions' orders wait here. */
static bool is_early(const struct dispatch *dispatch, const struct capture *capture)
{
    struct clock *clock = dispatch->collector->clock;
    return capture->request.exception.size && capture->request.at_us > clock->wall_us(clock);
}

static bool is_here(const struct target *t)
{
    return t->host->session && session_is_ready(t->host->session);
}

static void start_queued(struct dispatch *dispatch, struct capture *capture, struct list *queued)
{
    LIST_EACH (at, queued) {
        struct target *t = LIST_ENTRY(at, struct target, due);
        if (capture->running >= capture->request.max_parallel)
            return;
        if (is_here(t) && !another_is_under_way(t))
            start_target(dispatch, t);
    }
}

void dispatch_pump(struct dispatch *dispatch, struct capture *capture)
{
    if (!capture->stored)
        return;
    if (brake_is_on(dispatch->collector->brake))
        return; /* what waits, waits until it is let go or expires */
    if (capture->bad_canary && !capture->is_stopped)
        stop_rest(capture, capture->bad_canary);
    LIST_EACH (at, &capture->unsent)
        send_order(dispatch, LIST_ENTRY(at, struct target, due));
    if (is_early(dispatch, capture))
        return;
    start_queued(dispatch, capture, &capture->queued[0]);
    if (!capture->canaries_open)
        start_queued(dispatch, capture, &capture->queued[1]);
}

/* ---- hosts come and go ---- */

static void resume_target(struct dispatch *dispatch, struct target *t, const struct host *host)
{
    t->told = false;
    bool with_agent =
        t->record.state == trawl_v1_State_SENT || t->record.state == trawl_v1_State_RUNNING;
    if (!with_agent)
        return;
    bool same = t->record.state_id.size == sizeof(host->state_id) &&
                !memcmp(t->record.state_id.bytes, host->state_id, sizeof(host->state_id));
    bool accepted = session_last_order(host->session) >= t->record.order;
    if (!same)
        target_move(t, trawl_v1_State_FAILED,
                    "the agent's state directory was lost: whether the order ran is not known");
    else if (accepted)
        t->told = true; /* it has the order and will say what became of it */
    else if (t->cancelling)
        target_move(t, trawl_v1_State_CANCELLED, t->capture->incident->record.stopped);
    if (t->cancelling && t->told) /* the cancel may have been lost with the connection */
        dispatch_cancel(dispatch, t, t->capture->incident->record.stopped);
}

void dispatch_host_here(struct dispatch *dispatch, struct host *host)
{
    LIST_EACH (at, &host->targets) {
        struct target *t = LIST_ENTRY(at, struct target, of_host);
        resume_target(dispatch, t, host);
        target_recount(t);
    }
    LIST_EACH (at, &host->targets)
        dispatch_pump(dispatch, LIST_ENTRY(at, struct target, of_host)->capture);
}

void dispatch_host_gone(struct dispatch *dispatch, struct host *host)
{
    (void)dispatch;
    LIST_EACH (at, &host->targets) {
        struct target *t = LIST_ENTRY(at, struct target, of_host);
        t->told = false;
        t->record.host_last_seen_us = host->record.last_seen_us;
        target_recount(t);
    }
}

void dispatch_cancel(struct dispatch *dispatch, const struct target *target, const char *reason)
{
    (void)dispatch;
    if (!target->host->session || !session_is_ready(target->host->session))
        return;
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_cancel_tag};
    m.body.cancel.order = target->record.order;
    text_copy(m.body.cancel.incident, sizeof(m.body.cancel.incident), target->record.incident);
    text_copy(m.body.cancel.reason, sizeof(m.body.cancel.reason), reason);
    text_clean(m.body.cancel.reason);
    session_send(target->host->session, &m);
}
