/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading of free memory, of host and control groups (kernel: Documentation/admin-guide/
 * cgroup-v2.rst, cgroup-v1/memory.rst). Invariant: a group without a limit, or one that cannot be
 * read, never makes the headroom larger. Called by dump.c.
 */
#include "agent/os/linux/headroom.h"

#include <stdbool.h>
#include <string.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define GROUP_PATH_SIZE 1024
#define GROUP_DEPTH_MAX 64
#define NUMBER_SIZE 64
#define STAT_SIZE 16384
/* Of a group with more free than this, what could be dropped besides is not looked for. */
#define PLENTY_PERMILLE 500

/* What a version of control groups calls its files, and where they lie below ROOT/sys/fs/cgroup. */
struct version {
    const char *controller; /* in /proc/PID/cgroup; "" for v2 */
    const char *folders[2];
    const char *limits[2];
    const char *usage;
    const char *droppable; /* in memory.stat, of the group and all below */
};

static const struct version versions[] = {
    {"", {"", "/unified"}, {"memory.max", "memory.high"}, "memory.current", "inactive_file "},
    {"memory",
     {"/memory", NULL},
     {"memory.limit_in_bytes", NULL},
     "memory.usage_in_bytes",
     "total_inactive_file "},
};

/* ---- host ---- */

/* `group` is NULL for the host. */
static void take_smaller(struct headroom *least, uint64_t free_bytes, uint64_t total_bytes,
                         const char *group)
{
    uint64_t within = free_bytes < total_bytes ? free_bytes : total_bytes;
    uint32_t permille = (uint32_t)((double)within / (double)total_bytes * 1000);
    if (least->where[0] != '\0' && permille >= least->free_permille)
        return;
    least->free_bytes = within;
    least->total_bytes = total_bytes;
    least->free_permille = permille;
    if (group)
        (void)text_format(least->where, sizeof least->where, "control group '%s'", group);
    else
        (void)text_copy(least->where, sizeof least->where, "the host");
}

static int take_kib(struct span text, const char *key, uint64_t *bytes)
{
    struct span value;
    uint64_t kib;
    if (proc_find_key(text, key, &value) || text_take_u64(&value, &kib) || kib > UINT64_MAX / 1024)
        return ERR_UNSUPPORTED;
    *bytes = kib * 1024;
    return 0;
}

static int read_host(const char *root, struct headroom *out, struct failure *f)
{
    char path[PROC_PATH_SIZE], data[PROC_TEXT_SIZE];
    struct span text;
    uint64_t free_bytes, total_bytes;
    (void)text_format(path, sizeof path, "%s/proc/meminfo", root);
    int rc = proc_read(path, data, sizeof data, &text, f);
    if (rc)
        return rc;
    if (take_kib(text, "MemAvailable:", &free_bytes) || take_kib(text, "MemTotal:", &total_bytes) ||
        total_bytes == 0)
        return fail(f, ERR_UNSUPPORTED, "cannot tell how much memory is free");
    take_smaller(out, free_bytes, total_bytes, NULL);
    return 0;
}

/* ---- control groups ---- */

struct group {
    const struct version *version;
    const char *root;
    const char *folder;
    char path[GROUP_PATH_SIZE]; /* "/a/b"; "" the root */
};

static int read_file(const struct group *group, const char *name, char *data, size_t size_bytes,
                     struct span *out)
{
    char path[2 * GROUP_PATH_SIZE];
    if (text_format(path, sizeof path, "%s/sys/fs/cgroup%s%s/%s", group->root, group->folder,
                    group->path, name))
        return ERR_LIMIT;
    return proc_read(path, data, size_bytes, out, NULL);
}

/* "max", and what is not there, is no number. */
static bool read_number(const struct group *group, const char *name, uint64_t *out)
{
    char data[NUMBER_SIZE];
    struct span text;
    return name && read_file(group, name, data, sizeof data, &text) == 0 &&
           text_take_u64(&text, out) == 0;
}

static uint64_t read_droppable(const struct group *group)
{
    char data[STAT_SIZE];
    struct span text, line;
    uint64_t bytes = 0;
    if (read_file(group, "memory.stat", data, sizeof data, &text))
        return 0;
    while (proc_take_line(&text, &line) == 0) {
        size_t key = strlen(group->version->droppable);
        if (!proc_starts_with(line, group->version->droppable))
            continue;
        struct span value = span_of(line.data + key, line.size_bytes - key);
        return text_take_u64(&value, &bytes) == 0 ? bytes : 0;
    }
    return 0;
}

static void read_group(const struct group *group, uint64_t host_bytes, struct headroom *least)
{
    uint64_t limit = UINT64_MAX, usage;
    for (size_t i = 0; i < 2; i++) {
        uint64_t one;
        if (read_number(group, group->version->limits[i], &one) && one < limit)
            limit = one;
    }
    /* v1's "no limit" is a number, and larger than any host. */
    if (limit >= host_bytes || limit == 0 || !read_number(group, group->version->usage, &usage))
        return;
    uint64_t left = usage < limit ? limit - usage : 0;
    if (left < limit / 1000 * PLENTY_PERMILLE) {
        uint64_t droppable = read_droppable(group);
        left = droppable < usage ? left + droppable : left;
    }
    take_smaller(least, left, limit, group->path[0] ? group->path : "/");
}

static bool is_listed(struct span controllers, const char *name)
{
    struct span item;
    while (text_take_until(&controllers, ',', &item) == 0)
        if (span_equal(item, span_str(name)))
            return true;
    return false;
}

/* The path of the group in the text of /proc/PID/cgroup. One that lies above our own root, as seen
 * from inside a container, cannot be found below it. */
static bool find_group(struct span text, const struct version *version, char *out)
{
    struct span line, number, controllers;
    while (proc_take_line(&text, &line) == 0) {
        if (text_take_until(&line, ':', &number) || text_take_until(&line, ':', &controllers))
            continue;
        bool is_v2 = controllers.size_bytes == 0;
        if (version->controller[0] ? !is_listed(controllers, version->controller) : !is_v2)
            continue;
        if (text_copy_span(out, GROUP_PATH_SIZE, line) || strstr(out, "/../") || out[0] != '/' ||
            strncmp(out, "/..", 3) == 0)
            return false;
        if (strcmp(out, "/") == 0)
            out[0] = '\0';
        return true;
    }
    return false;
}

/* From the group upwards; a limit may lie on any level. */
static void climb(struct group *group, uint64_t host_bytes, struct headroom *least)
{
    for (int depth = 0; depth < GROUP_DEPTH_MAX; depth++) {
        read_group(group, host_bytes, least);
        char *slash = strrchr(group->path, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

int headroom_read(const char *root, uint32_t pid, struct headroom *out, struct failure *f)
{
    char data[PROC_TEXT_SIZE];
    struct span text;
    struct headroom least = {0, 0, 0, ""};
    int rc = proc_read_pid(root, pid, "cgroup", data, sizeof data, &text, f);
    /* A kernel without control groups has no such file, but then no such process either. */
    if (rc == 0)
        rc = read_host(root, &least, f);
    if (rc)
        return rc;
    uint64_t host_bytes = least.total_bytes;
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        for (size_t k = 0; k < 2 && versions[i].folders[k]; k++) {
            struct group group = {&versions[i], root, versions[i].folders[k], ""};
            if (find_group(text, &versions[i], group.path))
                climb(&group, host_bytes, &least);
        }
    }
    *out = least;
    return 0;
}
