/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the frame of a function that keeps a frame pointer when rbp is not known, as it is of a
 * thread that was not stopped. The frame must be somewhere above the stack pointer: the first
 * return address whose call leads to this very function is it (directly, or by a slot that the
 * loader filled: of a PLT entry, of the global offset table). The first call of which that cannot
 * be told (by a pointer) ends the search: it is the one when the chain of frame pointers from there
 * on holds. Invariant: no call that might be the right one is passed over; what is found is marked.
 * Called by unwind_walk.c.
 */
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "agent/os/linux/unwind_private.h"

#define SEARCH_BYTES (32u << 10)
#define CALL_BYTES_MAX 7
#define CHAIN_LINKS 3
#define PLT_BYTES 16
#define RULES_MAX 256 /* of one function */
#define RSP 7

/* `size_bytes` of code before `address`, as the file has it; NULL: not in a file. */
static const uint8_t *code_before(struct unwind *unwind, uint64_t address, size_t size_bytes)
{
    GElf_Addr bias;
    size_t file_bytes, segments;
    uint64_t start = address - size_bytes;
    Dwfl_Module *handle = dwfl_addrmodule(unwind->dwfl, start);
    Elf *elf = handle ? dwfl_module_getelf(handle, &bias) : NULL;
    const char *file = elf ? elf_rawfile(elf, &file_bytes) : NULL;
    if (!file || elf_getphdrnum(elf, &segments) != 0)
        return NULL;
    start -= bias;
    for (size_t i = 0; i < segments; i++) {
        GElf_Phdr s;
        if (!gelf_getphdr(elf, (int)i, &s) || s.p_type != PT_LOAD || !(s.p_flags & PF_X) ||
            start < s.p_vaddr || start - s.p_vaddr >= s.p_filesz ||
            s.p_filesz - (start - s.p_vaddr) < size_bytes)
            continue;
        uint64_t offset = s.p_offset + (start - s.p_vaddr);
        if (offset < file_bytes && file_bytes - offset >= size_bytes)
            return (const uint8_t *)file + offset;
    }
    return NULL;
}

enum call { CALL_NONE, CALL_PERHAPS, CALL_OF_FUNCTION };

/* What the loader put into a slot: the one thing that is in no file. Reading it does not disturb.
 */
static bool slot_holds(const struct unwind *unwind, uint64_t slot, uint64_t function)
{
    uint64_t value = 0;
    struct iovec local = {&value, sizeof value};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    struct iovec remote = {(void *)(uintptr_t)slot, sizeof value};
    return process_vm_readv(unwind->pid, &local, 1, &remote, 1, 0) == (ssize_t)sizeof value &&
           value == function;
}

static uint64_t relative(uint64_t address, const uint8_t *distance)
{
    int32_t value;
    memcpy(&value, distance, sizeof value);
    return address + (uint64_t)(int64_t)value;
}

/* An entry of the procedure linkage table (PLT) jumps by a slot: "[endbr64] [bnd] jmp *slot(%rip)".
 */
static bool plt_leads_to(struct unwind *unwind, uint64_t plt, uint64_t function)
{
    const uint8_t *code = code_before(unwind, plt + PLT_BYTES, PLT_BYTES);
    if (!code)
        return false;
    for (size_t i = 0; i + 6 <= PLT_BYTES; i++) {
        if (code[i] == 0xff && code[i + 1] == 0x25)
            return slot_holds(unwind, relative(plt + i + 6, code + i + 2), function);
    }
    return false;
}

