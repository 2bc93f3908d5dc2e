/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `bench_capture_cost FILE COMMAND...`: runs a command and writes "WALL_US CPU_US RSS_KIB CODE" of
 * it and its children to FILE. A program of its own because the kernel counts the memory of
 * whoever started a program as that program's, and an interpreter would add its own. Started by
 * run.py.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/port.h"

static unsigned long long time_us(struct timeval t)
{
    return (unsigned long long)t.tv_sec * 1000000 + (unsigned long long)t.tv_usec;
}

int main(int argc, char **argv)
{
    struct rusage used;
    int status;
    if (argc < 3) {
        fputs("usage: bench_capture_cost FILE COMMAND...\n", stderr);
        return 2;
    }
    uint64_t began = port_mono_us();
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &used) != child)
        return 1;
    unsigned long long wall_us = port_mono_us() - began;
    FILE *file = fopen(argv[1], "w");
    if (!file)
        return 1;
    fprintf(file, "%llu %llu %ld %d\n", wall_us, time_us(used.ru_utime) + time_us(used.ru_stime),
            used.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    return fclose(file) ? 1 : 0;
}
