/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counter block: columns of samples, cut by the agent, then kept in its ring, sent, stored and
 * decoded as the same bytes. Pure. Up to BLOCK_MAX_SAMPLES samples of each series, a fixed step
 * apart.
 *
 * Layout (version 1), numbers as varints unless said: version byte; series count; sample count;
 * then per series: id (difference to the one before), flags (1 constant, 2 has gaps), last,
 * minimum, maximum (zigzag; minimum and maximum as differences to last), the gap bitmap (if flag 2,
 * count bits, 1 = gap), then unless constant the zigzag differences between successive present
 * values, first against last; then the gap reasons: count, and per reason: index of series, length,
 * UTF-8 text. All of it packed by zstd when that is smaller: the first byte of the whole is 0
 * plain, 1 zstd.
 */
#ifndef TRAWL_PROTO_BLOCK_H
#define TRAWL_PROTO_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

#define BLOCK_MAX_SAMPLES 64
#define BLOCK_MAX_SERIES 8192
#define BLOCK_GAP INT64_MIN /* a sample that is not there */
#define BLOCK_REASON_SIZE 96

/* One series' samples; `reason` says why its gaps are gaps ("" when there are none). */
struct block_series {
    uint32_t id;           /* ascending within a block, > 0 */
    const int64_t *values; /* sample_count of them, BLOCK_GAP for a gap */
    const char *reason;
};

/*
 * Encodes and appends to `out`. Asserts the bounds above and ascending ids. *taken: how many of the
 * series fit into out's limit (series are left out from the end; call again for the rest); at least
 * one fits or ERR_LIMIT.
 */
int block_put(struct buf *out, const struct block_series *series, size_t series_count,
              size_t sample_count, size_t *taken);

/* Decoding: one series at a time; the view is valid during the callback. */
struct block_view {
    uint32_t id;
    size_t sample_count;
    int64_t last, minimum, maximum; /* of the present values; all BLOCK_GAP when none is present */
    size_t gap_count;
    const int64_t *values; /* sample_count, BLOCK_GAP for gaps */
    struct span reason;    /* empty when unknown */
};
/* Non-zero return stops and is returned. */
typedef int (*block_each_fn)(void *context, const struct block_view *view);
/* Damaged input: ERR_CORRUPT, or ERR_LIMIT (plain form over 4 MiB); callbacks may have been made.
 */
int block_each(struct span data, block_each_fn each, void *context, struct failure *f);
/* Number of series and samples, checked cheaply. */
int block_check(struct span data, size_t *series_count, size_t *sample_count, struct failure *f);

#endif
