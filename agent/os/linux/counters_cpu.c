/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processor time of the host and of each core, interrupts, context switches, forks and load:
 * proc(5), /proc/stat and /proc/loadavg. Times are in microseconds, of a resolution of 10 ms. Rows
 * for processor times stand in the order of the columns. Called by counters.c.
 */
#include "agent/os/linux/counters_linux.h"

#include <string.h>

#include "common/text.h"

#define CORES_MAX 1024
#define CORES_DETAIL_MAX 64 /* more cores: only how busy each is */
#define MODES_MAX 10
#define MODES_CORE 8 /* guest time is within user time */

enum { MODE_IDLE = 3, MODE_IOWAIT = 4 };

#define TIME(name)                                  \
    {                                               \
        NULL, name, "us", OS_COUNT, COUNTER_TICK_US \
    }

enum host_row {
    HOST_USER = 0, /* and the other columns */
    HOST_BUSY = MODES_MAX,
    HOST_COUNT,
    HOST_INTERRUPTS,
    HOST_SWITCHES,
    HOST_FORKS,
    HOST_RUNNING,
    HOST_BLOCKED,
    HOST_SOFTIRQS,
    HOST_SOFTIRQ_FIRST,
    HOST_SOFTIRQ_END = HOST_SOFTIRQ_FIRST + 10,
};

static const struct counter_row host_rows[] = {
    TIME("cpu.user"),
    TIME("cpu.nice"),
    TIME("cpu.system"),
    TIME("cpu.idle"),
    TIME("cpu.iowait"),
    TIME("cpu.irq"),
    TIME("cpu.softirq"),
    TIME("cpu.steal"),
    TIME("cpu.guest"),
    TIME("cpu.guest_nice"),
    TIME("cpu.busy"),
    {NULL, "cpu.count", "1", OS_GAUGE, 1},
    {"intr", "system.interrupts", "1", OS_COUNT, 1},
    {"ctxt", "system.context_switches", "1", OS_COUNT, 1},
    {"processes", "system.forks", "1", OS_COUNT, 1},
    {"procs_running", "system.tasks_running", "1", OS_GAUGE, 1},
    {"procs_blocked", "system.tasks_blocked", "1", OS_GAUGE, 1},
    {"softirq", "system.softirqs", "1", OS_COUNT, 1},
    {NULL, "softirq.high", "1", OS_COUNT, 1},
    {NULL, "softirq.timer", "1", OS_COUNT, 1},
    {NULL, "softirq.net_transmit", "1", OS_COUNT, 1},
    {NULL, "softirq.net_receive", "1", OS_COUNT, 1},
    {NULL, "softirq.block", "1", OS_COUNT, 1},
    {NULL, "softirq.poll", "1", OS_COUNT, 1},
    {NULL, "softirq.tasklet", "1", OS_COUNT, 1},
    {NULL, "softirq.schedule", "1", OS_COUNT, 1},
    {NULL, "softirq.hrtimer", "1", OS_COUNT, 1},
    {NULL, "softirq.rcu", "1", OS_COUNT, 1},
};
_Static_assert(sizeof host_rows / sizeof host_rows[0] == HOST_SOFTIRQ_END, "rows and enum differ");

enum core_row { CORE_BUSY = MODES_CORE, CORE_ROWS };

static const struct counter_row core_rows[] = {
    TIME("cpu.core.user"),    TIME("cpu.core.nice"),   TIME("cpu.core.system"),
    TIME("cpu.core.idle"),    TIME("cpu.core.iowait"), TIME("cpu.core.irq"),
    TIME("cpu.core.softirq"), TIME("cpu.core.steal"),  TIME("cpu.core.busy"),
};
_Static_assert(sizeof core_rows / sizeof core_rows[0] == CORE_ROWS, "rows and enum differ");

/* ---- /proc/stat ---- */

/* The columns behind "cpu"; older kernels have fewer. `busy`: all but idle and iowait. */
static size_t take_modes(struct span line, uint64_t *modes, uint64_t *busy)
{
    size_t count = 0;
    *busy = 0;
    while (count < MODES_MAX && proc_take_number(&line, &modes[count]) == 0) {
        if (count != MODE_IDLE && count != MODE_IOWAIT && count < MODES_CORE)
            *busy += modes[count];
        count++;
    }
    return count;
}

static void parse_host(struct os_counters *c, struct series_group *group, struct span line)
{
    uint64_t modes[MODES_MAX], busy;
    size_t count = take_modes(line, modes, &busy);
    for (size_t i = 0; i < count; i++)
        counter_value(c, group->type, group_host(group), HOST_USER + i, modes[i]);
    if (count > MODE_IOWAIT)
        counter_value(c, group->type, group_host(group), HOST_BUSY, busy);
}

