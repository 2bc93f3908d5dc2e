/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process's own log in a window of time: the journal of its unit, or the log files that it has
 * open (or its output is redirected to). Worker only.
 */
#ifndef TRAWL_AGENT_OS_LOGS_H
#define TRAWL_AGENT_OS_LOGS_H

#include "agent/os/take.h"

/*
 * Gives "txt": lines whose time lies in [from_us, to_us] (host wall time), oldest first; lines
 * without a time of their own belong to the line above. A source without any recognisable times
 * gives its last 256 KiB and says so in result->missing. ERR_NOTFOUND: the process has no log that
 * can be found (says where was looked). Cut at 16 MiB, keeping the newest, said in result->missing.
 */
int os_logs_capture(const struct os_take *take, const struct os_output *out,
                    struct os_result *result, struct failure *f);

#endif
