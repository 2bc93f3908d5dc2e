/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables, bars and short texts. Invariant: cells are stored safe, with their width, in the order in
 * which they will be printed; colour is added around a cell and never counted. Pure; called by the
 * commands and by render_*.c.
 */
#include "cli/render.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define TABLE_LIMIT (256u << 20)
#define FIRST_CELLS 64
#define SECOND_US INT64_C(1000000)
#define DAY_US (86400 * SECOND_US)

/* ---- tables ---- */

void render_table_init(struct render_table *t, const struct render_column *columns, size_t count)
{
    *t = (struct render_table){.columns = columns, .column_count = count};
    buf_init(&t->text, TABLE_LIMIT);
}

void render_table_done(struct render_table *t)
{
    buf_done(&t->text);
    free(t->cells);
    t->cells = NULL;
    t->cell_count = t->cell_capacity = 0;
}

void render_table_clear(struct render_table *t)
{
    buf_clear(&t->text);
    t->cell_count = 0;
    t->error = 0;
}

size_t render_width(struct span text)
{
    size_t width = 0;
    for (size_t i = 0; i < text.size_bytes; i++)
        width += (text.data[i] & 0xC0) != 0x80;
    return width;
}

void render_cell(struct render_table *t, enum render_style style, const char *text)
{
    if (t->error)
        return;
    size_t offset = t->text.size_bytes;
    int r = BUF_GROW(t->cells, t->cell_count, &t->cell_capacity, FIRST_CELLS);
    if (r == 0)
        r = text_append_safe(&t->text, span_str(text[0] ? text : RENDER_GAP), false);
    if (r < 0) {
        t->error = r;
        return;
    }
    struct span cell = span_of(t->text.data + offset, t->text.size_bytes - offset);
    t->cells[t->cell_count++] = (struct render_cell){
        .offset = offset,
        .size_bytes = cell.size_bytes,
        .width = render_width(cell),
        .style = style,
    };
}

void render_cellf(struct render_table *t, enum render_style style, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    render_cell(t, style, length < 0 ? "" : text);
}

size_t render_row_count(const struct render_table *t)
{
    return t->cell_count / t->column_count;
}

static const char *style_on(enum render_style style)
{
    switch (style) {
    case RENDER_GOOD:
        return "\033[32m";
    case RENDER_WARN:
        return "\033[33m";
    case RENDER_BAD:
        return "\033[31m";
    case RENDER_DIM:
        return "\033[2m";
    case RENDER_BOLD:
        return "\033[1m";
    case RENDER_PLAIN:
        break;
    }
    return "";
}

static int append_blanks(struct buf *out, size_t count)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++)
        r = buf_append_byte(out, ' ');
    return r;
}

/* `text` is safe already. */
static int append_padded(struct buf *out, enum render_style style, bool color, struct span text,
                         size_t before, size_t after)
{
    bool colored = color && style != RENDER_PLAIN;
    int r = append_blanks(out, before);
    if (r == 0 && colored)
        r = buf_append_str(out, style_on(style));
    if (r == 0)
        r = buf_append_span(out, text);
    if (r == 0 && colored)
        r = buf_append_str(out, "\033[0m");
    return r < 0 ? r : append_blanks(out, after);
}

static size_t column_width(const struct render_table *t, size_t column)
{
    size_t width = render_width(span_str(t->columns[column].title));
    for (size_t i = column; i < t->cell_count; i += t->column_count)
        if (t->cells[i].width > width)
            width = t->cells[i].width;
    return width;
}

/* The last column is not padded, so that lines have no blanks at their end. */
static int append_cell(const struct render_table *t, size_t column, size_t width,
                       struct render_cell cell, const uint8_t *base, bool color, struct buf *out)
{
    bool is_last = column + 1 == t->column_count;
    bool is_blank = cell.size_bytes == 1 && base[cell.offset] == ' ';
    if (is_last && is_blank) {
        while (out->size_bytes > 0 && out->data[out->size_bytes - 1] == ' ')
            out->size_bytes--;
        return buf_append_byte(out, '\n');
    }
    size_t pad = width - cell.width;
    bool right = t->columns[column].right;
    int r = append_padded(out, cell.style, color, span_of(base + cell.offset, cell.size_bytes),
                          right ? pad : 0, right || is_last ? 0 : pad);
    return r < 0 ? r : buf_append_str(out, is_last ? "\n" : "  ");
}

static int append_titles(const struct render_table *t, const size_t *widths, bool color,
                         struct buf *out)
{
    int r = 0;
    for (size_t c = 0; r == 0 && c < t->column_count; c++) {
        struct span title = span_str(t->columns[c].title);
        struct render_cell cell = {
            .size_bytes = title.size_bytes, .width = render_width(title), .style = RENDER_BOLD};
        r = append_cell(t, c, widths[c], cell, title.data, color, out);
    }
    return r;
}

int render_table_put_more(const struct render_table *t, size_t *widths, bool titled, bool color,
                          struct buf *out)
{
    if (t->error)
        return t->error;
    assert(t->cell_count % t->column_count == 0);
    for (size_t c = 0; c < t->column_count; c++) {
        size_t width = column_width(t, c);
        widths[c] = width > widths[c] ? width : widths[c];
    }
    int r = titled ? append_titles(t, widths, color, out) : 0;
    for (size_t i = 0; r == 0 && i < t->cell_count; i++) {
        size_t c = i % t->column_count;
        r = append_cell(t, c, widths[c], t->cells[i], t->text.data, color, out);
    }
    return r;
}

