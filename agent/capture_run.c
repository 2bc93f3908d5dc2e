/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One order from its start to its last artifact, a function per step: find the processes, plan,
 * wait for the instant, take the evidence job by job, end. Invariant: the journal says RUNNING
 * before anything is looked at. Called by capture.c and by the steps' own timers and replies.
 */
#include "agent/capture_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/text.h"

#define LEAD_US 60000 /* a worker is started this long before an asked instant */
#define KINDS_LISTED 200

static uint64_t mono_now(const struct capture *c)
{
    return c->settings.clock->mono_us(c->settings.clock);
}

static int64_t wall_now(const struct capture *c)
{
    return c->settings.clock->wall_us(c->settings.clock);
}

/* ---- the end ---- */

static uint32_t count_captured(const struct run *r)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->process_count; i++)
        count += r->has_artifact[i] != 0;
    return count;
}

static trawl_v1_State judge(const struct order *o)
{
    bool is_whole = o->refused + o->gone + o->failed == 0;
    if (o->artifact_count > 0)
        return is_whole && o->reasons.size_bytes == 0 ? trawl_v1_State_DONE
                                                      : trawl_v1_State_PARTIAL;
    if (o->failed == 0 && o->gone > 0)
        return trawl_v1_State_GONE;
    if (o->failed == 0 && o->refused > 0)
        return trawl_v1_State_REFUSED;
    return trawl_v1_State_FAILED;
}

static void forget_run(struct capture *c)
{
    struct run *r = &c->run;
    free(r->jobs);
    r->jobs = NULL;
    r->order = NULL;
    r->step = RUN_IDLE;
    uv_timer_stop(&c->timer);
}

void run_finish(struct capture *c)
{
    struct order *o = c->run.order;
    o->verdict.processes = count_captured(&c->run);
    forget_run(c);
    journal_save_numbers(c);
    if (o->is_cancelled) {
        capture_verdict_acknowledged(c, o->order.order, o->acked_no);
    } else {
        trawl_v1_State state = judge(o);
        o->phase = ORDER_SENDING;
        events_add(c->settings.events, trawl_v1_EventType_CAPTURE_ENDED, "", 0,
                   "%s: %u artifacts%s%s", o->order.incident, (unsigned)o->artifact_count,
                   o->reasons.size_bytes ? "; " : "", buf_str(&o->reasons));
        capture_decide(c, o, state, buf_str(&o->reasons));
        capture_check_sent(c, o);
    }
    capture_start_next(c);
}

void run_abort(struct capture *c)
{
    switch (c->run.step) {
    case RUN_WAIT_INSTANT:
    case RUN_WAIT_WINDOW:
        run_finish(c);
        break;
    case RUN_JOBS:
        if (c->run.job_active) {
            job_cancel(c);
        } else if (c->run.stream) { /* only the collector was waited for */
            stream_drop(c);
            run_next_job(c);
        }
        break;
    default:
        break; /* the reply comes and finds the order cancelled */
    }
}

/* ---- jobs ---- */

/* True when a wait began. */
static bool wait_for_window(struct capture *c)
{
    struct run *r = &c->run;
    uint64_t end_us = r->began_mono_us + r->order->order.for_us, now_us = mono_now(c);
    if (r->next_job != r->window_job || r->order->order.for_us == 0 || now_us >= end_us)
        return false;
    r->step = RUN_WAIT_WINDOW;
    uv_update_time(c->settings.loop);
    uv_timer_start(&c->timer, run_timer, (end_us - now_us + 999) / 1000, 0);
    return true;
}

void run_next_job(struct capture *c)
{
    struct run *r = &c->run;
    r->step = RUN_JOBS;
    for (;;) {
        if (r->order->is_cancelled || r->next_job == r->job_count) {
            run_finish(c);
            return;
        }
        if (wait_for_window(c))
            return;
        if (job_start(c, &r->jobs[r->next_job++]))
            return;
    }
}

