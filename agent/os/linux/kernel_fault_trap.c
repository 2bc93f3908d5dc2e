/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults that ended a process without a handler, as x86 logs them (kernel: arch/x86/mm/fault.c,
 * show_signal_msg(); arch/x86/kernel/traps.c, show_signal(); mm/memory.c, print_vma_addr()). The
 * place is told in one of two ways: since 6.11 `in FILE[OFFSET,START+SIZE]`, where OFFSET counts in
 * the file; before, `in FILE[START+SIZE]`, where only the distance from the start of the mapping is
 * known. Called by kernel_fault.c.
 */
#include <signal.h>
#include <string.h>

#include "agent/os/linux/kernel_fault_linux.h"
#include "common/text.h"

/* Bits of x86's page fault error code (kernel: arch/x86/include/asm/trap_pf.h). */
#define FAULT_PROTECTED 1u
#define FAULT_WRITE 2u
#define FAULT_FETCH 16u

struct trap {
    const char *words;
    const char *type;
    uint32_t signal;
};

static const struct trap traps[] = {
    {"segfault at ", "SIGSEGV", SIGSEGV},
    {"general protection", "SIGSEGV", SIGSEGV},
    {"control protection", "SIGSEGV", SIGSEGV},
    {"bad frame in ", "SIGSEGV", SIGSEGV},
    {"trap invalid opcode", "SIGILL", SIGILL},
    {"trap divide error", "SIGFPE", SIGFPE},
    {"trap x87 FPU exception", "SIGFPE", SIGFPE},
    {"trap fpu exception", "SIGFPE", SIGFPE},
    {"trap simd exception", "SIGFPE", SIGFPE},
    {"trap int3", "SIGTRAP", SIGTRAP},
    {"trap debug", "SIGTRAP", SIGTRAP},
    {"trap stack segment", "SIGBUS", SIGBUS},
    {"trap segment not present", "SIGBUS", SIGBUS},
    {"trap alignment check", "SIGBUS", SIGBUS},
    {"trap bounds", "SIGSEGV", SIGSEGV},
    {"trap overflow", "SIGSEGV", SIGSEGV},
    {"trap invalid TSS", "SIGSEGV", SIGSEGV},
};

/* "NAME[PID]: " or "NAME[PID] " before `end`; a name may hold brackets. */
static bool take_process(struct os_exception *e, const char *line, const char *end)
{
    uint64_t pid;
    const char *prefix = fault_skip(line, "traps: ");
    if (prefix)
        line = prefix;
    while (end > line && (end[-1] == ' ' || end[-1] == ':'))
        end--;
    if (end <= line || end[-1] != ']')
        return false;
    const char *open = end - 1;
    while (open > line && *open != '[')
        open--;
    const char *digits = open + 1;
    if (*open != '[' || !fault_number(&digits, &pid) || digits != end - 1 || pid > UINT32_MAX)
        return false;
    e->pid = (uint32_t)pid;
    (void)text_copy_span(e->process, sizeof e->process, span_of(line, (size_t)(open - line)));
    return true;
}

static bool find_value(const char *line, const char *first, const char *second, uint64_t *out)
{
    const char *at = fault_after(line, first);
    if (!at)
        at = fault_after(line, second);
    return at && fault_hex(&at, out);
}

/* "FILE[1178,55d26d1e9000+1000]" or "FILE[55d26d1e9000+1000]" */
static bool take_place(struct os_exception *e, const char *at, uint64_t ip)
{
    uint64_t first, start, size;
    const char *open = strrchr(at, '[');
    const char *digits = open ? open + 1 : NULL;
    if (!open || !fault_hex(&digits, &first))
        return false;
    bool is_file = *digits == ',';
    start = first;
    digits += is_file;
    if ((is_file && !fault_hex(&digits, &start)) || *digits != '+')
        return false;
    digits++;
    if (!fault_hex(&digits, &size) || *digits != ']')
        return false;
    struct os_frame *frame = &e->frames[0];
    (void)text_copy_span(frame->module, sizeof frame->module, span_of(at, (size_t)(open - at)));
    frame->offset = is_file ? first : ip - start;
    frame->exact = true;
    e->frame_count = 1;
    fault_tag(e, "offset", is_file ? "in the file" : "in the mapping");
    (void)text_copy(e->missing, sizeof e->missing,
                    is_file
                        ? "the kernel's line has one frame only, with its offset in the file"
                        : "the kernel's line has one frame only, with its offset in the mapping");
    return true;
}

