/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A victim that tells the state which only it can see: of each of its threads the signal mask, the
 * alternate stack, timer slack, FP control words, thread pointer, list of robust futexes, name and
 * scheduling, and limits, timers and umask of the process. A line on its input is answered by one
 * line of it; two that differ mean that somebody was here. Started by tests/e2e/35_safety.
 */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#define THREADS 4
#define TEXT_BYTES 1024

static int wake[THREADS][2];
static char texts[THREADS][TEXT_BYTES];
static sem_t told;

static unsigned long fs_base(void)
{
    unsigned long base;
    __asm__("mov %%fs:0,%0" : "=r"(base));
    return base;
}

static void tell(char *text, size_t size)
{
    sigset_t mask;
    stack_t stack;
    cpu_set_t cpus;
    void *robust = NULL;
    size_t robust_bytes = 0;
    char name[16];
    uint32_t mxcsr;
    uint16_t x87;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    sigaltstack(NULL, &stack);
    sched_getaffinity(0, sizeof cpus, &cpus);
    syscall(SYS_get_robust_list, 0, &robust, &robust_bytes);
    prctl(PR_GET_NAME, name);
    __asm__ volatile("stmxcsr %0\nfnstcw %1" : "=m"(mxcsr), "=m"(x87));
    snprintf(text, size,
             "%s mask=%016lx alt=%p/%zx/%x slack=%d mxcsr=%x x87=%x fs=%lx robust=%p "
             "cpus=%d policy=%d nice=%d;",
             name, mask.__val[0], stack.ss_sp, stack.ss_size, (unsigned)stack.ss_flags,
             prctl(PR_GET_TIMERSLACK), mxcsr, x87, fs_base(), robust, CPU_COUNT(&cpus),
             sched_getscheduler(0), getpriority(PRIO_PROCESS, 0));
}

static void *worker(void *argument)
{
    intptr_t number = (intptr_t)argument;
    char name[16], byte;
    sigset_t mask;
    stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
    uint32_t mxcsr = 0x1f80 | (uint32_t)number << 13;
    snprintf(name, sizeof name, "state-%d", (int)number);
    pthread_setname_np(pthread_self(), name);
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + (int)number);
    pthread_sigmask(SIG_BLOCK, &mask, NULL);
    sigaltstack(&stack, NULL);
    prctl(PR_SET_TIMERSLACK, 1000 + number);
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    while (read(wake[number][0], &byte, 1) == 1) {
        tell(texts[number], TEXT_BYTES);
        sem_post(&told);
    }
    return NULL;
}

static void tell_of_process(void)
{
    static const int limits[] = {RLIMIT_AS,     RLIMIT_CORE,  RLIMIT_DATA, RLIMIT_FSIZE,
                                 RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_STACK};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        struct rlimit limit;
        getrlimit(limits[i], &limit);
        printf(" %llx/%llx", (unsigned long long)limit.rlim_cur,
               (unsigned long long)limit.rlim_max);
    }
    int signal_number = 0;
    struct itimerval timer;
    mode_t mask = umask(0);
    umask(mask);
    prctl(PR_GET_PDEATHSIG, &signal_number);
    getitimer(ITIMER_REAL, &timer);
    printf(" umask=%o pdeath=%d dumpable=%d alarm=%d parent=%d group=%d session=%d\n", mask,
           signal_number, prctl(PR_GET_DUMPABLE), timer.it_value.tv_sec > 0, getppid(), getpgrp(),
           getsid(0));
}

int main(void)
{
    char line[16], own[TEXT_BYTES];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sem_init(&told, 0, 0);
    alarm(3600);
    for (intptr_t i = 0; i < THREADS; i++) {
        pthread_t thread;
        if (pipe(wake[i]) != 0)
            return 1;
        pthread_create(&thread, NULL, worker, (void *)i);
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        for (int i = 0; i < THREADS; i++)
            if (write(wake[i][1], "x", 1) != 1)
                return 1;
        for (int i = 0; i < THREADS; i++)
            sem_wait(&told);
        for (int i = 0; i < THREADS; i++)
            fputs(texts[i], stdout);
        tell(own, sizeof own);
        fputs(own, stdout);
        tell_of_process();
        fflush(stdout);
    }
    return 0;
}
