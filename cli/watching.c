/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop behind `capture` and `watch`: Operations.Watch for what changes, Operations.Hosts now
 * and then for whether the hosts of open targets are there, a tick for the progress line.
 * Invariant: at most one call of each kind runs.
 */
#include "cli/watching.h"

#include <string.h>

#include "common/port.h"
#include "common/text.h"

#define TICK_MS 100
#define ASK_FEW_US 300000
#define ASK_MANY_US 2000000
#define GIVE_UP_US 60000000 /* without the collector */
#define BACKOFF_MS 250
#define BACKOFF_MAX_MS 4000
#define PLAIN_NOTE_US 10000000
#define LINE_LIMIT 4096

struct watching {
    struct cli *cli;
    const struct watching_settings *settings;
    struct follow *follow;
    struct failure why;                  /* of the Watch call's end */
    struct client_call *stream, *asking; /* NULL: none */
    bool over, interrupted, noted, asks_many;
    uint64_t started_us, asked_us, contact_us, told_us;
};

static void stop(struct watching *w)
{
    w->over = true;
    client_stop(w->cli->client);
}

/* ---- the hosts of open targets ---- */

static int on_host(void *owner, struct span message, struct failure *f)
{
    struct watching *w = owner;
    trawl_v1_Host host;
    int r = codec_get_host(&host, message, f);
    if (r == 0)
        follow_host(w->follow, &host);
    return r;
}

static void on_hosts_done(void *owner, const struct failure *why)
{
    struct watching *w = owner;
    w->asking = NULL;
    if (why->code == 0 && follow_waits_for_offline(w->follow, port_wall_us()))
        stop(w);
}

static void ask_hosts(struct watching *w)
{
    static const struct client_events events = {on_host, on_hosts_done};
    trawl_v1_HostsRequest request = {.selector = ""};
    struct buf wire;
    follow_open_hosts(w->follow, request.selector, sizeof request.selector);
    w->asks_many = strcmp(request.selector, "*") == 0;
    w->asked_us = port_mono_us();
    buf_init(&wire, sizeof request + 64);
    if (codec_put_hosts_request(&wire, &request) == 0)
        (void)client_start(w->cli->client, METHOD_OPS_HOSTS, buf_span(&wire), CLIENT_TIMEOUT_US,
                           &events, w, &w->asking, NULL);
    buf_done(&wire);
}

/* ---- the stream ---- */

static int on_part(void *owner, struct span message, struct failure *f)
{
    struct watching *w = owner;
    trawl_v1_IncidentPart part;
    const struct follow_target *changed;
    int r = codec_get_incident_part(&part, message, f);
    if (r < 0)
        return r;
    w->contact_us = port_mono_us();
    if (w->noted) {
        cli_note(w->cli, "the collector is back");
        w->noted = false;
    }
    r = follow_part(w->follow, &part, &changed);
    if (r == 0 && w->settings->part)
        r = w->settings->part(w->settings->owner, &part, changed, f);
    if (follow_is_complete(w->follow) && w->follow->expected)
        stop(w);
    return r;
}

static void on_stream_done(void *owner, const struct failure *why)
{
    struct watching *w = owner;
    w->stream = NULL;
    w->why = *why;
    client_stop(w->cli->client);
}

static int start_stream(struct watching *w, struct failure *f)
{
    static const struct client_events events = {on_part, on_stream_done};
    trawl_v1_IncidentRequest request = {.incident = ""};
    struct buf wire;
    text_copy(request.incident, sizeof request.incident, w->settings->incident);
    buf_init(&wire, sizeof request + 64);
    int r = codec_put_incident_request(&wire, &request);
    if (r == 0)
        r = client_start(w->cli->client, METHOD_OPS_WATCH, buf_span(&wire), CLIENT_FOREVER, &events,
                         w, &w->stream, f);
    buf_done(&wire);
    return r;
}

/* ---- the tick ---- */

