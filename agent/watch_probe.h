/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source "probes": asks what the setting `probe` names whether it still answers
 * (probe_rules.h). Tells HANG once when it does not, with the process that owns the port, and an
 * event when it does again. Invariant: while something hangs, at most one connection of ours waits
 * at it (those of the failures before it are closed), renewed once a minute. A row of sources.c.
 */
#ifndef TRAWL_AGENT_WATCH_PROBE_H
#define TRAWL_AGENT_WATCH_PROBE_H

#include "agent/sources.h"

/* ERR_INVALID: a rule that cannot be read; none is asked then. */
int watch_probe_open(void **out, const struct source_context *context, struct failure *f);
void watch_probe_close(void *source);

#endif
