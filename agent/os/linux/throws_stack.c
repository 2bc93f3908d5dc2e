/* SPDX-License-Identifier: Apache-2.0 */
/* From a copied stack to named frames. See throws_stack.h. */
#include "agent/os/linux/throws_stack.h"

#include <string.h>

#include "agent/os/linux/stacks_text.h"
#include "common/text.h"

#define FNV_START UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)
#define DEEP "the stack goes on beyond what is copied of it"

static void put_frame(const struct unwind_frame *from, bool exact, struct os_frame *to)
{
    memset(to, 0, sizeof *to);
    to->exact = exact;
    if (from->function)
        (void)text_copy_span(to->function, sizeof to->function,
                             span_of(from->function, (size_t)stacks_name_length(from->function)));
    if (from->module) {
        size_t bytes = from->module->build_id_bytes;
        (void)text_copy(to->module, sizeof to->module, from->module->name);
        to->build_id_bytes = (uint32_t)(bytes < OS_BUILD_ID_SIZE ? bytes : OS_BUILD_ID_SIZE);
        memcpy(to->build_id, from->module->build_id, to->build_id_bytes);
    }
    to->offset = from->offset;
    if (from->file)
        (void)text_copy(to->file, sizeof to->file, stacks_base_name(from->file));
    to->line = from->line > 0 ? (uint32_t)from->line : 0;
    text_clean(to->function);
    text_clean(to->module);
    text_clean(to->file);
}

static void put_place(struct unwind *unwind, struct unwind_place place,
                      struct throws_sample *sample)
{
    struct unwind_frame frames[UNWIND_INLINED_MAX];
    size_t count = unwind_name(unwind, place, frames, UNWIND_INLINED_MAX);
    for (size_t i = 0; i < count && sample->frame_count < THROWS_FRAMES_MAX; i++)
        put_frame(&frames[i], place.exact, &sample->frames[sample->frame_count++]);
}

static void put_bare(uint64_t address, struct throws_sample *sample)
{
    struct os_frame *frame = &sample->frames[sample->frame_count++];
    memset(frame, 0, sizeof *frame);
    frame->offset = address;
}

bool throws_stack(struct unwind *unwind, const struct maps *maps, const struct throws_hit *hit,
                  struct throws_sample *sample)
{
    struct unwind_place places[THROWS_FRAMES_MAX + 1];
    struct user_regs_struct regs = {0};
    uint64_t place = 0;
    bool changed = false;
    memcpy(&regs, hit->registers, sizeof hit->registers);
    size_t bytes =
        hit->stack_bytes < THROWS_STACK_BYTES ? (size_t)hit->stack_bytes : THROWS_STACK_BYTES;
    struct unwind_thread thread = {.tid = (pid_t)sample->tid,
                                   .regs = &regs,
                                   .stack = hit->stack,
                                   .stack_start = regs.rsp,
                                   .stack_bytes = bytes};
    sample->key = FNV_START;
    sample->frame_count = 0;
    sample->why = NULL;
    if (bytes >= sizeof place)
        memcpy(&place, hit->stack, sizeof place);
    if (!unwind) {
        sample->key ^= place;
        sample->why = "its memory map could not be read";
        put_bare(place, sample);
        return true;
    }
    size_t count = unwind_walk(unwind, &thread, places, THROWS_FRAMES_MAX + 1, &sample->why);
    if (sample->why && bytes > 2 * THROWS_PAGE_BYTES)
        sample->why = DEEP;
    for (size_t i = 0; i < count; i++) {
        sample->key = (sample->key ^ places[i].pc) * FNV_PRIME;
        changed |= !maps_find(maps, places[i].pc);
        if (i > 0)
            put_place(unwind, places[i], sample);
    }
    if (count < 2)
        put_bare(place, sample);
    return changed;
}
