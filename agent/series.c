/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series by slot, and their slots in the order of their ids: new series always have the highest id,
 * so the order is kept by appending. Called by the sampler.
 */
#include "agent/series.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define FIRST_SLOTS 64
#define NAMES_MAX 1024
#define DESCRIPTORS (sizeof(((trawl_v1_Descriptors *)0)->list) / sizeof(trawl_v1_Descriptor))

struct series {
    uint32_t id; /* 0: slot is free */
    uint32_t scale, pid;
    enum os_counter_kind kind;
    bool is_retired;
    bool is_set;  /* in the newest sample */
    char *name;   /* name, instance and unit, each terminated, in one allocation */
    char *reason; /* of the latest gap; NULL: none was given */
    int64_t values[SERIES_SAMPLES];
};

struct series_table {
    struct series *slots;
    uint32_t *order; /* slots by rising id */
    size_t slot_count, order_count, limit;
    size_t samples, values_set;
    uint32_t last_id;
    size_t free_hint;
};

int series_open(struct series_table **out, size_t limit)
{
    struct series_table *table = calloc(1, sizeof *table);
    if (!table)
        return ERR_NOMEM;
    table->limit = limit < BLOCK_MAX_SERIES ? limit : BLOCK_MAX_SERIES;
    *out = table;
    return 0;
}

static void release(struct series *s)
{
    free(s->name);
    free(s->reason);
    *s = (struct series){0};
}

void series_close(struct series_table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->slot_count; i++)
        release(&table->slots[i]);
    free(table->slots);
    free(table->order);
    free(table);
}

/* ---- defining ---- */

