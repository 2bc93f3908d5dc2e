/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of exceptions that looks after the crash listener: while the kernel is told to hand
 * crashes to its socket and nobody listens there, crashes leave no evidence, and somebody must
 * know. Invariant: told once for each time that it is so. A row in sources.c.
 */
#ifndef TRAWL_AGENT_CRASH_GUARD_H
#define TRAWL_AGENT_CRASH_GUARD_H

#include "agent/sources.h"

#define CRASH_GUARD_EVERY_S 5

int crash_guard_open(void **out, const struct source_context *context, struct failure *f);
void crash_guard_second(void *source);
void crash_guard_close(void *source);

#endif
