/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the watcher decides by: which content is the same, which source knows better. Pure. Private
 * to watcher*.c.
 */
#ifndef TRAWL_AGENT_WATCHER_PRIVATE_H
#define TRAWL_AGENT_WATCHER_PRIVATE_H

#include "agent/os/exception.h"
#include "trawl.pb.h"

/* Made safe to print; times, count, id and template filled in where they are not set. */
void watcher_fill(trawl_v1_Exception *out, const struct os_exception *in, int64_t wall_us,
                  uint64_t mono_us);
/* Equal for occurrences of equal content (not of equal time, thread or pid). Never 0. */
uint64_t watcher_content(const trawl_v1_Exception *e);

/* A hash of the unit's name; 0: none. */
uint64_t watcher_unit(const trawl_v1_Exception *e);
enum os_exception_source watcher_source(const trawl_v1_Exception *e);
/* Of sources that tell of the end of a process: the better knows more. 0: does not tell of one. */
int watcher_rank(enum os_exception_source source);
/* Whether a better source may be about to tell of the same. */
bool watcher_waits(const trawl_v1_Exception *e);
/* Whether something of this source, from a process not known, may be about the death `e`. */
bool watcher_may_be_of(enum os_exception_source source, const trawl_v1_Exception *e);
/* What only the weaker one knows goes over. */
void watcher_adopt(trawl_v1_Exception *to, const trawl_v1_Exception *weaker);

#endif
