/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent's protocol half in one process with a collector that only listens and says what a test
 * tells it to: grpc on both sides over memory, a clock that stands still, and a broker whose
 * answers follow from the process asked for. No sockets but the broker's. Used by test_session.c
 * and test_capture.c.
 */
#ifndef TESTS_UNIT_AGENT_KIT_H
#define TESTS_UNIT_AGENT_KIT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/capture.h"
#include "agent/evidence.h"
#include "agent/uplink_session.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"
#include "tests/check.h"
#include "tests/unit/agent/kit_broker.h"

#define KIT_LOG_MAX 4096
#define KIT_LIMIT_US UINT64_C(50000000) /* certain to come, on the busiest machine too */
#define KIT_WALL_US INT64_C(1800000000000000)

/* One message as the collector got it. */
struct kit_message {
    pb_size_t which;
    uint64_t seq, last; /* of a block, event, gap; order of a verdict */
    uint32_t no;
    trawl_v1_State state;
    char reason[512];
};

struct kit {
    struct clock_fake clock;
    uv_loop_t loop;
    char directory[64];
    struct state state;
    struct spool *spool;
    struct events *events;
    struct policy policy;
    struct broker_client *broker;
    struct capture *capture;
    struct uplink_profile profile;
    struct grpc *client, *server;
    struct uplink_session *session;
    struct grpc_call *call; /* the collector's end of Connect */
    struct kit_message log[KIT_LOG_MAX];
    size_t logged;
    bool ended;
    int welcomes, watching;
    trawl_v1_AgentMessage message; /* decoded */
    int closed;
    /* Calls besides Connect: of a test that wants them. */
    int (*on_call)(struct kit *k, struct grpc_call *call, const char *path,
                   const struct grpc_call_events **events, void **call_owner);
    void *extra;
};

/* ---- the collector ---- */

static void kit_log(struct kit *k)
{
    const trawl_v1_AgentMessage *m = &k->message;
    REQUIRE(k->logged < KIT_LOG_MAX);
    struct kit_message *out = &k->log[k->logged++];
    *out = (struct kit_message){.which = m->which_body};
    if (m->which_body == trawl_v1_AgentMessage_block_tag)
        out->seq = m->body.block.seq;
    else if (m->which_body == trawl_v1_AgentMessage_event_tag)
        out->seq = m->body.event.seq;
    else if (m->which_body == trawl_v1_AgentMessage_gap_tag)
        *out = (struct kit_message){
            m->which_body, m->body.gap.first_seq, m->body.gap.last_seq, 0, 0, ""};
    if (m->which_body != trawl_v1_AgentMessage_verdict_tag)
        return;
    out->seq = m->body.verdict.order;
    out->no = m->body.verdict.no;
    out->state = m->body.verdict.state;
    snprintf(out->reason, sizeof out->reason, "%s", m->body.verdict.reason);
}

static int kit_on_message(void *owner, struct grpc_call *call, struct span message)
{
    struct kit *k = owner;
    struct failure f;
    (void)call;
    REQUIRE(codec_get_agent_message(&k->message, message, &f) == 0);
    kit_log(k);
    return 0;
}

static void kit_on_done(void *owner, struct grpc_call *call, enum grpc_status status,
                        const char *text)
{
    (void)call;
    (void)status;
    (void)text;
    ((struct kit *)owner)->call = NULL;
}

static int kit_on_call(void *owner, struct grpc_call *call, const char *path,
                       const struct grpc_call_events **events, void **call_owner, struct failure *f)
{
    static const struct grpc_call_events call_events = {kit_on_message, NULL, NULL, kit_on_done};
    struct kit *k = owner;
    (void)f;
    if (k->on_call && strcmp(path, "/trawl.v1.Fleet/Connect") != 0)
        return k->on_call(k, call, path, events, call_owner);
    CHECK_EQ_STR(path, "/trawl.v1.Fleet/Connect");
    k->call = call;
    *events = &call_events;
    *call_owner = k;
    return 0;
}

static inline void kit_say(struct kit *k, const trawl_v1_CollectorMessage *m)
{
    struct buf out;
    buf_init(&out, 65536);
    REQUIRE(k->call && codec_put_collector_message(&out, m) == 0);
    REQUIRE(grpc_send(k->call, buf_span(&out)) == 0);
    buf_done(&out);
}

/* ---- the agent's hooks ---- */

static void kit_welcomed(void *context, const trawl_v1_Welcome *welcome)
{
    (void)welcome;
    ((struct kit *)context)->welcomes++;
}

static void kit_watching(void *context, bool on)
{
    ((struct kit *)context)->watching = on;
}

static void kit_ended(void *context, const struct failure *why)
{
    (void)why;
    ((struct kit *)context)->ended = true;
}

static void kit_changed(void *context)
{
    struct kit *k = context;
    if (k->session)
        uplink_session_kick(k->session);
}

/* ---- running ---- */

