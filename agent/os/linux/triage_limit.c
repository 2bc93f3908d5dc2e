/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of a process beside what it uses of them, and its signals by name. Called by triage.c.
 */
#include <string.h>

#include "agent/os/linux/triage_linux.h"
#include "common/text.h"

/* ---- limits ---- */

struct limit {
    const char *name;   /* in /proc/PID/limits */
    const char *status; /* what of /proc/PID/status is used of it; NULL: not known */
};

static const struct limit limits[] = {
    {"Max open files", NULL},         {"Max processes", NULL},
    {"Max address space", "VmSize:"}, {"Max locked memory", "VmLck:"},
    {"Max stack size", "VmStk:"},     {"Max core file size", NULL},
    {"Max pending signals", "SigQ:"},
};
enum { LIMIT_FILES = 0 };

static void put_usage(struct triage *t, size_t i, struct span status)
{
    struct span value;
    uint64_t files;
    if (i == LIMIT_FILES) {
        if (triage_count_files(t, &files))
            triage_put(t, ", in use %llu", (unsigned long long)files);
    } else if (limits[i].status && proc_find_key(status, limits[i].status, &value) == 0) {
        triage_put(t, ", in use ");
        triage_put_safe(t, value);
    }
}

/* "Max open files            1024                 1048576              files" */
void triage_put_limits(struct triage *t, struct span status)
{
    char data[PROC_TEXT_SIZE];
    struct span text, line, soft, hard, unit;
    if (triage_read(t, "limits", data, sizeof data, &text) < 0)
        return;
    triage_put(t, "\nlimits\n");
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (proc_find_key(text, limits[i].name, &line) < 0 || proc_take_field(&line, &soft) < 0 ||
            proc_take_field(&line, &hard) < 0)
            continue;
        triage_put(t, "  %-20s ", limits[i].name + strlen("Max "));
        triage_put_safe(t, soft);
        triage_put(t, " (at most ");
        triage_put_safe(t, hard);
        triage_put(t, ")");
        if (proc_take_field(&line, &unit) == 0) {
            triage_put(t, " ");
            triage_put_safe(t, unit);
        }
        put_usage(t, i, status);
        triage_put(t, "\n");
    }
}

/* ---- signals ---- */

/* signal(7), numbers of x86 and ARM; above them the real-time signals. */
static const char *const signals[] = {
    "?",    "HUP",  "INT",  "QUIT", "ILL",    "TRAP",   "ABRT",  "BUS",  "FPE",  "KILL", "USR1",
    "SEGV", "USR2", "PIPE", "ALRM", "TERM",   "STKFLT", "CHLD",  "CONT", "STOP", "TSTP", "TTIN",
    "TTOU", "URG",  "XCPU", "XFSZ", "VTALRM", "PROF",   "WINCH", "IO",   "PWR",  "SYS"};

static void put_set(struct triage *t, const char *label, struct span status, const char *key)
{
    struct span value;
    uint64_t set;
    if (proc_find_key(status, key, &value) < 0 || text_take_hex(&value, &set) < 0 || set == 0)
        return;
    triage_put(t, "  %-16s", label);
    for (unsigned i = 1; i <= 64; i++) {
        if (!(set >> (i - 1) & 1))
            continue;
        if (i < sizeof signals / sizeof signals[0])
            triage_put(t, " %s", signals[i]);
        else
            triage_put(t, " %u", i);
    }
    triage_put(t, "\n");
}

void triage_put_signals(struct triage *t, struct span status)
{
    triage_put(t, "\nsignals\n");
    put_set(t, "pending, thread", status, "SigPnd:");
    put_set(t, "pending, process", status, "ShdPnd:");
    put_set(t, "blocked", status, "SigBlk:");
    put_set(t, "ignored", status, "SigIgn:");
    put_set(t, "caught", status, "SigCgt:");
}
