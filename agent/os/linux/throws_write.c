/* SPDX-License-Identifier: Apache-2.0 */
/* Writing what was thrown. See throws_write.h. */
#include "agent/os/linux/throws_write.h"

#include <inttypes.h>
#include <string.h>

#include "agent/os/linux/demangle.h"
#include "agent/os/linux/json_text.h"
#include "agent/os/throws.h"
#include "common/text.h"

#define LABEL_SIZE 400
#define FUNCTION_SIZE 256

/* "parse(int) (main.cc:12)", "libfoo.so+0x1234", "0x7f00..." */
static void put_label(const struct os_frame *frame, char *out, size_t size_bytes)
{
    char function[FUNCTION_SIZE];
    demangle_symbol(frame->function, function, sizeof function);
    text_clean(function);
    if (function[0] && frame->file[0])
        (void)text_format(out, size_bytes, "%s (%s:%u)", function, frame->file, frame->line);
    else if (function[0])
        (void)text_format(out, size_bytes, "%s", function);
    else if (frame->module[0])
        (void)text_format(out, size_bytes, "%s+0x%" PRIx64, frame->module, frame->offset);
    else
        (void)text_format(out, size_bytes, "0x%" PRIx64, frame->offset);
}

static void put_thrower(const struct throws_group *group, char *out, size_t size_bytes)
{
    if (group->sample_count > 0 && group->samples[0].frame_count > 0)
        put_label(&group->samples[0].frames[0], out, size_bytes);
    else
        (void)text_format(out, size_bytes, "0x%" PRIx64, group->place);
}

static int put_safe_line(struct buf *out, const char *line)
{
    int e = text_append_safe(out, span_str(line), false);
    return e ? e : buf_append_byte(out, '\n');
}

/* ---- for people ---- */

static double seconds(uint64_t us)
{
    return (double)us / 1e6;
}

static uint64_t seen_us(const struct throws_about *about)
{
    return about->took_us > about->off_us ? about->took_us - about->off_us : 1;
}

static int put_head(const struct throws_set *set, const struct throws_about *about, struct buf *out)
{
    char when[32], line[LABEL_SIZE];
    text_put_time(about->wall_us, when, sizeof when);
    (void)text_format(line, sizeof line, "throws of %s (%u), %.1f s from %s", about->process,
                      about->pid, seconds(about->took_us), when);
    int e = put_safe_line(out, line);
    if (!e)
        e = buf_printf(out, "%" PRIu64 " thrown, %.1f a second, at %zu places\n", about->all,
                       (double)about->all / seconds(seen_us(about)), set->count);
    if (!e && about->cuts)
        e = buf_printf(out,
                       "cut off: more than %d a second; seen for %.2f s of %.1f s, and only what "
                       "was thrown then is counted\n",
                       OS_THROWS_PER_SECOND, seconds(seen_us(about)), seconds(about->took_us));
    if (!e && about->unnamed)
        e = buf_printf(out, "%" PRIu64 " of them only counted: type and place are not known\n",
                       about->unnamed);
    if (!e && about->missing[0])
        e = buf_printf(out, "missing: %s\n", about->missing);
    return e;
}

static int put_table(const struct throws_set *set, struct buf *out)
{
    char line[LABEL_SIZE + FUNCTION_SIZE + 64], thrower[LABEL_SIZE];
    int e = set->count ? buf_append_str(out, "\n     count  type, thrown by\n") : 0;
    for (size_t i = 0; i < set->count && !e; i++) {
        put_thrower(&set->list[i], thrower, sizeof thrower);
        (void)text_format(line, sizeof line, "%10" PRIu64 "  %s, %s", set->list[i].count,
                          set->list[i].name, thrower);
        e = put_safe_line(out, line);
    }
    return e;
}

static int put_sample(const struct throws_group *group, const struct throws_sample *sample,
                      struct buf *out)
{
    char line[LABEL_SIZE + 64], label[LABEL_SIZE];
    int e = buf_printf(out,
                       "  %" PRIu64 " of %" PRIu64 " that were looked at, the first in thread %u\n",
                       sample->seen, group->looked, sample->tid);
    for (uint32_t i = 0; i < sample->frame_count && !e; i++) {
        const struct os_frame *frame = &sample->frames[i];
        put_label(frame, label, sizeof label);
        (void)text_format(line, sizeof line, "    #%-2u %s  %s", i, label, frame->module);
        e = put_safe_line(out, line);
    }
    if (!e && sample->why)
        e = buf_printf(out, "    [%s]\n", sample->why);
    return e;
}

int throws_write_text(const struct throws_set *set, const struct throws_about *about,
                      struct buf *out)
{
    char line[LABEL_SIZE];
    int e = put_head(set, about, out);
    if (!e)
        e = put_table(set, out);
    for (size_t i = 0; i < set->count && !e; i++) {
        const struct throws_group *group = &set->list[i];
        (void)text_format(line, sizeof line, "\n%s, %" PRIu64 " times", group->name, group->count);
        e = buf_append_byte(out, '\n');
        if (!e)
            e = put_safe_line(out, line + 1);
        for (uint32_t j = 0; j < group->sample_count && !e; j++)
            e = put_sample(group, &group->samples[j], out);
    }
    return e;
}

