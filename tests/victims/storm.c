/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim in a storm of signals: one thread queues numbered real-time signals to others as fast as
 * they are taken, and SIGCHLD is counted besides. A line on its input ends the storm; the answer is
 * "SENT RECEIVED OUT_OF_ORDER SIGCHLD". Started by tests of the os layer.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define RECEIVERS 4
#define OUTSTANDING 16

static _Atomic unsigned long sent, received, out_of_order, children;
static _Atomic int stopping;
static pthread_t receivers[RECEIVERS];
static __thread int last_number = -1;

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_value.sival_int <= last_number)
        out_of_order++;
    last_number = info->si_value.sival_int;
    received++;
}

static void on_child(int number)
{
    (void)number;
    children++;
}

/* Half compute and half sleep, so that signals come to both. */
static void *receiver(void *argument)
{
    struct timespec nap = {0, 50000};
    for (;;) {
        if (argument)
            nanosleep(&nap, NULL);
    }
    return NULL;
}

static void *sender(void *argument)
{
    (void)argument;
    for (int i = 0; !stopping; i++) {
        union sigval value = {.sival_int = i};
        if (pthread_sigqueue(receivers[i % RECEIVERS], SIGRTMIN, value) == 0)
            sent++;
        while (sent - received > OUTSTANDING && !stopping)
            sched_yield();
    }
    return NULL;
}

int main(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGRTMIN, &action, NULL);
    signal(SIGCHLD, on_child);
    for (long i = 0; i < RECEIVERS; i++)
        pthread_create(&receivers[i], NULL, receiver, (void *)(i % 2));
    pthread_t thread;
    pthread_create(&thread, NULL, sender, NULL);
    puts("ready");
    fflush(stdout);
    char line[16];
    if (!fgets(line, sizeof line, stdin))
        return 0;
    stopping = 1;
    pthread_join(thread, NULL);
    /* What was sent is queued already: a receiver takes it when it next runs. */
    for (int i = 0; i < 30000 && received < sent; i++)
        usleep(1000);
    printf("%lu %lu %lu %lu\n", sent, received, out_of_order, children);
    fflush(stdout);
    for (;;)
        pause();
}
