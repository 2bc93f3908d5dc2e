/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signal frames as bytes: where they lie, and what the kernel will find in them. That it takes them
 * is shown by test_snapshot_death.c.
 */
#include "agent/os/linux/signal_frame.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "tests/check.h"

#define MAGIC1 0x46505853u
#define MAGIC2 0x46505845u
#define AVX 2
#define PKRU 9
#define TILES 18
#define AVX_END 832
#define PKRU_END 2696
#define TILES_END 11008
#define RED_ZONE 128

static const struct signal_frame_code code = {0x7f0000001000, 0x7f0000002000, 0};

struct world {
    struct signal_frame_thread thread;
    struct xstate_layout layout;
    struct signal_frames frames;
    uint8_t xstate[SIGNAL_FRAME_XSTATE_MAX + 64];
};

static struct world *make_world(void)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    w.layout.features[AVX].offset = 576;
    w.layout.features[AVX].size_bytes = 256;
    w.layout.features[PKRU].offset = 2688;
    w.layout.features[PKRU].size_bytes = 8;
    w.layout.features[TILES].offset = 2816;
    w.layout.features[TILES].size_bytes = 8192;
    w.thread.regs = (struct user_regs_struct){.rsp = 0x7ffc00010008,
                                              .rip = 0x401234,
                                              .rax = 42,
                                              .orig_rax = ~0ull,
                                              .rbx = 7,
                                              .r15 = 15,
                                              .eflags = 0x246,
                                              .cs = 0x33,
                                              .ss = 0x2b};
    w.thread.mask = 0x800;
    return &w;
}

static void set_xstate(struct world *w, uint64_t enabled, uint64_t used, size_t size)
{
    for (size_t i = 0; i < sizeof w->xstate; i++)
        w->xstate[i] = (uint8_t)(i * 7 + 1);
    memset(w->xstate + 464, 0, 48);
    memset(w->xstate + 512, 0, 64);
    memcpy(w->xstate + 464, &enabled, 8);
    memcpy(w->xstate + 512, &used, 8);
    w->thread.xstate = span_of(w->xstate, size);
}

static int build(struct world *w)
{
    return signal_frames_build(&w->thread, &code, &w->layout, &w->frames);
}

static const uint8_t *at(const struct world *w, uint64_t address)
{
    REQUIRE(address >= w->frames.address && address < w->frames.address + w->frames.size_bytes);
    return w->frames.bytes + (address - w->frames.address);
}

static uint32_t u32_at(const struct world *w, uint64_t address)
{
    uint32_t value;
    memcpy(&value, at(w, address), sizeof value);
    return value;
}

static uint64_t u64_at(const struct world *w, uint64_t address)
{
    uint64_t value;
    memcpy(&value, at(w, address), sizeof value);
    return value;
}

/* Behind the return address. */
static ucontext_t context_at(const struct world *w, uint64_t sp)
{
    ucontext_t context;
    memset(&context, 0, sizeof context);
    memcpy(&context, at(w, sp + 8), offsetof(ucontext_t, uc_sigmask) + 8);
    return context;
}

static uint64_t mask_of(const ucontext_t *context)
{
    uint64_t mask;
    memcpy(&mask, &context->uc_sigmask, sizeof mask);
    return mask;
}

TEST(frames_lie_below_the_red_zone_and_in_order)
{
    struct world *w = make_world();
    set_xstate(w, 0x7, 0x7, AVX_END);
    REQUIRE(build(w) == 0);
    const struct signal_frames *f = &w->frames;
    CHECK(f->address + f->size_bytes <= w->thread.regs.rsp - RED_ZONE);
    CHECK(f->thread_sp < f->twin_sp);
    CHECK_EQ_INT(f->thread_sp, f->address);
    ucontext_t thread = context_at(w, f->thread_sp);
    uint64_t fp = (uint64_t)(uintptr_t)thread.uc_mcontext.fpregs;
    CHECK_EQ_INT(fp % 64, 0);
    CHECK(fp > f->thread_sp + 440 - 1);
    CHECK(fp + AVX_END + 4 <= f->twin_sp);
    CHECK(w->thread.regs.rsp - f->address <= signal_frames_room(&w->layout));
}

