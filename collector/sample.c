/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drawing hosts: sorted by value and, within one, by an order that the seed makes; then each gets
 * the number of the round in which its value's turn comes to it. Invariant: the result depends on
 * the set of hosts and the seed only. Called by ops_incidents.c.
 */
#include "collector/sample.h"

#include <stdlib.h>
#include <string.h>

#define FNV_START 0xcbf29ce484222325ull
#define FNV_PRIME 0x100000001b3ull

struct drawn {
    struct sample_host host;
    uint64_t order; /* within its value, and of the values within a round */
    size_t round;
};

static uint64_t hash(uint64_t start, const void *bytes, size_t size_bytes)
{
    const uint8_t *at = bytes;
    uint64_t h = start;
    for (size_t i = 0; i < size_bytes; i++)
        h = (h ^ at[i]) * FNV_PRIME;
    return h ^ (h >> 29); /* FNV's low bits depend on few of the input's */
}

static int by_value(const void *a, const void *b)
{
    const struct drawn *l = a, *r = b;
    int values = strcmp(l->host.value, r->host.value);
    if (values)
        return values;
    if (l->host.online != r->host.online)
        return l->host.online ? -1 : 1;
    if (l->order != r->order)
        return l->order < r->order ? -1 : 1;
    return strcmp(l->host.name, r->host.name);
}

static int by_round(const void *a, const void *b)
{
    const struct drawn *l = a, *r = b;
    if (l->round != r->round)
        return l->round < r->round ? -1 : 1;
    if (l->host.online != r->host.online)
        return l->host.online ? -1 : 1;
    if (l->order != r->order)
        return l->order < r->order ? -1 : 1;
    return strcmp(l->host.name, r->host.name);
}

size_t sample_hosts(struct sample_host *hosts, size_t count, size_t wanted, struct span seed)
{
    struct drawn *drawn = count ? calloc(count, sizeof *drawn) : NULL;
    uint64_t start = hash(FNV_START, seed.data, seed.size_bytes);
    if (!drawn)
        return 0;
    for (size_t i = 0; i < count; i++)
        drawn[i] = (struct drawn){hosts[i], hash(start, hosts[i].name, strlen(hosts[i].name)), 0};
    qsort(drawn, count, sizeof *drawn, by_value);
    for (size_t i = 1; i < count; i++)
        if (!strcmp(drawn[i].host.value, drawn[i - 1].host.value))
            drawn[i].round = drawn[i - 1].round + 1;
    qsort(drawn, count, sizeof *drawn, by_round);
    for (size_t i = 0; i < count; i++)
        hosts[i] = drawn[i].host;
    free(drawn);
    return wanted < count ? wanted : count;
}
