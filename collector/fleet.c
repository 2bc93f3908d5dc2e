/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fleet.Connect: one session per agent. Invariant: an acknowledgement is sent only for what the
 * store has committed, and a session belongs to exactly one host, named by its certificate. A
 * record that could not be stored ends the session, so that the agent comes back and sends it
 * again.
 */
#include "collector/fleet.h"

#include <stdlib.h>
#include <string.h>

#include "collector/authority.h"
#include "collector/brake.h"
#include "collector/dispatch.h"
#include "collector/groups.h"
#include "collector/incident.h"
#include "collector/ingest.h"
#include "collector/rules.h"
#include "common/log.h"
#include "common/text.h"

#define PROBES 8
#define PROBES_AT_START 3
#define PROBE_EVERY_MS 10000
#define PROBE_FIRST_MS 50
#define PENDING_MAX 256 /* records of one agent on their way to the store; then it has to wait */

struct probe {
    int64_t skew_us, error_us;
};

struct session {
    struct call *call;
    struct collector *collector;
    struct host *host;
    bool announced, closed, watching;
    bool ack_due; /* something was committed since the last Ack */
    bool paused;  /* too much is pending */
    int pending;  /* commits whose `done` has not come */
    uint64_t announced_last_order;
    uv_timer_t probe_timer;
    uint32_t probes_sent;
    struct probe probes[PROBES];
    size_t probe_count, probe_next;
};

int session_send(struct session *s, const trawl_v1_CollectorMessage *message)
{
    struct buf wire;
    buf_init(&wire, 64 * 1024);
    int e = codec_put_collector_message(&wire, message);
    if (!e)
        e = call_reply(s->call, buf_span(&wire));
    buf_done(&wire);
    return e;
}

void session_abort(struct session *s, const char *why)
{
    struct failure f;
    fail(&f, ERR_CLOSED, "%s", why);
    call_finish(s->call, &f);
}

bool session_is_ready(const struct session *s)
{
    return s->announced && !s->closed && !s->call->finishing;
}

uint64_t session_last_order(const struct session *s)
{
    return s->announced_last_order;
}

/* ---- end of life: the last of `ended`, the timer and the pending commits frees it ---- */

static void release(struct session *s)
{
    if (s->closed && !s->pending)
        free(s);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct session *s = handle->data;
    s->pending--;
    release(s);
}

static void detach(struct session *s)
{
    struct collector *c = s->collector;
    if (s->host && s->host->session == s) {
        s->host->session = NULL;
        s->host->record.last_seen_us = c->clock->wall_us(c->clock);
        roster_save(c->roster, s->host, NULL, NULL);
        dispatch_host_gone(c->dispatch, s->host);
        log_info("host '%s' disconnected", s->host->record.name);
    }
}

static void connect_ended(struct call *call)
{
    struct session *s = call->state;
    if (!s)
        return;
    detach(s);
    s->closed = true;
    s->pending++;
    uv_close((uv_handle_t *)&s->probe_timer, on_timer_closed);
}

/* ---- acknowledging ---- */

static void send_ack(struct session *s)
{
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_ack_tag};
    m.body.ack.block = s->host->safe_block;
    m.body.ack.event = s->host->safe_event;
    s->ack_due = false;
    session_send(s, &m);
}

/* One agent must not fill the store's queue for all. */
static void flow(struct session *s)
{
    bool stop = s->paused ? s->pending > PENDING_MAX / 2 : s->pending >= PENDING_MAX;
    if (s->closed || stop == s->paused)
        return;
    s->paused = stop;
    if (stop)
        grpc_pause(s->call->grpc);
    else
        grpc_resume(s->call->grpc);
}

/* After every commit, successful or not. */
static void landed(struct session *s)
{
    s->pending--;
    if (!s->closed && s->ack_due && (!s->pending || s->pending % 64 == 0))
        send_ack(s);
    flow(s);
}

static void on_stored(void *context, const struct failure *why)
{
    struct session *s = context;
    if (!s->closed && why->code)
        call_finish(s->call, why);
    else if (!s->closed)
        s->ack_due = true;
    landed(s);
    release(s);
}

struct verdict_ack {
    struct session *session;
    uint64_t order;
    uint32_t no;
};

static void on_verdict_stored(void *context, const struct failure *why)
{
    struct verdict_ack *a = context;
    struct session *s = a->session;
    if (!s->closed && why->code) {
        call_finish(s->call, why);
    } else if (!s->closed) {
        trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_ack_tag};
        m.body.ack.verdict_order = a->order;
        m.body.ack.verdict_no = a->no;
        session_send(s, &m);
    }
    free(a);
    landed(s);
    release(s);
}

/* ---- skew ---- */

