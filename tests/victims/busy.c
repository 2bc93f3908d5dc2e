/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that is busy in functions known by name: `busy ratio PERCENT` spends that much of its
 * work in hot_first and the rest in hot_second, `busy inlined` in a function that the compiler
 * merged into another, `busy threads COUNT` in hot_thread on threads called worker-N, `busy births
 * MS` in hot_born on threads that run so long, one after the other, `busy deep KIB` in hot_deep
 * with a stack so large, `busy waits MS` sleeps in cold_sleep and in cold_poll for three times as
 * long, `busy exec` becomes another program when a line comes. Prints "ready". Started by tests of
 * the os layer.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
#define UNIT 300 /* far below the time between two samples, so that they keep no step */

static volatile uint64_t sink;
static volatile int stop; /* never */

#define WORK(units_)                                           \
    for (uint64_t i = 0; i < (uint64_t)(units_)*UNIT; i++) {   \
        sink = sink * UINT64_C(6364136223846793005) + 1442695; \
    }

NOINLINE void hot_first(int units){WORK(units)}

NOINLINE void hot_second(int units)
{
    WORK(units)
}

static inline __attribute__((always_inline)) void hot_merged(int units){WORK(units)}

NOINLINE void hot_around(int units)
{
    hot_merged(units);
    sink++;
}

NOINLINE void *hot_thread(void *argument)
{
    char name[16];
    snprintf(name, sizeof name, "worker-%d", (int)(intptr_t)argument);
    pthread_setname_np(pthread_self(), name);
    for (;;) {
        WORK(100)
    }
    return NULL;
}

static uint64_t now_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

NOINLINE void *hot_born(void *argument)
{
    uint64_t end = (uint64_t)(intptr_t)argument * 1000; /* of its own CPU time */
    pthread_setname_np(pthread_self(), "born");
    while (now_us(CLOCK_THREAD_CPUTIME_ID) < end) {
        WORK(50)
    }
    return NULL;
}

NOINLINE int hot_deep(int kib)
{
    char room[1024];
    memset(room, kib, sizeof room);
    if (kib > 0)
        sink += (uint64_t)hot_deep(kib - 1);
    else
        while (!stop) {
            WORK(100)
        }
    return room[kib & 1023];
}

NOINLINE void cold_sleep(int ms)
{
    struct timespec t = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&t, NULL);
    sink++;
}

NOINLINE void cold_poll(int ms)
{
    poll(NULL, 0, ms);
    sink++;
}

static void wait_for_ever(int ms)
{
    for (;;) {
        cold_sleep(ms);
        cold_poll(3 * ms);
    }
}

static void give_birth_for_ever(int ms)
{
    for (;;) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, hot_born, (void *)(intptr_t)ms) != 0)
            exit(1);
        pthread_join(thread, NULL);
    }
}

static void run_threads(int count)
{
    for (int i = 1; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, hot_thread, (void *)(intptr_t)i) != 0)
            exit(1);
    }
    hot_thread(NULL);
}

static void become_another(char **argv)
{
    char line[8];
    char *again[] = {argv[0], "waits", "10", NULL};
    if (fgets(line, sizeof line, stdin))
        execv("/proc/self/exe", again);
    exit(1);
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const char *mode = argc > 1 ? argv[1] : "";
    int number = argc > 2 ? atoi(argv[2]) : 0;
    puts("ready");
    fflush(stdout);
    if (strcmp(mode, "ratio") == 0) {
        for (;;) {
            hot_first(number);
            hot_second(100 - number);
        }
    } else if (strcmp(mode, "inlined") == 0) {
        for (;;)
            hot_around(100);
    } else if (strcmp(mode, "threads") == 0) {
        run_threads(number);
    } else if (strcmp(mode, "births") == 0) {
        give_birth_for_ever(number);
    } else if (strcmp(mode, "deep") == 0) {
        return hot_deep(number);
    } else if (strcmp(mode, "waits") == 0) {
        wait_for_ever(number);
    } else if (strcmp(mode, "exec") == 0) {
        become_another(argv);
    }
    return 2;
}
