/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be said of a crash without parsing a file: who, of what, when, where; whether it is the
 * same place as before; the end of its logs. After the release; touches no process. Called by
 * agent/crash_handler.c.
 */
#include <elf.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/os/linux/crash_linux.h"
#include "common/text.h"

#define SITE_WORDS 512u /* of the failing stack that are looked at */
#define SITE_PLACES 24u /* into code, that count */

uint64_t os_crash_held_us(const struct os_crash *c)
{
    return c->held_us;
}

bool os_crash_has_memory(const struct os_crash *c)
{
    return c->has_memory;
}

/* ---- in words ---- */

struct code_text {
    int signal, code;
    const char *text;
};

/* sigaction(2), "The si_code field". */
static const struct code_text codes[] = {
    {SIGSEGV, SEGV_MAPERR, "address not mapped"},
    {SIGSEGV, SEGV_ACCERR, "no permission for the mapping"},
    {SIGBUS, BUS_ADRALN, "address not aligned"},
    {SIGBUS, BUS_ADRERR, "no such physical address"},
    {SIGBUS, BUS_OBJERR, "hardware error"},
    {SIGBUS, BUS_MCEERR_AR, "memory error"},
    {SIGFPE, FPE_INTDIV, "integer divided by zero"},
    {SIGFPE, FPE_INTOVF, "integer overflow"},
    {SIGFPE, FPE_FLTDIV, "floating point divided by zero"},
    {SIGFPE, FPE_FLTINV, "floating point operation invalid"},
    {SIGILL, ILL_ILLOPN, "illegal operand"},
    {SIGILL, ILL_ILLOPC, "illegal opcode"},
    {SIGSYS, 1, "system call forbidden by seccomp"},
    {SIGTRAP, TRAP_BRKPT, "breakpoint"},
};

static const char *code_text(int signal, int code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i].signal == signal && codes[i].code == code)
            return codes[i].text;
    return NULL;
}

static bool has_address(const siginfo_t *info)
{
    int signal = info->si_signo;
    return info->si_code > 0 && info->si_code != SI_KERNEL &&
           (signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL ||
            signal == SIGTRAP);
}

static void put_message(const struct os_crash *c, struct os_exception *out)
{
    const siginfo_t *info = &c->notes.info;
    const char *text = c->notes.has_info ? code_text(info->si_signo, info->si_code) : NULL;
    if (text && out->has_fault_address)
        text_format(out->message, sizeof out->message, "%s: %s at 0x%llx", out->type, text,
                    (unsigned long long)out->fault_address);
    else if (text)
        text_format(out->message, sizeof out->message, "%s: %s", out->type, text);
    else if (c->notes.has_info && (info->si_code == SI_USER || info->si_code == SI_TKILL) &&
             info->si_pid != 0 && (int32_t)info->si_pid != c->notes.pid)
        text_format(out->message, sizeof out->message, "%s sent by pid %d", out->type,
                    (int)info->si_pid);
    else if (c->notes.has_info && info->si_code == SI_KERNEL && info->si_signo == SIGSEGV)
        text_format(out->message, sizeof out->message, "%s: general protection fault", out->type);
    else
        text_copy(out->message, sizeof out->message, out->type);
}

void os_signal_name(uint32_t signal, char *out, size_t size_bytes)
{
    const char *name = signal < NSIG ? sigabbrev_np((int)signal) : NULL;
    if (name)
        (void)text_format(out, size_bytes, "SIG%s", name);
    else
        (void)text_format(out, size_bytes, "signal %u", signal);
}

static void put_signal(const struct os_crash *c, struct os_exception *out)
{
    out->signal = c->arguments.signal;
    os_signal_name(c->arguments.signal, out->type, sizeof out->type);
    if (c->notes.has_info) {
        out->signal_code = c->notes.info.si_code;
        out->has_fault_address = has_address(&c->notes.info);
        out->fault_address =
            out->has_fault_address ? (uint64_t)(uintptr_t)c->notes.info.si_addr : 0;
    }
    put_message(c, out);
}

/* ---- where ---- */

/* Of a program that is not moved (ET_EXEC) addresses in memory are those of the file. */
static bool is_fixed(const struct os_crash *c, uint64_t base)
{
    Elf64_Ehdr e;
    const uint8_t *page = c->has_memory ? copies_find(&c->dump.copies, base) : NULL;
    if (!page)
        return false;
    memcpy(&e, page, sizeof e);
    return memcmp(e.e_ident, ELFMAG, SELFMAG) == 0 && e.e_type == ET_EXEC;
}

static bool place_of(const struct os_crash *c, uint64_t address, struct crash_file *file,
                     uint64_t *offset)
{
    if (crash_file_at(&c->notes, address, file))
        return false;
    uint64_t base = crash_file_base(&c->notes, file);
    *offset = is_fixed(c, base) ? address : address - base;
    return true;
}

