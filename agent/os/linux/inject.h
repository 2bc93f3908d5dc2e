/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a held thread call one system call, so that neither it nor the process notices, and so
 * that our death at any instruction leaves it as if nothing had been. Worker only; called by
 * snapshot.c and snapshot_reap.c. Nothing here allocates or touches a file but inject_find_code(),
 * which runs before the process is held.
 *
 * How: frames that give the thread back all it had (signal_frame.h) are written onto its stack
 * below the red zone, where nothing can lie; then its registers are set to a `syscall; ret` which
 * the process has, with the stack pointer on the frame. So whenever we die, the thread finishes the
 * call, returns into rt_sigreturn(2) and stands where it stood. If we live, it is brought back by
 * setting its registers in a stop on the signal path, where the kernel restarts the call it was in.
 */
#ifndef TRAWL_AGENT_OS_LINUX_INJECT_H
#define TRAWL_AGENT_OS_LINUX_INJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/os/linux/maps.h"
#include "agent/os/linux/signal_frame.h"

/* What tests switch. All zero in the product. */
struct inject_controls {
    uint32_t die_at;   /* SIGKILL to ourselves at this step, 1 to INJECT_STEPS; 0: never */
    pid_t only;        /* no other thread fits; 0: any */
    bool no_restorer;  /* as in a program that has none */
    bool leave_frames; /* no frames: our death must then be seen */
};
#define INJECT_STEPS 12
#define INJECT_STEP_CHILD 7 /* a child is born; not reached by other calls */

struct inject_call {
    uint64_t number;
    uint64_t arguments[6];
    bool child_on_frame; /* clone(2): its stack, the second argument, is the twin's frame */
};

struct inject {
    struct signal_frame_code code; /* set by inject_find_code() */
    struct inject_controls controls;
    /* What became of the call. */
    int64_t result; /* of the system call */
    pid_t child;    /* born by it, as we see it; 0: none */
    bool begun;     /* the thread may have made the call, also when an error is returned */
    /* private */
    const struct maps *maps;
    pid_t pid, tid;
    uint64_t until_us;
    struct xstate_layout layout;
    struct signal_frame_thread thread;
    struct signal_frames frames;
    uint8_t xstate[SIGNAL_FRAME_XSTATE_MAX];
};

/*
 * Looks for the gadget (`syscall; ret`) and the restorer in the code of the process: of the C
 * library, the vdso, the executable, other files; never in what may be written or is no file's.
 * `maps` is borrowed for as long as `inject` is used. ERR_REFUSED: none found. ERR_GONE,
 * ERR_DENIED.
 */
int inject_find_code(struct inject *inject, pid_t pid, const struct maps *maps, struct failure *f);

/*
 * How well a held thread is fit: 0 not at all, else the higher the better. *why says what is
 * missing. It must stand on a stack that is certainly its own, with room: in [stack], or in private
 * memory with a guard below that holds its thread descriptor too.
 */
#define INJECT_FITNESS_MAX 3
unsigned inject_fitness(struct inject *inject, pid_t tid, const struct user_regs_struct *regs,
                        const char **why);

/*
 * The thread is in a ptrace stop on the signal path (PTRACE_EVENT_STOP), seized by the calling
 * thread with PTRACE_O_TRACECLONE, and is again when 0 is returned: as it was, to be detached.
 * ERR_TIMEOUT (until_us on the clock of stop.h) and ERR_GONE (it died): it must only be let go, and
 * heals itself. ERR_UNSUPPORTED: not touched, a thread of another kind may do.
 */
int inject_call(struct inject *inject, pid_t tid, const struct inject_call *call, uint64_t until_us,
                struct failure *f);

#endif
