/* SPDX-License-Identifier: Apache-2.0 */
/* When probes ask, and what is told of their answers. See watch_probe.h. */
#include "agent/watch_probe.h"

#include <stdlib.h>
#include <string.h>

#include "agent/probe_private.h"
#include "common/log.h"
#include "common/text.h"

#define LOOK_FIRST_MS 4 /* an accepting process is seen soon; then ever later */
#define LOOK_LAST_MS 256
#define LOOK_HUNG_MS 500
#define RENEW_US UINT64_C(60000000)

static struct watch_probe *current; /* whom answers of the broker are for */

uint64_t probe_now(const struct probe *p)
{
    return p->owner->context.clock->mono_us(p->owner->context.clock);
}

/* ---- telling ---- */

static void tell_hang(struct probe *p)
{
    struct os_exception e = {.source = OS_HANG, .uid = UINT32_MAX};
    char lasts[32];
    text_put_duration((int64_t)(probe_now(p) - p->state.first_mono_us), lasts, sizeof lasts);
    (void)text_copy(e.type, sizeof e.type, p->type);
    (void)text_format(e.message, sizeof e.message, "%s does not answer for %s: %s", p->rule.name,
                      lasts, p->why);
    (void)text_format(e.template_text, sizeof e.template_text, "%s does not answer", p->rule.name);
    if (p->process.pid) {
        e.pid = p->process.pid;
        e.start_ticks = p->process.start_ticks;
        e.uid = p->process.uid;
        (void)text_copy(e.process, sizeof e.process, p->process.name);
    } else {
        (void)text_copy(e.missing, sizeof e.missing,
                        "whose it is: nobody was seen to listen there");
    }
    (void)text_copy(e.unit, sizeof e.unit, p->rule.unit);
    (void)text_copy(e.tags[0].key, sizeof e.tags[0].key, "probe");
    (void)text_copy(e.tags[0].value, sizeof e.tags[0].value, p->rule.name);
    (void)text_copy(e.tags[1].key, sizeof e.tags[1].key, "lasts");
    (void)text_copy(e.tags[1].value, sizeof e.tags[1].value, lasts);
    e.tag_count = 2;
    watcher_report(p->owner->context.watcher, &e);
}

static void tell_recovered(struct probe *p)
{
    char lasted[32];
    text_put_duration((int64_t)(probe_now(p) - p->state.first_mono_us), lasted, sizeof lasted);
    events_add(p->owner->context.events, trawl_v1_EventType_PROCESS_STARTED, p->process.name,
               p->process.pid, "%s answers again after %s", p->rule.name, lasted);
}

/* ---- whose port it is ---- */

static int take_first(void *context, const struct os_process *process)
{
    struct os_process *out = context;
    if (!out->pid)
        *out = *process;
    return 0;
}

static void know_owner(struct probe *p, const struct os_process *process)
{
    if (process)
        p->process = *process;
    p->wants_owner = false;
    if (p->tells_after_owner)
        tell_hang(p);
    p->tells_after_owner = false;
}

static void on_owner(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct probe *p = context;
    if (!current || p < current->list || p >= current->list + PROBES_MAX || current->is_closed)
        return;
    bool is_found = reply && !f->code && reply->body.found.count > 0;
    know_owner(p, is_found ? &reply->body.found.list[0] : NULL);
}

static void ask_owner(struct probe *p)
{
    struct broker_request request = {0};
    struct broker_client *broker = p->owner->context.broker;
    request.body.resolve.port = p->rule.port;
    if (broker && broker_client_is_alive(broker) &&
        broker_client_send(broker, BROKER_RESOLVE, &request, -1, on_owner, p, NULL) == 0)
        return;
    struct os_process_filter filter = {.port = p->rule.port};
    struct os_process found = {0};
    (void)os_process_each("", &filter, take_first, &found, NULL);
    know_owner(p, found.pid ? &found : NULL);
}

/* ---- when ---- */

static void on_timer(uv_timer_t *timer);

static void again_in(struct probe *p, uint64_t us)
{
    (void)uv_timer_start(&p->timer, on_timer, us / 1000 + 1, 0);
}

static void hung(struct probe *p)
{
    log_warn("%s does not answer: %s", p->rule.name, p->why);
    if (p->rule.kind == PROBE_WATCHDOG) {
        tell_hang(p);
        return;
    }
    p->tells_after_owner = true;
    ask_owner(p);
}

static void note(struct probe *p, const char *type, const char *why)
{
    if (type) {
        (void)text_copy(p->type, sizeof p->type, type);
        (void)text_copy(p->why, sizeof p->why, why);
    }
    switch (probe_feed(&p->state, &p->rule, type == NULL, p->began_us)) {
    case PROBE_HUNG:
        hung(p);
        break;
    case PROBE_RECOVERED:
        tell_recovered(p);
        p->process.pid = 0;
        break;
    default:
        break;
    }
    if (!type && p->is_local && !p->process.pid && !p->wants_owner) {
        p->wants_owner = true;
        ask_owner(p); /* while it answers: later nobody may listen any more */
    }
}

