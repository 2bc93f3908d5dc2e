/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a process is and how it is: command, age, processor time, memory, control group, namespaces,
 * privileges, signals, as rows of a label and a text. Invariant: a row is there only when its value
 * was read. Called by triage.c.
 */
#include <string.h>
#include <unistd.h>

#include "agent/os/linux/triage_linux.h"
#include "agent/os/linux/triage_read.h"
#include "common/port.h"
#include "common/text.h"

static struct triage_head_row *add_row(struct triage *t, const char *label, const char *key)
{
    static struct triage_head_row spare; /* more rows than room is a fault of this file */
    struct triage_head_row *row =
        t->head_count < TRIAGE_HEAD_ROWS ? &t->head[t->head_count++] : &spare;
    *row = (struct triage_head_row){.label = label, .key = key};
    return row;
}

static void put_span(struct triage *t, const char *label, const char *key, struct span value)
{
    while (value.size_bytes > 0 && value.data[value.size_bytes - 1] <= ' ')
        value.size_bytes--;
    struct triage_head_row *row = add_row(t, label, key);
    if (text_copy_span(row->text, sizeof row->text, value) < 0)
        os_result_miss(t->result, "%s: only its first %zu bytes", label, sizeof row->text - 1);
    for (char *c = row->text; *c; c++)
        if (*c == '\t')
            *c = ' ';
}

static void put_status(struct triage *t, const char *field, const char *label, const char *key)
{
    struct span value;
    if (proc_find_key(t->status, field, &value) == 0 && value.size_bytes > 0)
        put_span(t, label, key, value);
}

/* ---- who it is ---- */

/* Arguments are separated by zeros; shown as blanks. */
static void read_command(struct triage *t)
{
    char data[PROC_LINE_SIZE];
    struct span text;
    if (triage_read(t, "cmdline", data, sizeof data, &text) < 0)
        return;
    for (size_t i = 0; i < text.size_bytes; i++)
        if (data[i] == '\0')
            data[i] = ' ';
    put_span(t, "command", "command", text);
}

static void read_link(struct triage *t, const char *label, const char *key, const char *leaf)
{
    char target[PROC_PATH_SIZE];
    struct failure f;
    if (proc_link_pid(t->root, t->process->pid, leaf, target, sizeof target, &f) < 0)
        triage_miss(t, label, &f);
    else
        put_span(t, label, key, span_str(target));
}

static void read_root(struct triage *t)
{
    char target[PROC_PATH_SIZE];
    if (proc_link_pid(t->root, t->process->pid, "root", target, sizeof target, NULL) == 0 &&
        strcmp(target, "/") != 0)
        put_span(t, "its root", "root", span_str(target));
}

static void read_parent(struct triage *t)
{
    char name[OS_PROCESS_NAME_SIZE];
    struct triage_head_row *row = add_row(t, "parent", "parent");
    proc_name_of(t->root, t->stat.parent, name);
    (void)text_format(row->text, sizeof row->text, "%u%s%s", t->stat.parent, name[0] ? " " : "",
                      name);
}

static uint64_t ticks_per_second(void)
{
    long ticks = sysconf(_SC_CLK_TCK);
    return ticks > 0 ? (uint64_t)ticks : 100;
}

/* Ticks since boot; the clock of /proc/uptime goes on through suspend, as start times do. */
static bool read_age(const struct triage *t, uint64_t *seconds)
{
    char data[64], path[PROC_PATH_SIZE];
    struct span uptime;
    uint64_t up, started = t->stat.start_ticks / ticks_per_second();
    (void)text_format(path, sizeof path, "%s/proc/uptime", t->root);
    if (proc_read(path, data, sizeof data, &uptime, NULL) < 0 || text_take_u64(&uptime, &up) < 0 ||
        up > UINT32_MAX || started > up)
        return false;
    *seconds = up - started;
    return true;
}

