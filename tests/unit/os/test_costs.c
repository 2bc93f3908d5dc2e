/* SPDX-License-Identifier: Apache-2.0 */
/*
 * That what pauses cost can be measured, and leaves nothing behind.
 */
#include "agent/os/costs.h"

#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/check.h"

TEST(costs_are_measured)
{
    struct os_costs costs;
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    os_costs_measure(&costs);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("      %ld ms: stop %u us, thread %u us, MiB %u us, snapshot %u us, GiB %u us, huge %u "
           "us\n",
           (long)(ended.tv_sec - began.tv_sec) * 1000 + (ended.tv_nsec - began.tv_nsec) / 1000000,
           costs.stop_us, costs.thread_us, costs.copy_mib_us, costs.snapshot_us, costs.table_gib_us,
           costs.huge_table_gib_us);
    CHECK(costs.stop_us > 0 && costs.thread_us > 0 && costs.copy_mib_us > 0);
    CHECK(costs.snapshot_us > 0 && costs.table_gib_us > costs.huge_table_gib_us);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}
