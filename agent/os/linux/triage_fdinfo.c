/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/PID/fdinfo/FD in words (proc_pid_fdinfo(5)), and sets of signals. Invariant: a line that is
 * not understood is left out, never shown as a zero. Pure. Called by triage_file.c.
 */
#include <fcntl.h>
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

#define WATCHED_SHOWN 8

/* signal(7), numbers of x86 and ARM; above them the real-time signals. */
static const char *const signals[] = {
    "?",    "HUP",  "INT",  "QUIT", "ILL",    "TRAP",   "ABRT",  "BUS",  "FPE",  "KILL", "USR1",
    "SEGV", "USR2", "PIPE", "ALRM", "TERM",   "STKFLT", "CHLD",  "CONT", "STOP", "TSTP", "TTIN",
    "TTOU", "URG",  "XCPU", "XFSZ", "VTALRM", "PROF",   "WINCH", "IO",   "PWR",  "SYS"};

void triage_put_signals(uint64_t set, char *out, size_t size_bytes)
{
    out[0] = '\0';
    for (unsigned i = 1; i <= 64; i++) {
        if (!(set >> (i - 1) & 1))
            continue;
        const char *blank = out[0] ? " " : "";
        if (i < sizeof signals / sizeof signals[0])
            triage_add(out, size_bytes, "%s%s", blank, signals[i]);
        else
            triage_add(out, size_bytes, "%s%u", blank, i);
    }
}

/* ---- flags and position ---- */

static bool take_octal(struct span s, uint64_t *out)
{
    uint64_t value = 0;
    if (s.size_bytes == 0 || s.size_bytes > 21)
        return false;
    for (size_t i = 0; i < s.size_bytes; i++) {
        if (s.data[i] < '0' || s.data[i] > '7')
            return false;
        value = value * 8 + (uint64_t)(s.data[i] - '0');
    }
    *out = value;
    return true;
}

static void put_flags(struct span text, bool mode, char *out, size_t size_bytes)
{
    static const char *const modes[] = {"for reading", "for writing", "for reading and writing",
                                        "for nothing"};
    static const struct {
        uint64_t bit;
        const char *name;
    } flags[] = {{O_APPEND, "appending"},
                 {O_NONBLOCK, "not blocking"},
                 {O_DIRECT, "direct"},
                 {O_DSYNC, "synchronous"}};
    struct span field;
    uint64_t value;
    if (proc_find_key(text, "flags:", &field) < 0 || !take_octal(field, &value))
        return;
    if (mode)
        triage_add(out, size_bytes, "%s", modes[value & 3]);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (value & flags[i].bit)
            triage_add(out, size_bytes, "%s%s", out[0] ? ", " : "", flags[i].name);
}

static void put_number(struct span text, const char *key, const char *words, char *out,
                       size_t size_bytes)
{
    struct span value;
    uint64_t number;
    if (proc_find_key(text, key, &value) < 0 || proc_take_number(&value, &number) < 0)
        return;
    triage_add(out, size_bytes, "%s%s %llu", out[0] ? ", " : "", words, (unsigned long long)number);
}

/* ---- the kinds ---- */

/* "tfd:        6 events:       19 data: ..." */
static void put_watched(struct span text, char *out, size_t size_bytes)
{
    struct span line, field;
    uint64_t fd;
    size_t count = 0;
    char shown[96] = "";
    while (proc_take_line(&text, &line) == 0) {
        if (!proc_starts_with(line, "tfd:") || proc_take_field(&line, &field) < 0 ||
            proc_take_number(&line, &fd) < 0)
            continue;
        if (count++ < WATCHED_SHOWN)
            triage_add(shown, sizeof shown, "%s%llu", shown[0] ? "," : "", (unsigned long long)fd);
    }
    triage_add(out, size_bytes, "%swatches %zu files%s%s%s", out[0] ? ", " : "", count,
               count ? ": " : "", shown, count > WATCHED_SHOWN ? ",..." : "");
}

