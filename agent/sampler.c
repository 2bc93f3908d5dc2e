/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second's work: read the operating system into the series table, cut a block when it is full.
 * The table and the encoder are elsewhere; here are time and order. Called by the timer and by
 * capture.
 */
#include "agent/sampler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define SECOND_US 1000000
#define JUMP_US 250000 /* wall against monotonic clock: more is a step of the clock */
#define MISSED_MAX SERIES_SAMPLES
#define IO_PIDS BROKER_IO_MAX
#define OWN_SERIES 2

struct sampler {
    struct sampler_settings settings;
    struct os_counters *counters;
    struct series_table *series;
    uv_timer_t timer;
    bool has_timer;
    bool is_watching;
    bool asks_io; /* a request to the broker is under way */
    /* The block under way. */
    int64_t from_us;
    int64_t last_second; /* of the newest sample; 0: none yet */
    int64_t last_wall_us;
    uint64_t last_mono_us;
    /* What has been described. */
    uint32_t described_id;
    bool has_described;
    int own_slots[OWN_SERIES];
    trawl_v1_AgentMessage *message; /* 33 KB, made once */
    uint64_t values_read, seconds;
    void (*stopped)(void *context);
    void *stopped_context;
};

/* ---- the sink of os/counters.h ---- */

static int on_define(void *context, const struct os_counter *counter)
{
    return series_define(((struct sampler *)context)->series, counter);
}

static void on_value(void *context, int slot, int64_t value)
{
    series_value(((struct sampler *)context)->series, slot, value);
}

static void on_gap(void *context, int slot, const char *reason)
{
    series_gap(((struct sampler *)context)->series, slot, reason);
}

static void on_retire(void *context, int slot)
{
    series_retire(((struct sampler *)context)->series, slot);
}

static void define_own(struct sampler *s)
{
    static const struct os_counter own[OWN_SERIES] = {
        {"agent.cpu", "", "us", OS_COUNT, 1, 0},
        {"agent.unacknowledged", "", "blocks", OS_GAUGE, 1, 0},
    };
    for (int i = 0; i < OWN_SERIES; i++)
        s->own_slots[i] = series_define(s->series, &own[i]);
}

