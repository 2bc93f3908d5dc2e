/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token bucket. Called by upload before each piece.
 */
#include "agent/budget.h"

void budget_rate_init(struct budget_rate *rate, uint64_t bytes_per_s, uint64_t mono_us)
{
    *rate = (struct budget_rate){bytes_per_s, bytes_per_s, mono_us};
}

static void refill(struct budget_rate *rate, uint64_t mono_us)
{
    uint64_t passed_us = mono_us - rate->at_us;
    if (passed_us > 1000000)
        passed_us = 1000000;
    uint64_t more = (uint64_t)((double)rate->bytes_per_s * (double)passed_us / 1e6);
    if (more == 0)
        return; /* too short to count: let it add up */
    rate->tokens += more;
    if (rate->tokens > rate->bytes_per_s)
        rate->tokens = rate->bytes_per_s;
    rate->at_us = mono_us;
}

uint64_t budget_rate_take(struct budget_rate *rate, uint64_t bytes, uint64_t mono_us)
{
    refill(rate, mono_us);
    if (bytes > rate->bytes_per_s)
        bytes = rate->bytes_per_s;
    if (bytes <= rate->tokens) {
        rate->tokens -= bytes;
        return 0;
    }
    return (uint64_t)((double)(bytes - rate->tokens) * 1e6 / (double)rate->bytes_per_s) + 1;
}
