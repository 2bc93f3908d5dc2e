/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bringing equal stacks together. Invariant: every thread is in exactly one group; the order of
 * groups depends on the stacks alone, not on the order of threads. Called by stacks_finish.c.
 */
#include "agent/os/linux/stacks_text.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

/* qsort() has no context of its own; grouping is done by one worker, on one thread. */
static const struct stacks_set *sorted;

static int compare_place(const void *a, const void *b)
{
    const struct unwind_place *left = a, *right = b;
    if (left->pc != right->pc)
        return left->pc < right->pc ? -1 : 1;
    if (left->instruction != right->instruction)
        return left->instruction < right->instruction ? -1 : 1;
    if (left->python != right->python)
        return left->python ? 1 : -1;
    if (left->by_frame_pointer != right->by_frame_pointer)
        return left->by_frame_pointer ? 1 : -1;
    return (int)left->exact - (int)right->exact;
}

static int compare_stack(const struct stacks_thread *a, const struct stacks_thread *b)
{
    if (a->count != b->count)
        return a->count < b->count ? -1 : 1;
    for (size_t i = 0; i < a->count; i++) {
        int order = compare_place(&sorted->places[a->first + i], &sorted->places[b->first + i]);
        if (order)
            return order;
    }
    return strcmp(a->why ? a->why : "", b->why ? b->why : "");
}

static int compare_thread(const void *a, const void *b)
{
    const struct stacks_thread *left = &sorted->threads[*(const size_t *)a];
    const struct stacks_thread *right = &sorted->threads[*(const size_t *)b];
    int order = compare_stack(left, right);
    return order ? order : left->tid < right->tid ? -1 : left->tid > right->tid;
}

static int compare_group(const void *a, const void *b)
{
    const struct stacks_group *left = a, *right = b;
    if (left->count != right->count)
        return left->count > right->count ? -1 : 1;
    pid_t left_tid = sorted->threads[sorted->order[left->first]].tid;
    pid_t right_tid = sorted->threads[sorted->order[right->first]].tid;
    return left_tid < right_tid ? -1 : left_tid > right_tid;
}

static void make_groups(struct stacks_set *set)
{
    for (size_t i = 0; i < set->thread_count; i++)
        set->order[i] = i;
    qsort(set->order, set->thread_count, sizeof *set->order, compare_thread);
    for (size_t i = 0; i < set->thread_count; i++) {
        const struct stacks_thread *thread = &set->threads[set->order[i]];
        if (i > 0 && compare_stack(&set->threads[set->order[i - 1]], thread) == 0)
            set->groups[set->group_count - 1].count++;
        else
            set->groups[set->group_count++] = (struct stacks_group){.first = i, .count = 1};
    }
    qsort(set->groups, set->group_count, sizeof *set->groups, compare_group);
}

static const struct stacks_thread *leader(const struct stacks_set *set, size_t group)
{
    return &set->threads[set->order[set->groups[group].first]];
}

static void collect_known(struct stacks_set *set)
{
    size_t count = 0;
    for (size_t i = 0; i < set->group_count; i++) {
        const struct stacks_thread *thread = leader(set, i);
        for (size_t k = 0; k < thread->count; k++)
            set->known[count++].place = set->places[thread->first + k];
    }
    /* The place is the first member, so that places and known ones compare alike. */
    qsort(set->known, count, sizeof *set->known, compare_place);
    for (size_t i = 0; i < count; i++) {
        if (set->known_count == 0 ||
            compare_place(&set->known[set->known_count - 1], &set->known[i]) != 0)
            set->known[set->known_count++] = set->known[i];
    }
}

int stacks_group(struct stacks_set *set, struct failure *f)
{
    size_t places = 0;
    set->order = calloc(set->thread_count + 1, sizeof *set->order);
    set->groups = calloc(set->thread_count + 1, sizeof *set->groups);
    if (!set->order || !set->groups)
        return fail(f, ERR_NOMEM, "no memory to group %zu stacks", set->thread_count);
    sorted = set;
    make_groups(set);
    for (size_t i = 0; i < set->group_count; i++)
        places += leader(set, i)->count;
    set->known = calloc(places + 1, sizeof *set->known);
    if (!set->known)
        return fail(f, ERR_NOMEM, "no memory to name %zu frames", places);
    collect_known(set);
    return 0;
}

void stacks_set_done(struct stacks_set *set)
{
    free(set->threads);
    free(set->places);
    free(set->order);
    free(set->groups);
    free(set->known);
    free(set->names);
    for (size_t i = 0; i < set->kept_count; i++)
        free(set->kept[i]);
    free(set->kept);
    memset(set, 0, sizeof *set);
}

const char *stacks_keep(struct stacks_set *set, const char *text)
{
    if (BUF_GROW(set->kept, set->kept_count, &set->kept_capacity, 64))
        return NULL;
    char *copy = strdup(text);
    if (copy)
        set->kept[set->kept_count++] = copy;
    return copy;
}

