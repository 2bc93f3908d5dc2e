/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start, run, stop. Invariant: parts are opened in the order of struct collector and closed in the
 * reverse; at the end of an orderly stop everything accepted is committed. Called by main.c.
 */
#include "collector/collector.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "collector/authority.h"
#include "collector/brake.h"
#include "collector/dispatch.h"
#include "collector/firings.h"
#include "collector/groups.h"
#include "collector/incident.h"
#include "collector/partial.h"
#include "collector/pulse.h"
#include "collector/roster.h"
#include "collector/rules.h"
#include "collector/serve.h"
#include "collector/store.h"
#include "collector/symbols.h"
#include "collector/top.h"
#include "collector/upload.h"
#include "common/log.h"
#include "common/text.h"

#define GRACE_MS 2000
#define QUEUE_BYTES (64u << 20)

static void on_store_wake(uv_async_t *async)
{
    struct collector *c = async->data;
    if (c->store)
        store_poll(c->store);
}

static void wake_from_store(void *context)
{
    struct collector *c = context;
    uv_async_send(&c->store_wake);
}

static void on_second(uv_timer_t *timer)
{
    struct collector *c = timer->data;
    incidents_tick(c->incidents);
    groups_tick(c->groups);
    firings_tick(c->firings);
    brake_tick(c->brake);
    rules_tick(c->rules);
    partials_tick(c->partials);
}

/* ---- stopping ---- */

static void on_drained(void *context)
{
    struct collector *c = context;
    listener_close(c->listener);
    c->listener = NULL;
    pulse_close(c->pulse);
    uv_close((uv_handle_t *)&c->second, NULL);
    uv_close((uv_handle_t *)&c->signals[0], NULL);
    uv_close((uv_handle_t *)&c->signals[1], NULL);
    symbols_stop(c->symbols);
    store_close(c->store); /* what was accepted is committed, callbacks included */
    c->store = NULL;
    partials_stop(c->partials);
    uv_close((uv_handle_t *)&c->store_wake, NULL);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct collector *c = handle->data;
    if (c->stopping)
        return;
    c->stopping = true;
    log_info("stopping on %s: present calls get %d s", number == SIGINT ? "SIGINT" : "SIGTERM",
             GRACE_MS / 1000);
    listener_stop(c->listener, GRACE_MS, on_drained, c);
}

/* ---- starting ---- */

static int open_store(struct collector *c, struct failure *f)
{
    const struct settings *s = c->settings;
    char directory[600];
    text_format(directory, sizeof(directory), "%s/store", s->data);
    struct store_settings settings = {.directory = directory,
                                      .fleet = authority_fleet(c->authority),
                                      .records_max_bytes = s->records_max_bytes,
                                      .pieces_max_bytes = s->artifacts_max_bytes,
                                      .group_us = (uint32_t)s->group_us,
                                      .group_ops = (uint32_t)s->group_ops,
                                      .queue_bytes = QUEUE_BYTES,
                                      .wake = wake_from_store,
                                      .context = c};
    return store_open(&c->store, &settings, f);
}

static int open_parts(struct collector *c, struct failure *f)
{
    int e = authority_open(&c->authority, c->settings->data, f);
    if (!e)
        e = open_store(c, f);
    if (!e)
        e = symbols_open(&c->symbols, c, f);
    if (!e)
        e = roster_open(&c->roster, c, f);
    if (!e)
        e = brake_open(&c->brake, c, f);
    if (!e)
        e = rules_open(&c->rules, c, f);
    if (!e)
        e = partials_open(&c->partials, c, f);
    if (!e)
        e = top_open(&c->top, c, f);
    if (!e)
        e = dispatch_open(&c->dispatch, c, f);
    if (!e)
        e = incidents_open(&c->incidents, c, f);
    if (!e)
        e = groups_open(&c->groups, c, f);
    if (!e)
        e = firings_open(&c->firings, c, f);
    if (!e)
        upload_forget_all(c);
    if (!e)
        e = pulse_open(&c->pulse, c->loop, (uint64_t)c->settings->loop_report_us, f);
    if (!e)
        e = listener_open(&c->listener, c, f);
    return e;
}

static void close_parts(struct collector *c)
{
    store_close(c->store);
    firings_close(c->firings);
    groups_close(c->groups);
    incidents_close(c->incidents);
    dispatch_close(c->dispatch);
    top_close(c->top);
    partials_close(c->partials);
    rules_close(c->rules);
    brake_close(c->brake);
    roster_close(c->roster);
    symbols_close(c->symbols);
    authority_close(c->authority);
    free(c->scratch);
}

static void start_handles(struct collector *c)
{
    static const int numbers[2] = {SIGTERM, SIGINT};
    uv_timer_init(c->loop, &c->second);
    c->second.data = c;
    uv_timer_start(&c->second, on_second, 1000, 1000);
    for (int i = 0; i < 2; i++) {
        uv_signal_init(c->loop, &c->signals[i]);
        c->signals[i].data = c;
        uv_signal_start(&c->signals[i], on_signal, numbers[i]);
    }
}

int collector_run(const struct settings *settings, struct failure *f)
{
    struct collector c = {.settings = settings, .clock = clock_system()};
    signal(SIGPIPE, SIG_IGN);
    int e = pki_start(f);
    if (e)
        return e;
    c.loop = uv_default_loop();
    c.scratch = calloc(1, sizeof(*c.scratch));
    if (!c.scratch)
        return fail(f, ERR_NOMEM, "out of memory");
    uv_async_init(c.loop, &c.store_wake, on_store_wake);
    c.store_wake.data = &c;
    e = open_parts(&c, f);
    if (e) {
        pulse_close(c.pulse);
        partials_stop(c.partials);
        uv_close((uv_handle_t *)&c.store_wake, NULL);
    } else {
        start_handles(&c);
        log_info("fleet '%s': %zu hosts, serving on %s port %" PRIu64 ", joining on port %" PRIu64,
                 authority_fleet(c.authority), roster_count(c.roster), settings->listen,
                 settings->port, settings->join_port);
    }
    uv_run(c.loop, UV_RUN_DEFAULT);
    close_parts(&c);
    uv_loop_close(c.loop);
    if (!e)
        log_info("stopped");
    return e;
}
