/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of perf_event_open(2)'s ring as bytes: which of them a profile asks for, and how they are
 * read. Pure: no system call; every length is checked, for what lies in a sample is the process's
 * own memory. Called by perf_events.c and profile_perf.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PERF_RECORD_H
#define TRAWL_AGENT_OS_LINUX_PERF_RECORD_H

#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "common/buf.h"

#define PERF_STACK_BYTES (16u << 10) /* of the user stack, in each sample */
#define PERF_KERNEL_FRAMES_MAX 127   /* the kernel's own default: perf_event_max_stack */
#define PERF_RECORD_BYTES_MAX 65536  /* perf_event_header.size is 16 bits wide */

/* What a sample holds; perf_record_parse() knows no other. */
#define PERF_SAMPLE_WANTED                                                         \
    (PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CALLCHAIN | \
     PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER)
/* asm/perf_regs.h: ax bx cx dx si di bp sp ip, r8 to r15. */
#define PERF_REGS_WANTED UINT64_C(0xff01ff)

struct perf_sample {
    pid_t pid, tid;
    uint64_t time_ns; /* CLOCK_MONOTONIC */
    uint64_t ip;
    uint64_t kernel[PERF_KERNEL_FRAMES_MAX]; /* innermost first */
    size_t kernel_count;
    bool has_user; /* false: a kernel thread, or a 32-bit program; what follows is empty then */
    struct user_regs_struct regs;
    struct span stack; /* from regs.rsp on, borrowed; may end before the stack does */
};

/* What happened, by `type` (linux/perf_event.h); types that are not here have nothing in it. */
struct perf_record {
    uint32_t type;
    pid_t pid, tid;      /* SAMPLE, COMM, FORK, MMAP2 */
    uint64_t lost;       /* LOST: records for which the ring had no room */
    pid_t parent_tid;    /* FORK */
    bool exec;           /* COMM: by execve(2) */
    char name[16];       /* COMM */
    uint64_t start, end; /* MMAP2 */
    uint64_t inode;      /* MMAP2; 0: of no file */
    bool executable;     /* MMAP2 */
    struct perf_sample sample;
};

/* Reads one whole record, header included. ERR_CORRUPT: `*out` is not to be used. */
int perf_record_parse(struct span bytes, struct perf_record *out);

#endif
