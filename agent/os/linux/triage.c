/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be said of a process without touching it, as a text that a person reads from the top:
 * who it is, how it is, its threads, files, limits, control group and signals. Invariant: the
 * process is not stopped or traced; all is read from /proc. Called by the worker through
 * os/triage.h.
 */
#include "agent/os/triage.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/port.h"
#include "common/text.h"

#define LINE_SIZE 1024
#define TICK_US 10000

/* ---- writing ---- */

void triage_put(struct triage *t, const char *format, ...)
{
    char line[LINE_SIZE];
    va_list args;
    if (t->result < 0)
        return;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length > 0)
        t->result = buf_append_str(t->out, line);
}

void triage_put_safe(struct triage *t, struct span text)
{
    if (t->result == 0)
        t->result = text_append_safe(t->out, text, false);
}

void triage_miss(struct triage *t, const char *what, const char *why)
{
    size_t length = strlen(t->missing);
    (void)text_format(t->missing + length, t->missing_size_bytes - length, "%s%s: %s",
                      length ? "; " : "", what, why);
}

int triage_read(struct triage *t, const char *leaf, void *data, size_t size_bytes, struct span *out)
{
    struct failure f;
    int result = proc_read_pid(t->root, t->process->pid, leaf, data, size_bytes, out, &f);
    if (result < 0)
        triage_miss(t, leaf, f.text);
    return result;
}

const char *triage_state(char state)
{
    switch (state) {
    case 'R':
        return "running or ready to";
    case 'S':
        return "sleeping";
    case 'D':
        return "waiting, not to be interrupted (disk or kernel)";
    case 'T':
        return "stopped by a signal";
    case 't':
        return "stopped by a debugger";
    case 'Z':
        return "ended, not reaped";
    case 'X':
        return "ended";
    case 'I':
        return "idle";
    }
    return "in an unknown state";
}

/* ---- who it is ---- */

static void put_line(struct triage *t, const char *label, struct span value)
{
    while (value.size_bytes > 0 && value.data[value.size_bytes - 1] <= ' ')
        value.size_bytes--;
    triage_put(t, "%-12s", label);
    triage_put_safe(t, value);
    triage_put(t, "\n");
}

/* Arguments are separated by zeros; shown as blanks. */
static void put_command(struct triage *t)
{
    char data[PROC_LINE_SIZE];
    struct span text;
    if (triage_read(t, "cmdline", data, sizeof data, &text) < 0)
        return;
    for (size_t i = 0; i < text.size_bytes; i++)
        if (data[i] == '\0')
            data[i] = ' ';
    put_line(t, "command", text);
    if (text.size_bytes == sizeof data)
        triage_miss(t, "command", "only its first 4 KiB");
}

static void put_link(struct triage *t, const char *label, const char *leaf)
{
    char target[PROC_PATH_SIZE];
    struct failure f;
    if (proc_link_pid(t->root, t->process->pid, leaf, target, sizeof target, &f) < 0)
        triage_miss(t, label, f.text);
    else
        put_line(t, label, span_str(target));
}

static void put_parent(struct triage *t, uint32_t parent)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat;
    triage_put(t, "parent      %u", parent);
    if (parent != 0 &&
        proc_read_pid(t->root, parent, "stat", data, sizeof data, &text, NULL) == 0 &&
        proc_parse_stat(text, &stat) == 0) {
        triage_put(t, " ");
        triage_put_safe(t, span_str(stat.name));
    }
    triage_put(t, "\n");
}

/* Ticks since boot; the clock of /proc/uptime goes on through suspend, as start times do. */
static void put_age(struct triage *t, uint64_t start_ticks)
{
    char data[64], path[PROC_PATH_SIZE], text[32];
    struct span uptime;
    uint64_t seconds;
    (void)text_format(path, sizeof path, "%s/proc/uptime", t->root);
    if (proc_read(path, data, sizeof data, &uptime, NULL) < 0 ||
        text_take_u64(&uptime, &seconds) < 0 || seconds > UINT32_MAX || start_ticks / 100 > seconds)
        return;
    int64_t age_us = (int64_t)(seconds - start_ticks / 100) * 1000000;
    text_put_duration(age_us, text, sizeof text);
    triage_put(t, "started     %s ago", text);
    if (t->root[0] == '\0') {
        text_put_time(port_wall_us() - age_us, text, sizeof text);
        triage_put(t, ", %s", text);
    }
    triage_put(t, "\n");
}

static void put_cpu(struct triage *t, const struct proc_stat *stat)
{
    triage_put(t, "CPU         user %llu.%02llu s, system %llu.%02llu s\n",
               (unsigned long long)(stat->user_ticks / 100),
               (unsigned long long)(stat->user_ticks % 100),
               (unsigned long long)(stat->system_ticks / 100),
               (unsigned long long)(stat->system_ticks % 100));
}

static void put_memory(struct triage *t, struct span status)
{
    static const struct {
        const char *key, *label;
    } rows[] = {{"VmRSS:", "resident"},   {"VmHWM:", "most resident"}, {"RssAnon:", "anonymous"},
                {"RssFile:", "of files"}, {"RssShmem:", "shared"},     {"VmSwap:", "swapped out"},
                {"VmSize:", "virtual"}};
    struct span value;
    uint64_t kib;
    char text[32];
    bool first = true;
    triage_put(t, "memory      ");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (proc_find_key(status, rows[i].key, &value) < 0 || proc_take_number(&value, &kib) < 0 ||
            kib > UINT64_MAX / 1024)
            continue;
        text_put_size(kib * 1024, text, sizeof text);
        triage_put(t, "%s%s %s", first ? "" : ", ", rows[i].label, text);
        first = false;
    }
    triage_put(t, "%s\n", first ? "not known" : "");
}

