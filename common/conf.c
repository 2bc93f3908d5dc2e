/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings from one table of rows; conf_help.c prints the same table. Invariant: a member is
 * written only with a value that was wholly understood and is in its row's range. Called by the
 * three main functions and the cli's commands. The only includer of ini.h (inih,
 * https://github.com/benhoyt/inih).
 */
#include "common/conf.h"

#include <assert.h>
#include <ini.h>
#include <string.h>

#include "common/port.h"
#include "common/text.h"

#define WHERE_SIZE 256
#define PATH_SHOWN_CHARACTERS 200
#define NAME_SIZE 64
#define RANGE_SIZE 160
#define KNOWN_SIZE 200

/* A table with the settings it is about. `seen`: rows that this file or command line has set. */
struct table {
    const struct conf_row *rows;
    size_t count;
    void *settings;
    struct failure *f;
    bool seen[CONF_ROWS_MAX];
};

static struct table table_of(const struct conf_row *rows, size_t count, void *settings,
                             struct failure *f)
{
    assert(count <= CONF_ROWS_MAX);
    return (struct table){.rows = rows, .count = count, .settings = settings, .f = f};
}

/* "data_dir" and "data-dir" are one name. */
static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if ((*a == '_' ? '-' : *a) != (*b == '_' ? '-' : *b))
            return false;
    return *a == *b;
}

static const struct conf_row *find_row(const struct table *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++)
        if (same_name(t->rows[i].name, name))
            return &t->rows[i];
    return NULL;
}

/* ---- values ---- */

struct unit {
    uint64_t factor;
    const char *name;
};

/* The value as a person would write it in the file: in the largest unit that divides it. */
static void put_in_units(uint64_t value, const struct unit *units, char *out, size_t size_bytes)
{
    while (units->factor > 1 && (value == 0 || value % units->factor != 0))
        units++;
    text_format(out, size_bytes, "%llu%s", (unsigned long long)(value / units->factor),
                units->name);
}

static void put_number(const struct conf_row *row, uint64_t value, char *out, size_t size_bytes)
{
    static const struct unit plain[] = {{1, ""}};
    static const struct unit durations[] = {
        {UINT64_C(86400000000), "d"},
        {UINT64_C(3600000000), "h"},
        {60000000, "m"},
        {1000000, "s"},
        {1000, "ms"},
        {1, "us"},
    };
    static const struct unit sizes[] = {
        {UINT64_C(1) << 40, "T"}, {1 << 30, "G"}, {1 << 20, "M"}, {1 << 10, "K"}, {1, ""},
    };
    const struct unit *units = row->type == CONF_DURATION_US  ? durations
                               : row->type == CONF_SIZE_BYTES ? sizes
                                                              : plain;
    put_in_units(value, units, out, size_bytes);
}

/* "a duration such as 10s, from 1s to 5m" */
static void put_expected(const struct conf_row *row, char *out, size_t size_bytes)
{
    const char *what = "a whole number";
    if (row->type == CONF_BOOL) {
        text_copy(out, size_bytes, "yes or no");
        return;
    }
    if (row->type == CONF_DURATION_US)
        what = "a duration such as 500ms, 10s, 5m";
    else if (row->type == CONF_SIZE_BYTES)
        what = "a size such as 4096, 64K, 2G";
    char min[32], max[32];
    put_number(row, row->min, min, sizeof min);
    put_number(row, row->max, max, sizeof max);
    text_format(out, size_bytes, "%s, from %s to %s", what, min, max);
}

static int parse_bool(const char *value, bool *out)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(value, words[i]) == 0) {
            *out = i % 2 == 1;
            return 0;
        }
    return ERR_INVALID;
}

static int set_bool(void *member, const char *value)
{
    bool b;
    if (parse_bool(value, &b) < 0)
        return ERR_INVALID;
    memcpy(member, &b, sizeof b);
    return 0;
}

/* Durations are never negative here, so that one unsigned range check serves all numbers. */
static int set_number(const struct conf_row *row, void *member, const char *value)
{
    uint64_t number = 0;
    int64_t us = 0;
    int r;
    if (row->type == CONF_DURATION_US) {
        r = text_duration_us(value, &us);
        number = (uint64_t)us;
    } else if (row->type == CONF_SIZE_BYTES) {
        r = text_size_bytes(value, &number);
    } else {
        r = text_u64(value, &number);
    }
    if (r < 0 || number < row->min || number > row->max)
        return ERR_INVALID;
    memcpy(member, &number, sizeof number);
    return 0;
}

