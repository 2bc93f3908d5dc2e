/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources of exceptions on a real loop with a real spool: what they tell is read back from the
 * ring. Used by test_watch*.c.
 */
#ifndef TESTS_UNIT_AGENT_WATCH_KIT_H
#define TESTS_UNIT_AGENT_WATCH_KIT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/sources.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"
#include "tests/check.h"

struct watch_kit {
    uv_loop_t loop;
    uv_timer_t second, limit;
    char directory[64];
    struct spool *spool;
    struct events *events;
    struct watcher *watcher;
    struct settings settings;
    struct source_context context;
    void (*tick)(void *source);
    void *source;
    bool is_late;
};

static trawl_v1_AgentMessage kit_message;

static inline void kit_second(uv_timer_t *timer)
{
    struct watch_kit *k = timer->data;
    if (k->tick && k->source)
        k->tick(k->source);
    watcher_tick(k->watcher);
}

static inline void kit_limit(uv_timer_t *timer)
{
    struct watch_kit *k = timer->data;
    k->is_late = true;
}

/* The source is opened by the caller, with k->context. */
static inline void watch_kit_open(struct watch_kit *k, const char *const *followed)
{
    struct failure f = {0, ""};
    struct spool_opened how;
    const uint64_t floors[SPOOL_LANES] = {1, 1};
    memset(k, 0, sizeof *k);
    snprintf(k->directory, sizeof k->directory, "/tmp/trawl-watch-XXXXXX");
    REQUIRE(mkdtemp(k->directory) != NULL);
    REQUIRE(uv_loop_init(&k->loop) == 0);
    REQUIRE(spool_open(&k->spool, k->directory, SPOOL_MIN_BYTES, floors, &how, &f) == 0);
    REQUIRE(events_open(&k->events, k->spool, clock_system(), NULL, NULL, NULL) == 0);
    REQUIRE(watcher_open(&k->watcher, k->spool, clock_system(), NULL, NULL) == 0);
    k->context = (struct source_context){.loop = &k->loop,
                                         .clock = clock_system(),
                                         .settings = &k->settings,
                                         .followed = followed,
                                         .events = k->events,
                                         .watcher = k->watcher};
    uv_timer_init(&k->loop, &k->second);
    uv_timer_init(&k->loop, &k->limit);
    k->second.data = k->limit.data = k;
    uv_timer_start(&k->second, kit_second, 1000, 1000);
}

static inline void watch_kit_close(struct watch_kit *k)
{
    char command[3][96];
    static const char *const names[] = {"counters.ring", "events.ring", ""};
    uv_close((uv_handle_t *)&k->second, NULL);
    uv_close((uv_handle_t *)&k->limit, NULL);
    uv_run(&k->loop, UV_RUN_DEFAULT);
    CHECK_EQ_INT(uv_loop_close(&k->loop), 0);
    watcher_close(k->watcher);
    events_close(k->events);
    spool_close(k->spool);
    for (size_t i = 0; i < 3; i++) {
        snprintf(command[i], sizeof command[i], "%s/%s", k->directory, names[i]);
        (void)unlink(command[i]);
    }
    (void)rmdir(k->directory);
}

/*
 * Runs the loop until the `skip`+1st record fits, at most `limit_ms`; kit_message is it. Texts are
 * looked for in the event's text or the exception's type and message.
 */
static inline bool kit_fits(pb_size_t which, const char *text)
{
    if (kit_message.which_body != which)
        return false;
    if (which == trawl_v1_AgentMessage_event_tag)
        return strstr(kit_message.body.event.text, text) != NULL;
    return strstr(kit_message.body.exception.type, text) ||
           strstr(kit_message.body.exception.message, text);
}

static inline bool kit_find(struct watch_kit *k, pb_size_t which, const char *text, int skip)
{
    const uint64_t nothing[SPOOL_LANES] = {0, 0};
    struct spool_item item;
    spool_resume(k->spool, nothing);
    while (spool_peek(k->spool, SPOOL_EVENTS, &item) == 0) {
        bool is_read =
            !item.is_gap && codec_get_agent_message(&kit_message, item.message, NULL) == 0;
        if (is_read && getenv("KIT_VERBOSE") && kit_message.which_body == which)
            fprintf(stderr, "%s\n",
                    which == trawl_v1_AgentMessage_event_tag ? kit_message.body.event.text
                                                             : kit_message.body.exception.message);
        if (is_read && kit_fits(which, text) && skip-- == 0)
            return true;
        spool_advance(k->spool, SPOOL_EVENTS);
    }
    return false;
}

static inline bool kit_wait(struct watch_kit *k, pb_size_t which, const char *text, int skip,
                            uint64_t limit_ms)
{
    k->is_late = false;
    uv_timer_start(&k->limit, kit_limit, limit_ms, 0);
    bool found = false;
    while (!(found = kit_find(k, which, text, skip)) && !k->is_late)
        uv_run(&k->loop, UV_RUN_ONCE);
    uv_timer_stop(&k->limit);
    return found;
}

/* For what is certain to come: long enough for the busiest machine. */
#define KIT_CERTAIN_MS 60000

/* Until somebody listens on this port of 127.0.0.1: asks the kernel, not the listener. */
static inline void kit_await_listener(int port)
{
    char line[256], wanted[40];
    bool listens = false;
    snprintf(wanted, sizeof wanted, " 0100007F:%04X 00000000:0000 0A ", (unsigned)(uint16_t)port);
    for (int i = 0; i < KIT_CERTAIN_MS && !listens; i++) {
        FILE *sockets = fopen("/proc/net/tcp", "r");
        while (sockets && !listens && fgets(line, sizeof line, sockets))
            listens = strstr(line, wanted) != NULL;
        if (sockets)
            fclose(sockets);
        if (!listens)
            usleep(1000);
    }
    REQUIRE(listens);
}

#define KIT_EVENT trawl_v1_AgentMessage_event_tag
#define KIT_EXCEPTION trawl_v1_AgentMessage_exception_tag

#endif
