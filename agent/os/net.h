/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every socket of a process, with queues and what the kernel knows of its connections
 * (sock_diag(7), tcp(7)), listen backlogs and drops. No stop. Worker only. Files: "txt", "json".
 */
#ifndef TRAWL_AGENT_OS_NET_H
#define TRAWL_AGENT_OS_NET_H

#include "agent/os/take.h"

/* ERR_GONE, ERR_DENIED, ERR_NOTFOUND (it has no socket). */
int os_net_capture(const struct os_take *take, const struct os_output *out,
                   struct os_result *result, struct failure *f);

#endif
