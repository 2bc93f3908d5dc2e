/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the registers of a thread and a copy of its stack to return addresses: call frame
 * information (DWARF 5, 6.4) as libdw reads it from the files, frame pointers where there is none.
 * Invariant: a register that is not known is never used as if it were 0; every way to stop before
 * the outermost frame has a reason. Nothing is asked of the process. Called by stacks and profile.
 */
#include <assert.h>
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/unwind_private.h"

#define REGISTERS 17 /* DWARF numbers 0 to 16 of x86-64: psABI, figure 3.36 */
#define RBP 6
#define RSP 7
#define RIP 16
#define VALUES_MAX 64 /* on the stack of an expression */
#define OPERATIONS_MAX 256

struct registers {
    uint64_t value[REGISTERS];
    uint32_t known; /* a bit each */
};

struct walk {
    struct unwind *unwind;
    const struct unwind_thread *thread;
    struct registers now;
    const char *why; /* what went wrong in the present step */
    bool guessed;    /* in the present step a frame was found by its call */
};

enum step {
    STEP_DONE,    /* one frame further out */
    STEP_END,     /* there is none: the outermost frame was reached */
    STEP_NO_RULE, /* nothing says how to go on here */
    STEP_FAILED,  /* see walk.why */
};

static bool is_known(const struct registers *r, uint64_t number)
{
    return number < REGISTERS && (r->known & 1u << number);
}

static void set(struct registers *r, unsigned number, uint64_t value)
{
    r->value[number] = value;
    r->known |= 1u << number;
}

/* ---- memory ---- */

static bool read_piece(const uint8_t *data, uint64_t start, size_t size_bytes, uint64_t address,
                       uint64_t *out)
{
    if (address < start || address - start > size_bytes ||
        size_bytes - (address - start) < sizeof *out)
        return false;
    memcpy(out, data + (address - start), sizeof *out);
    return true;
}

static bool read_word(struct walk *w, uint64_t address, uint64_t *out)
{
    const struct unwind_thread *t = w->thread;
    if (read_piece(t->stack, t->stack_start, t->stack_bytes, address, out) ||
        read_piece(t->second, t->second_start, t->second_bytes, address, out))
        return true;
    w->why = "the stack goes on beyond what was copied";
    return false;
}

/* ---- expressions (DWARF 5, 2.5) ---- */

struct machine {
    struct walk *walk;
    Dwarf_Frame *frame;
    const uint64_t *cfa; /* NULL while it is being computed */
    uint64_t values[VALUES_MAX];
    size_t count;
    bool is_value;    /* the result is the value itself, not where it lies */
    bool is_register; /* the result is the number of a register */
};

static bool push(struct machine *m, uint64_t value)
{
    if (m->count == VALUES_MAX)
        return false;
    m->values[m->count++] = value;
    return true;
}

static bool push_register(struct machine *m, uint64_t number, uint64_t offset)
{
    static const char *const unknown = "needs a register that is not known here";
    if (!is_known(&m->walk->now, number)) {
        m->walk->why = unknown;
        return false;
    }
    return push(m, m->walk->now.value[number] + offset);
}

/* Shifts by 64 and more are 0, or all sign. */
static bool compute(uint8_t atom, uint64_t a, uint64_t b, uint64_t *out)
{
    int64_t left = (int64_t)a, right = (int64_t)b;
    switch (atom) {
    case DW_OP_and:
        return *out = a & b, true;
    case DW_OP_or:
        return *out = a | b, true;
    case DW_OP_xor:
        return *out = a ^ b, true;
    case DW_OP_plus:
        return *out = a + b, true;
    case DW_OP_minus:
        return *out = a - b, true;
    case DW_OP_mul:
        return *out = a * b, true;
    case DW_OP_shl:
        return *out = b < 64 ? a << b : 0, true;
    case DW_OP_shr:
        return *out = b < 64 ? a >> b : 0, true;
    case DW_OP_eq:
        return *out = a == b, true;
    case DW_OP_ne:
        return *out = a != b, true;
    case DW_OP_ge:
        return *out = left >= right, true;
    case DW_OP_gt:
        return *out = left > right, true;
    case DW_OP_le:
        return *out = left <= right, true;
    case DW_OP_lt:
        return *out = left < right, true;
    default:
        return false;
    }
}

