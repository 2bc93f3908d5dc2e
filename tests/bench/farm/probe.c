/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop on a thread. Invariant: one question at a time, so that a collector that does not come
 * round for 80 ms shows as one answer of 80 ms, not as sixteen.
 */
#include "probe.h"

#include <stdlib.h>

#include "agent/link.h"
#include "common/port.h"
#include "proto/methods.h"

#define EVERY_MS 5

struct probe {
    uv_thread_t thread;
    uv_loop_t loop;
    uv_timer_t timer;
    uv_async_t stop;
    struct tls_config *tls;
    uint16_t port;
    struct link *link;
    bool is_asking;
    uint64_t asked_us;
    uv_mutex_t lock; /* guards `figures` */
    struct figures figures;
};

static void on_done(void *owner, struct grpc_call *call, enum grpc_status status, const char *text)
{
    struct probe *p = owner;
    (void)call, (void)text;
    p->is_asking = false;
    if (status != GRPC_OK)
        return;
    uv_mutex_lock(&p->lock);
    figures_add(&p->figures, port_mono_us() - p->asked_us);
    uv_mutex_unlock(&p->lock);
}

static const struct grpc_call_events call_events = {.done = on_done};

static void on_timer(uv_timer_t *timer)
{
    struct probe *p = timer->data;
    struct grpc *grpc = p->link ? link_grpc(p->link) : NULL;
    struct grpc_call *call;
    struct failure f;
    static const uint8_t nothing[1];
    if (p->is_asking || !grpc)
        return;
    p->asked_us = port_mono_us();
    if (grpc_start(grpc, method_by_id(METHOD_HEALTH_CHECK)->path, 0, &call_events, p, &call, &f))
        return;
    p->is_asking = true;
    (void)grpc_send(call, span_of(nothing, 0)); /* an empty HealthCheckRequest */
    grpc_end(call);
}

static void on_opened(void *owner, struct link *link)
{
    (void)owner, (void)link;
}

static void on_closed(void *owner, const struct failure *why)
{
    struct probe *p = owner;
    (void)why;
    p->link = NULL;
}

static const struct link_events link_events = {on_opened, on_closed};

static void on_stop(uv_async_t *async)
{
    struct probe *p = async->data;
    uv_close((uv_handle_t *)&p->timer, NULL);
    uv_close((uv_handle_t *)&p->stop, NULL);
    if (p->link)
        link_close(p->link);
}

static void run(void *context)
{
    struct probe *p = context;
    struct failure f;
    if (link_open(&p->link, &p->loop, p->tls, FARM_ADDRESS, p->port, FARM_ADDRESS, &link_events, p,
                  &f))
        farm_die("%s", f.text);
    uv_timer_start(&p->timer, on_timer, EVERY_MS, EVERY_MS);
    uv_run(&p->loop, UV_RUN_DEFAULT);
}

struct probe *probe_start(const struct farm *farm, struct tls_config *tls)
{
    struct probe *p = calloc(1, sizeof *p);
    if (!p || uv_loop_init(&p->loop) || uv_mutex_init(&p->lock))
        farm_die("out of memory");
    p->tls = tls;
    p->port = farm->port;
    uv_timer_init(&p->loop, &p->timer);
    uv_async_init(&p->loop, &p->stop, on_stop);
    p->timer.data = p->stop.data = p;
    if (uv_thread_create(&p->thread, run, p))
        farm_die("cannot make a thread");
    return p;
}

void probe_take(struct probe *p, struct figures *out)
{
    uv_mutex_lock(&p->lock);
    *out = p->figures;
    p->figures = (struct figures){0};
    uv_mutex_unlock(&p->lock);
}

void probe_stop(struct probe *p)
{
    uv_async_send(&p->stop);
    uv_thread_join(&p->thread);
    uv_loop_close(&p->loop);
    uv_mutex_destroy(&p->lock);
    figures_done(&p->figures);
    free(p);
}
