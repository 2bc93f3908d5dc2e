/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the collector of fake_collector.h answers to each method, from its script. Included by it
 * alone.
 */
#ifndef TESTS_UNIT_CLI_FAKE_ANSWERS_H
#define TESTS_UNIT_CLI_FAKE_ANSWERS_H

#include "tests/unit/common/scratch.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "common/conn.h"
#include "common/port.h"
#include "proto/codec.h"
#include "proto/grpc.h"
#include "proto/methods.h"
#include "tests/unit/common/fleet.h"

#define FAKE_ARTIFACTS 4
#define FAKE_BODY_MAX (5 * CODEC_PIECE_SIZE)
#define FAKE_HOSTS 3
#define FAKE_EXCEPTIONS 4
#define FAKE_GROUPS 3
#define FAKE_PEERS 32
#define FAKE_WIRE_LIMIT (256 * 1024)

struct fake_artifact {
    trawl_v1_Artifact record;
    uint8_t body[FAKE_BODY_MAX];
};

/* What it says and how it misbehaves; set before fake_start() or between commands. */
struct fake_script {
    trawl_v1_Host hosts[FAKE_HOSTS];
    size_t host_count;
    trawl_v1_Incident incident;
    trawl_v1_Target targets[FAKE_HOSTS]; /* as they are when asked first */
    trawl_v1_State ends[FAKE_HOSTS];     /* what Watch says they become; 0: they stay */
    const char *reasons[FAKE_HOSTS];
    size_t target_count;
    struct fake_artifact artifacts[FAKE_ARTIFACTS];
    size_t artifact_count;
    atomic_int flip_piece; /* of every artifact: this piece has a byte that differs; -1 none */
    atomic_int cuts;       /* so many times the connection ends: after the first piece of an
                                    artifact, or the targets of a watch */
    atomic_int refuse;     /* enum err of every call; 0 none */
    atomic_int captures, fetches, first_from_piece;
    /* The first list has one of them, and each later call one more; a stream ends with the
     * connection, but for the last one, which interrupts the program. */
    trawl_v1_Exception exceptions[FAKE_EXCEPTIONS];
    size_t exception_count;
    trawl_v1_Group groups[FAKE_GROUPS];
    size_t group_count;
    atomic_int exception_calls;
    trawl_v1_WantRequest wanted; /* the last one; read it after fake_stop() */
};

struct fake_collector {
    struct fake_script script;
    struct fleet fleet;
    struct member collector, person;
    struct tls_config *tls;
    uv_loop_t loop;
    uv_async_t stop;
    struct conn_listener *listener;
    struct fake_peer *peers[FAKE_PEERS];
    pthread_t thread;
    uint16_t port;
    char context[SCRATCH_PATH_SIZE];
};

struct fake_peer {
    struct fake_collector *fake;
    struct conn *conn;
    struct grpc *grpc;
    size_t at;
    bool cut; /* as soon as what was sent is on its way */
};

struct fake_call {
    struct fake_peer *peer;
    const struct method *method;
};

/* ---- answers ---- */

static inline void fake_send(struct grpc_call *call, struct buf *wire)
{
    REQUIRE(grpc_send(call, buf_span(wire)) == 0);
    buf_clear(wire);
}

static inline void fake_send_part(struct grpc_call *call, struct buf *wire,
                                  const trawl_v1_IncidentPart *part)
{
    REQUIRE(codec_put_incident_part(wire, part) == 0);
    fake_send(call, wire);
}

static inline void fake_hosts(struct fake_script *s, struct grpc_call *call, struct buf *wire,
                              struct span request)
{
    trawl_v1_HostsRequest r;
    struct failure f;
    size_t sent = 0;
    REQUIRE(codec_get_hosts_request(&r, request, &f) == 0);
    for (size_t i = 0; i < s->host_count; i++) {
        bool wanted =
            !r.selector[0] || strcmp(r.selector, "*") == 0 || strstr(r.selector, s->hosts[i].name);
        if (!wanted)
            continue;
        REQUIRE(codec_put_host(wire, &s->hosts[i]) == 0);
        fake_send(call, wire);
        sent++;
    }
    fail(&f, ERR_NOTFOUND, "no host matches '%s'", r.selector);
    if (sent)
        grpc_finish(call, GRPC_OK, "");
    else
        grpc_finish_failure(call, &f);
}

