/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of Connect in both directions. Sending is a pump: verdicts, events, blocks, until the
 * call's queue is full; it goes on when the queue has drained. Called on the loop thread.
 */
#include "agent/uplink_session.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/text.h"
#include "proto/codec.h"
#include "proto/methods.h"

#define PROBES_KEPT 8

struct uplink_session {
    struct uplink_session_settings settings;
    struct grpc_call *call; /* NULL when ended */
    bool is_welcome;
    bool is_blocked; /* the queue was full: wait for `writable` */
    bool is_finishing;
    trawl_v1_AgentMessage *message; /* 33 KB, made once */
    struct buf encoded;
    int64_t offsets_us[PROBES_KEPT];
    unsigned offset_count;
};

/* ---- sending ---- */

static int send_bytes(struct uplink_session *s, struct span bytes)
{
    int e = s->call ? grpc_send(s->call, bytes) : ERR_CLOSED;
    if (e == ERR_LIMIT)
        s->is_blocked = true;
    return e;
}

static int send_message(struct uplink_session *s)
{
    buf_clear(&s->encoded);
    int e = codec_put_agent_message(&s->encoded, s->message);
    return e ? e : send_bytes(s, buf_span(&s->encoded));
}

static trawl_v1_AgentMessage *begin_message(struct uplink_session *s, pb_size_t tag)
{
    memset(s->message, 0, sizeof *s->message);
    s->message->which_body = tag;
    return s->message;
}

static int announce(struct uplink_session *s)
{
    const struct uplink_session_settings *t = &s->settings;
    trawl_v1_Announce *a = &begin_message(s, trawl_v1_AgentMessage_announce_tag)->body.announce;
    text_copy(a->version, sizeof a->version, TRAWL_VERSION);
    a->state_id.size = 16;
    memcpy(a->state_id.bytes, t->state_id, 16);
    a->epoch = t->epoch;
    a->last_order = capture_last_order(t->capture);
    a->facts_count = (pb_size_t)t->profile->fact_count;
    memcpy(a->facts, t->profile->facts, t->profile->fact_count * sizeof a->facts[0]);
    a->caps_count = (pb_size_t)t->profile->cap_count;
    memcpy(a->caps, t->profile->caps, t->profile->cap_count * sizeof a->caps[0]);
    a->wall_us = t->clock->wall_us(t->clock);
    a->mono_us = t->clock->mono_us(t->clock);
    a->first_block = spool_oldest_seq(t->spool, SPOOL_BLOCKS);
    a->first_event = spool_oldest_seq(t->spool, SPOOL_EVENTS);
    return send_message(s);
}

static int send_gap(struct uplink_session *s, enum spool_lane lane, const struct spool_item *item)
{
    trawl_v1_Gap *gap = &begin_message(s, trawl_v1_AgentMessage_gap_tag)->body.gap;
    gap->events = lane == SPOOL_EVENTS;
    gap->first_seq = item->first_seq;
    gap->last_seq = item->last_seq;
    gap->from_us = item->from_us;
    gap->to_us = item->to_us;
    text_copy(gap->reason, sizeof gap->reason,
              "the ring on the host was overwritten or damaged before this was delivered");
    return send_message(s);
}

static int send_lane(struct uplink_session *s, enum spool_lane lane)
{
    struct spool_item item;
    int e = 0;
    while (!e && !spool_peek(s->settings.spool, lane, &item)) {
        e = item.is_gap ? send_gap(s, lane, &item) : send_bytes(s, item.message);
        if (!e)
            spool_advance(s->settings.spool, lane);
    }
    return e;
}

static int send_verdicts(struct uplink_session *s)
{
    trawl_v1_Verdict verdict;
    int e = 0;
    while (!e && !capture_peek_verdict(s->settings.capture, &verdict)) {
        begin_message(s, trawl_v1_AgentMessage_verdict_tag)->body.verdict = verdict;
        e = send_message(s);
        if (!e)
            capture_verdict_sent(s->settings.capture, verdict.order, verdict.no);
    }
    return e;
}

static void pump(struct uplink_session *s)
{
    if (!s->call || !s->is_welcome || s->is_blocked)
        return;
    int e = send_verdicts(s);
    if (!e)
        e = send_lane(s, SPOOL_EVENTS);
    if (!e)
        e = send_lane(s, SPOOL_BLOCKS);
    if (!e && s->is_finishing && s->call)
        grpc_end(s->call);
}

void uplink_session_kick(struct uplink_session *s)
{
    pump(s);
}

void uplink_session_finish(struct uplink_session *s)
{
    s->is_finishing = true;
    if (s->is_welcome)
        pump(s);
    else if (s->call)
        grpc_cancel(s->call);
}

bool uplink_session_is_welcome(const struct uplink_session *s)
{
    return s->call && s->is_welcome;
}

/* ---- receiving ---- */

/* One way's delay only adds, so the least difference of the last few is the best bound. */
static void note_offset(struct uplink_session *s, int64_t collector_us, int64_t received_us)
{
    s->offsets_us[s->offset_count++ % PROBES_KEPT] = received_us - collector_us;
    unsigned kept = s->offset_count < PROBES_KEPT ? s->offset_count : PROBES_KEPT;
    int64_t least = s->offsets_us[0];
    for (unsigned i = 1; i < kept; i++)
        if (s->offsets_us[i] < least)
            least = s->offsets_us[i];
    capture_set_offset(s->settings.capture, least);
}