int render_table_put(const struct render_table *t, bool color, struct buf *out)
{
    if (t->error)
        return t->error;
    size_t *widths = calloc(t->column_count, sizeof *widths);
    if (!widths)
        return ERR_NOMEM;
    int r = render_table_put_more(t, widths, true, color, out);
    free(widths);
    return r;
}

int render_styled(struct buf *out, enum render_style style, bool color, const char *text,
                  size_t width)
{
    struct buf safe;
    buf_init(&safe, TABLE_LIMIT);
    int r = text_append_safe(&safe, span_str(text), false);
    size_t taken = render_width(buf_span(&safe));
    if (r == 0)
        r = append_padded(out, style, color, buf_span(&safe), 0, width > taken ? width - taken : 0);
    buf_done(&safe);
    return r;
}

/* ---- short texts ---- */

void render_clock(int64_t us, int64_t now_us, char *out)
{
    char text[48];
    if (us == 0) {
        text_copy(out, RENDER_TEXT_SIZE, RENDER_GAP);
        return;
    }
    text_put_time(us, text, sizeof text); /* 2026-11-23T14:02:05.123Z */
    text[10] = ' ';
    text[19] = '\0';
    bool is_today = us / DAY_US == now_us / DAY_US;
    text_copy(out, RENDER_TEXT_SIZE, is_today ? text + 11 : text);
}

int64_t render_difference(int64_t a, int64_t b)
{
    if (b < 0 && a > INT64_MAX + b)
        return INT64_MAX;
    if (b > 0 && a < INT64_MIN + b)
        return INT64_MIN;
    return a - b;
}

int64_t render_seconds_us(int64_t seconds)
{
    if (seconds > INT64_MAX / SECOND_US)
        return INT64_MAX;
    return seconds < INT64_MIN / SECOND_US ? INT64_MIN : seconds * SECOND_US;
}

void render_ago(int64_t us, int64_t now_us, char *out)
{
    char text[32];
    if (us == 0) {
        text_copy(out, RENDER_TEXT_SIZE, RENDER_GAP);
        return;
    }
    text_put_duration(now_us > us ? render_difference(now_us, us) : 0, text, sizeof text);
    text_format(out, RENDER_TEXT_SIZE, "%s ago", text);
}

void render_skew(int64_t skew_us, int64_t error_us, char *out)
{
    char skew[32], error[32];
    text_put_duration(skew_us, skew, sizeof skew);
    text_put_duration(error_us, error, sizeof error);
    text_format(out, RENDER_TEXT_SIZE, "%s%s ±%s", skew_us > 0 ? "+" : "", skew, error);
}

static void render_number(double value, char *out)
{
    bool is_whole = fabs(value) < 1e15 && value == (double)(int64_t)value;
    text_format(out, RENDER_TEXT_SIZE,
                is_whole             ? "%.0f"
                : fabs(value) < 1000 ? "%.3g"
                                     : "%.6g",
                value);
}

void render_value(double value, const char *unit, char *out)
{
    bool fits = fabs(value) < 9e18;
    if (fits && value >= 0 && strcmp(unit, "bytes") == 0)
        text_put_size((uint64_t)value, out, RENDER_TEXT_SIZE);
    else if (fits && strcmp(unit, "us") == 0)
        text_put_duration((int64_t)value, out, RENDER_TEXT_SIZE);
    else
        render_number(value, out);
}

/* ---- pictures ---- */

int render_bar(struct buf *out, uint64_t done, uint64_t all, unsigned width)
{
    unsigned filled = width;
    if (done < all)
        filled = (unsigned)((double)done / (double)all * width);
    int r = buf_append_byte(out, '[');
    for (unsigned i = 0; r == 0 && i < width; i++) {
        bool is_tip = i == filled && done > 0;
        r = buf_append_byte(out, i < filled ? '=' : is_tip ? '>' : ' ');
    }
    return r < 0 ? r : buf_append_byte(out, ']');
}

/* The mean of what one column stands for; false when nothing of it is there. */
static bool column_mean(const double *values, const bool *gaps, size_t from, size_t to,
                        double *mean)
{
    double sum = 0;
    size_t present = 0;
    for (size_t i = from; i < to; i++)
        if (!gaps[i]) {
            sum += values[i];
            present++;
        }
    if (present == 0)
        return false;
    *mean = sum / (double)present;
    return true;
}

static const char *block_of(double value, double least, double most)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    double share = most > least ? (value - least) / (most - least) : 0;
    int level = (int)(share * 7.999);
    return blocks[level < 0 ? 0 : level > 7 ? 7 : level];
}

int render_sparkline(struct buf *out, const double *values, const bool *gaps, size_t count,
                     size_t width)
{
    size_t columns = count < width ? count : width;
    double least = 0, most = 0, mean;
    bool any = false;
    for (size_t c = 0; c < columns; c++)
        if (column_mean(values, gaps, c * count / columns, (c + 1) * count / columns, &mean)) {
            least = !any || mean < least ? mean : least;
            most = !any || mean > most ? mean : most;
            any = true;
        }
    int r = 0;
    for (size_t c = 0; r == 0 && c < columns; c++) {
        bool is = column_mean(values, gaps, c * count / columns, (c + 1) * count / columns, &mean);
        r = buf_append_str(out, is ? block_of(mean, least, most) : " ");
    }
    return r;
}
