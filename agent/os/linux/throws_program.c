/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program at a throw, instruction by instruction (throws_program.h). Invariant: it reads the
 * process's memory and writes nothing but its own record. What the kernel is handed here may be
 * used under the GPL-2.0 as well: its helpers that read memory ask for that.
 */
#include "agent/os/linux/throws_program.h"

#include <assert.h>
#include <sys/user.h>

#include "agent/os/linux/throws_probe.h"

/* Registers of the program. Its context, the record, a number; the stack of the program is at R10.
 */
#define CONTEXT BPF_REG_6
#define RECORD BPF_REG_7
#define STACK BPF_REG_8
#define NUMBER BPF_REG_9
#define KEY_AT (-8)
#define WORD_AT (-16)
#define AT(member) ((short)offsetof(struct throws_hit, member))
/* struct pt_regs begins as struct user_regs_struct does. */
#define REGISTER_AT(name) ((short)offsetof(struct user_regs_struct, name))

struct writer {
    struct bpf_insn *out;
    size_t count;
};

static void put(struct writer *w, int code, int to, int from, int offset, int value)
{
    assert(w->count < THROWS_PROGRAM_MAX);
    w->out[w->count++] = (struct bpf_insn){.code = (__u8)code,
                                           .dst_reg = (__u8)(to & 15),
                                           .src_reg = (__u8)(from & 15),
                                           .off = (__s16)offset,
                                           .imm = value};
}

static void set(struct writer *w, int to, int value)
{
    put(w, BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value);
}

static void copy(struct writer *w, int to, int from)
{
    put(w, BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0);
}

static void add(struct writer *w, int to, int value)
{
    put(w, BPF_ALU64 | BPF_ADD | BPF_K, to, 0, 0, value);
}

static void add_register(struct writer *w, int to, int from)
{
    put(w, BPF_ALU64 | BPF_ADD | BPF_X, to, from, 0, 0);
}

static void load(struct writer *w, int to, int from, int offset)
{
    put(w, BPF_LDX | BPF_MEM | BPF_DW, to, from, offset, 0);
}

static void store(struct writer *w, int to, int offset, int from)
{
    put(w, BPF_STX | BPF_MEM | BPF_DW, to, from, offset, 0);
}

static void store_value(struct writer *w, int to, int offset, int value)
{
    put(w, BPF_ST | BPF_MEM | BPF_DW, to, 0, offset, value);
}

static void add_atomically(struct writer *w, int to, int offset, int from)
{
    put(w, BPF_STX | BPF_ATOMIC | BPF_DW, to, from, offset, BPF_ADD);
}

static void load_map(struct writer *w, int to, int fd)
{
    put(w, BPF_LD | BPF_IMM | BPF_DW, to, BPF_PSEUDO_MAP_FD, 0, fd);
    put(w, 0, 0, 0, 0, 0);
}

static void call(struct writer *w, int helper)
{
    put(w, BPF_JMP | BPF_CALL, 0, 0, 0, helper);
}