static bool run_memory(struct machine *m, uint64_t bytes)
{
    uint64_t word, *top = &m->values[m->count - 1];
    if (m->count == 0 || bytes == 0 || bytes > 8 || !read_word(m->walk, *top, &word))
        return false;
    *top = bytes == 8 ? word : word & ((UINT64_C(1) << 8 * bytes) - 1);
    return true;
}

static bool run_stack(struct machine *m, const Dwarf_Op *op)
{
    uint64_t index = op->atom == DW_OP_dup ? 0 : op->atom == DW_OP_over ? 1 : op->number;
    if (op->atom == DW_OP_drop)
        return m->count > 0 && (m->count--, true);
    if (op->atom == DW_OP_swap) {
        if (m->count < 2)
            return false;
        uint64_t top = m->values[m->count - 1];
        m->values[m->count - 1] = m->values[m->count - 2];
        m->values[m->count - 2] = top;
        return true;
    }
    return index < m->count && push(m, m->values[m->count - 1 - index]);
}

/* The operations without a range of numbers. Those that nobody uses to unwind are not there. */
static bool run_other(struct machine *m, const Dwarf_Op *op)
{
    switch (op->atom) {
    case DW_OP_call_frame_cfa:
        return m->cfa && push(m, *m->cfa);
    case DW_OP_stack_value:
        return m->is_value = true;
    case DW_OP_nop:
        return true;
    case DW_OP_deref:
        return run_memory(m, 8);
    case DW_OP_deref_size:
        return run_memory(m, op->number);
    case DW_OP_plus_uconst:
        return m->count > 0 && (m->values[m->count - 1] += op->number, true);
    case DW_OP_dup:
    case DW_OP_drop:
    case DW_OP_over:
    case DW_OP_pick:
    case DW_OP_swap:
        return run_stack(m, op);
    case DW_OP_bregx:
        return push_register(m, op->number, op->number2);
    case DW_OP_regx:
        m->is_register = true;
        return push(m, op->number);
    default:
        break;
    }
    if (m->count < 2)
        return false;
    m->count--;
    return compute(op->atom, m->values[m->count - 1], m->values[m->count],
                   &m->values[m->count - 1]);
}

static bool run(struct machine *m, const Dwarf_Op *op)
{
    uint8_t atom = op->atom;
    if (atom >= DW_OP_lit0 && atom <= DW_OP_lit31)
        return push(m, (uint64_t)atom - DW_OP_lit0);
    if (atom >= DW_OP_breg0 && atom <= DW_OP_breg31)
        return push_register(m, (uint64_t)atom - DW_OP_breg0, op->number);
    if (atom >= DW_OP_const1u && atom <= DW_OP_consts)
        return push(m, op->number);
    if (atom >= DW_OP_reg0 && atom <= DW_OP_reg31) {
        m->is_register = true;
        return push(m, (uint64_t)atom - DW_OP_reg0);
    }
    return run_other(m, op);
}

static bool evaluate(struct machine *m, const Dwarf_Op *ops, size_t count, uint64_t *out)
{
    if (count == 0 || count > OPERATIONS_MAX)
        return false;
    m->count = 0;
    m->is_value = m->is_register = false;
    for (size_t i = 0; i < count; i++) {
        if (!run(m, &ops[i]))
            return false;
    }
    if (m->count == 0)
        return false;
    *out = m->values[m->count - 1];
    return true;
}

/* ---- one frame by call frame information ---- */

/* What the caller had in a register: rule `ops` of it. */
static bool restore(struct machine *m, const Dwarf_Op *ops, size_t count, uint64_t *out)
{
    uint64_t where;
    if (!evaluate(m, ops, count, &where))
        return false;
    if (m->is_register) {
        if (!is_known(&m->walk->now, where))
            return false;
        *out = m->walk->now.value[where];
        return true;
    }
    *out = where;
    return m->is_value || read_word(m->walk, where, out);
}