TEST(a_thread_gets_everything_back)
{
    struct world *w = make_world();
    set_xstate(w, 0x7, 0x7, AVX_END);
    REQUIRE(build(w) == 0);
    ucontext_t c = context_at(w, w->frames.thread_sp);
    CHECK_EQ_INT(u64_at(w, w->frames.thread_sp), code.restorer);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RSP], w->thread.regs.rsp);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RIP], 0x401234);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RAX], 42);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RBX], 7);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_R15], 15);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_EFL], 0x246);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_CSGSFS] & 0xffff, 0x33);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_CSGSFS] >> 48, 0x2b);
    CHECK_EQ_INT(mask_of(&c), 0x800);
    /* Too small a stack is not taken, so the one it has stays. */
    CHECK(c.uc_stack.ss_sp == NULL && c.uc_stack.ss_size == 0 && c.uc_stack.ss_flags == 0);
}

TEST(a_system_call_begins_anew)
{
    struct world *w = make_world();
    set_xstate(w, 0x7, 0x3, AVX_END);
    const uint64_t again[] = {512, 513, 514};
    w->thread.regs.orig_rax = SYS_read;
    for (size_t i = 0; i < 3; i++) {
        w->thread.regs.rax = 0 - again[i];
        CHECK_EQ_INT(signal_frame_stands(&w->thread.regs), STAND_BLOCKED);
        REQUIRE(build(w) == 0);
        ucontext_t c = context_at(w, w->frames.thread_sp);
        CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RAX], SYS_read);
        CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RIP], 0x401232);
    }
    w->thread.regs.rax = 0 - (uint64_t)516;
    CHECK_EQ_INT(signal_frame_stands(&w->thread.regs), STAND_RESUMES);
    REQUIRE(build(w) == 0);
    ucontext_t c = context_at(w, w->frames.thread_sp);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RAX], -EINTR);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RIP], 0x401234);
    /* In no system call, these are numbers like any. */
    w->thread.regs.orig_rax = ~0ull;
    CHECK_EQ_INT(signal_frame_stands(&w->thread.regs), STAND_USER);
    REQUIRE(build(w) == 0);
    c = context_at(w, w->frames.thread_sp);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RAX], -516);
}

TEST(the_twin_ends)
{
    struct world *w = make_world();
    set_xstate(w, 0x7, 0x3, AVX_END);
    REQUIRE(build(w) == 0);
    ucontext_t c = context_at(w, w->frames.twin_sp);
    CHECK_EQ_INT(u64_at(w, w->frames.twin_sp), code.restorer);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RIP], code.gadget);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RAX], SYS_exit_group);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RDI], 0);
    CHECK(c.uc_mcontext.fpregs == NULL);
    CHECK_EQ_INT(mask_of(&c), -1);
}

static uint64_t fp_of(const struct world *w)
{
    return (uint64_t)(uintptr_t)context_at(w, w->frames.thread_sp).uc_mcontext.fpregs;
}

TEST(without_a_restorer_the_number_is_popped)
{
    struct world *w = make_world();
    const struct signal_frame_code bare = {0x7f0000001000, 0, 0x7f0000003000};
    const uint64_t *sps[] = {&w->frames.thread_sp, &w->frames.twin_sp};
    set_xstate(w, 0x7, 0x7, AVX_END);
    REQUIRE(signal_frames_build(&w->thread, &bare, &w->layout, &w->frames) == 0);
    for (size_t i = 0; i < 2; i++) {
        uint64_t sp = *sps[i];
        CHECK_EQ_INT(u64_at(w, sp), bare.pop);
        CHECK_EQ_INT(u64_at(w, sp + 8), SYS_rt_sigreturn);
        CHECK_EQ_INT(u64_at(w, sp + 16), bare.gadget);
    }
    ucontext_t c = context_at(w, w->frames.thread_sp + 16);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RSP], w->thread.regs.rsp);
    CHECK_EQ_INT((uint64_t)(uintptr_t)c.uc_mcontext.fpregs % 64, 0);
    c = context_at(w, w->frames.twin_sp + 16);
    CHECK_EQ_INT(c.uc_mcontext.gregs[REG_RAX], SYS_exit_group);
    CHECK(w->frames.address + w->frames.size_bytes <= w->thread.regs.rsp - RED_ZONE);
}

