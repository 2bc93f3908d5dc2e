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

#include "tests/unit/cli/fake_answers.h"

#include <signal.h>

#include "cli/command.h"

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
