/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of page lists. A list's name says whose it is: PID.START.NO.SIZE.INCIDENT; one that is
 * being written is called `new`. Called on the loop thread: small writes into the page cache.
 */
#include "agent/pages.h"

#include <string.h>
#include <uv.h>

#include "common/port.h"
#include "common/text.h"

#define NEW_NAME "new"

struct name {
    uint64_t pid, start_ticks, no, size_bytes;
    char incident[PAGES_INCIDENT_SIZE];
};

static int take_number(struct span *rest, uint64_t *out)
{
    struct span word;
    if (text_take_until(rest, '.', &word) || text_take_u64(&word, out))
        return ERR_INVALID;
    return word.size_bytes == 0 ? 0 : ERR_INVALID;
}

static bool parse_name(const char *text, struct name *out)
{
    struct span rest = span_str(text);
    return take_number(&rest, &out->pid) == 0 && take_number(&rest, &out->start_ticks) == 0 &&
           take_number(&rest, &out->no) == 0 && take_number(&rest, &out->size_bytes) == 0 &&
           rest.size_bytes > 0 && text_copy_span(out->incident, sizeof out->incident, rest) == 0;
}

static void path_of(const char *directory, const char *name, char out[PAGES_PATH_SIZE])
{
    (void)text_format(out, PAGES_PATH_SIZE, "%s/%s", directory, name);
}

