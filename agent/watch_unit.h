/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source "units": follows what systemd itself writes into the journal, by journalctl(1) with a
 * fixed path and fixed arguments. Needs a journal that the agent's user may read. A row of
 * sources.c.
 */
#ifndef TRAWL_AGENT_WATCH_UNIT_H
#define TRAWL_AGENT_WATCH_UNIT_H

#include "agent/sources.h"

int watch_unit_open(void **out, const struct source_context *context, struct failure *f);
void watch_unit_second(void *source);
void watch_unit_close(void *source);

#endif
