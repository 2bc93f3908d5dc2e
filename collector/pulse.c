/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measured in a prepare handle, which libuv calls once a turn before it polls; the idle time within
 * the poll is libuv's own metric. Invariant: neither handle keeps the loop alive.
 */
#include "collector/pulse.h"

#include <stdlib.h>

#include "common/log.h"

#define SAY_EVERY_NS UINT64_C(10000000000)
#define LONG_NS UINT64_C(10000000)
#define STALL_NS (UINT64_C(1000) * PULSE_STALL_US)

struct figures {
    uint64_t turns, long_turns;
    uint64_t longest_ns, busy_ns;
};

struct pulse {
    uv_prepare_t prepare;
    uv_timer_t timer;
    unsigned handles;
    uint64_t at_ns, idle_ns;     /* at the end of the last turn */
    uint64_t reported_ns;        /* when the figures below began */
    struct figures now;          /* since the last report */
    uint64_t stalls, longest_ns; /* over the limit and not told yet */
    uint64_t said_ns;
};

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

/* The first at once; what follows within ten seconds is told together. */
static void say_stalls(struct pulse *p, uint64_t now_ns)
{
    if (!p->stalls || (p->said_ns && now_ns - p->said_ns < SAY_EVERY_NS))
        return;
    log_warn("the loop did not come round for %.0f ms (%llu times over %d ms): everybody who is "
             "connected waited",
             ms(p->longest_ns), (unsigned long long)p->stalls, PULSE_STALL_US / 1000);
    p->stalls = p->longest_ns = 0;
    p->said_ns = now_ns;
}

static void on_prepare(uv_prepare_t *handle)
{
    struct pulse *p = handle->data;
    uint64_t now_ns = uv_hrtime(), idle_ns = uv_metrics_idle_time(handle->loop);
    uint64_t waited_ns = idle_ns - p->idle_ns, lasted_ns = now_ns - p->at_ns;
    uint64_t busy_ns = lasted_ns > waited_ns ? lasted_ns - waited_ns : 0;
    p->at_ns = now_ns;
    p->idle_ns = idle_ns;
    p->now.turns++;
    p->now.busy_ns += busy_ns;
    p->now.long_turns += busy_ns > LONG_NS;
    if (busy_ns > p->now.longest_ns)
        p->now.longest_ns = busy_ns;
    if (busy_ns > STALL_NS) {
        p->stalls++;
        if (busy_ns > p->longest_ns)
            p->longest_ns = busy_ns;
    }
    say_stalls(p, now_ns);
}

static void on_report(uv_timer_t *timer)
{
    struct pulse *p = timer->data;
    uint64_t now_ns = uv_hrtime(), passed_ns = now_ns - p->reported_ns;
    log_info("loop: longest turn %.1f ms, %llu of %llu turns over 10 ms, busy %.1f %%",
             ms(p->now.longest_ns), (unsigned long long)p->now.long_turns,
             (unsigned long long)p->now.turns,
             passed_ns ? 100.0 * (double)p->now.busy_ns / (double)passed_ns : 0.0);
    p->now = (struct figures){0};
    p->reported_ns = now_ns;
}

int pulse_open(struct pulse **out, uv_loop_t *loop, uint64_t report_us, struct failure *f)
{
    struct pulse *p = calloc(1, sizeof(*p));
    if (!p)
        return fail(f, ERR_NOMEM, "out of memory");
    (void)uv_loop_configure(loop, UV_METRICS_IDLE_TIME);
    uv_prepare_init(loop, &p->prepare);
    uv_timer_init(loop, &p->timer);
    p->handles = 2;
    p->prepare.data = p->timer.data = p;
    p->at_ns = p->reported_ns = uv_hrtime();
    p->idle_ns = uv_metrics_idle_time(loop);
    uv_prepare_start(&p->prepare, on_prepare);
    if (report_us)
        uv_timer_start(&p->timer, on_report, report_us / 1000, report_us / 1000);
    uv_unref((uv_handle_t *)&p->prepare);
    uv_unref((uv_handle_t *)&p->timer);
    *out = p;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct pulse *p = handle->data;
    if (--p->handles == 0)
        free(p);
}

void pulse_close(struct pulse *p)
{
    if (!p)
        return;
    uv_close((uv_handle_t *)&p->prepare, on_closed);
    uv_close((uv_handle_t *)&p->timer, on_closed);
}
