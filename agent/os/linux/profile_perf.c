/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From records of perf events to stacks (profile_perf.h). Invariant: only records of the profiled
 * process are used, also when the events see everyone. Called by profile.c.
 */
#include "agent/os/linux/profile_perf.h"

#include <string.h>
#include <time.h>

#include "agent/os/linux/perf_record.h"
#include "agent/os/linux/profile_wait.h"
#include "common/port.h"

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int find_thread(struct profile_perf *perf, pid_t tid, uint32_t *out)
{
    char comm[PROFILE_COMM_SIZE];
    if (profile_thread_known(perf->set, tid, out))
        return 0;
    profile_comm(perf->pid, tid, comm);
    return profile_thread(perf->set, tid, comm, out);
}

static int put_places(struct profile_perf *perf, const struct perf_sample *sample,
                      uint32_t *locations, size_t *count)
{
    int e = 0;
    for (size_t i = 0; i < sample->kernel_count && !e; i++) {
        e = profile_location(perf->set, PROFILE_KERNEL, sample->kernel[i], &locations[*count]);
        *count += e == 0;
    }
    if (!e && sample->has_user) {
        struct unwind_thread in = {.tid = sample->tid,
                                   .regs = &sample->regs,
                                   .stack = sample->stack.data,
                                   .stack_start = sample->regs.rsp,
                                   .stack_bytes = sample->stack.size_bytes};
        e = profile_code_walk(perf->code, &in, locations, PROFILE_DEPTH_MAX, count);
    } else if (!e) {
        e = profile_words(perf->set, "[no registers]", &locations[*count]);
        *count += e == 0;
    }
    return e;
}

static int take_sample(struct profile_perf *perf, const struct perf_sample *sample)
{
    uint32_t locations[PROFILE_DEPTH_MAX + 1], thread, stack;
    size_t count = 0;
    if (sample->time_ns < perf->begin_ns)
        return 0;
    perf->samples++;
    int e = find_thread(perf, sample->tid, &thread);
    if (!e)
        e = put_places(perf, sample, locations, &count);
    if (!e)
        e = profile_stack(perf->set, thread, locations, count, &stack);
    if (e == ERR_LIMIT) {
        perf->set->left_out++;
        return 0;
    }
    if (e)
        return e;
    perf->set->stacks[stack].samples++;
    perf->set->stacks[stack].cpu_ns += perf->period_ns;
    return 0;
}

/* Whether code of a file that we know was there before. */
static bool replaces_code(const struct maps *maps, const struct perf_record *record)
{
    for (size_t i = 0; i < maps->count; i++) {
        const struct map *map = &maps->list[i];
        if (map->executable && map->inode && map->start < record->end && record->start < map->end)
            return true;
    }
    return false;
}

/*
 * New code of a file will have names once the map is read again. Code made at run time has none in
 * files, and comes too often for that; but where there was other code, that must be forgotten.
 */
static void take_mapping(struct profile_perf *perf, const struct perf_record *record)
{
    if (!record->executable)
        return;
    bool replaces = replaces_code(&perf->code->maps, record);
    if (replaces)
        perf->code->renewed_us = 0; /* at once */
    perf->code->stale |= replaces || record->inode;
    profile_code_refresh(perf->code, port_mono_us());
}

/* A thread is called as who started it, until it says otherwise. */
static int take_birth(struct profile_perf *perf, const struct perf_record *record)
{
    uint32_t parent, child;
    if (!profile_thread_known(perf->set, record->parent_tid, &parent))
        return 0;
    char comm[PROFILE_COMM_SIZE];
    memcpy(comm, perf->set->threads[parent].comm, sizeof comm); /* the table may move */
    int e = profile_thread(perf->set, record->tid, comm, &child);
    return e == ERR_LIMIT ? 0 : e;
}

static void take_name(struct profile_perf *perf, const struct perf_record *record)
{
    uint32_t thread;
    if (profile_thread_known(perf->set, record->tid, &thread))
        profile_thread_name(perf->set, thread, record->name);
    perf->executed |= record->exec;
}

int profile_perf_record(struct profile_perf *perf, struct span bytes)
{
    struct perf_record record;
    if (perf_record_parse(bytes, &record)) {
        perf->damaged++;
        return 0;
    }
    if (record.type == PERF_RECORD_LOST)
        perf->lost += record.lost;
    if (record.pid != perf->pid || perf->executed)
        return 0;
    switch (record.type) {
    case PERF_RECORD_SAMPLE:
        return take_sample(perf, &record.sample);
    case PERF_RECORD_FORK:
        return take_birth(perf, &record);
    case PERF_RECORD_COMM:
        take_name(perf, &record);
        return 0;
    case PERF_RECORD_MMAP2:
        take_mapping(perf, &record);
        return 0;
    default:
        return 0;
    }
}

static int take_record(void *context, struct span record)
{
    return profile_perf_record(context, record);
}

int profile_perf_drain(struct profile_perf *perf)
{
    return perf_events_drain(&perf->events, take_record, perf);
}

int profile_perf_open(struct profile_perf *perf, struct profile_set *set, struct profile_code *code,
                      pid_t pid, uint32_t hz, struct failure *f)
{
    *perf = (struct profile_perf){
        .pid = pid, .set = set, .code = code, .period_ns = UINT64_C(1000000000) / hz};
    int e = perf_events_open(&perf->events, pid, hz, f);
    perf->begin_ns = now_ns();
    perf->no_kernel = perf->events.no_kernel;
    code->told = e == 0;
    return e;
}

void profile_perf_close(struct profile_perf *perf)
{
    perf_events_close(&perf->events);
}
