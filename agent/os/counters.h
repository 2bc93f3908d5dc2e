/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What we ask of an operating system about counters. A reader keeps its files open and reads them
 * again each second; it never allocates after the first sample except when the set of series grows.
 * Implemented in os/linux, os/windows, os/fake; one of them is linked. Called by the sampler, on
 * one thread.
 */
#ifndef TRAWL_AGENT_OS_COUNTERS_H
#define TRAWL_AGENT_OS_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum os_counter_kind { OS_GAUGE = 1, OS_COUNT = 2 }; /* as trawl.v1.Kind */

/* A series as it first appears. Strings are copied by the receiver. value = integer / scale. */
struct os_counter {
    const char *name;     /* "cpu.user" */
    const char *instance; /* "cpu0", "eth0", process name; "" for the host as a whole */
    const char *unit;     /* "us", "bytes", "1", ... */
    enum os_counter_kind kind;
    uint32_t scale; /* >= 1 */
    uint32_t pid;   /* 0: of the host */
};

/*
 * What a reader tells the sampler. `define` gives a number (the series' slot, >= 0, small) that the
 * reader uses from then on; `value` sets this second's sample (a slot not set is a gap); `gap` says
 * why a slot has none ("open '/proc/12/io': permission denied"); `retire` ends a series (process
 * gone). define returns a negative enum err when no more series are taken (limit).
 */
struct os_counter_sink {
    int (*define)(void *context, const struct os_counter *counter);
    void (*value)(void *context, int slot, int64_t value);
    void (*gap)(void *context, int slot, const char *reason);
    void (*retire)(void *context, int slot);
    void *context;
};

struct os_counter_settings {
    const char *root;               /* "" for the machine itself, or a recorded tree (tests) */
    const char *const *processes;   /* names always followed, NULL-terminated; may be NULL */
    uint32_t busiest;               /* how many of the busiest processes to follow besides */
    uint32_t max_processes_scanned; /* per second; more are scanned in turns (0: 500) */
};

struct os_counters;
int os_counters_open(struct os_counters **out, const struct os_counter_settings *settings,
                     const struct os_counter_sink *sink, struct failure *f);
void os_counters_close(struct os_counters *counters);
/* Reads everything once. mono_us: now. Never fails: what cannot be read is a gap. */
void os_counters_sample(struct os_counters *counters, uint64_t mono_us);

/* Called for each process start or exit noticed by the scan of os_counters_sample(); may be NULL.
 */
struct os_process_change {
    bool started; /* else exited */
    bool named;   /* one of those always followed (os_counter_settings.processes) */
    uint32_t pid;
    uint64_t start_ticks;
    const char *name;
};
void os_counters_on_process(struct os_counters *counters,
                            void (*changed)(void *context, const struct os_process_change *change),
                            void *context);

/*
 * Every process that the scan knows, as if it had started; kernel threads are left out. `each` may
 * be NULL. False, and none is told: not all of those listed have been looked at yet.
 */
bool os_counters_each_process(const struct os_counters *counters,
                              void (*each)(void *context, const struct os_process_change *process),
                              void *context);

/* Per-process values that need privilege, asked of the broker by the agent and handed back here. */
struct os_process_io {
    uint32_t pid;
    int error; /* errno of the broker's attempt, 0: values valid */
    uint64_t read_bytes, write_bytes;
};
/* Fills up to `count` pids whose io could not be read without privilege; returns how many. To be
 * asked after a sample; a process that did not run since the broker's last answer is not named
 * again. */
size_t os_counters_want_io(struct os_counters *counters, uint32_t *pids, size_t count);
/* Kept, and given to the sink as values of the next sample (a gap after 5 s without an answer). */
void os_counters_give_io(struct os_counters *counters, const struct os_process_io *io,
                         size_t count);

#endif
