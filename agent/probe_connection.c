/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question over TCP: connect; then, as the rule says, wait until the process accepts, or send
 * and wait for an answer. The kernel completes a connection while the process sleeps, so that alone
 * says nothing of it. Part of the source "probes".
 */
#include <stdlib.h>
#include <string.h>

#include "agent/os/watch.h"
#include "agent/probe_private.h"
#include "common/text.h"

#define QUESTION_SIZE 512
#define ANSWER_SIZE 64

struct attempt {
    struct probe *probe; /* NULL: given up */
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    bool is_connected;
    char question[QUESTION_SIZE];
    char answer[ANSWER_SIZE];
    size_t answered;
};

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void connection_drop(struct probe *p)
{
    struct attempt *a = p->attempt;
    if (!a)
        return;
    p->attempt = NULL;
    a->probe = NULL;
    uv_close((uv_handle_t *)&a->tcp, on_closed);
}

static void end(struct attempt *a, const char *type, const char *why)
{
    struct probe *p = a->probe;
    connection_drop(p);
    probe_ended(p, type, why);
}

static const char *scheme(const struct probe *p)
{
    return p->rule.kind == PROBE_HTTP ? "http" : "tcp";
}

static void fail_with(struct attempt *a, const char *what, const char *why)
{
    char type[32];
    (void)text_format(type, sizeof type, "%s %s", scheme(a->probe), what);
    end(a, type, why);
}

/* ---- the answer ---- */

static void on_status(struct attempt *a)
{
    char type[32];
    int status = probe_http_status(a->answer, a->answered);
    if (status == 0)
        return;
    (void)text_format(type, sizeof type, "http %d", status);
    if (status < 0)
        fail_with(a, "bad-answer", "what it answers is no HTTP");
    else if (status >= 500)
        end(a, type, "it answers that it cannot");
    else
        end(a, NULL, NULL);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *out)
{
    struct attempt *a = handle->data;
    (void)size;
    *out = uv_buf_init(a->answer + a->answered, (unsigned)(ANSWER_SIZE - a->answered));
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf)
{
    struct attempt *a = stream->data;
    (void)buf;
    if (!a->probe || got == 0)
        return;
    if (got < 0) {
        fail_with(a, "closed", "it closes the connection without an answer");
        return;
    }
    a->answered += (size_t)got;
    if (a->probe->rule.kind == PROBE_HTTP)
        on_status(a);
    else
        end(a, NULL, NULL);
}

static void on_written(uv_write_t *request, int status)
{
    (void)request;
    (void)status; /* a failure shows when reading */
}

static void ask(struct attempt *a)
{
    const struct probe_rule *r = &a->probe->rule;
    const char *open = strchr(r->host, ':') ? "[" : "", *close = open[0] ? "]" : "";
    if (r->kind == PROBE_HTTP)
        (void)text_format(a->question, sizeof a->question,
                          "GET %s HTTP/1.1\r\nHost: %s%s%s:%u\r\nUser-Agent: trawl-agent\r\n"
                          "Accept: */*\r\nConnection: close\r\n\r\n",
                          r->path, open, r->host, close, r->port);
    else
        (void)text_format(a->question, sizeof a->question, "%s\r\n", r->send);
    uv_buf_t piece = uv_buf_init(a->question, (unsigned)strlen(a->question));
    (void)uv_write(&a->write, (uv_stream_t *)&a->tcp, &piece, 1, on_written);
    (void)uv_read_start((uv_stream_t *)&a->tcp, on_alloc, on_read);
}

/* ---- the connection ---- */

void connection_look(struct probe *p)
{
    struct attempt *a = p->attempt;
    uv_os_fd_t fd;
    bool accepted = false;
    if (!a || !a->is_connected || p->rule.kind == PROBE_HTTP || p->rule.send[0])
        return;
    int e = uv_fileno((uv_handle_t *)&a->tcp, &fd) ? ERR_INVALID : os_watch_accepted(fd, &accepted);
    if (e == 0)
        p->is_local = true;
    /* Elsewhere nobody can tell: that the connection stands must do. */
    if (e || accepted)
        end(a, NULL, NULL);
}

const char *connection_waits_for(const struct probe *p)
{
    if (!p->attempt || !p->attempt->is_connected)
        return "it does not take a connection";
    return p->rule.kind == PROBE_HTTP || p->rule.send[0]
               ? "it does not answer"
               : "its process does not accept the connection";
}

static void on_connected(uv_connect_t *request, int status)
{
    struct attempt *a = request->data;
    if (!a->probe)
        return;
    if (status == UV_ECONNREFUSED) {
        fail_with(a, "refused", "nobody listens there");
    } else if (status) {
        fail_with(a, "unreachable", uv_strerror(status));
    } else {
        a->is_connected = true;
        if (a->probe->rule.kind == PROBE_HTTP || a->probe->rule.send[0])
            ask(a);
        else
            connection_look(a->probe);
    }
}

static int start(struct attempt *a)
{
    const struct probe_rule *r = &a->probe->rule;
    struct sockaddr_storage address;
    if (uv_ip4_addr(r->host, r->port, (struct sockaddr_in *)&address) &&
        uv_ip6_addr(r->host, r->port, (struct sockaddr_in6 *)&address))
        return UV_EINVAL;
    return uv_tcp_connect(&a->connect, &a->tcp, (const struct sockaddr *)&address, on_connected);
}

void connection_begin(struct probe *p)
{
    struct attempt *a = calloc(1, sizeof *a);
    if (!a)
        return;
    a->probe = p;
    a->tcp.data = a;
    a->connect.data = a;
    if (uv_tcp_init(p->owner->context.loop, &a->tcp)) {
        free(a);
        return;
    }
    p->attempt = a;
    int e = start(a);
    if (e)
        fail_with(a, "unreachable", uv_strerror(e));
}
