/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim in the places that injection must not take for an ordinary stack: every thread (with
 * "coroutines") waits in a system call on a small stack cut out of one big mapping, as Go and
 * coroutine libraries do, or (with "altstack") inside a signal handler on an alternate stack; right
 * below the little that is free lies data. With a second argument one ordinary thread waits
 * besides. A line on its input is answered by "SPOILT": how many bytes of that data changed.
 * Started by tests/e2e/35_safety.
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
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define PLACES 3
#define DATA_BYTES ((size_t)64 << 10)
#define STACK_BYTES ((size_t)16 << 10)
#define FREE_BYTES 512 /* left below the stack pointer, more or less */
#define MARK 0xd7

static uint8_t *places[PLACES]; /* DATA_BYTES of data, then a stack */
static int quiet[2];
static _Atomic int waiting;
static __thread int own_number;

/* Not libc's: binding its name at the first call takes kilobytes of stack. */
static long call3(long number, long first, void *second, size_t third)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(third)
                     : "rcx", "r11", "memory");
    return result;
}

/* On the small stack itself: no printf, which would need more than there is. */
static void answer(void)
{
    char text[16], *at = text + sizeof text;
    size_t spoilt = 0;
    for (int i = 0; i < PLACES; i++)
        for (size_t j = 0; j < DATA_BYTES; j++)
            spoilt += places[i][j] != MARK;
    *--at = '\n';
    do
        *--at = (char)('0' + spoilt % 10);
    while ((spoilt /= 10) > 0);
    size_t size_bytes = (size_t)(text + sizeof text - at);
    if (call3(SYS_write, 1, at, size_bytes) != (long)size_bytes)
        _exit(1);
}

/* The first place answers the lines, the others wait for ever. */
static void wait_here(int number)
{
    char line[16];
    waiting++;
    if (number == 0)
        while (call3(SYS_read, 0, line, sizeof line) > 0)
            answer();
    while (call3(SYS_read, quiet[0], line, 1) >= 0)
        ;
}

/* Uses up the stack, then waits; noinline and with an effect after, so that it is not a jump. */
static __attribute__((noinline)) void go_deep(int number)
{
    uint8_t *bottom = places[number] + DATA_BYTES;
    uint8_t here[64];
    here[0] = (uint8_t)number;
    __asm__ volatile("" : : "r"(here) : "memory");
    if ((size_t)(here - bottom) > FREE_BYTES + 512)
        go_deep(number);
    else
        wait_here(number);
    __asm__ volatile("" : : "r"(here) : "memory");
}

static void on_signal(int number)
{
    (void)number;
    go_deep(own_number);
}

static void *on_altstack(void *argument)
{
    own_number = (int)(intptr_t)argument;
    stack_t stack = {.ss_sp = places[own_number] + DATA_BYTES, .ss_size = STACK_BYTES};
    sigaltstack(&stack, NULL);
    raise(SIGUSR1);
    return NULL;
}

static void *on_coroutine(void *argument)
{
    static ucontext_t contexts[PLACES], backs[PLACES];
    int number = (int)(intptr_t)argument;
    getcontext(&contexts[number]);
    contexts[number].uc_stack.ss_sp = places[number] + DATA_BYTES;
    contexts[number].uc_stack.ss_size = STACK_BYTES;
    contexts[number].uc_link = &backs[number];
    makecontext(&contexts[number], (void (*)(void))go_deep, 1, number);
    swapcontext(&backs[number], &contexts[number]);
    return NULL;
}

static void *ordinary(void *argument)
{
    (void)argument;
    while (pause() < 0)
        ;
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc < 2 || pipe(quiet) != 0)
        return 2;
    uint8_t *all = mmap(NULL, PLACES * (DATA_BYTES + STACK_BYTES) + DATA_BYTES,
                        PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        return 2;
    for (size_t i = 0; i < PLACES; i++) {
        places[i] = all + i * (DATA_BYTES + STACK_BYTES);
        memset(places[i], MARK, DATA_BYTES);
    }
    sigaction(SIGUSR1, &action, NULL);
    int on_alt = strcmp(argv[1], "altstack") == 0;
    for (intptr_t i = 1; i < PLACES; i++)
        pthread_create(&thread, NULL, on_alt ? on_altstack : on_coroutine, (void *)i);
    if (argc > 2)
        pthread_create(&thread, NULL, ordinary, NULL);
    while (waiting < PLACES - 1)
        usleep(1000);
    puts("ready");
    fflush(stdout);
    /* The main thread last: it must not stay on a stack of its own either. */
    if (on_alt)
        on_altstack((void *)0);
    else
        on_coroutine((void *)0);
    return 0;
}
