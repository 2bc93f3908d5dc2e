/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders in, verdicts and artifacts out. The queue is the list of orders by number; at most one
 * runs. Called by the uplink session and the agent; the running itself is in capture_run.c.
 */
#include "agent/capture_private.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/text.h"

bool capture_is_final(trawl_v1_State state)
{
    return state >= trawl_v1_State_DONE;
}

void capture_changed(struct capture *c)
{
    if (c->settings.changed && !c->is_closing)
        c->settings.changed(c->settings.context);
}

/* ---- verdicts ---- */

void capture_note_reason(struct order *o, const char *format, ...)
{
    char text[FAILURE_TEXT_SIZE + 64];
    struct failure f;
    va_list args;
    va_start(args, format);
    fail_va(&f, 0, format, args);
    va_end(args);
    text_format(text, sizeof text, "%s%s", o->reasons.size_bytes ? "; " : "", f.text);
    if (strstr(buf_str(&o->reasons), f.text))
        return;
    if (buf_append_str(&o->reasons, text))
        o->reasons_left_out++;
}

static uint32_t count_sealed(const struct order *o)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < o->artifact_count; i++)
        count += o->artifacts[i].fate == ARTIFACT_SEALED;
    return count;
}

static bool all_have_fate(const struct order *o)
{
    for (uint32_t i = 0; i < o->artifact_count; i++)
        if (o->artifacts[i].fate == ARTIFACT_WAITS)
            return false;
    return true;
}

void capture_decide(struct capture *c, struct order *o, trawl_v1_State state, const char *reason)
{
    struct failure f = {0};
    trawl_v1_Verdict *v = &o->verdict;
    v->order = o->order.order;
    text_copy(v->incident, sizeof v->incident, o->order.incident);
    v->no++;
    v->state = state;
    text_copy(v->reason, sizeof v->reason, reason);
    v->artifacts = count_sealed(o);
    v->wall_us = c->settings.clock->wall_us(c->settings.clock);
    if (journal_verdict(o, &f))
        log_error("order %llu: %s", (unsigned long long)v->order, f.text);
    if (capture_is_final(state))
        log_info(
            "capture of %s (order %llu) ended: %s%s%s", v->incident, (unsigned long long)v->order,
            state == trawl_v1_State_DONE ? "done" : "not complete", reason[0] ? ": " : "", reason);
    capture_changed(c);
}

void capture_check_sent(struct capture *c, struct order *o)
{
    if (o->phase != ORDER_SENDING || !all_have_fate(o))
        return;
    o->phase = ORDER_ENDED;
    o->verdict.artifacts = count_sealed(o);
    if (o->verdict.state == trawl_v1_State_DONE && o->verdict.artifacts == o->artifact_count)
        saved_forget(c, o);
    if (o->verdict.artifacts < o->artifact_count && o->verdict.state == trawl_v1_State_DONE)
        o->verdict.state = trawl_v1_State_PARTIAL;
    if (o->verdict.artifacts == 0 && o->artifact_count > 0 &&
        o->verdict.state == trawl_v1_State_PARTIAL)
        o->verdict.state = trawl_v1_State_FAILED;
    capture_changed(c);
}

/* An order that ends without having run. */
static void end_unrun(struct capture *c, struct order *o, trawl_v1_State state, const char *reason)
{
    o->phase = ORDER_SENDING;
    capture_decide(c, o, state, reason);
    capture_check_sent(c, o);
}

/* ---- opening ---- */

int capture_open(struct capture **out, const struct capture_settings *settings, struct failure *f)
{
    struct capture *c = calloc(1, sizeof *c);
    if (!c)
        return fail(f, ERR_NOMEM, "out of memory");
    c->settings = *settings;
    c->run.pages.file = -1;
    list_init(&c->orders);
    c->hour = calloc(1, sizeof *c->hour);
    int e = c->hour ? state_path(settings->state, "captures", c->directory, f) : ERR_NOMEM;
    if (!e)
        e = brake_load(c, f);
    if (!e)
        e = journal_load(c, f);
    if (!e && uv_timer_init(settings->loop, &c->timer))
        e = fail(f, ERR_IO, "cannot make a timer");
    if (e) {
        capture_close(c, NULL, NULL);
        return e;
    }
    c->timer.data = c;
    c->has_timer = true;
    LIST_EACH (at, &c->orders)
        capture_check_sent(c, LIST_ENTRY(at, struct order, link));
    *out = c;
    return 0;
}

static void release(struct capture *c)
{
    void (*closed)(void *context) = c->closed;
    void *context = c->closed_context;
    LIST_EACH (at, &c->orders)
        order_free(LIST_ENTRY(at, struct order, link));
    stream_close(c->run.stream);
    free(c->run.jobs);
    free(c->run.result);
    free(c->run.pipe_buffer);
    free(c->hour);
    free(c);
    if (closed)
        closed(context);
}

static void on_timer_closed(uv_handle_t *handle)
{
    release(handle->data);
}

