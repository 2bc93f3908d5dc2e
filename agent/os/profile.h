/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a process spends its time: samples of all its threads over take->for_us, without a stop.
 * Worker only. Files: "pb.gz" (pprof: samples, cpu and off), "folded" (in samples), "svg" (flame
 * graph), and "off.folded" (in microseconds), "off.svg" for time off the CPU. What would be empty
 * is left out: see result->missing.
 */
#ifndef TRAWL_AGENT_OS_PROFILE_H
#define TRAWL_AGENT_OS_PROFILE_H

#include "agent/os/take.h"

#define OS_PROFILE_HZ 99
#define OS_PROFILE_FOR_DEFAULT_US UINT64_C(10000000)
#define OS_PROFILE_FOR_MAX_US UINT64_C(60000000)

/* result->missing says which way was gone when it was not the best one (perf events). ERR_GONE,
 * ERR_DENIED, ERR_NOTFOUND (no thread ran in that time and none waited: says so). */
int os_profile_capture(const struct os_take *take, const struct os_output *out,
                       struct os_result *result, struct failure *f);

#endif
