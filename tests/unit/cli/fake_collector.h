/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A collector for tests of whole commands: real TLS and gRPC on loopback, in a thread of its own,
 * with answers from a script. It knows a few hosts, one incident with its targets and artifacts,
 * and can misbehave: flip a byte, cut the connection in the middle of an artifact. Also runs
 * `trawl` itself, in this process, with what it prints kept. Used by the tests of cli/ that need
 * the network.
 */
#ifndef TESTS_UNIT_CLI_FAKE_COLLECTOR_H
#define TESTS_UNIT_CLI_FAKE_COLLECTOR_H

#include "tests/unit/common/scratch.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "cli/command.h"
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

/* ---- connections ---- */

static inline void fake_on_wake(void *owner)
{
    conn_wake(((struct fake_peer *)owner)->conn);
}

static const struct grpc_events fake_grpc_events = {fake_on_call, fake_on_wake};

static inline int fake_on_opened(void *owner, struct conn *conn)
{
    struct fake_peer *p = owner;
    (void)conn;
    return grpc_open_server(&p->grpc, NULL, &fake_grpc_events, p, port_mono_us());
}

static inline int fake_on_feed(void *owner, struct span plain, struct failure *f)
{
    struct fake_peer *p = owner;
    return grpc_feed(p->grpc, plain, port_mono_us(), f);
}

static inline int fake_on_pull(void *owner, struct buf *out, struct failure *f)
{
    struct fake_peer *p = owner;
    size_t before = out->size_bytes;
    int r = grpc_pull(p->grpc, out, port_mono_us(), f);
    if (r == 0 && p->cut && out->size_bytes == before)
        return fail(f, ERR_CLOSED, "cut by the script");
    return r;
}

static inline void fake_on_closed(void *owner, const struct failure *why)
{
    struct fake_peer *p = owner;
    (void)why;
    grpc_close(p->grpc, "closed");
    p->fake->peers[p->at] = NULL;
    free(p);
}

static const struct conn_events fake_conn_events = {fake_on_opened, fake_on_feed, fake_on_pull,
                                                    fake_on_closed};

static inline int fake_on_accepted(void *context, struct conn *conn,
                                   const struct conn_events **events, void **owner)
{
    struct fake_collector *fake = context;
    for (size_t i = 0; i < FAKE_PEERS; i++)
        if (!fake->peers[i]) {
            struct fake_peer *p = calloc(1, sizeof *p);
            REQUIRE(p != NULL);
            *p = (struct fake_peer){.fake = fake, .conn = conn, .at = i};
            fake->peers[i] = p;
            *events = &fake_conn_events;
            *owner = p;
            return 0;
        }
    return -1;
}

static inline void fake_on_turned_away(void *context, const char *address,
                                       const struct failure *why)
{
    (void)context, (void)address, (void)why;
}

static inline void fake_on_listener_closed(void *context)
{
    (void)context;
}

static const struct conn_listener_events fake_listener_events = {
    fake_on_accepted, fake_on_turned_away, fake_on_listener_closed};

static inline void fake_on_stop(uv_async_t *async)
{
    struct fake_collector *fake = async->data;
    conn_listener_close(fake->listener);
    for (size_t i = 0; i < FAKE_PEERS; i++)
        if (fake->peers[i])
            conn_abort(fake->peers[i]->conn, ERR_CLOSED, "the test is over");
    uv_close((uv_handle_t *)async, NULL);
}

static inline void *fake_run(void *owner)
{
    struct fake_collector *fake = owner;
    (void)uv_run(&fake->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&fake->loop);
    return NULL;
}

/* ---- start and stop ---- */

static inline void fake_write(const char *directory, const char *name, struct span text)
{
    char path[SCRATCH_PATH_SIZE + 16];
    struct failure f;
    text_format(path, sizeof path, "%s/%s", directory, name);
    REQUIRE(port_write_file(path, text, true, &f) == 0);
}

static inline void fake_write_context(struct fake_collector *fake)
{
    char conf[64];
    struct failure f;
    REQUIRE(port_make_dirs(scratch("context", fake->context), &f) == 0);
    text_format(conf, sizeof conf, "collector = localhost:%u\n", fake->port);
    fake_write(fake->context, "context.conf", span_str(conf));
    fake_write(fake->context, "ca.crt", buf_span(&fake->fleet.cert));
    fake_write(fake->context, "cert.crt", buf_span(&fake->person.cert));
    fake_write(fake->context, "key.pem", buf_span(&fake->person.key));
}

