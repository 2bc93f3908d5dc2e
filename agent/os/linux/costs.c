/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What pauses cost here. Called by the broker at its start and by tests.
 */
#include "agent/os/costs.h"

void os_costs_default(struct os_costs *costs)
{
    *costs = (struct os_costs){.stop_us = 100,
                               .thread_us = 25,
                               .copy_mib_us = 250,
                               .snapshot_us = 1000,
                               .table_gib_us = 15000,
                               .huge_table_gib_us = 1000};
}
