/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim of which one thread waits in vfork(2), uninterruptibly, until its child, which says
 * "ready" and sleeps, is gone. Started by tests of the os layer.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static void *waiter(void *argument)
{
    static const char ready[] = "ready\n";
    (void)argument;
    prctl(PR_SET_NAME, "forker");
    if (vfork() == 0) {
        struct timespec hour = {3600, 0};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (write(1, ready, sizeof ready - 1) < 0)
            _exit(1);
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
    for (;;)
        pause();
}
