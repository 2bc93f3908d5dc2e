/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pressure stall information: how long some or all tasks waited for a resource, in microseconds
 * since boot (kernel: Documentation/accounting/psi.rst). Called by counters.c.
 */
#include "agent/os/linux/counters_linux.h"

#include "common/text.h"

#define RESOURCE(name, resource)                                   \
    static const struct counter_row name[] = {                     \
        {"some", "pressure." resource ".some", "us", OS_COUNT, 1}, \
        {"full", "pressure." resource ".full", "us", OS_COUNT, 1}, \
    }

RESOURCE(cpu_rows, "cpu");
RESOURCE(memory_rows, "memory");
RESOURCE(io_rows, "io");
static const struct counter_row irq_rows[] = {
    {"full", "pressure.irq.full", "us", OS_COUNT, 1},
};

static int find_total(struct span line, uint64_t *out)
{
    struct span field;
    while (proc_take_field(&line, &field) == 0) {
        if (!proc_starts_with(field, "total="))
            continue;
        field = span_of(field.data + 6, field.size_bytes - 6);
        return text_take_u64(&field, out) < 0 || field.size_bytes > 0 ? ERR_CORRUPT : 0;
    }
    return ERR_NOTFOUND;
}

/* "some avg10=0.31 avg60=3.30 avg300=2.33 total=24880304" */
static void parse(struct os_counters *c, struct counter_file *file, struct span text)
{
    struct series_group *group = &file->groups[0];
    struct span line, key;
    uint64_t total;
    while (proc_take_line(&text, &line) == 0) {
        if (proc_take_field(&line, &key) < 0 || find_total(line, &total) < 0)
            continue;
        for (size_t i = 0; i < group->type->row_count; i++)
            if (span_equal(key, span_str(group->type->rows[i].key)))
                counter_value(c, group->type, group_host(group), i, total);
    }
}

static const struct counter_file_type files[] = {
    {"/proc/pressure/cpu", parse, {{cpu_rows, 2, 0, 1}}},
    {"/proc/pressure/memory", parse, {{memory_rows, 2, 0, 1}}},
    {"/proc/pressure/io", parse, {{io_rows, 2, 0, 1}}},
    {"/proc/pressure/irq", parse, {{irq_rows, 1, 0, 1}}},
};
const struct counter_topic counters_pressure = {files, sizeof files / sizeof files[0]};