void probe_ended(struct probe *p, const char *type, const char *why)
{
    uint64_t taken_us = probe_now(p) - p->began_us, every_us = (uint64_t)p->rule.every_us;
    if (p->owner->is_closed)
        return;
    if (type == NULL || !p->was_told_late)
        note(p, type, why);
    p->was_told_late = false;
    again_in(p, taken_us < every_us ? every_us - taken_us : 1000);
}

/* The time is over: it has failed; the last of the failures in a row stays and is waited for. */
static void on_late(struct probe *p)
{
    char type[32];
    const char *why = connection_waits_for(p);
    (void)text_format(type, sizeof type, "%s no-answer",
                      p->rule.kind == PROBE_HTTP ? "http" : "tcp");
    note(p, type, why);
    if (p->state.is_hung && p->attempt) {
        p->was_told_late = true;
        again_in(p, LOOK_HUNG_MS * 1000);
        return;
    }
    connection_drop(p);
    again_in(p, (uint64_t)(p->rule.every_us > p->rule.timeout_us
                               ? p->rule.every_us - p->rule.timeout_us
                               : 1000));
}

static void look_again(struct probe *p)
{
    uint64_t taken_us = probe_now(p) - p->began_us;
    bool is_renewed = p->was_told_late && taken_us > RENEW_US;
    connection_look(p);
    if (!p->attempt)
        return; /* it has ended, and the timer runs for the next */
    if (is_renewed) {
        connection_drop(p);
        p->was_told_late = false;
        again_in(p, 1000);
    } else if (p->was_told_late) {
        again_in(p, LOOK_HUNG_MS * 1000);
    } else if (taken_us >= (uint64_t)p->rule.timeout_us) {
        on_late(p);
    } else {
        uint64_t next_us = taken_us < LOOK_FIRST_MS * 1000 ? LOOK_FIRST_MS * 1000 : taken_us;
        uint64_t left_us = (uint64_t)p->rule.timeout_us - taken_us;
        if (next_us > LOOK_LAST_MS * 1000)
            next_us = LOOK_LAST_MS * 1000;
        again_in(p, next_us < left_us ? next_us : left_us);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct probe *p = timer->data;
    if (p->attempt && p->rule.kind == PROBE_WATCHDOG) { /* no answer of systemd: not the unit's */
        watchdog_drop(p);
        again_in(p, (uint64_t)p->rule.every_us);
        return;
    }
    if (p->attempt) {
        look_again(p);
        return;
    }
    p->began_us = probe_now(p);
    if (p->rule.kind == PROBE_WATCHDOG) {
        again_in(p, (uint64_t)p->rule.timeout_us);
        watchdog_begin(p);
        return;
    }
    again_in(p, LOOK_FIRST_MS * 1000);
    connection_begin(p);
}

/* ---- the source ---- */

static int parse_rules(struct watch_probe *w, const char *list, struct failure *f)
{
    char text[256];
    struct span rest = span_str(list), one;
    while (text_take_until(&rest, ',', &one) == 0) {
        if (one.size_bytes == 0)
            continue;
        if (w->count == PROBES_MAX)
            return fail(f, ERR_LIMIT, "more than %d probes: the agent would cost too much",
                        PROBES_MAX);
        if (text_copy_span(text, sizeof text, one))
            return fail(f, ERR_INVALID, "probe '%.60s...' is too long", text);
        int e = probe_rule_parse(text, &w->list[w->count].rule, f);
        if (e)
            return e;
        w->count++;
    }
    return 0;
}

int watch_probe_open(void **out, const struct source_context *context, struct failure *f)
{
    if (!context->settings || !context->settings->probe[0])
        return 0;
    struct watch_probe *w = calloc(1, sizeof *w);
    if (!w)
        return fail(f, ERR_NOMEM, "out of memory");
    w->context = *context;
    int e = parse_rules(w, context->settings->probe, f);
    if (e || w->count == 0) {
        free(w);
        return e;
    }
    for (size_t i = 0; i < w->count; i++) {
        struct probe *p = &w->list[i];
        p->owner = w;
        p->timer.data = p;
        (void)uv_timer_init(context->loop, &p->timer);
        w->handles++;
        again_in(p, (uint64_t)p->rule.every_us * i / w->count); /* not all at the same instant */
    }
    current = w;
    *out = w;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct probe *p = handle->data;
    struct watch_probe *w = p->owner;
    if (--w->handles == 0)
        free(w);
}

void watch_probe_close(void *source)
{
    struct watch_probe *w = source;
    if (!w)
        return;
    w->is_closed = true;
    if (current == w)
        current = NULL;
    for (size_t i = 0; i < w->count; i++) {
        struct probe *p = &w->list[i];
        if (p->rule.kind == PROBE_WATCHDOG)
            watchdog_drop(p);
        else
            connection_drop(p);
        uv_close((uv_handle_t *)&p->timer, on_closed);
    }
}
