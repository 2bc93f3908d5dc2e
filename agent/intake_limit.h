/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much each user may report: INTAKE_BURST at once and INTAKE_PER_SECOND for good; what is more
 * is counted, to the last one. Invariant: a user's flood takes nothing of another's share; every
 * datagram is in exactly one count. Pure: the clock is given. Called by intake.c.
 */
#ifndef TRAWL_AGENT_INTAKE_LIMIT_H
#define TRAWL_AGENT_INTAKE_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#define INTAKE_PER_SECOND 50
#define INTAKE_BURST 200
#define INTAKE_USERS_MAX 64 /* more active at a time share one place: INTAKE_OTHERS */
#define INTAKE_OTHERS (UINT32_MAX - 1)

struct intake_user {
    bool is_used;
    uint32_t uid;
    uint64_t tokens_us; /* of time: one report costs 1 s / INTAKE_PER_SECOND */
    uint64_t seen_us, told_us;
    uint64_t taken;          /* since the start */
    uint64_t over, over_all; /* above the rate: not told yet, since the start */
    uint64_t over_us;        /* the last one */
    uint64_t bad, bad_all, bad_told_us;
    char reason[160]; /* of the last bad one */
};

struct intake_limit {
    struct intake_user users[INTAKE_USERS_MAX + 1]; /* the last: all others */
};

/* The user's place, with the datagram counted: as taken, or as over when *allowed is false. */
struct intake_user *intake_limit_take(struct intake_limit *limit, uint32_t uid, uint64_t now_us,
                                      bool *allowed);
void intake_limit_bad(struct intake_user *user, const char *reason);

#endif
