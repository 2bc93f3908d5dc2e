/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's main function and the table of kinds it can take. What a kind writes goes to the
 * agent in chunks (broker_wire.h), compressed where the table says so. Invariant: nothing is
 * written before the target was let go, so a slow reader never lengthens a pause. Called in a child
 * of the broker.
 */
#include "agent/worker.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "agent/os/dump.h"
#include "agent/os/logs.h"
#include "agent/os/privilege.h"
#include "agent/os/profile.h"
#include "agent/os/stacks.h"
#include "agent/os/triage.h"
#include "common/buf.h"
#include "common/port.h"
#include "common/text.h"

#define EVIDENCE_MAX_BYTES ((size_t)16 * 1024 * 1024)
#define SPIN_US 1500 /* the last bit before an asked instant is waited awake */

/* ---- kinds ---- */

typedef int (*take_fn)(const struct os_take *take, const struct os_output *out,
                       struct os_result *result, struct failure *f);

static int take_triage(const struct os_take *take, const struct os_output *out,
                       struct os_result *result, struct failure *f)
{
    struct buf text;
    buf_init(&text, EVIDENCE_MAX_BYTES);
    result->threads = take->process.threads;
    int e =
        os_triage_capture("", &take->process, &text, result->missing, sizeof result->missing, f);
    if (!e)
        e = os_output_file(out, "txt", buf_span(&text), f);
    buf_done(&text);
    return e;
}

static int take_stacks(const struct os_take *take, const struct os_output *out,
                       struct os_result *result, struct failure *f)
{
    struct buf text;
    buf_init(&text, EVIDENCE_MAX_BYTES);
    int e = os_stacks_capture(&take->process, take->pause_max_us, &text, result, f);
    if (!e)
        e = os_output_file(out, "txt", buf_span(&text), f);
    buf_done(&text);
    return e;
}

static int take_logs(const struct os_take *take, const struct os_output *out,
                     struct os_result *result, struct failure *f)
{
    struct buf text;
    buf_init(&text, EVIDENCE_MAX_BYTES);
    int e = os_logs_capture("", &take->process, take->from_us, take->to_us, &text, result->missing,
                            sizeof result->missing, f);
    if (!e)
        e = os_output_file(out, "txt", buf_span(&text), f);
    buf_done(&text);
    return e;
}

static const struct kind {
    const char *name;
    take_fn take;
} kinds[] = {
    {"triage", take_triage},
    {"stacks", take_stacks},
    {"logs", take_logs},
    {"profile", os_profile_capture},
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

static int write_all(int fd, const void *data, size_t size_bytes)
{
    const char *at = data;
    while (size_bytes > 0) {
        uv_fs_t request;
        size_t some = size_bytes < 65536 ? size_bytes : 65536;
        uv_buf_t piece = uv_buf_init((char *)at, (unsigned)some);
        int n = uv_fs_write(NULL, &request, fd, &piece, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        if (n == UV_EINTR)
            continue;
        if (n <= 0)
            return ERR_IO;
        at += n;
        size_bytes -= (size_t)n;
    }
    return 0;
}

static int write_chunk(int fd, enum broker_chunk_type type, struct span bytes, struct failure *f)
{
    struct broker_chunk head = {BROKER_MAGIC, type, (uint32_t)bytes.size_bytes};
    if (write_all(fd, &head, sizeof head) || write_all(fd, bytes.data, bytes.size_bytes))
        return fail(f, ERR_CLOSED, "cannot hand over the evidence");
    return 0;
}

static int begin_file(void *context, const char *ending, struct failure *f)
{
    const struct worker_job *job = context;
    struct broker_file file = {{0}, {0}};
    text_copy(file.ending, sizeof file.ending, ending);
    return write_chunk(job->output_fd, BROKER_CHUNK_FILE, span_of(&file, sizeof file), f);
}

static int write_bytes(void *context, struct span bytes, struct failure *f)
{
    const struct worker_job *job = context;
    while (bytes.size_bytes > 0) {
        size_t some =
            bytes.size_bytes < BROKER_CHUNK_MAX ? bytes.size_bytes : (size_t)BROKER_CHUNK_MAX;
        int e = write_chunk(job->output_fd, BROKER_CHUNK_DATA, span_of(bytes.data, some), f);
        if (e)
            return e;
        bytes = span_of(bytes.data + some, bytes.size_bytes - some);
    }
    return 0;
}

static void work(const struct worker_job *job, struct worker_outcome *outcome)
{
    struct failure f = {0};
    const struct broker_run *run = &job->run;
    struct os_output out = {begin_file, write_bytes, (void *)job};
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
    outcome->error = worker_take(run->kind, &take, &out, &outcome->result.taken, &f);
    if (outcome->error)
        text_copy(outcome->text, sizeof outcome->text, f.text);
}

int worker_main(void *context)
{
    const struct worker_job *job = context;
    struct worker_outcome *outcome = calloc(1, sizeof *outcome);
    if (!outcome)
        return 1;
    os_be_nice();
    work(job, outcome);
    int e = write_all(job->result_fd, outcome, sizeof *outcome);
    free(outcome);
    return e ? 1 : 0;
}
