/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which series each condition looks at. Invariant: names are compared here, when a series appears,
 * and never in a step; a cell belongs to one series from its definition to its retirement. Called
 * by those who define series, through engine.h.
 */
#include "rule/engine_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define SECOND_US UINT64_C(1000000)

uint32_t engine_hash(const char *text)
{
    uint32_t hash = 2166136261u;
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 16777619u;
    return hash;
}

static bool is_counter(const struct rule_term *t)
{
    return t->kind == RULE_COUNTER || t->kind == RULE_RATIO || t->kind == RULE_AGO;
}

/* ---- form ---- */

static enum value_form form_of(const struct rule_term *t)
{
    if (t->kind == RULE_RATIO)
        return FORM_RATIO;
    if (t->kind == RULE_AGO)
        return FORM_AGO;
    if (t->limit.unit == RULE_PERCENT || t->limit.per == RULE_PER_S)
        return FORM_RATE;
    return t->limit.per == RULE_LEVEL ? FORM_LEVEL : FORM_CHANGE;
}

/* "cpu.busy > 90%" is of all processors together; cpu.core.* are of one. */
static bool is_by_cpus(const struct rule_term *t, const struct rule_series *s)
{
    return t->kind == RULE_COUNTER && t->limit.unit == RULE_PERCENT &&
           strncmp(s->name, "cpu.", 4) == 0 && !*s->instance;
}

static struct window *make_window(struct rule_engine *e, const struct rule_term *t)
{
    if (e->window_count == RULE_WINDOWS_MAX)
        return NULL;
    struct window *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    uint64_t window_us = t->kind == RULE_AGO          ? (uint64_t)t->window_us
                         : t->limit.per == RULE_PER_M ? 60 * SECOND_US
                                                      : 3600 * SECOND_US;
    w->bucket_us = window_us / WINDOW_BUCKETS;
    e->window_count++;
    return w;
}

/* ---- ratios ---- */

static int find_base(const struct term_state *t, const struct reading *r)
{
    int host = -1;
    for (uint32_t i = 0; i < t->base_count; i++) {
        const struct reading *b = &t->bases[i];
        bool is_same = b->pid == r->pid && strcmp(b->instance, r->instance) == 0;
        if (is_same || *t->term->other_of)
            return (int)i;
        if (!*b->instance)
            host = (int)i;
    }
    return host;
}

static void link_bases(struct term_state *t)
{
    for (uint32_t i = 0; i < t->cell_count; i++)
        t->cells[i].base = find_base(t, &t->cells[i].r);
}

/* ---- defining ---- */

static bool means(const char *name, uint32_t hash, const char *of, const struct rule_series *s,
                  uint32_t series_hash)
{
    return hash == series_hash && strcmp(name, s->name) == 0 &&
           (!*of || text_glob(of, s->instance));
}

static int make_reading(struct reading *r, uint32_t slot, const struct rule_series *s)
{
    size_t size = strlen(s->instance) + 1;
    *r = (struct reading){.slot = slot, .pid = s->pid, .is_count = s->is_count};
    r->scale = s->scale ? s->scale : 1;
    r->instance = malloc(size);
    if (!r->instance)
        return ERR_NOMEM;
    memcpy(r->instance, s->instance, size);
    return 0;
}

static int grow(void **list, uint32_t count, uint32_t *capacity, size_t size)
{
    if (count < *capacity)
        return 0;
    uint32_t more = *capacity ? 2 * *capacity : 4;
    void *grown = realloc(*list, more * size);
    if (!grown)
        return ERR_NOMEM;
    *list = grown;
    *capacity = more;
    return 0;
}

static int add_cell(struct rule_engine *e, struct term_state *t, uint32_t slot,
                    const struct rule_series *s)
{
    if (e->cell_count == RULE_CELLS_MAX)
        return ERR_LIMIT;
    void *list = t->cells;
    int r = grow(&list, t->cell_count, &t->cell_capacity, sizeof *t->cells);
    t->cells = list;
    if (r)
        return r;
    struct cell *c = &t->cells[t->cell_count];
    *c = (struct cell){.form = form_of(t->term), .base = -1};
    r = make_reading(&c->r, slot, s);
    if (r)
        return r;
    c->misfit = rule_term_misfit(t->term, s->unit, s->is_count);
    if (c->misfit)
        c->form = FORM_WRONG;
    c->by_cpus = is_by_cpus(t->term, s);
    c->shown = strcmp(s->unit, "bytes") == 0 ? SHOWN_BYTES
               : strcmp(s->unit, "us") == 0  ? SHOWN_TIME
                                             : SHOWN_PLAIN;
    if (c->form == FORM_CHANGE || c->form == FORM_AGO)
        c->window = make_window(e, t->term);
    c->base = find_base(t, &c->r);
    t->cell_count++;
    e->cell_count++;
    return 1;
}

