/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `bench_stacks PID [COUNT [KIND]]`: captures the stacks of a process (KIND: stacks, stacks0);
 * once: prints the text; more often: the pauses and what the worker cost. Used by
 * tests/e2e/3*_*.sh and by hand.
 */
#include "agent/os/stacks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/port.h"
#include "common/text.h"

typedef int (*capture_fn)(const struct os_take *take, const struct os_output *out,
                          struct os_result *result, struct failure *f);

static capture_fn kind = os_stacks_capture;
static bool print, in_text;

static int begin(void *context, const char *ending, struct failure *f)
{
    (void)context;
    (void)f;
    in_text = strcmp(ending, "txt") == 0;
    return 0;
}

static int write_bytes(void *context, struct span bytes, struct failure *f)
{
    (void)context;
    if (print && in_text && fwrite(bytes.data, 1, bytes.size_bytes, stdout) != bytes.size_bytes)
        return fail(f, ERR_IO, "cannot write");
    return 0;
}

static int capture(const struct os_process *process, struct os_result *result)
{
    struct os_costs costs;
    struct os_take take = {.process = *process, .pause_max_us = OS_PAUSE_HARD_US, .costs = &costs};
    struct os_output out = {begin, write_bytes, NULL};
    struct failure f = {0, ""};
    os_costs_default(&costs);
    int rc = kind(&take, &out, result, &f);
    if (rc)
        fprintf(stderr, "%s: %s\n", err_name(rc), f.text);
    return rc;
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static int measure(const struct os_process *process, size_t count)
{
    struct os_result result;
    uint64_t *pauses = calloc(count, sizeof *pauses);
    if (!pauses)
        return 1;
    uint64_t began = port_mono_us();
    for (size_t i = 0; i < count; i++) {
        if (capture(process, &result)) {
            free(pauses);
            return 1;
        }
        pauses[i] = result.pause_us;
    }
    uint64_t wall_us = port_mono_us() - began;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    qsort(pauses, count, sizeof *pauses, compare);
    printf("%u threads, %u missed: pause us median %llu, lowest %llu, highest %llu, expected %llu; "
           "%llu us a capture, %ld KiB\n",
           result.threads, result.threads_missed, (unsigned long long)pauses[count / 2],
           (unsigned long long)pauses[0], (unsigned long long)pauses[count - 1],
           (unsigned long long)result.expected_us, (unsigned long long)(wall_us / count),
           usage.ru_maxrss);
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
        fprintf(stderr, "usage: bench_stacks PID [COUNT [stacks|stacks0]]\n");
        return 2;
    }
    if (argc > 3 && strcmp(argv[3], "stacks0") == 0)
        kind = os_stacks0_capture;
    if (os_process_get("", (uint32_t)pid, &process, &f)) {
        fprintf(stderr, "%s\n", f.text);
        return 1;
    }
    print = count == 1;
    return count > 1 ? measure(&process, count) : capture(&process, &result) != 0;
}
