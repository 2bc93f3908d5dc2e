/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time on the CPU from perf events: each sample's stack is unwound as it is read, and only its
 * places are kept. Worker only; called by profile.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PROFILE_PERF_H
#define TRAWL_AGENT_OS_LINUX_PROFILE_PERF_H

#include "agent/os/linux/perf_events.h"
#include "agent/os/linux/profile_code.h"

struct profile_perf {
    pid_t pid;
    struct profile_set *set;
    struct profile_code *code;
    struct perf_events events;
    uint64_t begin_ns; /* samples before are of the time when not all events were open */
    uint64_t period_ns;
    uint64_t samples, lost, damaged;
    bool no_kernel; /* the kernel's part is not permitted */
    bool executed;  /* it runs another program now */
};

/* Errors as perf_events_open(). */
int profile_perf_open(struct profile_perf *perf, struct profile_set *set, struct profile_code *code,
                      pid_t pid, uint32_t hz, struct failure *f);
void profile_perf_close(struct profile_perf *perf);

/* Takes in what the rings hold. ERR_NOMEM; ERR_CORRUPT. */
int profile_perf_drain(struct profile_perf *perf);
/* As events do: one record. For tests and fuzzing. */
int profile_perf_record(struct profile_perf *perf, struct span record);

#endif
