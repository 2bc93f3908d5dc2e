/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control group of a process: what it uses, may use, and how it was held back (kernel:
 * Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/). Called by triage.c.
 */
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define GROUP_PATH_SIZE 256
#define GROUP_KEYS 4
#define LEVELS_MAX 32
#define NO_LIMIT_V1 (UINT64_C(1) << 62)

/* A file of a group; of several lines those with one of `keys` are shown, without keys the first.
 */
struct group_file {
    const char *controller; /* v1; "" for v2 */
    const char *name;
    const char *keys[GROUP_KEYS];
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
    {"", "cpu.weight", {NULL}},
    {"", "cgroup.freeze", {NULL}},
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
    {"freezer", "freezer.state", {NULL}},
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

/* "12345678" gets "(11.8 MiB)" behind it. */
static void add_size(char *out, size_t size_bytes)
{
    char text[32];
    uint64_t bytes;
    struct span value = span_str(out);
    if (text_take_u64(&value, &bytes) < 0 || value.size_bytes > 0 || bytes < 1024)
        return;
    text_put_size(bytes, text, sizeof text);
    triage_add(out, size_bytes, " (%s)", text);
}

static bool add_row(struct triage *t, const struct group_file *file, struct span text)
{
    struct span line;
    if (t->row_count == TRIAGE_CGROUP_ROWS)
        return false;
    struct triage_row *row = &t->rows[t->row_count++];
    *row = (struct triage_row){.controller = file->controller, .name = file->name};
    for (bool first = true; proc_take_line(&text, &line) == 0;) {
        bool wanted = !file->keys[0] && first;
        for (size_t i = 0; i < GROUP_KEYS && file->keys[i]; i++)
            wanted |= proc_starts_with(line, file->keys[i]);
        if (!wanted)
            continue;
        triage_add(row->text, sizeof row->text, "%s%.*s", first ? "" : "; ",
                   (int)(line.size_bytes < 120 ? line.size_bytes : 120), (const char *)line.data);
        first = false;
    }
    if (!row->text[0]) { /* the file has none of what we look for */
        t->row_count--;
        return false;
    }
    if (proc_starts_with(span_str(file->name), "memory.") && !file->keys[0])
        add_size(row->text, sizeof row->text);
    return true;
}

static bool is_limit(const char *name)
{
    static const char *const ends[] = {".max", ".high", ".limit_in_bytes", ".cfs_quota_us"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (proc_ends_with(span_str(name), ends[i]))
            return true;
    return false;
}

/* "max", "max 100000", "-1", or v1's largest number of whole pages. */
static bool is_no_limit(struct span value)
{
    uint64_t number;
    return proc_starts_with(value, "max") || proc_starts_with(value, "-1") ||
           (text_take_u64(&value, &number) == 0 && number >= NO_LIMIT_V1);
}

/* The limits of the groups above, which hold for this one too: each that is set. */
static void add_above(struct triage *t, const struct group_file *file, char *group)
{
    char content[PROC_LINE_SIZE];
    struct span value, line;
    struct triage_row *row = &t->rows[t->row_count - 1];
    for (int level = 0; level < LEVELS_MAX && strlen(group) > 1; level++) {
        char *slash = strrchr(group, '/');
        if (!slash)
            return;
        *slash = '\0';
        if (read_file(t, file, group, content, sizeof content, &value) < 0 ||
            proc_take_line(&value, &line) < 0 || is_no_limit(line))
            continue;
        triage_add(row->text, sizeof row->text, "; above, in %s: %.*s", group[0] ? group : "/",
                   (int)(line.size_bytes < 40 ? line.size_bytes : 40), (const char *)line.data);
    }
}

void triage_read_cgroup(struct triage *t)
{
    char data[PROC_TEXT_SIZE], group[GROUP_PATH_SIZE], content[PROC_TEXT_SIZE];
    struct span text, value;
    if (triage_read(t, "cgroup", data, sizeof data, &text) < 0)
        return;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (find_group(text, files[i].controller, group) &&
            read_file(t, &files[i], group, content, sizeof content, &value) == 0 &&
            add_row(t, &files[i], value) && is_limit(files[i].name))
            add_above(t, &files[i], group);
    if (t->row_count == 0)
        os_result_miss(t->result, "control group: none of its files can be read");
}
