/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables and short texts for people. Pure: rows in, bytes out; no terminal, no clock. Invariant:
 * every cell went through text_append_safe(), so nothing that a host said can move a cursor. A
 * table keeps its first error and appends nothing after it, so that it is asked once, by
 * render_table_put(). Used by every command that prints.
 */
#ifndef TRAWL_CLI_RENDER_H
#define TRAWL_CLI_RENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

#define RENDER_TEXT_SIZE 96
#define RENDER_GAP "-" /* a value that is not there; never 0 */

enum render_style { RENDER_PLAIN, RENDER_GOOD, RENDER_WARN, RENDER_BAD, RENDER_DIM, RENDER_BOLD };

struct render_column {
    const char *title;
    bool right; /* numbers */
};

struct render_cell {
    size_t offset, size_bytes, width;
    enum render_style style;
};

struct render_table {
    const struct render_column *columns; /* borrowed */
    size_t column_count;
    struct buf text;
    struct render_cell *cells;
    size_t cell_count, cell_capacity;
    int error;
};

void render_table_init(struct render_table *t, const struct render_column *columns, size_t count);
void render_table_done(struct render_table *t);
/* Forgets the rows. */
void render_table_clear(struct render_table *t);
/* The next cell, left to right, row by row. An empty text is shown as a gap. */
void render_cell(struct render_table *t, enum render_style style, const char *text);
void render_cellf(struct render_table *t, enum render_style style, const char *format, ...)
    TRAWL_PRINTF(3, 4);
size_t render_row_count(const struct render_table *t);
/* Appends the title line and the rows, two blanks between columns. The table's first error, or 0.
 */
int render_table_put(const struct render_table *t, bool color, struct buf *out);
/*
 * The same for rows that come one after the other: `widths` (one per column) are those of what was
 * printed before, and grow with these rows; the title line only with `titled`.
 */
int render_table_put_more(const struct render_table *t, size_t *widths, bool titled, bool color,
                          struct buf *out);

/* Appends `text` in a style (colour only if `color`), made safe, padded to `width` columns. */
int render_styled(struct buf *out, enum render_style style, bool color, const char *text,
                  size_t width);
/* Columns that a safe text takes: one per character (RFC 3629), whatever its script. */
size_t render_width(struct span text);

/* Short forms; `out` holds RENDER_TEXT_SIZE bytes. */
void render_clock(int64_t us, int64_t now_us, char *out); /* "14:02:05", other days with a date */
void render_ago(int64_t us, int64_t now_us, char *out);   /* "2.1 s ago"; a gap for 0 */
void render_skew(int64_t skew_us, int64_t error_us, char *out); /* "+0.3 ms ±0.1 ms" */
/* A rate or value of a unit: sizes for "bytes", durations for "us", else the plain number. */
void render_value(double value, const char *unit, char *out);

/* a - b and seconds as microseconds; at the ends of the range they stay there: any number may come.
 */
int64_t render_difference(int64_t a, int64_t b);
int64_t render_seconds_us(int64_t seconds);

/* "[=====>    ]" of `width` columns between the brackets. */
int render_bar(struct buf *out, uint64_t done, uint64_t all, unsigned width);
/* One block character per column; `gaps` marks values that are not there, shown as a blank. */
int render_sparkline(struct buf *out, const double *values, const bool *gaps, size_t count,
                     size_t width);

#endif