/* `fake` may be large: make it static. */
static inline void fake_start(struct fake_collector *fake)
{
    struct failure f = {0};
    atomic_store(&fake->script.flip_piece, -1);
    fleet_init(&fake->fleet, "f1");
    fleet_member(&fake->fleet, &fake->collector, "collector", "c1");
    fleet_member(&fake->fleet, &fake->person, "sre", "alice");
    fake->tls = fleet_config(TLS_SERVER, &fake->fleet, &fake->collector);
    REQUIRE(uv_loop_init(&fake->loop) == 0);
    REQUIRE(uv_async_init(&fake->loop, &fake->stop, fake_on_stop) == 0);
    fake->stop.data = fake;
    REQUIRE(conn_listen(&fake->listener, &fake->loop, fake->tls, "127.0.0.1", 0, FAKE_PEERS, NULL,
                        &fake_listener_events, fake, &f) == 0);
    fake->port = conn_listener_port(fake->listener);
    fake_write_context(fake);
    REQUIRE(pthread_create(&fake->thread, NULL, fake_run, fake) == 0);
}

static inline void fake_stop(struct fake_collector *fake)
{
    uv_async_send(&fake->stop);
    pthread_join(fake->thread, NULL);
    tls_config_close(fake->tls);
    member_done(&fake->collector);
    member_done(&fake->person);
    fleet_done(&fake->fleet);
}

/* ---- a usual script ---- */

static inline void fake_add_host(struct fake_script *s, const char *name, trawl_v1_HostState state)
{
    trawl_v1_Host *h = &s->hosts[s->host_count++];
    *h = (trawl_v1_Host){.state = state, .last_seen_us = port_wall_us() - 1000};
    text_copy(h->name, sizeof h->name, name);
    trawl_v1_Target *t = &s->targets[s->target_count++];
    *t = (trawl_v1_Target){.state = trawl_v1_State_QUEUED, .capture = 1};
    text_copy(t->host, sizeof t->host, name);
}

static inline void fake_add_artifact(struct fake_script *s, const char *host, uint32_t no,
                                     const char *file, size_t size)
{
    struct fake_artifact *a = &s->artifacts[s->artifact_count++];
    a->record = (trawl_v1_Artifact){.no = no, .kind = "stacks", .size_bytes = size, .sealed = true};
    text_copy(a->record.host, sizeof a->record.host, host);
    text_copy(a->record.file, sizeof a->record.file, file);
    for (size_t i = 0; i < size; i++)
        a->body[i] = (uint8_t)(i * 7 + i / 253 + no);
    a->record.sha256.size = 32;
    pki_sha256(span_of(a->body, size), a->record.sha256.bytes);
}

static inline void fake_usual(struct fake_script *s)
{
    s->incident = (trawl_v1_Incident){.id = "INC-261123-K7F2Q",
                                      .finished = true,
                                      .created_us = port_wall_us(),
                                      .expires_us = port_wall_us() + INT64_C(3600000000)};
    fake_add_host(s, "web-1", trawl_v1_HostState_ONLINE);
    fake_add_host(s, "web-2", trawl_v1_HostState_ONLINE);
    fake_add_artifact(s, "web-1", 1, "stacks-1.txt", 3 * CODEC_PIECE_SIZE + 100);
    fake_add_artifact(s, "web-1", 2, "triage-1.txt", 0);
    fake_add_artifact(s, "web-2", 1, "stacks-1.txt", 10);
}

/* ---- running trawl ---- */

struct fake_run_result {
    int status;
    char *out, *err; /* free with fake_run_done() */
};

/* `words` ends with NULL and has no program name; the context is given besides. */
static inline struct fake_run_result fake_trawl(const struct fake_collector *fake,
                                                const char *const *words)
{
    struct fake_run_result r = {0};
    char *argv[32] = {(char *)(uintptr_t) "trawl", (char *)(uintptr_t) "--context",
                      (char *)(uintptr_t)fake->context};
    int argc = 3;
    size_t out_size, err_size;
    for (; *words; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    FILE *out = open_memstream(&r.out, &out_size), *err = open_memstream(&r.err, &err_size);
    REQUIRE(out && err);
    struct cli cli = {.commands = COMMANDS,
                      .out = out,
                      .err = err,
                      .columns = 80,
                      .now_us = port_wall_us(),
                      .env = {.home = "/nowhere"}};
    r.status = command_run(&cli, argc, argv);
    fclose(out);
    fclose(err);
    return r;
}

static inline void fake_run_done(struct fake_run_result *r)
{
    free(r->out);
    free(r->err);
}

#define FAKE_TRAWL(fake_, ...) fake_trawl(fake_, (const char *const[]){__VA_ARGS__, NULL})

#endif