static void begin_jobs(struct capture *c)
{
    c->run.began_mono_us = mono_now(c);
    c->run.began_wall_us = wall_now(c);
    if (c->run.target_mono_us > c->run.began_mono_us)
        c->run.began_wall_us += (int64_t)(c->run.target_mono_us - c->run.began_mono_us);
    run_next_job(c);
}

void run_timer(uv_timer_t *timer)
{
    struct capture *c = timer->data;
    if (c->run.step == RUN_WAIT_INSTANT)
        begin_jobs(c);
    else if (c->run.saved)
        saved_step(c);
    else if (c->run.step == RUN_WAIT_WINDOW)
        run_next_job(c);
}

static void wait_for_instant(struct capture *c)
{
    uint64_t now_us = mono_now(c);
    if (c->run.target_mono_us <= now_us + LEAD_US) {
        begin_jobs(c);
        return;
    }
    c->run.step = RUN_WAIT_INSTANT;
    uv_update_time(c->settings.loop);
    uv_timer_start(&c->timer, run_timer, (c->run.target_mono_us - now_us - LEAD_US) / 1000, 0);
}

/* ---- the plan ---- */

static bool is_asked(const trawl_v1_Order *order, const char *kind)
{
    for (size_t i = 0; i < order->what_count; i++)
        if (strcmp(order->what[i], kind) == 0)
            return true;
    return false;
}

static void note_unknown_kinds(struct order *o)
{
    for (size_t i = 0; i < o->order.what_count; i++) {
        if (job_kind_of(o->order.what[i]))
            continue;
        o->failed++;
        capture_note_reason(o, "kind '%s' is not known to this agent (%s)", o->order.what[i],
                            TRAWL_VERSION);
    }
}

static void add_job(struct run *r, const char *kind, const struct os_process *process)
{
    struct job *job = &r->jobs[r->job_count++];
    *job = (struct job){0};
    text_copy(job->kind, sizeof job->kind, kind);
    if (process)
        job->process = *process;
}

static void add_saved(struct capture *c, const struct job_kind *kind)
{
    struct run *r = &c->run;
    struct failure f = {0};
    if (policy_allows_process(c->settings.policy, r->exception.name, &f)) {
        r->order->refused++;
        capture_note_reason(r->order, "%s", f.text);
    } else {
        add_job(r, kind->name, &r->exception);
        r->jobs[r->job_count - 1].is_saved = true;
    }
}

static void note_gone(struct run *r, const struct job_kind *kind)
{
    r->order->gone++;
    capture_note_reason(r->order, "%s: process '%s' (%u) has ended", kind->name,
                        r->exception.name[0] ? r->exception.name : "of the exception",
                        (unsigned)r->exception.pid);
}

/*
 * Of an exception: what the host holds already. After a crash only a log may come from another
 * process, one that its unit has by now. False: the kind is taken as of any order.
 */
static bool plan_saved(struct capture *c, const struct job_kind *kind)
{
    struct run *r = &c->run;
    const trawl_v1_Order *order = &r->order->order;
    bool is_logs = strcmp(kind->name, "logs") == 0;
    if (strcmp(kind->name, "crash") == 0) {
        if (saved_is_asked(order)) {
            add_saved(c, kind);
            return true;
        }
        r->order->refused++;
        capture_note_reason(r->order, "'crash' is evidence of an exception, and the order names "
                                      "none");
        return true;
    }
    if (!kind->of_process || (!r->is_gone && !r->is_crash))
        return false;
    if (is_logs && !r->is_gone && !saved_holds(c, order, kind->name))
        return false;
    if (saved_has_kind(kind->name))
        add_saved(c, kind);
    else
        note_gone(r, kind);
    return true;
}

