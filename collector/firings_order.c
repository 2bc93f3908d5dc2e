/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests for captures out of a firing and its rule. Nothing is kept here. Called by firings.c.
 */
#include "collector/firings_order.h"

#include <string.h>

#include "common/text.h"
#include "common/xxh64.h"
#include "proto/kinds.h"

#define SECOND_US INT64_C(1000000)
#define MINUTE_US (60 * SECOND_US)
#define EXPIRE_US (60 * MINUTE_US)
#define LAST_MAX_US (24 * 60 * MINUTE_US)
#define PROFILE_US (10 * SECOND_US)

int64_t firing_at_us(const trawl_v1_Event *event)
{
    return event->wall_us - event->skew_us;
}

static void fill_common(const trawl_v1_Event *event, const char *host, const char *into,
                        int64_t now_us, trawl_v1_CaptureRequest *r)
{
    int64_t late_us = now_us - firing_at_us(event);
    memset(r, 0, sizeof *r);
    text_copy(r->selector, sizeof r->selector, host);
    text_copy(r->into, sizeof r->into, into);
    text_copy(r->note, sizeof r->note, event->text);
    text_clean(r->note); /* it may have been cut within a character */
    r->pause_max_us = KINDS_PAUSE_DEFAULT_US;
    r->max_parallel = 1;
    r->expire_us = EXPIRE_US;
    r->last_us = MINUTE_US; /* before it fired, however late we hear of it */
    if (late_us > 0)
        r->last_us +=
            (uint64_t)(late_us < LAST_MAX_US - MINUTE_US ? late_us : LAST_MAX_US - MINUTE_US);
    r->exception.size = r->request_id.size = sizeof r->exception.bytes;
    memcpy(r->exception.bytes, event->firing.bytes, sizeof r->exception.bytes);
    memcpy(r->request_id.bytes, event->firing.bytes, sizeof r->request_id.bytes);
}

/* What is told of a process that may have ended: another of its name is in its place. */
static bool may_have_ended(const struct rule *rule)
{
    for (uint32_t i = 0; i < rule->term_count; i++)
        if (rule->terms[i].kind == RULE_EXCEPTION || rule->terms[i].kind == RULE_RESTARTED ||
            rule->terms[i].kind == RULE_NOT_RUNNING)
            return true;
    return false;
}

static void choose_process(const trawl_v1_Event *event, const struct rule *rule,
                           trawl_v1_CaptureRequest *r)
{
    if (rule->of[0])
        text_copy(r->process.name, sizeof r->process.name, rule->of);
    else if (event->pid && !(event->process[0] && may_have_ended(rule)))
        r->process.pid = event->pid;
    else
        text_copy(r->process.name, sizeof r->process.name, event->process);
    r->has_process = r->process.pid || r->process.name[0];
}

void firing_request(const trawl_v1_Event *event, const struct rule *rule, const char *into,
                    int64_t now_us, trawl_v1_CaptureRequest *r)
{
    const pb_size_t max = sizeof r->what / sizeof r->what[0];
    fill_common(event, event->host, into, now_us, r);
    for (uint32_t i = 0; i < rule->what_count && r->what_count < max; i++) {
        text_copy(r->what[r->what_count++], sizeof r->what[0], rule->what[i]);
        if (!strcmp(rule->what[i], "profile") || !strcmp(rule->what[i], "throws"))
            r->for_us = PROFILE_US;
    }
    choose_process(event, rule, r);
}

void firing_peer_request(const trawl_v1_Event *event, const struct host *peer, const char *into,
                         int64_t now_us, trawl_v1_CaptureRequest *r)
{
    static const char *const kinds[] = {"counters", "events", "logs"};
    uint64_t own = xxh64(span_str(peer->record.name), 0);
    fill_common(event, peer->record.name, into, now_us, r);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        text_copy(r->what[r->what_count++], sizeof r->what[0], kinds[i]);
    for (size_t i = 0; i < sizeof own; i++) /* the same for this peer however often it is made */
        r->request_id.bytes[i] ^= (uint8_t)(own >> (8 * i));
    memcpy(r->exception.bytes, r->request_id.bytes, sizeof r->exception.bytes);
}

/* ---- peers ---- */

static const char *label_of(const struct host *host, const char *key)
{
    for (pb_size_t i = 0; i < host->record.labels_count; i++)
        if (!strcmp(host->record.labels[i].key, key))
            return host->record.labels[i].value;
    return NULL;
}

struct looking {
    const struct host *host;
    const struct rule *rule;
    struct host **out;
    size_t count;
};

static int look_at(void *context, struct host *peer)
{
    struct looking *l = context;
    if (peer == l->host || peer->revoked || !peer->session)
        return 0;
    for (uint32_t i = 0; i < l->rule->peer_count; i++) {
        const char *mine = label_of(l->host, l->rule->peers[i]);
        const char *its = label_of(peer, l->rule->peers[i]);
        if (!mine || !its || strcmp(mine, its) != 0)
            return 0;
    }
    l->out[l->count++] = peer;
    return l->count == FIRING_PEERS_MAX;
}

size_t firing_peers(struct roster *roster, const struct host *host, const struct rule *rule,
                    struct host *out[FIRING_PEERS_MAX])
{
    struct looking l = {host, rule, out, 0};
    if (rule->peer_count)
        roster_each(roster, look_at, &l);
    return l.count;
}
