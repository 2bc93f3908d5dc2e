/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C++ throws of the processes that the setting `throws` names, found again after a restart, each
 * watched by a child of the broker. Invariant: what comes from a child is checked before it is
 * used; a process is never watched twice. A row in sources.c.
 */
#ifndef TRAWL_AGENT_SOURCE_THROWS_H
#define TRAWL_AGENT_SOURCE_THROWS_H

#include "agent/sources.h"

int source_throws_open(void **out, const struct source_context *context, struct failure *f);
void source_throws_second(void *source);
void source_throws_close(void *source);

#endif
