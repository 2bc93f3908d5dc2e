/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Free memory of host and control groups, from recorded trees of both versions, and of this host.
 */
#include "agent/os/linux/headroom.h"

#include <unistd.h>

#include "tests/check.h"
#include "tests/unit/os/tree.h"

#define MIB (1ull << 20)

#define TOTAL (16384 * MIB)

static void host_with(const char *root, uint64_t free_mib)
{
    tree_print(root, "/proc/meminfo",
               "MemTotal:       16777216 kB\nMemFree:         1000 kB\nMemAvailable:   %llu kB\n",
               (unsigned long long)free_mib * 1024);
}

static void group_v2(const char *root, const char *path, const char *max, const char *high,
                     uint64_t used, uint64_t inactive)
{
    char name[256];
    snprintf(name, sizeof name, "/sys/fs/cgroup%s/memory.max", path);
    tree_print(root, name, "%s\n", max);
    snprintf(name, sizeof name, "/sys/fs/cgroup%s/memory.high", path);
    tree_print(root, name, "%s\n", high);
    snprintf(name, sizeof name, "/sys/fs/cgroup%s/memory.current", path);
    tree_print(root, name, "%llu\n", (unsigned long long)used);
    snprintf(name, sizeof name, "/sys/fs/cgroup%s/memory.stat", path);
    tree_print(root, name, "anon 4096\ninactive_anon 77\ninactive_file %llu\nactive_file 5\n",
               (unsigned long long)inactive);
}

static void group_v1(const char *root, const char *path, uint64_t max, uint64_t used,
                     uint64_t inactive)
{
    char name[256];
    snprintf(name, sizeof name, "/sys/fs/cgroup/memory%s/memory.limit_in_bytes", path);
    tree_print(root, name, "%llu\n", (unsigned long long)max);
    snprintf(name, sizeof name, "/sys/fs/cgroup/memory%s/memory.usage_in_bytes", path);
    tree_print(root, name, "%llu\n", (unsigned long long)used);
    snprintf(name, sizeof name, "/sys/fs/cgroup/memory%s/memory.stat", path);
    tree_print(root, name, "inactive_file 12\ntotal_inactive_file %llu\n",
               (unsigned long long)inactive);
}

static struct headroom read_ok(const char *root)
{
    struct headroom headroom = {0, 0, 0, ""};
    struct failure f = {0, ""};
    CHECK_EQ_INT(headroom_read(root, 7, &headroom, &f), 0);
    CHECK_EQ_STR(f.text, "");
    return headroom;
}

TEST(without_a_limit_the_host_counts)
{
    const char *root = tree_make();
    host_with(root, 4096);
    tree_write(root, "/proc/7/cgroup", "0::/a\n");
    group_v2(root, "/a", "max", "max", 100, 0);
    struct headroom h = read_ok(root);
    CHECK_EQ_STR(h.where, "the host");
    CHECK_EQ_INT(h.free_bytes, 4096 * MIB);
    CHECK_EQ_INT(h.total_bytes, TOTAL);
    CHECK_EQ_INT(h.free_permille, 250);
}

TEST(the_smallest_share_on_any_level_counts)
{
    const char *root = tree_make();
    host_with(root, 4096);
    tree_write(root, "/proc/7/cgroup", "0::/a/b/c\n");
    group_v2(root, "/a/b/c", "max", "max", 100 * MIB, 0);
    group_v2(root, "/a/b", "1073741824", "max", 973 * MIB, 0);
    group_v2(root, "/a", "2147483648", "max", 973 * MIB, 0);
    struct headroom h = read_ok(root);
    CHECK_EQ_STR(h.where, "control group '/a/b'");
    CHECK_EQ_INT(h.free_bytes, 51 * MIB);
    CHECK_EQ_INT(h.total_bytes, 1024 * MIB);
    CHECK_EQ_INT(h.free_permille, 49);
    /* What can be dropped counts as free. */
    group_v2(root, "/a/b", "1073741824", "max", 973 * MIB, 500 * MIB);
    h = read_ok(root);
    CHECK_EQ_STR(h.where, "the host");
}

TEST(what_throttles_is_a_limit_too)
{
    const char *root = tree_make();
    host_with(root, 8192);
    tree_write(root, "/proc/7/cgroup", "12:cpu:/x\n0::/a\n");
    group_v2(root, "/a", "2147483648", "1073741824", 1000 * MIB, 0);
    struct headroom h = read_ok(root);
    CHECK_EQ_STR(h.where, "control group '/a'");
    CHECK_EQ_INT(h.free_bytes, 24 * MIB);
}

TEST(version_one_is_read)
{
    const char *root = tree_make();
    host_with(root, 8192);
    tree_write(root, "/proc/7/cgroup",
               "9:pids:/p\n4:cpu,memory:/docker/abc\n1:name=systemd:/\n0::/\n");
    group_v1(root, "/docker/abc", 512 * MIB, 500 * MIB, 38 * MIB);
    group_v1(root, "/docker", 9223372036854771712ull, 600 * MIB, 0);
    group_v1(root, "", 9223372036854771712ull, 600 * MIB, 0);
    struct headroom h = read_ok(root);
    CHECK_EQ_STR(h.where, "control group '/docker/abc'");
    CHECK_EQ_INT(h.free_bytes, 50 * MIB);
    CHECK_EQ_INT(h.free_permille, 97);
    /* Over its limit, as happens for a moment. */
    group_v1(root, "/docker/abc", 512 * MIB, 513 * MIB, 0);
    h = read_ok(root);
    CHECK_EQ_INT(h.free_bytes, 0);
    CHECK_EQ_INT(h.free_permille, 0);
}

TEST(the_root_of_a_container_is_a_group_like_any)
{
    const char *root = tree_make();
    host_with(root, 8192);
    tree_write(root, "/proc/7/cgroup", "0::/\n");
    group_v2(root, "", "1073741824", "max", 1020 * MIB, 0);
    struct headroom h = read_ok(root);
    CHECK_EQ_STR(h.where, "control group '/'");
    CHECK_EQ_INT(h.free_bytes, 4 * MIB);
}

TEST(damaged_and_missing_files_never_add)
{
    const char *root = tree_make();
    struct headroom h = {0, 0, 0, ""};
    struct failure f = {0, ""};
    CHECK_EQ_INT(headroom_read(root, 7, &h, &f), ERR_GONE);
    tree_write(root, "/proc/7/cgroup", "0::/../../other\n4:memory:a\n::\nx\n");
    tree_write(root, "/proc/meminfo", "MemTotal: 0 kB\nMemAvailable: 5 kB\n");
    CHECK_EQ_INT(headroom_read(root, 7, &h, &f), ERR_UNSUPPORTED);
    tree_write(root, "/proc/meminfo", "MemTotal: 5 kB\n");
    CHECK_EQ_INT(headroom_read(root, 7, &h, &f), ERR_UNSUPPORTED);
    CHECK_EQ_STR(h.where, "");
    host_with(root, 20000);
    h = read_ok(root);
    CHECK_EQ_INT(h.free_permille, 1000);
    CHECK_EQ_STR(h.where, "the host");
}

TEST(this_host_can_be_read)
{
    struct headroom h = {0, 0, 0, ""};
    struct failure f = {0, ""};
    CHECK_EQ_INT(headroom_read("", (uint32_t)getpid(), &h, &f), 0);
    CHECK(h.total_bytes > 0 && h.free_bytes > 0 && h.free_permille > 0);
    printf("      %llu of %llu MiB free in %s\n", (unsigned long long)(h.free_bytes >> 20),
           (unsigned long long)(h.total_bytes >> 20), h.where);
}
