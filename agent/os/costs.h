/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pause costs on this host, so that it can be predicted before anything is touched. Measured
 * once by the broker at its start, on a child of its own and of known size; never on anybody else.
 */
#ifndef TRAWL_AGENT_OS_COSTS_H
#define TRAWL_AGENT_OS_COSTS_H

#include <stdint.h>

struct os_costs {
    uint32_t stop_us;           /* of any stop */
    uint32_t thread_us;         /* of one thread, its registers included */
    uint32_t copy_mib_us;       /* of copying a MiB out of a process */
    uint32_t snapshot_us;       /* of a snapshot of nothing */
    uint32_t table_gib_us;      /* of copying the page tables of a GiB of small pages */
    uint32_t huge_table_gib_us; /* the same, of huge pages */
};

/* What was measured elsewhere (2 cores, Linux 6.18): never fails. */
void os_costs_default(struct os_costs *costs);
/* Measures: tens of ms, at most 64 MiB for that time, in a child that ends. What cannot be measured
 * stays at its default. */
void os_costs_measure(struct os_costs *costs);

#endif
