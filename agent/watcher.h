/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions on their way out. Every source reports here; what is the same is counted together,
 * what two sources say of one death is told once, and the rest goes numbered into the events ring,
 * so that it survives us and reaches the collector in order. Invariant: the counts of what goes out
 * add up to what was reported: nothing is dropped without being counted. Called by the sources, on
 * the loop thread.
 */
#ifndef TRAWL_AGENT_WATCHER_H
#define TRAWL_AGENT_WATCHER_H

#include "agent/os/exception.h"
#include "agent/spool.h"
#include "common/clock.h"

/*
 * The first WATCHER_WHOLE of the same content in a minute go out at once, each by itself; later
 * ones are told together, once a second. At most WATCHER_KINDS different contents are kept apart;
 * beyond that, the oldest is told and forgotten.
 */
#define WATCHER_WHOLE 3
#define WATCHER_KINDS 512

struct watcher;

/* Borrows all. `added` (may be NULL) is called after something was put into the ring. */
int watcher_open(struct watcher **out, struct spool *spool, struct clock *clock,
                 void (*added)(void *context), void *context);
/* Tells what is held back. NULL is fine. */
void watcher_close(struct watcher *watcher);

/* Copies. What is not set of id, times, count and template is filled in. */
void watcher_report(struct watcher *watcher, const struct os_exception *exception);
/* Something better is under way on this process' end and will be reported for certain: what waits
 * for it waits on, for WATCHER_EXPECT_US from the last time that this was said. */
#define WATCHER_EXPECT_US UINT64_C(10000000)
void watcher_expect(struct watcher *watcher, uint32_t pid);
/* Who hears of each exception besides, once it is certain that it will be told. One at most. */
void watcher_listen(struct watcher *watcher,
                    void (*heard)(void *context, const trawl_v1_Exception *exception),
                    void *context);
/* Once a second. */
void watcher_tick(struct watcher *watcher);
/* `holds` is called when something begins to wait for a better source: watcher_look() is then due
 * every WATCHER_LOOK_MS until it returns false. Without, the tick looks. */
#define WATCHER_LOOK_MS 100
void watcher_on_hold(struct watcher *watcher, void (*holds)(void *context), void *context);
/* Tells what has waited long enough; true while something still waits. */
bool watcher_look(struct watcher *watcher);

/*
 * Masks what changes from one occurrence to the next: numbers, hexadecimal words, UUIDs, addresses,
 * quoted texts and paths' last parts become "<n>", "<x>", "<id>", "<a>", "<s>". Pure.
 */
void watcher_mask(const char *message, char *out, size_t size_bytes);

#endif
