/* SPDX-License-Identifier: Apache-2.0 */
/* Samples of hosts: evenly over a label's values, those that are online first, the same again for
 * the same seed. */
#include "collector/sample.h"

#include <stdio.h>
#include <string.h>

#include "tests/check.h"

#define HOSTS 60
#define ZONES 3

static char names[HOSTS][16];
static const char *const zones[ZONES] = {"a", "b", ""};

/* Zone "a" has 40 of 60, "b" 15, none 5. */
static size_t zone_of(size_t i)
{
    return i < 40 ? 0 : i < 55 ? 1 : 2;
}

static void fill(struct sample_host *hosts, size_t offline)
{
    for (size_t i = 0; i < HOSTS; i++) {
        snprintf(names[i], sizeof names[i], "web-%02zu", i);
        hosts[i] = (struct sample_host){names[i], zones[zone_of(i)], i >= offline, i};
    }
}

static void count_zones(const struct sample_host *hosts, size_t count, size_t out[ZONES])
{
    memset(out, 0, ZONES * sizeof out[0]);
    for (size_t i = 0; i < count; i++)
        out[zone_of(hosts[i].index)]++;
}

TEST(each_value_gets_its_share)
{
    struct sample_host hosts[HOSTS];
    size_t zone[ZONES];
    fill(hosts, 0);
    CHECK_EQ_INT(sample_hosts(hosts, HOSTS, 9, span_str("x")), 9);
    count_zones(hosts, 9, zone);
    CHECK(zone[0] == 3 && zone[1] == 3 && zone[2] == 3);
    fill(hosts, 0);
    CHECK_EQ_INT(sample_hosts(hosts, HOSTS, 30, span_str("x")), 30);
    count_zones(hosts, 30, zone);
    CHECK_EQ_INT(zone[2], 5); /* all it has */
    CHECK(zone[0] >= 12 && zone[1] >= 12);
    fill(hosts, 0);
    CHECK_EQ_INT(sample_hosts(hosts, HOSTS, 1000, span_str("x")), HOSTS);
    CHECK_EQ_INT(sample_hosts(hosts, 0, 3, span_str("x")), 0);
}

TEST(no_host_is_drawn_twice)
{
    struct sample_host hosts[HOSTS];
    bool seen[HOSTS] = {false};
    fill(hosts, 7);
    (void)sample_hosts(hosts, HOSTS, HOSTS, span_str("y"));
    for (size_t i = 0; i < HOSTS; i++) {
        CHECK(!seen[hosts[i].index]);
        seen[hosts[i].index] = true;
    }
}

TEST(those_that_are_here_come_first)
{
    struct sample_host hosts[HOSTS];
    fill(hosts, 35); /* 35 of the 40 of zone a are away */
    CHECK_EQ_INT(sample_hosts(hosts, HOSTS, 15, span_str("x")), 15);
    for (size_t i = 0; i < 15; i++)
        CHECK(hosts[i].online);
}

TEST(the_seed_decides)
{
    struct sample_host one[HOSTS], same[HOSTS], other[HOSTS];
    fill(one, 0);
    fill(same, 0);
    fill(other, 0);
    struct sample_host first = same[0];
    same[0] = same[HOSTS - 1]; /* in whatever order they come */
    same[HOSTS - 1] = first;
    (void)sample_hosts(one, HOSTS, 6, span_str("seed"));
    (void)sample_hosts(same, HOSTS, 6, span_str("seed"));
    (void)sample_hosts(other, HOSTS, 6, span_str("another"));
    size_t equal = 0;
    for (size_t i = 0; i < 6; i++) {
        CHECK_EQ_STR(one[i].name, same[i].name);
        equal += !strcmp(one[i].name, other[i].name);
    }
    CHECK(equal < 6);
}
