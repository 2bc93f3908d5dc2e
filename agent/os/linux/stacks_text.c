/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing grouped stacks for people and for flame graph tools. Invariant: what comes from the
 * process (names, paths) cannot harm a terminal; a group is written whole or not at all. Called by
 * stacks_finish.c.
 */
#include "agent/os/linux/stacks_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/text.h"

#define NAMES_SHOWN 8 /* threads of a group named on its first line */

/* First error of a row of appends; later ones then do nothing. */
struct writer {
    struct buf *out;
    int rc;
};

static void put(struct writer *w, const char *text)
{
    if (w->rc == 0)
        w->rc = buf_append_str(w->out, text);
}

static void put_safe(struct writer *w, const char *text)
{
    if (w->rc == 0)
        w->rc = text_append_safe(w->out, span_str(text), false);
}

TRAWL_PRINTF(2, 3) static void put_format(struct writer *w, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length > 0)
        put(w, text);
}

static void put_head(struct writer *w, const struct stacks_head *head)
{
    char when[32], pause[32], expected[32];
    if (head->text) {
        put(w, head->text);
        return;
    }
    text_put_time(head->wall_us, when, sizeof when);
    text_put_duration((int64_t)head->pause_us, pause, sizeof pause);
    text_put_duration((int64_t)head->expected_us, expected, sizeof expected);
    put(w, head->kind);
    put(w, " of '");
    put_safe(w, head->process);
    put_format(w, "', pid %" PRIu32 ", %s\n", head->pid, when);
    put_format(w, "%zu thread%s, ", head->threads, head->threads == 1 ? "" : "s");
    if (head->paused)
        put_format(w, "pause %s (expected %s)\n", pause, expected);
    else
        put(w, "not stopped\n");
    if (head->missing[0]) {
        put(w, "missing: ");
        put_safe(w, head->missing);
        put(w, "\n");
    }
}

static void put_function(struct writer *w, const char *function)
{
    if (w->rc == 0)
        w->rc = text_append_safe(w->out, span_of(function, (size_t)stacks_name_length(function)),
                                 false);
}

/* "function (file.py:12) [python]" */
static void put_python(struct writer *w, const struct unwind_frame *frame)
{
    put_safe(w, frame->function ? frame->function : "??");
    if (frame->file) {
        put(w, " (");
        put_safe(w, frame->file);
        put_format(w, ":%d)", frame->line);
    }
    put(w, " [python]");
}

/* "function+0x12 at file:line (module+0x345)" */
static void put_frame(struct writer *w, struct unwind_place place, const struct unwind_frame *frame)
{
    if (frame->kind == UNWIND_PYTHON) {
        put_python(w, frame);
        return;
    }
    if (frame->function)
        put_function(w, frame->function);
    else
        put(w, "??");
    if (frame->function && !frame->inlined)
        put_format(w, "+0x%" PRIx64, frame->function_offset);
    if (frame->file) {
        put(w, " at ");
        put_safe(w, frame->file);
        put_format(w, ":%d", frame->line);
    }
    put(w, frame->inlined ? " (inlined, " : " (");
    if (frame->module) {
        put_safe(w, frame->module->name);
        put(w, "+");
    }
    put_format(w, "0x%" PRIx64 ")", frame->module ? frame->offset : place.pc);
    if (frame->kind == UNWIND_JIT)
        put(w, " [jit]");
    if (place.signal)
        put(w, " [signal handler called]");
    if (place.by_frame_pointer)
        put(w, " [by frame pointer]");
    if (place.by_call_site)
        put(w, " [by call site]");
}

static void put_members(struct writer *w, const struct stacks_set *set,
                        const struct stacks_group *group)
{
    put_format(w, "\n%zu thread%s:", group->count, group->count == 1 ? "" : "s");
    for (size_t i = 0; i < group->count && i < NAMES_SHOWN; i++) {
        const struct stacks_thread *thread = &set->threads[set->order[group->first + i]];
        put(w, i ? ", " : " ");
        put_safe(w, thread->comm);
        put_format(w, " (%d)", thread->tid);
    }
    if (group->count > NAMES_SHOWN)
        put_format(w, " and %zu more", group->count - NAMES_SHOWN);
    put(w, "\n");
}

static void put_frames(struct writer *w, const struct stacks_set *set,
                       const struct stacks_thread *thread)
{
    size_t number = 0;
    for (size_t i = 0; i < thread->count; i++) {
        struct unwind_place place = set->places[thread->first + i];
        const struct unwind_frame *frames;
        size_t count = stacks_names(set, place, &frames);
        for (size_t k = 0; k < count; k++) {
            put_format(w, "#%-3zu ", number++);
            put_frame(w, place, &frames[k]);
            put(w, "\n");
        }
    }
    if (thread->why)
        put_format(w, "     (no %sframes: %s)\n", thread->count ? "more " : "", thread->why);
}

