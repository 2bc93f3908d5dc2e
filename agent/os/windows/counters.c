/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of counters on Windows: processor time by GetSystemTimes(), memory by
 * GlobalMemoryStatusEx(). Invariant as on Linux: each defined series gets one value or gap in a
 * sample. Called by the sampler through os/counters.h.
 */
#include "agent/os/counters.h"

#include <stdlib.h>
#include <windows.h>

#include "common/text.h"

#define REASON_SIZE 128

enum row {
    CPU_USER,
    CPU_SYSTEM,
    CPU_IDLE,
    CPU_BUSY,
    CPU_COUNT,
    MEMORY_TOTAL,
    MEMORY_AVAILABLE,
    MEMORY_USED,
    COMMIT_LIMIT,
    COMMITTED,
    ROWS
};
enum { CPU_FIRST = CPU_USER, CPU_END = CPU_COUNT, MEMORY_FIRST = MEMORY_TOTAL, MEMORY_END = ROWS };

static const struct os_counter rows[] = {
    {"cpu.user", "", "us", OS_COUNT, 1, 0},
    {"cpu.system", "", "us", OS_COUNT, 1, 0},
    {"cpu.idle", "", "us", OS_COUNT, 1, 0},
    {"cpu.busy", "", "us", OS_COUNT, 1, 0},
    {"cpu.count", "", "1", OS_GAUGE, 1, 0},
    {"memory.total", "", "bytes", OS_GAUGE, 1, 0},
    {"memory.available", "", "bytes", OS_GAUGE, 1, 0},
    {"memory.used", "", "bytes", OS_GAUGE, 1, 0},
    {"memory.commit_limit", "", "bytes", OS_GAUGE, 1, 0},
    {"memory.committed", "", "bytes", OS_GAUGE, 1, 0},
};
_Static_assert(sizeof rows / sizeof rows[0] == ROWS, "rows and enum differ");

struct os_counters {
    struct os_counter_sink sink;
    int slots[ROWS];
    void (*changed)(void *context, const struct os_process_change *change);
    void *changed_context;
};

int os_counters_open(struct os_counters **out, const struct os_counter_settings *settings,
                     const struct os_counter_sink *sink, struct failure *f)
{
    (void)settings;
    struct os_counters *c = calloc(1, sizeof *c);
    if (!c)
        return fail(f, ERR_NOMEM, "out of memory for counters");
    c->sink = *sink;
    for (size_t i = 0; i < ROWS; i++)
        c->slots[i] = c->sink.define(c->sink.context, &rows[i]);
    *out = c;
    return 0;
}

void os_counters_close(struct os_counters *c)
{
    free(c);
}

static void give(struct os_counters *c, size_t row, uint64_t value)
{
    if (c->slots[row] < 0)
        return;
    if (value > (uint64_t)INT64_MAX)
        c->sink.gap(c->sink.context, c->slots[row], "number is out of range");
    else
        c->sink.value(c->sink.context, c->slots[row], (int64_t)value);
}

static void gap(struct os_counters *c, size_t first, size_t end, const char *function)
{
    char reason[REASON_SIZE];
    (void)text_format(reason, sizeof reason, "%s failed: error %lu", function, GetLastError());
    for (size_t i = first; i < end; i++)
        if (c->slots[i] >= 0)
            c->sink.gap(c->sink.context, c->slots[i], reason);
}

/* FILETIME counts 100 ns. */
static uint64_t to_us(FILETIME time)
{
    return ((uint64_t)time.dwHighDateTime << 32 | time.dwLowDateTime) / 10;
}

/* The kernel's time holds the idle time. */
static void sample_cpu(struct os_counters *c)
{
    FILETIME idle, kernel, user;
    if (!GetSystemTimes(&idle, &kernel, &user)) {
        gap(c, CPU_FIRST, CPU_END, "GetSystemTimes");
        return;
    }
    uint64_t system_us = to_us(kernel) > to_us(idle) ? to_us(kernel) - to_us(idle) : 0;
    give(c, CPU_USER, to_us(user));
    give(c, CPU_SYSTEM, system_us);
    give(c, CPU_IDLE, to_us(idle));
    give(c, CPU_BUSY, to_us(user) + system_us);
}

static void sample_memory(struct os_counters *c)
{
    MEMORYSTATUSEX m = {.dwLength = sizeof m};
    if (!GlobalMemoryStatusEx(&m)) {
        gap(c, MEMORY_FIRST, MEMORY_END, "GlobalMemoryStatusEx");
        return;
    }
    give(c, MEMORY_TOTAL, m.ullTotalPhys);
    give(c, MEMORY_AVAILABLE, m.ullAvailPhys);
    give(c, MEMORY_USED, m.ullTotalPhys - m.ullAvailPhys);
    give(c, COMMIT_LIMIT, m.ullTotalPageFile);
    give(c, COMMITTED, m.ullTotalPageFile - m.ullAvailPageFile);
}

void os_counters_sample(struct os_counters *c, uint64_t mono_us)
{
    (void)mono_us;
    sample_cpu(c);
    sample_memory(c);
    DWORD count = GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
    if (count > 0)
        give(c, CPU_COUNT, count);
    else
        gap(c, CPU_COUNT, CPU_COUNT + 1, "GetActiveProcessorCount");
}

/* Processes are not followed yet: nothing starts, ends or is asked for. */
void os_counters_on_process(struct os_counters *c,
                            void (*changed)(void *context, const struct os_process_change *change),
                            void *context)
{
    c->changed = changed;
    c->changed_context = context;
}

bool os_counters_each_process(const struct os_counters *c,
                              void (*each)(void *context, const struct os_process_change *process),
                              void *context)
{
    (void)c;
    (void)each;
    (void)context;
    return false;
}

size_t os_counters_want_io(struct os_counters *c, uint32_t *pids, size_t count)
{
    (void)c;
    (void)pids;
    (void)count;
    return 0;
}

void os_counters_give_io(struct os_counters *c, const struct os_process_io *io, size_t count)
{
    (void)c;
    (void)io;
    (void)count;
}
