/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time off the CPU, by looking at sleeping threads from outside: how long each ran, waited for a
 * processor and slept is exact (/proc/PID/task/TID/schedstat), where it slept is what the looks
 * find (.../syscall and a copy of the stack). No stop, no trap in the process's way: what it costs
 * does not depend on how often the process sleeps, and is limited to PROFILE_WAIT_PERMILLE of one
 * processor. Where perf events are not permitted the time on the CPU is taken from here too. Worker
 * only; called by profile.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PROFILE_WAIT_H
#define TRAWL_AGENT_OS_LINUX_PROFILE_WAIT_H

#include "agent/os/linux/profile_code.h"

#define PROFILE_WAIT_PERMILLE 10
#define PROFILE_WAIT_STACK_BYTES (64u << 10)
#define PROFILE_WAIT_THREADS_MAX 32768

struct profile_sleeper {
    pid_t tid;
    uint32_t thread, stack; /* numbers in the set; the stack it was last seen asleep with */
    bool seen, ended;
    bool has_stack;                             /* `stack` is valid */
    bool asleep;                                /* and it was asleep with it at the last look */
    uint64_t first_ns;                          /* of the first look */
    uint64_t at_ns, run_ns, queue_ns, switches; /* at the last look */
    int64_t pending_ns; /* slept, and not yet known where; below 0: the kernel was late to count */
};

struct profile_wait {
    pid_t pid;
    struct profile_set *set;
    struct profile_code *code;
    bool running_too; /* time on the CPU as well, as "[running]" */
    struct profile_sleeper *list;
    size_t count, capacity, next;
    uint64_t pass_ns, listed_ns, began_ns, spent_ns;
    uint64_t passes, looks, raced;
    bool denied;     /* where they sleep may not be read */
    size_t overflow; /* threads for which there was no room */
    uint8_t *stack_copy;
    int error; /* the first that stops it */
};

/* ERR_NOMEM. */
int profile_wait_open(struct profile_wait *wait, struct profile_set *set, struct profile_code *code,
                      pid_t pid, bool running_too, struct failure *f);
void profile_wait_close(struct profile_wait *wait);

/* Looks at as many threads as it may now. ERR_LIMIT, ERR_NOMEM: the set is full. */
int profile_wait_tick(struct profile_wait *wait);
/* The last look at every thread. */
int profile_wait_finish(struct profile_wait *wait);

/* The name of a thread, "?" when it is gone. `out` of PROFILE_COMM_SIZE. */
void profile_comm(pid_t pid, pid_t tid, char *out);

#endif
