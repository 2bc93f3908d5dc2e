/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection, session, uploads and renewal of one agent. One attempt at a time; everything that
 * ends a connection arrives in on_link_closed(), the one place that decides when to try again.
 * Called by agent.
 */
#include "agent/uplink.h"

#include <stdlib.h>
#include <string.h>

#include "agent/crashes.h"
#include "agent/link.h"
#include "agent/upload.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"
#include "proto/methods.h"

#define BACKOFF_FIRST_US UINT64_C(500000)
#define BACKOFF_MAX_US UINT64_C(30000000)
#define BACKOFF_LEAST_MS 50
#define CLOSE_LIMIT_MS 1000
#define UPLOAD_RETRY_S 5
#define UPLOAD_TRIES 12
#define RENEW_RETRY_MAX_S 3600
#define RENEW_RETRY_MIN_S 10
#define RENEW_LIMIT_US UINT64_C(30000000)
#define PEM_MAX 8192

struct uplink {
    struct uplink_settings settings;
    struct tls_config *tls;
    struct link *link;
    struct uplink_session *session;
    struct upload *upload;
    struct capture_artifact uploading;
    bool was_question;  /* it only asks where the collector stands */
    uint64_t streaming; /* the upload is a step of this stream; 0: it is of a file */
    struct budget_rate rate;
    unsigned upload_tries, upload_pause_s;
    uv_timer_t timer; /* back-off, or the limit of closing */
    unsigned attempt;
    bool was_welcome; /* on this connection */
    bool is_lost;     /* the loss was reported */
    bool said_unreachable;
    bool is_closing, timer_closing;
    /* Renewal. */
    struct grpc_call *renew_call;
    struct buf renewed_cert;
    unsigned renew_pause_s;
    bool has_renewed;
    char last_trouble[FAILURE_TEXT_SIZE];
    void (*closed)(void *context);
    void *closed_context;
};

uint64_t uplink_backoff_us(unsigned attempt, uint64_t random)
{
    uint64_t most = attempt < 7 ? BACKOFF_FIRST_US << attempt : BACKOFF_MAX_US;
    if (most > BACKOFF_MAX_US)
        most = BACKOFF_MAX_US;
    return random % most;
}

static void connect_now(struct uplink *u);

static void on_backoff(uv_timer_t *timer)
{
    connect_now(timer->data);
}

static void try_later(struct uplink *u)
{
    uint64_t random;
    port_random(&random, sizeof random);
    uint64_t delay_ms = uplink_backoff_us(u->attempt, random) / 1000 + BACKOFF_LEAST_MS;
    if (u->attempt < 16)
        u->attempt++;
    uv_update_time(u->settings.loop);
    uv_timer_start(&u->timer, on_backoff, delay_ms, 0);
}

/* ---- trouble, said once ---- */

static void say_trouble(struct uplink *u, const struct failure *why)
{
    const struct identity *id = u->settings.identity;
    bool is_news = !u->said_unreachable || strcmp(u->last_trouble, why->text) != 0;
    if (is_news && !u->said_unreachable)
        log_warn("collector '%s:%u' cannot be reached: %s; everything is kept here until it can",
                 id->collector, (unsigned)id->port, why->text);
    else if (is_news)
        log_info("collector '%s:%u': %s", id->collector, (unsigned)id->port, why->text);
    else
        log_debug("collector '%s:%u': %s", id->collector, (unsigned)id->port, why->text);
    u->said_unreachable = true;
    text_copy(u->last_trouble, sizeof u->last_trouble, why->text);
}

static void report_loss(struct uplink *u, const struct failure *why)
{
    if (u->is_lost)
        return;
    u->is_lost = true;
    events_add(u->settings.events, trawl_v1_EventType_COLLECTOR_LOST, "", 0, "%s",
               why->code ? why->text : "connection closed");
}

/* Our certificate against our clock: the commonest reason that no handshake succeeds. */
static int check_clock(struct uplink *u, struct failure *f)
{
    const struct pki_identity *who = &u->settings.identity->who;
    int64_t now_us = u->settings.clock->wall_us(u->settings.clock);
    char now[32], from[32], to[32];
    if (now_us / 1000000 >= who->not_before_s && now_us / 1000000 <= who->not_after_s)
        return 0;
    text_put_time(now_us, now, sizeof now);
    text_put_time(who->not_before_s * 1000000, from, sizeof from);
    text_put_time(who->not_after_s * 1000000, to, sizeof to);
    if (now_us / 1000000 < who->not_before_s)
        return fail(
            f, ERR_CLOCK,
            "this host's clock says %s, but its certificate is valid from %s: set the clock", now,
            from);
    return fail(
        f, ERR_EXPIRED,
        "this host's certificate ended at %s and its clock says %s: set the clock, or revoke "
        "the host and join again",
        to, now);
}