TEST(fp_state_is_trimmed_to_what_is_in_use)
{
    struct world *w = make_world();
    set_xstate(w, 0x40207, 0x7, TILES_END);
    REQUIRE(build(w) == 0);
    uint64_t fp = fp_of(w);
    CHECK_EQ_INT(u32_at(w, fp + 464), MAGIC1);
    CHECK_EQ_INT(u32_at(w, fp + 468), PKRU_END + 4);
    CHECK_EQ_INT(u64_at(w, fp + 472), 0x207); /* PKRU counts always: its value is there */
    CHECK_EQ_INT(u32_at(w, fp + 480), PKRU_END);
    CHECK_EQ_INT(u64_at(w, fp + 512), 0x207);
    CHECK_EQ_MEM(at(w, fp), w->xstate, 464);
    CHECK_EQ_MEM(at(w, fp + 576), w->xstate + 576, PKRU_END - 576);
    CHECK_EQ_INT(u32_at(w, fp + PKRU_END), MAGIC2);
    /* Where a kernel may look that goes by what the thread is allowed to use. */
    CHECK_EQ_INT(u32_at(w, fp + TILES_END), MAGIC2);
}

TEST(fp_state_in_use_is_whole)
{
    struct world *w = make_world();
    set_xstate(w, 0x40007, 0x40006, TILES_END);
    REQUIRE(build(w) == 0);
    uint64_t fp = fp_of(w);
    CHECK_EQ_INT(u32_at(w, fp + 480), TILES_END);
    CHECK_EQ_MEM(at(w, fp + 576), w->xstate + 576, TILES_END - 576);
    CHECK_EQ_INT(u32_at(w, fp + TILES_END), MAGIC2);
    /* x87 is as of a new thread: the kernel makes it so when it is asked for but not there. */
    CHECK_EQ_INT(u64_at(w, fp + 472), 0x40007);
    CHECK_EQ_INT(u64_at(w, fp + 512), 0x40006);
}

TEST(what_is_not_understood_is_left_alone)
{
    struct world *w = make_world();
    uint64_t compact = 1ull << 63;
    set_xstate(w, 0x7, 0x7, AVX_END);
    memcpy(w->xstate + 520, &compact, 8);
    CHECK_EQ_INT(build(w), ERR_UNSUPPORTED);
    set_xstate(w, 0x3, 0x7, AVX_END); /* in use, not enabled */
    CHECK_EQ_INT(build(w), ERR_UNSUPPORTED);
    set_xstate(w, 0xf, 0x8, AVX_END); /* no place known */
    CHECK_EQ_INT(build(w), ERR_UNSUPPORTED);
    set_xstate(w, 1ull << 63, 1ull << 63, AVX_END);
    CHECK_EQ_INT(build(w), ERR_UNSUPPORTED);
    set_xstate(w, 0x7, 0x4, AVX_END - 1); /* beyond the end */
    CHECK_EQ_INT(build(w), ERR_UNSUPPORTED);
    set_xstate(w, 0x7, 0x3, 575);
    CHECK_EQ_INT(build(w), ERR_UNSUPPORTED);
    set_xstate(w, 0x7, 0x3, SIGNAL_FRAME_XSTATE_MAX + 1);
    CHECK_EQ_INT(build(w), ERR_UNSUPPORTED);
    set_xstate(w, 0x7, 0x3, AVX_END);
    w->thread.regs.rsp = 4096;
    CHECK_EQ_INT(build(w), ERR_UNSUPPORTED);
    w->thread.regs.rsp = 0;
    CHECK_EQ_INT(build(w), ERR_UNSUPPORTED);
}

TEST(the_largest_state_fits)
{
    struct world *w = make_world();
    set_xstate(w, 0x3, 0x3, SIGNAL_FRAME_XSTATE_MAX);
    for (uint64_t low = 0; low < 64; low++) {
        w->thread.regs.rsp = 0x7ffc00010000 + low;
        CHECK_EQ_INT(build(w), 0);
        CHECK(w->frames.size_bytes <= SIGNAL_FRAMES_MAX);
        CHECK_EQ_INT(fp_of(w) % 64, 0);
    }
}

TEST(this_processor_has_a_layout)
{
    struct xstate_layout layout;
    xstate_layout_get(&layout);
    size_t room = signal_frames_room(&layout);
    CHECK(room > 1024 && room <= SIGNAL_FRAMES_MAX + RED_ZONE);
    printf("      %zu bytes of room on the stack\n", room);
}
