/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A profile as pprof's profile.proto (github.com/google/pprof, proto/profile.proto), before gzip:
 * sample types samples/count, cpu/nanoseconds and off/nanoseconds (waiting), labels "thread" and
 * "tid". Pure. Called by profile.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PPROF_H
#define TRAWL_AGENT_OS_LINUX_PPROF_H

#include "agent/os/linux/profile_set.h"

struct pprof_head {
    int64_t wall_us; /* when it began */
    uint64_t duration_ns, period_ns;
    const char *comment; /* what is missing; "" nothing */
};

/* Appends the message. Adds a few texts to the set. ERR_LIMIT: does not fit into out's limit;
 * ERR_NOMEM. */
int pprof_put(struct profile_set *set, const struct pprof_head *head, struct buf *out);

#endif
