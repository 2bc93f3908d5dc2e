/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/kallsyms read once, line by line: for each place the nearest symbol before it (proc(5)).
 * Invariant: its hundreds of thousands of lines are not kept, only the best of each place. Called
 * by profile.c.
 */
#include "agent/os/linux/profile_kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define NAME_SIZE 128
#define KERNEL_SUFFIX "_[k]"
/* A symbol further away than this is of something else: modules are loaded far from each other. */
#define FUNCTION_BYTES_MAX (1u << 20)

struct wanted {
    uint64_t pc;
    uint32_t location;
    uint64_t symbol; /* 0: none yet */
    char name[NAME_SIZE];
};

struct search {
    struct wanted *list; /* by rising pc */
    size_t count;
};

static int compare_wanted(const void *a, const void *b)
{
    const struct wanted *left = a, *right = b;
    return left->pc < right->pc ? -1 : left->pc > right->pc;
}

static bool is_code(char type)
{
    return type == 't' || type == 'T' || type == 'w' || type == 'W';
}

/* The first place that is not before the symbol; later ones take it over at the end. */
static int offer(void *context, struct span line)
{
    struct search *s = context;
    struct span name;
    uint64_t address;
    if (text_take_hex(&line, &address) || address == 0 || line.size_bytes < 4 ||
        line.data[0] != ' ' || !is_code((char)line.data[1]) || line.data[2] != ' ')
        return 0;
    line = span_of(line.data + 3, line.size_bytes - 3);
    if (proc_take_field(&line, &name))
        return 0;
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->list[middle].pc < address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < s->count && address > s->list[low].symbol) {
        s->list[low].symbol = address;
        text_copy_span(s->list[low].name, sizeof s->list[low].name, name);
    }
    return 0;
}

static void hand_on(struct search *s)
{
    for (size_t i = 1; i < s->count; i++) {
        if (s->list[i - 1].symbol > s->list[i].symbol) {
            s->list[i].symbol = s->list[i - 1].symbol;
            memcpy(s->list[i].name, s->list[i - 1].name, NAME_SIZE);
        }
    }
}

static int gather(struct profile_set *set, struct search *s)
{
    s->list = calloc(set->location_count + 1, sizeof *s->list);
    if (!s->list)
        return ERR_NOMEM;
    for (size_t i = 0; i < set->location_count; i++) {
        const struct profile_location *l = &set->locations[i];
        if (l->place == PROFILE_KERNEL && l->count == 0)
            s->list[s->count++] = (struct wanted){.pc = l->pc, .location = (uint32_t)i};
    }
    qsort(s->list, s->count, sizeof *s->list, compare_wanted);
    return 0;
}

static int name_one(struct profile_set *set, const struct wanted *w, size_t *named)
{
    struct profile_frame frame = {0, 0, 0};
    char name[NAME_SIZE + sizeof KERNEL_SUFFIX] = "[kernel]";
    if (w->symbol && w->pc - w->symbol < FUNCTION_BYTES_MAX) {
        snprintf(name, sizeof name, "%s" KERNEL_SUFFIX, w->name);
        (*named)++;
    }
    int e = profile_text(set, name, &frame.function);
    return e ? e : profile_name(set, w->location, &frame, 1);
}

int profile_kernel_name(struct profile_set *set, const char *root, size_t *named, size_t *all)
{
    struct search s = {NULL, 0};
    char path[PROC_PATH_SIZE];
    *named = 0;
    int e = gather(set, &s);
    *all = s.count;
    if (!e && s.count > 0) {
        snprintf(path, sizeof path, "%s/proc/kallsyms", root);
        proc_each_line(path, offer, &s, NULL); /* unreadable: all are "[kernel]" */
        hand_on(&s);
    }
    for (size_t i = 0; i < s.count && !e; i++)
        e = name_one(set, &s.list[i], named);
    free(s.list);
    return e;
}
