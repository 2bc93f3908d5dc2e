/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening, ticking and closing of hosts in the order in which agent/agent.c does it. Invariant: a
 * host's parts are those of one agent, so 10,000 hosts share nothing but the loop.
 */
#include "host.h"

#include <stdlib.h>
#include <string.h>

#include "agent/capture_private.h"
#include "common/port.h"
#include "common/text.h"

#define UPLOAD_BYTES_PER_S (UINT64_C(64) << 20)
#define SPACE_BYTES (UINT64_C(64) << 20)

void host_welcomed(struct host *host)
{
    host->all->welcome += !host->is_welcome;
    host->is_welcome = true;
}

void host_received(struct host *host)
{
    uint64_t now_us = port_mono_us();
    host->received++;
    host->all->last_receipt_us = now_us;
    figures_add(&host->all->delivery, now_us - host->all->asked_us);
}

void host_ran(struct host *host, uint64_t order)
{
    host->runs++;
    host->twice += order <= host->last_run;
    host->last_run = order;
}

static void on_changed(void *context)
{
    struct host *host = context;
    if (host->uplink)
        uplink_kick(host->uplink);
}

static void make_state(struct host *host)
{
    struct failure f = {0};
    if (text_format(host->state.directory, sizeof host->state.directory, "%s/%s",
                    host->all->farm->state, host->name))
        farm_die("path too long: '%s'", host->all->farm->state);
    port_random(host->state.id, sizeof host->state.id);
    if (port_make_dirs(host->state.directory, &f))
        farm_die("%s", f.text);
}

static void open_one(struct hosts *hosts, unsigned number)
{
    struct host *host = &hosts->list[number];
    uv_loop_t *loop = hosts->farm->loop;
    struct failure f = {0};
    host->all = hosts;
    host->number = number;
    fleet_host_name(number, host->name);
    fleet_identity(hosts->farm, number, &host->identity);
    make_state(host);
    host->spool = stand_in_spool(host);
    uv_timer_init(loop, &host->broker_timer);
    host->broker_timer.data = host;
    if (events_open(&host->events, host->spool, clock_system(), NULL, on_changed, host))
        farm_die("out of memory");
    struct capture_settings capture = {.loop = loop,
                                       .clock = clock_system(),
                                       .state = &host->state,
                                       .spool = host->spool,
                                       .broker = (struct broker_client *)(void *)host,
                                       .events = host->events,
                                       .policy = &hosts->policy,
                                       .space_bytes = SPACE_BYTES,
                                       .changed = on_changed,
                                       .context = host};
    if (capture_open(&host->capture, &capture, &f))
        farm_die("%s", f.text);
    struct uplink_settings uplink = {.loop = loop,
                                     .clock = clock_system(),
                                     .state = &host->state,
                                     .identity = &host->identity,
                                     .spool = host->spool,
                                     .capture = host->capture,
                                     .events = host->events,
                                     .profile = &hosts->profile,
                                     .epoch = number + 1,
                                     .upload_bytes_per_s = UPLOAD_BYTES_PER_S};
    if (uplink_open(&host->uplink, &uplink, &f))
        farm_die("%s", f.text);
}

static void add_fact(struct uplink_profile *profile, const char *key, const char *value)
{
    trawl_v1_Fact *fact = &profile->facts[profile->fact_count++];
    text_copy(fact->key, sizeof fact->key, key);
    text_copy(fact->value, sizeof fact->value, value);
}

static void add_cap(struct uplink_profile *profile, const char *name)
{
    trawl_v1_Cap *cap = &profile->caps[profile->cap_count++];
    text_copy(cap->name, sizeof cap->name, name);
    cap->available = true;
}

/* About as much as a real agent says. */
static void make_profile(struct uplink_profile *profile)
{
    static const char *const facts[][2] = {
        {"os", "linux"},           {"kernel", "6.1.0-18-amd64"},
        {"arch", "x86_64"},        {"cores", "16"},
        {"memory", "67108864000"}, {"distribution", "debian-12"},
        {"hypervisor", "kvm"},     {"boot-id", "4be9f3a2-11d4-4b40-9a9f-6e0e5b7f4c11"}};
    static const char *const caps[] = {"triage",  "stacks", "stacks0", "mini",     "core", "net",
                                       "profile", "logs",   "events",  "counters", "crash"};
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++)
        add_fact(profile, facts[i][0], facts[i][1]);
    for (size_t i = 0; i < sizeof caps / sizeof caps[0]; i++)
        add_cap(profile, caps[i]);
}

void hosts_open(struct hosts *hosts, struct farm *farm)
{
    hosts->farm = farm;
    hosts->count = farm->options.hosts;
    hosts->list = calloc(hosts->count, sizeof hosts->list[0]);
    if (!hosts->list)
        farm_die("out of memory");
    make_profile(&hosts->profile);
    stand_in_make_block();
    policy_defaults(&hosts->policy);
    hosts->policy.captures_per_hour = POLICY_HOUR_MAX;
    for (unsigned i = 0; i < hosts->count; i++)
        open_one(hosts, i);
}

void hosts_start(struct hosts *hosts)
{
    for (unsigned i = 0; i < hosts->count; i++)
        uplink_start(hosts->list[i].uplink);
}

void hosts_tick(struct hosts *hosts)
{
    for (unsigned i = 0; i < hosts->count; i++) {
        capture_tick(hosts->list[i].capture);
        uplink_tick(hosts->list[i].uplink);
    }
}

void hosts_push_blocks(struct hosts *hosts)
{
    int64_t wall_us = port_wall_us();
    for (unsigned i = 0; i < hosts->count; i++) {
        stand_in_push_block(hosts->list[i].spool, wall_us);
        uplink_kick(hosts->list[i].uplink);
    }
}

unsigned hosts_orders_left(const struct hosts *hosts)
{
    unsigned left = 0;
    for (unsigned i = 0; i < hosts->count; i++)
        LIST_EACH (at, &hosts->list[i].capture->orders)
            left++;
    return left;
}

/* ---- closing ---- */

static void on_capture_closed(void *context)
{
    struct host *host = context;
    host->capture = NULL;
    host->all->closed++;
}

static void on_uplink_closed(void *context)
{
    struct host *host = context;
    host->uplink = NULL;
    uv_close((uv_handle_t *)&host->broker_timer, NULL);
    capture_close(host->capture, on_capture_closed, host);
}

static bool all_closed(void *context)
{
    struct hosts *hosts = context;
    return hosts->closed == hosts->count;
}

void hosts_close(struct hosts *hosts)
{
    for (unsigned i = 0; i < hosts->count; i++)
        uplink_close(hosts->list[i].uplink, on_uplink_closed, &hosts->list[i]);
    if (!farm_wait(hosts->farm, all_closed, hosts, 120))
        farm_wrong(hosts->farm, "%u hosts did not end", hosts->count - hosts->closed);
    for (unsigned i = 0; i < hosts->count; i++) {
        events_close(hosts->list[i].events);
        stand_in_spool_close(hosts->list[i].spool);
        identity_done(&hosts->list[i].identity);
    }
    free(hosts->list);
    figures_done(&hosts->delivery);
}
