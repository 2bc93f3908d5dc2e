/* SPDX-License-Identifier: Apache-2.0 */
/* Counts by type and place. See throws_set.h. */
#include "agent/os/linux/throws_set.h"
#include "common/buf.h"

#include <stdlib.h>
#include <string.h>

void throws_set_init(struct throws_set *set)
{
    memset(set, 0, sizeof *set);
}

void throws_set_done(struct throws_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        for (uint32_t j = 0; j < set->list[i].sample_count; j++)
            free(set->list[i].samples[j].frames);
    free(set->list);
    memset(set, 0, sizeof *set);
}

static struct throws_group *add(struct throws_set *set, uint64_t type, uint64_t place, uint64_t ns)
{
    if (set->count == THROWS_GROUPS_MAX)
        return NULL;
    if (BUF_GROW(set->list, set->count, &set->capacity, 16))
        return NULL;
    struct throws_group *group = &set->list[set->count++];
    memset(group, 0, sizeof *group);
    group->type = type;
    group->place = place;
    group->first_ns = ns;
    return group;
}

struct throws_group *throws_set_count(struct throws_set *set, uint64_t type, uint64_t place,
                                      uint64_t ns, uint32_t tid, bool *fresh)
{
    struct throws_group *group = NULL;
    *fresh = false;
    for (size_t i = 0; i < set->count && !group; i++)
        if (set->list[i].type == type && set->list[i].place == place)
            group = &set->list[i];
    if (!group) {
        group = add(set, type, place, ns);
        *fresh = group != NULL;
    }
    if (!group) {
        set->others++;
        return NULL;
    }
    if (group->waiting++ == 0)
        group->waiting_first_ns = ns;
    group->count++;
    group->last_ns = ns;
    group->tid = tid;
    return group;
}

bool throws_set_look(struct throws_group *group, uint64_t ns)
{
    if (group->looked >= THROWS_WHOLE && ns - group->looked_ns < THROWS_SECOND_NS)
        return false;
    group->looked++;
    group->looked_ns = ns;
    return true;
}

int throws_set_sample(struct throws_group *group, const struct throws_sample *sample)
{
    for (uint32_t i = 0; i < group->sample_count; i++) {
        if (group->samples[i].key != sample->key)
            continue;
        group->samples[i].seen++;
        group->newest_sample = i;
        return 0;
    }
    if (group->sample_count == THROWS_SAMPLES_MAX)
        return ERR_LIMIT;
    struct throws_sample *kept = &group->samples[group->sample_count];
    *kept = *sample;
    kept->seen = 1;
    kept->frames = malloc((sample->frame_count + 1) * sizeof *kept->frames);
    if (!kept->frames)
        return ERR_NOMEM;
    memcpy(kept->frames, sample->frames, sample->frame_count * sizeof *kept->frames);
    group->newest_sample = group->sample_count++;
    return 0;
}

static int by_count(const void *left, const void *right)
{
    const struct throws_group *a = left, *b = right;
    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return a->first_ns < b->first_ns ? -1 : a->first_ns > b->first_ns;
}

void throws_set_sort(struct throws_set *set)
{
    if (set->count > 1)
        qsort(set->list, set->count, sizeof *set->list, by_count);
}

uint64_t throws_set_total(const struct throws_set *set)
{
    uint64_t total = set->others;
    for (size_t i = 0; i < set->count; i++)
        total += set->list[i].count;
    return total;
}