/* All registers of the caller as far as they are known. *outermost: there is no caller. */
static struct registers restore_all(struct machine *m, bool *outermost)
{
    struct registers caller = {.known = 0};
    *outermost = false;
    for (int number = 0; number < REGISTERS; number++) {
        Dwarf_Op few[3], *ops = NULL;
        size_t count = 0;
        uint64_t value;
        if (dwarf_frame_register(m->frame, number, few, &ops, &count) != 0)
            continue;
        if (count == 0 && ops == few)
            *outermost |= number == RIP;
        else if (count == 0 && is_known(&m->walk->now, (uint64_t)number))
            set(&caller, (unsigned)number, m->walk->now.value[number]);
        else if (count > 0 && restore(m, ops, count, &value))
            set(&caller, (unsigned)number, value);
    }
    return caller;
}

/* Where the caller's frame begins. */
static bool find_cfa(struct machine *m, uint64_t *cfa)
{
    Dwarf_Op *ops;
    size_t count;
    uint64_t frame;
    struct walk *w = m->walk;
    if (dwarf_frame_cfa(m->frame, &ops, &count) != 0)
        return false;
    if (evaluate(m, ops, count, cfa))
        return true;
    /* rbp + 16: the function keeps a frame pointer. */
    bool kept = count == 1 && ops->atom == DW_OP_bregx && ops->number == RBP && ops->number2 == 16;
    kept |= count == 1 && ops->atom == DW_OP_breg6 && ops->number == 16;
    if (!kept || is_known(&w->now, RBP) ||
        !unwind_guess_frame(w->unwind, w->thread, w->now.value[RSP], w->now.value[RIP] - 1, &frame))
        return false;
    set(&w->now, RBP, frame);
    w->guessed = true;
    return evaluate(m, ops, count, cfa);
}

static enum step step_by_rules(struct walk *w, Dwarf_Frame *frame)
{
    struct machine m = {.walk = w, .frame = frame};
    size_t count;
    uint64_t cfa;
    bool outermost;
    if (!find_cfa(&m, &cfa)) {
        Dwarf_Op few[3], *rule = NULL;
        /* The outermost function often says nothing of its stack. */
        if (dwarf_frame_register(frame, RIP, few, &rule, &count) == 0 && count == 0 && rule == few)
            return STEP_END;
        return STEP_FAILED;
    }
    m.cfa = &cfa;
    struct registers caller = restore_all(&m, &outermost);
    if (outermost)
        return STEP_END;
    if (!is_known(&caller, RIP))
        return STEP_FAILED;
    if (!is_known(&caller, RSP))
        set(&caller, RSP, cfa);
    w->why = NULL;
    w->now = caller;
    return STEP_DONE;
}

/* The rules for the code at `address`; free() them. .eh_frame first: it is always there. */
static Dwarf_Frame *find_rules(struct walk *w, uint64_t address)
{
    Dwfl_Module *handle = dwfl_addrmodule(w->unwind->dwfl, address);
    Dwarf_Frame *frame = NULL;
    Dwarf_Addr bias;
    if (!handle)
        return NULL;
    Dwarf_CFI *cfi = dwfl_module_eh_cfi(handle, &bias);
    if (cfi && dwarf_cfi_addrframe(cfi, address - bias, &frame) == 0)
        return frame;
    cfi = dwfl_module_dwarf_cfi(handle, &bias);
    if (cfi && dwarf_cfi_addrframe(cfi, address - bias, &frame) == 0)
        return frame;
    return NULL;
}

/* ---- one frame by frame pointer ---- */

/*
 * Code made at run time has no rules, but mostly keeps frame pointers: rbp leads to the caller's
 * rbp and the return address. Believed only where it rises, within the copy, to code.
 */