static void plan_kind(struct capture *c, const struct job_kind *kind)
{
    struct run *r = &c->run;
    struct failure f = {0};
    bool may_fall_back =
        kind->of_process && r->process_count && fallback_exists(&r->order->order, kind->name);
    if (policy_allows_kind(c->settings.policy, kind->name, &f) && !may_fall_back) {
        r->order->refused++;
        capture_note_reason(r->order, "%s", f.text);
        return;
    }
    if (kind->of_window && r->window_job == SIZE_MAX)
        r->window_job = r->job_count;
    if (plan_saved(c, kind))
        return;
    if (!kind->of_process)
        add_job(r, kind->name, NULL);
    for (uint32_t i = 0; i < r->process_count && kind->of_process; i++)
        add_job(r, kind->name, &r->processes[i]);
    if (kind->of_process && !r->process_count && !choose_has_selector(&r->order->order)) {
        r->order->failed++;
        capture_note_reason(r->order,
                            "'%s' is taken of a process: the order names none and this agent "
                            "follows none (--process, or --follow on the agent)",
                            kind->name);
    }
}

void run_plan(struct capture *c)
{
    struct run *r = &c->run;
    const struct job_kind *kind;
    size_t kinds = 0;
    while (job_kind_at(kinds))
        kinds++;
    r->jobs = calloc((kinds + 1) * (r->process_count + 1), sizeof *r->jobs);
    r->job_count = r->next_job = 0;
    r->window_job = SIZE_MAX;
    note_unknown_kinds(r->order);
    if (!r->jobs) {
        r->order->failed++;
        capture_note_reason(r->order, "out of memory");
    }
    for (size_t rank = 0; r->jobs && (kind = job_kind_at(rank)) != NULL; rank++)
        if (is_asked(&r->order->order, kind->name))
            plan_kind(c, kind);
    wait_for_instant(c);
}

/* ---- the start ---- */

/* The asked instant on our monotonic clock, by the best known bound of the clocks' difference. */
static void set_instant(struct capture *c)
{
    const trawl_v1_Order *order = &c->run.order->order;
    if (order->at_us == 0)
        return;
    int64_t ahead_us = order->at_us + (c->has_offset ? c->offset_us : 0) - wall_now(c);
    int64_t target_us = (int64_t)mono_now(c) + ahead_us;
    c->run.target_mono_us = target_us > 0 ? (uint64_t)target_us : 1;
}

static void list_kinds(const trawl_v1_Order *order, char *out, size_t size_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < order->what_count && used + 1 < size_bytes; i++) {
        text_format(out + used, size_bytes - used, "%s%s", i ? "," : "", order->what[i]);
        used += strlen(out + used);
    }
}

void run_start(struct capture *c, struct order *o)
{
    struct run *r = &c->run;
    char kinds[KINDS_LISTED];
    struct broker_result *result = r->result;
    char *buffer = r->pipe_buffer;
    *r = (struct run){.order = o, .result = result, .pipe_buffer = buffer, .pages = {.file = -1}};
    o->phase = ORDER_RUNNING;
    capture_decide(c, o, trawl_v1_State_RUNNING, "");
    list_kinds(&o->order, kinds, sizeof kinds);
    log_info("capture of %s (order %llu) began: %s", o->order.incident,
             (unsigned long long)o->order.order, kinds);
    events_add(c->settings.events, trawl_v1_EventType_CAPTURE_STARTED, "", 0, "%s: %s",
               o->order.incident, kinds);
    set_instant(c);
    bool wants_process = false;
    const struct job_kind *kind;
    for (size_t rank = 0; (kind = job_kind_at(rank)) != NULL; rank++)
        wants_process = wants_process || (kind->of_process && is_asked(&o->order, kind->name));
    if (saved_is_asked(&o->order))
        r->is_crash = saved_name(c, &o->order, &r->exception);
    if (saved_is_asked(&o->order) && !choose_has_selector(&o->order)) {
        r->is_gone = true; /* it is never one of the followed that is meant */
        run_plan(c);
    } else if (wants_process || (choose_has_selector(&o->order) && o->order.process.pid))
        choose_processes(c);
    else
        run_plan(c);
}
