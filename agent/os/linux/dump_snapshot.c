/* SPDX-License-Identifier: Apache-2.0 */
/*
 * placeholder until the twin is there
 */
#include "agent/os/linux/dump_linux.h"
int dump_core_snapshot(struct dump *d, bool *impossible, struct failure *f)
{
    (void)d;
    *impossible = true;
    return fail(f, ERR_REFUSED, "no snapshot yet");
}
