/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading of /proc's files, which have no size and may end at any moment. Invariant: everything
 * read is bounded by the caller's memory or by a count, and a failure names the path. Called
 * through procfs.h.
 */
#include "agent/os/linux/procfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"

static int fail_path(struct failure *f, int error, const char *path)
{
    int code = error == ENOENT || error == ESRCH ? ERR_GONE : err_from_errno(error);
    return fail_errno(f, code, error, "cannot read '%s'", path);
}

void proc_path(char *out, const char *root, uint32_t pid, const char *leaf)
{
    (void)text_format(out, PROC_PATH_SIZE, "%s/proc/%u/%s", root, pid, leaf);
}

static ssize_t read_retrying(int fd, void *data, size_t size_bytes)
{
    ssize_t got;
    do {
        got = read(fd, data, size_bytes);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* O_NONBLOCK: a recorded or hostile tree may hold a FIFO. */
static int open_for_reading(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

int proc_read(const char *path, void *data, size_t size_bytes, struct span *out, struct failure *f)
{
    int fd = open_for_reading(path);
    if (fd < 0)
        return fail_path(f, errno, path);
    size_t size = 0;
    ssize_t got = 1;
    while (size < size_bytes && got > 0) {
        got = read_retrying(fd, (uint8_t *)data + size, size_bytes - size);
        if (got > 0)
            size += (size_t)got;
    }
    int error = got < 0 ? errno : 0;
    close(fd);
    if (error)
        return fail_path(f, error, path);
    *out = span_of(data, size);
    return 0;
}

int proc_read_pid(const char *root, uint32_t pid, const char *leaf, void *data, size_t size_bytes,
                  struct span *out, struct failure *f)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, root, pid, leaf);
    return proc_read(path, data, size_bytes, out, f);
}

int proc_open_pid(uint32_t pid, const char *leaf, struct failure *f)
{
    char path[64];
    (void)text_format(path, sizeof path, "/proc/%u/%s", pid, leaf);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    int code = errno == ENOENT || errno == ESRCH ? ERR_GONE : err_from_errno(errno);
    return fail_errno(f, code, errno, "cannot open '%s'", path);
}

int proc_link(const char *path, char *out, size_t size_bytes, struct failure *f)
{
    ssize_t length = readlink(path, out, size_bytes - 1);
    if (length < 0)
        return fail_path(f, errno, path);
    out[length] = '\0';
    return 0;
}

int proc_link_pid(const char *root, uint32_t pid, const char *leaf, char *out, size_t size_bytes,
                  struct failure *f)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, root, pid, leaf);
    return proc_link(path, out, size_bytes, f);
}

/* ---- names ---- */

static int executable_name(const char *root, uint32_t pid, char *out)
{
    char target[PROC_PATH_SIZE];
    if (proc_link_pid(root, pid, "exe", target, sizeof target, NULL) < 0)
        return ERR_NOTFOUND;
    struct span path = span_str(target);
    if (proc_ends_with(path, " (deleted)"))
        path.size_bytes -= strlen(" (deleted)");
    return text_copy_span(out, OS_PROCESS_NAME_SIZE, proc_base_name(path));
}

static int argument_name(const char *root, uint32_t pid, char *out)
{
    char line[PROC_PATH_SIZE];
    struct span text, argument;
    if (proc_read_pid(root, pid, "cmdline", line, sizeof line, &text, NULL) < 0 ||
        text_take_until(&text, '\0', &argument) < 0)
        return ERR_NOTFOUND;
    return text_copy_span(out, OS_PROCESS_NAME_SIZE, proc_base_name(argument));
}

void proc_full_name(const char *root, uint32_t pid, const char *comm, char *out)
{
    (void)text_copy(out, OS_PROCESS_NAME_SIZE, comm);
    if (strlen(comm) < PROC_COMM_CUT)
        return;
    char name[OS_PROCESS_NAME_SIZE];
    if (executable_name(root, pid, name) == 0 && proc_starts_with(span_str(name), comm))
        (void)text_copy(out, OS_PROCESS_NAME_SIZE, name);
    else if (argument_name(root, pid, name) == 0 && proc_starts_with(span_str(name), comm))
        (void)text_copy(out, OS_PROCESS_NAME_SIZE, name);
}