static void kit_carry(struct grpc *from, struct grpc *to)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    for (;;) {
        buf_clear(&bytes);
        REQUIRE(grpc_pull(from, &bytes, port_mono_us(), NULL) == 0);
        if (bytes.size_bytes == 0)
            break;
        REQUIRE(grpc_feed(to, buf_span(&bytes), port_mono_us(), NULL) == 0);
    }
    buf_done(&bytes);
}

static inline void kit_turn(struct kit *k)
{
    for (int i = 0; i < 4 && k->client; i++) {
        kit_carry(k->client, k->server);
        kit_carry(k->server, k->client);
    }
    (void)uv_run(&k->loop, UV_RUN_NOWAIT);
}

/* The newest message of a kind the collector got, or NULL. */
static inline const struct kit_message *kit_newest(const struct kit *k, pb_size_t which)
{
    for (size_t i = k->logged; i > 0; i--)
        if (k->log[i - 1].which == which)
            return &k->log[i - 1];
    return NULL;
}

static inline size_t kit_count(const struct kit *k, pb_size_t which)
{
    size_t count = 0;
    for (size_t i = 0; i < k->logged; i++)
        count += k->log[i].which == which;
    return count;
}

static inline const struct kit_message *kit_verdict(const struct kit *k, uint64_t order)
{
    for (size_t i = k->logged; i > 0; i--)
        if (k->log[i - 1].which == trawl_v1_AgentMessage_verdict_tag && k->log[i - 1].seq == order)
            return &k->log[i - 1];
    return NULL;
}

/* Runs until the collector got a verdict of this state for the order. */
static inline bool kit_wait_verdict(struct kit *k, uint64_t order, trawl_v1_State state)
{
    uint64_t limit_us = port_mono_us() + KIT_LIMIT_US;
    const struct kit_message *v = NULL;
    while (port_mono_us() < limit_us) {
        kit_turn(k);
        v = kit_verdict(k, order);
        if (v && v->state == state)
            return true;
        usleep(500);
    }
    fprintf(stderr, "      order %llu: state %d \"%s\"\n", (unsigned long long)order,
            v ? (int)v->state : -1, v ? v->reason : "none");
    return false;
}

static inline void kit_settle(struct kit *k)
{
    for (int i = 0; i < 20; i++) {
        kit_turn(k);
        usleep(500);
    }
}

/* Runs until an artifact waits to be sent. */
static inline void kit_wait_artifact(struct kit *k)
{
    struct capture_artifact a;
    uint64_t limit_us = port_mono_us() + KIT_LIMIT_US;
    while (capture_peek_artifact(k->capture, &a) && port_mono_us() < limit_us)
        kit_settle(k);
    REQUIRE(capture_peek_artifact(k->capture, &a) == 0);
}

/* Seals every artifact that waits, as the uplink would. Returns how many. */
static inline int kit_seal_all(struct kit *k)
{
    struct capture_artifact a;
    struct failure fine = {0};
    int count = 0;
    while (capture_peek_artifact(k->capture, &a) == 0 && count++ < 100)
        capture_artifact_ended(k->capture, &a, &fine);
    return count;
}

/* ---- opening and closing ---- */

static inline void kit_connect_only(struct kit *k)
{
    static const struct grpc_events server_events = {kit_on_call, NULL};
    static const struct grpc_events client_events = {NULL, NULL};
    struct grpc_limits limits = {.send_queue_bytes = 128 * 1024};
    struct failure f = {0};
    struct uplink_session_settings settings = {
        .clock = &k->clock.clock,
        .spool = k->spool,
        .capture = k->capture,
        .profile = &k->profile,
        .state_id = k->state.id,
        .epoch = 9,
        .welcomed = kit_welcomed,
        .watching = kit_watching,
        .ended = kit_ended,
        .context = k,
    };
    REQUIRE(grpc_open_server(&k->server, NULL, &server_events, k, port_mono_us()) == 0);
    REQUIRE(grpc_open_client(&k->client, &limits, &client_events, k, "c:1", port_mono_us()) == 0);
    k->ended = false;
    k->logged = 0;
    REQUIRE(uplink_session_open(&k->session, k->client, &settings, &f) == 0);
    kit_turn(k);
    kit_turn(k);
}

static inline void kit_welcome(struct kit *k, uint64_t last_block, uint64_t last_event)
{
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_welcome_tag};
    m.body.welcome.wall_us = k->clock.now_wall_us;
    m.body.welcome.last_block = last_block;
    m.body.welcome.last_event = last_event;
    kit_say(k, &m);
    kit_settle(k);
}

static inline void kit_connect(struct kit *k, uint64_t last_block, uint64_t last_event)
{
    kit_connect_only(k);
    kit_welcome(k, last_block, last_event);
}

static inline void kit_disconnect(struct kit *k)
{
    grpc_close(k->client, "gone");
    grpc_close(k->server, "gone");
    CHECK(k->ended);
    uplink_session_close(k->session);
    k->client = k->server = NULL;
    k->session = NULL;
    k->call = NULL;
}