static void on_probe(struct uplink_session *s, const trawl_v1_Probe *probe)
{
    struct clock *clock = s->settings.clock;
    int64_t received_us = clock->wall_us(clock);
    note_offset(s, probe->collector_us, received_us);
    begin_message(s, trawl_v1_AgentMessage_probe_reply_tag);
    s->message->body.probe_reply = (trawl_v1_ProbeReply){
        .id = probe->id,
        .collector_us = probe->collector_us,
        .received_us = received_us,
        .sent_us = clock->wall_us(clock),
    };
    (void)send_message(s); /* a full queue: this probe is lost, the next one counts */
}

static void on_welcome(struct uplink_session *s, const trawl_v1_Welcome *welcome)
{
    struct clock *clock = s->settings.clock;
    const uint64_t last[SPOOL_LANES] = {welcome->last_block, welcome->last_event};
    if (s->is_welcome)
        return;
    note_offset(s, welcome->wall_us, clock->wall_us(clock));
    spool_resume(s->settings.spool, last);
    capture_resume(s->settings.capture);
    s->is_welcome = true;
    if (s->settings.welcomed)
        s->settings.welcomed(s->settings.context, welcome);
    pump(s);
}

static void on_brake(struct uplink_session *s, const trawl_v1_Brake *brake)
{
    struct failure f = {0};
    if (capture_set_brake(s->settings.capture, brake, &f)) {
        log_error("the fleet brake is obeyed, but not kept over a restart: %s", f.text);
        return;
    }
    begin_message(s, trawl_v1_AgentMessage_brake_tag)->body.brake =
        (trawl_v1_BrakeObeyed){.no = brake->no, .on = brake->on};
    (void)send_message(s); /* a full queue: the collector asks again on the next connection */
}

static void on_ack(struct uplink_session *s, const trawl_v1_Ack *ack)
{
    spool_acknowledge(s->settings.spool, SPOOL_BLOCKS, ack->block);
    spool_acknowledge(s->settings.spool, SPOOL_EVENTS, ack->event);
    if (ack->verdict_order)
        capture_verdict_acknowledged(s->settings.capture, ack->verdict_order, ack->verdict_no);
}

static void dispatch(struct uplink_session *s, const trawl_v1_CollectorMessage *m)
{
    switch (m->which_body) {
    case trawl_v1_CollectorMessage_welcome_tag:
        on_welcome(s, &m->body.welcome);
        break;
    case trawl_v1_CollectorMessage_ack_tag:
        on_ack(s, &m->body.ack);
        break;
    case trawl_v1_CollectorMessage_order_tag:
        capture_order(s->settings.capture, &m->body.order);
        break;
    case trawl_v1_CollectorMessage_cancel_tag:
        capture_cancel(s->settings.capture, &m->body.cancel);
        break;
    case trawl_v1_CollectorMessage_probe_tag:
        on_probe(s, &m->body.probe);
        break;
    case trawl_v1_CollectorMessage_watching_tag:
        if (s->settings.watching)
            s->settings.watching(s->settings.context, m->body.watching.on);
        break;
    case trawl_v1_CollectorMessage_wants_tag:
        if (s->settings.wants)
            s->settings.wants(s->settings.context, &m->body.wants);
        break;
    case trawl_v1_CollectorMessage_brake_tag:
        on_brake(s, &m->body.brake);
        break;
    case trawl_v1_CollectorMessage_rules_tag:
        if (s->settings.rules)
            s->settings.rules(s->settings.context, &m->body.rules);
        break;
    default:
        break; /* of a newer collector: not for us */
    }
}

static int on_message(void *owner, struct grpc_call *call, struct span message)
{
    struct uplink_session *s = owner;
    trawl_v1_CollectorMessage m;
    (void)call;
    if (codec_get_collector_message(&m, message, NULL))
        return 0; /* over a limit of ours or of a newer version: skipped, never a reconnect loop */
    dispatch(s, &m);
    pump(s);
    return 0;
}

static void on_writable(void *owner, struct grpc_call *call)
{
    struct uplink_session *s = owner;
    (void)call;
    s->is_blocked = false;
    pump(s);
}

static void on_done(void *owner, struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct uplink_session *s = owner;
    struct failure f = {0};
    int code = grpc_call_error(call);
    s->call = NULL;
    if (status != GRPC_OK)
        fail(&f, code ? code : err_from_grpc((int)status), "%s",
             text[0] ? text : err_text(err_from_grpc((int)status)));
    if (s->settings.ended)
        s->settings.ended(s->settings.context, &f);
}

static const struct grpc_call_events call_events = {on_message, NULL, on_writable, on_done};

/* ---- opening ---- */

int uplink_session_open(struct uplink_session **out, struct grpc *grpc,
                        const struct uplink_session_settings *settings, struct failure *f)
{
    struct uplink_session *s = calloc(1, sizeof *s);
    if (!s)
        return fail(f, ERR_NOMEM, "out of memory");
    s->settings = *settings;
    buf_init(&s->encoded, trawl_v1_AgentMessage_size + 64);
    s->message = calloc(1, sizeof *s->message);
    int e = fail(f, ERR_NOMEM, "out of memory");
    if (s->message)
        e = grpc_start(grpc, method_by_id(METHOD_FLEET_CONNECT)->path, 0, &call_events, s, &s->call,
                       f);
    if (!s->message || e) {
        uplink_session_close(s);
        return e;
    }
    *out = s;
    (void)announce(s); /* a failure here is the call's, which ends it */
    return 0;
}

void uplink_session_close(struct uplink_session *s)
{
    if (!s)
        return;
    buf_done(&s->encoded);
    free(s->message);
    free(s);
}
