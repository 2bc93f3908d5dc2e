/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The brake as it is, and the change that is being stored. Invariant: `record` is what the store
 * has. Called by ops_brake.c, fleet.c, dispatch.c.
 */
#include "collector/brake.h"

#include <stdlib.h>
#include <string.h>

#include "collector/collector.h"
#include "collector/dispatch.h"
#include "collector/fleet.h"
#include "collector/incident.h"
#include "collector/keys.h"
#include "common/log.h"
#include "common/text.h"

struct brake {
    struct collector *collector;
    trawl_v1_Brake record, next;
    bool storing;
    store_done_fn done;
    void *context;
    struct list waiters;
};

/* ---- opening ---- */

struct loading {
    struct brake *brake;
    int e;
};

static void got(void *context, int err, struct span value)
{
    struct loading *loading = context;
    loading->e = err == ERR_NOTFOUND ? 0 : err;
    if (!err)
        loading->e = codec_get_brake(&loading->brake->record, value, NULL);
}

int brake_open(struct brake **out, struct collector *c, struct failure *f)
{
    struct brake *brake = calloc(1, sizeof *brake);
    if (!brake)
        return fail(f, ERR_NOMEM, "out of memory");
    brake->collector = c;
    list_init(&brake->waiters);
    struct loading loading = {brake, 0};
    kv_get(c->store, KEYS_BRAKE_PART, span_str("brake"), got, &loading);
    if (loading.e) {
        /* What is not known is not permitted; agents go by what they were told last. */
        brake->record = (trawl_v1_Brake){.on = true, .no = 1};
        text_copy(brake->record.note, sizeof brake->record.note,
                  "what the collector had stored of it is damaged");
        log_error("whether the fleet is frozen cannot be read (%s): it is, until 'trawl thaw'",
                  err_text(loading.e));
    }
    *out = brake;
    return 0;
}

void brake_close(struct brake *brake)
{
    free(brake);
}

/* ---- asking ---- */

bool brake_is_on(const struct brake *brake)
{
    return brake->record.on;
}

int brake_refuse(const struct brake *brake, struct failure *f)
{
    const trawl_v1_Brake *b = &brake->record;
    return fail(f, ERR_REFUSED, "the fleet is frozen%s%s%s%s: 'trawl thaw' ends it",
                b->by[0] ? " by " : "", b->by, b->note[0] ? ", " : "", b->note);
}

struct counting {
    const struct brake *brake;
    trawl_v1_Brake *out;
};

static int count_host(void *context, struct host *host)
{
    struct counting *counting = context;
    trawl_v1_Brake *out = counting->out;
    if (host->revoked)
        return 0;
    out->hosts++;
    out->online += host->session != NULL;
    out->obeying += host->session && host->brake_no == out->no;
    return 0;
}

void brake_view(const struct brake *brake, trawl_v1_Brake *out)
{
    struct counting counting = {brake, out};
    *out = brake->record;
    roster_each(brake->collector->roster, count_host, &counting);
}

/* ---- waiting ---- */

static bool all_obey(const struct brake *brake)
{
    trawl_v1_Brake view;
    brake_view(brake, &view);
    return view.obeying == view.online;
}

static void look(struct brake *brake)
{
    struct clock *clock = brake->collector->clock;
    bool all = !list_empty(&brake->waiters) && all_obey(brake);
    LIST_EACH (at, &brake->waiters) {
        struct brake_waiter *w = LIST_ENTRY(at, struct brake_waiter, link);
        if (!all && clock->mono_us(clock) < w->until_mono_us)
            continue;
        list_remove(&w->link);
        w->done(w);
    }
}

void brake_wait(struct brake *brake, struct brake_waiter *waiter)
{
    struct clock *clock = brake->collector->clock;
    waiter->until_mono_us = clock->mono_us(clock) + BRAKE_WAIT_US;
    list_push(&brake->waiters, &waiter->link);
    look(brake);
}

void brake_unwait(struct brake_waiter *waiter)
{
    list_remove(&waiter->link);
}

void brake_tick(struct brake *brake)
{
    look(brake);
}

/* ---- telling ---- */

static void tell(const struct brake *brake, struct host *host)
{
    if (!host->session || !session_is_ready(host->session))
        return;
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_brake_tag};
    m.body.brake = brake->record;
    session_send(host->session, &m);
}

static int tell_host(void *context, struct host *host)
{
    tell(context, host);
    return 0;
}

void brake_host_here(struct brake *brake, struct host *host)
{
    host->brake_no = 0;
    if (brake->record.no)
        tell(brake, host);
}

void brake_obeyed(struct brake *brake, struct host *host, const trawl_v1_BrakeObeyed *obeyed)
{
    if (obeyed->no == brake->record.no && obeyed->on == brake->record.on)
        host->brake_no = obeyed->no;
    look(brake);
}

/* ---- changing ---- */

static int pump_incident(void *context, struct incident *incident)
{
    struct dispatch *dispatch = context;
    LIST_EACH (at, &incident->captures)
        dispatch_pump(dispatch, LIST_ENTRY(at, struct capture, link));
    return 0;
}

static void on_stored(void *context, const struct failure *why)
{
    struct brake *brake = context;
    struct collector *c = brake->collector;
    brake->storing = false;
    if (!why->code) {
        brake->record = brake->next;
        log_info("%s %s the fleet%s%s", brake->record.by, brake->record.on ? "froze" : "thawed",
                 brake->record.note[0] ? ": " : "", brake->record.note);
        roster_each(c->roster, tell_host, brake);
        if (!brake->record.on)
            incident_each(c->incidents, pump_incident, c->dispatch);
    }
    brake->done(brake->context, why);
}

int brake_set(struct brake *brake, const trawl_v1_BrakeRequest *request, const char *who,
              store_done_fn done, void *context, struct failure *f)
{
    struct clock *clock = brake->collector->clock;
    struct buf wire;
    if (brake->storing)
        return fail(f, ERR_BUSY, "another change of the brake is being stored: try again");
    brake->next = (trawl_v1_Brake){
        .on = request->on, .no = brake->record.no + 1, .since_us = clock->wall_us(clock)};
    text_copy(brake->next.by, sizeof brake->next.by, who);
    text_copy(brake->next.note, sizeof brake->next.note, request->note);
    buf_init(&wire, trawl_v1_Brake_size);
    int e = codec_put_brake(&wire, &brake->next);
    struct store_op op = {STORE_PUT, span_str("brake"), buf_span(&wire)};
    brake->done = done;
    brake->context = context;
    if (!e)
        e = kv_commit(brake->collector->store, KEYS_BRAKE_PART, &op, 1, on_stored, brake);
    buf_done(&wire);
    if (e)
        return fail(f, e, "the brake cannot be stored now: %s", err_text(e));
    brake->storing = true;
    return 0;
}
