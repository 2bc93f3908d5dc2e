/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a running agent and their order: what is started last is stopped first, and every
 * stop is waited for. Invariant: whatever fails while starting leaves nothing behind but the state
 * directory. Called by main.
 */
#include "agent/agent.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "agent/capture.h"
#include "agent/join.h"
#include "agent/os/privilege.h"
#include "agent/rules.h"
#include "agent/sources.h"
#include "agent/uplink.h"
#include "agent/watcher.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

struct agent {
    const struct settings *settings;
    struct agent_start start;
    uv_loop_t loop;
    bool has_loop;
    struct state state;
    bool state_was_lost;
    struct identity identity;
    struct agent_names follow;
    struct uplink_profile profile;
    uint64_t epoch;
    struct spool_opened rings;
    struct spool *spool;
    struct events *events;
    struct broker_client *broker;
    struct sampler *sampler;
    struct rules *rules;
    struct capture *capture;
    struct watcher *watcher;
    uv_timer_t look; /* at what the watcher holds back */
    bool has_look;
    struct sources *sources;
    struct uplink *uplink;
    uv_signal_t signals[2];
    int signal_count;
    bool is_stopping;
};

/* ---- what the host is ---- */

static void add_fact(void *context, const char *key, const char *value)
{
    struct uplink_profile *p = context;
    if (p->fact_count == sizeof p->facts / sizeof p->facts[0])
        return;
    trawl_v1_Fact *fact = &p->facts[p->fact_count++];
    text_copy(fact->key, sizeof fact->key, key);
    text_copy(fact->value, sizeof fact->value, value);
}

static void copy_caps(struct agent *a)
{
    for (size_t i = 0; i < a->start.cap_count && i < AGENT_CAPS_MAX; i++) {
        trawl_v1_Cap *cap = &a->profile.caps[a->profile.cap_count++];
        text_copy(cap->name, sizeof cap->name, a->start.caps[i].name);
        text_copy(cap->reason, sizeof cap->reason, a->start.caps[i].reason);
        cap->available = a->start.caps[i].available;
    }
}

static void describe_host(struct agent *a)
{
    os_host_facts("", add_fact, &a->profile);
    add_fact(&a->profile, "agent_user", a->start.was_privileged ? a->settings->user : "as started");
    copy_caps(a);
}

/* ---- hooks between the parts ---- */

static void on_new_data(void *context)
{
    struct agent *a = context;
    if (a->uplink)
        uplink_kick(a->uplink);
}

static void reserve_numbers(struct agent *a)
{
    struct failure f = {0};
    const uint64_t next[2] = {spool_next_seq(a->spool, SPOOL_BLOCKS),
                              spool_next_seq(a->spool, SPOOL_EVENTS)};
    if (state_reserve(&a->state, next, &f))
        log_warn("%s", f.text);
}

static void on_cut(void *context)
{
    reserve_numbers(context);
    on_new_data(context);
}

static void on_values(void *context)
{
    struct agent *a = context;
    if (a->rules)
        rules_second(a->rules);
}

static void on_process(void *context, const struct os_process_change *change)
{
    struct agent *a = context;
    events_on_process(a->events, change);
    if (a->rules)
        rules_on_process(a->rules, change);
}

static void on_second(void *context)
{
    struct agent *a = context;
    events_tick(a->events);
    if (a->sources)
        sources_second(a->sources);
    if (a->watcher)
        watcher_tick(a->watcher);
    if (a->capture)
        capture_tick(a->capture);
    if (a->uplink)
        uplink_tick(a->uplink);
}

/* ---- joining at the first start ---- */

