/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process's own log in a window of time, from the journal and from the log files that it has
 * open. Invariant: each source gets its share of the room, what it leaves goes to those behind it,
 * and within a source the newest lines are kept. Called by the worker through os/logs.h.
 */
#include "agent/os/logs.h"

#include <string.h>
#include <unistd.h>

#include "agent/os/linux/logs_linux.h"
#include "common/text.h"

#define HEADER_SIZE (PROC_PATH_SIZE + 16)
/* Less room than this for a source is no use. */
#define SOURCE_LEAST 64
#define TEXT_LIMIT ((size_t)16 * 1024 * 1024)

struct capture {
    const char *root;
    const struct os_process *process;
    int64_t from_us, to_us;
    struct buf *out;
    char *missing;
    size_t size_bytes;
    size_t sources_left;
};

void logs_miss(char *missing, size_t size_bytes, const char *what, const char *why)
{
    size_t length = strlen(missing);
    (void)text_format(missing + length, size_bytes - length, "%s%s: %s", length ? "; " : "", what,
                      why);
}

static void miss(struct capture *c, const char *what, const char *why)
{
    logs_miss(c->missing, c->size_bytes, what, why);
}

/* ---- one source ---- */

typedef int (*source_fn)(struct capture *c, const struct logs_file *file,
                         struct logs_window *window, struct failure *f);

/* Reads a source into a buffer of its share, then appends it under its header. */
static int add_source(struct capture *c, const char *name, const struct logs_file *file,
                      source_fn read_source, struct failure *f)
{
    char header[HEADER_SIZE];
    struct buf lines;
    struct failure why;
    size_t share = (c->out->limit_bytes - c->out->size_bytes) / c->sources_left--;
    size_t before = c->out->size_bytes;
    (void)text_format(header, sizeof header, "==> %s <==\n", name);
    int result = text_append_safe(c->out, span_str(header), true);
    size_t used = c->out->size_bytes - before;
    if (result < 0 || share < used + SOURCE_LEAST) {
        c->out->size_bytes = before;
        miss(c, name, "no room");
        return 0;
    }
    buf_init(&lines, share - used);
    struct logs_window window = {.from_us = c->from_us, .to_us = c->to_us, .out = &lines};
    if (read_source(c, file, &window, &why) < 0)
        miss(c, name, why.text);
    if (window.cut)
        miss(c, name, "no room for its oldest lines");
    result = buf_append_span(c->out, buf_span(&lines));
    buf_done(&lines);
    return result < 0 ? fail(f, result, "log '%s': %s", name, err_text(result)) : 0;
}

static int read_journal(struct capture *c, const struct logs_file *file, struct logs_window *window,
                        struct failure *f)
{
    (void)file;
    return logs_read_journal(c->root, c->process, window, f);
}

static int read_file(struct capture *c, const struct logs_file *file, struct logs_window *window,
                     struct failure *f)
{
    return logs_read_file(file, window, c->missing, c->size_bytes, f);
}

/* ---- all ---- */

static int add_all(struct capture *c, bool journal, const struct logs_file *files, size_t count,
                   struct failure *f)
{
    int result = 0;
    c->sources_left = count + journal;
    if (journal)
        result = add_source(c, "journal", NULL, read_journal, f);
    for (size_t i = 0; i < count && result == 0; i++)
        result = add_source(c, files[i].path, &files[i], read_file, f);
    return result;
}

int logs_capture(const char *root, const struct os_process *process, int64_t from_us, int64_t to_us,
                 struct buf *out, char *missing, size_t size_bytes, struct failure *f)
{
    struct capture c = {root, process, from_us, to_us, out, missing, size_bytes, 0};
    struct logs_file files[LOGS_FILES_MAX];
    size_t before = out->size_bytes;
    missing[0] = '\0';
    bool journal = logs_has_journal(root);
    size_t count = logs_open_files(root, process, from_us, files, missing, size_bytes);
    int result = 0;
    if (!journal && count == 0)
        result = fail(f, ERR_NOTFOUND,
                      "no log of process %u: no journal, and no file that it writes is a log%s%s",
                      process->pid, missing[0] ? "; " : "", missing);
    else
        result = add_all(&c, journal, files, count, f);
    for (size_t i = 0; i < count; i++)
        close(files[i].fd);
    if (result < 0)
        out->size_bytes = before;
    return result;
}

int os_logs_capture(const struct os_take *take, const struct os_output *out,
                    struct os_result *result, struct failure *f)
{
    struct buf text;
    buf_init(&text, TEXT_LIMIT);
    int e = logs_capture("", &take->process, take->from_us, take->to_us, &text, result->missing,
                         sizeof result->missing, f);
    if (!e)
        e = os_output_file(out, "txt", buf_span(&text), f);
    buf_done(&text);
    return e;
}
