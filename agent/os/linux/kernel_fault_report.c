/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reports of many lines with a call trace: hung tasks, processors that are stuck, errors and
 * warnings of the kernel itself (kernel: kernel/hung_task.c, kernel/watchdog.c,
 * kernel/rcu/tree_stall.h, kernel/panic.c, lib/dump_stack.c). Invariant: at most one report is
 * open; a line that does not belong to it is passed by, a new beginning ends it. Called by
 * kernel_fault.c.
 */
#include <string.h>

#include "agent/os/linux/kernel_fault_linux.h"
#include "common/text.h"

struct beginning {
    const char *words;
    const char *second; /* must stand behind them; NULL: nothing more */
    const char *type;
    enum os_exception_source source;
    bool is_fatal; /* of the kernel: what follows ("Oops:", "general protection") is the same */
};

static const struct beginning beginnings[] = {
    {"INFO: task ", " blocked ", "hung-task", OS_HUNG_TASK, false},
    {"BUG: soft lockup - CPU#", NULL, "soft-lockup", OS_HUNG_TASK, false},
    {"hard LOCKUP on cpu", NULL, "hard-lockup", OS_HUNG_TASK, false},
    {"BUG: workqueue lockup", NULL, "workqueue-lockup", OS_HUNG_TASK, false},
    {"INFO: rcu", " stall", "rcu-stall", OS_HUNG_TASK, false},
    {"rcu: INFO: ", " stall", "rcu-stall", OS_HUNG_TASK, false},
    {"Kernel panic - not syncing", NULL, "kernel-panic", OS_FAULT_LINE, true},
    {"kernel BUG at ", NULL, "kernel-bug", OS_FAULT_LINE, true},
    {"BUG: kernel NULL pointer dereference", NULL, "kernel-oops", OS_FAULT_LINE, true},
    {"BUG: unable to handle ", NULL, "kernel-oops", OS_FAULT_LINE, true},
    {"BUG: ", NULL, "kernel-bug", OS_FAULT_LINE, false},
    {"Oops: ", NULL, "kernel-oops", OS_FAULT_LINE, true},
    {"general protection fault, ", " [#", "kernel-oops", OS_FAULT_LINE, true},
    {"invalid opcode: ", " [#", "kernel-oops", OS_FAULT_LINE, true},
    {"divide error: ", " [#", "kernel-oops", OS_FAULT_LINE, true},
    {"WARNING: ", " at ", "kernel-warning", OS_FAULT_LINE, false},
};

static const struct beginning *find_beginning(const char *line)
{
    for (size_t i = 0; i < sizeof beginnings / sizeof beginnings[0]; i++) {
        const char *at = fault_after(line, beginnings[i].words);
        if (at && (!beginnings[i].second || strstr(at, beginnings[i].second)))
            return &beginnings[i];
    }
    return NULL;
}

/* ---- who ---- */

/* "NAME:PID" that ends at `end`; a name may hold colons. */
static void set_process(struct os_exception *e, const char *at, const char *end)
{
    uint64_t pid;
    const char *colon = end;
    while (colon > at && *colon != ':')
        colon--;
    const char *digits = colon + 1;
    if (*colon != ':' || !fault_number(&digits, &pid) || digits != end || pid > UINT32_MAX)
        return;
    (void)text_copy_span(e->process, sizeof e->process, span_of(at, (size_t)(colon - at)));
    e->pid = (uint32_t)pid;
}

/* "INFO: task NAME:PID blocked for more than 120 seconds." and "[NAME:PID]" of a lockup. */
static void find_process(struct os_exception *e, const char *line)
{
    const char *task = fault_after(line, "INFO: task ");
    const char *end = task ? strstr(task, " blocked ") : NULL;
    const char *open = strrchr(line, '[');
    const char *close = open ? strchr(open, ']') : NULL;
    if (end)
        set_process(e, task, end);
    else if (close && strstr(line, "lockup"))
        set_process(e, open + 1, close);
}

/* "CPU: 1 UID: 0 PID: 17264 Comm: python3 Not tainted 6.18.44 #1 PREEMPT(lazy)" */
static void take_cpu_line(struct os_exception *e, const char *line)
{
    uint64_t pid;
    const char *at = fault_after(line, " PID: ");
    const char *name = at ? fault_after(at, " Comm: ") : NULL;
    if (!name || !fault_number(&at, &pid) || pid > UINT32_MAX || e->process[0])
        return;
    const char *end = strstr(name, " Tainted: ");
    if (!end)
        end = strstr(name, " Not tainted ");
    size_t length = end ? (size_t)(end - name) : strcspn(name, " ");
    (void)text_copy_span(e->process, sizeof e->process, span_of(name, length));
    e->pid = (uint32_t)pid;
}

/* ---- frames ---- */

/* "func+0x1a/0x30 [module]", also "[<ffffffff81234567>] func+..."; "? func" is a guess of the
 * kernel's and left out. */