static void show_progress(struct watching *w, uint64_t now)
{
    struct buf line;
    buf_init(&line, LINE_LIMIT);
    int64_t elapsed = (int64_t)(now - w->started_us);
    if (w->cli->err_is_terminal) {
        if (follow_progress(w->follow, elapsed, w->cli->columns, &line) == 0)
            cli_progress(w->cli, buf_str(&line));
    } else if (now - w->told_us >= PLAIN_NOTE_US) {
        char after[32];
        text_put_duration(elapsed, after, sizeof after);
        w->told_us = now;
        cli_note(w->cli, "%u of %zu hosts ended after %s", follow_ended_count(w->follow),
                 w->follow->count, after);
    }
    buf_done(&line);
}

static void on_tick(void *owner)
{
    struct watching *w = owner;
    uint64_t now = port_mono_us();
    show_progress(w, now);
    uint64_t pause = w->asks_many ? ASK_MANY_US : ASK_FEW_US;
    uint64_t since = now - (w->asked_us ? w->asked_us : w->started_us);
    if (!w->settings->wait_for_offline && w->stream && !w->asking && since >= pause &&
        follow_has_open(w->follow))
        ask_hosts(w);
}

static void on_interrupt(void *owner)
{
    struct watching *w = owner;
    w->interrupted = true;
    stop(w);
}

/* ---- all of it ---- */

/* Whether it is worth trying again; waits a little if so. */
static bool wait_for_collector(struct watching *w, uint64_t *backoff_ms)
{
    bool is_lost = w->why.code == 0 || client_may_retry(w->why.code);
    bool is_known = w->settings->known || w->follow->incident.id[0];
    if (!is_lost || !is_known || port_mono_us() - w->contact_us > GIVE_UP_US)
        return false;
    if (!w->noted) {
        cli_progress_clear(w->cli);
        cli_note(w->cli, "lost the collector (%s): trying again; the capture goes on",
                 w->why.code ? w->why.text : "it ended the stream");
        w->noted = true;
    }
    client_wait(w->cli->client, *backoff_ms);
    *backoff_ms = *backoff_ms * 2 < BACKOFF_MAX_MS ? *backoff_ms * 2 : BACKOFF_MAX_MS;
    return true;
}

static int stream_to_the_end(struct watching *w, struct failure *f)
{
    uint64_t backoff_ms = BACKOFF_MS;
    while (!w->over) {
        uint64_t contact_us = w->contact_us;
        int r = start_stream(w, f);
        if (r < 0)
            return r;
        while (w->stream && !w->over)
            client_run(w->cli->client);
        if (w->over || w->follow->ended)
            return 0;
        if (w->contact_us != contact_us)
            backoff_ms = BACKOFF_MS;
        if (!wait_for_collector(w, &backoff_ms))
            return fail(f, w->why.code ? w->why.code : ERR_CLOSED, "%s",
                        w->why.code ? w->why.text : "the collector ended the stream");
    }
    return 0;
}

int watching_run(struct cli *cli, const struct watching_settings *settings, struct follow *follow,
                 enum watching_end *end, struct failure *f)
{
    uint64_t now = port_mono_us();
    struct watching w = {.cli = cli,
                         .settings = settings,
                         .follow = follow,
                         .started_us = now,
                         .contact_us = now,
                         .told_us = now};
    client_every(cli->client, TICK_MS, on_tick, &w);
    client_on_interrupt(cli->client, on_interrupt, &w);
    int r = stream_to_the_end(&w, f);
    client_every(cli->client, 0, NULL, NULL);
    client_on_interrupt(cli->client, NULL, NULL);
    if (w.stream)
        client_abandon(w.stream);
    if (w.asking)
        client_abandon(w.asking);
    cli->now_us = port_wall_us();
    follow_sort(follow);
    bool is_complete = follow_is_complete(follow) || follow->ended;
    *end = is_complete ? WATCHING_ENDED : w.interrupted ? WATCHING_INTERRUPTED : WATCHING_OFFLINE;
    return r;
}
