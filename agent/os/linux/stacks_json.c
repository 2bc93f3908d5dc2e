/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grouped stacks as one JSON object. Invariant: the object is whole however many groups did not
 * fit. Called by stacks_finish.c.
 */
#include <string.h>

#include "agent/os/linux/json_text.h"
#include "agent/os/linux/stacks_text.h"
#include "common/text.h"

#define TAIL_BYTES 64 /* what must stay free behind a group: the ends, and how many are missing */

static void put_head(struct json_text *j, const struct stacks_head *head)
{
    char when[32];
    text_put_time(head->wall_us, when, sizeof when);
    json_text_str(j, "kind", head->kind);
    json_text_str(j, "process", head->process);
    json_text_u64(j, "pid", head->pid);
    json_text_str(j, "time", when);
    json_text_bool(j, "paused", head->paused);
    json_text_u64(j, "pause_us", head->pause_us);
    json_text_u64(j, "expected_us", head->expected_us);
    json_text_u64(j, "threads", head->threads);
    json_text_str(j, "missing", head->missing);
}

static void put_build_id(struct json_text *j, const struct unwind_module *module)
{
    if (module->build_id_bytes)
        json_text_hex(j, "build_id", module->build_id, module->build_id_bytes);
    else
        json_text_null(j, "build_id");
}

static void put_function(struct json_text *j, const struct unwind_frame *frame)
{
    if (!frame->function)
        json_text_null(j, "function");
    else if (frame->kind == UNWIND_PYTHON)
        json_text_str(j, "function", frame->function);
    else
        json_text_span(j, "function",
                       span_of(frame->function, (size_t)stacks_name_length(frame->function)));
}

static void put_frame(struct json_text *j, struct unwind_place place,
                      const struct unwind_frame *frame)
{
    static const char *const kinds[] = {"native", "jit", "python"};
    json_text_object(j, NULL);
    json_text_str(j, "kind", kinds[frame->kind]);
    put_function(j, frame);
    if (frame->kind != UNWIND_PYTHON) {
        json_text_u64(j, "function_offset", frame->function_offset);
        json_text_bool(j, "inlined", frame->inlined);
        json_text_address(j, "address", place.pc);
    }
    if (frame->module) {
        json_text_str(j, "module", frame->module->name);
        put_build_id(j, frame->module);
        json_text_address(j, "offset", frame->offset);
    }
    if (frame->file) {
        json_text_str(j, "file", frame->file);
        json_text_i64(j, "line", frame->line);
    }
    if (place.signal)
        json_text_bool(j, "signal", true);
    if (place.by_frame_pointer)
        json_text_bool(j, "by_frame_pointer", true);
    if (place.by_call_site)
        json_text_bool(j, "by_call_site", true);
    json_text_end(j);
}

static void put_frames(struct json_text *j, const struct stacks_set *set,
                       const struct stacks_thread *thread)
{
    json_text_array(j, "frames");
    for (size_t i = 0; i < thread->count; i++) {
        struct unwind_place place = set->places[thread->first + i];
        const struct unwind_frame *frames;
        size_t count = stacks_names(set, place, &frames);
        for (size_t k = 0; k < count; k++)
            put_frame(j, place, &frames[k]);
    }
    json_text_end(j);
}

static void put_threads(struct json_text *j, const struct stacks_set *set,
                        const struct stacks_group *group)
{
    json_text_array(j, "threads");
    for (size_t i = 0; i < group->count; i++) {
        const struct stacks_thread *thread = &set->threads[set->order[group->first + i]];
        json_text_object(j, NULL);
        json_text_i64(j, "tid", thread->tid);
        json_text_str(j, "name", thread->comm);
        if (thread->state)
            json_text_span(j, "state", span_of(&thread->state, 1));
        else
            json_text_null(j, "state");
        json_text_end(j);
    }
    json_text_end(j);
}

static void put_group(struct json_text *j, const struct stacks_set *set,
                      const struct stacks_group *group)
{
    const struct stacks_thread *thread = &set->threads[set->order[group->first]];
    json_text_object(j, NULL);
    json_text_u64(j, "count", group->count);
    json_text_hex(j, "signature", group->signature, sizeof group->signature);
    json_text_str(j, "why_no_more", thread->why);
    put_threads(j, set, group);
    put_frames(j, set, thread);
    json_text_end(j);
}

static void put_module(struct json_text *j, const struct unwind_module *module)
{
    json_text_object(j, NULL);
    json_text_str(j, "path", module->path);
    json_text_address(j, "start", module->start);
    json_text_address(j, "end", module->end);
    put_build_id(j, module);
    json_text_str(j, "missing", module->missing);
    json_text_end(j);
}

/* Whether what was written since `mark` may stay; else it is taken back. */
static bool keep(struct json_text *j, const struct json_text_mark *mark)
{
    if (j->rc == 0 && j->out->limit_bytes - j->out->size_bytes >= TAIL_BYTES)
        return true;
    json_text_undo(j, mark);
    return false;
}

int stacks_write_json(const struct stacks_set *set, const struct stacks_head *head,
                      const struct unwind_module *modules, size_t module_count, struct buf *out,
                      size_t *left_out)
{
    struct json_text j;
    size_t written = 0;
    bool fits = true;
    json_text_init(&j, out);
    json_text_object(&j, NULL);
    if (head->put_members)
        head->put_members(head->context, &j);
    else
        put_head(&j, head);
    json_text_array(&j, "modules");
    for (size_t i = 0; fits && i < module_count; i++) {
        struct json_text_mark mark = json_text_mark(&j);
        put_module(&j, &modules[i]);
        fits = keep(&j, &mark);
    }
    json_text_end(&j);
    json_text_array(&j, "groups");
    for (fits = true; fits && written < set->group_count; written += fits) {
        struct json_text_mark mark = json_text_mark(&j);
        put_group(&j, set, &set->groups[written]);
        fits = keep(&j, &mark);
    }
    json_text_end(&j);
    *left_out = set->group_count - written;
    json_text_u64(&j, "groups_left_out", *left_out);
    json_text_end(&j);
    if (j.rc == 0)
        j.rc = buf_append_byte(out, '\n');
    return j.rc;
}
