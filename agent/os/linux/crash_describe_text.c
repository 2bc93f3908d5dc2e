/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page that is read first: what died of what, where, with which registers, and the stack of the
 * thread that failed. Invariant: what comes from the process cannot harm a terminal. Pure but for
 * what was copied. Called by crash_describe.c.
 */
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "agent/os/linux/crash_describe.h"
#include "common/text.h"

#define NULL_BYTES 65536u            /* below this a pointer was null, or a member of a null one */
#define BELOW_STACK_BYTES (1u << 20) /* so far below its stack an access is an overflow of it */
#define REGISTERS_A_LINE 4

#define REGISTER(name)                                 \
    {                                                  \
#name, offsetof(struct user_regs_struct, name) \
    }
const struct crash_register crash_registers[CRASH_REGISTERS] = {
    REGISTER(rip), REGISTER(rsp), REGISTER(rbp), REGISTER(eflags),  REGISTER(rax),
    REGISTER(rbx), REGISTER(rcx), REGISTER(rdx), REGISTER(rsi),     REGISTER(rdi),
    REGISTER(r8),  REGISTER(r9),  REGISTER(r10), REGISTER(r11),     REGISTER(r12),
    REGISTER(r13), REGISTER(r14), REGISTER(r15), REGISTER(fs_base), REGISTER(gs_base),
};

uint64_t crash_register_value(const struct user_regs_struct *regs, size_t index)
{
    uint64_t value;
    memcpy(&value, (const uint8_t *)regs + crash_registers[index].offset, sizeof value);
    return value;
}

/* ---- the code, by its name ---- */

