/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames of one throw from its copied registers and stack. Worker only; called by
 * throws_look.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_THROWS_STACK_H
#define TRAWL_AGENT_OS_LINUX_THROWS_STACK_H

#include "agent/os/linux/maps.h"
#include "agent/os/linux/throws_probe.h"
#include "agent/os/linux/throws_set.h"
#include "agent/os/linux/unwind.h"

/*
 * Fills sample->frames (room for THROWS_FRAMES_MAX), frame_count, key and why. Innermost is who
 * threw: __cxa_throw itself is left out. `unwind` NULL: only the address of who threw. True: some
 * address is in no mapping that is known: the map has changed.
 */
bool throws_stack(struct unwind *unwind, const struct maps *maps, const struct throws_hit *hit,
                  struct throws_sample *sample);

#endif