static int grow(struct series_table *table)
{
    size_t count = table->slot_count ? table->slot_count + table->slot_count / 2 : FIRST_SLOTS;
    if (count > table->limit)
        count = table->limit;
    if (count <= table->slot_count)
        return ERR_LIMIT;
    struct series *slots = realloc(table->slots, count * sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    table->slots = slots;
    uint32_t *order = realloc(table->order, count * sizeof *order);
    if (!order)
        return ERR_NOMEM;
    table->order = order;
    memset(slots + table->slot_count, 0, (count - table->slot_count) * sizeof *slots);
    table->slot_count = count;
    return 0;
}

static int free_slot(struct series_table *table, size_t *out)
{
    for (size_t i = 0; i < table->slot_count; i++) {
        size_t at = (table->free_hint + i) % table->slot_count;
        if (table->slots[at].id == 0) {
            table->free_hint = at + 1;
            *out = at;
            return 0;
        }
    }
    size_t at = table->slot_count;
    int e = grow(table);
    if (!e)
        *out = at;
    return e;
}

/* Names of processes and devices may hold any byte; what is kept is printable UTF-8. */
static int add_name(struct buf *out, const char *text)
{
    int e = text_append_safe(out, span_str(text), false);
    return e ? e : buf_append_byte(out, 0);
}

static char *pack_names(const struct os_counter *counter)
{
    struct buf text;
    size_t size;
    buf_init(&text, NAMES_MAX);
    if (add_name(&text, counter->name) || add_name(&text, counter->instance) ||
        add_name(&text, counter->unit)) {
        buf_done(&text);
        return NULL;
    }
    char *exact = realloc(text.data, text.size_bytes);
    if (exact)
        return exact;
    return (char *)buf_take(&text, &size);
}

int series_define(struct series_table *table, const struct os_counter *counter)
{
    size_t slot;
    int e = table->last_id == UINT32_MAX ? ERR_LIMIT : free_slot(table, &slot);
    if (e)
        return e;
    char *names = pack_names(counter);
    if (!names)
        return ERR_NOMEM;
    struct series *s = &table->slots[slot];
    *s = (struct series){.id = ++table->last_id,
                         .scale = counter->scale ? counter->scale : 1,
                         .pid = counter->pid,
                         .kind = counter->kind,
                         .name = names};
    for (size_t i = 0; i < SERIES_SAMPLES; i++)
        s->values[i] = BLOCK_GAP;
    table->order[table->order_count++] = (uint32_t)slot;
    return (int)slot;
}

/* ---- sampling ---- */

static struct series *at_slot(struct series_table *table, int slot)
{
    assert(slot >= 0 && (size_t)slot < table->slot_count && table->slots[slot].id);
    return &table->slots[slot];
}

void series_value(struct series_table *table, int slot, int64_t value)
{
    struct series *s = at_slot(table, slot);
    if (table->samples == 0)
        return;
    table->values_set += !s->is_set;
    s->is_set = true;
    s->values[table->samples - 1] = value;
}

static void set_reason(struct series *s, const char *reason)
{
    if (s->reason && strcmp(s->reason, reason) == 0)
        return;
    size_t size = strlen(reason) + 1;
    char *copy = malloc(size);
    if (!copy)
        return;
    memcpy(copy, reason, size);
    free(s->reason);
    s->reason = copy;
}

void series_gap(struct series_table *table, int slot, const char *reason)
{
    set_reason(at_slot(table, slot), reason);
}

void series_retire(struct series_table *table, int slot)
{
    struct series *s = at_slot(table, slot);
    s->is_retired = true;
    if (!s->reason)
        set_reason(s, s->pid ? "the process has ended" : "it is no longer there");
}

void series_next_sample(struct series_table *table, const char *reason)
{
    assert(table->samples < SERIES_SAMPLES);
    table->samples++;
    table->values_set = 0;
    for (size_t i = 0; i < table->order_count; i++) {
        struct series *s = &table->slots[table->order[i]];
        s->is_set = false;
        if (reason)
            set_reason(s, reason);
    }
}

size_t series_samples(const struct series_table *table)
{
    return table->samples;
}

size_t series_count(const struct series_table *table)
{
    return table->order_count;
}

size_t series_values_set(const struct series_table *table)
{
    return table->values_set;
}

/* ---- looking ---- */

size_t series_slots(const struct series_table *table)
{
    return table->slot_count;
}

bool series_look(const struct series_table *table, uint32_t slot, struct series_view *out)
{
    if (slot >= table->slot_count || !table->slots[slot].id)
        return false;
    const struct series *s = &table->slots[slot];
    const char *instance = s->name + strlen(s->name) + 1;
    bool has_value = s->is_set && table->samples > 0;
    *out = (struct series_view){.id = s->id,
                                .name = s->name,
                                .instance = instance,
                                .unit = instance + strlen(instance) + 1,
                                .kind = s->kind,
                                .scale = s->scale,
                                .pid = s->pid,
                                .is_retired = s->is_retired,
                                .value = has_value ? s->values[table->samples - 1] : BLOCK_GAP,
                                .reason = s->reason};
    return true;
}

/* ---- cutting ---- */

static bool has_gap(const struct series *s, size_t samples)
{
    for (size_t i = 0; i < samples; i++)
        if (s->values[i] == BLOCK_GAP)
            return true;
    return false;
}

/* A retired series without a single value in this block says nothing. */
static bool is_silent(const struct series *s, size_t samples)
{
    for (size_t i = 0; i < samples && s->is_retired; i++)
        if (s->values[i] != BLOCK_GAP)
            return false;
    return s->is_retired;
}

static const char *reason_of(const struct series *s, size_t samples)
{
    if (!has_gap(s, samples))
        return "";
    return s->reason ? s->reason : "not there yet, or not read";
}

size_t series_rows(const struct series_table *table, uint32_t from_id, struct block_series *rows,
                   size_t limit)
{
    size_t count = 0;
    for (size_t i = 0; i < table->order_count && count < limit; i++) {
        const struct series *s = &table->slots[table->order[i]];
        if (s->id < from_id || is_silent(s, table->samples))
            continue;
        rows[count++] = (struct block_series){s->id, s->values, reason_of(s, table->samples)};
    }
    return count;
}

void series_clear(struct series_table *table)
{
    size_t kept = 0;
    for (size_t i = 0; i < table->order_count; i++) {
        uint32_t slot = table->order[i];
        struct series *s = &table->slots[slot];
        if (s->is_retired) {
            release(s);
            continue;
        }
        for (size_t j = 0; j < SERIES_SAMPLES; j++)
            s->values[j] = BLOCK_GAP;
        table->order[kept++] = slot;
    }
    table->order_count = kept;
    table->samples = 0;
    table->values_set = 0;
}

/* ---- describing ---- */

static void describe(const struct series *s, trawl_v1_Descriptor *out)
{
    const char *instance = s->name + strlen(s->name) + 1;
    const char *unit = instance + strlen(instance) + 1;
    *out = (trawl_v1_Descriptor){
        .id = s->id, .kind = (trawl_v1_Kind)s->kind, .scale = s->scale, .pid = s->pid};
    text_copy(out->name, sizeof out->name, s->name);
    text_copy(out->instance, sizeof out->instance, instance);
    text_copy(out->unit, sizeof out->unit, unit);
}

size_t series_describe(const struct series_table *table, uint32_t *after, bool living_only,
                       trawl_v1_Descriptors *out)
{
    out->list_count = 0;
    for (size_t i = 0; i < table->order_count && out->list_count < DESCRIPTORS; i++) {
        const struct series *s = &table->slots[table->order[i]];
        if (s->id <= *after)
            continue;
        *after = s->id;
        if (!living_only || !is_silent(s, table->samples))
            describe(s, &out->list[out->list_count++]);
    }
    return out->list_count;
}

uint32_t series_last_id(const struct series_table *table)
{
    return table->last_id;
}
