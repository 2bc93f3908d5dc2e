/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What somebody wants of the next crash of a group ("trawl want"), as the agent left it in the
 * spool. Two looks: before the process is read, whether anything may be wanted at all, since then
 * its memory must not be let go yet; after, with its full name, build-id and site, whether this one
 * is meant. Invariant: a crash that cannot give what is wanted uses nothing up. Called by
 * crash_handler.c.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/crash_private.h"
#include "agent/watcher_private.h"
#include "common/text.h"
#include "proto/codec.h"

#define COMM_CUT 15 /* the kernel cuts names of programs there (TASK_COMM_LEN) */

/* Its full name is known only once it was read. */
static bool may_be_named(const char *wanted, const char *seen)
{
    return !wanted[0] || strcmp(wanted, seen) == 0 ||
           (strlen(seen) == COMM_CUT && strncmp(wanted, seen, COMM_CUT) == 0);
}

static bool may_be_wanted(const trawl_v1_Want *want, const struct os_exception *e)
{
    return want->source == trawl_v1_ExceptionSource_CRASH && want->left > 0 &&
           (!want->type[0] || strcmp(want->type, e->type) == 0) &&
           may_be_named(want->process, e->process);
}

static bool asks_for_core(const trawl_v1_Want *want)
{
    for (size_t i = 0; i < want->what_count; i++)
        if (strcmp(want->what[i], "core") == 0)
            return true;
    return false;
}

void crash_wants_read(struct crash_job *job)
{
    struct buf data;
    size_t kept = 0;
    buf_init(&data, trawl_v1_Wants_size);
    trawl_v1_Wants *wants = crash_spool_get(&job->spool, "wants", &data) == 0 && data.size_bytes
                                ? calloc(1, sizeof *wants)
                                : NULL;
    if (wants && codec_get_wants(wants, buf_span(&data), NULL) == 0)
        for (size_t i = 0; i < wants->list_count; i++)
            if (may_be_wanted(&wants->list[i], job->exception)) {
                wants->list[kept] = wants->list[i];
                job->may_want_core |= asks_for_core(&wants->list[kept++]);
            }
    buf_done(&data);
    if (kept == 0) {
        free(wants);
        return;
    }
    wants->list_count = (pb_size_t)kept;
    job->wants = wants;
}

static bool is_meant(const struct crash_job *job, const trawl_v1_Want *want)
{
    const struct os_exception *e = job->exception;
    uint8_t id[OS_BUILD_ID_SIZE];
    if (want->process[0] && strcmp(want->process, e->process) != 0)
        return false;
    if (want->build_id.size == 0)
        return true;
    return os_crash_build_id(job->crash, id, sizeof id) == want->build_id.size &&
           memcmp(id, want->build_id.bytes, want->build_id.size) == 0;
}

static bool give(struct crash_job *job, const trawl_v1_Want *want)
{
    struct crash_given given = {.asked_us = want->asked_us, .left = want->left};
    uint64_t weak = 0;
    os_crash_site(job->crash, &weak, &given.site);
    text_copy(given.group, sizeof given.group, want->group);
    memcpy(given.id, job->arguments.id, sizeof given.id);
    return crash_table_give(&job->spool, &given);
}

void crash_wants_decide(struct crash_job *job, bool with_memory)
{
    for (size_t i = 0; job->wants && i < job->wants->list_count; i++) {
        const trawl_v1_Want *want = &job->wants->list[i];
        bool core = asks_for_core(want);
        if ((core && !with_memory) || !is_meant(job, want) || !give(job, want))
            continue;
        job->want_whole = true;
        job->want_core |= core;
    }
    free(job->wants);
    job->wants = NULL;
}
