/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes an order is about: those its selector names, or, when it names none, those this
 * agent was told to follow, or else a few of the busiest. Invariant: every process comes from the
 * broker, with its start time, and was allowed by the policy. Called by capture_run.c.
 */
#include "agent/capture_private.h"

#include <string.h>

#include "common/text.h"

bool choose_has_selector(const trawl_v1_Order *order)
{
    const trawl_v1_ProcessSelector *s = &order->process;
    return order->has_process &&
           (s->name[0] || s->unit[0] || s->pid || s->port || s->container[0] || s->command[0]);
}

static void name_selector(const trawl_v1_ProcessSelector *s, char *out, size_t size_bytes)
{
    if (s->name[0])
        text_format(out, size_bytes, "name '%s'", s->name);
    else if (s->pid)
        text_format(out, size_bytes, "pid %u", (unsigned)s->pid);
    else if (s->unit[0])
        text_format(out, size_bytes, "unit '%s'", s->unit);
    else if (s->container[0])
        text_format(out, size_bytes, "container '%s'", s->container);
    else if (s->command[0])
        text_format(out, size_bytes, "command line '%s'", s->command);
    else
        text_format(out, size_bytes, "port %u", (unsigned)s->port);
}

static uint64_t process_limit(const struct capture *c)
{
    const struct order *o = c->run.order;
    uint64_t limit = o->order.max_processes ? o->order.max_processes : BROKER_PROCESSES_MAX;
    if (limit > c->settings.policy->max_processes)
        limit = c->settings.policy->max_processes;
    return limit < BROKER_PROCESSES_MAX ? limit : BROKER_PROCESSES_MAX;
}

static bool is_chosen(const struct run *r, const struct os_process *process)
{
    for (uint32_t i = 0; i < r->process_count; i++)
        if (r->processes[i].pid == process->pid)
            return true;
    return false;
}

static void keep_allowed(struct capture *c, const struct broker_found *found)
{
    struct run *r = &c->run;
    struct order *o = r->order;
    uint32_t before = r->process_count;
    for (uint32_t i = 0; i < found->count; i++) {
        struct failure f = {0};
        if (policy_allows_process(c->settings.policy, found->list[i].name, &f)) {
            o->refused++;
            capture_note_reason(o, "%s", f.text);
        } else if (r->process_count < process_limit(c) && !is_chosen(r, &found->list[i])) {
            r->processes[r->process_count++] = found->list[i];
        }
    }
    if (choose_has_selector(&o->order) && found->matched > r->process_count - before &&
        o->refused == 0)
        capture_note_reason(o, "%u processes match, %u were captured", (unsigned)found->matched,
                            (unsigned)(r->process_count - before));
}

static void ask(struct capture *c, const struct broker_selector *selector);

/* The next of what this agent follows; false when all were asked for. */
static bool ask_followed(struct capture *c)
{
    struct run *r = &c->run;
    const char *const *names = c->settings.followed;
    struct broker_selector selector = {0};
    uint32_t next = r->followed++;
    if (names && names[0]) {
        if (!names[next])
            return false;
        text_copy(selector.name, sizeof selector.name, names[next]);
    } else {
        if (!next && c->settings.sampler)
            r->busiest_count =
                sampler_processes(c->settings.sampler, r->busiest, CHOOSE_BUSIEST_MAX);
        if (next >= r->busiest_count)
            return false;
        selector.pid = r->busiest[next];
    }
    ask(c, &selector);
    return true;
}

/* A pid that was given to another process since. */
static bool is_another(const trawl_v1_Order *order, const struct broker_found *found)
{
    const trawl_v1_ProcessSelector *s = &order->process;
    return s->pid && s->start_ticks && found->count > 0 &&
           found->list[0].start_ticks != s->start_ticks;
}

/* Of an exception whose process has ended there may be evidence all the same. */
static void note_ended(struct capture *c, const struct broker_found *found)
{
    struct order *o = c->run.order;
    if (saved_is_asked(&o->order)) {
        c->run.is_gone = true;
        run_plan(c);
        return;
    }
    o->gone++;
    capture_note_reason(o, "process %u has ended: its pid is that of '%s' now",
                        (unsigned)o->order.process.pid, found->list[0].name);
    run_finish(c);
}

static void on_selected(struct capture *c, const struct broker_reply *reply,
                        const struct failure *f)
{
    struct order *o = c->run.order;
    char selector[160];
    name_selector(&o->order.process, selector, sizeof selector);
    if (!reply || f->code) {
        o->failed++;
        capture_note_reason(o, "%s", f->text);
        run_plan(c);
    } else if (is_another(&o->order, &reply->body.found) ||
               (reply->body.found.matched == 0 && saved_is_asked(&o->order))) {
        note_ended(c, &reply->body.found);
    } else if (reply->body.found.matched == 0) {
        o->gone++;
        capture_note_reason(o, "no process matches %s", selector);
        run_finish(c);
    } else {
        keep_allowed(c, &reply->body.found);
        run_plan(c);
    }
}

static void on_resolved(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct capture *c = context;
    if (c->is_closing || !c->run.order)
        return;
    if (c->run.order->is_cancelled) {
        run_finish(c);
    } else if (choose_has_selector(&c->run.order->order)) {
        on_selected(c, reply, f);
    } else {
        if (reply && !f->code)
            keep_allowed(c, &reply->body.found);
        if (!ask_followed(c))
            run_plan(c);
    }
}

static void ask(struct capture *c, const struct broker_selector *selector)
{
    struct broker_request request = {0};
    struct failure f = {0};
    request.body.resolve = *selector;
    if (broker_client_send(c->settings.broker, BROKER_RESOLVE, &request, -1, on_resolved, c, &f))
        on_resolved(c, NULL, &f);
}

void choose_processes(struct capture *c)
{
    const trawl_v1_ProcessSelector *s = &c->run.order->order.process;
    struct broker_selector selector = {0};
    c->run.step = RUN_RESOLVE;
    if (!choose_has_selector(&c->run.order->order)) {
        if (!ask_followed(c))
            run_plan(c);
        return;
    }
    text_copy(selector.name, sizeof selector.name, s->name);
    text_copy(selector.unit, sizeof selector.unit, s->unit);
    text_copy(selector.container, sizeof selector.container, s->container);
    text_copy(selector.command, sizeof selector.command, s->command);
    selector.pid = s->pid;
    selector.port = s->port;
    ask(c, &selector);
}