static void read_times(struct triage *t)
{
    char text[32];
    uint64_t age, hz = ticks_per_second();
    bool has_age = read_age(t, &age);
    if (has_age) {
        struct triage_head_row *row = add_row(t, "started", "started");
        text_put_duration((int64_t)age * 1000000, text, sizeof text);
        (void)text_format(row->text, sizeof row->text, "%s ago", text);
        if (t->root[0] == '\0') {
            text_put_time(port_wall_us() - (int64_t)age * 1000000, text, sizeof text);
            triage_add(row->text, sizeof row->text, ", %s", text);
        }
    }
    struct triage_head_row *row = add_row(t, "CPU", "cpu");
    (void)text_format(row->text, sizeof row->text, "user %llu.%02llu s, system %llu.%02llu s",
                      (unsigned long long)(t->stat.user_ticks / hz),
                      (unsigned long long)(t->stat.user_ticks % hz * 100 / hz),
                      (unsigned long long)(t->stat.system_ticks / hz),
                      (unsigned long long)(t->stat.system_ticks % hz * 100 / hz));
    if (has_age && age > 0)
        triage_add(row->text, sizeof row->text, "; on average %.1f %% of a core",
                   (double)(t->stat.user_ticks + t->stat.system_ticks) * 100.0 / (double)hz /
                       (double)age);
}

/* ---- memory ---- */

static void read_memory(struct triage *t)
{
    static const struct {
        const char *field, *label;
    } parts[] = {{"VmRSS:", "resident"},    {"VmHWM:", "most resident"},
                 {"RssAnon:", "anonymous"}, {"RssFile:", "of files"},
                 {"RssShmem:", "shared"},   {"VmSwap:", "swapped out"},
                 {"VmSize:", "virtual"},    {"HugetlbPages:", "huge pages"}};
    struct span value;
    uint64_t kib;
    char text[32];
    enum { HUGE_PAGES = 7 }; /* none: not worth a word */
    struct triage_head_row *row = add_row(t, "memory", "memory");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (proc_find_key(t->status, parts[i].field, &value) < 0 ||
            proc_take_number(&value, &kib) < 0 || kib > UINT64_MAX / 1024 ||
            (kib == 0 && i == HUGE_PAGES))
            continue;
        text_put_size(kib * 1024, text, sizeof text);
        triage_add(row->text, sizeof row->text, "%s%s %s", row->text[0] ? ", " : "", parts[i].label,
                   text);
    }
    if (!row->text[0])
        t->head_count--;
}

static void read_io(struct triage *t)
{
    char data[PROC_TEXT_SIZE], in[32], out[32];
    struct span text;
    uint64_t reads, writes;
    if (proc_read_pid(t->root, t->process->pid, "io", data, sizeof data, &text, NULL) < 0 ||
        proc_parse_io(text, &reads, &writes) < 0)
        return;
    text_put_size(reads, in, sizeof in);
    text_put_size(writes, out, sizeof out);
    struct triage_head_row *row = add_row(t, "disk", "disk");
    (void)text_format(row->text, sizeof row->text, "read %s, written %s", in, out);
}

static void read_oom(struct triage *t)
{
    char score[32], adjust[32];
    struct span a, b, first, second;
    if (triage_read(t, "oom_score", score, sizeof score, &a) < 0 ||
        triage_read(t, "oom_score_adj", adjust, sizeof adjust, &b) < 0 ||
        proc_take_field(&a, &first) < 0 || proc_take_field(&b, &second) < 0)
        return;
    struct triage_head_row *row = add_row(t, "OOM score", "oom_score");
    (void)text_format(row->text, sizeof row->text, "%.*s, adjusted by %.*s", (int)first.size_bytes,
                      (const char *)first.data, (int)second.size_bytes, (const char *)second.data);
}

/* ---- where it lives ---- */

static void read_unit(struct triage *t)
{
    char data[PROC_TEXT_SIZE], unit[PROC_UNIT_SIZE];
    struct span text, line;
    if (proc_read_pid(t->root, t->process->pid, "cgroup", data, sizeof data, &text, NULL) < 0)
        return;
    if (proc_cgroup_unit(text, unit, sizeof unit) == 0)
        put_span(t, "unit", "unit", span_str(unit));
    line = text;
    for (struct span next; proc_take_line(&text, &next) == 0;)
        line = next; /* v2's is the last */
    put_span(t, "cgroup", "cgroup", line);
}