void capture_close(struct capture *c, void (*closed)(void *context), void *context)
{
    if (!c)
        return;
    c->closed = closed;
    c->closed_context = context;
    c->is_closing = true;
    saved_stop(c);
    if (job_stop_worker(c))
        return; /* its pipe closes first, then capture_close_timer() is called */
    capture_close_timer(c);
}

void capture_close_timer(struct capture *c)
{
    if (c->has_timer)
        uv_close((uv_handle_t *)&c->timer, on_timer_closed);
    else
        release(c);
}

/* ---- orders ---- */

uint64_t capture_last_order(const struct capture *c)
{
    uint64_t last = c->settings.state->last_order;
    if (!list_empty(&c->orders)) {
        const struct order *newest = LIST_ENTRY(c->orders.prev, struct order, link);
        if (newest->order.order > last)
            last = newest->order.order;
    }
    return last;
}

void capture_set_offset(struct capture *c, int64_t offset_us)
{
    c->offset_us = offset_us;
    c->has_offset = true;
}

/* Counted on the monotonic clock from receipt; over a reboot, which resets it, on the wall clock.
 */
bool capture_is_expired(const struct capture *c, const struct order *o)
{
    struct clock *clock = c->settings.clock;
    uint64_t mono_us = clock->mono_us(clock);
    int64_t wall_us = clock->wall_us(clock);
    if (mono_us >= o->received_mono_us)
        return mono_us - o->received_mono_us >= o->order.expires_in_us;
    return wall_us - o->received_wall_us >= (int64_t)o->order.expires_in_us;
}

static uint32_t count_queued(const struct capture *c)
{
    uint32_t count = 0;
    LIST_EACH (at, &c->orders)
        count += LIST_ENTRY(at, struct order, link)->phase == ORDER_QUEUED;
    return count;
}

/* What can be refused before anything was tried. */
static int check_order(struct capture *c, const struct order *o, struct failure *f)
{
    int e = brake_refuse(c, f);
    if (!e)
        e = policy_allows_pause(c->settings.policy, o->order.pause_max_us, o->order.allow_pause, f);
    if (e)
        return e;
    if (o->order.what_count == 0)
        return fail(f, ERR_REFUSED, "the order names nothing to capture");
    int64_t window_us = c->settings.policy->window_max_us;
    if (o->order.last_us > (uint64_t)window_us || o->order.for_us > (uint64_t)window_us)
        return fail(f, ERR_REFUSED, "this host's policy allows windows up to %lld s",
                    (long long)(window_us / 1000000));
    return policy_hour_take(c->hour, c->settings.policy, o->order.order,
                            c->settings.clock->mono_us(c->settings.clock), f);
}

void capture_start_next(struct capture *c)
{
    struct failure f = {0};
    if (c->run.order || c->is_closing)
        return;
    LIST_EACH (at, &c->orders) {
        struct order *o = LIST_ENTRY(at, struct order, link);
        if (o->phase != ORDER_QUEUED)
            continue;
        if (capture_is_expired(c, o)) {
            end_unrun(c, o, trawl_v1_State_EXPIRED, "not started in time");
            continue;
        }
        if (check_order(c, o, &f)) {
            end_unrun(c, o, trawl_v1_State_REFUSED, f.text);
            continue;
        }
        run_start(c, o);
        return;
    }
}

void capture_order(struct capture *c, const trawl_v1_Order *order)
{
    struct failure f = {0};
    if (order->order <= capture_last_order(c))
        return; /* at most once */
    struct order *o = order_new();
    if (!o)
        return; /* it comes again on the next connection */
    o->order = *order;
    o->received_mono_us = c->settings.clock->mono_us(c->settings.clock);
    o->received_wall_us = c->settings.clock->wall_us(c->settings.clock);
    if (journal_accept(c, o, &f)) {
        log_error("cannot accept order %llu: %s", (unsigned long long)order->order, f.text);
        order_free(o);
        return;
    }
    list_push(&c->orders, &o->link);
    if (c->run.order && count_queued(c) <= CAPTURE_QUEUE_MAX)
        capture_decide(c, o, trawl_v1_State_QUEUED, "another capture runs on this host");
    else if (c->run.order)
        end_unrun(c, o, trawl_v1_State_REFUSED, "too many captures wait on this host already");
    capture_start_next(c);
}

static struct order *find_order(const struct capture *c, uint64_t number)
{
    LIST_EACH (at, &c->orders)
        if (LIST_ENTRY(at, struct order, link)->order.order == number)
            return LIST_ENTRY(at, struct order, link);
    return NULL;
}

void capture_cancel_order(struct capture *c, struct order *o, const char *reason)
{
    if (o->phase == ORDER_ENDED || o->is_cancelled)
        return;
    o->is_cancelled = true;
    for (uint32_t i = 0; i < o->artifact_count; i++)
        if (o->artifacts[i].fate == ARTIFACT_WAITS)
            o->artifacts[i].fate = ARTIFACT_LOST;
    bool runs = c->run.order == o;
    end_unrun(c, o, trawl_v1_State_CANCELLED, reason);
    if (runs)
        run_abort(c);
}

