/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When the probe comes too dear: above THROWS_PER_SECOND, judged in windows of 0.2 s, it is taken
 * away at once and set again for a peek of 10 ms in each second until the throws have become rare.
 * A throw that meets it costs 15 us more, so the process never loses more than about 1 %. Pure: a
 * clock and a count in, a decision out. Called by throws_look.c.
 */
#ifndef TRAWL_AGENT_OS_LINUX_THROWS_RATE_H
#define TRAWL_AGENT_OS_LINUX_THROWS_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/os/throws.h"

#define THROWS_WINDOW_US 200000
#define THROWS_WINDOW_MAX (OS_THROWS_PER_SECOND * THROWS_WINDOW_US / 1000000)
#define THROWS_PEEK_US 10000
#define THROWS_PEEK_MAX (OS_THROWS_PER_SECOND * THROWS_PEEK_US / 1000000)
#define THROWS_REST_US 1000000

enum throws_act { THROWS_STAY, THROWS_ARM, THROWS_DISARM };

struct throws_rate {
    bool armed, peeking;
    uint64_t window_us, window_all; /* when the window began, and the count then */
    uint64_t rest_until_us;
    uint64_t off_since_us, off_us; /* without the probe: now since; all before */
    uint32_t cuts;                 /* how often throws became too many */
};

/* What to do; `all` is the count of throws so far. */
enum throws_act throws_rate_act(struct throws_rate *rate, uint64_t now_us, uint64_t all);
/* It has been done. `first`: not after a cut-off. */
void throws_rate_armed(struct throws_rate *rate, uint64_t now_us, uint64_t all, bool first);
void throws_rate_disarmed(struct throws_rate *rate, uint64_t now_us);
/* Whether so few came of late that there is time for slow work. */
bool throws_rate_is_calm(const struct throws_rate *rate, uint64_t all);
/* How long there was no probe, in all. */
uint64_t throws_rate_off_us(const struct throws_rate *rate, uint64_t now_us);

#endif