/* ---- uploads ---- */

static void next_upload(struct uplink *u);
static void close_timer(struct uplink *u);

static bool is_passing(int code)
{
    return code == ERR_FULL || code == ERR_BUSY || code == ERR_AGAIN || code == ERR_TIMEOUT ||
           code == ERR_UNREACHABLE || code == ERR_CLOSED || code == ERR_LIMIT || code == ERR_IO ||
           code == ERR_NOMEM || code == ERR_CONFLICT; /* what a cut upload sent was still landing */
}

/* What came of it is told to the capture; a step that went well says nothing new. */
static void tell(struct uplink *u, const struct failure *why, bool sealed)
{
    struct capture *capture = u->settings.capture;
    if (why->code == ERR_CANCELLED)
        return;
    if (!u->streaming)
        capture_artifact_ended(capture, &u->uploading, why);
    else if (why->code || sealed)
        capture_stream_ended(capture, u->streaming, why);
}

static void on_uploaded(void *context, const struct failure *why, bool sealed)
{
    struct uplink *u = context;
    u->upload = NULL;
    if (u->streaming && why->code)
        capture_stream_unknown(u->settings.capture, u->streaming);
    bool is_lost_link = !u->link || !link_grpc(u->link) || u->is_closing;
    bool again = why->code && is_passing(why->code) && ++u->upload_tries < UPLOAD_TRIES;
    if (u->is_closing)
        close_timer(u);
    if (is_lost_link && why->code)
        return; /* it comes again on the next connection */
    if (again) {
        u->upload_pause_s = UPLOAD_RETRY_S;
        log_debug("artifact will be sent again: %s", why->text);
        return;
    }
    if (!u->was_question)
        u->upload_tries = 0;
    tell(u, why, sealed);
    uplink_kick(u);
}

static bool is_wanted(struct uplink *u)
{
    return u->streaming ? capture_stream(u->settings.capture, u->streaming) != NULL
                        : capture_wants_artifact(u->settings.capture, &u->uploading);
}

static int open_upload(struct uplink *u, struct failure *f)
{
    struct capture *capture = u->settings.capture;
    struct grpc *grpc = link_grpc(u->link);
    u->was_question = u->streaming && !capture_stream_is_known(capture);
    if (u->streaming)
        return upload_open_stream(&u->upload, u->settings.loop, grpc, capture, u->streaming,
                                  &u->rate, on_uploaded, u, f);
    return upload_open(&u->upload, u->settings.loop, grpc, &u->uploading, &u->rate, on_uploaded, u,
                       f);
}

/* Files first: they are small and complete, a stream may take minutes. */
static void next_upload(struct uplink *u)
{
    struct failure f = {0};
    if (u->upload) {
        if (!is_wanted(u))
            upload_cancel(u->upload);
        return;
    }
    if (u->upload_pause_s || u->is_closing)
        return;
    u->streaming = 0;
    if (capture_peek_artifact(u->settings.capture, &u->uploading)) {
        u->streaming = capture_peek_stream(u->settings.capture);
        if (!u->streaming)
            return;
    }
    int e = open_upload(u, &f);
    if (e == ERR_LIMIT || e == ERR_CLOSED || e == ERR_NOMEM)
        u->upload_pause_s = UPLOAD_RETRY_S;
    else if (e)
        tell(u, &f, false);
}

void uplink_kick(struct uplink *u)
{
    if (!u->session || !uplink_session_is_welcome(u->session))
        return;
    uplink_session_kick(u->session);
    if (u->session && uplink_session_is_welcome(u->session))
        next_upload(u);
}

/* ---- renewal ---- */

static int on_renewed(void *owner, struct grpc_call *call, struct span message)
{
    struct uplink *u = owner;
    trawl_v1_Certificate *cert = calloc(1, sizeof *cert);
    (void)call;
    if (cert && !codec_get_certificate(cert, message, NULL)) {
        buf_clear(&u->renewed_cert);
        (void)buf_append_str(&u->renewed_cert, cert->certificate_pem);
    }
    free(cert);
    return 0;
}

/* The new certificate counts when it is on disk; the connection is made anew with it. */
static int take_renewed(struct uplink *u, struct failure *f)
{
    struct identity *id = u->settings.identity;
    struct pki_identity who;
    int e = pki_cert_identity(buf_span(&u->renewed_cert), &who, f);
    if (e)
        return e;
    if (strcmp(who.name, id->who.name) != 0 || strcmp(who.role, "agent") != 0 ||
        strcmp(who.fleet, id->who.fleet) != 0)
        return fail(f, ERR_IDENTITY, "the new certificate names someone else: '%s'", who.name);
    buf_clear(&id->cert_pem);
    e = buf_append_span(&id->cert_pem, buf_span(&u->renewed_cert));
    if (!e)
        e = identity_save_cert(id, u->settings.state->directory, f);
    if (!e)
        id->who = who;
    return e;
}

