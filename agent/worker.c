/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's main function and the table of kinds it can take. Invariant: nothing is written
 * before the target was let go, so a slow reader never lengthens a pause. Called in a child of the
 * broker.
 */
#include "agent/worker.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "agent/os/logs.h"
#include "agent/os/privilege.h"
#include "agent/os/triage.h"
#include "common/buf.h"
#include "common/port.h"
#include "common/text.h"

#define EVIDENCE_MAX_BYTES ((size_t)16 * 1024 * 1024)
#define SPIN_US 1500 /* the last bit before an asked instant is waited awake */

/* ---- kinds ---- */

typedef int (*take_fn)(const struct worker_job *job, struct buf *out,
                       struct os_stacks_result *result, struct failure *f);

static int take_triage(const struct worker_job *job, struct buf *out,
                       struct os_stacks_result *result, struct failure *f)
{
    result->threads = job->process.threads;
    return os_triage_capture("", &job->process, out, result->missing, sizeof result->missing, f);
}

static int take_stacks(const struct worker_job *job, struct buf *out,
                       struct os_stacks_result *result, struct failure *f)
{
    return os_stacks_capture(&job->process, job->run.pause_max_us, out, result, f);
}

static int take_logs(const struct worker_job *job, struct buf *out, struct os_stacks_result *result,
                     struct failure *f)
{
    return os_logs_capture("", &job->process, job->run.from_us, job->run.to_us, out,
                           result->missing, sizeof result->missing, f);
}

static const struct kind {
    const char *name;
    take_fn take;
} kinds[] = {{"triage", take_triage}, {"stacks", take_stacks}, {"logs", take_logs}};

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

static void take(const struct worker_job *job, struct buf *out, struct worker_outcome *outcome)
{
    struct failure f = {0};
    const struct kind *kind = find_kind(job->run.kind);
    if (!kind) {
        outcome->error =
            fail(&f, ERR_UNSUPPORTED, "kind '%s' is not known to this agent", job->run.kind);
    } else {
        if (job->run.at_mono_us)
            wait_until(job->run.at_mono_us);
        outcome->result.began_mono_us = port_mono_us();
        outcome->error = kind->take(job, out, &outcome->result.stacks, &f);
    }
    if (outcome->error)
        text_copy(outcome->text, sizeof outcome->text, f.text);
}

int worker_main(void *context)
{
    const struct worker_job *job = context;
    struct worker_outcome *outcome = calloc(1, sizeof *outcome);
    struct buf out;
    if (!outcome)
        return 1;
    buf_init(&out, EVIDENCE_MAX_BYTES);
    os_be_nice();
    take(job, &out, outcome);
    if (!outcome->error && write_all(job->output_fd, out.data, out.size_bytes)) {
        outcome->error = ERR_IO;
        text_copy(outcome->text, sizeof outcome->text, "cannot hand over the evidence");
    }
    int e = write_all(job->result_fd, outcome, sizeof *outcome);
    buf_done(&out);
    free(outcome);
    return e ? 1 : 0;
}