static int set_string(const struct conf_row *row, char *member, const char *value)
{
    size_t length = strlen(value);
    if (length >= row->size_bytes)
        return ERR_LIMIT;
    memcpy(member, value, length + 1);
    return 0;
}

static int join_list(const struct conf_row *row, char *member, const char *value)
{
    size_t present = strlen(member), length = strlen(value);
    if (length == 0)
        return 0;
    if (present == 0)
        return set_string(row, member, value);
    if (present + 1 + length >= row->size_bytes)
        return ERR_LIMIT;
    member[present] = ',';
    memcpy(member + present + 1, value, length + 1);
    return 0;
}

static int set_member(const struct conf_row *row, void *member, const char *value, bool join)
{
    switch (row->type) {
    case CONF_BOOL:
        return set_bool(member, value);
    case CONF_U64:
    case CONF_DURATION_US:
    case CONF_SIZE_BYTES:
        return set_number(row, member, value);
    case CONF_LIST:
        if (join)
            return join_list(row, member, value);
        return set_string(row, member, value);
    case CONF_STRING:
        return set_string(row, member, value);
    }
    return ERR_INVALID;
}

static void *member_of(const struct table *t, const struct conf_row *row)
{
    return (char *)t->settings + row->offset;
}

static int set_row(struct table *t, const struct conf_row *row, const char *where,
                   const char *value, bool join)
{
    /* "at --port" says which setting it is; "at agent.conf:12" does not. */
    bool is_flag = where[0] == '-';
    int r = set_member(row, member_of(t, row), value, join);
    if (r == 0)
        return 0;
    char expected[RANGE_SIZE];
    if (r == ERR_LIMIT)
        text_format(expected, sizeof expected, "at most %zu characters", row->size_bytes - 1);
    else
        put_expected(row, expected, sizeof expected);
    return fail(t->f, ERR_INVALID, "invalid value '%.60s'%s%s%s at %s: expected %s", value,
                is_flag ? "" : " for '", is_flag ? "" : row->name, is_flag ? "" : "'", where,
                expected);
}

/* ---- names that do not exist ---- */

/* "a, b, c", cut at a whole name with "..." when there are too many. */
static void put_known(const char *const *names, const char *dashes, char *out, size_t size_bytes)
{
    size_t length = 0;
    out[0] = '\0';
    for (size_t i = 0; names[i]; i++) {
        size_t left = size_bytes - length;
        size_t wanted = strlen(names[i]) + strlen(dashes) + 2;
        if (wanted + sizeof ", ..." > left) {
            text_copy(out + length, left, ", ...");
            return;
        }
        text_format(out + length, left, "%s%s%s", i ? ", " : "", dashes, names[i]);
        length += strlen(out + length);
    }
}

static int fail_unknown(const struct table *t, const char *name, const char *where, bool is_flag)
{
    const char *names[CONF_ROWS_MAX + 1];
    size_t count = 0;
    for (size_t i = 0; i < t->count; i++)
        if (is_flag || !t->rows[i].flag_only)
            names[count++] = t->rows[i].name;
    names[count] = NULL;
    const char *dashes = is_flag ? "--" : "";
    char known[KNOWN_SIZE], hint[NAME_SIZE + 32] = "";
    put_known(names, dashes, known, sizeof known);
    const char *nearest = text_nearest(name, names);
    if (nearest)
        text_format(hint, sizeof hint, "; did you mean '%s%s'?", dashes, nearest);
    if (is_flag)
        return fail(t->f, ERR_INVALID, "unknown flag '%.40s'%s (known: %s)", where, hint, known);
    return fail(t->f, ERR_INVALID, "unknown setting '%.40s' at %s%s (known: %s)", name, where, hint,
                known);
}

/* ---- defaults and single settings ---- */

static void set_default(struct table *t, const struct conf_row *row)
{
    bool is_text = row->type == CONF_STRING || row->type == CONF_LIST;
    bool is_number = !is_text && row->type != CONF_BOOL;
    assert(!is_text || row->size_bytes > 0);
    assert(!is_number || (row->max > 0 && row->min <= row->max));
    assert(row->type != CONF_DURATION_US || row->max <= INT64_MAX);
    if (is_text)
        memset(member_of(t, row), 0, row->size_bytes);
    else
        memset(member_of(t, row), 0, is_number ? sizeof(uint64_t) : sizeof(bool));
    int r = row->initial ? set_member(row, member_of(t, row), row->initial, false) : 0;
    assert(r == 0);
}

void conf_defaults(const struct conf_row *rows, size_t count, void *settings)
{
    struct table t = table_of(rows, count, settings, NULL);
    for (size_t i = 0; i < count; i++)
        set_default(&t, &rows[i]);
}

