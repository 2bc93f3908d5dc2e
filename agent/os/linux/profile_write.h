/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A finished profile as files: pprof, folded stacks and flame graphs, on and off the CPU. Called by
 * profile.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PROFILE_WRITE_H
#define TRAWL_AGENT_OS_LINUX_PROFILE_WRITE_H

#include "agent/os/linux/profile_set.h"
#include "agent/os/take.h"

struct profile_about {
    const char *process;
    uint32_t pid;
    int64_t wall_us; /* when it began */
    uint64_t took_us;
    uint32_t hz;
};

/* Files that would be empty are left out. What does not fit is added to result->missing. */
int profile_write(struct profile_set *set, const struct profile_about *about,
                  const struct os_output *out, struct os_result *result, struct failure *f);

#endif
