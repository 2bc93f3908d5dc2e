/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes of mounted file systems, by statvfs(3) every 10 s; in between the last numbers are given
 * again. Only types that live on this host are asked, so that a server of a network file system
 * that does not answer cannot stop the agent. Of one device the first mount counts. Called by
 * counters.c.
 */
#include "agent/os/linux/counters_linux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "common/text.h"

#define FILESYSTEMS_MAX 32
#define PERIOD_US UINT64_C(10000000)
#define SOURCE_SIZE 64

#define SIZE(name)                                     \
    {                                                  \
        NULL, "filesystem." name, "bytes", OS_GAUGE, 1 \
    }
#define FILES(name)                                \
    {                                              \
        NULL, "filesystem." name, "1", OS_GAUGE, 1 \
    }

enum row { SIZE_TOTAL, SIZE_USED, SIZE_FREE, SIZE_AVAILABLE, FILES_TOTAL, FILES_FREE, ROWS };

static const struct counter_row rows[] = {
    SIZE("size"),      SIZE("used"),   SIZE("free"),
    SIZE("available"), FILES("files"), FILES("files_free"),
};
static const struct group_type type = {rows, ROWS, FILESYSTEMS_MAX, 1};

struct filesystems {
    char mounts[PROC_PATH_SIZE];
    uint64_t due_us;
    struct series_group group;
    /* Only while the list is read: the devices that were counted already. */
    char sources[FILESYSTEMS_MAX][SOURCE_SIZE];
    size_t source_count;
    struct os_counters *c;
};

int filesystems_open(struct filesystems **out, const char *root, struct failure *f)
{
    struct filesystems *fs = calloc(1, sizeof *fs);
    if (!fs)
        return fail(f, ERR_NOMEM, "out of memory for file systems");
    (void)group_init(&fs->group, &type); /* allocates nothing: it is not of the host */
    (void)text_format(fs->mounts, sizeof fs->mounts, "%s/proc/self/mounts", root);
    *out = fs;
    return 0;
}

void filesystems_close(struct filesystems *fs)
{
    if (!fs)
        return;
    group_done(&fs->group);
    free(fs);
}

static bool is_one_of(struct span s, const char *const *list)
{
    for (; *list; list++)
        if (span_equal(s, span_str(*list)))
            return true;
    return false;
}

/* Containers mount hundreds of small tmpfs; these are the ones that programs fill. */
static bool is_local(struct span fstype, struct span target)
{
    static const char *const types[] = {"ext2", "ext3",     "ext4",     "xfs", "btrfs",
                                        "f2fs", "vfat",     "exfat",    "zfs", "ntfs3",
                                        "jfs",  "bcachefs", "reiserfs", NULL};
    static const char *const tmpfs_targets[] = {"/tmp", "/var/tmp", "/run", "/dev/shm", NULL};
    if (span_equal(fstype, span_str("tmpfs")))
        return is_one_of(target, tmpfs_targets);
    if (span_equal(fstype, span_str("overlay"))) /* a container's own root */
        return span_equal(target, span_str("/"));
    return is_one_of(fstype, types);
}

static bool is_new_source(struct filesystems *fs, struct span source)
{
    char name[SOURCE_SIZE];
    if (!proc_starts_with(source, "/")) /* "tmpfs": each is its own */
        return true;
    (void)text_copy_span(name, sizeof name, source);
    for (size_t i = 0; i < fs->source_count; i++)
        if (strcmp(fs->sources[i], name) == 0)
            return false;
    if (fs->source_count < FILESYSTEMS_MAX)
        (void)text_copy(fs->sources[fs->source_count++], SOURCE_SIZE, name);
    return true;
}

/* getmntent(3): blank, tab, newline and backslash are written as \ooo. */
static void unescape(struct span s, char *out, size_t size_bytes)
{
    size_t length = 0;
    for (size_t i = 0; i < s.size_bytes && length < size_bytes - 1; i++) {
        uint8_t byte = s.data[i];
        if (byte == '\\' && i + 3 < s.size_bytes && s.data[i + 1] >= '0' && s.data[i + 1] <= '3') {
            byte = (uint8_t)((s.data[i + 1] & 3) << 6 | (s.data[i + 2] & 7) << 3 |
                             (s.data[i + 3] & 7));
            i += 3;
        }
        out[length++] = (char)byte;
    }
    out[length] = '\0';
}

static void give_size(struct os_counters *c, struct instance *instance, size_t row, uint64_t blocks,
                      uint64_t block_bytes)
{
    if (block_bytes > 0 && blocks <= (uint64_t)INT64_MAX / block_bytes)
        counter_value(c, &type, instance, row, blocks * block_bytes);
}

static void ask(struct os_counters *c, struct series_group *group, const char *target)
{
    char path[2 * PROC_PATH_SIZE];
    struct statvfs s;
    struct failure f;
    struct instance *instance = group_find(c, group, span_str(target));
    if (!instance)
        return;
    (void)text_format(path, sizeof path, "%s%s", c->root, target);
    if (statvfs(path, &s) < 0) {
        (void)fail_errno(&f, ERR_IO, errno, "cannot read size of '%s'", path);
        for (size_t i = 0; i < ROWS; i++)
            counter_gap(c, &type, instance, i, f.text);
        return;
    }
    give_size(c, instance, SIZE_TOTAL, s.f_blocks, s.f_frsize);
    give_size(c, instance, SIZE_FREE, s.f_bfree, s.f_frsize);
    give_size(c, instance, SIZE_AVAILABLE, s.f_bavail, s.f_frsize);
    if (s.f_bfree <= s.f_blocks)
        give_size(c, instance, SIZE_USED, s.f_blocks - s.f_bfree, s.f_frsize);
    if (s.f_files > 0) { /* some types count no files */
        counter_value(c, &type, instance, FILES_TOTAL, s.f_files);
        counter_value(c, &type, instance, FILES_FREE, s.f_ffree);
    }
}

/* "/dev/vda / ext4 rw,relatime 0 0" */
static int each_mount(void *context, struct span line)
{
    struct filesystems *fs = context;
    struct span source, escaped, fstype;
    char target[PROC_PATH_SIZE];
    if (proc_take_field(&line, &source) < 0 || proc_take_field(&line, &escaped) < 0 ||
        proc_take_field(&line, &fstype) < 0 || !is_local(fstype, escaped) ||
        !is_new_source(fs, source))
        return 0;
    unescape(escaped, target, sizeof target);
    ask(fs->c, &fs->group, target);
    return 0;
}

static void repeat(struct os_counters *c, struct series_group *group)
{
    for (size_t i = 0; i < group->count; i++) {
        struct instance *instance = group->list[i];
        for (size_t row = 0; row < ROWS; row++)
            if (instance->series[row].has_value)
                counter_value(c, &type, instance, row, instance->series[row].raw);
        instance_end(c, &type, instance, "its size could not be read");
    }
}

void filesystems_sample(struct os_counters *c, struct filesystems *fs)
{
    struct failure f;
    if (c->mono_us < fs->due_us) {
        repeat(c, &fs->group);
        return;
    }
    fs->due_us = c->mono_us + PERIOD_US;
    fs->source_count = 0;
    fs->c = c;
    if (proc_each_line(fs->mounts, each_mount, fs, &f) < 0)
        group_gap(c, &fs->group, f.text);
    else
        group_end(c, &fs->group, "its size could not be read");
}
