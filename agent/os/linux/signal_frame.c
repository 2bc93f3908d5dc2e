/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building signal frames. Invariant: nothing is written outside of struct signal_frames, whatever
 * the FP state of the other process claims. Called by inject.c; signal_frame.h says what for.
 */
#include "agent/os/linux/signal_frame.h"

#include <assert.h>
#include <cpuid.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

/* The kernel's own errors, include/linux/errno.h: seen by tracers only. */
#define ERESTARTSYS_ 512
#define ERESTARTNOINTR_ 513
#define ERESTARTNOHAND_ 514
#define ERESTART_RESTARTBLOCK_ 516

/* asm/ucontext.h. FP state is there; ss is there, and is to be taken as it stands. */
#define UC_FP_XSTATE_ 1
#define UC_SIGCONTEXT_SS_ 2
#define UC_STRICT_RESTORE_SS_ 4

/* asm/sigcontext.h: struct _fpx_sw_bytes, at byte 464 of the FXSAVE area. */
#define SOFTWARE_BYTES 464
#define HEADER_BYTES 512
#define XSTATE_MIN 576
#define MAGIC1 0x46505853u
#define MAGIC2 0x46505845u
#define XSTATE_ALIGN 64
#define FEATURES_LEGACY 3u       /* x87 and SSE, which have no entry in the layout */
#define FEATURE_PKRU (1ull << 9) /* always there, whether the area says so or not */
#define XSTATE_LEAF 13

struct software_bytes {
    uint32_t magic1;
    uint32_t extended_size; /* with magic2 */
    uint64_t features;
    uint32_t xstate_size;
    uint32_t padding[7];
};

/* struct sigcontext_64 */
struct context {
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    uint16_t cs, gs, fs, ss;
    uint64_t error, trap, old_mask, cr2;
    uint64_t fpstate;
    uint64_t reserved[8];
};

struct frame {
    uint64_t return_address;
    uint64_t flags, link;
    uint64_t stack_address; /* all zero: too small a stack, so the one it has is kept */
    uint32_t stack_flags, padding;
    uint64_t stack_size;
    struct context context;
    uint64_t mask;
    uint8_t info[128];
};

/* The C library's structure differs in its larger signal set only. */
static_assert(sizeof(struct context) == 256, "struct sigcontext_64");
static_assert(offsetof(struct frame, context) - 8 == offsetof(ucontext_t, uc_mcontext), "ucontext");
static_assert(offsetof(struct frame, mask) - 8 == offsetof(ucontext_t, uc_sigmask), "ucontext");
static_assert(offsetof(struct context, fpstate) == offsetof(mcontext_t, fpregs), "mcontext");
static_assert(sizeof(struct software_bytes) == 48, "struct _fpx_sw_bytes");

void xstate_layout_get(struct xstate_layout *out)
{
    memset(out, 0, sizeof *out);
    for (unsigned i = 2; i < SIGNAL_FRAME_XSTATE_FEATURES; i++) {
        unsigned size = 0, offset = 0, flags = 0, unused = 0;
        if (!__get_cpuid_count(XSTATE_LEAF, i, &size, &offset, &flags, &unused))
            return;
        bool of_kernel = flags & 1; /* never in an area that user space sees */
        if (of_kernel)
            continue;
        out->features[i].offset = offset;
        out->features[i].size_bytes = size;
    }
}

size_t signal_frames_room(const struct xstate_layout *layout)
{
    size_t end = XSTATE_MIN;
    for (unsigned i = 2; i < SIGNAL_FRAME_XSTATE_FEATURES; i++) {
        size_t one = (size_t)layout->features[i].offset + layout->features[i].size_bytes;
        end = layout->features[i].size_bytes && one > end ? one : end;
    }
    return end + (SIGNAL_FRAMES_MAX - SIGNAL_FRAME_XSTATE_MAX) + SIGNAL_FRAME_RED_ZONE;
}

/* ---- the registers ---- */

static int64_t restart_of(const struct user_regs_struct *regs)
{
    return (int64_t)regs->orig_rax < 0 ? 0 : -(int64_t)regs->rax;
}