/* Often enough to succeed before the end, seldom enough not to be a burden. */
static unsigned renewal_pause_s(const struct uplink *u)
{
    int64_t now_s = u->settings.clock->wall_us(u->settings.clock) / 1000000;
    int64_t pause_s = (u->settings.identity->who.not_after_s - now_s) / 10;
    if (pause_s > RENEW_RETRY_MAX_S)
        return RENEW_RETRY_MAX_S;
    return pause_s < RENEW_RETRY_MIN_S ? RENEW_RETRY_MIN_S : (unsigned)pause_s;
}

static void on_renew_done(void *owner, struct grpc_call *call, enum grpc_status status,
                          const char *text)
{
    struct uplink *u = owner;
    struct failure f = {0};
    (void)call;
    u->renew_call = NULL;
    u->renew_pause_s = renewal_pause_s(u);
    int e = status == GRPC_OK ? take_renewed(u, &f) : fail(&f, ERR_REFUSED, "%s", text);
    if (e) {
        log_warn("the certificate of this host was not renewed: %s; trying again in %u s", f.text,
                 u->renew_pause_s);
        return;
    }
    char until[32];
    text_put_time(u->settings.identity->who.not_after_s * 1000000, until, sizeof until);
    log_info("the certificate of this host was renewed, valid until %s", until);
    u->has_renewed = true;
    if (u->link)
        link_close(u->link);
}

static const struct grpc_call_events renew_events = {on_renewed, NULL, NULL, on_renew_done};

static bool is_renewal_due(const struct uplink *u)
{
    const struct pki_identity *who = &u->settings.identity->who;
    int64_t now_s = u->settings.clock->wall_us(u->settings.clock) / 1000000;
    return who->not_after_s - now_s < (who->not_after_s - who->not_before_s) / 3;
}

static int send_renewal(struct uplink *u, struct failure *f)
{
    const struct identity *id = u->settings.identity;
    trawl_v1_RenewRequest request = trawl_v1_RenewRequest_init_zero;
    struct buf der, encoded;
    buf_init(&der, sizeof request.request_der.bytes);
    buf_init(&encoded, trawl_v1_RenewRequest_size + 16);
    int e = pki_request_new(id->who.name, buf_span(&id->key_pem), &der, f);
    if (!e) {
        request.request_der.size = (pb_size_t)der.size_bytes;
        memcpy(request.request_der.bytes, der.data, der.size_bytes);
        e = codec_put_renew_request(&encoded, &request);
    }
    if (!e)
        e = grpc_start(link_grpc(u->link), method_by_id(METHOD_FLEET_RENEW)->path, RENEW_LIMIT_US,
                       &renew_events, u, &u->renew_call, f);
    if (!e) {
        (void)grpc_send(u->renew_call, buf_span(&encoded));
        grpc_end(u->renew_call);
    }
    buf_done(&der);
    buf_done(&encoded);
    return e;
}

static void renew_when_due(struct uplink *u)
{
    struct failure f = {0};
    if (u->renew_call || u->renew_pause_s || !is_renewal_due(u))
        return;
    if (send_renewal(u, &f)) {
        log_warn("cannot ask for a new certificate: %s", f.text);
        u->renew_pause_s = renewal_pause_s(u);
    }
}

void uplink_tick(struct uplink *u)
{
    u->upload_pause_s -= u->upload_pause_s > 0;
    u->renew_pause_s -= u->renew_pause_s > 0;
    if (!u->session || !uplink_session_is_welcome(u->session))
        return;
    renew_when_due(u);
    uplink_kick(u);
}

/* ---- the connection ---- */

static void on_welcomed(void *context, const trawl_v1_Welcome *welcome)
{
    struct uplink *u = context;
    const struct identity *id = u->settings.identity;
    log_info("connected to collector '%s' at %s:%u as '%s'", welcome->collector, id->collector,
             (unsigned)id->port, id->who.name);
    u->was_welcome = true;
    u->attempt = 0;
    u->said_unreachable = false;
    if (u->is_lost)
        events_add(u->settings.events, trawl_v1_EventType_COLLECTOR_BACK, "", 0, "%s",
                   welcome->collector);
    u->is_lost = false;
}

static void on_watching(void *context, bool on)
{
    struct uplink *u = context;
    sampler_set_watching(u->settings.sampler, on);
}

static void on_wants(void *context, const trawl_v1_Wants *wants)
{
    (void)context;
    crashes_set_wants(wants);
}

static void on_rules(void *context, const trawl_v1_RulePiece *piece)
{
    struct uplink *u = context;
    if (u->settings.rules)
        u->settings.rules(u->settings.rules_context, piece);
}

