/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places and names of the profiled process's code (profile_code.h). Invariant: places of one era
 * are walked and named with the unwinder of that era. Called by profile*.c.
 */
#include "agent/os/linux/profile_code.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/perf_record.h"
#include "agent/os/linux/stacks_text.h"
#include "common/text.h"

static int start(struct profile_code *code, struct failure *f)
{
    const struct unwind_module *modules;
    int e = maps_read(&code->maps, (uint32_t)code->pid, f);
    if (!e)
        e = unwind_open(&code->unwind, code->pid, &code->maps, f);
    if (!e)
        e = unwind_start(code->unwind, f);
    if (e)
        return e;
    code->modules = calloc(unwind_modules(code->unwind, &modules) + 1, sizeof *code->modules);
    if (!code->modules)
        return fail(f, ERR_NOMEM, "no memory for the modules");
    code->modules_left = unwind_modules_left(code->unwind);
    return 0;
}

static void stop(struct profile_code *code)
{
    if (code->unwind)
        code->lines_cut |= unwind_lines_cut(code->unwind);
    unwind_close(code->unwind);
    maps_done(&code->maps);
    free(code->modules);
    code->unwind = NULL;
    code->modules = NULL;
}

int profile_code_open(struct profile_code *code, struct profile_set *set, pid_t pid,
                      struct failure *f)
{
    memset(code, 0, sizeof *code);
    code->pid = pid;
    code->set = set;
    maps_init(&code->maps);
    int e = start(code, f);
    if (e)
        profile_code_close(code);
    return e;
}

void profile_code_close(struct profile_code *code)
{
    stop(code);
}

/* ---- walking ---- */

int profile_code_walk(struct profile_code *code, const struct unwind_thread *thread,
                      uint32_t *locations, size_t max, size_t *count)
{
    struct unwind_place places[UNWIND_FRAMES_MAX];
    const char *why = "no stack";
    size_t found = 1;
    if (code->unwind)
        found = unwind_walk(code->unwind, thread, places, UNWIND_FRAMES_MAX, &why);
    else
        places[0] = (struct unwind_place){.pc = thread->regs->rip, .exact = true};
    bool deep = why && thread->stack_bytes >= PERF_STACK_BYTES;
    code->walked++;
    code->deep += deep;
    code->broken += why && !deep;
    for (size_t i = 0; i < found && *count < max; i++) {
        uint64_t pc = places[i].pc;
        if (!code->told)
            code->stale |= !maps_find(&code->maps, places[i].exact || pc == 0 ? pc : pc - 1);
        int e = profile_location(code->set, places[i].exact ? PROFILE_EXACT : PROFILE_RETURN, pc,
                                 &locations[*count]);
        if (e)
            return e;
        (*count)++;
    }
    uint32_t cut;
    const char *words = deep ? "[stack goes on]" : "[not unwound further]";
    if (why && *count < max && profile_words(code->set, words, &cut) == 0)
        locations[(*count)++] = cut;
    return 0;
}

/* ---- naming ---- */

/* The set's copy of a module, made when one of its places is named. */
static int copy_module(struct profile_code *code, const struct unwind_module *module, uint32_t *out)
{
    const struct unwind_module *list;
    char hex[2 * UNWIND_BUILD_ID_SIZE + 1];
    unwind_modules(code->unwind, &list);
    uint32_t *known = &code->modules[module - list];
    if (*known == 0) {
        struct profile_module copy = {.start = module->start, .end = module->end};
        uint32_t number;
        text_put_hex(module->build_id, module->build_id_bytes, hex);
        int e = profile_text(code->set, module->path, &copy.path);
        if (!e)
            e = profile_text(code->set, hex, &copy.build_id);
        if (!e)
            e = profile_module(code->set, &copy, &number);
        if (e)
            return e;
        *known = number + 1;
    }
    *out = *known;
    return 0;
}

static int copy_frame(struct profile_code *code, const struct unwind_frame *from,
                      struct profile_frame *to)
{
    char name[PROFILE_TEXT_MAX + 1];
    if (from->function)
        text_copy_span(name, sizeof name,
                       span_of(from->function, (size_t)stacks_name_length(from->function)));
    else if (from->module)
        text_format(name, sizeof name, "%s+0x%" PRIx64, from->module->name, from->offset);
    else
        text_copy(name, sizeof name, "[unknown]");
    to->line = from->line > 0 ? (uint32_t)from->line : 0;
    int e = profile_text(code->set, name, &to->function);
    return e ? e : profile_text(code->set, from->file ? from->file : "", &to->file);
}

static int name_location(struct profile_code *code, uint32_t number)
{
    struct unwind_frame from[UNWIND_INLINED_MAX];
    struct profile_frame to[UNWIND_INLINED_MAX];
    struct profile_location *l = &code->set->locations[number];
    struct unwind_place place = {.pc = l->pc, .exact = l->place == PROFILE_EXACT};
    size_t count = unwind_name(code->unwind, place, from, UNWIND_INLINED_MAX);
    int e = 0;
    for (size_t i = 0; i < count && !e; i++)
        e = copy_frame(code, &from[i], &to[i]);
    if (!e && from[0].module)
        e = copy_module(code, from[0].module, &l->module);
    return e ? e : profile_name(code->set, number, to, count);
}

static bool maps_has_file(const struct maps *maps, uint64_t address)
{
    const struct map *map = maps_find(maps, address);
    return map && maps_path(maps, map)[0] == '/';
}

/* In this era, and has no name yet. */
static bool wants_name(const struct profile_set *set, const struct profile_location *l)
{
    bool user = l->place == PROFILE_EXACT || l->place == PROFILE_RETURN;
    return user && l->count == 0 && l->era == set->era;
}

/* Names that the process has written down; too many of them are no failure. */
static int learn_names(struct profile_code *code)
{
    const struct profile_set *set = code->set;
    struct unwind_place *places = calloc(set->location_count + 1, sizeof *places);
    size_t count = 0;
    if (!places)
        return ERR_NOMEM;
    for (size_t i = 0; i < set->location_count; i++) {
        const struct profile_location *l = &set->locations[i];
        if (wants_name(set, l) && !maps_has_file(&code->maps, l->pc))
            places[count++] =
                (struct unwind_place){.pc = l->pc, .exact = l->place == PROFILE_EXACT};
    }
    int e = count ? unwind_learn(code->unwind, places, count, NULL) : 0;
    free(places);
    code->names_cut |= e == ERR_LIMIT || unwind_names_cut(code->unwind);
    return e == ERR_LIMIT ? 0 : e;
}

int profile_code_name(struct profile_code *code)
{
    int e = code->unwind ? learn_names(code) : 0;
    for (size_t i = 0; i < code->set->location_count && !e && code->unwind; i++)
        if (wants_name(code->set, &code->set->locations[i]))
            e = name_location(code, (uint32_t)i);
    return e;
}

/* ---- renewing ---- */

void profile_code_refresh(struct profile_code *code, uint64_t now_us)
{
    if (!code->stale || now_us - code->renewed_us < PROFILE_RENEWAL_US)
        return;
    code->stale = false;
    code->renewed_us = now_us;
    if (code->renewals == PROFILE_RENEWALS_MAX || profile_code_name(code) != 0) {
        code->changed_unseen = true;
        return;
    }
    code->renewals++;
    stop(code);
    profile_next_era(code->set);
    maps_init(&code->maps);
    if (start(code, NULL)) {
        stop(code);
        maps_init(&code->maps);
        code->changed_unseen = true;
    }
}
