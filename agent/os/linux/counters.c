/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of counters: opens the files of all topics once, reads each again with pread(2) every
 * second and hands its text to the topic's parser. Invariant: a file that cannot be read gives gaps
 * with its path and the reason; nothing here fails a sample. Called by the sampler through
 * os/counters.h.
 */
#include "agent/os/linux/counters_linux.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"

#define BUFFER_FIRST_BYTES (16u * 1024)
#define BUFFER_LIMIT_BYTES (8u * 1024 * 1024)

static const struct counter_topic *const topics[] = {
    &counters_cpu, &counters_memory, &counters_pressure, &counters_disk, &counters_net,
};

static const struct counter_row own_rows[] = {
    {NULL, "counters.left_out", "1", OS_GAUGE, 1},
};
static const struct group_type own_type = {own_rows, 1, 0, 1};

static const struct counter_file_type *counters_file_type(size_t number)
{
    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++) {
        if (number < topics[i]->count)
            return &topics[i]->files[number];
        number -= topics[i]->count;
    }
    return NULL;
}

/* ---- lines of keys and numbers ---- */

static int16_t find_row(const struct group_type *type, struct span key)
{
    for (size_t i = 0; i < type->row_count; i++)
        if (type->rows[i].key && span_equal(key, span_str(type->rows[i].key)))
            return (int16_t)i;
    return -1;
}

static struct span key_of(struct span line)
{
    size_t length = 0;
    while (length < line.size_bytes && line.data[length] != ':' && line.data[length] != ' ')
        length++;
    return span_of(line.data, length);
}

static void map_lines(struct counter_file *file, struct span text)
{
    struct span line;
    for (size_t i = 0; i < COUNTER_LINES_MAX; i++)
        file->map[i] = proc_take_line(&text, &line) < 0
                           ? (int16_t)-1
                           : find_row(file->groups[0].type, key_of(line));
    file->mapped = true;
}

/* False when a line does not hold the key that the map says. */
static bool give_lines(struct os_counters *c, struct counter_file *file, struct span text)
{
    const struct group_type *type = file->groups[0].type;
    struct instance *host = group_host(&file->groups[0]);
    struct span line;
    uint64_t value;
    for (size_t i = 0; i < COUNTER_LINES_MAX && proc_take_line(&text, &line) == 0; i++) {
        if (file->map[i] < 0)
            continue;
        size_t row = (size_t)file->map[i];
        size_t length = strlen(type->rows[row].key);
        if (!span_equal(key_of(line), span_of(type->rows[row].key, length)))
            return false;
        line = span_of(line.data + length, line.size_bytes - length);
        if (proc_starts_with(line, ":"))
            line = span_of(line.data + 1, line.size_bytes - 1);
        if (proc_take_number(&line, &value) == 0)
            counter_value(c, type, host, row, value);
    }
    return true;
}

/* The kernel keeps the order of lines, so that only their first reading searches for keys. */
void counters_parse_keyed(struct os_counters *c, struct counter_file *file, struct span text)
{
    if (file->mapped && give_lines(c, file, text))
        return;
    map_lines(file, text);
    (void)give_lines(c, file, text);
}

/* ---- files ---- */

static int file_init(struct counter_file *file, const struct counter_file_type *type,
                     const char *root)
{
    file->type = type;
    file->fd = -1;
    (void)text_format(file->path, sizeof file->path, "%s%s", root, type->path);
    (void)text_format(file->absent, sizeof file->absent, "not in '%s'", file->path);
    for (size_t i = 0; i < COUNTER_GROUPS_MAX; i++)
        if (type->groups[i].row_count > 0 && group_init(&file->groups[i], &type->groups[i]) < 0)
            return ERR_NOMEM;
    return 0;
}

static void file_done(struct counter_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    for (size_t i = 0; i < COUNTER_GROUPS_MAX; i++)
        if (file->groups[i].type)
            group_done(&file->groups[i]);
}

static void file_failed(struct os_counters *c, struct counter_file *file, int error)
{
    struct failure f;
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
    file->retry_us = c->mono_us + COUNTER_RETRY_US;
    (void)fail_errno(&f, ERR_IO, error, "cannot read '%s'", file->path);
    (void)text_copy(file->reason, sizeof file->reason, f.text);
}

