/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A firing's way: kept, captured at its host, captured at peers, forgotten. Invariant: its row goes
 * only when all that is ordered for it is stored, or when it is certain that nothing will be. See
 * firings.h.
 */
#include "collector/firings.h"

#include <stdlib.h>
#include <string.h>

#include "collector/collector.h"
#include "collector/firings_order.h"
#include "collector/keys.h"
#include "collector/rules.h"
#include "common/list.h"
#include "common/log.h"
#include "common/text.h"

#define SECOND_US INT64_C(1000000)
#define MINUTE_US (60 * SECOND_US)
#define HOUR_US (60 * MINUTE_US)
#define JOIN_US (10 * MINUTE_US) /* firings of one rule within it share an incident */
#define TOO_LATE_US (24 * HOUR_US)

struct firing {
    struct list link; /* firings->list */
    struct firings *firings;
    trawl_v1_Event event;
    char incident[24];
    bool stored;     /* its row */
    bool busy;       /* commits are on their way */
    uint32_t orders; /* of them, captures */
    store_done_fn kept;
    void *context;
};

struct firings {
    struct collector *collector;
    struct list list;
    size_t count;
};

static int64_t now_us(const struct firings *firings)
{
    struct clock *clock = firings->collector->clock;
    return clock->wall_us(clock);
}

static void firing_free(struct firing *firing)
{
    list_remove(&firing->link);
    firing->firings->count--;
    free(firing);
}

static struct firing *firing_new(struct firings *firings)
{
    struct firing *firing = calloc(1, sizeof *firing);
    if (!firing)
        return NULL;
    firing->firings = firings;
    list_push(&firings->list, &firing->link);
    firings->count++;
    return firing;
}

static struct firing *find(struct firings *firings, const uint8_t id[16])
{
    LIST_EACH (at, &firings->list) {
        struct firing *firing = LIST_ENTRY(at, struct firing, link);
        if (!memcmp(firing->event.firing.bytes, id, 16))
            return firing;
    }
    return NULL;
}

/* ---- opening ---- */

static int load(void *context, struct span key, struct span value)
{
    struct firings *firings = context;
    struct failure ignored;
    if (!key.size_bytes || key.data[0] != 'f')
        return 0;
    struct firing *firing = firing_new(firings);
    if (!firing)
        return ERR_NOMEM;
    firing->stored = true;
    if (codec_get_event(&firing->event, value, &ignored) || firing->event.firing.size != 16)
        firing_free(firing);
    return firings->count == FIRINGS_MAX;
}

int firings_open(struct firings **out, struct collector *c, struct failure *f)
{
    struct firings *firings = calloc(1, sizeof *firings);
    if (!firings)
        return fail(f, ERR_NOMEM, "out of memory");
    firings->collector = c;
    list_init(&firings->list);
    *out = firings;
    int e = kv_scan_all(c->store, KEYS_RULES_PART, span_str("f"), span_str("f"), load, firings);
    return e < 0 ? fail(f, e, "rules that fired cannot be read: %s", err_text(e)) : 0;
}

void firings_close(struct firings *firings)
{
    if (!firings)
        return;
    LIST_EACH (at, &firings->list)
        firing_free(LIST_ENTRY(at, struct firing, link));
    free(firings);
}

/* ---- over ---- */

static void on_forgotten(void *context, const struct failure *why)
{
    struct firing *firing = context;
    firing->busy = false;
    if (!why->code)
        firing_free(firing);
}

static void forget(struct firing *firing)
{
    struct key key = keys_firing(firing->event.firing.bytes);
    struct store_op op = {STORE_DELETE, key_span(&key), {NULL, 0}};
    struct store *store = firing->firings->collector->store;
    firing->busy = !kv_commit(store, KEYS_RULES_PART, &op, 1, on_forgotten, firing);
}

static void give_up(struct firing *firing, const char *why)
{
    log_warn("rule '%s' fired on '%s', and nothing is captured: %s", firing->event.rule,
             firing->event.host, why);
    forget(firing);
}

/* ---- ordering ---- */

/* The newest one that this rule opened, if that was not long ago. */
struct joining {
    const char *rule;
    int64_t since_us;
    struct incident *found;
};

static int look_at(void *context, struct incident *incident)
{
    struct joining *joining = context;
    if (incident->record.created_us < joining->since_us)
        return 1;
    if (!strcmp(incident->record.rule, joining->rule))
        joining->found = incident;
    return joining->found != NULL;
}

static const char *incident_to_join(struct firing *firing)
{
    struct joining joining = {firing->event.rule, now_us(firing->firings) - JOIN_US, NULL};
    incident_each(firing->firings->collector->incidents, look_at, &joining);
    return joining.found ? joining.found->record.id : "";
}

/* A host cannot have captures ordered at it without end, whatever its agent says. */
static bool may_order(struct host *host, int64_t at_us)
{
    if (at_us - host->rules_hour_us >= HOUR_US || at_us < host->rules_hour_us) {
        host->rules_hour_us = at_us;
        host->rules_ordered = 0;
    }
    return host->rules_ordered < FIRINGS_HOST_MOST;
}

static void on_captured(void *context, const struct failure *why)
{
    struct firing *firing = context;
    firing->orders--;
    if (why->code) {
        firing->incident[0] = '\0';
        log_warn("what rule '%s' asks for on '%s' could not be ordered now: %s", firing->event.rule,
                 firing->event.host, why->text);
    }
    if (firing->orders)
        return;
    firing->busy = false;
    if (firing->incident[0])
        forget(firing);
}

