/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines of names from stacks of places (profile_lines.h). Invariant: a name holds nothing that ends
 * a name or a line, whatever the process called its functions. Called by profile.c.
 */
#include "agent/os/linux/profile_lines.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

/* ---- names ---- */

/* What a terminal and a line of folded text can take. */
static int add_safe_name(struct profile_set *set, const char *name, uint32_t *out)
{
    struct buf safe;
    buf_init(&safe, PROFILE_TEXT_MAX * 16);
    int e = text_append_safe(&safe, span_str(name), false);
    for (size_t i = 0; i < safe.size_bytes; i++)
        if (safe.data[i] == ';')
            safe.data[i] = ':';
    if (!e)
        e = profile_text(set, buf_str(&safe), out);
    buf_done(&safe);
    return e;
}

/* The safe form of each text that is a function's name, by the text's number; 0: not made yet. */
struct safe_names {
    uint32_t *list;
    size_t count;
};

static int safe_name(struct profile_set *set, struct safe_names *names, uint32_t text,
                     uint32_t *out)
{
    if (text < names->count && names->list[text]) {
        *out = names->list[text];
        return 0;
    }
    char name[PROFILE_TEXT_MAX + 1];
    text_copy(name, sizeof name, profile_text_of(set, text)); /* the table may move */
    int e = add_safe_name(set, name[0] ? name : "[unknown]", out);
    if (!e && text < names->count)
        names->list[text] = *out;
    return e;
}

/* ---- lines ---- */

struct maker {
    struct profile_lines *lines;
    struct profile_set *set;
    struct safe_names safe;
    size_t name_capacity;
    uint32_t process;
};

static int add_name(struct maker *m, uint32_t name)
{
    struct profile_lines *lines = m->lines;
    if (lines->name_count == PROFILE_LINE_NAMES_MAX)
        return ERR_LIMIT;
    if (BUF_GROW(lines->names, lines->name_count, &m->name_capacity, 1024))
        return ERR_NOMEM;
    lines->names[lines->name_count++] = name;
    return 0;
}

/* The thread's name, unless it is the process's, as it is where nobody names threads. */
static int add_thread_name(struct maker *m, uint32_t thread)
{
    const char *comm = m->set->threads[thread].comm;
    const char *process = profile_text_of(m->set, m->process);
    size_t length = strlen(comm);
    uint32_t name;
    if (length == 0 || strncmp(comm, process, length) == 0)
        return 0;
    int e = add_safe_name(m->set, comm, &name);
    return e ? e : add_name(m, name);
}

static int add_frames(struct maker *m, const struct profile_stack *stack)
{
    size_t begin = m->lines->name_count;
    for (uint32_t i = stack->count; i-- > 0;) {
        const struct profile_frame *frames;
        size_t count = profile_frames_of(m->set, m->set->places[stack->first + i], &frames);
        while (count-- > 0 && m->lines->name_count - begin < PROFILE_LINE_DEPTH_MAX) {
            uint32_t name;
            int e = safe_name(m->set, &m->safe, frames[count].function, &name);
            if (!e)
                e = add_name(m, name);
            if (e)
                return e;
        }
    }
    return 0;
}

static int add_line(struct maker *m, const struct profile_stack *stack, uint64_t weight)
{
    struct profile_lines *lines = m->lines;
    size_t first = lines->name_count;
    int e = add_name(m, m->process);
    if (!e)
        e = add_thread_name(m, stack->thread);
    if (!e)
        e = add_frames(m, stack);
    if (e)
        return e;
    lines->list[lines->count++] =
        (struct profile_line){(uint32_t)first, (uint32_t)(lines->name_count - first), weight};
    lines->total += weight;
    return 0;
}

/* ---- order ---- */

/* qsort() hands no context over; a worker takes one profile. */
static const struct profile_lines *sorted;

static int compare_names(const void *a, const void *b)
{
    const struct profile_line *left = a, *right = b;
    for (uint32_t i = 0; i < left->count && i < right->count; i++) {
        uint32_t x = sorted->names[left->first + i], y = sorted->names[right->first + i];
        if (x != y)
            return strcmp(profile_text_of(sorted->set, x), profile_text_of(sorted->set, y));
    }
    return left->count < right->count ? -1 : left->count > right->count;
}

static int compare_weights(const void *a, const void *b)
{
    const struct profile_line *left = a, *right = b;
    if (left->weight != right->weight)
        return left->weight > right->weight ? -1 : 1;
    return compare_names(a, b);
}

static void merge_equal(struct profile_lines *lines)
{
    size_t kept = 0;
    sorted = lines;
    qsort(lines->list, lines->count, sizeof *lines->list, compare_names);
    for (size_t i = 0; i < lines->count; i++) {
        if (kept > 0 && compare_names(&lines->list[kept - 1], &lines->list[i]) == 0)
            lines->list[kept - 1].weight += lines->list[i].weight;
        else
            lines->list[kept++] = lines->list[i];
    }
    lines->count = kept;
}

/* ---- the whole ---- */

static uint64_t weight_of(const struct profile_stack *stack, enum profile_weight weight)
{
    return weight == PROFILE_SAMPLES ? stack->samples : stack->off_ns / 1000;
}

int profile_lines_make(struct profile_lines *lines, struct profile_set *set, const char *process,
                       enum profile_weight weight)
{
    struct maker m = {.lines = lines, .set = set, .safe = {.count = set->texts.count}};
    memset(lines, 0, sizeof *lines);
    lines->set = set;
    lines->list = calloc(set->stack_count + 1, sizeof *lines->list);
    m.safe.list = calloc(m.safe.count + 1, sizeof *m.safe.list);
    int e = lines->list && m.safe.list ? add_safe_name(set, process, &m.process) : ERR_NOMEM;
    for (size_t i = 0; i < set->stack_count && !e; i++) {
        uint64_t heavy = weight_of(&set->stacks[i], weight);
        if (heavy > 0)
            e = add_line(&m, &set->stacks[i], heavy);
    }
    free(m.safe.list);
    if (e) {
        profile_lines_done(lines);
        return e;
    }
    merge_equal(lines);
    return 0;
}

void profile_lines_done(struct profile_lines *lines)
{
    free(lines->list);
    free(lines->names);
    memset(lines, 0, sizeof *lines);
}

static int put_line(const struct profile_lines *lines, const struct profile_line *line,
                    struct buf *out)
{
    size_t before = out->size_bytes;
    int e = 0;
    for (uint32_t i = 0; i < line->count && !e; i++) {
        if (i > 0)
            e = buf_append_byte(out, ';');
        if (!e)
            e = buf_append_str(out, profile_text_of(lines->set, lines->names[line->first + i]));
    }
    if (!e)
        e = buf_printf(out, " %llu\n", (unsigned long long)line->weight);
    if (e)
        out->size_bytes = before;
    return e;
}

int profile_lines_folded(const struct profile_lines *lines, struct buf *out, size_t *left_out)
{
    struct profile_line *order = calloc(lines->count + 1, sizeof *order);
    if (!order)
        return ERR_NOMEM;
    if (lines->count > 0)
        memcpy(order, lines->list, lines->count * sizeof *order);
    sorted = lines;
    qsort(order, lines->count, sizeof *order, compare_weights);
    int e = 0;
    *left_out = 0;
    for (size_t i = 0; i < lines->count && e != ERR_NOMEM; i++) {
        e = put_line(lines, &order[i], out);
        if (e == ERR_LIMIT)
            (*left_out)++;
    }
    free(order);
    return e == ERR_NOMEM ? e : 0;
}