static int add_base(struct rule_engine *e, struct term_state *t, uint32_t slot,
                    const struct rule_series *s)
{
    if (e->cell_count == RULE_CELLS_MAX)
        return ERR_LIMIT;
    void *list = t->bases;
    int r = grow(&list, t->base_count, &t->base_capacity, sizeof *t->bases);
    t->bases = list;
    if (!r)
        r = make_reading(&t->bases[t->base_count], slot, s);
    if (r)
        return r;
    t->base_count++;
    e->cell_count++;
    link_bases(t);
    return 1;
}

static int define_in(struct rule_engine *e, struct term_state *t, uint32_t slot,
                     const struct rule_series *s, uint32_t hash)
{
    int used = 0;
    if (!is_counter(t->term))
        return 0;
    if (means(t->term->name, t->name_hash, t->term->of, s, hash))
        used = add_cell(e, t, slot, s);
    if (used >= 0 && t->term->kind == RULE_RATIO &&
        means(t->term->other, t->other_hash, t->term->other_of, s, hash)) {
        int r = add_base(e, t, slot, s);
        used = r < 0 ? r : 1;
    }
    return used;
}

/* cpu.count is read for every '%' of all processors, whoever asks. */
static bool define_cpus(struct rule_engine *e, uint32_t slot, const struct rule_series *s)
{
    if (strcmp(s->name, "cpu.count") != 0 || *s->instance)
        return false;
    e->cpus_slot = slot;
    e->cpus_scale = s->scale ? s->scale : 1;
    return true;
}

int rule_engine_define(struct rule_engine *e, uint32_t slot, const struct rule_series *s)
{
    if (slot >= RULE_SLOTS_MAX)
        return ERR_LIMIT;
    rule_engine_retire(e, slot);
    uint32_t hash = engine_hash(s->name);
    int used = define_cpus(e, slot, s);
    for (size_t i = 0; used >= 0 && i < e->set->term_count; i++) {
        int r = define_in(e, &e->terms[i], slot, s, hash);
        used = r < 0 ? r : used | r;
    }
    if (used)
        e->used[slot / 8] |= (uint8_t)(1u << slot % 8);
    if (used < 0)
        rule_engine_retire(e, slot); /* all of it or nothing */
    return used;
}

/* ---- retiring ---- */

static void cell_done(struct rule_engine *e, struct cell *c)
{
    if (c->window)
        e->window_count--;
    free(c->window);
    free(c->r.instance);
    e->cell_count--;
}

static void retire_in(struct rule_engine *e, struct term_state *t, uint32_t slot)
{
    uint32_t bases = t->base_count;
    for (uint32_t i = t->cell_count; i-- > 0;) {
        if (t->cells[i].r.slot != slot)
            continue;
        cell_done(e, &t->cells[i]);
        t->cells[i] = t->cells[--t->cell_count];
    }
    for (uint32_t i = t->base_count; i-- > 0;) {
        if (t->bases[i].slot != slot)
            continue;
        free(t->bases[i].instance);
        e->cell_count--;
        t->bases[i] = t->bases[--t->base_count];
    }
    if (t->base_count != bases)
        link_bases(t);
}

void rule_engine_retire(struct rule_engine *e, uint32_t slot)
{
    if (slot >= RULE_SLOTS_MAX || !(e->used[slot / 8] >> slot % 8 & 1))
        return;
    e->used[slot / 8] &= (uint8_t) ~(1u << slot % 8);
    if (e->cpus_slot == slot)
        e->cpus_slot = SLOT_NONE;
    for (size_t i = 0; i < e->set->term_count; i++)
        retire_in(e, &e->terms[i], slot);
}
