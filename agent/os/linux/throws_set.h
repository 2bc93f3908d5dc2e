/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was thrown, counted by type and place (who calls __cxa_throw), with a few stacks of each.
 * Invariant: every throw is in exactly one count; every table has a limit, and what does not fit is
 * counted as `others`. Pure. Called by throws*.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_THROWS_SET_H
#define TRAWL_AGENT_OS_LINUX_THROWS_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/os/exception.h"
#include "common/err.h"

#define THROWS_GROUPS_MAX 1024
#define THROWS_SAMPLES_MAX 8 /* different stacks that are kept of a group */
#define THROWS_WHOLE 3       /* so many are looked at by themselves, and then one a second */
#define THROWS_FRAMES_MAX 64
#define THROWS_SECOND_NS UINT64_C(1000000000)

struct throws_sample {
    uint64_t key; /* of its addresses */
    uint64_t seen;
    uint32_t tid;
    struct os_frame *frames; /* innermost first */
    uint32_t frame_count;
    const char *why; /* why there are no more; NULL: they are all there */
};

struct throws_group {
    uint64_t type, place; /* addresses in the process */
    char name[256];       /* of the type, as people write it */
    uint64_t count;
    uint64_t waiting; /* not told yet (watch) */
    uint64_t first_ns, last_ns;
    uint64_t waiting_first_ns;
    uint32_t tid; /* of the newest */
    uint64_t looked, looked_ns;
    struct throws_sample samples[THROWS_SAMPLES_MAX];
    uint32_t sample_count, newest_sample;
};

struct throws_set {
    struct throws_group *list;
    size_t count, capacity;
    uint64_t others; /* of groups for which there was no room */
};

void throws_set_init(struct throws_set *set);
void throws_set_done(struct throws_set *set);

/* The group of a throw, with it counted; NULL: no room, counted as others. `*fresh`: it has just
 * been made and has no name yet. Pointers to groups are good until the next call. */
struct throws_group *throws_set_count(struct throws_set *set, uint64_t type, uint64_t place,
                                      uint64_t ns, uint32_t tid, bool *fresh);
/* Whether the stack of a throw now should be looked at; if so, it counts as looked at. */
bool throws_set_look(struct throws_group *group, uint64_t ns);
/*
 * Adds a stack. Equal ones are kept once. Copies the frames; ERR_NOMEM. ERR_LIMIT: the group has
 * its fill of different ones (the oldest stay).
 */
int throws_set_sample(struct throws_group *group, const struct throws_sample *sample);
/* Most thrown first. */
void throws_set_sort(struct throws_set *set);
uint64_t throws_set_total(const struct throws_set *set);

#endif
