/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two kinds of stacks share: the copy of each thread, and everything that is made of it
 * once the process has nothing more to do with it. Called by stacks.c and stacks_zero.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_STACKS_LINUX_H
#define TRAWL_AGENT_OS_LINUX_STACKS_LINUX_H

#include "agent/os/linux/maps.h"
#include "agent/os/linux/python_frames.h"
#include "agent/os/linux/stacks_text.h"
#include "agent/os/linux/unwind.h"
#include "agent/os/stacks.h"

#define STACKS_BYTES_LEAST (64u << 10) /* of one thread, when there are many */
#define STACKS_BYTES_MAX (256u << 10)  /* and when there are few */
#define STACKS_POOL_MAX (512u << 20)   /* of all */
#define STACKS_RED_ZONE 128 /* bytes below the stack pointer that are in use: psABI 3.2.2 */

/* What was copied of one thread. */
struct stacks_copy {
    pid_t tid;
    char name[STACKS_COMM_SIZE];
    char state;      /* as proc(5) has it; 0: not known */
    bool taken;      /* there are registers; else `why` says why there are none */
    bool ended;      /* it is no more, and not spoken of */
    bool few;        /* of the registers only rip and rsp are there */
    bool unmapped;   /* the stack pointer is in no mapping known */
    bool end_copied; /* the copy reaches to the end of the mapping */
    const char *why;
    struct user_regs_struct *regs; /* borrowed; NULL: only pc and sp */
    uint64_t pc, sp;
    uint64_t start;
    size_t size_bytes;
    uint8_t *data;
    uint64_t second_start; /* the stack below a signal handler that has one of its own */
    size_t second_bytes;
    uint8_t *second;
    struct python_thread *python; /* NULL: none, or (with `regs`) not looked for yet */
};

struct stacks_job {
    const struct os_take *take;
    struct maps maps;
    struct unwind *unwind;
    struct python *python; /* NULL: no interpreter that is known */
    struct stacks_copy *copies;
    size_t count;
    struct stacks_set set;
    struct stacks_head head;
    bool python_apart; /* some Python frames could not be put between the native ones */
};

/* How much is copied of a thread at most when there are so many. */
size_t stacks_bytes_max(size_t threads);
void stacks_read_name(pid_t pid, pid_t tid, char *out, size_t size_bytes);
/* The number of a thread in its own pid namespace. */
uint64_t stacks_inner_tid(pid_t pid, pid_t tid);
/* Where a copy begins and how long it is at most; *out->data is not set. */
void stacks_plan_copy(const struct maps *maps, uint64_t pointer, size_t most,
                      struct stacks_copy *out);
/*
 * Looks into a copied stack for the frame of a signal whose handler has a stack of its own
 * (sigaltstack(2)): where the thread was before. Neither allocates nor calls the system. 0: none.
 */
uint64_t stacks_find_signal(const struct stacks_copy *copy);

/* Opens map, files and interpreter; the process is not touched. */
int stacks_job_open(struct stacks_job *job, const struct os_take *take, struct failure *f);
/*
 * Unwinds, names and groups what was copied, and gives the files. Adds to *result what was found
 * and what is missing.
 */
int stacks_job_finish(struct stacks_job *job, const struct os_output *out, struct os_result *result,
                      struct failure *f);
void stacks_job_done(struct stacks_job *job);
/* The steps of stacks_job_finish(), for who gives other files: frames, groups, names; what is
 * missing of them. */
int stacks_job_unwind(struct stacks_job *job, struct failure *f);
void stacks_job_note_missing(struct stacks_job *job, struct os_result *result);

#endif
