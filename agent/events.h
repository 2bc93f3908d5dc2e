/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened on this host, as it is noticed: processes that came and went, kernel messages, the
 * agent's own doings. Invariant: what one second brings beyond EVENTS_PER_SECOND is counted, and
 * the count is an event itself. Called by agent, sampler's hooks, capture, uplink.
 */
#ifndef TRAWL_AGENT_EVENTS_H
#define TRAWL_AGENT_EVENTS_H

#include "agent/os/counters.h"
#include "agent/os/host.h"
#include "agent/spool.h"
#include "common/clock.h"

#define EVENTS_PER_SECOND 100

struct events;

/* Borrows spool and clock; `added` (may be NULL) is called after an event was kept. Takes `log`
 * (may be NULL: no kernel messages). */
int events_open(struct events **out, struct spool *spool, struct clock *clock,
                struct os_kernel_log *log, void (*added)(void *context), void *context);
void events_close(struct events *events);

void events_add(struct events *events, trawl_v1_EventType type, const char *process, uint32_t pid,
                const char *format, ...) TRAWL_PRINTF(5, 6);
/* A process start or exit, as os_counters_on_process() tells it; `context` is the struct events. */
void events_on_process(void *context, const struct os_process_change *change);
/* Once a second: reads new kernel messages, reports what was too much. */
void events_tick(struct events *events);

/* Who hears of what is read and noticed, besides; members may be NULL. */
struct events_listener {
    void (*kernel)(void *context, const struct os_kernel_message *message);
    void (*process)(void *context, const struct os_process_change *change);
    void *context;
};
#define EVENTS_LISTENERS 4
/* Borrows until events_forget() of the same. ERR_LIMIT: more than EVENTS_LISTENERS. */
int events_listen(struct events *events, const struct events_listener *listener);
void events_forget(struct events *events, const struct events_listener *listener);

/* The log of the kernel that is read; NULL: none. */
const struct os_kernel_log *events_kernel_log(const struct events *events);
/* Reads what is there now; how many messages (at most OS_KERNEL_LOG_MOST). */
size_t events_read_kernel(struct events *events);

#endif
