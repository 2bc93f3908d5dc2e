/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `trawl-agent --self-test`: the sampling half of the agent on this host for ten seconds, with
 * rings in a temporary directory, and what it cost; then what this host can give. Connects to
 * nobody. Called by main.
 */
#include "agent/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/broker_client.h"
#include "agent/budget.h"
#include "agent/events.h"
#include "agent/os/privilege.h"
#include "agent/sampler.h"
#include "common/port.h"
#include "common/text.h"

#define WARM_SECONDS 2
#define SECONDS 10

struct usage {
    uint64_t cpu_us, private_bytes, resident_bytes, values, mono_us;
};

struct self_test {
    struct settings settings;
    struct agent_start start;
    uv_loop_t loop;
    struct spool *spool;
    struct events *events;
    struct broker_client *broker;
    struct sampler *sampler;
    struct agent_names follow;
    uint64_t second;
    struct usage before, after;
    struct broker_usage broker_before, broker_after;
    size_t series;
};

static void measure(struct self_test *t, struct usage *u)
{
    uint64_t seconds;
    os_self_usage(&u->cpu_us, &u->private_bytes, &u->resident_bytes);
    sampler_figures(t->sampler, &t->series, &u->values, &seconds);
    u->mono_us = port_mono_us();
}

static void on_usage_before(void *context, const struct broker_reply *reply,
                            const struct failure *f)
{
    struct self_test *t = context;
    if (reply && !f->code)
        t->broker_before = reply->body.usage;
}

static void on_sampler_stopped(void *context)
{
    struct self_test *t = context;
    broker_client_close(t->broker, NULL, NULL);
}

static void on_usage_after(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct self_test *t = context;
    if (reply && !f->code)
        t->broker_after = reply->body.usage;
    sampler_stop(t->sampler, on_sampler_stopped, t);
}

static void ask_usage(struct self_test *t, broker_done_fn done)
{
    struct broker_request request = {0};
    struct failure f = {0};
    if (broker_client_send(t->broker, BROKER_USAGE, &request, -1, done, t, &f))
        done(t, NULL, &f);
}

static void on_second(void *context)
{
    struct self_test *t = context;
    events_tick(t->events);
    t->second++;
    if (t->second == WARM_SECONDS) {
        measure(t, &t->before);
        ask_usage(t, on_usage_before);
    } else if (t->second == WARM_SECONDS + SECONDS) {
        measure(t, &t->after);
        ask_usage(t, on_usage_after);
    }
}

/* ---- printing ---- */

struct figures {
    double cpu_percent, broker_percent, values_per_s;
    uint64_t private_bytes, resident_bytes;
};

static struct figures work_out(const struct self_test *t)
{
    double us = (double)(t->after.mono_us - t->before.mono_us);
    return (struct figures){
        .cpu_percent = 100.0 * (double)(t->after.cpu_us - t->before.cpu_us) / us,
        .broker_percent = 100.0 * (double)(t->broker_after.cpu_us - t->broker_before.cpu_us) / us,
        .values_per_s = (double)(t->after.values - t->before.values) * 1e6 / us,
        .private_bytes = t->after.private_bytes,
        .resident_bytes = t->after.resident_bytes,
    };
}

static void put_json(const struct self_test *t, const struct figures *g, struct buf *out)
{
    (void)buf_printf(out,
                     "{\"cpu_percent\":%.4f,\"broker_cpu_percent\":%.4f,\"values_per_s\":%.0f,"
                     "\"series\":%zu,\"private_bytes\":%llu,\"resident_bytes\":%llu,"
                     "\"broker_private_bytes\":%llu,\"caps\":[",
                     g->cpu_percent, g->broker_percent, g->values_per_s, t->series,
                     (unsigned long long)g->private_bytes, (unsigned long long)g->resident_bytes,
                     (unsigned long long)t->broker_after.private_bytes);
    for (size_t i = 0; i < t->start.cap_count; i++) {
        (void)buf_printf(out, "%s{\"name\":", i ? "," : "");
        (void)text_append_json(out, span_str(t->start.caps[i].name));
        (void)buf_printf(
            out, ",\"available\":%s,\"reason\":", t->start.caps[i].available ? "true" : "false");
        (void)text_append_json(out, span_str(t->start.caps[i].reason));
        (void)buf_append_byte(out, '}');
    }
    (void)buf_append_str(out, "]}\n");
}

