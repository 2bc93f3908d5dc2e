/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees of /proc for tests: a copy of a recorded one, or made by hand, in a folder of its own that
 * can be changed between readings. A file is rewritten in place, so that readers that keep it open
 * see it. Included by tests/unit/os/test_*.c.
 */
#ifndef TESTS_UNIT_OS_TREE_H
#define TESTS_UNIT_OS_TREE_H

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/check.h"

#define TREE_PATH 1024

__attribute__((unused)) static void tree_path(char *out, const char *root, const char *path)
{
    REQUIRE(snprintf(out, TREE_PATH, "%s%s", root, path) < TREE_PATH);
}

__attribute__((unused)) static void tree_parents(const char *full)
{
    char path[TREE_PATH];
    snprintf(path, sizeof path, "%s", full);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0755);
        *slash = '/';
    }
}

__attribute__((unused)) static void tree_write_bytes(const char *root, const char *path,
                                                     const void *data, size_t size)
{
    char full[TREE_PATH];
    tree_path(full, root, path);
    tree_parents(full);
    int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, data, size) == (ssize_t)size);
    close(fd);
}

__attribute__((unused)) static void tree_write(const char *root, const char *path, const char *text)
{
    tree_write_bytes(root, path, text, strlen(text));
}

__attribute__((unused, format(printf, 3, 4))) static void
tree_print(const char *root, const char *path, const char *format, ...)
{
    static char text[65536];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    REQUIRE(length >= 0 && (size_t)length < sizeof text);
    tree_write(root, path, text);
}

__attribute__((unused)) static void tree_link(const char *root, const char *path,
                                              const char *target)
{
    char full[TREE_PATH];
    tree_path(full, root, path);
    tree_parents(full);
    REQUIRE(symlink(target, full) == 0);
}

__attribute__((unused)) static void tree_read(const char *root, const char *path, char *out,
                                              size_t size)
{
    char full[TREE_PATH];
    tree_path(full, root, path);
    int fd = open(full, O_RDONLY);
    REQUIRE(fd >= 0);
    ssize_t got = read(fd, out, size - 1);
    REQUIRE(got >= 0);
    out[got] = '\0';
    close(fd);
}

/* Fixtures hold only files, folders and links. */
__attribute__((unused)) static void tree_copy_folder(const char *from, const char *to)
{
    char source[TREE_PATH], target[TREE_PATH];
    static char data[1 << 16];
    DIR *dir = opendir(from);
    REQUIRE(dir != NULL);
    (void)mkdir(to, 0755);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        REQUIRE(snprintf(source, TREE_PATH, "%s/%s", from, entry->d_name) < TREE_PATH);
        REQUIRE(snprintf(target, TREE_PATH, "%s/%s", to, entry->d_name) < TREE_PATH);
        REQUIRE(lstat(source, &st) == 0);
        if (S_ISDIR(st.st_mode)) {
            tree_copy_folder(source, target);
        } else if (S_ISLNK(st.st_mode)) {
            ssize_t length = readlink(source, data, sizeof data - 1);
            REQUIRE(length > 0);
            data[length] = '\0';
            REQUIRE(symlink(data, target) == 0);
        } else {
            int fd = open(source, O_RDONLY);
            REQUIRE(fd >= 0);
            ssize_t got = read(fd, data, sizeof data);
            REQUIRE(got >= 0 && (size_t)got < sizeof data);
            close(fd);
            tree_write_bytes(target, "", data, (size_t)got);
        }
    }
    closedir(dir);
}

__attribute__((unused)) static void tree_remove(const char *root, const char *path)
{
    char full[TREE_PATH], child[TREE_PATH];
    struct stat st;
    tree_path(full, root, path);
    if (lstat(full, &st) < 0)
        return;
    if (!S_ISDIR(st.st_mode)) {
        (void)unlink(full);
        return;
    }
    DIR *dir = opendir(full);
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        REQUIRE(snprintf(child, TREE_PATH, "/%s", entry->d_name) < TREE_PATH);
        tree_remove(full, child);
    }
    if (dir)
        closedir(dir);
    (void)rmdir(full);
}

static char tree_made[TREE_PATH];
static pid_t tree_maker;

__attribute__((unused)) static void tree_clean(void)
{
    if (getpid() == tree_maker)
        tree_remove(tree_made, "");
}

/* A new empty folder, removed when the test ends. One for each test. */
__attribute__((unused)) static const char *tree_make(void)
{
    snprintf(tree_made, sizeof tree_made, "/tmp/trawl-tree-XXXXXX");
    REQUIRE(mkdtemp(tree_made) != NULL);
    REQUIRE(chmod(tree_made, 0755) == 0);
    tree_maker = getpid();
    (void)atexit(tree_clean);
    return tree_made;
}

/* A copy of tests/fixtures/proc/NAME. */
__attribute__((unused)) static const char *tree_copy(const char *name)
{
    char from[TREE_PATH];
    REQUIRE(snprintf(from, sizeof from, "%s/fixtures/proc/%s", TESTS_DIR, name) < TREE_PATH);
    const char *root = tree_make();
    tree_copy_folder(from, root);
    return root;
}

#endif
