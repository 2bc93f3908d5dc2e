/* SPDX-License-Identifier: Apache-2.0 */
/* The cut-off: counts in, decisions out. See throws_rate.h. Called by throws_look.c. */
#include "agent/os/linux/throws_rate.h"

enum throws_act throws_rate_act(struct throws_rate *r, uint64_t now_us, uint64_t all)
{
    if (!r->armed)
        return now_us >= r->rest_until_us ? THROWS_ARM : THROWS_STAY;
    uint64_t lasts_us = now_us - r->window_us, came = all - r->window_all;
    if (r->peeking) {
        if (lasts_us < THROWS_PEEK_US)
            return THROWS_STAY;
        if (came > THROWS_PEEK_MAX)
            return THROWS_DISARM;
        r->peeking = false; /* the window goes on as an ordinary one */
    }
    if (came > THROWS_WINDOW_MAX) {
        r->cuts++;
        return THROWS_DISARM;
    }
    if (lasts_us >= THROWS_WINDOW_US) {
        r->window_us = now_us;
        r->window_all = all;
    }
    return THROWS_STAY;
}

void throws_rate_armed(struct throws_rate *r, uint64_t now_us, uint64_t all, bool first)
{
    if (!r->armed && r->off_since_us)
        r->off_us += now_us - r->off_since_us;
    r->armed = true;
    r->peeking = !first;
    r->off_since_us = 0;
    r->window_us = now_us;
    r->window_all = all;
}

void throws_rate_disarmed(struct throws_rate *r, uint64_t now_us)
{
    r->armed = false;
    r->peeking = false;
    r->off_since_us = now_us;
    r->rest_until_us = now_us + THROWS_REST_US;
}

bool throws_rate_is_calm(const struct throws_rate *r, uint64_t all)
{
    return !r->armed || (!r->peeking && all - r->window_all < THROWS_WINDOW_MAX / 4);
}

uint64_t throws_rate_off_us(const struct throws_rate *r, uint64_t now_us)
{
    return r->off_us + (r->off_since_us ? now_us - r->off_since_us : 0);
}
