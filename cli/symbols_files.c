/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking for files with symbols. Invariant: only regular files are opened; depth and number are
 * limited. Called by cmd_symbols.c.
 */
#include "cli/symbols_files.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "cli/file.h"
#include "common/text.h"

#define PATH_SIZE 4096
#define FIRST_CAPACITY 64
#define S_TYPE 0170000u /* st_mode (stat(2)) as libuv gives it everywhere */
#define S_FILE 0100000u
#define S_FOLDER 0040000u

const char *symbols_state_name(enum symbols_state state)
{
    static const char *const names[] = {"unsent", "added", "as good", "refused"};
    return names[state];
}

void symbols_files_done(struct symbols_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->list[i].path);
    free(files->list);
    *files = (struct symbols_files){.list = NULL};
}

static bool is_better(const struct elf_file *a, const struct elf_file *b)
{
    return a->has_lines != b->has_lines ? a->has_lines : a->functions > b->functions;
}

static struct symbols_file *find(struct symbols_files *files, const struct elf_file *elf)
{
    for (size_t i = 0; i < files->count; i++) {
        struct symbols_file *at = &files->list[i];
        if (at->state != SYMBOLS_REFUSED && at->elf.build_id_bytes == elf->build_id_bytes &&
            memcmp(at->elf.build_id, elf->build_id, elf->build_id_bytes) == 0)
            return at;
    }
    return NULL;
}

static int push(struct symbols_files *files, const struct symbols_file *file, struct failure *f)
{
    if (files->count == SYMBOLS_FILES_LIMIT)
        return fail(f, ERR_LIMIT,
                    "more than %d files with symbols: name a directory with fewer of them",
                    SYMBOLS_FILES_LIMIT);
    if (BUF_GROW(files->list, files->count, &files->capacity, FIRST_CAPACITY))
        return fail(f, ERR_NOMEM, "out of memory");
    files->list[files->count++] = *file;
    return 0;
}

static int add_file(struct symbols_files *files, const char *path, bool is_named, struct failure *f)
{
    struct symbols_file file = {.state = SYMBOLS_UNSENT};
    struct failure why = {.code = 0};
    files->seen++;
    int e = elf_file_read(path, &file.elf, &why);
    if (e && !is_named) {
        files->without_id += e == ERR_NOTFOUND;
        return 0;
    }
    if (e) {
        file.state = SYMBOLS_REFUSED;
        text_copy(file.text, sizeof file.text, why.text);
    }
    struct symbols_file *there = e ? NULL : find(files, &file.elf);
    if (there) {
        files->duplicates++;
        if (!is_better(&file.elf, &there->elf))
            return 0;
    }
    file.path = strdup(path);
    if (!file.path)
        return fail(f, ERR_NOMEM, "out of memory");
    if (there) {
        free(there->path);
        *there = file;
        return 0;
    }
    e = push(files, &file, f);
    if (e)
        free(file.path);
    return e;
}

/* ---- directories ---- */

static unsigned type_of(const char *path, bool follow)
{
    uv_fs_t request;
    int e =
        follow ? uv_fs_stat(NULL, &request, path, NULL) : uv_fs_lstat(NULL, &request, path, NULL);
    unsigned type = e == 0 ? (unsigned)request.statbuf.st_mode & S_TYPE : 0;
    uv_fs_req_cleanup(&request);
    return type;
}

static int walk(struct symbols_files *files, const char *directory, unsigned depth,
                struct failure *f);

static int add_entry(struct symbols_files *files, const char *path, unsigned depth,
                     struct failure *f)
{
    unsigned type = type_of(path, false);
    if (type == S_FOLDER)
        return depth < SYMBOLS_FILES_DEPTH ? walk(files, path, depth + 1, f) : 0;
    return type == S_FILE ? add_file(files, path, false, f) : 0;
}

static int walk(struct symbols_files *files, const char *directory, unsigned depth,
                struct failure *f)
{
    char path[PATH_SIZE];
    uv_fs_t request;
    uv_dirent_t entry;
    int e = uv_fs_scandir(NULL, &request, directory, 0, NULL);
    if (e < 0) {
        uv_fs_req_cleanup(&request);
        return depth == 0 ? file_fail(f, e, "read", directory) : 0;
    }
    e = 0;
    while (e == 0 && uv_fs_scandir_next(&request, &entry) == 0)
        if (text_format(path, sizeof path, "%s/%s", directory, entry.name) == 0)
            e = add_entry(files, path, depth, f);
    uv_fs_req_cleanup(&request);
    return e;
}

int symbols_files_add(struct symbols_files *files, const char *path, struct failure *f)
{
    char trimmed[PATH_SIZE];
    if (text_copy(trimmed, sizeof trimmed, path))
        return fail(f, ERR_INVALID, "path too long: '%.100s...'", path);
    for (size_t n = strlen(trimmed); n > 1 && trimmed[n - 1] == '/'; n--)
        trimmed[n - 1] = '\0';
    unsigned type = type_of(trimmed, true);
    if (type == S_FOLDER)
        return walk(files, trimmed, 0, f);
    if (type == 0)
        return fail(f, ERR_NOTFOUND, "no such file or directory: '%s'", path);
    if (type != S_FILE)
        return fail(f, ERR_INVALID, "'%s' is neither a file nor a directory", path);
    return add_file(files, trimmed, true, f);
}