/* ---- JSON ---- */

static void put_json_frame(struct json_text *j, const struct os_frame *frame)
{
    char function[FUNCTION_SIZE];
    demangle_symbol(frame->function, function, sizeof function);
    text_clean(function);
    json_text_object(j, NULL);
    json_text_str(j, "function", function[0] ? function : NULL);
    json_text_str(j, "symbol", frame->function[0] ? frame->function : NULL);
    json_text_str(j, "module", frame->module[0] ? frame->module : NULL);
    json_text_hex(j, "build_id", frame->build_id, frame->build_id_bytes);
    json_text_address(j, "offset", frame->offset);
    if (frame->file[0]) {
        json_text_str(j, "file", frame->file);
        json_text_u64(j, "line", frame->line);
    }
    json_text_end(j);
}

static void put_json_sample(struct json_text *j, const struct throws_sample *sample)
{
    json_text_object(j, NULL);
    json_text_u64(j, "seen", sample->seen);
    json_text_u64(j, "tid", sample->tid);
    json_text_array(j, "frames");
    for (uint32_t i = 0; i < sample->frame_count; i++)
        put_json_frame(j, &sample->frames[i]);
    json_text_end(j);
    json_text_str(j, "incomplete", sample->why);
    json_text_end(j);
}

static void put_json_group(struct json_text *j, const struct throws_group *group)
{
    json_text_object(j, NULL);
    json_text_str(j, "type", group->name);
    json_text_u64(j, "count", group->count);
    json_text_u64(j, "first_mono_ns", group->first_ns);
    json_text_u64(j, "last_mono_ns", group->last_ns);
    json_text_u64(j, "looked_at", group->looked);
    json_text_array(j, "stacks");
    for (uint32_t i = 0; i < group->sample_count; i++)
        put_json_sample(j, &group->samples[i]);
    json_text_end(j);
    json_text_end(j);
}

int throws_write_json(const struct throws_set *set, const struct throws_about *about,
                      struct buf *out)
{
    struct json_text j;
    json_text_init(&j, out);
    json_text_object(&j, NULL);
    json_text_str(&j, "kind", "throws");
    json_text_str(&j, "process", about->process);
    json_text_u64(&j, "pid", about->pid);
    json_text_i64(&j, "wall_us", about->wall_us);
    json_text_u64(&j, "took_us", about->took_us);
    json_text_u64(&j, "thrown", about->all);
    json_text_u64(&j, "unnamed", about->unnamed);
    json_text_bool(&j, "cut_off", about->cuts > 0);
    json_text_u64(&j, "unseen_us", about->off_us);
    json_text_str(&j, "missing", about->missing);
    json_text_array(&j, "groups");
    for (size_t i = 0; i < set->count; i++)
        put_json_group(&j, &set->list[i]);
    json_text_end(&j);
    json_text_end(&j);
    return j.rc ? j.rc : buf_append_byte(out, '\n');
}

/* ---- folded ---- */

/* A ';' would begin another frame. */
static int put_folded_label(struct buf *out, const char *label)
{
    char clean[LABEL_SIZE];
    (void)text_copy(clean, sizeof clean, label);
    for (char *at = clean; *at; at++)
        if (*at == ';')
            *at = ':';
    return text_append_safe(out, span_str(clean), false);
}

static int put_folded(const struct throws_about *about, const struct throws_group *group,
                      const struct throws_sample *sample, uint64_t count, struct buf *out)
{
    char label[LABEL_SIZE];
    int e = put_folded_label(out, about->process);
    for (uint32_t i = sample ? sample->frame_count : 0; i > 0 && !e; i--) {
        put_label(&sample->frames[i - 1], label, sizeof label);
        e = buf_append_byte(out, ';');
        if (!e)
            e = put_folded_label(out, label);
    }
    (void)text_format(label, sizeof label, "throw %s", group->name);
    if (!e)
        e = buf_append_byte(out, ';');
    if (!e)
        e = put_folded_label(out, label);
    return e ? e : buf_printf(out, " %" PRIu64 "\n", count);
}

static int put_folded_group(const struct throws_about *about, const struct throws_group *group,
                            struct buf *out)
{
    uint64_t seen = 0, given = 0;
    int e = 0;
    for (uint32_t i = 0; i < group->sample_count; i++)
        seen += group->samples[i].seen;
    for (uint32_t i = 1; i < group->sample_count && !e; i++) {
        uint64_t part =
            (uint64_t)((double)group->count * (double)group->samples[i].seen / (double)seen);
        given += part;
        if (part)
            e = put_folded(about, group, &group->samples[i], part, out);
    }
    if (!e && group->count > given)
        e = put_folded(about, group, group->sample_count ? &group->samples[0] : NULL,
                       group->count - given, out);
    return e;
}

int throws_write_folded(const struct throws_set *set, const struct throws_about *about,
                        struct buf *out)
{
    int e = 0;
    for (size_t i = 0; i < set->count && !e; i++)
        e = put_folded_group(about, &set->list[i], out);
    return e;
}