static void put_table(const struct self_test *t, const struct figures *g, struct buf *out)
{
    char private_text[32], resident[32], broker[32], most[32];
    text_put_size(g->private_bytes, private_text, sizeof private_text);
    text_put_size(g->resident_bytes, resident, sizeof resident);
    text_put_size(t->broker_after.private_bytes, broker, sizeof broker);
    text_put_size(BUDGET_PRIVATE_BYTES, most, sizeof most);
    (void)buf_printf(out, "measured over %d s\n", SECONDS);
    (void)buf_printf(out, "  values         %8.0f /s of %zu series\n", g->values_per_s, t->series);
    (void)buf_printf(out,
                     "  cpu            %8.3f %% of a core (agent), %.3f %% (broker), budget %.2f "
                     "%% at %d values/s\n",
                     g->cpu_percent, g->broker_percent, BUDGET_CPU_PERCENT, BUDGET_VALUES);
    (void)buf_printf(out, "  private memory %8s   (agent), %s (broker), budget %s\n", private_text,
                     broker, most);
    (void)buf_printf(out, "  resident       %8s\n", resident);
    (void)buf_printf(out, "\nwhat this host can give\n");
    for (size_t i = 0; i < t->start.cap_count; i++)
        (void)buf_printf(out, "  %-16s %-4s %s\n", t->start.caps[i].name,
                         t->start.caps[i].available ? "yes" : "no", t->start.caps[i].reason);
    if (t->start.policy_failure.code)
        (void)buf_printf(out, "  %s\n", t->start.policy_failure.text);
}

static void print(const struct self_test *t)
{
    struct buf out;
    struct figures g = work_out(t);
    buf_init(&out, 65536);
    if (strcmp(t->settings.format, "json") == 0)
        put_json(t, &g, &out);
    else
        put_table(t, &g, &out);
    fputs(buf_str(&out), stdout);
    buf_done(&out);
}

/* ---- the run ---- */

static int open_parts(struct self_test *t, const char *directory, struct failure *f)
{
    const uint64_t floors[SPOOL_LANES] = {0, 0};
    struct spool_opened rings;
    struct clock *clock = clock_system();
    int e = spool_open(&t->spool, directory, (size_t)t->settings.ring_bytes, floors, &rings, f);
    if (!e) {
        e = events_open(&t->events, t->spool, clock, t->start.kernel_log, NULL, NULL);
        t->start.kernel_log = e ? t->start.kernel_log : NULL;
    }
    if (!e)
        e = broker_client_open(&t->broker, &t->loop, t->start.broker_fd, f);
    if (e)
        return e;
    struct sampler_settings settings = {
        .counters = {.root = "",
                     .processes = t->follow.list,
                     .busiest = (uint32_t)t->settings.busiest},
        .clock = clock,
        .spool = t->spool,
        .broker = t->broker,
        .epoch = 1,
        .process_changed = events_on_process,
        .process_context = t->events,
        .sampled = on_second,
        .context = t,
    };
    e = sampler_open(&t->sampler, &settings, f);
    if (!e && sampler_start(t->sampler, &t->loop))
        e = fail(f, ERR_IO, "cannot start the sampler");
    if (e)
        broker_client_close(t->broker, NULL, NULL);
    return e;
}

static int run(struct self_test *t, const char *directory, struct failure *f)
{
    if (agent_names_init(&t->follow, t->settings.follow) || uv_loop_init(&t->loop))
        return fail(f, ERR_NOMEM, "out of memory");
    int e = open_parts(t, directory, f);
    (void)uv_run(&t->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&t->loop);
    if (!e) {
        print(t);
    }
    sampler_close(t->sampler);
    events_close(t->events);
    spool_close(t->spool);
    agent_names_done(&t->follow);
    return e;
}

static void remove_directory(const char *directory)
{
    static const char *const names[] = {"counters.ring", "events.ring"};
    char path[STATE_PATH_SIZE];
    uv_fs_t request;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!text_format(path, sizeof path, "%s/%s", directory, names[i])) {
            uv_fs_unlink(NULL, &request, path, NULL);
            uv_fs_req_cleanup(&request);
        }
    uv_fs_rmdir(NULL, &request, directory, NULL);
    uv_fs_req_cleanup(&request);
}

/* A directory of our own, whose rings are thrown away afterwards. */
static int make_directory(char out[STATE_PATH_SIZE], struct failure *f)
{
    char base[STATE_PATH_SIZE - 32], template[STATE_PATH_SIZE];
    size_t size = sizeof base;
    uv_fs_t request;
    if (uv_os_tmpdir(base, &size))
        return fail(f, ERR_NOTFOUND, "no directory for temporary files: set TMPDIR");
    text_format(template, sizeof template, "%s/trawl-self-test-XXXXXX", base);
    int made = uv_fs_mkdtemp(NULL, &request, template, NULL);
    int e = made ? fail(f, ERR_IO, "cannot make a directory in '%s': %s", base, uv_strerror(made))
                 : text_copy(out, STATE_PATH_SIZE, request.path);
    uv_fs_req_cleanup(&request);
    return e;
}

int agent_self_test(const struct settings *settings, struct failure *f)
{
    struct self_test *t = calloc(1, sizeof *t);
    if (!t)
        return fail(f, ERR_NOMEM, "out of memory");
    t->settings = *settings;
    t->settings.crash_handler = false;
    int e = make_directory(t->settings.state_dir, f);
    if (!e) {
        fprintf(stderr, "sampling for %d s...\n", WARM_SECONDS + SECONDS);
        e = agent_prepare(&t->start, &t->settings, true, f);
        if (!e)
            e = run(t, t->settings.state_dir, f);
        remove_directory(t->settings.state_dir);
        os_kernel_log_close(t->start.kernel_log);
    }
    free(t);
    return e;
}
