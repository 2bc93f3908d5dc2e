/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stop.c (finding, seizing), stop_hold.c (holding, releasing) and stop_run.c (the tracing
 * threads) have in common. All of it runs on the thread that traces. Included by those alone.
 */
#ifndef TRAWL_AGENT_OS_LINUX_STOP_PRIVATE_H
#define TRAWL_AGENT_OS_LINUX_STOP_PRIVATE_H

#include "agent/os/linux/stop.h"

/* *hint: where it was found last, or 0. */
struct stop_thread *stop_find_thread(struct stop *stop, pid_t tid, size_t *hint);
/* NULL when there is no room. */
struct stop_thread *stop_add_thread(struct stop *stop, pid_t tid, enum stop_state state);

/* *fresh: it had not been ours. Its state says whether it is now. */
int stop_seize_thread(struct stop *stop, struct stop_thread *thread, bool *fresh,
                      struct failure *f);
int stop_seize_all(struct stop *stop, struct failure *f);

void stop_hold_all(struct stop *stop);
/* Waits until the thread is held or has ended; leaves it as it is when the time has come. */
void stop_settle(struct stop *stop, struct stop_thread *thread, uint64_t until_us);

void stop_release_all(struct stop *stop);
/* Lets go of threads that stopped after all, too late or as children of another process; those that
 * still have not are looked at only. Safe in a signal handler. */
void stop_release_late_all(struct stop *stop);
/* As that, but waits for them: what was interrupted and is left before it stops gets EINTR. */
void stop_await_late(struct stop *stop, uint64_t until_us);

#endif