static enum step step_by_frame_pointer(struct walk *w)
{
    uint64_t frame = w->now.value[RBP], next, back;
    w->why = "no unwind information for this code, and no frame pointer";
    if (!is_known(&w->now, RBP) || frame % 8 || frame < w->now.value[RSP])
        return STEP_NO_RULE;
    if (!read_word(w, frame, &next) || !read_word(w, frame + 8, &back) ||
        !unwind_is_code(&w->unwind->files, back)) {
        w->why = "no unwind information for this code, and no frame pointer";
        return STEP_NO_RULE;
    }
    struct registers caller = {.known = 0};
    set(&caller, RIP, back);
    set(&caller, RSP, frame + 16);
    if (next > frame)
        set(&caller, RBP, next);
    w->now = caller;
    w->why = NULL;
    return STEP_DONE;
}

/*
 * A call through a wrong pointer: the thread is where no code is, and only its return address was
 * put on the stack.
 */
static enum step step_by_call(struct walk *w)
{
    uint64_t back;
    if (!read_word(w, w->now.value[RSP], &back) || !unwind_is_code(&w->unwind->files, back)) {
        w->why = "it is where no code is";
        return STEP_NO_RULE;
    }
    set(&w->now, RIP, back);
    set(&w->now, RSP, w->now.value[RSP] + 8);
    return STEP_DONE;
}

/* ---- the whole ---- */

static void start(struct walk *w)
{
    const struct user_regs_struct *r = w->thread->regs;
    const uint64_t words[REGISTERS] = {r->rax, r->rdx, r->rcx, r->rbx, r->rsi, r->rdi,
                                       r->rbp, r->rsp, r->r8,  r->r9,  r->r10, r->r11,
                                       r->r12, r->r13, r->r14, r->r15, r->rip};
    memcpy(w->now.value, words, sizeof words);
    w->now.known = w->thread->few_registers ? 1u << RSP | 1u << RIP : (1u << REGISTERS) - 1;
}

/* Goes one frame out, from *place to *next. next->exact tells whether that one was interrupted. */
static enum step step_out(struct walk *w, struct unwind_place *place, struct unwind_place *next)
{
    uint64_t address = place->exact ? place->pc : place->pc - 1;
    Dwarf_Frame *frame = find_rules(w, address);
    bool interrupted = false, by_frame_pointer = false;
    enum step step;
    w->why = NULL;
    w->guessed = false;
    if (frame) {
        if (dwarf_frame_info(frame, NULL, NULL, &interrupted) < 0)
            interrupted = false;
        step = step_by_rules(w, frame);
        free(frame);
    } else if (place->exact && !unwind_is_code(&w->unwind->files, address)) {
        step = step_by_call(w);
    } else {
        step = step_by_frame_pointer(w);
        by_frame_pointer = true;
    }
    place->signal = interrupted;
    *next = (struct unwind_place){.pc = w->now.value[RIP],
                                  .exact = interrupted,
                                  .by_frame_pointer = by_frame_pointer,
                                  .by_call_site = w->guessed};
    return step;
}

size_t unwind_walk(struct unwind *unwind, const struct unwind_thread *thread,
                   struct unwind_place *places, size_t max, const char **why)
{
    struct walk w = {.unwind = unwind, .thread = thread};
    size_t count = 0;
    assert(max > 0);
    start(&w);
    struct unwind_place next = {.pc = w.now.value[RIP], .exact = true};
    *why = NULL;
    while ((next.pc != 0 || next.exact) && count < max) {
        uint64_t stack = w.now.value[RSP];
        struct unwind_place *place = &places[count++];
        *place = next;
        enum step step = step_out(&w, place, &next);
        if (step == STEP_END)
            return count;
        if (step == STEP_DONE && w.now.value[RSP] == stack && next.pc == place->pc) {
            step = STEP_FAILED;
            w.why = "the stack goes in a circle";
        }
        if (step != STEP_DONE) {
            *why = w.why ? w.why : "unwind information that cannot be used";
            return count;
        }
    }
    if (next.pc != 0)
        *why = "more frames than the limit";
    return count;
}
