/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header fields: what a request or response says is noted while its fields come and judged once
 * when they are complete. Invariant: a request that is not a proper gRPC call never reaches the
 * owner; it is answered. Called by the callbacks in grpc.c. Specification: PROTOCOL-HTTP2.md, RFC
 * 9113 section 8.
 */
#include "proto/grpc_internal.h"

#include <string.h>

#include "common/text.h"

/* RFC 9113 section 10.5.1 counts 32 bytes of overhead for each field. */
#define FIELD_OVERHEAD_BYTES 32

static bool is(struct span s, const char *text)
{
    return span_equal(s, span_str(text));
}

static void request_timeout(struct grpc_call *c, struct span value)
{
    uint64_t us;
    c->timeout_bad = !grpc_timeout_parse(value, &us);
    if (!c->timeout_bad)
        c->deadline_us = c->g->now_us + us;
}

static void request_field(struct grpc_call *c, struct span name, struct span value)
{
    if (is(name, ":path"))
        c->path_bad = text_copy_span(c->path, sizeof c->path, value) < 0;
    else if (is(name, ":method"))
        c->post_ok = is(value, "POST");
    else if (is(name, "content-type"))
        c->content_type_ok = grpc_content_type_ok(value);
    else if (is(name, "te"))
        c->te_ok = is(value, "trailers");
    else if (is(name, "grpc-encoding"))
        c->encoding_bad = !is(value, "identity");
    else if (is(name, "grpc-timeout"))
        request_timeout(c, value);
}

static void response_status(struct grpc_call *c, struct span value)
{
    uint64_t number;
    bool whole = text_take_u64(&value, &number) == 0 && value.size_bytes == 0;
    c->status = whole && number <= GRPC_UNAUTHENTICATED ? (enum grpc_status)number : GRPC_UNKNOWN;
    c->status_seen = true;
}

/* Numbers of err.def are small; anything else is a peer that we do not understand. */
static void response_error(struct grpc_call *c, struct span value)
{
    uint64_t number;
    if (value.size_bytes < 2 || value.data[0] != '-')
        return;
    struct span digits = span_of(value.data + 1, value.size_bytes - 1);
    if (text_take_u64(&digits, &number) == 0 && digits.size_bytes == 0 && number > 0 &&
        number < 1000)
        c->error = -(int)number;
}

static void response_field(struct grpc_call *c, struct span name, struct span value)
{
    uint64_t number;
    if (is(name, ":status") && text_take_u64(&value, &number) == 0)
        c->http_status = number < 1000 ? (int)number : 0;
    else if (is(name, "content-type"))
        c->content_type_ok = grpc_content_type_ok(value);
    else if (is(name, "grpc-encoding"))
        c->encoding_bad = !is(value, "identity");
    else if (is(name, "grpc-status"))
        response_status(c, value);
    else if (is(name, "grpc-message"))
        grpc_message_decode(value, &c->text);
    else if (is(name, "trawl-error"))
        response_error(c, value);
}

void grpc_head_field(struct grpc_call *c, struct span name, struct span value)
{
    c->header_bytes += name.size_bytes + value.size_bytes + FIELD_OVERHEAD_BYTES;
    if (c->header_bytes > c->g->limits.header_list_bytes)
        c->headers_too_large = true;
    if (c->headers_too_large || c->over)
        return;
    if (!c->g->server)
        response_field(c, name, value);
    else if (!c->announced)
        request_field(c, name, value);
}

/* 0, or why the request is no call of ours. c->http_status says what plain HTTP clients see. */
static int judge_request(struct grpc_call *c, struct failure *f)
{
    if (c->headers_too_large) {
        c->g->refused++;
        return fail(f, ERR_LIMIT, "headers larger than %u bytes", c->g->limits.header_list_bytes);
    }
    if (!c->post_ok) {
        c->http_status = 405;
        return fail(f, ERR_PROTOCOL, "method is not POST");
    }
    if (!c->content_type_ok) {
        c->http_status = 415;
        return fail(f, ERR_INVALID, "content-type is not application/grpc");
    }
    if (!c->te_ok)
        return fail(f, ERR_PROTOCOL, "header 'te: trailers' is missing");
    if (c->timeout_bad)
        return fail(f, ERR_PROTOCOL, "malformed grpc-timeout");
    if (c->encoding_bad)
        return fail(f, ERR_UNSUPPORTED, "compression is not supported");
    if (c->path_bad)
        return fail(f, ERR_UNSUPPORTED, "unknown method");
    return 0;
}

static int announce(struct grpc_call *c, struct failure *f)
{
    struct grpc *g = c->g;
    int r = judge_request(c, f);
    if (r < 0)
        return r;
    if (!g->events->call)
        return fail(f, ERR_UNSUPPORTED, "no methods are served here");
    const struct grpc_call_events *events = NULL;
    void *owner = NULL;
    r = g->events->call(g->owner, c, c->path, &events, &owner, f);
    if (r != 0)
        return r;
    if (events)
        c->events = events;
    c->owner = owner;
    c->announced = true;
    return 0;
}

void grpc_head_request_done(struct grpc_call *c)
{
    struct failure f = {0};
    int r = announce(c, &f);
    if (r != 0)
        grpc_call_abort(c, (enum grpc_status)err_grpc_status(r), r,
                        f.text[0] ? f.text : err_text(r));
}

/* A final response that is not gRPC is judged by its HTTP status. */
static void judge_response(struct grpc_call *c)
{
    struct failure f = {0};
    if (c->headers_too_large) {
        c->g->refused++;
        fail(&f, ERR_LIMIT, "reply headers larger than %u bytes", c->g->limits.header_list_bytes);
        grpc_call_abort(c, GRPC_RESOURCE_EXHAUSTED, ERR_LIMIT, f.text);
    } else if (c->status_seen || (c->http_status >= 100 && c->http_status < 200)) {
        return;
    } else if (c->http_status != 200) {
        enum grpc_status status = grpc_status_from_http(c->http_status);
        fail(&f, ERR_PROTOCOL, "peer answered with HTTP status %d", c->http_status);
        grpc_call_abort(c, status, 0, f.text);
    } else if (!c->content_type_ok) {
        grpc_call_abort(c, GRPC_UNKNOWN, ERR_PROTOCOL, "reply is not application/grpc");
    }
}

void grpc_head_response_done(struct grpc_call *c, bool last)
{
    if (!c->over)
        judge_response(c);
    if (c->over || !last || c->status_seen)
        return;
    c->status = GRPC_UNKNOWN;
    c->status_seen = true;
    grpc_call_set_text(c, span_str("reply without grpc-status"));
}