static inline void kit_open_agent(struct kit *k)
{
    struct failure f = {0};
    bool was_lost;
    struct spool_opened how;
    int fd = -1;
    REQUIRE(os_broker_fork(kit_broker, NULL, &fd, &f) == 0);
    REQUIRE(uv_loop_init(&k->loop) == 0);
    REQUIRE(state_open(&k->state, k->directory, &was_lost, &f) == 0);
    REQUIRE(spool_open(&k->spool, k->directory, SPOOL_MIN_BYTES, k->state.ceilings, &how, &f) == 0);
    REQUIRE(events_open(&k->events, k->spool, &k->clock.clock, NULL, kit_changed, k) == 0);
    REQUIRE(broker_client_open(&k->broker, &k->loop, fd, &f) == 0);
    struct capture_settings settings = {
        .loop = &k->loop,
        .clock = &k->clock.clock,
        .state = &k->state,
        .spool = k->spool,
        .broker = k->broker,
        .events = k->events,
        .policy = &k->policy,
        .space_bytes = 1 << 20,
        .changed = kit_changed,
        .context = k,
    };
    REQUIRE(capture_open(&k->capture, &settings, &f) == 0);
}

static inline struct kit *kit_open(void)
{
    struct kit *k = calloc(1, sizeof *k);
    REQUIRE(k != NULL);
    clock_fake_init(&k->clock, 1000000000, KIT_WALL_US);
    snprintf(k->directory, sizeof k->directory, "/tmp/trawl-kit-XXXXXX");
    REQUIRE(mkdtemp(k->directory) != NULL);
    policy_defaults(&k->policy);
    kit_open_agent(k);
    return k;
}

static void kit_count_closed(void *context)
{
    ((struct kit *)context)->closed++;
}

/* The agent ends in order, its directory stays. */
static inline void kit_close_agent(struct kit *k)
{
    if (k->client)
        kit_disconnect(k);
    k->closed = 0;
    capture_close(k->capture, kit_count_closed, k);
    broker_client_close(k->broker, kit_count_closed, k);
    while (k->closed < 2)
        (void)uv_run(&k->loop, UV_RUN_ONCE);
    CHECK_EQ_INT(uv_loop_close(&k->loop), 0);
    events_close(k->events);
    spool_close(k->spool);
    /* The lock lasts as long as the process; the next agent of this test takes another file. */
    char lock[80];
    snprintf(lock, sizeof lock, "%s/lock", k->directory);
    unlink(lock);
}

static inline void kit_remove(const char *path)
{
    char inner[512];
    uv_fs_t scan;
    uv_dirent_t entry;
    if (uv_fs_scandir(NULL, &scan, path, 0, NULL) >= 0)
        while (uv_fs_scandir_next(&scan, &entry) == 0) {
            snprintf(inner, sizeof inner, "%s/%s", path, entry.name);
            if (entry.type == UV_DIRENT_DIR)
                kit_remove(inner);
            else
                unlink(inner);
        }
    uv_fs_req_cleanup(&scan);
    rmdir(path);
}

static inline void kit_close(struct kit *k)
{
    kit_close_agent(k);
    kit_remove(k->directory);
    free(k);
}

static inline void kit_push_block(struct kit *k)
{
    trawl_v1_AgentMessage *m = &k->message;
    memset(m, 0, sizeof *m);
    if (spool_wants_descriptors(k->spool)) {
        m->which_body = trawl_v1_AgentMessage_descriptors_tag;
        m->body.descriptors.epoch = 9;
        m->body.descriptors.list_count = 1;
        m->body.descriptors.list[0].id = 1;
        REQUIRE(spool_push_descriptors(k->spool, RING_START, m) == 0);
        memset(m, 0, sizeof *m);
    }
    m->which_body = trawl_v1_AgentMessage_block_tag;
    m->body.block.epoch = 9;
    m->body.block.count = 1;
    m->body.block.data.size = 100;
    REQUIRE(spool_push_block(k->spool, m) == 0);
    kit_changed(k);
}

static inline void kit_order(struct kit *k, uint64_t number, const char *what, const char *name,
                             uint32_t pid)
{
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_order_tag};
    trawl_v1_Order *o = &m.body.order;
    struct span kinds = span_str(what), kind;
    o->order = number;
    snprintf(o->incident, sizeof o->incident, "INC-1");
    while (!text_take_until(&kinds, ',', &kind))
        text_copy_span(o->what[o->what_count++], sizeof o->what[0], kind);
    o->has_process = name[0] || pid;
    snprintf(o->process.name, sizeof o->process.name, "%s", name);
    o->process.pid = pid;
    o->last_us = 60000000;
    o->pause_max_us = 50000;
    o->expires_in_us = 3600000000;
    kit_say(k, &m);
    kit_settle(k);
}

static inline void kit_ack(struct kit *k, uint64_t block, uint64_t event, uint64_t order,
                           uint32_t no)
{
    trawl_v1_CollectorMessage m = {.which_body = trawl_v1_CollectorMessage_ack_tag};
    m.body.ack = (trawl_v1_Ack){block, event, order, no};
    kit_say(k, &m);
    kit_settle(k);
}

#endif