static int become_member(struct agent *a, struct failure *f)
{
    const struct settings *s = a->settings;
    if (identity_exists(s->state_dir)) {
        if (s->join[0])
            log_info("this host has joined already ('%s'): the token is not used", s->state_dir);
        return 0;
    }
    if (!s->collector[0] || !s->join[0])
        return fail(
            f, ERR_INVALID,
            "this host has not joined a fleet yet: start with --collector HOST --join TOKEN "
            "('trawl enroll' makes a token)");
    int e = join_run(s->collector, s->join, s->name, s->state_dir, f);
    if (!e)
        log_info("joined by way of collector '%s'", s->collector);
    return e;
}

static int load_identity(struct agent *a, struct failure *f)
{
    uint16_t port;
    int e = identity_load(&a->identity, a->settings->state_dir, f);
    if (e || !a->settings->collector[0])
        return e;
    e = settings_address(a->settings->collector, a->identity.collector,
                         sizeof a->identity.collector, &port, f);
    if (!e)
        a->identity.port = port;
    return e;
}

/* ---- starting ---- */

static void report_found(struct agent *a)
{
    static const char *const names[SPOOL_LANES] = {"counters", "events"};
    if (a->state_was_lost)
        events_add(a->events, trawl_v1_EventType_DATA_GAP, "", 0,
                   "the agent's numbers could not be read and begin anew");
    for (int i = 0; i < SPOOL_LANES; i++) {
        if (a->rings.found[i] != RING_FOUND_REPAIRED && a->rings.found[i] != RING_FOUND_LOST)
            continue;
        bool is_lost = a->rings.found[i] == RING_FOUND_LOST;
        log_warn("the %s ring was damaged: %s", names[i],
                 is_lost ? "nothing of it could be read" : "what could be read was kept");
        events_add(a->events, trawl_v1_EventType_DATA_GAP, "", 0, "the %s ring was damaged: %s",
                   names[i],
                   is_lost ? "nothing of it could be read" : "what could be read was kept");
    }
}

static int open_store(struct agent *a, struct failure *f)
{
    int e = spool_open(&a->spool, a->settings->state_dir, (size_t)a->settings->ring_bytes,
                       a->state.ceilings, &a->rings, f);
    if (e)
        return e;
    reserve_numbers(a);
    e = events_open(&a->events, a->spool, clock_system(), a->start.kernel_log, on_new_data, a);
    if (e)
        return fail(f, e, "out of memory");
    a->start.kernel_log = NULL;
    report_found(a);
    events_add(a->events, trawl_v1_EventType_AGENT_STARTED, "", 0, "trawl-agent %s", TRAWL_VERSION);
    return 0;
}

static int open_sampler(struct agent *a, struct failure *f)
{
    struct sampler_settings settings = {
        .counters = {.root = "",
                     .processes = a->follow.list,
                     .busiest = (uint32_t)a->settings->busiest},
        .clock = clock_system(),
        .spool = a->spool,
        .broker = a->broker,
        .epoch = a->epoch,
        .process_changed = on_process,
        .process_context = a,
        .values = on_values,
        .sampled = on_second,
        .cut = on_cut,
        .context = a,
    };
    return sampler_open(&a->sampler, &settings, f);
}

static const char *boot_id(const struct agent *a)
{
    for (size_t i = 0; i < a->profile.fact_count; i++)
        if (strcmp(a->profile.facts[i].key, "boot_id") == 0)
            return a->profile.facts[i].value;
    return "";
}

static int open_rules(struct agent *a, struct failure *f)
{
    struct rules_settings settings = {
        .clock = clock_system(),
        .state = &a->state,
        .spool = a->spool,
        .sampler = a->sampler,
        .boot_id = boot_id(a),
        .added = on_new_data,
        .context = a,
    };
    return rules_open(&a->rules, &settings, f);
}

static int open_capture(struct agent *a, struct failure *f)
{
    struct capture_settings settings = {
        .loop = &a->loop,
        .clock = clock_system(),
        .state = &a->state,
        .spool = a->spool,
        .sampler = a->sampler,
        .broker = a->broker,
        .events = a->events,
        .policy = &a->start.policy,
        .followed = a->follow.list,
        .space_bytes = a->settings->evidence_bytes,
        .changed = on_new_data,
        .context = a,
    };
    return capture_open(&a->capture, &settings, f);
}

