/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of series being sampled: what each is, its samples of the block under way, why it has
 * gaps. Invariant: numbers (ids) rise and are never used twice within an epoch; slots are small and
 * are used again. Pure. Called by the sampler.
 */
#ifndef TRAWL_AGENT_SERIES_H
#define TRAWL_AGENT_SERIES_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/os/counters.h"
#include "proto/block.h"
#include "trawl.pb.h"

#define SERIES_SAMPLES 10 /* of one block */

struct series_table;

/* At most `limit` series at a time. */
int series_open(struct series_table **out, size_t limit);
void series_close(struct series_table *table);

/* As struct os_counter_sink wants them. define: ERR_LIMIT, ERR_NOMEM. */
int series_define(struct series_table *table, const struct os_counter *counter);
void series_value(struct series_table *table, int slot, int64_t value);
void series_gap(struct series_table *table, int slot, const char *reason);
void series_retire(struct series_table *table, int slot);

/* What is in a slot; strings are borrowed until the table changes. */
struct series_view {
    uint32_t id; /* rises, so that another series in the same slot is seen */
    const char *name, *instance, *unit;
    enum os_counter_kind kind;
    uint32_t scale, pid;
    bool is_retired;
    int64_t value;      /* of the newest sample; BLOCK_GAP: none */
    const char *reason; /* of the latest gap; NULL: none was given */
};
size_t series_slots(const struct series_table *table); /* slots are below */
/* False: the slot is free. */
bool series_look(const struct series_table *table, uint32_t slot, struct series_view *out);

/* Begins the next sample: every series has a gap in it until a value is set. Asserts that fewer
 * than SERIES_SAMPLES are there. `reason` for all of them, or NULL. */
void series_next_sample(struct series_table *table, const char *reason);
size_t series_samples(const struct series_table *table);
size_t series_count(const struct series_table *table);
/* Values set in the newest sample. */
size_t series_values_set(const struct series_table *table);

/* Rows for block_put(), ascending by id, at most `limit` from number `from_id` on; only series that
 * were there during the block. Borrowed until the next call. Returns how many. */
size_t series_rows(const struct series_table *table, uint32_t from_id, struct block_series *rows,
                   size_t limit);
/* The block was cut: samples are forgotten, retired series go. */
void series_clear(struct series_table *table);

/* Fills descriptors of series with an id above *after, at most 64, living ones only when
 * `living_only`; moves *after. Returns how many. */
size_t series_describe(const struct series_table *table, uint32_t *after, bool living_only,
                       trawl_v1_Descriptors *out);
uint32_t series_last_id(const struct series_table *table);

#endif