bool proc_is_named(const char *root, uint32_t pid, const char *comm, const char *glob)
{
    char name[OS_PROCESS_NAME_SIZE];
    if (text_glob(glob, comm))
        return true;
    if (executable_name(root, pid, name) == 0 && text_glob(glob, name))
        return true;
    return argument_name(root, pid, name) == 0 && text_glob(glob, name);
}

bool proc_has_command(const char *root, uint32_t pid, const char *glob)
{
    char line[PROC_TEXT_SIZE];
    struct span text;
    if (proc_read_pid(root, pid, "cmdline", line, sizeof line, &text, NULL) < 0)
        return false;
    size_t length = text.size_bytes < sizeof line ? text.size_bytes : sizeof line - 1;
    while (length > 0 && line[length - 1] == '\0')
        length--; /* the end of the last argument */
    for (size_t i = 0; i < length; i++)
        line[i] = line[i] == '\0' ? ' ' : line[i];
    line[length] = '\0';
    return text_glob(glob, line);
}

/* ---- lines ---- */

/* Gives whole lines of `data`; returns how many bytes were used, or the callback's stop value. */
static int give_lines(struct span *data, proc_line_fn each, void *context)
{
    const uint8_t *end;
    while (data->size_bytes > 0 && (end = memchr(data->data, '\n', data->size_bytes)) != NULL) {
        size_t length = (size_t)(end - data->data);
        int stop = each(context, span_of(data->data, length));
        *data = span_of(end + 1, data->size_bytes - length - 1);
        if (stop != 0)
            return stop;
    }
    return 0;
}

int proc_each_line(const char *path, proc_line_fn each, void *context, struct failure *f)
{
    uint8_t buffer[2 * PROC_LINE_SIZE];
    size_t held = 0;
    bool cut = false; /* the beginning of this line was given already */
    int stop = 0;
    int fd = open_for_reading(path);
    if (fd < 0)
        return fail_path(f, errno, path);
    while (stop == 0) {
        ssize_t got = read_retrying(fd, buffer + held, sizeof buffer - held);
        if (got < 0)
            stop = fail_path(f, errno, path);
        if (got <= 0)
            break;
        struct span data = span_of(buffer, held + (size_t)got);
        if (cut) {
            const uint8_t *end = memchr(data.data, '\n', data.size_bytes);
            size_t skipped = end ? (size_t)(end - data.data) + 1 : data.size_bytes;
            data = span_of(data.data + skipped, data.size_bytes - skipped);
            cut = end == NULL;
        }
        stop = give_lines(&data, each, context);
        if (stop == 0 && data.size_bytes >= PROC_LINE_SIZE) {
            stop = each(context, span_of(data.data, PROC_LINE_SIZE));
            cut = true;
            data.size_bytes = 0;
        }
        memmove(buffer, data.data, data.size_bytes);
        held = data.size_bytes;
    }
    if (stop == 0 && held > 0)
        stop = each(context, span_of(buffer, held));
    close(fd);
    return stop;
}

/* ---- numeric directories ---- */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static int append_number(uint32_t **numbers, size_t *count, size_t *capacity, uint32_t number)
{
    if (BUF_GROW(*numbers, *count, capacity, 64))
        return ERR_NOMEM;
    (*numbers)[(*count)++] = number;
    return 0;
}

static int collect_numbers(DIR *dir, uint32_t **numbers, size_t *count, size_t limit)
{
    size_t capacity = 0;
    uint64_t number;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (text_u64_in(entry->d_name, 0, UINT32_MAX, &number) < 0)
            continue;
        if (*count >= limit)
            return ERR_LIMIT;
        if (append_number(numbers, count, &capacity, (uint32_t)number) < 0)
            return ERR_NOMEM;
    }
    return 0;
}

int proc_numbers(const char *path, uint32_t **out, size_t *count, size_t limit, struct failure *f)
{
    uint32_t *numbers = NULL;
    size_t found = 0;
    DIR *dir = opendir(path);
    if (!dir)
        return fail_path(f, errno, path);
    int result = collect_numbers(dir, &numbers, &found, limit);
    closedir(dir);
    if (result == ERR_NOMEM) {
        free(numbers);
        return fail(f, ERR_NOMEM, "out of memory reading '%s'", path);
    }
    if (found > 1)
        qsort(numbers, found, sizeof *numbers, compare_u32);
    *out = numbers;
    *count = found;
    return result == 0 ? 0 : fail(f, result, "more than %zu entries in '%s'", limit, path);
}