static inline void fake_show(struct fake_script *s, struct grpc_call *call, struct buf *wire)
{
    trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_incident_tag};
    part.body.incident = s->incident;
    fake_send_part(call, wire, &part);
    for (size_t i = 0; i < s->target_count; i++) {
        part.which_body = trawl_v1_IncidentPart_target_tag;
        part.body.target = s->targets[i];
        fake_send_part(call, wire, &part);
    }
    for (size_t i = 0; i < s->artifact_count; i++) {
        part.which_body = trawl_v1_IncidentPart_artifact_tag;
        part.body.artifact = s->artifacts[i].record;
        fake_send_part(call, wire, &part);
    }
    part.which_body = trawl_v1_IncidentPart_line_tag;
    text_copy(part.body.line, sizeof part.body.line, "the report of \033[2Jweb-1");
    fake_send_part(call, wire, &part);
    grpc_finish(call, GRPC_OK, "");
}

static inline void fake_watch(struct fake_peer *peer, struct grpc_call *call, struct buf *wire)
{
    struct fake_script *s = &peer->fake->script;
    trawl_v1_IncidentPart part = {.which_body = trawl_v1_IncidentPart_incident_tag};
    bool open = false;
    part.body.incident = s->incident;
    fake_send_part(call, wire, &part);
    part.which_body = trawl_v1_IncidentPart_target_tag;
    for (size_t i = 0; i < s->target_count; i++) {
        part.body.target = s->targets[i];
        fake_send_part(call, wire, &part);
    }
    if (atomic_load(&s->cuts) > 0) {
        atomic_fetch_sub(&s->cuts, 1);
        peer->cut = true;
        return;
    }
    for (size_t i = 0; i < s->target_count; i++) {
        part.body.target = s->targets[i];
        open = open || !s->ends[i];
        if (!s->ends[i])
            continue;
        part.body.target.state = s->ends[i];
        text_copy(part.body.target.reason, sizeof part.body.target.reason,
                  s->reasons[i] ? s->reasons[i] : "");
        fake_send_part(call, wire, &part);
    }
    if (open)
        return; /* for ever */
    part.which_body = trawl_v1_IncidentPart_end_tag;
    part.body.end = true;
    fake_send_part(call, wire, &part);
    grpc_finish(call, GRPC_OK, "");
}

static inline void fake_capture(struct fake_script *s, struct grpc_call *call, struct buf *wire,
                                struct span request)
{
    static trawl_v1_CaptureReply reply;
    trawl_v1_CaptureRequest r;
    struct failure f;
    REQUIRE(codec_get_capture_request(&r, request, &f) == 0);
    REQUIRE(r.request_id.size == 16);
    memset(&reply, 0, sizeof reply);
    atomic_fetch_add(&s->captures, 1);
    text_copy(reply.incident, sizeof reply.incident, r.dry_run ? "" : s->incident.id);
    for (size_t i = 0; i < s->host_count; i++) {
        reply.hosts++;
        reply.online += s->hosts[i].state == trawl_v1_HostState_ONLINE;
        if (r.dry_run)
            text_copy(reply.names[reply.names_count++], sizeof reply.names[0], s->hosts[i].name);
    }
    REQUIRE(codec_put_capture_reply(wire, &reply) == 0);
    fake_send(call, wire);
    grpc_finish(call, GRPC_OK, "");
}

