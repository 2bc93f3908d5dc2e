/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `fall WAY [THREADS]`: dies in the way that is named, a few named functions deep, with so many
 * threads that wait. Says "ready" before. For tests of the crash handler; no sanitizer catches it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static volatile int zero, one = 1, after, depth_left = 1 << 30;
static pthread_barrier_t started;
static void (*volatile nowhere)(void);
static volatile char *volatile null_pointer;

NOINLINE static void by_segv(void)
{
    *null_pointer = 1;
}

NOINLINE static void by_abort(void)
{
    abort();
}

NOINLINE static int by_overflow(int depth)
{
    volatile char room[512];
    room[0] = (char)depth;
    if (depth >= depth_left)
        return 0;
    return by_overflow(depth + 1) + room[0];
}

static void on_overflow(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    signal(number, SIG_DFL);
    raise(number); /* as servers do that write a report first */
}

static void by_overflow_handled(void)
{
    stack_t other = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    struct sigaction action = {.sa_sigaction = on_overflow,
                               .sa_flags = SA_ONSTACK | SA_NODEFER | SA_SIGINFO};
    sigaltstack(&other, NULL);
    sigaction(SIGSEGV, &action, NULL);
    by_overflow(0);
    after = 1;
}

NOINLINE static void by_call(void)
{
    nowhere();
    after = 1; /* no jump instead of the call */
}

NOINLINE static void by_wild_call(void)
{
    nowhere = (void (*)(void))(uintptr_t)0x123456789000;
    nowhere();
    after = 1; /* no jump instead of the call */
}

NOINLINE static void by_divide(void)
{
    zero = one / zero;
}

NOINLINE static void by_bus(void)
{
    FILE *file = tmpfile();
    char *map = file ? mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fileno(file), 0) : MAP_FAILED;
    if (map != MAP_FAILED)
        zero = *(volatile char *)map;
}

NOINLINE static void by_text(void)
{
    *(volatile char *)(uintptr_t)by_segv = 1;
}

NOINLINE static void by_assertion(void)
{
    extern void __assert_fail(const char *, const char *, unsigned, const char *)
        __attribute__((noreturn));
    __assert_fail("inventory >= 0", "fall.c", 7, "by_assertion");
}

NOINLINE static void by_free(void)
{
    static char room[64];
    char *volatile inside = room + 16;
    free(inside);
    after = 1;
}

NOINLINE static void by_bad_stack(void)
{
    __asm__ volatile("mov $0x10, %%rsp; push %%rax" ::: "memory");
}

static inline __attribute__((always_inline)) void put_inside(volatile char *at)
{
    *at = 1; /* merged into by_inlined() */
}

NOINLINE static void by_inlined(void)
{
    put_inside(null_pointer);
}

static void by_overflow_plain(void)
{
    by_overflow(0);
    after = 1;
}

static const struct {
    const char *name;
    void (*run)(void);
} ways[] = {
    {"segv", by_segv},
    {"abort", by_abort},
    {"overflow", by_overflow_plain},
    {"overflow_handled", by_overflow_handled},
    {"call", by_call},
    {"wild_call", by_wild_call},
    {"divide", by_divide},
    {"bus", by_bus},
    {"text", by_text},
    {"assertion", by_assertion},
    {"free", by_free},
    {"bad_stack", by_bad_stack},
    {"inlined", by_inlined},
};

static void *wait_here(void *unused)
{
    pthread_barrier_wait(&started);
    pause();
    return unused;
}

NOINLINE static void middle(void (*run)(void))
{
    run();
    after = 2;
}

int main(int argc, char **argv)
{
    int threads = argc > 2 ? atoi(argv[2]) : 0;
    pthread_barrier_init(&started, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 1 << 16);
        if (pthread_create(&thread, &small, wait_here, NULL))
            return 2;
    }
    pthread_barrier_wait(&started);
    puts("ready");
    fflush(stdout);
    for (size_t i = 0; argc > 1 && i < sizeof ways / sizeof ways[0]; i++)
        if (strcmp(ways[i].name, argv[1]) == 0)
            middle(ways[i].run);
    return 2;
}