static void find_place(struct os_exception *e, const char *line)
{
    uint64_t ip = 0;
    bool has_ip = find_value(line, " ip:", " ip ", &ip);
    const char *in = NULL;
    for (const char *at = line; (at = fault_after(at, " in ")) != NULL;)
        in = at;
    if (in && has_ip && take_place(e, in, ip))
        return;
    (void)text_format(e->missing, sizeof e->missing,
                      "the kernel's line names no file: the instruction pointer was 0x%llx",
                      (unsigned long long)ip);
}

static void describe_segfault(struct os_exception *e, const char *at, const char *line)
{
    uint64_t code;
    e->has_fault_address = fault_hex(&at, &e->fault_address);
    (void)text_copy(e->template_text, sizeof e->template_text, "segfault");
    if (!find_value(line, " error ", " error:", &code))
        return;
    const char *doing = code & FAULT_FETCH   ? "executing"
                        : code & FAULT_WRITE ? "writing"
                                             : "reading";
    const char *why = code & FAULT_PROTECTED ? "not permitted" : "nothing is mapped";
    (void)text_format(e->template_text, sizeof e->template_text, "segfault: %s where %s%s", doing,
                      why, e->has_fault_address && e->fault_address < 4096 ? ", near null" : "");
}

static const struct trap *find_trap(const char *line, const char **words)
{
    for (size_t i = 0; i < sizeof traps / sizeof traps[0]; i++)
        if ((*words = strstr(line, traps[i].words)) != NULL)
            return &traps[i];
    return NULL;
}

static void tell_fault(struct os_kernel_fault *f, uint64_t mono_us, const char *line)
{
    const char *words;
    const struct trap *trap = find_trap(line, &words);
    struct os_exception *e = &f->one;
    if (!trap)
        return;
    fault_begin(e, OS_FAULT_LINE, trap->type, mono_us, line);
    if (!take_process(e, line, words))
        return;
    (void)text_copy(e->language, sizeof e->language, "c");
    e->signal = trap->signal;
    if (trap == &traps[0])
        describe_segfault(e, words + strlen(trap->words), line);
    else
        fault_copy_until(e->template_text, sizeof e->template_text, words, ":,");
    find_place(e, line);
    fault_tell(f, e, mono_us);
}

/* One fault line has all, unless something came in between while the kernel wrote it (before 5.10):
 * then "in FILE[...]" is a line of its own. */
static bool may_go_on(const char *line)
{
    return !strstr(line, " in ") && !strstr(line, "likely on CPU");
}

void fault_flush_trap(struct os_kernel_fault *f)
{
    char line[sizeof f->fault];
    (void)text_copy(line, sizeof line, f->fault);
    f->fault[0] = '\0';
    if (line[0])
        tell_fault(f, f->fault_us, line);
}

static bool go_on(struct os_kernel_fault *f, const char *line)
{
    bool is_more = f->fault[0] && (fault_skip(line, " in ") || fault_skip(line, "in "));
    if (is_more) {
        size_t used = strlen(f->fault);
        (void)text_format(f->fault + used, sizeof f->fault - used, "%s%s",
                          line[0] == ' ' ? "" : " ", line);
    }
    if (f->fault[0])
        fault_flush_trap(f);
    return is_more;
}

/* Whether a process of user space is meant: the kernel's own faults are reports. */
static bool is_fault(const char *line)
{
    const char *words;
    if (!strstr(line, " ip:") && !strstr(line, " ip "))
        return false;
    return find_trap(line, &words) != NULL && words > line;
}

bool fault_feed_trap(struct os_kernel_fault *f, uint64_t mono_us, const char *line)
{
    if (go_on(f, line))
        return true;
    if (!is_fault(line))
        return false;
    if (!may_go_on(line)) {
        tell_fault(f, mono_us, line);
        return true;
    }
    (void)text_copy(f->fault, sizeof f->fault, line);
    f->fault_us = mono_us;
    return true;
}
