/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim with odd stacks: `frames HOW` stands (or runs) in a signal handler, on an alternate
 * stack, very deep, in the vdso, in an entry of the procedure linkage table, behind a call of
 * nothing, or moves all the time. Prints "ready". Started by tests of the os layer.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
#define DEEP_BYTES 4096

static volatile int guard;

static void ready(void)
{
    static const char line[] = "ready\n";
    if (write(1, line, sizeof line - 1) < 0)
        _exit(1);
}

NOINLINE static void in_handler(void)
{
    ready();
    while (guard >= 0)
        pause();
}

NOINLINE static void on_signal(int number)
{
    in_handler();
    guard += number;
}

NOINLINE static void raiser(void)
{
    raise(SIGUSR1);
    guard++;
}

NOINLINE static void handle(int number, int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = flags;
    sigaction(number, &action, NULL);
}

static void use_other_stack(void)
{
    stack_t other = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&other, NULL);
}

/* Each has more on the stack than a copy of it would. */
NOINLINE int deep(int left)
{
    volatile char room[DEEP_BYTES];
    room[0] = (char)left;
    if (left == 0) {
        in_handler();
        return guard;
    }
    return deep(left - 1) + room[0] + guard;
}

NOINLINE int many(int left)
{
    if (left == 0) {
        in_handler();
        return guard;
    }
    return many(left - 1) + guard;
}

NOINLINE static void asker(void)
{
    struct timespec t;
    ready();
    for (;;)
        guard += clock_gettime(CLOCK_MONOTONIC, &t);
}

NOINLINE static void stub_caller(void)
{
    ready();
    for (;;)
        guard += (int)strlen((const char *)&guard) + abs(guard);
}

NOINLINE static void caller_of_nothing(void)
{
    void (*volatile nothing)(void) = NULL;
    nothing();
    guard++;
}

static void nap(void)
{
    struct timespec t = {0, 20000};
    nanosleep(&t, NULL);
}

NOINLINE static void odd_leaf(void)
{
    nap();
    guard++;
}

NOINLINE static void odd_middle(void)
{
    volatile char room[512];
    room[0] = 1;
    odd_leaf();
    guard += room[0];
}

NOINLINE static void odd_root(void)
{
    odd_middle();
    guard++;
}

NOINLINE static void even_leaf(void)
{
    volatile char room[256];
    room[0] = 1;
    nap();
    guard += room[0];
}

NOINLINE static void even_root(void)
{
    even_leaf();
    guard++;
}

NOINLINE static void *move(void *argument)
{
    prctl(PR_SET_NAME, "moving");
    ready();
    for (;;) {
        odd_root();
        even_root();
    }
    return argument;
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (strcmp(how, "altstack") == 0)
        use_other_stack();
    handle(SIGUSR1, strcmp(how, "altstack") == 0 ? SA_ONSTACK : 0);
    handle(SIGSEGV, 0);
    if (strcmp(how, "signal") == 0 || strcmp(how, "altstack") == 0)
        raiser();
    else if (strcmp(how, "deep") == 0)
        guard += deep(200);
    else if (strcmp(how, "many") == 0)
        guard += many(1000);
    else if (strcmp(how, "vdso") == 0)
        asker();
    else if (strcmp(how, "plt") == 0)
        stub_caller();
    else if (strcmp(how, "null") == 0)
        caller_of_nothing();
    else if (strcmp(how, "moving") == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, move, NULL);
        for (;;)
            pause();
    }
    return guard;
}
