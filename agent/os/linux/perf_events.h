/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling a process by the kernel's software clock (perf_event_open(2)): one ring for each
 * processor, shared by the events of all threads. The process is never stopped; it pays for a
 * sample only while it runs. Worker only; called by profile_perf.c.
 *
 * Up to PERF_EVENTS_MAX events are opened, one for each thread on each processor, inherited by
 * threads born later. Where that is not enough, one for each processor, which sees every process
 * and whose samples of others are dropped by the reader: this needs more privilege.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PERF_EVENTS_H
#define TRAWL_AGENT_OS_LINUX_PERF_EVENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

#define PERF_EVENTS_MAX 2048
#define PERF_CPUS_MAX 1024
/* Of one ring and of all: 127 samples, over a second of one busy processor. */
#define PERF_RING_BYTES_MAX (2u << 20)
#define PERF_RING_BYTES_MIN (256u << 10)
#define PERF_RINGS_BYTES_MAX (16u << 20)

struct perf_ring {
    uint32_t cpu;
    int fd;        /* the event that owns it */
    uint8_t *base; /* a page of control, then the data */
};

struct perf_events {
    struct perf_ring *rings;
    size_t ring_count;
    int *fds;
    size_t fd_count, fd_capacity;
    size_t ring_bytes, page_bytes;
    uint32_t hz;
    bool everyone;   /* events of processors, not of threads: records of others are seen */
    bool no_kernel;  /* only what the process does itself: more is not permitted */
    bool old_kernel; /* children processes are followed too */
    uint8_t *record; /* PERF_RECORD_BYTES_MAX, for one that wraps */
};

/*
 * Opens and starts the events. ERR_DENIED (not permitted: the text says what is needed),
 * ERR_UNSUPPORTED (no such kernel facility), ERR_LIMIT (memory or descriptors), ERR_GONE,
 * ERR_NOMEM. On failure nothing is open.
 */
int perf_events_open(struct perf_events *events, pid_t pid, uint32_t hz, struct failure *f);
void perf_events_close(struct perf_events *events);

/*
 * Calls `each` for every record that is there, whole, header included, valid during the call.
 * Non-zero stops and is returned; what was not seen stays. ERR_CORRUPT: a ring makes no sense.
 */
typedef int (*perf_record_fn)(void *context, struct span record);
int perf_events_drain(struct perf_events *events, perf_record_fn each, void *context);

/* What kernel.perf_event_paranoid says; negative values are fine. ERR_NOTFOUND: none. */
int perf_paranoid(int64_t *out);

#endif
