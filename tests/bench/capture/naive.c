/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `bench_capture_naive HOW PID [HOLD_MS]`: captures as they must not be made, one way of harming a
 * process at a time. The positive controls of tests/e2e/35_safety: what each does must be found by
 * the check that a proper capture passes. Never part of the product; only for victims of tests.
 */
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/text.h"

#define THREADS_MAX 4096
#define RED_ZONE 128
#define BELOW 2048

static pid_t threads[THREADS_MAX];
static size_t count;

static void hold_ms(uint64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static bool known(pid_t tid)
{
    for (size_t i = 0; i < count; i++)
        if (threads[i] == tid)
            return true;
    return false;
}

static void seize_all(pid_t pid, uintptr_t flags)
{
    char path[64];
    struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    while (tasks && (entry = readdir(tasks)) != NULL && count < THREADS_MAX) {
        uint64_t tid;
        if (text_u64_in(entry->d_name, 1, INT32_MAX, &tid) == 0 && !known((pid_t)tid) &&
            ptrace(PTRACE_SEIZE, (pid_t)tid, NULL, (void *)flags) == 0)
            threads[count++] = (pid_t)tid;
    }
    if (tasks)
        closedir(tasks);
}

/* Stops all that were seized; signals that come in between are lost. */
static void interrupt_all(void)
{
    for (size_t i = 0; i < count; i++) {
        int status;
        ptrace(PTRACE_INTERRUPT, threads[i], NULL, NULL);
        while (waitpid(threads[i], &status, __WALL) == threads[i] && WIFSTOPPED(status) &&
               status >> 16 != PTRACE_EVENT_STOP)
            ptrace(PTRACE_CONT, threads[i], NULL, NULL);
    }
}

static void detach_all(void)
{
    for (size_t i = 0; i < count; i++)
        ptrace(PTRACE_DETACH, threads[i], NULL, NULL);
}

/* A snapshot that forgot the FP state. */
static void spoil_registers(void)
{
    struct user_fpregs_struct fp;
    for (size_t i = 0; i < count; i++) {
        struct iovec io = {&fp, sizeof fp};
        if (ptrace(PTRACE_GETREGSET, threads[i], (void *)2L, &io) != 0) /* NT_PRFPREG */
            continue;
        memset(fp.st_space, 0x55, sizeof fp.st_space);
        memset(fp.xmm_space, 0x55, sizeof fp.xmm_space);
        ptrace(PTRACE_SETREGSET, threads[i], (void *)2L, &io);
    }
}

/* A snapshot that puts its frame at the stack pointer (skip 0), or just below the red zone. */
static void spoil_stacks(pid_t pid, size_t skip_bytes, size_t size_bytes)
{
    static char junk[BELOW];
    struct user_regs_struct regs;
    memset(junk, 0x55, sizeof junk);
    for (size_t i = 0; i < count; i++) {
        if (ptrace(PTRACE_GETREGS, threads[i], NULL, &regs) != 0)
            continue;
        struct iovec from = {junk, size_bytes};
        struct iovec to = {(void *)(regs.rsp - skip_bytes - size_bytes), size_bytes};
        (void)!process_vm_writev(pid, &from, 1, &to, 1, 0);
    }
}

static void usage(void)
{
    fputs("usage: bench_capture_naive HOW PID [HOLD_MS]\n"
          "  interrupt  lets system calls fail with EINTR, swallows signals\n"
          "  registers  forgets FP registers    redzone  writes into the red zone\n"
          "  below      writes 2 KiB below the red zone, whatever is there\n"
          "  sigstop    stops by SIGSTOP        exitkill takes the process along when killed\n",
          stderr);
}

int main(int argc, char **argv)
{
    uint64_t number, hold = 0;
    const char *how = argc > 1 ? argv[1] : "";
    if (argc < 3 || text_u64_in(argv[2], 2, INT32_MAX, &number) ||
        (argc > 3 && text_u64_in(argv[3], 0, 60000, &hold))) {
        usage();
        return 2;
    }
    pid_t pid = (pid_t)number;
    if (strcmp(how, "sigstop") == 0) {
        kill(pid, SIGSTOP);
        hold_ms(hold);
        return kill(pid, SIGCONT);
    }
    seize_all(pid, strcmp(how, "exitkill") == 0 ? PTRACE_O_EXITKILL : 0);
    interrupt_all();
    if (strcmp(how, "registers") == 0)
        spoil_registers();
    else if (strcmp(how, "redzone") == 0)
        spoil_stacks(pid, 0, RED_ZONE);
    else if (strcmp(how, "below") == 0)
        spoil_stacks(pid, RED_ZONE, BELOW);
    hold_ms(hold);
    detach_all();
    return 0;
}
