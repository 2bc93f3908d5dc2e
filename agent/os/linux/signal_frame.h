/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signal frames as the x86-64 kernel writes and rt_sigreturn(2) reads them (arch/x86: struct
 * rt_sigframe, asm/sigcontext.h, kernel/fpu/signal.c): one that gives a thread back everything it
 * had, one that makes a twin of it end. They lie on the thread's own stack before it is made to
 * call anything, so that the thread heals itself when we die. Pure; called by inject.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_SIGNAL_FRAME_H
#define TRAWL_AGENT_OS_LINUX_SIGNAL_FRAME_H

#include <stdint.h>
#include <sys/user.h>

#include "common/buf.h"
#include "common/err.h"

#define SIGNAL_FRAME_RED_ZONE 128 /* System V ABI, AMD64: below rsp, still the function's own */
#define SIGNAL_FRAME_XSTATE_MAX (16u << 10)
#define SIGNAL_FRAME_XSTATE_FEATURES 63
/* Both frames, the FP state between them, and what is lost to alignment. */
#define SIGNAL_FRAMES_MAX (SIGNAL_FRAME_XSTATE_MAX + 2048)

/* Where each feature of the processor lies in an XSAVE area of standard form; size 0: absent. */
struct xstate_layout {
    struct {
        uint32_t offset, size_bytes;
    } features[SIGNAL_FRAME_XSTATE_FEATURES];
};
/* Of this machine's processor (cpuid(4), leaf 13). */
void xstate_layout_get(struct xstate_layout *out);

/* How much room below rsp both frames need with such a processor, red zone included. */
size_t signal_frames_room(const struct xstate_layout *layout);

/* A thread as it stands in a ptrace stop. */
struct signal_frame_thread {
    struct user_regs_struct regs;
    uint64_t mask;      /* blocked signals (PTRACE_GETSIGMASK) */
    struct span xstate; /* PTRACE_GETREGSET of NT_X86_XSTATE, borrowed */
};

/* Code that the process has. */
struct signal_frame_code {
    uint64_t gadget;   /* `syscall; ret` */
    uint64_t restorer; /* `mov $15,%eax; syscall`: rt_sigreturn(2) */
    uint64_t pop; /* `pop %rax; ret`, which with the gadget does what a restorer does; 0: unused */
};

/* `size_bytes` of `bytes` belong at `address`, which is below the thread's red zone. */
struct signal_frames {
    uint64_t address;
    size_t size_bytes;
    uint64_t thread_sp; /* rsp for a `ret` that heals the thread */
    uint64_t twin_sp;   /* rsp for a `ret` that ends the process: above, so that signal handlers
                           which run on the thread's stack leave it alone */
    uint8_t bytes[SIGNAL_FRAMES_MAX];
};

/*
 * Builds both. The thread's frame leads to where it stood, or to the system call it was in, anew:
 * but a call that can only be resumed (-ERESTART_RESTARTBLOCK) returns EINTR. Floating point state
 * is trimmed to what is in use. ERR_UNSUPPORTED: an FP state that is not understood.
 */
int signal_frames_build(const struct signal_frame_thread *thread,
                        const struct signal_frame_code *code, const struct xstate_layout *layout,
                        struct signal_frames *out);

/* What the thread stands in, as its registers tell. */
enum signal_frame_stand {
    STAND_BLOCKED = 1, /* in a system call that begins anew whatever becomes of us */
    STAND_RESUMES,     /* in one that the kernel resumes: it would return EINTR if we died */
    STAND_USER,        /* in no system call, or one that has just returned */
};
enum signal_frame_stand signal_frame_stands(const struct user_regs_struct *regs);

#endif
