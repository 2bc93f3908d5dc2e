/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings from one table: the row drives the file parser (INI, by inih), the command-line flag,
 * the help text and the sample file. Precedence: default, file, flag. An unknown or malformed
 * setting is an error that names file and line (or the flag), says what was wrong and what exists.
 */
#ifndef TRAWL_COMMON_CONF_H
#define TRAWL_COMMON_CONF_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

enum conf_type {
    CONF_STRING,      /* char[size_bytes] */
    CONF_BOOL,        /* bool; yes/no/true/false/on/off/1/0; a flag without value means yes */
    CONF_U64,         /* uint64_t */
    CONF_DURATION_US, /* int64_t */
    CONF_SIZE_BYTES,  /* uint64_t */
    CONF_LIST         /* char[size_bytes], repeated settings are joined by ',' */
};

#define CONF_ROWS_MAX 128

/* At most CONF_ROWS_MAX rows make a table. */
struct conf_row {
    const char *name; /* "data-dir": flag --data-dir, file key data-dir (or data_dir) */
    enum conf_type type;
    size_t offset;           /* offsetof(struct settings, member) */
    size_t size_bytes;       /* of the member, for CONF_STRING and CONF_LIST */
    uint64_t min, max;       /* inclusive, for numbers (durations in us) */
    const char *initial;     /* default in text form, NULL: empty, 0 or no */
    const char *placeholder; /* "DIR" in --help; NULL for a boolean */
    const char *help;        /* one line; NULL: not shown in --help */
    bool flag_only;          /* not a file setting */
};

/* Sets every member to its default. Asserts that the defaults are valid. */
void conf_defaults(const struct conf_row *rows, size_t count, void *settings);
/*
 * One setting; `where` ("agent.conf:12", "--port") goes into the failure text. A list is joined to
 * what is set already, except its default. ERR_INVALID with the member untouched.
 */
int conf_set(const struct conf_row *rows, size_t count, void *settings, const char *where,
             const char *name, const char *value, struct failure *f);
/*
 * The text of an INI file without sections; `path` goes into failure texts. A list's first setting
 * here replaces its default, the following ones are joined to it. On failure the lines before it
 * are already set. ERR_INVALID, ERR_NOMEM.
 */
int conf_parse(const struct conf_row *rows, size_t count, void *settings, struct span text,
               const char *path, struct failure *f);
/* Reads a file, at most CONF_FILE_MAX_BYTES, into conf_parse(). ERR_NOTFOUND, ERR_DENIED,
 * ERR_LIMIT. */
#define CONF_FILE_MAX_BYTES (1 << 20)
int conf_file(const struct conf_row *rows, size_t count, void *settings, const char *path,
              struct failure *f);
/*
 * Reads flags `--name value`, `--name=value`, `--no-name` (booleans) and, when `short_names` maps a
 * letter to a name, `-x value` and `-xvalue`. What is not a flag is kept: *argc/argv are left with
 * the remaining words (argv[0] among them, if it is the program's name). `--` ends flags. A list's
 * first flag replaces what the file said. A value may begin with one dash (-10m), not with two.
 */
struct conf_short {
    char letter;
    const char *name;
};
int conf_args(const struct conf_row *rows, size_t count, const struct conf_short *short_names,
              size_t short_count, void *settings, int *argc, char **argv, struct failure *f);
/* Appends one line per row: flag, placeholder, help, default. */
int conf_help(const struct conf_row *rows, size_t count, const struct conf_short *short_names,
              size_t short_count, struct buf *out);
/* Appends a sample file: every setting commented out with its default and help. */
int conf_sample(const struct conf_row *rows, size_t count, struct buf *out);

#endif
