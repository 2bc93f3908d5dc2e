/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent may cost: a token bucket for bytes sent per second, and what was measured of the
 * agent itself. Pure. Called by upload and --self-test.
 */
#ifndef TRAWL_AGENT_BUDGET_H
#define TRAWL_AGENT_BUDGET_H

#include <stdint.h>

/* The product's promise for the whole agent (issue 2): said and compared in --self-test. */
#define BUDGET_CPU_PERCENT 0.15
#define BUDGET_PRIVATE_BYTES (4u * 1024 * 1024)
#define BUDGET_VALUES 1000

struct budget_rate {
    uint64_t bytes_per_s;
    uint64_t tokens; /* bytes that may go now */
    uint64_t at_us;
};
/* A second's worth may go at once. */
void budget_rate_init(struct budget_rate *rate, uint64_t bytes_per_s, uint64_t mono_us);
/* 0: taken. Otherwise how long to wait before asking again, in us. Never waits for more than is
 * possible: a request over one second's worth counts as one second's worth. */
uint64_t budget_rate_take(struct budget_rate *rate, uint64_t bytes, uint64_t mono_us);

#endif