/* What the agent itself costs and holds back belongs to the evidence too. */
static void sample_own(struct sampler *s)
{
    uv_rusage_t usage;
    if (s->own_slots[0] >= 0 && uv_getrusage(&usage) == 0)
        series_value(s->series, s->own_slots[0],
                     (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * SECOND_US +
                         usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    if (s->own_slots[1] >= 0)
        series_value(s->series, s->own_slots[1],
                     (int64_t)spool_unacknowledged(s->settings.spool, SPOOL_BLOCKS));
}

/* ---- opening ---- */

int sampler_open(struct sampler **out, const struct sampler_settings *settings, struct failure *f)
{
    struct sampler *s = calloc(1, sizeof *s);
    if (!s)
        return fail(f, ERR_NOMEM, "out of memory");
    s->settings = *settings;
    s->message = calloc(1, sizeof *s->message);
    int e = s->message ? series_open(&s->series, SAMPLER_SERIES_MAX) : ERR_NOMEM;
    if (e) {
        fail(f, e, "out of memory");
    } else {
        struct os_counter_sink sink = {on_define, on_value, on_gap, on_retire, s};
        define_own(s);
        e = os_counters_open(&s->counters, &settings->counters, &sink, f);
    }
    if (e) {
        sampler_close(s);
        return e;
    }
    if (settings->process_changed)
        os_counters_on_process(s->counters, settings->process_changed, settings->process_context);
    *out = s;
    return 0;
}

void sampler_close(struct sampler *s)
{
    if (!s)
        return;
    os_counters_close(s->counters);
    series_close(s->series);
    free(s->message);
    free(s);
}

/* ---- cutting a block ---- */

static void push_descriptors(struct sampler *s, uint32_t after, unsigned first_flags,
                             unsigned flags)
{
    trawl_v1_Descriptors *d = &s->message->body.descriptors;
    bool is_first = true;
    memset(s->message, 0, sizeof *s->message);
    s->message->which_body = trawl_v1_AgentMessage_descriptors_tag;
    d->epoch = s->settings.epoch;
    while (series_describe(s->series, &after, flags & RING_REPEAT, d) > 0) {
        (void)spool_push_descriptors(s->settings.spool, is_first ? first_flags : flags, s->message);
        is_first = false;
    }
}

/* New series first; then, when a segment of the ring is full, everything that lives once more. */
static void describe(struct sampler *s)
{
    if (!s->has_described) {
        push_descriptors(s, 0, RING_START, 0);
    } else {
        push_descriptors(s, s->described_id, 0, 0);
        if (spool_wants_descriptors(s->settings.spool))
            push_descriptors(s, 0, RING_START | RING_REPEAT, RING_REPEAT);
    }
    s->has_described = true;
    s->described_id = series_last_id(s->series);
}

static int push_block(struct sampler *s, const struct block_series *rows, size_t count,
                      size_t *taken)
{
    trawl_v1_CounterBlock *block = &s->message->body.block;
    struct buf data;
    buf_init(&data, sizeof block->data.bytes);
    size_t samples = series_samples(s->series);
    int e = block_put(&data, rows, count, samples, taken);
    if (!e) {
        memset(s->message, 0, sizeof *s->message);
        s->message->which_body = trawl_v1_AgentMessage_block_tag;
        block->epoch = s->settings.epoch;
        block->from_us = s->from_us;
        block->step_us = SECOND_US;
        block->count = (uint32_t)samples;
        block->data.size = (pb_size_t)data.size_bytes;
        memcpy(block->data.bytes, data.data, data.size_bytes);
        e = spool_push_block(s->settings.spool, s->message);
    }
    buf_done(&data);
    return e;
}

void sampler_cut(struct sampler *s)
{
    size_t count = series_count(s->series), taken;
    if (series_samples(s->series) == 0 || count == 0)
        return;
    struct block_series *rows = calloc(count, sizeof *rows);
    if (rows) {
        describe(s);
        count = series_rows(s->series, 0, rows, count);
        for (size_t done = 0; done < count; done += taken)
            if (push_block(s, rows + done, count - done, &taken))
                break;
    }
    free(rows);
    series_clear(s->series);
    spool_release_pages(s->settings.spool);
    if (s->settings.cut)
        s->settings.cut(s->settings.context);
}

/* ---- a second ---- */

static bool clock_jumped(const struct sampler *s, int64_t wall_us, uint64_t mono_us)
{
    int64_t apart = (wall_us - s->last_wall_us) - (int64_t)(mono_us - s->last_mono_us);
    return apart > JUMP_US || apart < -JUMP_US;
}

/* Puts gaps where seconds were missed, or begins a new block where that makes no sense. */
static void bridge(struct sampler *s, int64_t second, int64_t wall_us, uint64_t mono_us)
{
    if (s->last_second == 0)
        return;
    int64_t missed = second - s->last_second - 1;
    if (missed < 0 || missed > MISSED_MAX || clock_jumped(s, wall_us, mono_us)) {
        sampler_cut(s);
        return;
    }
    char reason[BLOCK_REASON_SIZE];
    text_format(reason, sizeof reason, "the agent did not run for %d s", (int)missed);
    for (int64_t i = 0; i < missed && series_samples(s->series) > 0; i++) {
        series_next_sample(s->series, reason);
        if (series_samples(s->series) == SERIES_SAMPLES)
            sampler_cut(s);
    }
}

static void on_io(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct sampler *s = context;
    s->asks_io = false;
    if (!f->code)
        os_counters_give_io(s->counters, reply->body.io.list, reply->body.io.count);
}

/* Answers are used by the next sample. */
static void ask_io(struct sampler *s)
{
    struct broker_request request = {0};
    if (!s->settings.broker || s->asks_io)
        return;
    size_t count = os_counters_want_io(s->counters, request.body.io.pids, IO_PIDS);
    request.body.io.count = (uint32_t)count;
    if (count > 0 &&
        !broker_client_send(s->settings.broker, BROKER_READ_IO, &request, -1, on_io, s, NULL))
        s->asks_io = true;
}

void sampler_sample(struct sampler *s)
{
    struct clock *clock = s->settings.clock;
    int64_t wall_us = clock->wall_us(clock);
    uint64_t mono_us = clock->mono_us(clock);
    int64_t second = (wall_us + SECOND_US / 2) / SECOND_US;
    bridge(s, second, wall_us, mono_us);
    if (series_samples(s->series) == 0)
        s->from_us = wall_us;
    series_next_sample(s->series, NULL);
    os_counters_sample(s->counters, mono_us);
    sample_own(s);
    s->last_second = second;
    s->last_wall_us = wall_us;
    s->last_mono_us = mono_us;
    s->values_read += series_values_set(s->series);
    s->seconds++;
    if (s->settings.values)
        s->settings.values(s->settings.context);
    if (s->is_watching || series_samples(s->series) == SERIES_SAMPLES)
        sampler_cut(s);
    ask_io(s);
    if (s->settings.sampled)
        s->settings.sampled(s->settings.context);
}

void sampler_set_watching(struct sampler *s, bool on)
{
    s->is_watching = on;
    if (on)
        sampler_cut(s);
}

void sampler_figures(const struct sampler *s, size_t *series, uint64_t *values, uint64_t *seconds)
{
    *series = series_count(s->series);
    *values = s->values_read;
    *seconds = s->seconds;
}

/* ---- the timer ---- */

static void on_timer(uv_timer_t *timer);

/* Towards the second after the one last sampled, also when the loop's coarse clock woke us early.
 */
static void arm(struct sampler *s)
{
    int64_t wall_us = s->settings.clock->wall_us(s->settings.clock);
    int64_t second = s->last_second ? s->last_second : wall_us / SECOND_US;
    int64_t delay_us = (second + 1) * SECOND_US - wall_us;
    if (delay_us <= 0 || delay_us > 2 * SECOND_US)
        delay_us = SECOND_US - wall_us % SECOND_US;
    uv_update_time(s->timer.loop);
    uv_timer_start(&s->timer, on_timer, (uint64_t)(delay_us + 999) / 1000, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct sampler *s = timer->data;
    sampler_sample(s);
    arm(s);
}

int sampler_start(struct sampler *s, uv_loop_t *loop)
{
    assert(!s->has_timer);
    s->timer.data = s;
    if (uv_timer_init(loop, &s->timer))
        return ERR_IO;
    s->has_timer = true;
    arm(s);
    return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct sampler *s = handle->data;
    s->has_timer = false;
    if (s->stopped)
        s->stopped(s->stopped_context);
}

void sampler_stop(struct sampler *s, void (*stopped)(void *context), void *context)
{
    s->stopped = stopped;
    s->stopped_context = context;
    if (!s->has_timer) {
        if (stopped)
            stopped(context);
        return;
    }
    uv_timer_stop(&s->timer);
    uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}

size_t sampler_slots(const struct sampler *sampler)
{
    return series_slots(sampler->series);
}

bool sampler_look(const struct sampler *sampler, uint32_t slot, struct series_view *out)
{
    return series_look(sampler->series, slot, out);
}

bool sampler_each_process(const struct sampler *sampler,
                          void (*each)(void *context, const struct os_process_change *process),
                          void *context)
{
    return os_counters_each_process(sampler->counters, each, context);
}

size_t sampler_processes(const struct sampler *sampler, uint32_t *pids, size_t max)
{
    trawl_v1_Descriptors *list = calloc(1, sizeof *list);
    uint32_t after = 0;
    size_t count = 0;
    while (list && count < max && series_describe(sampler->series, &after, true, list) > 0)
        for (pb_size_t i = 0; i < list->list_count && count < max; i++)
            if (list->list[i].pid && strcmp(list->list[i].name, "process.rss") == 0)
                pids[count++] = list->list[i].pid;
    free(list);
    return count;
}