static void on_look(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    if (!a->watcher || !watcher_look(a->watcher))
        uv_timer_stop(timer);
}

static void on_hold(void *context)
{
    struct agent *a = context;
    if (!uv_is_active((uv_handle_t *)&a->look))
        uv_timer_start(&a->look, on_look, WATCHER_LOOK_MS, WATCHER_LOOK_MS);
}

static int open_watcher(struct agent *a, struct failure *f)
{
    struct source_context context = {
        .loop = &a->loop,
        .clock = clock_system(),
        .settings = a->settings,
        .policy = &a->start.policy,
        .followed = a->follow.list,
        .broker = a->broker,
        .events = a->events,
    };
    int e = watcher_open(&a->watcher, a->spool, clock_system(), on_new_data, a);
    context.watcher = a->watcher;
    if (!e) {
        uv_timer_init(&a->loop, &a->look);
        a->look.data = a;
        a->has_look = true;
        watcher_on_hold(a->watcher, on_hold, a);
        watcher_listen(a->watcher, rules_on_exception, a->rules);
    }
    if (!e)
        e = sources_open(&a->sources, &context);
    return e ? fail(f, e, "out of memory") : 0;
}

static int open_uplink(struct agent *a, struct failure *f)
{
    struct uplink_settings settings = {
        .loop = &a->loop,
        .clock = clock_system(),
        .state = &a->state,
        .identity = &a->identity,
        .spool = a->spool,
        .capture = a->capture,
        .events = a->events,
        .sampler = a->sampler,
        .rules = rules_piece,
        .rules_context = a->rules,
        .profile = &a->profile,
        .epoch = a->epoch,
        .upload_bytes_per_s = a->settings->upload_bytes_per_s,
    };
    return uplink_open(&a->uplink, &settings, f);
}

/* ---- stopping: sources, uplink, capture, sampler, broker, signals; each waits for the one before
 * ---- */

static void stop_signals(struct agent *a)
{
    for (int i = 0; i < a->signal_count; i++)
        uv_close((uv_handle_t *)&a->signals[i], NULL);
    a->signal_count = 0;
}

static void on_broker_closed(void *context)
{
    struct agent *a = context;
    a->broker = NULL;
    stop_signals(a);
}

static void close_broker(struct agent *a)
{
    if (a->broker)
        broker_client_close(a->broker, on_broker_closed, a);
    else
        on_broker_closed(a);
}

static void on_crash_handler_removed(void *context, const struct broker_reply *reply,
                                     const struct failure *f)
{
    if (!reply || f->code)
        log_warn("the crash handler stays in the kernel's core pattern: %s", f->text);
    close_broker(context);
}

/* What the setting put there is taken out again; only the broker still may. */
static void on_sampler_stopped(void *context)
{
    struct agent *a = context;
    struct broker_request request = {0};
    if (!a->settings->crash_handler || !a->start.was_privileged || !a->broker ||
        broker_client_send(a->broker, BROKER_CRASH_REMOVE, &request, -1, on_crash_handler_removed,
                           a, NULL))
        close_broker(a);
}

static void on_capture_closed(void *context)
{
    struct agent *a = context;
    a->capture = NULL;
    if (a->sampler)
        sampler_stop(a->sampler, on_sampler_stopped, a);
    else
        on_sampler_stopped(a);
}

static void on_uplink_closed(void *context)
{
    struct agent *a = context;
    struct capture *capture = a->capture;
    a->uplink = NULL;
    if (capture)
        capture_close(capture, on_capture_closed, a);
    else
        on_capture_closed(a);
}

