/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How promptly the loop thread comes round: everybody who is connected waits while one turn lasts.
 * A turn is the time from one poll to the next less the time spent waiting in it. Turns of over
 * PULSE_STALL_US are told in the log (a line in ten seconds); with the setting loop-report the
 * figures of every such time are. Loop thread; owned by collector.c.
 */
#ifndef TRAWL_COLLECTOR_PULSE_H
#define TRAWL_COLLECTOR_PULSE_H

#include <uv.h>

#include "common/err.h"

#define PULSE_STALL_US 50000

struct pulse;

/* Before the loop runs for the first time. report_us 0: no reports. */
int pulse_open(struct pulse **out, uv_loop_t *loop, uint64_t report_us, struct failure *f);
/* Closes its handles; the memory goes when the loop has run. NULL is fine. */
void pulse_close(struct pulse *pulse);

#endif