static void put_place(const struct os_crash *c, struct os_exception *out)
{
    struct crash_file file;
    uint64_t offset;
    if (c->notes.count == 0 || !place_of(c, c->notes.threads[0].regs.rip, &file, &offset))
        return;
    const char *slash = strrchr(file.path, '/');
    text_copy(out->frames[0].module, sizeof out->frames[0].module, slash ? slash + 1 : file.path);
    out->frames[0].offset = offset;
    out->frames[0].exact = true;
    out->frame_count = 1;
}

void os_crash_head(const struct os_crash *c, struct os_exception *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->id, c->id, sizeof out->id);
    out->source = OS_CRASH;
    text_copy(out->language, sizeof out->language, "c");
    out->wall_us = c->wall_us;
    text_copy(out->process, sizeof out->process, c->name);
    out->pid = c->arguments.pid;
    out->start_ticks = c->start_ticks;
    out->tid = c->arguments.tid;
    out->uid = c->arguments.uid;
    if (c->threads && c->dump.stop.count > 0)
        text_copy(out->thread, sizeof out->thread, c->threads[0].name);
    text_copy(out->executable, sizeof out->executable, c->executable);
    text_copy(out->unit, sizeof out->unit, c->unit);
    put_signal(c, out);
    put_place(c, out);
    text_copy(out->missing, sizeof out->missing, c->missing);
}

/* ---- the same place as before? ---- */

static void mix(uint64_t *hash, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < bytes; i++)
        *hash = (*hash ^ at[i]) * 0x100000001b3u;
}

static void mix_place(const struct os_crash *c, uint64_t *hash, uint64_t address)
{
    struct crash_file file;
    uint64_t offset;
    if (place_of(c, address, &file, &offset)) {
        mix(hash, file.path, strlen(file.path));
        mix(hash, &offset, sizeof offset);
    }
}

/* Words that point into code are mostly return addresses: equal stacks have equal ones. */
static void mix_stack(const struct os_crash *c, uint64_t *hash)
{
    const struct crash_thread *t = &c->threads[0];
    size_t places = 0, skip = (8 - t->stack_start % 8) % 8;
    uint64_t pointer = c->notes.threads[0].regs.rsp;
    if (pointer > t->stack_start)
        skip += (size_t)(pointer - t->stack_start) & ~(size_t)7;
    for (size_t i = 0; i < SITE_WORDS && places < SITE_PLACES; i++) {
        uint64_t word, at = skip + i * sizeof word;
        if (at + sizeof word > t->stack_bytes)
            return;
        memcpy(&word, t->stack + at, sizeof word);
        const struct map *map = maps_find(&c->dump.maps, word);
        if (!map || !map->executable || map->inode == 0)
            continue;
        mix_place(c, hash, word);
        places++;
    }
}

void os_crash_site(const struct os_crash *c, uint64_t *weak, uint64_t *strong)
{
    uint64_t hash = 0xcbf29ce484222325u;
    mix(&hash, &c->exe_device, sizeof c->exe_device);
    mix(&hash, &c->exe_inode, sizeof c->exe_inode);
    mix(&hash, c->name, strlen(c->name));
    mix(&hash, &c->arguments.signal, sizeof c->arguments.signal);
    if (c->notes.count > 0)
        mix_place(c, &hash, c->notes.threads[0].regs.rip);
    *weak = hash;
    if (c->has_memory && c->threads[0].stack_bytes > 0)
        mix_stack(c, &hash);
    *strong = hash;
}

/* ---- logs ---- */

static int put_tail(int fd, const char *path, const struct os_output *out, struct failure *f)
{
    char head[320], data[4096];
    struct stat st;
    if (fstat(fd, &st) != 0)
        return 0;
    off_t at = st.st_size > (off_t)OS_CRASH_LOG_BYTES ? st.st_size - (off_t)OS_CRASH_LOG_BYTES : 0;
    off_t end = st.st_size;
    snprintf(head, sizeof head, "==> %s, the last %lld bytes <==\n", path, (long long)(end - at));
    int rc = out->write(out->context, span_str(head), f);
    while (rc == 0 && at < end) {
        size_t some = end - at < (off_t)sizeof data ? (size_t)(end - at) : sizeof data;
        ssize_t got = pread(fd, data, some, at);
        if (got <= 0)
            break;
        rc = out->write(out->context, span_of(data, (size_t)got), f);
        at += got;
    }
    return rc;
}

int os_crash_log(const struct os_crash *c, const struct os_output *out, struct failure *f)
{
    int rc = ERR_NOTFOUND;
    for (size_t i = 0; i < CRASH_LOG_FILES; i++) {
        if (c->log_fds[i] < 0)
            continue;
        if (rc == ERR_NOTFOUND)
            rc = out->begin(out->context, "log", f);
        if (rc == 0)
            rc = put_tail(c->log_fds[i], c->log_paths[i], out, f);
        if (rc)
            return rc;
    }
    return rc;
}