static void put_group(struct writer *w, const struct stacks_set *set,
                      const struct stacks_group *group)
{
    put_members(w, set, group);
    put_frames(w, set, &set->threads[set->order[group->first]]);
}

int stacks_write_thread(const struct stacks_set *set, const struct stacks_thread *thread,
                        struct buf *out)
{
    struct writer w = {out, 0};
    put_frames(&w, set, thread);
    return w.rc;
}

static void put_module(struct writer *w, const struct unwind_module *module)
{
    char id[2 * UNWIND_BUILD_ID_SIZE + 1];
    text_put_hex(module->build_id, module->build_id_bytes, id);
    put_format(w, "0x%012" PRIx64 "-0x%012" PRIx64 " %s ", module->start, module->end,
               module->build_id_bytes ? id : "-");
    put_safe(w, module->path);
    if (module->missing)
        put_format(w, " (%s)", module->missing);
    put(w, "\n");
}

static void put_folded_name(struct writer *w, const struct unwind_frame *frame)
{
    if (frame->kind == UNWIND_PYTHON && frame->function) {
        put_safe(w, frame->function);
        put(w, " (");
        put_safe(w, frame->file ? stacks_base_name(frame->file) : "?");
        put_format(w, ":%d)", frame->line);
    } else if (frame->function) {
        put_function(w, frame->function);
    } else if (frame->module) {
        put_safe(w, frame->module->name);
    } else {
        put(w, frame->kind == UNWIND_JIT ? "[jit]" : "??");
    }
}

/* A ';' separates frames in the folded form, so none may stand in a name. */
static void put_folded_frame(struct writer *w, const struct unwind_frame *frame)
{
    size_t begin = w->out->size_bytes;
    put_folded_name(w, frame);
    for (size_t i = begin; w->rc == 0 && i < w->out->size_bytes; i++) {
        if (w->out->data[i] == ';')
            w->out->data[i] = ':';
    }
    if (!frame->function && frame->module)
        put_format(w, "+0x%" PRIx64, frame->offset);
}

/* "process;outermost;...;innermost count", as flame graph tools read it. */
static void put_folded(struct writer *w, const struct stacks_set *set, const char *process,
                       const struct stacks_group *group)
{
    const struct stacks_thread *thread = &set->threads[set->order[group->first]];
    struct unwind_frame root = {.function = process};
    put_folded_frame(w, &root);
    for (size_t i = thread->count; i-- > 0;) {
        const struct unwind_frame *frames;
        size_t count = stacks_names(set, set->places[thread->first + i], &frames);
        while (count-- > 0) {
            put(w, ";");
            put_folded_frame(w, &frames[count]);
        }
    }
    put_format(w, " %zu\n", group->count);
}

/* Ends one piece: kept if it fitted, else taken back. Returns whether to go on. */
static bool keep_piece(struct writer *w, size_t mark)
{
    if (w->rc == 0)
        return true;
    w->out->size_bytes = mark;
    return false;
}

/* A limit is no failure once the head stands; running out of memory is. */
static int verdict_of(const struct writer *w)
{
    return w->rc == ERR_LIMIT ? 0 : w->rc;
}

static void put_modules(struct writer *w, const struct unwind_module *modules, size_t count)
{
    size_t mark = w->out->size_bytes;
    put(w, "\n--- modules ---\n");
    for (size_t i = 0; i < count; i++)
        put_module(w, &modules[i]);
    keep_piece(w, mark);
}

int stacks_write(const struct stacks_set *set, const struct stacks_head *head,
                 const struct unwind_module *modules, size_t module_count, struct buf *out,
                 size_t *left_out)
{
    struct writer w = {out, 0};
    size_t written = 0, mark = out->size_bytes;
    put_head(&w, head);
    if (!keep_piece(&w, mark))
        return w.rc;
    for (; written < set->group_count; written++) {
        mark = out->size_bytes;
        put_group(&w, set, &set->groups[written]);
        if (!keep_piece(&w, mark))
            break;
    }
    *left_out = set->group_count - written;
    if (w.rc == 0)
        put_modules(&w, modules, module_count);
    return verdict_of(&w);
}

int stacks_write_folded(const struct stacks_set *set, const struct stacks_head *head,
                        const struct unwind_module *modules, size_t module_count, struct buf *out,
                        size_t *left_out)
{
    struct writer w = {out, 0};
    size_t written = 0;
    (void)modules;
    (void)module_count;
    for (; written < set->group_count; written++) {
        size_t mark = out->size_bytes;
        put_folded(&w, set, head->process, &set->groups[written]);
        if (!keep_piece(&w, mark))
            break;
    }
    *left_out = set->group_count - written;
    return verdict_of(&w);
}
