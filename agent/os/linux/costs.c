/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What pauses cost here. Invariant: nobody is stopped but children of our own, which end within
 * MEASURE_LIMIT_S whatever happens. Called by the broker at its start and by tests.
 */
#include "agent/os/costs.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEASURE_LIMIT_S 1
#define ROUNDS 5 /* the shortest of so many counts: what others do meanwhile is not the cost */
#define MEMORY_BYTES (32ull << 20)
#define COPY_BYTES (4ull << 20)
#define HUGE_BYTES (2ull << 20)
#define PAGE_BYTES 4096
#define GIB (1ull << 30)
#define INJECT_US 300 /* what a call in another process costs besides the call, measured */
/* What is measured counts within these times the default: a machine that is busy at this moment
 * must not refuse everything from then on. */
#define SLOWER_MAX 4
#define FASTER_MAX 4

void os_costs_default(struct os_costs *costs)
{
    *costs = (struct os_costs){.stop_us = 100,
                               .thread_us = 25,
                               .copy_mib_us = 250,
                               .snapshot_us = 1000,
                               .table_gib_us = 15000,
                               .huge_table_gib_us = 1000};
}

/* 0: could not be measured. */
struct measured {
    uint64_t clone_us; /* of a process with little memory */
    uint64_t small_us; /* with MEMORY_BYTES of small pages */
    uint64_t huge_us;  /* of huge pages */
    uint64_t stop_us;  /* seizing, stopping, reading and releasing one thread */
    uint64_t copy_us;  /* COPY_BYTES */
};

static uint64_t clock_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void keep_least(uint64_t *least, uint64_t us)
{
    if (us && (*least == 0 || us < *least))
        *least = us;
}

/* ---- in the child that is measured ---- */

/* With the flags of a snapshot, in time of the processor: others may be using it too. */
static uint64_t time_clone(void)
{
    uint64_t least = 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t began = clock_us(CLOCK_THREAD_CPUTIME_ID);
        long pid = syscall(SYS_clone, CLONE_FILES | CLONE_FS, NULL, NULL, NULL, 0);
        if (pid == 0)
            syscall(SYS_exit_group, 0);
        uint64_t us = clock_us(CLOCK_THREAD_CPUTIME_ID) - began + 1;
        if (pid < 0)
            return 0;
        keep_least(&least, us);
        while (waitpid((pid_t)pid, NULL, __WALL) < 0 && errno == EINTR)
            ;
    }
    return least;
}

/* Touched, in pages as advised; NULL when there is no memory. */
static char *take_memory(int advice, char **whole)
{
    char *all = mmap(NULL, MEMORY_BYTES + HUGE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        return NULL;
    char *memory = (char *)(((uintptr_t)all + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
    *whole = all;
    (void)madvise(memory, MEMORY_BYTES, advice);
    for (size_t at = 0; at < MEMORY_BYTES; at += PAGE_BYTES)
        memory[at] = 1;
    return memory;
}

static uint64_t time_clone_with(int advice)
{
    char *whole = NULL;
    if (!take_memory(advice, &whole))
        return 0;
    uint64_t us = time_clone();
    munmap(whole, MEMORY_BYTES + HUGE_BYTES);
    return us;
}

/* How long one thread of a child of its own stands, when its registers are read. */
static uint64_t stop_once(pid_t pid)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) != 0)
        return 0;
    uint64_t began = clock_us(CLOCK_MONOTONIC);
    ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    bool done = ptrace(PTRACE_GETREGS, pid, 0, &regs) == 0;
    ptrace(PTRACE_DETACH, pid, 0, 0);
    uint64_t us = clock_us(CLOCK_MONOTONIC) - began;
    return done ? us + 1 : 0;
}

static uint64_t copy_once(pid_t pid, char *from)
{
    char *to = malloc(COPY_BYTES);
    if (!to)
        return 0;
    memset(to, 1, COPY_BYTES);
    struct iovec local = {to, COPY_BYTES}, remote = {from, COPY_BYTES};
    uint64_t began = clock_us(CLOCK_MONOTONIC);
    bool done = process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)COPY_BYTES;
    uint64_t us = clock_us(CLOCK_MONOTONIC) - began;
    free(to);
    return done ? us + 1 : 0;
}

static void time_stop(struct measured *m)
{
    char *memory = malloc(COPY_BYTES);
    if (!memory)
        return;
    memset(memory, 1, COPY_BYTES);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(MEASURE_LIMIT_S);
        for (;;)
            pause();
    }
    if (pid > 0) {
        for (int i = 0; i < ROUNDS; i++) {
            keep_least(&m->stop_us, stop_once(pid));
            keep_least(&m->copy_us, copy_once(pid, memory));
        }
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    free(memory);
}

/* The results lie in shared memory: when the time is up, those that are there count. */
static _Noreturn void measure_in_child(struct measured *m)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGALRM, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    alarm(MEASURE_LIMIT_S);
    m->clone_us = time_clone();
    m->small_us = time_clone_with(MADV_NOHUGEPAGE);
    time_stop(m);
    m->huge_us = time_clone_with(MADV_HUGEPAGE);
    _exit(0);
}

/* ---- what it means ---- */

static uint32_t within(uint64_t measured_us, uint32_t usual)
{
    if (measured_us == 0)
        return usual;
    if (measured_us > (uint64_t)usual * SLOWER_MAX)
        return usual * SLOWER_MAX;
    return measured_us < usual / FASTER_MAX ? usual / FASTER_MAX : (uint32_t)measured_us;
}

static uint64_t per_gib(uint64_t with_us, uint64_t without_us)
{
    return with_us > without_us ? (with_us - without_us) * (GIB / MEMORY_BYTES) : 0;
}

static void apply(struct os_costs *costs, const struct measured *m)
{
    costs->stop_us = within(m->stop_us, costs->stop_us);
    costs->copy_mib_us = within(m->copy_us / (COPY_BYTES >> 20), costs->copy_mib_us);
    if (m->clone_us == 0)
        return;
    costs->snapshot_us = within(m->clone_us + INJECT_US, costs->snapshot_us);
    if (m->small_us)
        costs->table_gib_us = within(per_gib(m->small_us, m->clone_us), costs->table_gib_us);
    if (m->huge_us)
        costs->huge_table_gib_us =
            within(per_gib(m->huge_us, m->clone_us), costs->huge_table_gib_us);
}

void os_costs_measure(struct os_costs *costs)
{
    os_costs_default(costs);
    struct measured *m =
        mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        return;
    pid_t pid = fork();
    if (pid == 0)
        measure_in_child(m);
    if (pid > 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        apply(costs, m);
    }
    munmap(m, sizeof *m);
}
