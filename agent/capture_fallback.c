/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is taken instead of a kind that cannot be taken, when the order allows it: always the same
 * chain, from much to little. Invariant: what was asked for and why it is not there is said in the
 * artifact and in the verdict. Called by capture_job.c.
 */
#include "agent/capture_private.h"

#include <string.h>

#include "common/text.h"

static const struct link {
    const char *kind;
    bool live;
} chain[] = {
    {"core", false},   {"core", true},     {"mini", false},
    {"stacks", false}, {"stacks0", false}, {"triage", false},
};
#define CHAIN (sizeof chain / sizeof chain[0])

/* A reason that another kind may not have. */
static bool is_replaceable(int code)
{
    return code == ERR_REFUSED || code == ERR_UNSUPPORTED || code == ERR_TIMEOUT ||
           code == ERR_DENIED;
}

static bool is_asked(const trawl_v1_Order *order, const char *kind)
{
    for (size_t i = 0; i < order->what_count; i++)
        if (strcmp(order->what[i], kind) == 0)
            return true;
    return false;
}

static size_t find(const char *kind, bool live)
{
    size_t i = 0;
    while (i < CHAIN && (strcmp(chain[i].kind, kind) != 0 || chain[i].live != live))
        i++;
    return i;
}

bool fallback_exists(const trawl_v1_Order *order, const char *kind)
{
    return order->fallback && find(kind, false) + 1 < CHAIN;
}

bool fallback_take(const trawl_v1_Order *order, struct job *job, const struct failure *why)
{
    if (!order->fallback || !job->process.pid || !is_replaceable(why->code))
        return false;
    bool is_live = strcmp(job->kind, "core") == 0 && (job->live || order->live);
    size_t i = find(job->kind, is_live);
    const char *asked = job->instead_of[0] ? job->instead_of : job->kind;
    do
        i++;
    while (i < CHAIN && strcmp(chain[i].kind, asked) != 0 && is_asked(order, chain[i].kind));
    if (i >= CHAIN)
        return false;
    if (!job->instead_of[0]) {
        text_copy(job->instead_of, sizeof job->instead_of, job->kind);
        job->why = *why;
    }
    text_copy(job->kind, sizeof job->kind, chain[i].kind);
    job->live = chain[i].live;
    return true;
}

void fallback_note(const struct job *job, trawl_v1_Artifact *meta)
{
    char missing[sizeof meta->missing];
    if (!job->instead_of[0])
        return;
    text_copy(missing, sizeof missing, meta->missing);
    (void)text_format(meta->missing, sizeof meta->missing, "instead of %s: %s%s%s", job->instead_of,
                      job->why.text, missing[0] ? "; " : "", missing);
}
