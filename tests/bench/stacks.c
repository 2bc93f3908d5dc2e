/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `bench_stacks PID [COUNT]`: captures the stacks of a process; once: prints the text; more often:
 * the pauses and what the worker cost. Used by tests/e2e/30_stacks.sh and by hand.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "agent/os/privilege.h"
#include "agent/os/stacks.h"
#include "common/port.h"
#include "common/text.h"

#define TEXT_MAX (64u << 20)
#define PAUSE_MAX_US 250000

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static int capture(const struct os_process *process, struct os_result *result, bool print)
{
    struct buf text;
    struct failure f = {0, ""};
    buf_init(&text, TEXT_MAX);
    int rc = os_stacks_capture(process, PAUSE_MAX_US, &text, result, &f);
    if (rc)
        fprintf(stderr, "%s: %s\n", err_name(rc), f.text);
    else if (print)
        fputs(buf_str(&text), stdout);
    buf_done(&text);
    return rc;
}

static int measure(const struct os_process *process, size_t count)
{
    struct os_result result;
    uint64_t *pauses = calloc(count, sizeof *pauses);
    if (!pauses)
        return 1;
    uint64_t began = port_mono_us();
    for (size_t i = 0; i < count; i++) {
        if (capture(process, &result, false)) {
            free(pauses);
            return 1;
        }
        pauses[i] = result.pause_us;
    }
    uint64_t wall_us = port_mono_us() - began;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    qsort(pauses, count, sizeof *pauses, compare);
    printf("%u threads, %u missed: pause us median %llu, lowest %llu, highest %llu; "
           "%llu us a capture, %ld KiB\n",
           result.threads, result.threads_missed, (unsigned long long)pauses[count / 2],
           (unsigned long long)pauses[0], (unsigned long long)pauses[count - 1],
           (unsigned long long)(wall_us / count), usage.ru_maxrss);
    free(pauses);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t pid, count = 1;
    struct os_process process;
    struct os_result result;
    struct failure f = {0, ""};
    if (argc < 2 || text_u64_in(argv[1], 1, INT32_MAX, &pid) ||
        (argc > 2 && text_u64_in(argv[2], 1, 1000000, &count))) {
        fprintf(stderr, "usage: bench_stacks PID [COUNT]\n");
        return 2;
    }
    if (os_process_get("", (uint32_t)pid, &process, &f)) {
        fprintf(stderr, "%s\n", f.text);
        return 1;
    }
    return count > 1 ? measure(&process, count) : capture(&process, &result, true) != 0;
}