static bool take_frame(struct os_exception *e, const char *at, bool exact)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
    uint64_t offset, size;
    while (*at == ' ')
        at++;
    if (fault_skip(at, "[<"))
        at = fault_after(at, ">] ");
    if (!at)
        return false;
    if (*at == '?')
        return true;
    size_t length = strspn(at, letters);
    const char *digits = at + length;
    if (!length || *digits != '+')
        return false;
    digits++;
    if (!fault_hex(&digits, &offset) || *digits != '/')
        return false;
    digits++;
    if (!fault_hex(&digits, &size))
        return false;
    if (e->frame_count == OS_EXCEPTION_FRAMES) {
        e->frames_left_out++;
        return true;
    }
    struct os_frame *frame = &e->frames[e->frame_count++];
    (void)text_copy_span(frame->function, sizeof frame->function, span_of(at, length));
    (void)text_copy(frame->module, sizeof frame->module, "vmlinux");
    if (fault_skip(digits, " ["))
        fault_copy_until(frame->module, sizeof frame->module, digits + 2, "] ");
    frame->exact = exact;
    return true;
}

static bool is_mark(const char *line)
{
    static const char *const marks[] = {"<TASK>", "</TASK>", "<IRQ>", "</IRQ>", "<NMI>", "</NMI>"};
    while (*line == ' ')
        line++;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (fault_skip(line, marks[i]))
            return true;
    return false;
}

/* ---- open, add, tell ---- */

void fault_flush_report(struct os_kernel_fault *f)
{
    struct os_exception *e = &f->report;
    if (!f->is_open)
        return;
    f->is_open = f->in_trace = false;
    if (e->frame_count)
        (void)text_copy(e->missing, sizeof e->missing,
                        "the kernel's lines name functions, not their places in a file");
    /* A warning or a stuck processor does not end the process that happened to run. */
    if (!f->is_fatal && e->source != OS_HUNG_TASK && e->pid) {
        char text[32];
        (void)text_format(text, sizeof text, "%u", e->pid);
        fault_tag(e, "pid", text);
        e->pid = 0;
    }
    fault_tell(f, e, f->last_us);
}

static void open_report(struct os_kernel_fault *f, const struct beginning *b, uint64_t mono_us,
                        const char *line)
{
    struct os_exception *e = &f->report;
    fault_flush_report(f);
    fault_begin(e, b->source, b->type, mono_us, line);
    find_process(e, line);
    if (f->said[0] && strcmp(b->type, "kernel-warning") == 0) {
        fault_tag(e, "at", fault_after(line, b->second));
        (void)text_copy(e->message, sizeof e->message, f->said);
        if (strstr(f->said, "NETDEV WATCHDOG")) {
            e->source = OS_HARDWARE_ERROR;
            (void)text_copy(e->type, sizeof e->type, "net-transmit-timeout");
        }
    }
    f->said[0] = '\0';
    f->is_open = true;
    f->in_trace = false;
    f->is_fatal = b->is_fatal;
    f->last_us = mono_us;
}

/* Whether this beginning is one more line of the report that is open. */
static bool is_same(const struct os_kernel_fault *f, const struct beginning *b)
{
    return f->is_open && f->is_fatal && b->is_fatal && !f->in_trace &&
           strcmp(b->type, "kernel-panic") != 0;
}

static void add_line(struct os_kernel_fault *f, const char *line)
{
    struct os_exception *e = &f->report;
    const char *rip = fault_skip(line, "RIP: 0010:");
    if (rip && e->frame_count == 0) {
        (void)take_frame(e, rip, true);
    } else if (fault_skip(line, "CPU: ")) {
        take_cpu_line(e, line);
    } else if (fault_skip(line, "Call Trace:") || fault_skip(line, "Call trace:")) {
        f->in_trace = true;
    } else if (fault_skip(line, "---[ end trace")) {
        fault_flush_report(f);
    } else if (strstr(line, "likely owned by task ")) {
        fault_tag(e, "owner", fault_after(line, "likely owned by task "));
    } else if (f->in_trace && !is_mark(line) && !take_frame(e, line, false)) {
        f->in_trace = false;
    }
}

bool fault_feed_report(struct os_kernel_fault *f, uint64_t mono_us, const char *line)
{
    const struct beginning *b = find_beginning(line);
    bool was_cut_here = f->is_cut_here;
    f->is_cut_here = strstr(line, "------------[ cut here ]") != NULL;
    if (f->is_cut_here) {
        fault_flush_report(f);
        f->said[0] = '\0';
        return true;
    }
    if (b && f->is_open && strstr(line, "likely owned by task "))
        b = NULL; /* says more of the task that was named just now */
    if (b && !is_same(f, b)) {
        open_report(f, b, mono_us, line);
        return true;
    }
    if (was_cut_here && !b)
        (void)text_copy(f->said, sizeof f->said, line);
    if (!f->is_open)
        return was_cut_here;
    f->last_us = mono_us;
    add_line(f, line);
    return true;
}
