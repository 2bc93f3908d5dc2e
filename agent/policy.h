/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the owner of this host allows, from a file only the owner can write. It has the last word:
 * the agent asks it before it tries, and the broker, which alone has privileges, asks its own copy
 * again. Invariant: a file that is unsafe or cannot be understood allows nothing. Called by
 * capture, broker.
 */
#ifndef TRAWL_AGENT_POLICY_H
#define TRAWL_AGENT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

#define POLICY_PATH "/etc/trawl/policy.conf"
#define POLICY_LIST_SIZE 1024

struct policy {
    bool capture;                     /* no: this host takes part in no capture */
    char kinds[256];                  /* allowed kinds; empty: all */
    char processes[POLICY_LIST_SIZE]; /* globs of names that may be captured; empty: all */
    char never[POLICY_LIST_SIZE];     /* globs that may not, whatever `processes` says */
    int64_t pause_max_us;
    bool allow_pause;      /* an order's allow_pause counts: above OS_PAUSE_HARD_US, or held */
    int64_t window_max_us; /* looking back or ahead */
    uint64_t captures_per_hour;
    uint64_t max_processes; /* per order */
    char crash_memory[16];  /* none, dumpable or all; anything else means none */
};

void policy_defaults(struct policy *policy);
/*
 * Reads `path`; a file that is not there means the defaults. Any failure: ERR_REFUSED with a
 * sentence that says what the owner has to mend, and *policy allows nothing.
 */
int policy_load(struct policy *policy, const char *path, struct failure *f);

/* 0 or ERR_REFUSED with the sentence for the verdict. */
int policy_allows_kind(const struct policy *policy, const char *kind, struct failure *f);
int policy_allows_process(const struct policy *policy, const char *name, struct failure *f);
/* Whether memory of a crashed process may be read; `dumpable` as PR_GET_DUMPABLE (prctl(2)) has it.
 */
bool policy_allows_crash_memory(const struct policy *policy, uint32_t dumpable);
/* The smaller of what is asked and what is allowed. */
uint32_t policy_pause_max_us(const struct policy *policy, uint32_t asked_us);
/* Whether a pause of so long may be asked for at all: above OS_PAUSE_HARD_US only with an order's
 * allow_pause, and that only when the owner does not forbid it. 0 or ERR_REFUSED with the sentence.
 */
int policy_allows_pause(const struct policy *policy, uint32_t asked_us, bool allow_pause,
                        struct failure *f);
/* Appends a commented sample file. */
int policy_sample(struct buf *out);

/* At most `limit` captures in any hour. Embed; zeroed is empty. */
#define POLICY_HOUR_MAX 1024
struct policy_hour {
    uint64_t last_order; /* several requests of one order count once */
    uint32_t first, count;
    uint64_t at_us[POLICY_HOUR_MAX]; /* monotonic times, oldest at `first` */
};
int policy_hour_take(struct policy_hour *hour, const struct policy *policy, uint64_t order,
                     uint64_t mono_us, struct failure *f);

#endif
