/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series: defined when they first have a value or a reason for having none, set or excused once in
 * each sample, retired when what they count is gone. Invariant: the sink sees at most one value or
 * gap for a slot in a sample, and none after its retirement. Called by every topic.
 */
#include "agent/os/linux/counters_linux.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

/* ---- one instance ---- */

struct instance *instance_open(const struct group_type *type, struct span name, uint32_t pid)
{
    struct instance *instance =
        calloc(1, sizeof *instance + type->row_count * sizeof instance->series[0]);
    if (!instance)
        return NULL;
    (void)text_copy_span(instance->name, sizeof instance->name, name);
    instance->pid = pid;
    for (size_t i = 0; i < type->row_count; i++)
        instance->series[i].slot = SERIES_NEW;
    return instance;
}

void instance_close(struct os_counters *c, const struct group_type *type, struct instance *instance)
{
    for (size_t i = 0; i < type->row_count; i++)
        if (instance->series[i].slot >= 0)
            c->sink.retire(c->sink.context, instance->series[i].slot);
    free(instance);
}

static void define(struct os_counters *c, const struct group_type *type, struct instance *instance,
                   size_t row)
{
    const struct counter_row *r = &type->rows[row];
    struct os_counter counter = {
        .name = r->name,
        .instance = instance->name,
        .unit = r->unit,
        .kind = r->kind,
        .scale = type->scale ? type->scale : 1,
        .pid = instance->pid,
    };
    instance->series[row].slot = c->sink.define(c->sink.context, &counter);
    if (instance->series[row].slot < 0)
        c->refused++;
}

/* Whether the row's series can take a value or gap now; the first of a sample wins. */
static bool prepare(struct os_counters *c, const struct group_type *type, struct instance *instance,
                    size_t row)
{
    assert(row < type->row_count);
    struct series *series = &instance->series[row];
    if (series->slot == SERIES_NEW)
        define(c, type, instance, row);
    if (series->slot < 0 || series->stamp == c->stamp)
        return false;
    return true;
}

void counter_value(struct os_counters *c, const struct group_type *type, struct instance *instance,
                   size_t row, uint64_t raw)
{
    uint32_t multiply = type->rows[row].multiply;
    if (!prepare(c, type, instance, row))
        return;
    struct series *series = &instance->series[row];
    if (raw > (uint64_t)INT64_MAX / multiply) {
        counter_gap(c, type, instance, row, "number is out of range");
        return;
    }
    series->stamp = c->stamp;
    series->raw = raw;
    series->has_value = true;
    c->sink.value(c->sink.context, series->slot, (int64_t)(raw * multiply));
}

void counter_gap(struct os_counters *c, const struct group_type *type, struct instance *instance,
                 size_t row, const char *reason)
{
    if (!prepare(c, type, instance, row))
        return;
    struct series *series = &instance->series[row];
    series->stamp = c->stamp;
    series->has_value = false;
    c->sink.gap(c->sink.context, series->slot, reason);
}

bool counter_has(const struct os_counters *c, const struct instance *instance, size_t row)
{
    const struct series *series = &instance->series[row];
    return series->stamp == c->stamp && series->has_value;
}

void instance_end(struct os_counters *c, const struct group_type *type, struct instance *instance,
                  const char *reason)
{
    for (size_t i = 0; i < type->row_count; i++) {
        struct series *series = &instance->series[i];
        if (series->slot >= 0 && series->stamp != c->stamp)
            counter_gap(c, type, instance, i, reason);
    }
}

/* ---- groups ---- */

int group_init(struct series_group *group, const struct group_type *type)
{
    *group = (struct series_group){.type = type};
    if (type->limit > 0)
        return 0;
    group->list = calloc(1, sizeof *group->list);
    if (!group->list)
        return ERR_NOMEM;
    group->list[0] = instance_open(type, span_str(""), 0);
    if (!group->list[0]) {
        free(group->list);
        *group = (struct series_group){0};
        return ERR_NOMEM;
    }
    group->count = group->capacity = 1;
    return 0;
}

void group_done(struct series_group *group)
{
    for (size_t i = 0; i < group->count; i++)
        free(group->list[i]);
    free(group->list);
    *group = (struct series_group){0};
}

struct instance *group_host(struct series_group *group)
{
    assert(group->type->limit == 0);
    return group->list[0];
}

static struct instance *add(struct series_group *group, struct span name)
{
    if (group->count >= group->type->limit)
        return NULL;
    if (BUF_GROW(group->list, group->count, &group->capacity, 8))
        return NULL;
    struct instance *instance = instance_open(group->type, name, 0);
    if (instance)
        group->list[group->count++] = instance;
    return instance;
}

static bool is_named(const struct instance *instance, struct span name)
{
    return name.size_bytes < sizeof instance->name && instance->name[name.size_bytes] == '\0' &&
           (name.size_bytes == 0 || memcmp(instance->name, name.data, name.size_bytes) == 0);
}

/* Files keep their order, so the instance behind the one found last is looked at first. */
struct instance *group_find(struct os_counters *c, struct series_group *group, struct span name)
{
    struct instance *instance = NULL;
    if (name.size_bytes >= COUNTER_INSTANCE_SIZE)
        name.size_bytes = COUNTER_INSTANCE_SIZE - 1;
    for (size_t i = 0; i < group->count && !instance; i++) {
        size_t at = (group->cursor + i) % group->count;
        if (is_named(group->list[at], name)) {
            instance = group->list[at];
            group->cursor = at + 1;
        }
    }
    if (!instance)
        instance = add(group, name);
    if (!instance) {
        c->left_out++;
        return NULL;
    }
    instance->stamp = c->stamp;
    return instance;
}

void group_end(struct os_counters *c, struct series_group *group, const char *reason)
{
    size_t kept = 0;
    for (size_t i = 0; i < group->count; i++) {
        struct instance *instance = group->list[i];
        if (group->type->limit > 0 && instance->stamp != c->stamp) {
            instance_close(c, group->type, instance);
            continue;
        }
        instance_end(c, group->type, instance, reason);
        group->list[kept++] = instance;
    }
    group->count = kept;
    group->cursor = 0;
}

void group_gap(struct os_counters *c, struct series_group *group, const char *reason)
{
    for (size_t i = 0; i < group->count; i++)
        for (size_t row = 0; row < group->type->row_count; row++)
            counter_gap(c, group->type, group->list[i], row, reason);
}