void capture_cancel(struct capture *c, const trawl_v1_CancelOrder *cancel)
{
    struct order *o = find_order(c, cancel->order);
    if (o)
        capture_cancel_order(c, o, cancel->reason[0] ? cancel->reason : "cancelled");
}

void capture_tick(struct capture *c)
{
    LIST_EACH (at, &c->orders) {
        struct order *o = LIST_ENTRY(at, struct order, link);
        if (o->phase == ORDER_QUEUED && capture_is_expired(c, o))
            end_unrun(c, o, trawl_v1_State_EXPIRED, "not started in time");
    }
    stream_tick(c);
    capture_start_next(c);
}

/* ---- to the collector ---- */

void capture_resume(struct capture *c)
{
    LIST_EACH (at, &c->orders)
        LIST_ENTRY(at, struct order, link)->sent_no = 0;
}

int capture_peek_verdict(struct capture *c, trawl_v1_Verdict *out)
{
    LIST_EACH (at, &c->orders) {
        const struct order *o = LIST_ENTRY(at, struct order, link);
        bool waits = o->phase == ORDER_SENDING; /* final, but not before its artifacts */
        if (waits || o->verdict.no == 0 || o->verdict.no <= o->sent_no ||
            o->verdict.no <= o->acked_no)
            continue;
        *out = o->verdict;
        return 0;
    }
    return ERR_NOTFOUND;
}

void capture_verdict_sent(struct capture *c, uint64_t order, uint32_t no)
{
    struct order *o = find_order(c, order);
    if (o)
        o->sent_no = no;
}

void capture_verdict_acknowledged(struct capture *c, uint64_t order, uint32_t no)
{
    struct order *o = find_order(c, order);
    if (!o)
        return;
    if (no > o->acked_no)
        o->acked_no = no;
    if (o->phase != ORDER_ENDED || o->acked_no < o->verdict.no || c->run.order == o)
        return;
    journal_remove(c, o);
    order_free(o);
}

/* ---- artifacts ---- */

uint64_t capture_waiting_bytes(const struct capture *c)
{
    uint64_t bytes = 0;
    LIST_EACH (at, &c->orders) {
        const struct order *o = LIST_ENTRY(at, struct order, link);
        for (uint32_t i = 0; i < o->artifact_count; i++)
            bytes += o->artifacts[i].fate == ARTIFACT_WAITS ? o->artifacts[i].size_bytes : 0;
    }
    return bytes;
}

int capture_peek_artifact(struct capture *c, struct capture_artifact *out)
{
    LIST_EACH (at, &c->orders) {
        const struct order *o = LIST_ENTRY(at, struct order, link);
        for (uint32_t i = 0; i < o->artifact_count; i++) {
            if (o->artifacts[i].fate != ARTIFACT_WAITS)
                continue;
            *out = (struct capture_artifact){.order = o->order.order, .no = o->artifacts[i].no};
            text_copy(out->directory, sizeof out->directory, o->directory);
            return 0;
        }
    }
    return ERR_NOTFOUND;
}

static struct order_artifact *find_artifact(const struct capture *c,
                                            const struct capture_artifact *artifact,
                                            struct order **order)
{
    *order = find_order(c, artifact->order);
    for (uint32_t i = 0; *order && i < (*order)->artifact_count; i++)
        if ((*order)->artifacts[i].no == artifact->no)
            return &(*order)->artifacts[i];
    return NULL;
}

bool capture_wants_artifact(const struct capture *c, const struct capture_artifact *artifact)
{
    struct order *o;
    const struct order_artifact *a = find_artifact(c, artifact, &o);
    return a && a->fate == ARTIFACT_WAITS;
}

/* The number belongs to another artifact on the collector: our directory was lost once. */
static int renumber(struct capture *c, struct order *o, struct order_artifact *a, struct failure *f)
{
    uint32_t no = journal_next_number(c, o->order.incident);
    int e = evidence_rename(o->directory, a->no, no, f);
    if (!e)
        a->no = no;
    return e;
}

void capture_artifact_ended(struct capture *c, const struct capture_artifact *artifact,
                            const struct failure *why)
{
    struct order *o;
    struct failure f = {0};
    struct order_artifact *a = find_artifact(c, artifact, &o);
    if (!a || a->fate != ARTIFACT_WAITS)
        return;
    if (why->code == ERR_EXISTS && !renumber(c, o, a, &f)) {
        capture_changed(c);
        return;
    }
    a->fate = why->code ? ARTIFACT_LOST : ARTIFACT_SEALED;
    if (why->code) {
        log_warn("artifact %u of %s was not stored: %s", (unsigned)a->no, o->order.incident,
                 why->text);
        capture_note_reason(o, "artifact %u was not stored: %s", (unsigned)a->no, why->text);
        if (o->phase == ORDER_SENDING)
            text_copy(o->verdict.reason, sizeof o->verdict.reason, buf_str(&o->reasons));
    }
    capture_check_sent(c, o); /* the files go with the order, so that a restart counts the same */
}
