/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one call of joining on a loop of its own, and the sentences for everything that can go wrong.
 * Called by main and agent.
 */
#include "agent/join.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "agent/link.h"
#include "agent/settings.h"
#include "agent/state.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"
#include "proto/methods.h"

#define CALL_LIMIT_US UINT64_C(20000000)
#define SECRET_LENGTH 26

struct join {
    uv_loop_t loop;
    struct tls_config *tls;
    struct link *link;
    struct identity identity;
    struct join_token token;
    char name[PKI_NAME_SIZE];
    struct buf request_der;
    trawl_v1_Certificate reply;
    bool has_reply, is_done;
    struct failure why; /* code 0: none */
};

int join_token_parse(const char *text, struct join_token *out, struct failure *f)
{
    struct span rest = span_str(text), port, print;
    char port_text[8], hex[2 * PKI_FINGERPRINT_SIZE + 1];
    uint64_t number;
    struct join_token token;
    bool is_fine = !text_take_until(&rest, '.', &port) && !text_take_until(&rest, '.', &print) &&
                   !text_copy_span(port_text, sizeof port_text, port) &&
                   !text_u64_in(port_text, 1, 65535, &number) &&
                   !text_copy_span(hex, sizeof hex, print) &&
                   !text_parse_hex(hex, token.fingerprint, sizeof token.fingerprint) &&
                   rest.size_bytes == SECRET_LENGTH &&
                   !text_copy_span(token.secret, sizeof token.secret, rest);
    if (!is_fine)
        return fail(
            f, ERR_INVALID,
            "the join token is malformed: one looks like PORT.FINGERPRINT.SECRET (a number, 64 "
            "hexadecimal digits, 26 letters and digits); 'trawl enroll' makes one");
    token.port = (uint16_t)number;
    *out = token;
    return 0;
}

/* ---- the call ---- */

static int on_certificate(void *owner, struct grpc_call *call, struct span message)
{
    struct join *j = owner;
    (void)call;
    j->has_reply = codec_get_certificate(&j->reply, message, &j->why) == 0;
    return 0;
}

static int name_refusal(struct join *j, int code, const char *text)
{
    switch (code) {
    case ERR_EXPIRED:
        return fail(
            &j->why, code,
            "the join token has expired (one works for ten minutes): make a new one with 'trawl "
            "enroll'");
    case ERR_USED:
        return fail(&j->why, code,
                    "the join token was used already (one works once): make a new one with 'trawl "
                    "enroll'");
    case ERR_NOTFOUND:
        return fail(
            &j->why, code,
            "the join token is not known to this collector: make one there with 'trawl enroll'");
    case ERR_EXISTS:
        return fail(&j->why, code,
                    "host name '%s' is enrolled already: free it with 'trawl revoke %s', or choose "
                    "another one with --name",
                    j->name, j->name);
    default:
        return fail(&j->why, code ? code : ERR_REFUSED,
                    "the collector refused to let '%s' join: %s", j->name, text);
    }
}

static void on_done(void *owner, struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct join *j = owner;
    bool is_open = j->link && link_grpc(j->link);
    j->is_done = status == GRPC_OK && j->has_reply;
    if (status != GRPC_OK && is_open)
        name_refusal(j, grpc_call_error(call), text);
    else if (!j->is_done && j->why.code == 0)
        fail(&j->why, ERR_PROTOCOL, "the collector sent no certificate: %s", text);
    if (is_open)
        link_close(j->link);
}

static const struct grpc_call_events call_events = {on_certificate, NULL, NULL, on_done};

static int send_request(struct join *j, struct grpc_call *call)
{
    trawl_v1_JoinRequest request = trawl_v1_JoinRequest_init_zero;
    struct buf encoded;
    buf_init(&encoded, trawl_v1_JoinRequest_size + 16);
    text_copy(request.secret, sizeof request.secret, j->token.secret);
    text_copy(request.host, sizeof request.host, j->name);
    text_copy(request.version, sizeof request.version, TRAWL_VERSION);
    request.request_der.size = (pb_size_t)j->request_der.size_bytes;
    memcpy(request.request_der.bytes, j->request_der.data, j->request_der.size_bytes);
    int e = codec_put_join_request(&encoded, &request);
    if (!e)
        e = grpc_send(call, buf_span(&encoded));
    pki_wipe(&request, sizeof request);
    if (encoded.data)
        pki_wipe(encoded.data, encoded.size_bytes);
    buf_done(&encoded);
    return e;
}

static void on_opened(void *owner, struct link *link)
{
    struct join *j = owner;
    struct grpc_call *call;
    j->link = link;
    if (grpc_start(link_grpc(link), method_by_id(METHOD_JOIN_JOIN)->path, CALL_LIMIT_US,
                   &call_events, j, &call, &j->why)) {
        link_close(link);
        return;
    }
    if (send_request(j, call))
        grpc_cancel(call);
    else
        grpc_end(call);
}

