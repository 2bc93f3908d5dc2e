/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process's own log in a window of time: the journal of its unit, or the log files that it has
 * open (or its output is redirected to). Worker only.
 */
#ifndef TRAWL_AGENT_OS_LOGS_H
#define TRAWL_AGENT_OS_LOGS_H

#include <stdint.h>

#include "agent/os/process.h"
#include "common/buf.h"
#include "common/err.h"

/*
 * Appends lines whose time lies in [from_us, to_us] (host wall time), oldest first; lines without a
 * time of their own belong to the line above. A source without any recognisable times gives its
 * last 256 KiB and says so in `missing`. ERR_NOTFOUND: the process has no log that can be found
 * (says where was looked). Cut at out's limit, keeping the newest, said in `missing`.
 */
int os_logs_capture(const char *root, const struct os_process *process, int64_t from_us,
                    int64_t to_us, struct buf *out, char *missing, size_t size_bytes,
                    struct failure *f);

#endif
