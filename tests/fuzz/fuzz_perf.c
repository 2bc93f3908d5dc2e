/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as records of a perf ring: nothing outside of them is read, and what was read lies
 * within its limits.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/os/linux/perf_record.h"
#include "agent/os/linux/profile_perf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct span bytes)
{
    struct perf_record r;
    if (perf_record_parse(bytes, &r))
        return;
    assert(r.sample.kernel_count <= PERF_KERNEL_FRAMES_MAX);
    assert(memchr(r.name, 0, sizeof r.name));
    assert(r.start <= r.end);
    const struct span *stack = &r.sample.stack;
    assert(stack->size_bytes == 0 ||
           (stack->data >= bytes.data && stack->size_bytes <= bytes.size_bytes &&
            stack->data + stack->size_bytes <= bytes.data + bytes.size_bytes));
}

/* The process of the records is the one that the first four bytes name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct profile_set set;
    struct profile_code code = {.set = &set, .changed_unseen = true};
    struct profile_perf perf = {.set = &set, .code = &code, .period_ns = 1};
    struct span rest = span_of(data, size);
    uint32_t pid;
    if (span_take_u32(&rest, &pid))
        return 0;
    perf.pid = (pid_t)pid;
    code.pid = -1; /* nobody: a renewal finds nothing */
    profile_set_init(&set);
    while (rest.size_bytes >= sizeof(struct perf_event_header)) {
        struct perf_event_header header;
        struct span record;
        memcpy(&header, rest.data, sizeof header);
        size_t bytes = header.size;
        if (bytes < sizeof header || bytes > rest.size_bytes || span_take(&rest, bytes, &record))
            break;
        check(record);
        if (profile_perf_record(&perf, record))
            break;
    }
    assert(set.stack_count <= PROFILE_STACKS_MAX);
    profile_set_done(&set);
    return 0;
}
