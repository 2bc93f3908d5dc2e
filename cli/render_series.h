/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series as a summary per series, as rows of time, as small plots, as JSON lines and CSV. Pure.
 * Invariant: a gap is '-' in tables, null in JSON and empty in CSV. Used by cmd_counters.c.
 */
#ifndef TRAWL_CLI_RENDER_SERIES_H
#define TRAWL_CLI_RENDER_SERIES_H

#include "cli/render.h"
#include "cli/series.h"

int render_series_summary(const struct series_set *set, bool wide, bool color, struct buf *out);
int render_series_times(const struct series_set *set, int64_t now_us, bool color, struct buf *out);
int render_series_plot(const struct series_set *set, unsigned columns, bool color, struct buf *out);
int render_series_json(const struct series *s, struct buf *out);
int render_series_csv(const struct series *s, bool title, struct buf *out);

const struct render_column *render_name_columns(size_t *count);
void render_name_row(struct render_table *t, const trawl_v1_CounterName *name);
int render_name_json(struct buf *out, const trawl_v1_CounterName *name);

#endif