static int order(struct firing *firing, struct host *host, const trawl_v1_CaptureRequest *request,
                 struct incident **incident, struct failure *f)
{
    const trawl_v1_Event *event = &firing->event;
    char text[96];
    text_format(text, sizeof text, "rule %.48s fired on %.32s", event->rule, event->host);
    struct incident_cause cause = {text, "", firing_at_us(event) - MINUTE_US, event->rule};
    int e = incident_capture_for(firing->firings->collector->incidents, request, host, &cause,
                                 incident, on_captured, firing, f);
    firing->orders += !e;
    firing->busy |= !e;
    return e;
}

/*
 * What the peers saw meanwhile, under the same incident. A peer at which it cannot be ordered is
 * left out: the firing's own evidence does not wait for it.
 */
static void order_at_peers(struct firing *firing, const struct host *host, const struct rule *rule,
                           trawl_v1_CaptureRequest *request)
{
    struct collector *c = firing->firings->collector;
    struct host *peers[FIRING_PEERS_MAX];
    size_t count = firing_peers(c->roster, host, rule, peers);
    for (size_t i = 0; i < count; i++) {
        struct incident *incident;
        struct failure f;
        firing_peer_request(&firing->event, peers[i], firing->incident, now_us(firing->firings),
                            request);
        if (!incident_by_request(c->incidents, request->request_id.bytes) &&
            order(firing, peers[i], request, &incident, &f))
            log_warn("peer '%s' of rule '%s': %s", peers[i]->record.name, rule->name, f.text);
    }
}

static void order_all(struct firing *firing, struct host *host, const struct rule *rule)
{
    struct collector *c = firing->firings->collector;
    trawl_v1_CaptureRequest *request = malloc(sizeof *request);
    struct incident *incident = incident_by_request(c->incidents, firing->event.firing.bytes);
    struct failure f;
    if (!request)
        return;
    if (!incident) { /* else ordered, and then the collector stopped */
        firing_request(&firing->event, rule, incident_to_join(firing), now_us(firing->firings),
                       request);
        if (order(firing, host, request, &incident, &f)) {
            log_warn("what rule '%s' asks for on '%s' is not ordered now: %s", rule->name,
                     host->record.name, f.text);
            free(request);
            return;
        }
        host->rules_ordered++;
        log_info("%s: rule '%s' fired on '%s'", incident->record.id, rule->name, host->record.name);
    }
    text_copy(firing->incident, sizeof firing->incident, incident->record.id);
    order_at_peers(firing, host, rule, request);
    free(request);
    if (!firing->busy)
        forget(firing);
}

static void act(struct firing *firing)
{
    struct collector *c = firing->firings->collector;
    if (firing->busy || !firing->stored)
        return;
    struct host *host = roster_find(c->roster, firing->event.host);
    if (firing->incident[0]) {
        forget(firing); /* its row could not be removed before */
        return;
    }
    const struct rule *rule = host ? rules_for(c->rules, host, firing->event.rule) : NULL;
    if (!host || host->revoked)
        give_up(firing, "the host is not of this fleet any more");
    else if (!rule)
        give_up(firing, "there is no such rule for this host any more");
    else if (now_us(firing->firings) - firing_at_us(&firing->event) > TOO_LATE_US)
        give_up(firing, "it is more than a day ago");
    else if (!may_order(host, now_us(firing->firings)))
        give_up(firing, "rules had it captured 64 times in this hour already");
    else
        order_all(firing, host, rule);
}

/* ---- what comes ---- */

static void on_kept(void *context, const struct failure *why)
{
    struct firing *firing = context;
    store_done_fn kept = firing->kept;
    firing->busy = false;
    firing->stored = !why->code;
    kept(firing->context, why);
    if (why->code)
        firing_free(firing);
    else
        act(firing);
}

/* It is on its way already; or nothing is done about it. */
static void kept_before(store_done_fn done, void *context)
{
    static const struct failure none = {0};
    done(context, &none);
}

int firings_keep(struct firings *firings, const trawl_v1_Event *event, store_done_fn done,
                 void *context)
{
    if (find(firings, event->firing.bytes)) {
        kept_before(done, context);
        return 0;
    }
    if (firings->count >= FIRINGS_MAX) { /* refused, it would only come again */
        log_warn("rule '%s' fired on '%s', and nothing is captured: %d others are on their way",
                 event->rule, event->host, FIRINGS_MAX);
        kept_before(done, context);
        return 0;
    }
    struct firing *firing = firing_new(firings);
    if (!firing)
        return ERR_NOMEM;
    struct key key = keys_firing(event->firing.bytes);
    struct buf value;
    buf_init(&value, STORE_VALUE_MAX);
    firing->event = *event;
    firing->kept = done;
    firing->context = context;
    int e = codec_put_event(&value, event);
    struct store_op op = {STORE_PUT, key_span(&key), buf_span(&value)};
    if (!e)
        e = kv_commit(firings->collector->store, KEYS_RULES_PART, &op, 1, on_kept, firing);
    buf_done(&value);
    firing->busy = !e;
    if (e)
        firing_free(firing);
    return e;
}

/* An action may end others: each is looked at once, the rest in the next second. */
void firings_tick(struct firings *firings)
{
    for (size_t left = firings->count; left && !list_empty(&firings->list); left--) {
        struct list *first = list_first(&firings->list);
        list_remove(first);
        list_push(&firings->list, first);
        act(LIST_ENTRY(first, struct firing, link));
    }
}