static void on_session_ended(void *context, const struct failure *why)
{
    struct uplink *u = context;
    if (why->code && !u->was_welcome)
        say_trouble(u, why);
    if (u->link)
        link_close(u->link);
}

static void on_link_opened(void *owner, struct link *link)
{
    struct uplink *u = owner;
    struct failure f = {0};
    struct uplink_session_settings settings = {
        .clock = u->settings.clock,
        .spool = u->settings.spool,
        .capture = u->settings.capture,
        .profile = u->settings.profile,
        .state_id = u->settings.state->id,
        .epoch = u->settings.epoch,
        .welcomed = on_welcomed,
        .watching = on_watching,
        .wants = on_wants,
        .rules = on_rules,
        .ended = on_session_ended,
        .context = u,
    };
    if (uplink_session_open(&u->session, link_grpc(link), &settings, &f)) {
        say_trouble(u, &f);
        link_close(link);
    }
}

static void close_tls(struct uplink *u)
{
    tls_config_close(u->tls);
    u->tls = NULL;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct uplink *u = handle->data;
    void (*closed)(void *context) = u->closed;
    void *context = u->closed_context;
    close_tls(u);
    buf_done(&u->renewed_cert);
    free(u);
    if (closed)
        closed(context);
}

/* Waits for a link and an upload that are still ending. */
static void close_timer(struct uplink *u)
{
    if (u->link || u->upload || u->timer_closing)
        return;
    u->timer_closing = true;
    uv_close((uv_handle_t *)&u->timer, on_timer_closed);
}

static void on_link_closed(void *owner, const struct failure *why)
{
    struct uplink *u = owner;
    u->link = NULL;
    uplink_session_close(u->session);
    u->session = NULL;
    sampler_set_watching(u->settings.sampler, false);
    if (u->is_closing) {
        close_timer(u);
        return;
    }
    if (u->has_renewed) {
        u->has_renewed = false;
        close_tls(u);
        u->was_welcome = false;
        connect_now(u);
        return;
    }
    struct failure reason = *why;
    if (!reason.code)
        fail(&reason, ERR_CLOSED, "the connection was closed");
    if (!u->said_unreachable || why->code)
        say_trouble(u, &reason);
    report_loss(u, &reason);
    u->was_welcome = false;
    try_later(u);
}

static const struct link_events link_events = {on_link_opened, on_link_closed};

static int open_tls(struct uplink *u, struct failure *f)
{
    const struct identity *id = u->settings.identity;
    struct tls_settings settings = {
        .side = TLS_CLIENT,
        .ca_pem = buf_span(&id->ca_pem),
        .cert_pem = buf_span(&id->cert_pem),
        .key_pem = buf_span(&id->key_pem),
        .alpn = "h2",
    };
    return u->tls ? 0 : tls_config_open(&u->tls, &settings, f);
}

static void connect_now(struct uplink *u)
{
    struct failure f = {0};
    const struct identity *id = u->settings.identity;
    int e = check_clock(u, &f);
    if (!e)
        e = open_tls(u, &f);
    if (!e)
        e = link_open(&u->link, u->settings.loop, u->tls, id->collector, (uint16_t)id->port,
                      id->collector, &link_events, u, &f);
    if (!e)
        return;
    say_trouble(u, &f);
    report_loss(u, &f);
    try_later(u);
}

/* ---- opening and closing ---- */

int uplink_open(struct uplink **out, const struct uplink_settings *settings, struct failure *f)
{
    struct uplink *u = calloc(1, sizeof *u);
    if (!u)
        return fail(f, ERR_NOMEM, "out of memory");
    u->settings = *settings;
    buf_init(&u->renewed_cert, PEM_MAX);
    budget_rate_init(&u->rate, settings->upload_bytes_per_s, port_mono_us());
    u->timer.data = u;
    if (uv_timer_init(settings->loop, &u->timer)) {
        free(u);
        return fail(f, ERR_IO, "cannot make a timer");
    }
    *out = u;
    return 0;
}

void uplink_start(struct uplink *u)
{
    connect_now(u);
}

static void on_close_limit(uv_timer_t *timer)
{
    struct uplink *u = timer->data;
    if (u->link)
        link_close(u->link);
}

void uplink_close(struct uplink *u, void (*closed)(void *context), void *context)
{
    if (!u)
        return;
    u->is_closing = true;
    u->closed = closed;
    u->closed_context = context;
    uv_timer_stop(&u->timer);
    if (!u->link) {
        close_timer(u);
        return;
    }
    uv_timer_start(&u->timer, on_close_limit, CLOSE_LIMIT_MS, 0);
    if (u->upload)
        upload_cancel(u->upload);
    if (u->session && uplink_session_is_welcome(u->session))
        uplink_session_finish(u->session);
    else
        link_close(u->link);
}
