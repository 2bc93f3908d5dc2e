/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the frame of a function that keeps a frame pointer when rbp is not known, as it is of a
 * thread that was not stopped. The frame must be somewhere above the stack pointer: the first
 * return address whose call leads to this very function is it; where a call does not tell what it
 * calls (by a pointer or a stub), the chain of frame pointers from there on must hold. Invariant:
 * what is found is marked as such. Called by unwind_walk.c.
 */
#include <elfutils/libdwfl.h>
#include <gelf.h>
#include <string.h>

#include "agent/os/linux/unwind_private.h"

#define SEARCH_BYTES (32u << 10)
#define CALL_BYTES_MAX 7
#define CHAIN_LINKS 3

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

enum call { CALL_NONE, CALL_OTHER, CALL_OF_FUNCTION };

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
        int32_t distance;
        memcpy(&distance, end - 4, sizeof distance);
        return back + (uint64_t)(int64_t)distance == function ? CALL_OF_FUNCTION : CALL_OTHER;
    }
    static const uint8_t lengths[] = {2, 3, 4, 6, 7};
    for (size_t i = 0; i < sizeof lengths; i++) {
        const uint8_t *at = end - lengths[i];
        if (at[0] == 0xff && (at[1] & 0x38) == 0x10)
            return CALL_OTHER;
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

bool unwind_guess_frame(struct unwind *unwind, const struct unwind_thread *thread, uint64_t stack,
                        uint64_t function, uint64_t *frame)
{
    uint64_t by_chain = 0, back;
    for (uint64_t at = (stack + 7) & ~UINT64_C(7);
         at - stack < SEARCH_BYTES && read_word(thread, at + 8, &back); at += 8) {
        enum call call = call_before(unwind, back, function);
        if (call == CALL_OF_FUNCTION) {
            *frame = at;
            return true;
        }
        if (call == CALL_OTHER && !by_chain && chain_holds(unwind, thread, at))
            by_chain = at;
    }
    *frame = by_chain;
    return by_chain != 0;
}
