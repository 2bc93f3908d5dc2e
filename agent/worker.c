/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's main function and the table of kinds it can take. What a kind writes goes to the
 * agent in chunks (broker_wire.h), compressed where the table says so. Invariant: nothing is
 * written before the target was let go, so a slow reader never lengthens a pause (but of a core
 * with allow_pause, up to the limit). Called in a child of the broker.
 */
#include "agent/worker.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "agent/os/dump.h"
#include "agent/os/logs.h"
#include "agent/os/net.h"
#include "agent/os/privilege.h"
#include "agent/os/profile.h"
#include "agent/os/stacks.h"
#include "agent/os/throws.h"
#include "agent/os/triage.h"
#include "agent/worker_output.h"
#include "common/buf.h"
#include "common/port.h"
#include "common/text.h"

#define BASE_BYTES_MAX (64u << 20) /* a page list: of a core of 30 GiB */
#define SPIN_US 1500               /* the last bit before an asked instant is waited awake */

/* ---- kinds ---- */

typedef int (*take_fn)(const struct os_take *take, const struct os_output *out,
                       struct os_result *result, struct failure *f);

static const struct kind {
    const char *name;
    take_fn take;
} kinds[] = {
    {"triage", os_triage_capture}, {"stacks", os_stacks_capture}, {"stacks0", os_stacks0_capture},
    {"mini", os_mini_capture},     {"core", os_core_capture},     {"profile", os_profile_capture},
    {"net", os_net_capture},       {"logs", os_logs_capture},     {"throws", os_throws_capture},
};

static const struct kind *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

bool worker_knows(const char *kind)
{
    return find_kind(kind) != NULL;
}

int worker_take(const char *kind, const struct os_take *take, const struct os_output *out,
                struct os_result *result, struct failure *f)
{
    const struct kind *found = find_kind(kind);
    memset(result, 0, sizeof *result);
    if (!found)
        return fail(f, ERR_UNSUPPORTED, "kind '%s' is not known to this agent (%s)", kind,
                    TRAWL_VERSION);
    return found->take(take, out, result, f);
}

/* ---- the work ---- */

static void wait_until(uint64_t mono_us)
{
    uint64_t now = port_mono_us();
    while (now + SPIN_US < mono_us) {
        uint64_t left_ms = (mono_us - now - SPIN_US) / 1000;
        uv_sleep(left_ms > 1 ? (unsigned)left_ms : 1);
        now = port_mono_us();
    }
    while (port_mono_us() < mono_us)
        ;
}

int worker_check_process(const struct os_process *then, struct os_process *now, struct failure *f)
{
    int e = os_process_get("", then->pid, now, f);
    if (e)
        return e;
    if (now->start_ticks != then->start_ticks)
        return fail(f, ERR_GONE, "process %u has ended", then->pid);
    bool is_seen = then->exe_inode && now->exe_inode;
    if (is_seen && (now->exe_inode != then->exe_inode || now->exe_device != then->exe_device))
        return fail(f, ERR_GONE, "process %u is another program now: '%s', no longer '%s'",
                    then->pid, now->name, then->name);
    return 0;
}

static uint64_t size_of(int fd)
{
    uv_fs_t request;
    uint64_t size = uv_fs_fstat(NULL, &request, fd, NULL) == 0 ? request.statbuf.st_size : 0;
    uv_fs_req_cleanup(&request);
    return size;
}

/* The page list of an earlier core, in one piece of memory; what cannot be read is as good as
 * none. */
static void read_base(int fd, struct buf *out)
{
    uint8_t *room;
    uint64_t size = size_of(fd);
    int n = size > 0 && size <= BASE_BYTES_MAX && buf_reserve(out, (size_t)size, &room) == 0;
    while (n > 0 && out->size_bytes < size) {
        uv_fs_t request;
        uv_buf_t piece =
            uv_buf_init((char *)room + out->size_bytes, (unsigned)(size - out->size_bytes));
        n = uv_fs_read(NULL, &request, fd, &piece, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        buf_commit(out, n > 0 ? (size_t)n : 0);
    }
}

static int take_into(const struct worker_job *job, const struct os_take *take,
                     struct worker_output *output, struct os_result *result, struct failure *f)
{
    struct os_process now;
    struct os_output out = worker_output_of(output);
    int e = worker_check_process(&take->process, &now, f);
    if (!e)
        e = worker_take(job->run.kind, take, &out, result, f);
    return e ? e : worker_output_end(output, f);
}

static int take_one(const struct worker_job *job, const struct os_take *take,
                    struct broker_result *result, struct failure *f)
{
    struct worker_output output;
    struct buf base;
    /* A process that is held by a core with allow_pause waits for every rest: then none. */
    uint32_t cpu_percent = take->allow_pause ? 0 : job->cpu_percent;
    int e = worker_output_open(&output, job->output_fd, cpu_percent, f);
    if (e)
        return e;
    buf_init(&base, BASE_BYTES_MAX);
    if (strcmp(job->run.kind, "core") == 0 && !take->allow_pause) {
        if (job->base_fd >= 0)
            read_base(job->base_fd, &base);
        worker_output_use_delta(&output, &take->process, buf_span(&base));
    }
    e = take_into(job, take, &output, &result->taken, f);
    result->plain_bytes = output.plain_bytes;
    worker_output_close(&output);
    buf_done(&base);
    return e;
}

static void work(const struct worker_job *job, struct worker_outcome *outcome)
{
    struct failure f = {0};
    const struct broker_run *run = &job->run;
    struct os_take take = {.process = job->process,
                           .pause_max_us = run->pause_max_us,
                           .live = run->live,
                           .allow_pause = run->allow_pause,
                           .for_us = run->for_us,
                           .from_us = run->from_us,
                           .to_us = run->to_us,
                           .costs = &job->costs};
    if (run->at_mono_us)
        wait_until(run->at_mono_us);
    outcome->result.began_mono_us = port_mono_us();
    take.deadline_mono_us = outcome->result.began_mono_us + run->deadline_us;
    outcome->error = take_one(job, &take, &outcome->result, &f);
    if (outcome->error)
        text_copy(outcome->text, sizeof outcome->text, f.text);
}

int worker_main(void *context)
{
    const struct worker_job *job = context;
    struct worker_outcome *outcome = calloc(1, sizeof *outcome);
    if (!outcome)
        return 1;
    signal(SIGPIPE, SIG_IGN); /* an agent that is gone is an error like others: we tidy up */
    os_be_nice();
    work(job, outcome);
    int e =
        worker_output_write_all(job->result_fd, span_of(outcome, sizeof *outcome), span_of("", 0));
    free(outcome);
    return e ? 1 : 0;
}
