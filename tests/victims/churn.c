/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that is never the same: threads are born and end all the time, each checks that a
 * computation with floating point and registers gives what it must. A line on its input is answered
 * by "BORN WRONG". Started by tests of the os layer.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define LINES 3

static _Atomic unsigned long born, wrong;

static double compute(double x)
{
    double sum = 0;
    for (int i = 1; i < 2000; i++)
        sum += x / i - x / (i + 1);
    return sum;
}

static void *short_life(void *argument)
{
    double expected = *(double *)argument, got = compute(3.25);
    if (memcmp(&got, &expected, sizeof got) != 0)
        wrong++;
    return NULL;
}

static void *breeder(void *argument)
{
    for (;;) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, short_life, argument) != 0)
            continue;
        born++;
        pthread_join(thread, NULL);
    }
    return NULL;
}

int main(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    double expected = compute(3.25);
    for (int i = 0; i < LINES; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, breeder, &expected);
    }
    puts("ready");
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        printf("%lu %lu\n", born, wrong);
        fflush(stdout);
    }
    for (;;)
        pause();
}
