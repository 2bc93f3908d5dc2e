/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `trawl-agent crash-listen`: takes crashes from the kernel over a socket, with the agent alive or
 * dead. Invariant: it is a process of its own that speaks to nobody but the kernel. Called by main.
 */
#ifndef TRAWL_AGENT_CRASH_LISTEN_H
#define TRAWL_AGENT_CRASH_LISTEN_H

#include "agent/settings.h"

/* Until SIGTERM or SIGINT. ERR_DENIED, ERR_INUSE, ERR_UNSUPPORTED, ERR_INVALID. */
int crash_listen(const struct settings *settings, struct failure *f);
void crash_listen_help(void);

#endif
