/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few of many hosts, spread evenly over the values of a label. Pure. Called by ops_incidents.c.
 */
#ifndef TRAWL_COLLECTOR_SAMPLE_H
#define TRAWL_COLLECTOR_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

struct sample_host {
    const char *name;
    const char *value; /* of the label; "" when it has none, which counts as a value */
    bool online;
    size_t index; /* the caller's */
};

/*
 * Puts `wanted` of the hosts to the front, the rest behind in no order, and returns how many were
 * wanted and there (0 of some: out of memory). Each value gets as many as any other, as far as it
 * has them; of one value those that are online come first, and which of them is decided by `seed`:
 * the same for the same seed.
 */
size_t sample_hosts(struct sample_host *hosts, size_t count, size_t wanted, struct span seed);

#endif