static bool is_default_list(const struct conf_row *row, const void *member)
{
    return row->type == CONF_LIST && strcmp(member, row->initial ? row->initial : "") == 0;
}

int conf_set(const struct conf_row *rows, size_t count, void *settings, const char *where,
             const char *name, const char *value, struct failure *f)
{
    struct table t = table_of(rows, count, settings, f);
    const struct conf_row *row = find_row(&t, name);
    if (!row)
        return fail_unknown(&t, name, where, where[0] == '-');
    return set_row(&t, row, where, value, !is_default_list(row, member_of(&t, row)));
}

/* The first setting of a row in this source replaces, the next ones join (lists) or replace. */
static int set_seen(struct table *t, const struct conf_row *row, const char *where,
                    const char *value)
{
    bool *seen = &t->seen[row - t->rows];
    int r = set_row(t, row, where, value, *seen);
    if (r == 0)
        *seen = true;
    return r;
}

/* ---- files ---- */

/* A file on its way through inih. `code`: the first failure; nothing is read behind it. */
struct source {
    struct table table;
    const char *path;
    struct span rest;
    int line;
    int code;
    int failed_line;
};

static void put_where(const struct source *s, int line, char out[WHERE_SIZE])
{
    size_t length = strlen(s->path);
    const char *tail =
        s->path + (length > PATH_SHOWN_CHARACTERS ? length - PATH_SHOWN_CHARACTERS : 0);
    text_format(out, WHERE_SIZE, "%s:%d", tail, line);
}

static void stop(struct source *s, int code)
{
    s->code = code;
    s->failed_line = s->line;
}

static struct span without_indent(struct span line)
{
    while (line.size_bytes > 0 && (line.data[0] == ' ' || line.data[0] == '\t'))
        line = span_of(line.data + 1, line.size_bytes - 1);
    return line;
}

/*
 * inih's reader, like fgets(). It counts lines, because inih may be built without that. It takes
 * indentation away, because inih would join an indented setting to the value above it.
 */
static char *read_line(char *out, int size, void *context)
{
    struct source *s = context;
    struct span line;
    if (s->code < 0 || size < 3 || text_take_until(&s->rest, '\n', &line) < 0)
        return NULL;
    s->line++;
    line = without_indent(line);
    if (line.size_bytes > (size_t)size - 2) {
        char where[WHERE_SIZE];
        put_where(s, s->line, where);
        stop(s, fail(s->table.f, ERR_INVALID, "line too long at %s: expected at most %d characters",
                     where, size - 2));
        return NULL;
    }
    if (line.size_bytes > 0)
        memcpy(out, line.data, line.size_bytes);
    memcpy(out + line.size_bytes, "\n", 2);
    return out;
}

/* inih's handler: 1 goes on, 0 is an error. */
static int take_setting(void *context, const char *section, const char *name, const char *value)
{
    struct source *s = context;
    struct failure *f = s->table.f;
    char where[WHERE_SIZE];
    if (s->code < 0)
        return 0;
    put_where(s, s->line, where);
    const struct conf_row *row = find_row(&s->table, name);
    int r;
    if (section[0])
        r = fail(f, ERR_INVALID, "section '[%.40s]' above %s: expected settings only", section,
                 where);
    else if (!row)
        r = fail_unknown(&s->table, name, where, false);
    else if (row->flag_only)
        r = fail(f, ERR_INVALID, "'%s' at %s is a flag (--%s), not a setting of the file",
                 row->name, where, row->name);
    else
        r = set_seen(&s->table, row, where, value);
    if (r < 0)
        stop(s, r);
    return r == 0;
}

int conf_parse(const struct conf_row *rows, size_t count, void *settings, struct span text,
               const char *path, struct failure *f)
{
    struct source s = {.table = table_of(rows, count, settings, f), .path = path, .rest = text};
    if (text.size_bytes > 0 && memchr(text.data, '\0', text.size_bytes))
        return fail(f, ERR_INVALID, "cannot read '%s': not a text file", path);
    int r = ini_parse_stream(read_line, &s, take_setting, &s);
    if (r < 0)
        return fail(f, ERR_NOMEM, "cannot read '%s': out of memory", path);
    /* inih gives the first line it could not split, and goes on behind it. */
    if (r > 0 && (s.code == 0 || r < s.failed_line)) {
        char where[WHERE_SIZE];
        put_where(&s, r, where);
        return fail(f, ERR_INVALID, "unreadable line at %s: expected 'name = value'", where);
    }
    return s.code;
}

