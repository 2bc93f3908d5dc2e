/* SPDX-License-Identifier: Apache-2.0 */
/* Times as they were measured, and what is said of them. Used by all parts of the farm. */
#ifndef TRAWL_BENCH_FARM_FIGURES_H
#define TRAWL_BENCH_FARM_FIGURES_H

#include <stddef.h>
#include <stdint.h>

struct figures {
    uint64_t *us;
    size_t count, capacity;
};

void figures_add(struct figures *figures, uint64_t us);
void figures_clear(struct figures *figures);
void figures_done(struct figures *figures);
/* The value below which this fraction lies (0.5: the median; 1: the largest), ms. 0 without any. */
double figures_ms(struct figures *figures, double fraction);

#endif
