/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a table of settings says of itself: the flags in --help and the sample file. Invariant: the
 * sample, with its settings made active, reads back as the defaults. A boolean that is on by
 * default is written "yes" in its row. Called by the main functions and the cli's commands. Pure.
 */
#include "common/conf.h"

#include <string.h>

#include "common/text.h"

#define LEFT_SIZE 96
#define COLUMN 30

static char short_of(const struct conf_row *row, const struct conf_short *short_names, size_t count)
{
    for (size_t i = 0; short_names && i < count; i++)
        if (strcmp(short_names[i].name, row->name) == 0)
            return short_names[i].letter;
    return '\0';
}

/* "  -l, --select SEL"; a boolean that is on by default shows the form that turns it off. */
static void put_left(const struct conf_row *row, char letter, char out[LEFT_SIZE])
{
    char shown[8] = "    ";
    bool is_on = row->type == CONF_BOOL && row->initial && strcmp(row->initial, "yes") == 0;
    if (letter)
        text_format(shown, sizeof shown, "-%c, ", letter);
    text_format(out, LEFT_SIZE, "  %s--%s%s%s%s", shown, is_on ? "no-" : "", row->name,
                row->placeholder ? " " : "", row->placeholder ? row->placeholder : "");
}

static int append_help_row(const struct conf_row *row, char letter, struct buf *out)
{
    char left[LEFT_SIZE];
    put_left(row, letter, left);
    bool is_long = strlen(left) >= COLUMN;
    int r = buf_printf(out, "%-*s%s%*s%s", COLUMN, left, is_long ? "\n" : "", is_long ? COLUMN : 0,
                       "", row->help);
    bool has_default = row->type != CONF_BOOL && row->initial && row->initial[0];
    if (r == 0 && has_default)
        r = buf_printf(out, " (default %s)", row->initial);
    return r < 0 ? r : buf_append_byte(out, '\n');
}

int conf_help(const struct conf_row *rows, size_t count, const struct conf_short *short_names,
              size_t short_count, struct buf *out)
{
    size_t start = out->size_bytes;
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++)
        if (rows[i].help)
            r = append_help_row(&rows[i], short_of(&rows[i], short_names, short_count), out);
    if (r < 0)
        out->size_bytes = start;
    return r;
}

static int append_sample_row(const struct conf_row *row, struct buf *out)
{
    int r = row->help ? buf_printf(out, "# %s\n", row->help) : 0;
    if (r < 0)
        return r;
    const char *initial = row->initial ? row->initial : row->type == CONF_BOOL ? "no" : "";
    return buf_printf(out, "#%s =%s%s\n\n", row->name, initial[0] ? " " : "", initial);
}

int conf_sample(const struct conf_row *rows, size_t count, struct buf *out)
{
    size_t start = out->size_bytes;
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++)
        if (!rows[i].flag_only)
            r = append_sample_row(&rows[i], out);
    if (r < 0)
        out->size_bytes = start;
    return r;
}
