/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `trawl-agent crash-handler status`: what stands in the kernel, who listens, what waits to be
 * told. Invariant: changes nothing. Called by crash_command.
 */
#ifndef TRAWL_AGENT_CRASH_STATUS_H
#define TRAWL_AGENT_CRASH_STATUS_H

#include "agent/crash_config.h"
#include "agent/settings.h"

/* In crash_command.c: whether a core pattern leads to a trawl-agent; `config` NULL: not known. */
bool crash_is_ours(const char *pattern, const struct crash_config *config);
/* The path in "@PATH" or "@@PATH"; NULL: it leads to no socket. */
const char *crash_socket_of(const char *pattern);

int crash_status(const struct settings *settings, struct failure *f);

#endif
