/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control group of a process: what it uses, may use, and how it was held back (kernel:
 * Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/). Called by triage.c.
 */
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define GROUP_PATH_SIZE 256

/* A file of a group; of several lines those with one of `keys` are shown, without keys the first.
 */
struct group_file {
    const char *controller; /* v1; "" for v2 */
    const char *name;
    const char *keys[4];
};

static const struct group_file files[] = {
    {"", "memory.current", {NULL}},
    {"", "memory.max", {NULL}},
    {"", "memory.high", {NULL}},
    {"", "memory.swap.current", {NULL}},
    {"", "memory.events", {"high ", "max ", "oom ", "oom_kill "}},
    {"", "memory.pressure", {"some ", "full "}},
    {"", "cpu.max", {NULL}},
    {"", "cpu.stat", {"nr_periods ", "nr_throttled ", "throttled_usec "}},
    {"", "cpu.pressure", {"some ", "full "}},
    {"", "io.pressure", {"some ", "full "}},
    {"", "pids.current", {NULL}},
    {"", "pids.max", {NULL}},
    {"memory", "memory.usage_in_bytes", {NULL}},
    {"memory", "memory.limit_in_bytes", {NULL}},
    {"memory", "memory.failcnt", {NULL}},
    {"memory", "memory.oom_control", {"under_oom ", "oom_kill "}},
    {"cpu", "cpu.cfs_quota_us", {NULL}},
    {"cpu", "cpu.cfs_period_us", {NULL}},
    {"cpu", "cpu.stat", {"nr_periods ", "nr_throttled ", "throttled_time "}},
    {"pids", "pids.current", {NULL}},
    {"pids", "pids.max", {NULL}},
};

/* Whether the comma-separated list holds the name. */
static bool is_in_list(struct span list, const char *name)
{
    struct span item;
    while (text_take_until(&list, ',', &item) == 0)
        if (span_equal(item, span_str(name)))
            return true;
    return false;
}

/* A group above our own root, as seen from inside a container, is not to be found below it. */
static bool is_inside(struct span path)
{
    struct span component;
    while (text_take_until(&path, '/', &component) == 0)
        if (span_equal(component, span_str("..")))
            return false;
    return true;
}

/* The path of the group in the text of /proc/PID/cgroup: of v2, or of a controller of v1. */
static bool find_group(struct span text, const char *controller, char *out)
{
    struct span line, number, controllers;
    while (proc_take_line(&text, &line) == 0) {
        if (text_take_until(&line, ':', &number) < 0 ||
            text_take_until(&line, ':', &controllers) < 0)
            continue;
        bool is_v2 = controllers.size_bytes == 0;
        if (controller[0] == '\0' ? !is_v2 : !is_in_list(controllers, controller))
            continue;
        return is_inside(line) && text_copy_span(out, GROUP_PATH_SIZE, line) == 0;
    }
    return false;
}

/* v2 alone lies at the top; beside v1 in "unified", where it counts nothing or little. */
static int read_file(const struct triage *t, const struct group_file *file, const char *group,
                     char *data, size_t size_bytes, struct span *out)
{
    char path[2 * PROC_PATH_SIZE];
    (void)text_format(path, sizeof path, "%s/sys/fs/cgroup/%s%s/%s", t->root, file->controller,
                      group, file->name);
    int result = proc_read(path, data, size_bytes, out, NULL);
    if (result == 0 || file->controller[0] != '\0')
        return result;
    (void)text_format(path, sizeof path, "%s/sys/fs/cgroup/unified%s/%s", t->root, group,
                      file->name);
    return proc_read(path, data, size_bytes, out, NULL);
}

static void put_size(struct triage *t, struct span value)
{
    char text[32];
    uint64_t bytes;
    if (text_take_u64(&value, &bytes) < 0 || value.size_bytes > 0 || bytes < 1024)
        return;
    text_put_size(bytes, text, sizeof text);
    triage_put(t, " (%s)", text);
}

static void put_file(struct triage *t, const struct group_file *file, struct span text)
{
    struct span line;
    bool is_memory = proc_starts_with(span_str(file->name), "memory.");
    triage_put(t, "  %-22s", file->name);
    for (bool first = true; proc_take_line(&text, &line) == 0;) {
        bool wanted = !file->keys[0] && first;
        for (size_t i = 0; i < 4 && file->keys[i]; i++)
            wanted |= proc_starts_with(line, file->keys[i]);
        if (!wanted)
            continue;
        triage_put(t, "%s", first ? " " : "; ");
        triage_put_safe(t, line);
        if (is_memory && !file->keys[0])
            put_size(t, line);
        first = false;
    }
    triage_put(t, "\n");
}

void triage_put_cgroup(struct triage *t)
{
    char data[PROC_TEXT_SIZE], group[GROUP_PATH_SIZE], content[PROC_TEXT_SIZE];
    struct span text, value;
    size_t read = 0;
    if (triage_read(t, "cgroup", data, sizeof data, &text) < 0)
        return;
    triage_put(t, "\ncontrol group\n");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (!find_group(text, files[i].controller, group) ||
            read_file(t, &files[i], group, content, sizeof content, &value) < 0)
            continue;
        put_file(t, &files[i], value);
        read++;
    }
    if (read == 0)
        triage_miss(t, "control group", "none of its files can be read");
}
