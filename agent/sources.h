/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who notices exceptions: one row of a table for each source, opened after the watcher and closed
 * before it. Invariant: a source that cannot work here says so once in the log and is left out; it
 * never keeps the agent from running. Called by agent.c.
 */
#ifndef TRAWL_AGENT_SOURCES_H
#define TRAWL_AGENT_SOURCES_H

#include <uv.h>

#include "agent/broker_client.h"
#include "agent/events.h"
#include "agent/policy.h"
#include "agent/settings.h"
#include "agent/watcher.h"

/* What a source may use; borrowed, and longer there than the source. */
struct source_context {
    uv_loop_t *loop;
    struct clock *clock;
    const struct settings *settings;
    const struct policy *policy;
    const char *const *followed; /* names of processes; NULL-terminated */
    struct broker_client *broker;
    struct events *events;
    struct watcher *watcher;
};

struct source {
    const char *name;
    /* *out NULL with 0: nothing to do here (not configured). */
    int (*open)(void **out, const struct source_context *context, struct failure *f);
    void (*second)(void *source); /* may be NULL */
    /* Stops calling the watcher at once; handles of the loop go away by themselves, and with the
     * last of them its memory. */
    void (*close)(void *source);
};

struct sources;
int sources_open(struct sources **out, const struct source_context *context);
void sources_second(struct sources *sources);
void sources_close(struct sources *sources); /* NULL is fine */

#endif
