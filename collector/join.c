/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a host gets its certificate: Operations.Enroll (a token), Join.Join (token and request for a
 * certificate), Fleet.Renew. Invariant: a certificate names the host of the token's use or of the
 * present certificate, nothing that the request itself claims. Handlers for serve.c's tables.
 */
#include <stdlib.h>
#include <string.h>

#include "collector/authority.h"
#include "collector/ingest.h"
#include "collector/roster.h"
#include "collector/serve.h"
#include "common/log.h"
#include "common/text.h"

#define PEM_MAX 16384

/* One of the three under way; outlives its call. */
struct joining {
    struct call *call; /* NULL: over */
    struct collector *collector;
    trawl_v1_JoinRequest request;
    trawl_v1_Certificate certificate;
    trawl_v1_EnrollReply enroll;
};

static struct joining *joining_new(struct call *call, struct failure *f)
{
    struct joining *j = calloc(1, sizeof(*j));
    if (!j) {
        fail(f, ERR_NOMEM, "out of memory");
        return NULL;
    }
    j->call = call;
    j->collector = call->collector;
    call->state = j;
    return j;
}

static void joining_ended(struct call *call)
{
    struct joining *j = call->state;
    if (j)
        j->call = NULL;
}

/* Answers with a failure, or with the certificate, and forgets. */
static void answer(struct joining *j, const struct failure *why)
{
    struct buf wire;
    buf_init(&wire, PEM_MAX);
    if (j->call) {
        j->call->state = NULL;
        if (why->code) {
            call_finish(j->call, why);
        } else {
            codec_put_certificate(&wire, &j->certificate);
            call_answer(j->call, buf_span(&wire));
        }
    }
    buf_done(&wire);
    free(j);
}

static int sign(struct joining *j, const char *host, struct span request_der, struct failure *f)
{
    struct collector *c = j->collector;
    struct buf pem;
    buf_init(&pem, PEM_MAX);
    int64_t now_s = c->clock->wall_us(c->clock) / 1000000;
    int e = authority_sign(c->authority, "agent", host, request_der, now_s,
                           c->settings->certificate_us / 1000000, &pem, f);
    trawl_v1_Certificate *out = &j->certificate;
    if (!e)
        e = text_copy_span(out->certificate_pem, sizeof(out->certificate_pem), buf_span(&pem));
    if (!e)
        e = text_copy_span(out->ca_pem, sizeof(out->ca_pem), authority_ca_pem(c->authority));
    text_copy(out->fleet, sizeof(out->fleet), authority_fleet(c->authority));
    text_copy(out->name, sizeof(out->name), host);
    buf_done(&pem);
    return e && !f->code ? fail(f, e, "the certificate is too large") : e;
}

/* ---- Join ---- */

static void on_enrolled(void *context, const struct failure *why)
{
    struct joining *j = context;
    struct host *host = roster_find(j->collector->roster, j->request.host);
    if (!why->code)
        log_info("host '%s' joined", j->request.host);
    else if (host)
        host->revoked = true; /* its row is not there: the name stays free */
    answer(j, why);
}

static int enroll_host(struct joining *j, const trawl_v1_EnrollRequest *token, struct failure *f)
{
    struct collector *c = j->collector;
    struct pki_identity identity;
    trawl_v1_Host record = {.enrolled_us = c->clock->wall_us(c->clock)};
    int e = sign(j, j->request.host,
                 span_of(j->request.request_der.bytes, j->request.request_der.size), f);
    if (!e)
        e = pki_cert_identity(span_str(j->certificate.certificate_pem), &identity, f);
    if (e)
        return e;
    text_copy(record.name, sizeof(record.name), j->request.host);
    text_copy(record.version, sizeof(record.version), j->request.version);
    text_clean(record.version);
    record.certificate_not_after_s = identity.not_after_s;
    record.labels_count = token->labels_count;
    memcpy(record.labels, token->labels, sizeof(record.labels));
    return roster_add(c->roster, &record, identity.serial_hex, on_enrolled, j, f);
}