const char *crash_code_name(int signal, int code)
{
    static const struct {
        int signal, code; /* signal 0: of any */
        const char *name;
    } names[] = {
        {SIGSEGV, SEGV_MAPERR, "SEGV_MAPERR"},
        {SIGSEGV, SEGV_ACCERR, "SEGV_ACCERR"},
        {SIGSEGV, SEGV_PKUERR, "SEGV_PKUERR"},
        {SIGBUS, BUS_ADRALN, "BUS_ADRALN"},
        {SIGBUS, BUS_ADRERR, "BUS_ADRERR"},
        {SIGBUS, BUS_OBJERR, "BUS_OBJERR"},
        {SIGFPE, FPE_INTDIV, "FPE_INTDIV"},
        {SIGFPE, FPE_INTOVF, "FPE_INTOVF"},
        {SIGFPE, FPE_FLTDIV, "FPE_FLTDIV"},
        {SIGFPE, FPE_FLTINV, "FPE_FLTINV"},
        {SIGILL, ILL_ILLOPC, "ILL_ILLOPC"},
        {SIGILL, ILL_ILLOPN, "ILL_ILLOPN"},
        {SIGTRAP, TRAP_BRKPT, "TRAP_BRKPT"},
        {SIGTRAP, TRAP_TRACE, "TRAP_TRACE"},
        {0, SI_USER, "SI_USER"},
        {0, SI_QUEUE, "SI_QUEUE"},
        {0, SI_TKILL, "SI_TKILL"},
        {0, SI_KERNEL, "SI_KERNEL"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if ((names[i].signal == signal || names[i].signal == 0) && names[i].code == code)
            return names[i].name;
    return NULL;
}

/* ---- where an address lies ---- */

static const char *rights_of(const struct map *map, char out[5])
{
    out[0] = map->readable ? 'r' : '-';
    out[1] = map->writable ? 'w' : '-';
    out[2] = map->executable ? 'x' : '-';
    out[3] = map->shared ? 's' : 'p';
    out[4] = '\0';
    return out;
}

/* The stack that the failing thread stood on: below a handler with a stack of its own, the one
 * before. */
static const struct map *stack_of(const struct os_crash *c)
{
    const struct crash_thread *t = c->dump.stop.count ? &c->threads[0] : NULL;
    if (!t)
        return NULL;
    uint64_t start = t->second_bytes ? t->second_start : t->stack_bytes ? t->stack_start : 0;
    return start ? maps_find(&c->dump.maps, start) : NULL;
}

static bool is_guard(const struct os_crash *c, const struct map *map)
{
    const struct map *stack = stack_of(c);
    return stack && !map->readable && !map->writable && map->end == stack->start;
}

void crash_put_where(const struct os_crash *c, uint64_t address, char *out, size_t size_bytes)
{
    const struct map *map = maps_find(&c->dump.maps, address), *stack = stack_of(c);
    char rights[5], path[200];
    if (!c->has_memory)
        text_copy(out, size_bytes, "");
    else if (!map && address < NULL_BYTES)
        text_copy(out, size_bytes, "in no mapping: a null pointer");
    else if (!map && stack && address < stack->start && stack->start - address < BELOW_STACK_BYTES)
        text_format(out, size_bytes, "%" PRIu64 " bytes below the stack: it has overflowed",
                    stack->start - address);
    else if (!map)
        text_copy(out, size_bytes,
                  address >> 47 && address >> 47 != 0x1ffff ? "no address that a process can have"
                                                            : "in no mapping");
    else if (is_guard(c, map))
        text_copy(out, size_bytes, "in the guard page of the stack: it has overflowed");
    else {
        text_copy(path, sizeof path, maps_path(&c->dump.maps, map));
        text_clean(path);
        text_format(out, size_bytes, "in %s, %s, %s+0x%" PRIx64,
                    path[0] ? path : "memory of no file", rights_of(map, rights),
                    map->inode ? "file" : "start",
                    address - map->start + (map->inode ? map->offset : 0));
    }
}

/* ---- lines ---- */

struct page {
    struct buf *out;
    int rc;
};

TRAWL_PRINTF(3, 4)
static void put(struct page *p, const char *label, const char *format, ...)
{
    char text[700];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0 || p->rc)
        return;
    if (label)
        p->rc = buf_printf(p->out, "  %-9s ", label);
    if (p->rc == 0)
        p->rc = text_append_safe(p->out, span_str(text), false);
    if (p->rc == 0)
        p->rc = buf_append_str(p->out, "\n");
}

static void put_who(struct page *p, const struct describing *d)
{
    const struct os_exception *e = d->exception;
    char when[32], held[32], id[2 * OS_BUILD_ID_SIZE + 1];
    text_put_time(d->crash->wall_us, when, sizeof when);
    text_put_duration((int64_t)d->crash->held_us, held, sizeof held);
    text_put_hex(e->build_id, e->build_id_bytes, id);
    put(p, NULL, "crash of '%s', pid %" PRIu32 ": %s", e->process, e->pid, e->message);
    put(p, "when", "%s, let go after %s", when, held);
    put(p, "program", "%s%s%s", e->executable[0] ? e->executable : "not known",
        id[0] ? ", build-id " : ", no build-id", id);
    put(p, "thread", "%" PRIu32 " '%s', one of %zu", e->tid, e->thread, d->crash->dump.stop.count);
    if (e->unit[0])
        put(p, "unit", "%s", e->unit);
    put(p, "user", "uid %" PRIu32 ", gid %" PRIu32, e->uid, d->crash->arguments.gid);
}

static void put_signal(struct page *p, const struct describing *d)
{
    const struct os_exception *e = d->exception;
    const char *code = crash_code_name((int)e->signal, e->signal_code);
    const char *code_before = crash_code_name(d->first.si_signo, d->first.si_code);
    put(p, "signal", "%s (%" PRIu32 "), code %s (%" PRId32 ")%s%s", e->type, e->signal,
        code ? code : "without a name", e->signal_code, d->sender[0] ? ", sent by " : "",
        d->sender);
    if (d->first.si_signo)
        put(p, "before", "signal %d, code %s (%d), for which its handler was called",
            d->first.si_signo, code_before ? code_before : "without a name", d->first.si_code);
    if (e->has_fault_address)
        put(p, "address", "0x%" PRIx64 "%s%s", e->fault_address, d->where[0] ? ", " : "", d->where);
    if (d->abort_text[0])
        put(p, "last word", "%s", d->abort_text);
    if (d->result->missing[0])
        put(p, "missing", "%s", d->result->missing);
}

static void put_registers(struct page *p, const struct os_crash *c)
{
    char line[160];
    size_t used = 0;
    if (c->dump.stop.count == 0)
        return;
    put(p, NULL, "%s", "");
    put(p, NULL, "registers");
    for (size_t i = 0; i < CRASH_REGISTERS; i++) {
        uint64_t value = crash_register_value(&c->dump.stop.threads[0].regs, i);
        int length = snprintf(line + used, sizeof line - used, "  %-7s 0x%016" PRIx64,
                              crash_registers[i].name, value);
        used += length > 0 ? (size_t)length : 0;
        if ((i + 1) % REGISTERS_A_LINE == 0) {
            put(p, NULL, "%s", line);
            used = 0;
        }
    }
}

int crash_put_head(const struct describing *d, struct buf *out)
{
    struct page p = {out, 0};
    put_who(&p, d);
    put_signal(&p, d);
    put_registers(&p, d->crash);
    if (!d->has_stacks || d->job.set.thread_count == 0)
        return p.rc;
    put(&p, NULL, "%s", "");
    put(&p, NULL, "the thread that failed");
    if (p.rc == 0)
        p.rc = stacks_write_thread(&d->job.set, &d->job.set.threads[0], out);
    put(&p, NULL, "%s", "");
    put(&p, NULL, "--- all threads ---");
    return p.rc;
}
