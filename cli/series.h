/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Samples put together: what Operations.Counters sends in runs becomes one series per host,
 * counter, instance and process, on a grid of its step. Pure. Invariant: a sample that is not there
 * is NAN, and stays so through every sum, mean and rate; nothing is invented. Used by
 * cmd_counters.c and render_series.c.
 */
#ifndef TRAWL_CLI_SERIES_H
#define TRAWL_CLI_SERIES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "proto/codec.h"

#define SERIES_MAX_SAMPLES 1000000

struct series {
    char host[64], name[64], instance[64], unit[24];
    trawl_v1_Kind kind;
    uint32_t pid;
    int64_t from_us;
    uint32_t step_us;
    double *values; /* NAN: a gap */
    size_t count, capacity;
    int64_t skew_error_us; /* the largest */
    char gap_reason[160];  /* the first */
    bool is_rate;          /* per second */
};

struct series_set {
    struct series *list;
    size_t count, capacity;
};

struct series_summary {
    size_t present, gaps;
    double last, least, most, mean; /* NAN when nothing is present */
};

/* Takes a run, in any order. ERR_NOMEM, ERR_LIMIT, ERR_INVALID (no step, no descriptor). */
int series_add(struct series_set *set, const trawl_v1_Samples *samples);
void series_done(struct series_set *set); /* a zeroed struct is fine */
/* By counter, host, instance, pid. */
void series_sort(struct series_set *set);

/* Turns counts into increases per second; a step back (a restart) is a gap. Gauges stay. */
void series_rates(struct series_set *set);
/* Means over `step_us`, aligned to multiples of it; a bin without a sample is a gap. */
int series_resample(struct series_set *set, int64_t step_us);
/*
 * Sums all series of one host and counter into one without instance. Where one that began and has
 * not ended has a gap, so has the sum.
 */
int series_sum_by_host(struct series_set *set);

struct series_summary series_summarise(const struct series *s);

#endif