static inline const struct fake_artifact *fake_find(const struct fake_script *s,
                                                    const trawl_v1_FetchRequest *r)
{
    for (size_t i = 0; i < s->artifact_count; i++)
        if (s->artifacts[i].record.no == r->artifact &&
            strcmp(s->artifacts[i].record.host, r->host) == 0)
            return &s->artifacts[i];
    return NULL;
}

static inline void fake_fetch(struct fake_peer *peer, struct grpc_call *call, struct buf *wire,
                              struct span request)
{
    static trawl_v1_Piece piece;
    struct fake_script *s = &peer->fake->script;
    trawl_v1_FetchRequest r;
    struct failure f;
    REQUIRE(codec_get_fetch_request(&r, request, &f) == 0);
    const struct fake_artifact *a = fake_find(s, &r);
    REQUIRE(a != NULL);
    if (atomic_fetch_add(&s->fetches, 1) == 0)
        atomic_store(&s->first_from_piece, (int)r.from_piece);
    bool cut = atomic_load(&s->cuts) > 0 && a->record.size_bytes > CODEC_PIECE_SIZE;
    uint64_t at = (uint64_t)r.from_piece * CODEC_PIECE_SIZE;
    memset(&piece, 0, sizeof piece);
    piece.no = r.from_piece;
    do {
        uint64_t left = a->record.size_bytes - at;
        piece.data.size = (pb_size_t)(left < CODEC_PIECE_SIZE ? left : CODEC_PIECE_SIZE);
        memcpy(piece.data.bytes, a->body + at, piece.data.size);
        if ((int)piece.no == atomic_load(&s->flip_piece))
            piece.data.bytes[piece.data.size / 2] ^= 1;
        at += piece.data.size;
        piece.last = at == a->record.size_bytes;
        REQUIRE(codec_put_piece(wire, &piece) == 0);
        fake_send(call, wire);
        piece.no++;
        if (cut && !piece.last) {
            atomic_fetch_sub(&s->cuts, 1);
            peer->cut = true;
            return;
        }
    } while (!piece.last);
    grpc_finish(call, GRPC_OK, "");
}

static inline void fake_exceptions(struct fake_peer *peer, struct grpc_call *call, struct buf *wire,
                                   struct span request)
{
    struct fake_script *s = &peer->fake->script;
    trawl_v1_ExceptionsRequest r;
    struct failure f;
    REQUIRE(codec_get_exceptions_request(&r, request, &f) == 0);
    size_t known = (size_t)atomic_fetch_add(&s->exception_calls, 1) + 1;
    bool is_last = known >= s->exception_count;
    for (size_t i = 0; i < known && i < s->exception_count; i++) {
        REQUIRE(codec_put_exception(wire, &s->exceptions[i]) == 0);
        fake_send(call, wire);
    }
    if (!r.follow)
        grpc_finish(call, GRPC_OK, "");
    else if (!is_last)
        peer->cut = true;
    else
        (void)kill(getpid(), SIGINT);
}

static inline const trawl_v1_Group *fake_group(const struct fake_script *s, struct grpc_call *call,
                                               const char *id)
{
    struct failure f;
    for (size_t i = 0; i < s->group_count; i++)
        if (strstr(s->groups[i].id, id))
            return &s->groups[i];
    fail(&f, ERR_NOTFOUND, "no group '%s'", id);
    grpc_finish_failure(call, &f);
    return NULL;
}

static inline void fake_show_group(struct fake_script *s, struct grpc_call *call, struct buf *wire,
                                   struct span request)
{
    static trawl_v1_GroupPart part;
    trawl_v1_GroupRequest r;
    struct failure f;
    REQUIRE(codec_get_group_request(&r, request, &f) == 0);
    const trawl_v1_Group *group = fake_group(s, call, r.group);
    if (!group)
        return;
    part.which_body = trawl_v1_GroupPart_group_tag;
    part.body.group = *group;
    REQUIRE(codec_put_group_part(wire, &part) == 0);
    fake_send(call, wire);
    for (size_t i = s->exception_count; i > 0; i--) {
        part.which_body = trawl_v1_GroupPart_sample_tag;
        part.body.sample = s->exceptions[i - 1];
        REQUIRE(codec_put_group_part(wire, &part) == 0);
        fake_send(call, wire);
    }
    grpc_finish(call, GRPC_OK, "");
}