static void put_count(struct span text, const char *key, const char *words, char *out,
                      size_t size_bytes)
{
    struct span line;
    size_t count = 0;
    while (proc_take_line(&text, &line) == 0)
        count += proc_starts_with(line, key);
    triage_add(out, size_bytes, "%s%zu %s", out[0] ? ", " : "", count, words);
}

static void put_mask(struct span text, char *out, size_t size_bytes)
{
    struct span value;
    uint64_t set;
    char names[200];
    if (proc_find_key(text, "sigmask:", &value) < 0 || text_take_hex(&value, &set) < 0)
        return;
    triage_put_signals(set, names, sizeof names);
    triage_add(out, size_bytes, "%ssignals %s", out[0] ? ", " : "", names);
}

/* "it_value: (1, 500000000)" */
static bool find_pair(struct span text, const char *key, uint64_t *seconds, uint64_t *nanoseconds)
{
    struct span value;
    if (proc_find_key(text, key, &value) < 0 || !proc_starts_with(value, "("))
        return false;
    value = span_of(value.data + 1, value.size_bytes - 1);
    if (text_take_u64(&value, seconds) < 0 || !proc_starts_with(value, ", "))
        return false;
    value = span_of(value.data + 2, value.size_bytes - 2);
    return text_take_u64(&value, nanoseconds) == 0 && *seconds < UINT32_MAX &&
           *nanoseconds < 1000000000;
}

static void put_timer(struct span text, char *out, size_t size_bytes)
{
    uint64_t s, ns;
    char duration[32];
    if (!find_pair(text, "it_value:", &s, &ns))
        return;
    if (s == 0 && ns == 0) {
        triage_add(out, size_bytes, "%snot armed", out[0] ? ", " : "");
        return;
    }
    text_put_duration((int64_t)(s * 1000000 + ns / 1000), duration, sizeof duration);
    triage_add(out, size_bytes, "%sfires in %s", out[0] ? ", " : "", duration);
    if (find_pair(text, "it_interval:", &s, &ns) && (s > 0 || ns > 0)) {
        text_put_duration((int64_t)(s * 1000000 + ns / 1000), duration, sizeof duration);
        triage_add(out, size_bytes, ", then every %s", duration);
    }
}

/* "lock:\t1: FLOCK  ADVISORY  WRITE 13974 fe:00:11215264 0 EOF" */
static void put_locks(struct span text, char *out, size_t size_bytes)
{
    struct span line;
    struct triage_file_lock lock;
    while (proc_take_line(&text, &line) == 0) {
        if (!proc_starts_with(line, "lock:"))
            continue;
        line = span_of(line.data + 5, line.size_bytes - 5);
        if (triage_parse_lock(line, &lock) == 0)
            triage_add(out, size_bytes, "%sholds a %s lock (%s, %s)", out[0] ? ", " : "",
                       strcmp(lock.mode, "WRITE") == 0 ? "write" : "read", lock.class, lock.range);
    }
}

void triage_describe_fdinfo(struct span text, const char *target, char *out, size_t size_bytes)
{
    struct span name = span_str(target);
    bool file = target[0] == '/' && !proc_starts_with(name, "/dev/");
    out[0] = '\0';
    put_flags(text, file || proc_starts_with(name, "pipe:"), out, size_bytes);
    if (file)
        put_number(text, "pos:", "at", out, size_bytes);
    if (strstr(target, "eventpoll"))
        put_watched(text, out, size_bytes);
    else if (strstr(target, "eventfd"))
        put_number(text, "eventfd-count:", "count", out, size_bytes);
    else if (strstr(target, "timerfd"))
        put_timer(text, out, size_bytes);
    else if (strstr(target, "inotify"))
        put_count(text, "inotify wd:", "watches", out, size_bytes);
    else if (strstr(target, "signalfd"))
        put_mask(text, out, size_bytes);
    else if (strstr(target, "pidfd"))
        put_number(text, "Pid:", "of process", out, size_bytes);
    put_locks(text, out, size_bytes);
}
