/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole disks: /proc/diskstats (kernel: Documentation/admin-guide/iostats.rst). Partitions are left
 * out, their disk counts them; so are loop and ram devices that nothing was ever read from or
 * written to. Called by counters.c.
 */
#include "agent/os/linux/counters_linux.h"

#include <string.h>

#include "common/text.h"

#define DISKS_MAX 128

#define EVENTS(name)                         \
    {                                        \
        NULL, "disk." name, "1", OS_COUNT, 1 \
    }
#define SECTORS(name)                              \
    {                                              \
        NULL, "disk." name, "bytes", OS_COUNT, 512 \
    }
#define TIME(name)                               \
    {                                            \
        NULL, "disk." name, "us", OS_COUNT, 1000 \
    }

/* In the order of the columns; kernels before 5.5 have fewer. */
static const struct counter_row disk_rows[] = {
    EVENTS("reads"),           EVENTS("reads_merged"),   SECTORS("read_bytes"),
    TIME("read_time"),         EVENTS("writes"),         EVENTS("writes_merged"),
    SECTORS("write_bytes"),    TIME("write_time"),       {NULL, "disk.in_flight", "1", OS_GAUGE, 1},
    TIME("busy_time"),         TIME("queue_time"),       EVENTS("discards"),
    EVENTS("discards_merged"), SECTORS("discard_bytes"), TIME("discard_time"),
    EVENTS("flushes"),         TIME("flush_time"),
};
#define DISK_ROWS (sizeof disk_rows / sizeof disk_rows[0])
enum { COLUMN_READS = 0, COLUMN_WRITES = 4, COLUMNS_LEAST = 11 };

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* sda1 of sda, nvme0n1p2 of nvme0n1: the kernel lists partitions right behind their disk. */
static bool is_partition(struct span name, struct span disk)
{
    if (disk.size_bytes == 0 || name.size_bytes <= disk.size_bytes ||
        memcmp(name.data, disk.data, disk.size_bytes) != 0)
        return false;
    size_t i = disk.size_bytes;
    if (is_digit(disk.data[disk.size_bytes - 1]) && name.data[i++] != 'p')
        return false;
    if (i == name.size_bytes)
        return false;
    while (i < name.size_bytes && is_digit(name.data[i]))
        i++;
    return i == name.size_bytes;
}

static bool is_idle_pseudo_disk(struct span name, const uint64_t *values)
{
    return (proc_starts_with(name, "loop") || proc_starts_with(name, "ram")) &&
           values[COLUMN_READS] == 0 && values[COLUMN_WRITES] == 0;
}

static size_t take_columns(struct span line, uint64_t *values)
{
    size_t count = 0;
    while (count < DISK_ROWS && proc_take_number(&line, &values[count]) == 0)
        count++;
    return count;
}

/* " 254       0 vda 80453 27279 ..." */
static void parse(struct os_counters *c, struct counter_file *file, struct span text)
{
    struct series_group *group = &file->groups[0];
    struct span line, name, disk = {0};
    uint64_t major, minor, values[DISK_ROWS];
    while (proc_take_line(&text, &line) == 0) {
        if (proc_take_number(&line, &major) < 0 || proc_take_number(&line, &minor) < 0 ||
            proc_take_field(&line, &name) < 0 || is_partition(name, disk))
            continue;
        disk = name;
        size_t count = take_columns(line, values);
        if (count < COLUMNS_LEAST || is_idle_pseudo_disk(name, values))
            continue;
        struct instance *instance = group_find(c, group, name);
        for (size_t i = 0; instance && i < count; i++)
            counter_value(c, group->type, instance, i, values[i]);
    }
}

static const struct counter_file_type files[] = {
    {"/proc/diskstats", parse, {{disk_rows, DISK_ROWS, DISKS_MAX, 1}}},
};
const struct counter_topic counters_disk = {files, sizeof files / sizeof files[0]};
