/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collector as a whole: owner of the parts below, which see each other only through it.
 * Everything here lives on the loop thread. Start order is the order of the members, stop order the
 * reverse.
 */
#ifndef TRAWL_COLLECTOR_COLLECTOR_H
#define TRAWL_COLLECTOR_COLLECTOR_H

#include <uv.h>

#include "collector/settings.h"
#include "common/clock.h"
#include "common/err.h"
#include "proto/codec.h"

struct collector {
    const struct settings *settings;
    uv_loop_t *loop;
    struct clock *clock;
    struct store *store;
    struct symbols *symbols;
    struct authority *authority;
    struct roster *roster;
    struct brake *brake;
    struct rules *rules;
    struct partials *partials;
    struct incidents *incidents;
    struct groups *groups;
    struct firings *firings;
    struct dispatch *dispatch;
    struct top *top;
    struct listener *listener;
    struct pulse *pulse; /* NULL before the loop runs and after it */
    uv_async_t store_wake;
    uv_timer_t second; /* expiry, staleness */
    uv_signal_t signals[2];
    uint32_t top_watchers;          /* calls of Top in progress */
    trawl_v1_AgentMessage *scratch; /* a message being taken in; 33 KB, so there is one */
    bool stopping;
};

/* Serves until SIGTERM or SIGINT. */
int collector_run(const struct settings *settings, struct failure *f);

#endif
