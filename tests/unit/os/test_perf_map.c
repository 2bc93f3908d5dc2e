/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of code made at run time: which lines count, which name holds, and which files are read at
 * all.
 */
#include "agent/os/linux/perf_map.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/check.h"

static void ask(struct perf_map *map, const uint64_t *addresses, size_t count)
{
    memset(map, 0, sizeof *map);
    map->fd = -1;
    REQUIRE(perf_map_ask(map, addresses, count, NULL) == 0);
}

static const char *name_of(const struct perf_map *map, uint64_t address)
{
    const struct perf_map_name *found = perf_map_find(map, address);
    return found ? found->name : NULL;
}

TEST(a_name_holds_its_range)
{
    static const uint64_t wanted[] = {0xfff, 0x1000, 0x10ff, 0x1100, 0x2000};
    struct perf_map map;
    ask(&map, wanted, 5);
    perf_map_feed(&map, span_str("1000 100 LazyCompile:*f a.js:1\n0x2000 0x1 g\n"));
    CHECK_EQ_STR(name_of(&map, 0xfff), NULL);
    CHECK_EQ_STR(name_of(&map, 0x1000), "LazyCompile:*f a.js:1");
    CHECK_EQ_STR(name_of(&map, 0x10ff), "LazyCompile:*f a.js:1");
    CHECK_EQ_STR(name_of(&map, 0x1100), NULL);
    CHECK_EQ_STR(name_of(&map, 0x2000), "g");
    CHECK_EQ_STR(name_of(&map, 0x1001), NULL); /* not asked for */
    CHECK_EQ_INT(perf_map_find(&map, 0x10ff)->start, 0x1000);
    perf_map_close(&map);
}

/* Code is moved and its place used again: the file only grows. */
TEST(the_later_of_two_names_holds)
{
    static const uint64_t wanted[] = {0x1000, 0x1080};
    struct perf_map map;
    ask(&map, wanted, 2);
    perf_map_feed(&map, span_str("1000 100 old\n1040 100 new\n"));
    CHECK_EQ_STR(name_of(&map, 0x1000), "old");
    CHECK_EQ_STR(name_of(&map, 0x1080), "new");
    perf_map_close(&map);
}

TEST(lines_that_are_none_are_passed_over)
{
    static const uint64_t wanted[] = {0x1000};
    static const char *const lines[] = {"1000\n",
                                        "1000 10\n",
                                        "1000 10 \n",
                                        "1000 0 empty\n",
                                        "x000 10 f\n",
                                        "1000 x f\n",
                                        "1000  10 f\n",
                                        "\n",
                                        " 1000 10 f\n",
                                        "10000000000000000 10 f\n",
                                        "1000 ffffffffffffffff wraps\n"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct perf_map map;
        ask(&map, wanted, 1);
        perf_map_feed(&map, span_str(lines[i]));
        CHECK_EQ_STR(name_of(&map, 0x1000), NULL);
        perf_map_close(&map);
    }
}

TEST(a_long_name_is_cut)
{
    static const uint64_t wanted[] = {0x1000};
    char line[1024];
    struct perf_map map;
    memset(line, 'n', sizeof line);
    memcpy(line, "1000 10 ", 8);
    ask(&map, wanted, 1);
    perf_map_feed(&map, span_of(line, sizeof line));
    REQUIRE(name_of(&map, 0x1000) != NULL);
    CHECK_EQ_INT(strlen(name_of(&map, 0x1000)), PERF_MAP_NAME_MAX);
    perf_map_close(&map);
}

TEST(too_many_addresses_are_refused)
{
    static uint64_t wanted[PERF_MAP_WANTED_MAX + 1];
    struct perf_map map;
    struct failure f = {0, ""};
    memset(&map, 0, sizeof map);
    map.fd = -1;
    CHECK_EQ_INT(perf_map_ask(&map, wanted, PERF_MAP_WANTED_MAX + 1, &f), ERR_LIMIT);
    CHECK(f.text[0] != '\0');
    CHECK(map.cut);
    perf_map_close(&map);
}

/* ---- the file ---- */

static char path[64];

/* The file of this very process. */
static void write_map(const char *text, mode_t mode)
{
    snprintf(path, sizeof path, "/tmp/perf-%d.map", getpid());
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* Larger than what is read at once, with the name that counts at its end. */
TEST(a_long_file_is_read_to_its_end)
{
    static const uint64_t wanted[] = {0x1000, 0x500000};
    static char text[200000];
    struct perf_map map;
    size_t used = 0;
    for (unsigned i = 0; used + 64 < sizeof text; i++)
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%x 10 name%u\n", 0x1000 + i * 16, i);
    snprintf(text + used, sizeof text - used, "500000 10 last\n");
    write_map(text, 0600);
    perf_map_open(&map, getpid());
    CHECK(map.fd >= 0);
    CHECK_EQ_INT(perf_map_ask(&map, wanted, 2, NULL), 0);
    CHECK_EQ_STR(name_of(&map, 0x1000), "name0");
    CHECK_EQ_STR(name_of(&map, 0x500000), "last");
    CHECK(!map.cut);
    perf_map_close(&map);
    unlink(path);
}

/* A link, a pipe (opening it would wait), a folder, somebody else's: none is read. */
TEST(only_a_regular_file_of_its_own_is_read)
{
    struct perf_map map;
    write_map("1000 10 f\n", 0600);
    char other[80];
    snprintf(other, sizeof other, "%s.other", path);
    REQUIRE(rename(path, other) == 0);
    REQUIRE(symlink(other, path) == 0);
    perf_map_open(&map, getpid());
    CHECK_EQ_INT(map.fd, -1);
    unlink(path);
    REQUIRE(mkfifo(path, 0600) == 0);
    perf_map_open(&map, getpid());
    CHECK_EQ_INT(map.fd, -1);
    unlink(path);
    REQUIRE(mkdir(path, 0700) == 0);
    perf_map_open(&map, getpid());
    CHECK_EQ_INT(map.fd, -1);
    rmdir(path);
    REQUIRE(rename(other, path) == 0);
    perf_map_open(&map, getpid());
    CHECK(map.fd >= 0); /* and this one would be */
    perf_map_close(&map);
    if (geteuid() == 0 && chown(path, 65534, 65534) == 0) {
        perf_map_open(&map, getpid());
        CHECK_EQ_INT(map.fd, -1);
    }
    unlink(path);
    perf_map_open(&map, getpid());
    CHECK_EQ_INT(map.fd, -1);
    CHECK_EQ_INT(perf_map_ask(&map, NULL, 0, NULL), 0);
    perf_map_close(&map);
}
