/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source "processes": those named by the setting `follow` are held by a descriptor each, so
 * that their end is noticed at once and its status known, and whoever comes in their place is
 * found. Tells PROCESS_EXIT when one ends badly, HANG when one stands still (watch_stall.h), and
 * events of what came back and how long it took. A row of sources.c.
 *
 * An end is bad unless it is exit 0, a signal by which people and supervisors stop programs
 * (SIGTERM, SIGINT, SIGHUP), or the exit code that a shell makes of those (143, 130, 129).
 */
#ifndef TRAWL_AGENT_WATCH_PROCESS_H
#define TRAWL_AGENT_WATCH_PROCESS_H

#include "agent/os/watch.h"
#include "agent/sources.h"

#define WATCH_PROCESSES 64

int watch_process_open(void **out, const struct source_context *context, struct failure *f);
void watch_process_second(void *source);
void watch_process_close(void *source);

/* ---- pure ---- */

bool watch_is_bad_exit(const struct os_exit *exit);
/* "exit 3", "killed by SIGKILL" */
void watch_exit_text(const struct os_exit *exit, char *out, size_t size_bytes);

#endif
