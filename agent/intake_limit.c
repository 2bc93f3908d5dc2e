/* SPDX-License-Identifier: Apache-2.0 */
/* A token bucket for each user. See intake_limit.h. */
#include "agent/intake_limit.h"

#include <stddef.h>

#include "common/text.h"

#define COST_US (UINT64_C(1000000) / INTAKE_PER_SECOND)
#define FULL_US (COST_US * INTAKE_BURST)

/* One who has been quiet until his share was full again, and of whom nothing is to be told. */
static bool may_go(const struct intake_user *user, uint64_t now_us)
{
    return user->over == 0 && user->bad == 0 && now_us - user->seen_us >= FULL_US;
}

static struct intake_user *find(struct intake_limit *limit, uint32_t uid, uint64_t now_us)
{
    struct intake_user *free_place = NULL;
    for (size_t i = 0; i < INTAKE_USERS_MAX; i++) {
        struct intake_user *user = &limit->users[i];
        if (user->is_used && user->uid == uid)
            return user;
        if (!free_place && (!user->is_used || may_go(user, now_us)))
            free_place = user;
    }
    struct intake_user *user = free_place ? free_place : &limit->users[INTAKE_USERS_MAX];
    if (!free_place && user->is_used)
        return user;
    *user = (struct intake_user){.is_used = true,
                                 .uid = free_place ? uid : INTAKE_OTHERS,
                                 .tokens_us = FULL_US,
                                 .seen_us = now_us};
    return user;
}

struct intake_user *intake_limit_take(struct intake_limit *limit, uint32_t uid, uint64_t now_us,
                                      bool *allowed)
{
    struct intake_user *user = find(limit, uid, now_us);
    uint64_t passed_us = now_us - user->seen_us;
    uint64_t room_us = FULL_US - user->tokens_us;
    user->tokens_us += passed_us < room_us ? passed_us : room_us;
    user->seen_us = now_us;
    *allowed = user->tokens_us >= COST_US;
    if (*allowed) {
        user->tokens_us -= COST_US;
        user->taken++;
    } else {
        user->over++;
        user->over_all++;
        user->over_us = now_us;
    }
    return user;
}

void intake_limit_bad(struct intake_user *user, const char *reason)
{
    user->bad++;
    user->bad_all++;
    (void)text_copy(user->reason, sizeof user->reason, reason);
}
