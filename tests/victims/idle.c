/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that does nothing: prints "ready" and sleeps until it is killed, or until its parent is.
 * Started by tests of the os layer.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}