static void on_probe_timer(uv_timer_t *timer)
{
    struct session *s = timer->data;
    struct clock *clock = s->collector->clock;
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_probe_tag};
    m.body.probe.id = ++s->probes_sent;
    m.body.probe.collector_us = clock->wall_us(clock);
    session_send(s, &m);
    uint64_t wait = s->probes_sent < PROBES_AT_START ? PROBE_FIRST_MS : PROBE_EVERY_MS;
    uv_timer_start(timer, on_probe_timer, wait, 0);
}

static int take_probe_reply(struct session *s, const trawl_v1_ProbeReply *r)
{
    struct clock *clock = s->collector->clock;
    int64_t t4 = clock->wall_us(clock);
    if (!ingest_is_time(r->collector_us) || !ingest_is_time(r->sent_us) ||
        !ingest_is_time(r->received_us))
        return 0; /* no clock shows that */
    int64_t round = (t4 - r->collector_us) - (r->sent_us - r->received_us);
    if (round < 0 || round > 60000000)
        return 0; /* a clock jumped meanwhile */
    struct probe *p = &s->probes[s->probe_next++ % PROBES];
    p->skew_us = ((r->received_us - r->collector_us) + (r->sent_us - t4)) / 2;
    p->error_us = round / 2 + 1;
    if (s->probe_count < PROBES)
        s->probe_count++;
    const struct probe *best = &s->probes[0];
    for (size_t i = 1; i < s->probe_count; i++)
        if (s->probes[i].error_us < best->error_us)
            best = &s->probes[i];
    s->host->record.skew_known = true;
    s->host->record.skew_us = best->skew_us;
    s->host->record.skew_error_us = best->error_us;
    return 0;
}

/* ---- announce ---- */

static void replace_older(struct session *s)
{
    struct session *older = s->host->session;
    if (!older)
        return;
    log_warn("host '%s' connected again from %s: the older connection is ended",
             s->host->record.name, s->call->address);
    s->host->session = NULL;
    session_abort(older, "another connection of this host replaced this one");
}

static void take_announcement(struct session *s, const trawl_v1_Announce *a)
{
    struct host *host = s->host;
    if (memcmp(host->state_id, a->state_id.bytes, sizeof(host->state_id)) != 0) {
        memcpy(host->state_id, a->state_id.bytes, sizeof(host->state_id));
        host->safe_block = host->safe_event = 0;
    }
    host->intake++; /* commits of an older session do not move the cursors of this one */
    host->intake_closed = false;
    host->last_block = host->safe_block;
    host->last_event = host->safe_event;
    host->seen_block = host->safe_block;
    host->seen_event = host->safe_event;
    if (a->last_order > host->last_order)
        host->last_order = a->last_order;
    s->announced_last_order = a->last_order;
    text_copy(host->record.version, sizeof(host->record.version), a->version);
    text_copy(host->record.address, sizeof(host->record.address), s->call->address);
    host->record.facts_count = a->facts_count;
    memcpy(host->record.facts, a->facts, sizeof(a->facts));
    memcpy(host->caps, a->caps, sizeof(a->caps));
    host->cap_count = a->caps_count;
    host->record.certificate_not_after_s = s->call->who->not_after_s;
    text_copy(host->serial_hex, sizeof(host->serial_hex), s->call->who->serial_hex);
}

static void clean_announcement(trawl_v1_Announce *a)
{
    text_clean(a->version);
    for (pb_size_t i = 0; i < a->facts_count; i++) {
        text_clean(a->facts[i].key);
        text_clean(a->facts[i].value);
    }
    for (pb_size_t i = 0; i < a->caps_count; i++) {
        text_clean(a->caps[i].name);
        text_clean(a->caps[i].reason);
    }
}

static void say_watching(struct session *s, bool on)
{
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_watching_tag};
    m.body.watching.on = on;
    s->watching = on;
    session_send(s, &m);
}

static int welcome(struct session *s, trawl_v1_Announce *a, struct failure *f)
{
    struct collector *c = s->collector;
    if (a->state_id.size != 16)
        return fail(f, ERR_INVALID, "announce without a state_id of 16 bytes");
    if (a->last_order > UINT64_MAX / 2) /* numbers after it must still rise */
        return fail(f, ERR_INVALID, "announce with an order number that was never given");
    clean_announcement(a);
    replace_older(s);
    take_announcement(s, a);
    s->host->session = s;
    s->announced = true;
    s->host->last_seen_mono_us = c->clock->mono_us(c->clock);
    int e = roster_save(c->roster, s->host, NULL, NULL);
    if (!e)
        e = roster_save_cursors(c->roster, s->host, NULL, NULL);
    if (e)
        return fail(f, e, "the collector cannot store now: %s", err_text(e));
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_welcome_tag};
    trawl_v1_Welcome *w = &m.body.welcome;
    text_copy(w->collector, sizeof(w->collector), authority_name(c->authority));
    text_copy(w->fleet, sizeof(w->fleet), authority_fleet(c->authority));
    w->wall_us = c->clock->wall_us(c->clock);
    w->last_block = s->host->safe_block;
    w->last_event = s->host->safe_event;
    w->certificate_not_after_s = s->call->who->not_after_s;
    session_send(s, &m);
    log_info("host '%s' connected from %s (agent %s)", s->host->record.name, s->call->address,
             s->host->record.version);
    on_probe_timer(&s->probe_timer);
    if (c->top_watchers)
        say_watching(s, true);
    brake_host_here(c->brake, s->host); /* before any order */
    groups_host_here(c->groups, s->host);
    rules_host_here(c->rules, s->host);
    dispatch_host_here(c->dispatch, s->host);
    return 0;
}