int stacks_set_names(struct stacks_set *set, size_t index, const struct unwind_frame *frames,
                     size_t count)
{
    if (set->name_capacity - set->name_count < count) {
        size_t capacity = set->name_capacity * 2 + count + 64;
        struct unwind_frame *names = realloc(set->names, capacity * sizeof *names);
        if (!names)
            return ERR_NOMEM;
        set->names = names;
        set->name_capacity = capacity;
    }
    memcpy(set->names + set->name_count, frames, count * sizeof *frames);
    set->known[index].first = set->name_count;
    set->known[index].count = count;
    set->name_count += count;
    return 0;
}

size_t stacks_names(const struct stacks_set *set, struct unwind_place place,
                    const struct unwind_frame **out)
{
    static const struct unwind_frame unknown;
    const struct stacks_known *found =
        bsearch(&place, set->known, set->known_count, sizeof *set->known, compare_place);
    *out = found && found->count ? &set->names[found->first] : &unknown;
    return found && found->count ? found->count : 1;
}

/* ---- signature: http://www.isthe.com/chongo/tech/comp/fnv/ ---- */

__extension__ typedef unsigned __int128 u128;

static u128 fnv(u128 hash, const void *data, size_t size_bytes)
{
    const u128 prime = ((u128)1 << 88) + 0x13b;
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size_bytes; i++)
        hash = (hash ^ bytes[i]) * prime;
    return hash;
}

static u128 fnv_python(u128 hash, const struct unwind_frame *frame)
{
    const char *file = frame->file ? stacks_base_name(frame->file) : "";
    const char *function = frame->function ? frame->function : "";
    hash = fnv(hash, file, strlen(file) + 1);
    return fnv(hash, function, strlen(function) + 1);
}

static u128 fnv_frame(u128 hash, const struct unwind_frame *frame)
{
    if (frame->kind == UNWIND_PYTHON)
        return fnv_python(hash, frame);
    const struct unwind_module *module = frame->module;
    uint8_t offset[8];
    if (module && module->build_id_bytes > 0 && !module->image)
        hash = fnv(hash, module->build_id, module->build_id_bytes);
    else if (module)
        hash = fnv(hash, module->name, strlen(module->name));
    hash = fnv(hash, "", 1);
    if (!module || module->image)
        return hash;
    for (int i = 0; i < 8; i++)
        offset[i] = (uint8_t)(frame->offset >> (8 * i));
    return fnv(hash, offset, sizeof offset);
}

void stacks_signature(const struct stacks_set *set, const struct stacks_thread *thread,
                      uint8_t out[16])
{
    u128 hash = ((u128)0x6c62272e07bb0142 << 64) | 0x62b821756295c58d;
    for (size_t i = 0; i < thread->count; i++) {
        const struct unwind_frame *frame;
        stacks_names(set, set->places[thread->first + i], &frame);
        hash = fnv_frame(hash, frame);
    }
    for (int i = 0; i < 16; i++)
        out[i] = (uint8_t)(hash >> (8 * (15 - i)));
}

/* ---- the verdict's summary ---- */

int stacks_name_length(const char *function)
{
    size_t length = strcspn(function, "@");
    return (int)(length ? length : strlen(function));
}

const char *stacks_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Appends a frame if it fits whole, so that no name is cut in two. */
static bool join_frame(const struct unwind_frame *frame, char *out, size_t size_bytes)
{
    size_t used = strlen(out);
    char text[256];
    const char *separator = used ? ";" : "";
    if (frame->function && frame->kind == UNWIND_PYTHON)
        text_format(text, sizeof text, "%s%s (%s)", separator, frame->function,
                    stacks_base_name(frame->file ? frame->file : "?"));
    else if (frame->function)
        text_format(text, sizeof text, "%s%.*s", separator, stacks_name_length(frame->function),
                    frame->function);
    else if (frame->module)
        text_format(text, sizeof text, "%s%s+0x%llx", separator, frame->module->name,
                    (unsigned long long)frame->offset);
    else
        text_format(text, sizeof text, "%s??", separator);
    size_t length = strlen(text);
    if (used + length >= size_bytes)
        return false;
    memcpy(out + used, text, length + 1);
    for (size_t i = used + strlen(separator); i < used + length; i++) {
        if (out[i] == ';')
            out[i] = ':';
    }
    return true;
}

static void join_frames(const struct stacks_set *set, const struct stacks_thread *thread, char *out,
                        size_t size_bytes)
{
    out[0] = '\0';
    for (size_t i = 0; i < thread->count; i++) {
        const struct unwind_frame *frames;
        size_t count = stacks_names(set, set->places[thread->first + i], &frames);
        for (size_t k = 0; k < count; k++) {
            if (!join_frame(&frames[k], out, size_bytes))
                return;
        }
    }
}

void stacks_tops(const struct stacks_set *set, struct os_result *result)
{
    result->top_count = 0;
    for (size_t i = 0; i < set->group_count && i < OS_STACK_TOPS; i++) {
        struct os_stack_top *top = &result->tops[result->top_count++];
        memcpy(top->signature, set->groups[i].signature, sizeof top->signature);
        top->threads = (uint32_t)set->groups[i].count;
        join_frames(set, leader(set, i), top->frames, sizeof top->frames);
    }
}