static void end(struct writer *w)
{
    set(w, BPF_REG_0, 0);
    put(w, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* A jump forwards on R0 `condition` 0, to where land() is called for it. */
static size_t jump(struct writer *w, int condition)
{
    put(w, BPF_JMP | condition | BPF_K, BPF_REG_0, 0, 0, 0);
    return w->count - 1;
}

static void land(struct writer *w, size_t from)
{
    w->out[from].off = (__s16)(w->count - from - 1);
}

/* Counts; ends when there is nothing to count in. NUMBER points to the counts. */
static void put_count(struct writer *w, int counts_fd)
{
    put(w, BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, KEY_AT, 0);
    load_map(w, BPF_REG_1, counts_fd);
    copy(w, BPF_REG_2, BPF_REG_10);
    add(w, BPF_REG_2, KEY_AT);
    call(w, BPF_FUNC_map_lookup_elem);
    size_t found = jump(w, BPF_JNE);
    end(w);
    land(w, found);
    copy(w, NUMBER, BPF_REG_0);
    set(w, BPF_REG_1, 1);
    add_atomically(w, NUMBER, THROWS_ALL * 8, BPF_REG_1);
}

static void put_reserve(struct writer *w, int ring_fd)
{
    load_map(w, BPF_REG_1, ring_fd);
    set(w, BPF_REG_2, (int)sizeof(struct throws_hit));
    set(w, BPF_REG_3, 0);
    call(w, BPF_FUNC_ringbuf_reserve);
    size_t reserved = jump(w, BPF_JNE);
    set(w, BPF_REG_1, 1);
    add_atomically(w, NUMBER, THROWS_LOST * 8, BPF_REG_1);
    end(w);
    land(w, reserved);
    copy(w, RECORD, BPF_REG_0);
}

static void put_head(struct writer *w)
{
    call(w, BPF_FUNC_ktime_get_ns);
    store(w, RECORD, AT(mono_ns), BPF_REG_0);
    call(w, BPF_FUNC_get_current_pid_tgid);
    store(w, RECORD, AT(ids), BPF_REG_0);
    for (int i = 0; i < THROWS_REGISTERS; i++) {
        load(w, BPF_REG_1, CONTEXT, 8 * i);
        store(w, RECORD, AT(registers) + 8 * i, BPF_REG_1);
    }
}

/* __cxa_throw(object, type, destructor); of a std::type_info the second word is its name (Itanium
 * C++ ABI, 2.9.4). */
static void put_name(struct writer *w)
{
    store_value(w, RECORD, AT(name_bytes), 0);
    copy(w, BPF_REG_1, BPF_REG_10);
    add(w, BPF_REG_1, WORD_AT);
    set(w, BPF_REG_2, 8);
    load(w, BPF_REG_3, CONTEXT, REGISTER_AT(rsi));
    add(w, BPF_REG_3, 8);
    call(w, BPF_FUNC_probe_read_user);
    size_t unreadable = jump(w, BPF_JNE);
    copy(w, BPF_REG_1, RECORD);
    add(w, BPF_REG_1, AT(name));
    set(w, BPF_REG_2, THROWS_NAME_BYTES);
    load(w, BPF_REG_3, BPF_REG_10, WORD_AT);
    call(w, BPF_FUNC_probe_read_user_str);
    store(w, RECORD, AT(name_bytes), BPF_REG_0);
    land(w, unreadable);
}

/* NUMBER bytes are there already; `bytes` more, 0: NUMBER of them. Page by page: what lies beyond
 * the stack's end cannot be read, and one read gives all or nothing. */
static size_t put_piece(struct writer *w, int bytes)
{
    copy(w, BPF_REG_1, RECORD);
    add(w, BPF_REG_1, AT(stack));
    copy(w, BPF_REG_3, STACK);
    if (bytes) {
        add_register(w, BPF_REG_1, NUMBER);
        add_register(w, BPF_REG_3, NUMBER);
        set(w, BPF_REG_2, bytes);
    } else {
        copy(w, BPF_REG_2, NUMBER);
    }
    call(w, BPF_FUNC_probe_read_user);
    size_t unreadable = jump(w, BPF_JNE);
    add(w, NUMBER, bytes);
    store(w, RECORD, AT(stack_bytes), NUMBER);
    return unreadable;
}

static void put_stack(struct writer *w)
{
    size_t unreadable[3];
    store_value(w, RECORD, AT(stack_bytes), 0);
    load(w, STACK, CONTEXT, REGISTER_AT(rsp));
    copy(w, BPF_REG_1, STACK);
    put(w, BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_1, 0, 0, THROWS_PAGE_BYTES - 1);
    set(w, NUMBER, THROWS_PAGE_BYTES);
    put(w, BPF_ALU64 | BPF_SUB | BPF_X, NUMBER, BPF_REG_1, 0, 0);
    unreadable[0] = put_piece(w, 0);
    unreadable[1] = put_piece(w, THROWS_PAGE_BYTES);
    unreadable[2] = put_piece(w, THROWS_PAGE_BYTES);
    for (size_t i = 0; i < 3; i++)
        land(w, unreadable[i]);
}

size_t throws_program(struct bpf_insn *out, int counts_fd, int ring_fd)
{
    struct writer w = {out, 0};
    copy(&w, CONTEXT, BPF_REG_1);
    put_count(&w, counts_fd);
    put_reserve(&w, ring_fd);
    put_head(&w);
    put_name(&w);
    put_stack(&w);
    copy(&w, BPF_REG_1, RECORD);
    set(&w, BPF_REG_2, 0);
    call(&w, BPF_FUNC_ringbuf_submit);
    end(&w);
    return w.count;
}
