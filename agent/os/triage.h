/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be said of a process without touching it: what it waits for and who could end that, its
 * state, threads with wait channel and system call, files and sockets with their other ends,
 * limits, control group, namespaces, signals. No stop. Worker only. Files: "txt" (what tells most
 * comes first), "json".
 */
#ifndef TRAWL_AGENT_OS_TRIAGE_H
#define TRAWL_AGENT_OS_TRIAGE_H

#include "agent/os/take.h"

/* ERR_GONE; what could not be read, and why, is in result->missing. */
int os_triage_capture(const struct os_take *take, const struct os_output *out,
                      struct os_result *result, struct failure *f);

#endif