static void put_if_set(struct triage *t, struct span status, const char *key, const char *label)
{
    struct span value;
    if (proc_find_key(status, key, &value) == 0 && !span_equal(value, span_str("0")))
        put_line(t, label, value);
}

static void put_unit(struct triage *t)
{
    char data[PROC_TEXT_SIZE], unit[PROC_UNIT_SIZE];
    struct span text;
    if (proc_read_pid(t->root, t->process->pid, "cgroup", data, sizeof data, &text, NULL) < 0)
        return;
    if (proc_cgroup_unit(text, unit, sizeof unit) == 0)
        put_line(t, "unit", span_str(unit));
    struct span line = text;
    for (struct span next; proc_take_line(&text, &next) == 0;)
        line = next; /* v2's is the last */
    put_line(t, "cgroup", line);
}

/* Which of its namespaces are not the ones that we live in: it may be in a container. */
static void put_namespaces(struct triage *t)
{
    static const char *const names[] = {"cgroup", "ipc",  "mnt",  "net",
                                        "pid",    "time", "user", "uts"};
    char leaf[16], theirs[64], ours[64], own[PROC_PATH_SIZE];
    struct failure f = {0};
    bool any = false;
    triage_put(t, "namespaces ");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)text_format(leaf, sizeof leaf, "ns/%s", names[i]);
        (void)text_format(own, sizeof own, "%s/proc/self/ns/%s", t->root, names[i]);
        if (proc_link_pid(t->root, t->process->pid, leaf, theirs, sizeof theirs, &f) < 0 ||
            proc_link(own, ours, sizeof ours, NULL) < 0 || strcmp(theirs, ours) == 0)
            continue;
        triage_put(t, "%s%s", any ? ", " : " its own: ", names[i]);
        any = true;
    }
    triage_put(t, "%s\n", any ? "" : " the host's, or not to be seen");
    if (f.code == ERR_DENIED)
        triage_miss(t, "namespaces", f.text);
}

static void put_oom(struct triage *t)
{
    char score[32], adjust[32];
    struct span a, b;
    if (triage_read(t, "oom_score", score, sizeof score, &a) < 0 ||
        triage_read(t, "oom_score_adj", adjust, sizeof adjust, &b) < 0)
        return;
    struct span first, second;
    if (proc_take_field(&a, &first) < 0 || proc_take_field(&b, &second) < 0)
        return;
    triage_put(t, "OOM score   ");
    triage_put_safe(t, first);
    triage_put(t, ", adjusted by ");
    triage_put_safe(t, second);
    triage_put(t, "\n");
}

static void put_head(struct triage *t, const struct proc_stat *stat, struct span status)
{
    const struct os_process *process = t->process;
    triage_put(t, "process     %u ", process->pid);
    triage_put_safe(t, span_str(process->name));
    triage_put(t, ", uid %u, %u threads, %s\n", process->uid, stat->threads,
               triage_state(stat->state));
    put_command(t);
    put_link(t, "executable", "exe");
    put_link(t, "directory", "cwd");
    put_parent(t, stat->parent);
    put_age(t, stat->start_ticks);
    put_cpu(t, stat);
    put_memory(t, status);
    put_unit(t);
    put_namespaces(t);
    put_oom(t);
    put_if_set(t, status, "TracerPid:", "traced by");
    put_if_set(t, status, "Seccomp:", "seccomp");
    put_if_set(t, status, "NoNewPrivs:", "no new priv.");
}

/* ---- the whole ---- */

static int read_stat(const char *root, const struct os_process *process, struct proc_stat *out,
                     struct failure *f)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    int result = proc_read_pid(root, process->pid, "stat", data, sizeof data, &text, f);
    if (result == ERR_GONE)
        return fail(f, ERR_GONE, "process %u has ended", process->pid);
    if (result < 0)
        return result;
    if (proc_parse_stat(text, out) < 0)
        return fail(f, ERR_CORRUPT, "not as expected '%s/proc/%u/stat'", root, process->pid);
    if (out->start_ticks != process->start_ticks)
        return fail(f, ERR_GONE, "process %u has ended, its pid is in use again", process->pid);
    return 0;
}

int os_triage_capture(const char *root, const struct os_process *process, struct buf *out,
                      char *missing, size_t size_bytes, struct failure *f)
{
    struct triage t = {root, process, out, missing, size_bytes, 0};
    char data[PROC_TEXT_SIZE];
    struct span status;
    struct proc_stat stat = {0};
    size_t before = out->size_bytes;
    missing[0] = '\0';
    int result = read_stat(root, process, &stat, f);
    if (result < 0)
        return result;
    if (triage_read(&t, "status", data, sizeof data, &status) < 0)
        status = span_of(data, 0);
    put_head(&t, &stat, status);
    triage_put_threads(&t);
    triage_put_files(&t);
    triage_put_limits(&t, status);
    triage_put_cgroup(&t);
    triage_put_signals(&t, status);
    if (t.result < 0)
        result = fail(f, t.result, "triage of process %u: %s", process->pid, err_text(t.result));
    else /* the pid may have come into use again meanwhile */
        result = read_stat(root, process, &stat, f);
    if (result < 0)
        out->size_bytes = before;
    return result;
}
