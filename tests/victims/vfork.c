/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim of which one thread waits in vfork(2), uninterruptibly, until its child, which only
 * sleeps, is gone. Started by tests of the os layer.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static void *waiter(void *argument)
{
    (void)argument;
    if (vfork() == 0) {
        struct timespec hour = {3600, 0};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        nanosleep(&hour, NULL);
        _exit(0);
    }
    return NULL;
}

int main(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pthread_t thread;
    pthread_create(&thread, NULL, waiter, NULL);
    pthread_setname_np(thread, "forker");
    usleep(20000);
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}