/* Groups, and what Want and Resolve change. */
static inline void fake_groups(struct fake_script *s, enum method_id method, struct grpc_call *call,
                               struct buf *wire, struct span request)
{
    trawl_v1_GroupRequest r = {.group = ""};
    struct failure f;
    const trawl_v1_Group *group = s->groups;
    size_t count = s->group_count;
    if (method == METHOD_OPS_WANT) {
        REQUIRE(codec_get_want_request(&s->wanted, request, &f) == 0);
        group = fake_group(s, call, s->wanted.group);
    } else if (method == METHOD_OPS_RESOLVE) {
        REQUIRE(codec_get_group_request(&r, request, &f) == 0);
        group = fake_group(s, call, r.group);
    }
    for (size_t i = 0; group && i < (method == METHOD_OPS_GROUPS ? count : 1); i++) {
        REQUIRE(codec_put_group(wire, &group[i]) == 0);
        fake_send(call, wire);
    }
    if (group)
        grpc_finish(call, GRPC_OK, "");
}

static inline int fake_on_message(void *owner, struct grpc_call *call, struct span request)
{
    struct fake_call *c = owner;
    struct fake_script *s = &c->peer->fake->script;
    struct buf wire;
    struct failure f;
    buf_init(&wire, FAKE_WIRE_LIMIT);
    if (atomic_load(&s->refuse)) {
        fail(&f, atomic_load(&s->refuse), "the script says no");
        grpc_finish_failure(call, &f);
        return 0;
    }
    switch (c->method->id) {
    case METHOD_OPS_HOSTS:
        fake_hosts(s, call, &wire, request);
        break;
    case METHOD_OPS_SHOW:
        fake_show(s, call, &wire);
        break;
    case METHOD_OPS_WATCH:
        fake_watch(c->peer, call, &wire);
        break;
    case METHOD_OPS_CAPTURE:
        fake_capture(s, call, &wire, request);
        break;
    case METHOD_OPS_FETCH:
        fake_fetch(c->peer, call, &wire, request);
        break;
    case METHOD_OPS_EXCEPTIONS:
        fake_exceptions(c->peer, call, &wire, request);
        break;
    case METHOD_OPS_SHOW_GROUP:
        fake_show_group(s, call, &wire, request);
        break;
    case METHOD_OPS_GROUPS:
    case METHOD_OPS_WANT:
    case METHOD_OPS_RESOLVE:
        fake_groups(s, c->method->id, call, &wire, request);
        break;
    case METHOD_OPS_INCIDENTS:
        REQUIRE(codec_put_incident(&wire, &s->incident) == 0);
        fake_send(call, &wire);
        grpc_finish(call, GRPC_OK, "");
        break;
    default:
        fail(&f, ERR_UNSUPPORTED, "not in the script");
        grpc_finish_failure(call, &f);
    }
    buf_done(&wire);
    return 0;
}

static inline void fake_on_done(void *owner, struct grpc_call *call, enum grpc_status status,
                                const char *text)
{
    (void)call, (void)status, (void)text;
    free(owner);
}

static const struct grpc_call_events fake_call_events = {.message = fake_on_message,
                                                         .done = fake_on_done};

static inline int fake_on_call(void *owner, struct grpc_call *call, const char *path,
                               const struct grpc_call_events **events, void **call_owner,
                               struct failure *f)
{
    struct fake_call *c = calloc(1, sizeof *c);
    (void)call;
    REQUIRE(c != NULL);
    c->peer = owner;
    c->method = method_find(path);
    if (!c->method) {
        free(c);
        return fail(f, ERR_UNSUPPORTED, "no such method");
    }
    *events = &fake_call_events;
    *call_owner = c;
    return 0;
}

#endif