/* Which of its namespaces are not the ones that we live in: it may be in a container. */
static void read_namespaces(struct triage *t)
{
    static const char *const names[] = {"cgroup", "ipc",  "mnt",  "net",
                                        "pid",    "time", "user", "uts"};
    char leaf[16], target[64];
    struct failure f = {0};
    struct span value;
    struct triage_head_row *row = add_row(t, "namespaces", "namespaces");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)text_format(leaf, sizeof leaf, "ns/%s", names[i]);
        (void)proc_link_pid(t->root, t->process->pid, leaf, target, sizeof target, &f);
        if (proc_has_own_namespace(t->root, t->process->pid, names[i]))
            triage_add(row->text, sizeof row->text, "%s%s",
                       row->text[0] ? ", " : "its own: ", names[i]);
    }
    if (f.code == ERR_DENIED)
        triage_miss(t, "namespaces", &f);
    if (!row->text[0])
        (void)text_copy(row->text, sizeof row->text, "the host's, or not to be seen");
    /* Its numbers from our namespace to its own. */
    if (proc_find_key(t->status, "NSpid:", &value) == 0 &&
        memchr(value.data, '\t', value.size_bytes))
        triage_add(row->text, sizeof row->text, "; pid inside and out: %.*s",
                   (int)(value.size_bytes < 64 ? value.size_bytes : 64), (const char *)value.data);
}

/* ---- what it may ---- */

static void read_privileges(struct triage *t)
{
    static const char *const seccomp[] = {"off", "strict", "filter"};
    struct span value;
    uint64_t number;
    char names[TRIAGE_TEXT_SIZE];
    put_status(t, "Uid:", "uids", "uids");
    put_status(t, "Gid:", "gids", "gids");
    if (proc_find_key(t->status, "CapEff:", &value) == 0 && text_take_hex(&value, &number) == 0) {
        triage_put_capabilities(number, names, sizeof names);
        put_span(t, "capabilities", "capabilities", span_str(names));
    }
    if (proc_find_key(t->status, "Seccomp:", &value) == 0 &&
        proc_take_number(&value, &number) == 0 && number < 3)
        put_span(t, "seccomp", "seccomp", span_str(seccomp[number]));
    if (proc_find_key(t->status, "NoNewPrivs:", &value) == 0)
        put_span(t, "no new privs", "no_new_privs",
                 span_str(span_equal(value, span_str("1")) ? "set" : "not set"));
}

static void read_tracer(struct triage *t)
{
    struct span value;
    uint64_t tracer;
    char name[OS_PROCESS_NAME_SIZE];
    if (proc_find_key(t->status, "TracerPid:", &value) < 0 ||
        proc_take_number(&value, &tracer) < 0 || tracer == 0 || tracer > UINT32_MAX)
        return;
    proc_name_of(t->root, (uint32_t)tracer, name);
    struct triage_head_row *row = add_row(t, "traced by", "traced_by");
    (void)text_format(row->text, sizeof row->text, "%llu %s", (unsigned long long)tracer, name);
}

static void read_signals(struct triage *t)
{
    static const struct {
        const char *field, *label, *key;
    } sets[] = {{"SigPnd:", "sig. pending, thread", "signals_pending_thread"},
                {"ShdPnd:", "sig. pending", "signals_pending"},
                {"SigBlk:", "sig. blocked", "signals_blocked"},
                {"SigIgn:", "sig. ignored", "signals_ignored"},
                {"SigCgt:", "sig. caught", "signals_caught"}};
    struct span value;
    uint64_t set;
    char names[TRIAGE_TEXT_SIZE];
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (proc_find_key(t->status, sets[i].field, &value) < 0 ||
            text_take_hex(&value, &set) < 0 || set == 0)
            continue;
        triage_put_signals(set, names, sizeof names);
        put_span(t, sets[i].label, sets[i].key, span_str(names));
    }
}

void triage_read_head(struct triage *t)
{
    read_command(t);
    read_link(t, "executable", "executable", "exe");
    read_link(t, "directory", "directory", "cwd");
    read_root(t);
    read_parent(t);
    read_times(t);
    read_memory(t);
    read_io(t);
    read_oom(t);
    read_unit(t);
    read_namespaces(t);
    read_tracer(t);
    read_privileges(t);
    put_status(t, "voluntary_ctxt_switches:", "switches", "switches_voluntary");
    put_status(t, "nonvoluntary_ctxt_switches:", "preempted", "switches_forced");
    put_status(t, "Cpus_allowed_list:", "CPUs", "cpus_allowed");
    put_status(t, "Mems_allowed_list:", "NUMA nodes", "nodes_allowed");
    put_status(t, "THP_enabled:", "THP", "transparent_huge_pages");
    read_signals(t);
}