static void remove_file(const char *directory, const char *name)
{
    char path[PAGES_PATH_SIZE];
    uv_fs_t request;
    path_of(directory, name, path);
    uv_fs_unlink(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
}

static uint64_t time_of(const char *directory, const char *name)
{
    char path[PAGES_PATH_SIZE];
    uv_fs_t request;
    path_of(directory, name, path);
    uint64_t time = 0;
    if (uv_fs_stat(NULL, &request, path, NULL) == 0)
        time = (uint64_t)request.statbuf.st_mtim.tv_sec * 1000000 +
               (uint64_t)request.statbuf.st_mtim.tv_nsec / 1000;
    uv_fs_req_cleanup(&request);
    return time;
}

/* Calls for every list, until one returns non-zero. (The listing is read to its end all the same:
 * libuv 1.44 forgets the last entry otherwise.) */
static void each(const char *directory,
                 int (*call)(void *context, const char *text, const struct name *name),
                 void *context)
{
    uv_fs_t scan;
    uv_dirent_t entry;
    struct name name;
    int e = 0;
    if (uv_fs_scandir(NULL, &scan, directory, 0, NULL) >= 0)
        while (uv_fs_scandir_next(&scan, &entry) == 0)
            if (!e && parse_name(entry.name, &name))
                e = call(context, entry.name, &name);
    uv_fs_req_cleanup(&scan);
}

/* ---- finding ---- */

struct search {
    const struct os_process *process;
    const char *directory;
    char text[PAGES_PATH_SIZE];
    struct name name;
    bool found;
};

static bool is_of(const struct name *name, const struct os_process *process)
{
    return name->pid == process->pid && name->start_ticks == process->start_ticks;
}

static int look(void *context, const char *text, const struct name *name)
{
    struct search *s = context;
    if (!is_of(name, s->process))
        return 0;
    s->name = *name;
    s->found = text_copy(s->text, sizeof s->text, text) == 0;
    return s->found;
}

int pages_find(const char *directory, const struct os_process *process, struct pages_base *base)
{
    struct search s = {.process = process, .directory = directory};
    char path[PAGES_PATH_SIZE];
    uv_fs_t request;
    each(directory, look, &s);
    if (!s.found)
        return -1;
    path_of(directory, s.text, path);
    int file = uv_fs_open(NULL, &request, path, UV_FS_O_RDONLY, 0, NULL);
    uv_fs_req_cleanup(&request);
    if (file < 0)
        return -1;
    text_copy(base->incident, sizeof base->incident, s.name.incident);
    base->no = (uint32_t)s.name.no;
    base->size_bytes = s.name.size_bytes;
    return file;
}

static int forget(void *context, const char *text, const struct name *name)
{
    const struct search *s = context;
    if (is_of(name, s->process))
        remove_file(s->directory, text);
    return 0;
}

void pages_forget(const char *directory, const struct os_process *process)
{
    struct search s = {.process = process, .directory = directory};
    each(directory, forget, &s);
}

/* ---- keeping ---- */

int pages_begin(struct pages *pages, const char *directory, const struct os_process *process,
                struct failure *f)
{
    char path[PAGES_PATH_SIZE];
    uv_fs_t request;
    *pages = (struct pages){.file = -1, .process = *process};
    int e = port_make_dirs(directory, f);
    if (e)
        return e;
    text_copy(pages->directory, sizeof pages->directory, directory);
    path_of(directory, NEW_NAME, path);
    int file = uv_fs_open(NULL, &request, path, UV_FS_O_WRONLY | UV_FS_O_CREAT | UV_FS_O_TRUNC,
                          0600, NULL);
    uv_fs_req_cleanup(&request);
    if (file < 0)
        return fail(f, ERR_IO, "cannot create '%s': %s", path, uv_strerror(file));
    pages->file = file;
    return 0;
}

int pages_write(struct pages *pages, struct span bytes, struct failure *f)
{
    pages->size_bytes += bytes.size_bytes;
    if (pages->size_bytes > PAGES_BYTES_MAX)
        return fail(f, ERR_LIMIT, "list of pages is too long");
    while (bytes.size_bytes > 0) {
        uv_fs_t request;
        uv_buf_t piece = uv_buf_init((char *)bytes.data, (unsigned)bytes.size_bytes);
        int n = uv_fs_write(NULL, &request, pages->file, &piece, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        if (n <= 0)
            return fail(f, n == UV_ENOSPC ? ERR_FULL : ERR_IO, "cannot keep the list of pages: %s",
                        uv_strerror(n));
        bytes = span_of(bytes.data + n, bytes.size_bytes - (size_t)n);
    }
    return 0;
}

struct oldest {
    const char *directory;
    char text[PAGES_PATH_SIZE];
    uint64_t time;
    size_t count;
};

static int count_and_age(void *context, const char *text, const struct name *name)
{
    struct oldest *o = context;
    uint64_t time = time_of(o->directory, text);
    (void)name;
    if (o->count++ == 0 || time < o->time) {
        o->time = time;
        text_copy(o->text, sizeof o->text, text);
    }
    return 0;
}

static void remove_oldest(const char *directory)
{
    struct oldest o;
    do {
        o = (struct oldest){.directory = directory};
        each(directory, count_and_age, &o);
        if (o.count >= PAGES_KEPT)
            remove_file(directory, o.text);
    } while (o.count > PAGES_KEPT);
}

int pages_keep(struct pages *pages, const struct pages_base *base, struct failure *f)
{
    char from[PAGES_PATH_SIZE], to[PAGES_PATH_SIZE], name[96];
    uv_fs_t request;
    port_close(pages->file);
    pages->file = -1;
    pages_forget(pages->directory, &pages->process);
    remove_oldest(pages->directory);
    int e = text_format(name, sizeof name, "%u.%llu.%u.%llu.%s", pages->process.pid,
                        (unsigned long long)pages->process.start_ticks, base->no,
                        (unsigned long long)base->size_bytes, base->incident);
    path_of(pages->directory, NEW_NAME, from);
    path_of(pages->directory, name, to);
    int n = e < 0 ? UV_EINVAL : uv_fs_rename(NULL, &request, from, to, NULL);
    if (e >= 0)
        uv_fs_req_cleanup(&request);
    return n ? fail(f, ERR_IO, "cannot keep the list of pages: %s", uv_strerror(n)) : 0;
}

void pages_drop(struct pages *pages)
{
    if (pages->file < 0)
        return;
    port_close(pages->file);
    pages->file = -1;
    remove_file(pages->directory, NEW_NAME);
}
