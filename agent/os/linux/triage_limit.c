/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of a process beside what it uses of them (getrlimit(2)). Invariant: what is not known to
 * be used is not shown as 0. Called by triage.c.
 */
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

static const struct {
    const char *name;   /* in /proc/PID/limits, after "Max " */
    const char *status; /* what of /proc/PID/status is used of it; NULL: not known */
} limits[TRIAGE_LIMITS] = {
    {"open files", NULL},     {"processes", NULL},          {"address space", "VmSize:"},
    {"data size", "VmData:"}, {"locked memory", "VmLck:"},  {"stack size", "VmStk:"},
    {"core file size", NULL}, {"pending signals", "SigQ:"},
};
enum { LIMIT_FILES = 0 };

static int take_limit(struct span *line, uint64_t *out)
{
    struct span field;
    uint64_t value;
    if (proc_take_field(line, &field) < 0)
        return ERR_CORRUPT;
    if (span_equal(field, span_str("unlimited"))) {
        *out = TRIAGE_NO_LIMIT;
        return 0;
    }
    if (text_take_u64(&field, &value) < 0 || field.size_bytes > 0)
        return ERR_CORRUPT;
    *out = value;
    return 0;
}

/* "VmSize:   1234 kB", "SigQ: 3/7714" */
static void find_used(const struct triage *t, size_t i, struct triage_limit *limit)
{
    struct span value;
    uint64_t number;
    if (i == LIMIT_FILES) {
        limit->has_used = t->fds_known;
        limit->used = t->fd_total;
        return;
    }
    if (!limits[i].status || proc_find_key(t->status, limits[i].status, &value) < 0 ||
        text_take_u64(&value, &number) < 0)
        return;
    bool kib = proc_starts_with(value, " kB");
    if (kib && number > UINT64_MAX / 1024)
        return;
    limit->used = kib ? number * 1024 : number;
    limit->has_used = true;
}

/* "Max open files            1024                 1048576              files" */
static void read_limit(struct triage *t, struct span text, size_t i)
{
    char key[40];
    struct span line, unit;
    struct triage_limit limit = {.name = limits[i].name};
    (void)text_format(key, sizeof key, "Max %s", limits[i].name);
    if (proc_find_key(text, key, &line) < 0 || take_limit(&line, &limit.soft) < 0 ||
        take_limit(&line, &limit.hard) < 0)
        return;
    if (proc_take_field(&line, &unit) == 0)
        (void)text_copy_span(limit.unit, sizeof limit.unit, unit);
    find_used(t, i, &limit);
    t->limits[t->limit_count++] = limit;
}

void triage_read_limits(struct triage *t)
{
    char data[PROC_TEXT_SIZE];
    struct span text;
    if (triage_read(t, "limits", data, sizeof data, &text) < 0)
        return;
    for (size_t i = 0; i < TRIAGE_LIMITS; i++)
        read_limit(t, text, i);
}