static void on_closed(void *owner, const struct failure *why)
{
    struct join *j = owner;
    j->link = NULL;
    if (why->code && !j->is_done && (j->why.code == 0 || j->why.code == ERR_PROTOCOL))
        j->why = *why;
}

static const struct link_events link_events = {on_opened, on_closed};

/* ---- before and after it ---- */

static int prepare(struct join *j, const char *token, const char *name, struct failure *f)
{
    struct buf text;
    buf_init(&text, 1024);
    int e = 0;
    if (token[0] == '@')
        e = port_read_file(token + 1, &text, f);
    else
        e = buf_append_str(&text, token);
    while (!e && text.size_bytes > 0 && strchr(" \r\n\t", text.data[text.size_bytes - 1]))
        text.size_bytes--;
    if (!e)
        e = join_token_parse(buf_str(&text), &j->token, f);
    if (text.data)
        pki_wipe(text.data, text.capacity_bytes);
    buf_done(&text);
    if (!e)
        e = name[0] ? text_copy(j->name, sizeof j->name, name)
                    : port_host_name(j->name, sizeof j->name);
    if (e)
        return e;
    if (!text_is_name(j->name))
        return fail(
            f, ERR_INVALID,
            "'%s' cannot be a host's name (letters, digits, '.', '-', '_', at most 63): choose "
            "one with --name",
            j->name);
    e = pki_key_new(&j->identity.key_pem, f);
    return e ? e : pki_request_new(j->name, buf_span(&j->identity.key_pem), &j->request_der, f);
}

static int call_collector(struct join *j, struct failure *f)
{
    struct tls_settings settings = {.side = TLS_JOIN_CLIENT, .alpn = "h2"};
    memcpy(settings.ca_fingerprint, j->token.fingerprint, sizeof settings.ca_fingerprint);
    int e = tls_config_open(&j->tls, &settings, f);
    if (e)
        return e;
    if (uv_loop_init(&j->loop))
        return fail(f, ERR_NOMEM, "cannot make a loop");
    e = link_open(&j->link, &j->loop, j->tls, j->identity.collector, j->token.port,
                  j->identity.collector, &link_events, j, f);
    (void)uv_run(&j->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&j->loop);
    if (e)
        return e;
    if (!j->is_done && j->why.code == ERR_IDENTITY)
        return fail(f, ERR_IDENTITY,
                    "cannot join by way of '%s:%u': %s; the token is of another fleet, or somebody "
                    "else answers there",
                    j->identity.collector, (unsigned)j->token.port, j->why.text);
    if (!j->is_done)
        return fail(f, j->why.code ? j->why.code : ERR_CLOSED, "cannot join by way of '%s:%u': %s",
                    j->identity.collector, (unsigned)j->token.port,
                    j->why.code ? j->why.text : "the connection was closed");
    return 0;
}

/* What came must be for us, by the CA that the token names. */
static int check_reply(struct join *j, struct failure *f)
{
    struct identity *id = &j->identity;
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
    int e = buf_append_str(&id->cert_pem, j->reply.certificate_pem);
    if (!e)
        e = buf_append_str(&id->ca_pem, j->reply.ca_pem);
    if (!e)
        e = pki_cert_fingerprint(buf_span(&id->ca_pem), fingerprint, f);
    if (!e && !pki_equal(fingerprint, j->token.fingerprint, sizeof fingerprint))
        return fail(f, ERR_IDENTITY, "the collector sent another CA than the join token names");
    if (!e)
        e = pki_cert_identity(buf_span(&id->cert_pem), &id->who, f);
    if (!e && (strcmp(id->who.role, "agent") != 0 || strcmp(id->who.name, j->name) != 0))
        return fail(f, ERR_IDENTITY, "the collector sent a certificate for '%s/%s', not for '%s'",
                    id->who.role, id->who.name, j->name);
    return e;
}

static void join_done(struct join *j)
{
    tls_config_close(j->tls);
    identity_done(&j->identity);
    buf_done(&j->request_der);
    pki_wipe(&j->token, sizeof j->token);
}

int join_run(const char *collector, const char *token, const char *name, const char *state_dir,
             struct failure *f)
{
    struct join *j = calloc(1, sizeof *j);
    uint16_t port;
    if (!j)
        return fail(f, ERR_NOMEM, "out of memory");
    identity_init(&j->identity);
    buf_init(&j->request_der, sizeof(((trawl_v1_JoinRequest *)0)->request_der.bytes));
    int e =
        settings_address(collector, j->identity.collector, sizeof j->identity.collector, &port, f);
    if (!e) {
        j->identity.port = port;
        e = prepare(j, token, name, f);
    }
    if (!e)
        e = call_collector(j, f);
    if (!e)
        e = check_reply(j, f);
    if (!e)
        e = identity_save(&j->identity, state_dir, f);
    join_done(j);
    free(j);
    return e;
}