enum signal_frame_stand signal_frame_stands(const struct user_regs_struct *regs)
{
    switch (restart_of(regs)) {
    case ERESTARTSYS_:
    case ERESTARTNOINTR_:
    case ERESTARTNOHAND_:
        return STAND_BLOCKED;
    case ERESTART_RESTARTBLOCK_:
        return STAND_RESUMES;
    default:
        return STAND_USER;
    }
}

static void put_context(struct context *c, const struct user_regs_struct *r)
{
    *c = (struct context){
        .r8 = r->r8,
        .r9 = r->r9,
        .r10 = r->r10,
        .r11 = r->r11,
        .r12 = r->r12,
        .r13 = r->r13,
        .r14 = r->r14,
        .r15 = r->r15,
        .rdi = r->rdi,
        .rsi = r->rsi,
        .rbp = r->rbp,
        .rbx = r->rbx,
        .rdx = r->rdx,
        .rax = r->rax,
        .rcx = r->rcx,
        .rsp = r->rsp,
        .rip = r->rip,
        .eflags = r->eflags,
        .cs = (uint16_t)r->cs,
        .gs = (uint16_t)r->gs,
        .fs = (uint16_t)r->fs,
        .ss = (uint16_t)r->ss,
    };
}

static void put_frame(struct frame *frame, const struct signal_frame_code *code)
{
    memset(frame, 0, sizeof *frame);
    frame->return_address = code->restorer ? code->restorer : code->gadget;
    frame->flags = UC_SIGCONTEXT_SS_ | UC_STRICT_RESTORE_SS_;
}

/* The system call begins anew, as the kernel would have it; `syscall` is two bytes long. */
static void put_thread_frame(struct frame *frame, const struct signal_frame_thread *thread,
                             const struct signal_frame_code *code, uint64_t fpstate)
{
    put_frame(frame, code);
    put_context(&frame->context, &thread->regs);
    frame->flags |= UC_FP_XSTATE_;
    frame->context.fpstate = fpstate;
    frame->mask = thread->mask;
    switch (signal_frame_stands(&thread->regs)) {
    case STAND_BLOCKED:
        frame->context.rax = thread->regs.orig_rax;
        frame->context.rip -= 2;
        break;
    case STAND_RESUMES:
        frame->context.rax = (uint64_t)-EINTR;
        break;
    case STAND_USER:
        break;
    }
}

/* exit_group(0), with every signal blocked and FP state as of a new process. */
static void put_twin_frame(struct frame *frame, const struct signal_frame_thread *thread,
                           const struct signal_frame_code *code, uint64_t sp)
{
    put_frame(frame, code);
    frame->context = (struct context){.rax = SYS_exit_group,
                                      .rip = code->gadget,
                                      .rsp = sp,
                                      .eflags = 0x202,
                                      .cs = (uint16_t)thread->regs.cs,
                                      .ss = (uint16_t)thread->regs.ss};
    frame->mask = ~0ull;
}

/* ---- floating point and vector registers ---- */

struct fp_shape {
    uint64_t features; /* in use */
    size_t used_bytes; /* up to the end of the last of them */
    size_t size_bytes; /* with everything that the kernel may look for behind */
};

static int shape_of(struct span xstate, const struct xstate_layout *layout, struct fp_shape *out)
{
    struct fp_shape shape = {0, XSTATE_MIN, xstate.size_bytes + sizeof(uint32_t)};
    uint64_t enabled, form;
    if (xstate.size_bytes < XSTATE_MIN || xstate.size_bytes > SIGNAL_FRAME_XSTATE_MAX)
        return ERR_UNSUPPORTED;
    memcpy(&enabled, xstate.data + SOFTWARE_BYTES, sizeof enabled);
    memcpy(&shape.features, xstate.data + HEADER_BYTES, sizeof shape.features);
    memcpy(&form, xstate.data + HEADER_BYTES + 8, sizeof form);
    if (form != 0 || shape.features & ~enabled)
        return ERR_UNSUPPORTED;
    shape.features |= enabled & FEATURE_PKRU;
    for (unsigned i = 2; i < 64; i++) {
        if (!(shape.features >> i & 1))
            continue;
        if (i >= SIGNAL_FRAME_XSTATE_FEATURES || layout->features[i].size_bytes == 0)
            return ERR_UNSUPPORTED;
        size_t end = (size_t)layout->features[i].offset + layout->features[i].size_bytes;
        if (end > xstate.size_bytes)
            return ERR_UNSUPPORTED;
        if (end > shape.used_bytes)
            shape.used_bytes = end;
    }
    *out = shape;
    return 0;
}