static void on_token(void *context, const struct failure *why, const trawl_v1_EnrollRequest *token)
{
    struct joining *j = context;
    struct failure f = *why;
    if (!f.code)
        enroll_host(j, token, &f);
    if (!f.code)
        return;
    log_warn("host '%s' could not join: %s", j->request.host, f.text);
    answer(j, &f);
}

static int check_join(struct call *call, const trawl_v1_JoinRequest *r, struct failure *f)
{
    struct host *host = roster_find(call->collector->roster, r->host);
    if (!text_is_name(r->host))
        return fail(f, ERR_INVALID,
                    "'%s' is not a host name: 1 to 63 letters, digits, '.', '_' and '-' would be",
                    r->host);
    if (host && !host->revoked)
        return fail(
            f, ERR_EXISTS,
            "host '%s' is enrolled already: revoke it first (trawl revoke %s) or join under "
            "another name (--name)",
            r->host, r->host);
    return 0;
}

static int join_message(struct call *call, struct span request, struct failure *f)
{
    struct joining *j = joining_new(call, f);
    if (!j)
        return f->code;
    int e = codec_get_join_request(&j->request, request, f);
    if (!e)
        e = check_join(call, &j->request, f);
    if (e) {
        call->state = NULL;
        free(j);
        return e;
    }
    authority_token_take(call->collector, j->request.secret, j->request.host, on_token, j);
    return 0;
}

/* ---- Renew ---- */

static int renew_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_RenewRequest r;
    struct host *host = roster_find(call->collector->roster, call->who->name);
    int e = codec_get_renew_request(&r, request, f);
    if (!e)
        e = roster_admit(host, call->who, f);
    struct joining *j = e ? NULL : joining_new(call, f);
    if (!j)
        return f->code;
    e = sign(j, call->who->name, span_of(r.request_der.bytes, r.request_der.size), f);
    if (e) {
        call->state = NULL;
        free(j);
        return e;
    }
    log_info("host '%s' renewed its certificate", call->who->name);
    static const struct failure none = {0};
    answer(j, &none);
    return 0;
}

/* ---- Enroll ---- */

static void on_token_stored(void *context, const struct failure *why)
{
    struct joining *j = context;
    struct buf wire;
    buf_init(&wire, 1024);
    if (j->call) {
        j->call->state = NULL;
        if (why->code) {
            call_finish(j->call, why);
        } else {
            codec_put_enroll_reply(&wire, &j->enroll);
            call_answer(j->call, buf_span(&wire));
        }
    }
    buf_done(&wire);
    pki_wipe(&j->enroll, sizeof(j->enroll));
    free(j);
}

static int check_labels(const trawl_v1_EnrollRequest *r, struct failure *f)
{
    for (pb_size_t i = 0; i < r->labels_count; i++)
        if (!text_is_name(r->labels[i].key) || !text_is_name(r->labels[i].value))
            return fail(f, ERR_INVALID,
                        "label '%s=%s' is not a key=value of letters, digits, '.', '_' and '-'",
                        r->labels[i].key, r->labels[i].value);
    return 0;
}

static int enroll_message(struct call *call, struct span request, struct failure *f)
{
    trawl_v1_EnrollRequest r;
    int e = codec_get_enroll_request(&r, request, f);
    if (!e)
        e = check_labels(&r, f);
    struct joining *j = e ? NULL : joining_new(call, f);
    if (!j)
        return f->code;
    e = authority_token_new(call->collector, &r, j->enroll.token, sizeof(j->enroll.token),
                            &j->enroll.expires_us, on_token_stored, j, f);
    if (e) {
        call->state = NULL;
        free(j);
        return e;
    }
    log_info("%s/%s made a join token", call->who->role, call->who->name);
    return 0;
}

const struct handler join_handlers[] = {
    {METHOD_JOIN_JOIN, join_message, NULL, NULL, joining_ended},
    {METHOD_FLEET_RENEW, renew_message, NULL, NULL, joining_ended},
    {METHOD_OPS_ENROLL, enroll_message, NULL, NULL, joining_ended},
    {.message = NULL},
};