int conf_file(const struct conf_row *rows, size_t count, void *settings, const char *path,
              struct failure *f)
{
    struct buf text;
    buf_init(&text, CONF_FILE_MAX_BYTES);
    int r = port_read_file(path, &text, f);
    if (r == 0)
        r = conf_parse(rows, count, settings, buf_span(&text), path, f);
    buf_done(&text);
    return r;
}

/* ---- the command line ---- */

struct words {
    struct table table;
    const struct conf_short *short_names;
    size_t short_count;
    int count, at, kept;
    char **words;
};

/* A flag taken apart. `value` is NULL when it was not written in the same word. */
struct flag {
    const struct conf_row *row;
    const char *value;
    bool is_negated;
    char shown[NAME_SIZE];
};

static const struct conf_row *find_short(const struct words *w, char letter)
{
    for (size_t i = 0; i < w->short_count; i++)
        if (w->short_names[i].letter == letter)
            return find_row(&w->table, w->short_names[i].name);
    return NULL;
}

/* "-x", "-xvalue", "-x=value" */
static int split_short(const struct words *w, const char *word, struct flag *out)
{
    const struct conf_row *row = find_short(w, word[1]);
    if (!row || (row->type == CONF_BOOL && word[2]))
        return fail_unknown(&w->table, word + 1, word, true);
    *out = (struct flag){.row = row, .shown = {'-', word[1]}};
    if (word[2])
        out->value = word + 2 + (word[2] == '=');
    return 0;
}

/* "--name", "--name=value", "--no-name" */
static int split_long(const struct words *w, const char *word, struct flag *out)
{
    struct flag flag = {.row = NULL};
    size_t length = strcspn(word, "=");
    const char *name = flag.shown + 2;
    bool was_cut = text_copy_span(flag.shown, sizeof flag.shown, span_of(word, length)) < 0;
    flag.row = was_cut ? NULL : find_row(&w->table, name);
    if (!flag.row && strncmp(name, "no-", 3) == 0) {
        flag.row = find_row(&w->table, name + 3);
        flag.is_negated = true;
        if (flag.row && flag.row->type != CONF_BOOL)
            flag.row = NULL;
    }
    if (!flag.row)
        return fail_unknown(&w->table, name, flag.shown, true);
    flag.value = word[length] ? word + length + 1 : NULL;
    if (flag.is_negated && flag.value)
        return fail(w->table.f, ERR_INVALID, "unexpected value for '%s'", flag.shown);
    *out = flag;
    return 0;
}

/* The next word is the value; two dashes are more likely the next flag, after a forgotten value. */
static int take_value(struct words *w, struct flag *flag)
{
    if (flag->row->type == CONF_BOOL) {
        flag->value = flag->is_negated ? "no" : "yes";
        return 0;
    }
    const char *next = w->at < w->count ? w->words[w->at] : NULL;
    if (!next || strncmp(next, "--", 2) == 0) {
        const char *placeholder = flag->row->placeholder ? flag->row->placeholder : "VALUE";
        return fail(w->table.f, ERR_INVALID, "missing value for '%s': expected %s %s", flag->shown,
                    flag->shown, placeholder);
    }
    flag->value = next;
    w->at++;
    return 0;
}

static int take_flag(struct words *w, const char *word)
{
    struct flag flag = {.row = NULL};
    int r = word[1] == '-' ? split_long(w, word, &flag) : split_short(w, word, &flag);
    if (r < 0)
        return r;
    assert(flag.row);
    if (!flag.value)
        r = take_value(w, &flag);
    if (r == 0)
        r = set_seen(&w->table, flag.row, flag.shown, flag.value);
    return r;
}

static int take_words(struct words *w)
{
    bool ended = false;
    while (w->at < w->count) {
        char *word = w->words[w->at++];
        if (ended || word[0] != '-' || word[1] == '\0') {
            w->words[w->kept++] = word;
        } else if (strcmp(word, "--") == 0) {
            ended = true;
        } else {
            int r = take_flag(w, word);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

int conf_args(const struct conf_row *rows, size_t count, const struct conf_short *short_names,
              size_t short_count, void *settings, int *argc, char **argv, struct failure *f)
{
    struct words w = {
        .table = table_of(rows, count, settings, f),
        .short_names = short_names,
        .short_count = short_names ? short_count : 0,
        .count = *argc,
        .words = argv,
    };
    int r = take_words(&w);
    if (r < 0)
        return r;
    if (w.kept < w.count)
        argv[w.kept] = NULL;
    *argc = w.kept;
    return 0;
}