static void parse_core(struct os_counters *c, struct series_group *group, struct span name,
                       struct span line)
{
    uint64_t modes[MODES_MAX], busy;
    size_t count = take_modes(line, modes, &busy);
    struct instance *core = group_find(c, group, name);
    if (!core || count <= MODE_IOWAIT)
        return;
    counter_value(c, group->type, core, CORE_BUSY, busy);
    if (group->count > CORES_DETAIL_MAX)
        return;
    for (size_t i = 0; i < count && i < MODES_CORE; i++)
        counter_value(c, group->type, core, i, modes[i]);
}

static void parse_softirqs(struct os_counters *c, struct series_group *group, struct span line)
{
    uint64_t value;
    for (size_t i = HOST_SOFTIRQS; i < HOST_SOFTIRQ_END && proc_take_number(&line, &value) == 0;
         i++)
        counter_value(c, group->type, group_host(group), i, value);
}

static void parse_other(struct os_counters *c, struct series_group *group, struct span key,
                        struct span line)
{
    uint64_t value;
    for (size_t i = HOST_INTERRUPTS; i < HOST_SOFTIRQS; i++) {
        if (!span_equal(key, span_str(host_rows[i].key)))
            continue;
        if (proc_take_number(&line, &value) < 0)
            return;
        counter_value(c, group->type, group_host(group), i, value);
        if (i == HOST_FORKS)
            c->forks = value;
        return;
    }
}

static void parse_stat(struct os_counters *c, struct counter_file *file, struct span text)
{
    struct series_group *host = &file->groups[0], *cores = &file->groups[1];
    struct span line, key;
    uint64_t count = 0;
    while (proc_take_line(&text, &line) == 0) {
        if (proc_take_field(&line, &key) < 0)
            continue;
        if (span_equal(key, span_str("cpu"))) {
            parse_host(c, host, line);
        } else if (proc_starts_with(key, "cpu")) {
            parse_core(c, cores, key, line);
            count++;
        } else if (span_equal(key, span_str("softirq"))) {
            parse_softirqs(c, host, line);
        } else {
            parse_other(c, host, key, line);
        }
    }
    if (count > 0)
        counter_value(c, host->type, group_host(host), HOST_COUNT, count);
}

/* ---- /proc/loadavg ---- */

enum load_row { LOAD_1M, LOAD_5M, LOAD_15M, LOAD_ROWS };

static const struct counter_row load_rows[] = {
    {NULL, "load.1m", "1", OS_GAUGE, 1},
    {NULL, "load.5m", "1", OS_GAUGE, 1},
    {NULL, "load.15m", "1", OS_GAUGE, 1},
};
static const struct counter_row task_rows[] = {
    {NULL, "system.threads", "1", OS_GAUGE, 1},
};

/* "0.56": hundredths. */
static int take_hundredths(struct span *line, uint64_t *out)
{
    struct span field, whole;
    uint64_t units, hundredths;
    if (proc_take_field(line, &field) < 0 || text_take_until(&field, '.', &whole) < 0 ||
        text_take_u64(&whole, &units) < 0 || whole.size_bytes > 0 || field.size_bytes != 2 ||
        text_take_u64(&field, &hundredths) < 0 || field.size_bytes > 0 || units > UINT32_MAX)
        return ERR_CORRUPT;
    *out = units * 100 + hundredths;
    return 0;
}

/* "0.56 0.36 0.23 1/91 11898" */
static void parse_load(struct os_counters *c, struct counter_file *file, struct span text)
{
    struct series_group *load = &file->groups[0], *tasks = &file->groups[1];
    struct span field, running;
    uint64_t value;
    for (size_t i = 0; i < LOAD_ROWS; i++) {
        if (take_hundredths(&text, &value) < 0)
            return;
        counter_value(c, load->type, group_host(load), i, value);
    }
    if (proc_take_field(&text, &field) < 0 || text_take_until(&field, '/', &running) < 0 ||
        text_take_u64(&field, &value) < 0 || field.size_bytes > 0)
        return;
    counter_value(c, tasks->type, group_host(tasks), 0, value);
    c->threads = value;
}

static const struct counter_file_type files[] = {
    {"/proc/stat",
     parse_stat,
     {{host_rows, HOST_SOFTIRQ_END, 0, 1}, {core_rows, CORE_ROWS, CORES_MAX, 1}}},
    {"/proc/loadavg", parse_load, {{load_rows, LOAD_ROWS, 0, 100}, {task_rows, 1, 0, 1}}},
};
const struct counter_topic counters_cpu = {files, sizeof files / sizeof files[0]};
