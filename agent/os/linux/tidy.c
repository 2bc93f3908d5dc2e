/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tidying after a worker that was killed: the twin died with it, and is a zombie of the process
 * until the process is made to reap it. Called by the broker's second worker.
 */
#include "agent/os/dump.h"
#include "agent/os/linux/snapshot.h"

int os_tidy(const struct os_process *process, uint64_t born_after_ticks, struct failure *f)
{
    int reaped = snapshot_tidy(process, born_after_ticks, f);
    return reaped < 0 ? reaped : 0;
}
