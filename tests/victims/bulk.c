/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim with memory: `bulk MIB KIND[,THREADS]` touches so many MiB of small or huge pages, or
 * "vast": only maps them, in two pieces that become one mapping, which no fork can account for when
 * it is larger than memory. THREADS sleep. "KIND,THREADS,beat" has a thread besides that measures
 * the longest time in which it did not run; each line on its input is answered by that time in
 * microseconds since the last line. Started by tests and benchmarks of the os layer.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define HUGE_BYTES (2ull << 20)

static _Atomic uint64_t longest_us;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void *sleeper(void *argument)
{
    for (;;)
        pause();
    return argument;
}

static void *beat(void *argument)
{
    uint64_t last = now_us();
    for (;;) {
        uint64_t now = now_us();
        if (now - last > longest_us)
            longest_us = now - last;
        last = now;
    }
    return argument;
}

static char *map(uint64_t bytes, void *at)
{
    char *memory = mmap(at, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED_NOREPLACE : 0), -1, 0);
    if (memory == MAP_FAILED) {
        perror("victim: mmap");
        exit(1);
    }
    return memory;
}

static void take(uint64_t bytes, const char *kind)
{
    if (strncmp(kind, "vast", 4) == 0) {
        char *whole = map(bytes / 2, NULL);
        map(bytes / 2, whole - bytes / 2);
        return;
    }
    char *memory = map(bytes + HUGE_BYTES, NULL);
    memory += HUGE_BYTES - (uintptr_t)memory % HUGE_BYTES;
    madvise(memory, bytes, strncmp(kind, "huge", 4) == 0 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (uint64_t i = 0; i < bytes; i += 4096)
        memory[i] = (char)(i >> 12 | 1);
}

static void start(void *(*run)(void *))
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    if (pthread_create(&thread, &attributes, run, NULL) != 0)
        exit(1);
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    uint64_t bytes = argc > 1 ? strtoull(argv[1], NULL, 10) << 20 : 0;
    const char *kind = argc > 2 ? argv[2] : "small";
    const char *comma = strchr(kind, ',');
    take(bytes, kind);
    for (int i = comma ? atoi(comma + 1) : 0; i > 0; i--)
        start(sleeper);
    if (strstr(kind, ",beat"))
        start(beat);
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