static bool file_is_open(struct os_counters *c, struct counter_file *file)
{
    if (file->fd >= 0)
        return true;
    if (c->mono_us < file->retry_us)
        return false;
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0)
        file_failed(c, file, errno);
    return file->fd >= 0;
}

/* Reads the file whole into c->buffer, which grows until it fits. Returns 0 or an errno. */
static int read_whole(struct os_counters *c, int fd)
{
    uint8_t *room;
    buf_clear(&c->buffer);
    for (;;) {
        size_t free_bytes = c->buffer.capacity_bytes - c->buffer.size_bytes;
        if (free_bytes < BUFFER_FIRST_BYTES / 2)
            free_bytes = BUFFER_FIRST_BYTES;
        if (buf_reserve(&c->buffer, free_bytes, &room) < 0)
            return EFBIG;
        ssize_t got = pread(fd, room, free_bytes, (off_t)c->buffer.size_bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        if (got == 0)
            return 0;
        buf_commit(&c->buffer, (size_t)got);
    }
}

static void file_sample(struct os_counters *c, struct counter_file *file)
{
    int error = 0;
    bool readable = file_is_open(c, file);
    if (readable && (error = read_whole(c, file->fd)) != 0)
        file_failed(c, file, error);
    readable = readable && error == 0;
    if (readable)
        file->type->parse(c, file, buf_span(&c->buffer));
    for (size_t i = 0; i < COUNTER_GROUPS_MAX; i++) {
        if (!file->groups[i].type)
            continue;
        if (readable)
            group_end(c, &file->groups[i], file->absent);
        else
            group_gap(c, &file->groups[i], file->reason);
    }
}

/* ---- the reader ---- */

static int open_files(struct os_counters *c)
{
    size_t count = 0;
    while (counters_file_type(count))
        count++;
    assert(count > 0);
    c->files = calloc(count, sizeof *c->files);
    if (!c->files)
        return ERR_NOMEM;
    for (; c->file_count < count; c->file_count++) {
        struct counter_file *file = &c->files[c->file_count];
        if (file_init(file, counters_file_type(c->file_count), c->root) < 0) {
            file_done(file);
            return ERR_NOMEM;
        }
    }
    return group_init(&c->own, &own_type);
}

int os_counters_open(struct os_counters **out, const struct os_counter_settings *settings,
                     const struct os_counter_sink *sink, struct failure *f)
{
    const char *root = settings->root ? settings->root : "";
    struct os_counters *c = calloc(1, sizeof *c);
    if (!c)
        return fail(f, ERR_NOMEM, "out of memory for counters");
    int result;
    c->sink = *sink;
    buf_init(&c->buffer, BUFFER_LIMIT_BYTES);
    if (text_copy(c->root, sizeof c->root, root) < 0)
        result = fail(f, ERR_LIMIT, "path too long '%s'", root);
    else if (open_files(c) < 0)
        result = fail(f, ERR_NOMEM, "out of memory for counters");
    else if ((result = filesystems_open(&c->filesystems, c->root, f)) == 0)
        result = processes_open(&c->processes, c, settings, f);
    if (result < 0) {
        os_counters_close(c);
        return result;
    }
    *out = c;
    return 0;
}

void os_counters_close(struct os_counters *c)
{
    if (!c)
        return;
    processes_close(c->processes);
    filesystems_close(c->filesystems);
    group_done(&c->own);
    for (size_t i = 0; i < c->file_count; i++)
        file_done(&c->files[i]);
    free(c->files);
    buf_done(&c->buffer);
    free(c);
}

void os_counters_sample(struct os_counters *c, uint64_t mono_us)
{
    c->stamp = c->stamp == UINT32_MAX ? 1 : c->stamp + 1;
    c->mono_us = mono_us;
    c->left_out = 0;
    for (size_t i = 0; i < c->file_count; i++)
        file_sample(c, &c->files[i]);
    filesystems_sample(c, c->filesystems);
    processes_sample(c, c->processes);
    counter_value(c, &own_type, group_host(&c->own), 0, c->left_out + c->refused);
}
