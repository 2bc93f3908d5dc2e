/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening the files that a process runs. Invariant: what is opened is a regular file, and the one
 * that is mapped, whatever its path leads to today. Nothing is parsed here. Called by unwind.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent/os/linux/unwind_private.h"
#include "common/text.h"

#define VDSO "[vdso]"
#define DELETED " (deleted)"
#define VDSO_BYTES_MAX (1u << 20)

/* Opens for reading what `path` names, if it is a regular file: a device may do something when
 * opened. */
static int open_regular(const char *path, uint64_t inode)
{
    int place = open(path, O_PATH | O_CLOEXEC);
    if (place < 0)
        return -1;
    struct stat st;
    int fd = -1;
    if (fstat(place, &st) == 0 && S_ISREG(st.st_mode) && (inode == 0 || st.st_ino == inode)) {
        char self[64];
        snprintf(self, sizeof self, "/proc/self/fd/%d", place);
        fd = open(self, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    } else {
        errno = ESTALE;
    }
    int error = errno;
    close(place);
    errno = error;
    return fd;
}

/*
 * map_files leads to the mapped file itself, but needs privilege; a path inside the process's own
 * root is right only when it still has the same inode.
 */
static int open_mapped(pid_t pid, const struct map *map, const char *path)
{
    char link[640];
    snprintf(link, sizeof link, "/proc/%d/map_files/%llx-%llx", pid, (unsigned long long)map->start,
             (unsigned long long)map->end);
    int fd = open_regular(link, 0);
    if (fd >= 0)
        return fd;
    snprintf(link, sizeof link, "/proc/%d/root%s", pid, path);
    return open_regular(link, map->inode);
}

static void set_names(struct unwind_module *module, const char *path)
{
    text_copy(module->path, sizeof module->path, path);
    const char *slash = strrchr(path, '/');
    text_copy(module->name, sizeof module->name, slash ? slash + 1 : path);
    size_t length = strlen(module->name), tail = strlen(DELETED);
    if (length > tail && strcmp(module->name + length - tail, DELETED) == 0)
        module->name[length - tail] = '\0';
}

/* The vdso is in no file; reading it does not disturb. */
static void copy_vdso(struct unwind_module *module, pid_t pid)
{
    module->missing = "could not be copied";
    module->image_bytes = module->end - module->start;
    if (module->image_bytes > VDSO_BYTES_MAX)
        return;
    module->image = malloc(module->image_bytes);
    if (!module->image)
        return;
    struct iovec local = {module->image, module->image_bytes};
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process. */
    struct iovec remote = {(void *)(uintptr_t)module->start, module->image_bytes};
    if (process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)module->image_bytes)
        module->missing = NULL;
}

/* Neighbouring mappings of one file are one module. Returns how many mappings it has. */
static size_t module_extent(const struct maps *maps, size_t first, bool *code)
{
    const struct map *head = &maps->list[first];
    size_t count = 0;
    *code = false;
    while (first + count < maps->count) {
        const struct map *map = &maps->list[first + count];
        if (map->path != head->path || map->inode != head->inode ||
            map->device_major != head->device_major || map->device_minor != head->device_minor)
            break;
        *code |= map->executable;
        count++;
    }
    return count;
}

static void add_module(struct unwind_files *files, pid_t pid, const struct maps *maps, size_t first,
                       size_t count)
{
    if (files->count == UNWIND_MODULES_MAX) {
        files->left++;
        return;
    }
    const struct map *head = &maps->list[first];
    const char *path = maps_path(maps, head);
    struct unwind_module *module = &files->list[files->count++];
    *module = (struct unwind_module){
        .start = head->start, .end = maps->list[first + count - 1].end, .fd = -1};
    module->bias = module->start;
    set_names(module, path);
    if (strcmp(path, VDSO) == 0) {
        copy_vdso(module, pid);
    } else if (head->offset != 0) {
        module->missing = "its beginning is not mapped";
    } else {
        module->fd = open_mapped(pid, head, path);
        if (module->fd < 0)
            module->missing = errno == ESTALE ? "replaced by another file" : "cannot be opened";
    }
}

/* ---- what may be code ---- */

static int list_code(struct unwind_files *files, const struct maps *maps, struct failure *f)
{
    size_t count = 0;
    for (size_t i = 0; i < maps->count; i++)
        count += maps->list[i].executable;
    files->code = calloc(count + 1, sizeof *files->code);
    if (!files->code)
        return fail(f, ERR_NOMEM, "no memory for %zu ranges of code", count);
    for (size_t i = 0; i < maps->count; i++) {
        const struct map *map = &maps->list[i];
        if (map->executable)
            files->code[files->code_count++] = (struct unwind_range){map->start, map->end};
    }
    return 0;
}

bool unwind_is_code(const struct unwind_files *files, uint64_t address)
{
    size_t low = 0, high = files->code_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (address < files->code[middle].start)
            high = middle;
        else if (address >= files->code[middle].end)
            low = middle + 1;
        else
            return true;
    }
    return false;
}

/* ---- the whole ---- */

int unwind_files_open(struct unwind_files *files, pid_t pid, const struct maps *maps,
                      struct failure *f)
{
    memset(files, 0, sizeof *files);
    files->list = calloc(UNWIND_MODULES_MAX, sizeof *files->list);
    if (!files->list)
        return fail(f, ERR_NOMEM, "no memory for %d modules", UNWIND_MODULES_MAX);
    int rc = list_code(files, maps, f);
    if (rc) {
        unwind_files_close(files);
        return rc;
    }
    for (size_t i = 0; i < maps->count;) {
        bool code;
        size_t count = module_extent(maps, i, &code);
        const char *path = maps_path(maps, &maps->list[i]);
        if (code && (path[0] == '/' || strcmp(path, VDSO) == 0))
            add_module(files, pid, maps, i, count);
        i += count;
    }
    return 0;
}

void unwind_files_close(struct unwind_files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        if (files->list[i].fd >= 0)
            close(files->list[i].fd);
        free(files->list[i].image);
    }
    free(files->list);
    free(files->code);
    memset(files, 0, sizeof *files);
}