static void stop(struct agent *a)
{
    if (a->is_stopping)
        return;
    a->is_stopping = true;
    sources_close(a->sources);
    a->sources = NULL;
    watcher_close(a->watcher); /* what it holds back goes into the ring now */
    a->watcher = NULL;
    if (a->has_look)
        uv_close((uv_handle_t *)&a->look, NULL);
    if (a->sampler)
        sampler_cut(a->sampler);
    if (a->events)
        events_add(a->events, trawl_v1_EventType_AGENT_STOPPED, "", 0, "stopped in order");
    struct uplink *uplink = a->uplink;
    if (uplink)
        uplink_close(uplink, on_uplink_closed, a);
    else
        on_uplink_closed(a);
}

static void on_signal(uv_signal_t *handle, int number)
{
    (void)number;
    log_info("stopping");
    stop(handle->data);
}

static int watch_signals(struct agent *a, struct failure *f)
{
    static const int numbers[2] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        a->signals[i].data = a;
        if (uv_signal_init(&a->loop, &a->signals[i]))
            return fail(f, ERR_IO, "cannot watch for signals");
        a->signal_count = i + 1;
        if (uv_signal_start(&a->signals[i], on_signal, numbers[i]))
            return fail(f, ERR_IO, "cannot watch for signals");
    }
    return 0;
}

/* ---- the whole ---- */

static int open_parts(struct agent *a, struct failure *f)
{
    int e = agent_names_init(&a->follow, a->settings->follow);
    if (!e && uv_loop_init(&a->loop))
        e = ERR_NOMEM;
    if (e)
        return fail(f, e, "out of memory");
    a->has_loop = true;
    port_random(&a->epoch, sizeof a->epoch);
    describe_host(a);
    e = open_store(a, f);
    if (!e) {
        e = broker_client_open(&a->broker, &a->loop, a->start.broker_fd, f);
        if (!e)
            a->start.broker_fd = -1;
    }
    if (!e)
        e = open_sampler(a, f);
    if (!e)
        e = open_rules(a, f);
    if (!e)
        e = open_capture(a, f);
    if (!e)
        e = open_watcher(a, f);
    if (!e)
        e = open_uplink(a, f);
    return e ? e : watch_signals(a, f);
}

static void say_started(const struct agent *a)
{
    if (a->start.policy_failure.code)
        log_warn("%s", a->start.policy_failure.text);
    if (a->start.kernel_failure.code)
        log_info("no kernel messages: %s", a->start.kernel_failure.text);
    if (!a->start.was_privileged)
        log_info("not started as root: only what this user may see is gathered ('trawl caps' says "
                 "what is missing)");
    log_info("trawl-agent %s runs as '%s' of fleet '%s', state in '%s'", TRAWL_VERSION,
             a->identity.who.name, a->identity.who.fleet, a->settings->state_dir);
}

static int serve(struct agent *a, struct failure *f)
{
    int e = open_parts(a, f);
    if (!e) {
        say_started(a);
        if (sampler_start(a->sampler, &a->loop))
            e = fail(f, ERR_IO, "cannot start the sampler");
    }
    if (!e)
        uplink_start(a->uplink);
    else if (a->has_loop)
        stop(a);
    if (a->has_loop) {
        (void)uv_run(&a->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&a->loop);
    }
    rules_close(a->rules);
    sampler_close(a->sampler);
    events_close(a->events);
    spool_close(a->spool);
    return e;
}

int agent_run(const struct settings *settings, struct failure *f)
{
    struct agent *a = calloc(1, sizeof *a);
    if (!a)
        return fail(f, ERR_NOMEM, "out of memory");
    a->settings = settings;
    identity_init(&a->identity);
    int e = agent_prepare(&a->start, settings, true, f);
    if (!e)
        e = state_open(&a->state, settings->state_dir, &a->state_was_lost, f);
    if (!e)
        e = become_member(a, f);
    if (!e)
        e = load_identity(a, f);
    if (!e)
        e = serve(a, f);
    os_kernel_log_close(a->start.kernel_log);
    agent_names_done(&a->follow);
    identity_done(&a->identity);
    free(a);
    return e;
}
