/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions that applications report themselves, as datagrams to a local socket. Invariant: who
 * reports is what the kernel says, never what the report says; a sender never waits for more than
 * the socket's queue; what is above a user's rate or cannot be read is counted and the count told.
 * A row in sources.c.
 */
#ifndef TRAWL_AGENT_INTAKE_H
#define TRAWL_AGENT_INTAKE_H

#include "agent/sources.h"

int intake_open(void **out, const struct source_context *context, struct failure *f);
void intake_second(void *source);
void intake_close(void *source);

#endif
