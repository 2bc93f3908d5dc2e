/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code that the profiled process runs: its memory map and the unwinder over it, renewed when
 * the process maps something else, so that no address gets the name of what was there before.
 * Worker only. Called by profile.c, profile_perf.c and profile_wait.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_PROFILE_CODE_H
#define TRAWL_AGENT_OS_LINUX_PROFILE_CODE_H

#include "agent/os/linux/maps.h"
#include "agent/os/linux/profile_set.h"
#include "agent/os/linux/unwind.h"

/* A program that loads and unloads all the time is looked at this often; then its new code has no
 * names. */
#define PROFILE_RENEWALS_MAX 16
#define PROFILE_RENEWAL_US 500000 /* at most one in this time */

struct profile_code {
    pid_t pid;
    struct maps maps;
    struct unwind *unwind;
    struct profile_set *set;
    uint32_t *modules; /* of each of the unwinder's: number + 1 in the set; 0 not there yet */
    uint32_t renewals;
    bool told;  /* somebody says when something is mapped; else an unknown address is the sign */
    bool stale; /* something was mapped since, or an address was in no mapping */
    uint64_t renewed_us;
    bool changed_unseen; /* and there was no renewal left, or it failed */
    /* All stacks; those larger than their copy; those that lead nowhere. */
    uint64_t walked, deep, broken;
    bool lines_cut;
    bool names_cut; /* of code made at run time: there are more than are read */
    size_t modules_left;
};

/* ERR_GONE, ERR_DENIED, ERR_NOMEM, ERR_UNSUPPORTED. */
int profile_code_open(struct profile_code *code, struct profile_set *set, pid_t pid,
                      struct failure *f);
void profile_code_close(struct profile_code *code);

/* Appends the places of a stack to `locations`, innermost first. ERR_LIMIT, ERR_NOMEM. */
int profile_code_walk(struct profile_code *code, const struct unwind_thread *thread,
                      uint32_t *locations, size_t max, size_t *count);

/* Renews when it is stale and time for it. What cannot be renewed stays as it is and is said. */
void profile_code_refresh(struct profile_code *code, uint64_t now_us);

/* Names all places of this era; at the end, for it takes a while. ERR_LIMIT, ERR_NOMEM. */
int profile_code_name(struct profile_code *code);

#endif