/* Intel's manual, volume 2, CALL: E8 rel32; FF /2 with its forms of addresses. */
static enum call call_before(struct unwind *unwind, uint64_t back, uint64_t function)
{
    if (back < CALL_BYTES_MAX || !unwind_is_code(&unwind->files, back))
        return CALL_NONE;
    const uint8_t *code = code_before(unwind, back, CALL_BYTES_MAX);
    if (!code)
        return CALL_NONE;
    const uint8_t *end = code + CALL_BYTES_MAX;
    if (end[-5] == 0xe8) {
        uint64_t target = relative(back, end - 4);
        if (target == function || (function && plt_leads_to(unwind, target, function)))
            return CALL_OF_FUNCTION;
        return function ? CALL_NONE : CALL_PERHAPS;
    }
    if (end[-6] == 0xff && end[-5] == 0x15 && function)
        return slot_holds(unwind, relative(back, end - 4), function) ? CALL_OF_FUNCTION : CALL_NONE;
    static const uint8_t lengths[] = {2, 3, 4, 6, 7};
    for (size_t i = 0; i < sizeof lengths; i++) {
        const uint8_t *at = end - lengths[i];
        if (at[0] == 0xff && (at[1] & 0x38) == 0x10)
            return CALL_PERHAPS;
    }
    return CALL_NONE;
}

static bool read_word(const struct unwind_thread *t, uint64_t address, uint64_t *out)
{
    if (address < t->stack_start || address - t->stack_start > t->stack_bytes ||
        t->stack_bytes - (address - t->stack_start) < sizeof *out)
        return false;
    memcpy(out, t->stack + (address - t->stack_start), sizeof *out);
    return true;
}

/* Whether frame pointers lead on from `frame`, up to their end or far enough. */
static bool chain_holds(struct unwind *unwind, const struct unwind_thread *t, uint64_t frame)
{
    for (int i = 0; i < CHAIN_LINKS; i++) {
        uint64_t next, back;
        if (!read_word(t, frame, &next))
            return false;
        if (next == 0)
            return i > 0;
        if (next <= frame || next % 8 || !read_word(t, next + 8, &back) ||
            call_before(unwind, back, 0) == CALL_NONE)
            return false;
        frame = next;
    }
    return true;
}

/* ---- where the function begins ---- */

/* The rules for `address`, and from where on they hold. */
static Dwarf_Frame *rules_at(Dwarf_CFI *cfi, uint64_t address, Dwarf_Addr *start)
{
    Dwarf_Frame *frame = NULL;
    if (dwarf_cfi_addrframe(cfi, address, &frame) != 0)
        return NULL;
    if (dwarf_frame_info(frame, start, NULL, NULL) >= 0)
        return frame;
    free(frame);
    return NULL;
}

/* As at the entry of a function, when only the return address is on its stack. */
static bool is_entry_rule(Dwarf_Frame *frame)
{
    Dwarf_Op *ops;
    size_t count;
    if (dwarf_frame_cfa(frame, &ops, &count) != 0 || count != 1)
        return false;
    return (ops->atom == DW_OP_bregx && ops->number == RSP && ops->number2 == 8) ||
           (ops->atom == DW_OP_breg7 && ops->number == 8);
}

/* Goes back from rule to rule: the entry's rule is the first one that holds not for a `ret`. */
static uint64_t find_entry(struct unwind *unwind, uint64_t address)
{
    Dwarf_Addr bias, start;
    Dwfl_Module *handle = dwfl_addrmodule(unwind->dwfl, address);
    Dwarf_CFI *cfi = handle ? dwfl_module_eh_cfi(handle, &bias) : NULL;
    for (int i = 0; cfi && i < RULES_MAX; i++) {
        Dwarf_Frame *frame = rules_at(cfi, address - bias, &start);
        if (!frame)
            return 0;
        bool entry = is_entry_rule(frame);
        free(frame);
        const uint8_t *code = code_before(unwind, start + bias + 1, 1);
        if (entry && code && *code != 0xc3)
            return start + bias;
        address = start + bias - 1;
    }
    return 0;
}

bool unwind_guess_frame(struct unwind *unwind, const struct unwind_thread *thread, uint64_t stack,
                        uint64_t address, uint64_t *frame)
{
    uint64_t function = find_entry(unwind, address), back;
    for (uint64_t at = (stack + 7) & ~UINT64_C(7);
         function && at - stack < SEARCH_BYTES && read_word(thread, at + 8, &back); at += 8) {
        enum call call = call_before(unwind, back, function);
        if (call == CALL_NONE)
            continue;
        *frame = at;
        return call == CALL_OF_FUNCTION || chain_holds(unwind, thread, at);
    }
    return false;
}