/* ---- messages ---- */

static int take_verdict(struct session *s, trawl_v1_Verdict *verdict, struct failure *f)
{
    text_clean(verdict->reason);
    struct verdict_ack *a = malloc(sizeof(*a));
    if (!a)
        return fail(f, ERR_NOMEM, "out of memory");
    *a = (struct verdict_ack){s, verdict->order, verdict->no};
    s->pending++;
    int e = incident_verdict(s->collector->incidents, s->host, verdict, on_verdict_stored, a, f);
    if (e) {
        s->pending--;
        free(a);
    }
    return e;
}

static int take(struct session *s, trawl_v1_AgentMessage *m, struct failure *f)
{
    struct collector *c = s->collector;
    int e;
    switch (m->which_body) {
    case trawl_v1_AgentMessage_announce_tag:
        return fail(f, ERR_PROTOCOL, "announced twice on one connection");
    case trawl_v1_AgentMessage_descriptors_tag:
        s->pending++;
        e = ingest_descriptors(c, s->host, &m->body.descriptors, on_stored, s, f);
        break;
    case trawl_v1_AgentMessage_block_tag:
        s->pending++;
        e = ingest_block(c, s->host, &m->body.block, on_stored, s, f);
        break;
    case trawl_v1_AgentMessage_event_tag:
        s->pending++;
        e = ingest_event(c, s->host, &m->body.event, on_stored, s, f);
        break;
    case trawl_v1_AgentMessage_exception_tag:
        s->pending++;
        e = ingest_exception(c, s->host, &m->body.exception, on_stored, s, f);
        break;
    case trawl_v1_AgentMessage_gap_tag:
        s->pending++;
        e = ingest_gap(c, s->host, &m->body.gap, on_stored, s, f);
        break;
    case trawl_v1_AgentMessage_verdict_tag:
        e = take_verdict(s, &m->body.verdict, f);
        flow(s);
        return e;
    case trawl_v1_AgentMessage_probe_reply_tag:
        return take_probe_reply(s, &m->body.probe_reply);
    case trawl_v1_AgentMessage_brake_tag:
        brake_obeyed(c->brake, s->host, &m->body.brake);
        return 0;
    default:
        return 0; /* of a newer agent: ignored */
    }
    if (e)
        s->pending--;
    flow(s);
    return e;
}

static struct session *session_new(struct call *call, struct failure *f)
{
    struct collector *c = call->collector;
    struct host *host = roster_find(c->roster, call->who->name);
    if (roster_admit(host, call->who, f))
        return NULL;
    struct session *s = calloc(1, sizeof(*s));
    if (!s) {
        fail(f, ERR_NOMEM, "out of memory");
        return NULL;
    }
    s->call = call;
    s->collector = c;
    s->host = host;
    uv_timer_init(c->loop, &s->probe_timer);
    s->probe_timer.data = s;
    call->state = s;
    return s;
}

static int connect_message(struct call *call, struct span request, struct failure *f)
{
    struct session *s = call->state ? call->state : session_new(call, f);
    if (!s)
        return f->code;
    trawl_v1_AgentMessage *m = s->collector->scratch;
    int e = codec_get_agent_message(m, request, f);
    if (e)
        return e;
    s->host->last_seen_mono_us = s->collector->clock->mono_us(s->collector->clock);
    if (s->announced)
        return take(s, m, f);
    if (m->which_body != trawl_v1_AgentMessage_announce_tag)
        return fail(f, ERR_PROTOCOL, "the first message of a connection must be announce");
    return welcome(s, &m->body.announce, f);
}

static int connect_end(struct call *call, struct failure *f)
{
    (void)f;
    call_finish(call, NULL);
    return 0;
}

struct watch_all {
    bool on;
};

static int watch_one(void *context, struct host *host)
{
    struct watch_all *w = context;
    if (!host->session || host->session->watching == w->on)
        return 0;
    say_watching(host->session, w->on);
    return 0;
}

void fleet_watch(struct collector *c, bool on)
{
    struct watch_all w = {on};
    roster_each(c->roster, watch_one, &w);
}

const struct handler fleet_handlers[] = {
    {METHOD_FLEET_CONNECT, connect_message, connect_end, NULL, connect_ended},
    {.message = NULL},
};
