/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim of many threads: `threads COUNT` starts COUNT threads that sleep in victim_inner, called
 * by victim_middle, called by victim_outer, and one heartbeat thread that measures the longest time
 * in which it did not run. Each line on its input is answered by that time in microseconds since
 * the last line. Started by tests and benchmarks of the os layer.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static _Atomic uint64_t longest_us;
static volatile int depth_guard;

/* Each does something after its call, so that none becomes a jump. */
NOINLINE int victim_inner(int number)
{
    pthread_mutex_lock(&lock);
    while (!depth_guard)
        pthread_cond_wait(&never, &lock);
    pthread_mutex_unlock(&lock);
    return number + depth_guard;
}

NOINLINE int victim_middle(int number)
{
    return victim_inner(number) + depth_guard;
}

NOINLINE int victim_outer(int number)
{
    return victim_middle(number) + depth_guard;
}

static void *sleeper(void *argument)
{
    victim_outer((int)(intptr_t)argument);
    return NULL;
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

NOINLINE static void *heartbeat(void *argument)
{
    (void)argument;
    uint64_t last = now_us();
    for (;;) {
        uint64_t now = now_us();
        if (now - last > longest_us)
            longest_us = now - last;
        last = now;
    }
    return NULL;
}

static void start(void *(*run)(void *), int number, const char *name)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    if (pthread_create(&thread, &attributes, run, (void *)(intptr_t)number) != 0)
        exit(1);
    pthread_setname_np(thread, name);
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int count = argc > 1 ? atoi(argv[1]) : 1;
    int beats = argc > 2 ? atoi(argv[2]) : 0;
    for (int i = 0; i < count; i++)
        start(sleeper, i, "sleeper");
    if (beats)
        start(heartbeat, 0, "heartbeat");
    puts("ready");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        printf("%llu\n", (unsigned long long)atomic_exchange(&longest_us, 0));
        fflush(stdout);
    }
    for (;;)
        pause();
}
