/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source "kernel": exceptions out of the kernel's messages. Reads them as soon as there are
 * any, but not oftener than WATCH_KERNEL_WAKES times a second, so that a flood of messages costs
 * little. A row of sources.c.
 */
#ifndef TRAWL_AGENT_WATCH_KERNEL_H
#define TRAWL_AGENT_WATCH_KERNEL_H

#include "agent/sources.h"

#define WATCH_KERNEL_WAKES 8

int watch_kernel_open(void **out, const struct source_context *context, struct failure *f);
void watch_kernel_second(void *source);
void watch_kernel_close(void *source);

#endif