static void put_magic2(uint8_t *at)
{
    uint32_t magic = MAGIC2;
    memcpy(at, &magic, sizeof magic);
}

/*
 * Most kernels look for the second magic number behind xstate_size, some (6.16 and on) behind the
 * size that this thread's area has by its permissions, which is the end of one feature or another:
 * it stands behind each that is not in use, and those are not read.
 */
static void put_xstate(uint8_t *at, struct span xstate, const struct xstate_layout *layout,
                       const struct fp_shape *shape)
{
    struct software_bytes software = {.magic1 = MAGIC1,
                                      .extended_size =
                                          (uint32_t)(shape->used_bytes + sizeof(uint32_t)),
                                      .features = shape->features | FEATURES_LEGACY,
                                      .xstate_size = (uint32_t)shape->used_bytes};
    memset(at, 0, shape->size_bytes);
    memcpy(at, xstate.data, shape->used_bytes);
    memcpy(at + SOFTWARE_BYTES, &software, sizeof software);
    memcpy(at + HEADER_BYTES, &shape->features, sizeof shape->features);
    put_magic2(at + shape->used_bytes);
    for (unsigned i = 2; i < SIGNAL_FRAME_XSTATE_FEATURES; i++) {
        size_t end = (size_t)layout->features[i].offset + layout->features[i].size_bytes;
        if (layout->features[i].size_bytes && end >= shape->used_bytes && end <= xstate.size_bytes)
            put_magic2(at + end);
    }
    put_magic2(at + xstate.size_bytes);
}

/* ---- both ---- */

/* Without a restorer: two words below the frame make the number of rt_sigreturn(2) for the gadget,
 * whose `syscall` then finds the stack as it would behind a restorer. */
#define LEAD_BYTES 16

static size_t lead_of(const struct signal_frame_code *code)
{
    return code->restorer ? 0 : LEAD_BYTES;
}

static void put_framed(uint8_t *at, const struct frame *frame, const struct signal_frame_code *code)
{
    uint64_t lead[2] = {code->pop, SYS_rt_sigreturn};
    static_assert(sizeof lead == LEAD_BYTES, "two words");
    if (lead_of(code))
        memcpy(at, lead, sizeof lead);
    memcpy(at + lead_of(code), frame, sizeof *frame);
}

static uint64_t align_down(uint64_t address, uint64_t to)
{
    return address & ~(to - 1);
}

int signal_frames_build(const struct signal_frame_thread *thread,
                        const struct signal_frame_code *code, const struct xstate_layout *layout,
                        struct signal_frames *out)
{
    struct fp_shape shape;
    struct frame frame;
    int rc = shape_of(thread->xstate, layout, &shape);
    if (rc)
        return rc;
    if (thread->regs.rsp < SIGNAL_FRAMES_MAX + SIGNAL_FRAME_RED_ZONE)
        return ERR_UNSUPPORTED;
    /* From the top down: the twin's frame, the FP state, the thread's frame. A function is entered
     * with rsp 8 above a multiple of 16, and so is a handler. */
    size_t lead = lead_of(code);
    uint64_t top = align_down(thread->regs.rsp - SIGNAL_FRAME_RED_ZONE, 16);
    uint64_t twin = align_down(top - sizeof frame, 16) - 8 - lead;
    uint64_t fpstate = align_down(twin - shape.size_bytes, XSTATE_ALIGN);
    uint64_t own = align_down(fpstate - sizeof frame, 16) - 8 - lead;
    size_t size_bytes = (size_t)(twin + lead + sizeof frame - own);
    assert(size_bytes <= sizeof out->bytes);
    memset(out->bytes, 0, size_bytes);
    put_thread_frame(&frame, thread, code, fpstate);
    put_framed(out->bytes, &frame, code);
    put_xstate(out->bytes + (fpstate - own), thread->xstate, layout, &shape);
    put_twin_frame(&frame, thread, code, twin);
    put_framed(out->bytes + (twin - own), &frame, code);
    out->address = own;
    out->size_bytes = size_bytes;
    out->thread_sp = own;
    out->twin_sp = twin;
    return 0;
}
