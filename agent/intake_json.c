/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a report. See intake_json.h. */
#include "agent/intake_json.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

/* ---- texts ---- */

/* A member that must be a text when it is there; cut to fit, at a character. */
static int take_text(json_t *object, const char *name, char *out, size_t size_bytes,
                     struct failure *f)
{
    json_t *value = json_object_get(object, name);
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value))
        return fail(f, ERR_INVALID, "'%s' must be a text", name);
    (void)text_copy(out, size_bytes, json_string_value(value));
    text_clean(out);
    return 0;
}

static void miss(struct os_exception *e, const char *what)
{
    size_t used = strlen(e->missing);
    (void)text_format(e->missing + used, sizeof e->missing - used, "%s%s", used ? "; " : "", what);
}

/* ---- stacks ---- */

static struct os_frame *next_frame(struct os_exception *e)
{
    if (e->frame_count == OS_EXCEPTION_FRAMES) {
        e->frames_left_out++;
        return NULL;
    }
    return &e->frames[e->frame_count++];
}

static void add_line(struct os_exception *e, struct span line)
{
    while (line.size_bytes > 0 && strchr(" \t\r", line.data[0]))
        line = span_of(line.data + 1, line.size_bytes - 1);
    while (line.size_bytes > 0 && strchr(" \t\r", line.data[line.size_bytes - 1]))
        line.size_bytes--;
    struct os_frame *frame = line.size_bytes > 0 ? next_frame(e) : NULL;
    if (!frame)
        return;
    (void)text_copy_span(frame->function, sizeof frame->function, line);
    text_clean(frame->function);
}

static void add_lines(struct os_exception *e, const char *text)
{
    struct span rest = span_str(text), line;
    while (text_take_until(&rest, '\n', &line) == 0)
        add_line(e, line);
}

static int add_frame(struct os_exception *e, json_t *object, struct failure *f)
{
    struct os_frame frame = {.line = 0};
    json_t *line = json_object_get(object, "line");
    int rc = take_text(object, "function", frame.function, sizeof frame.function, f);
    if (!rc)
        rc = take_text(object, "file", frame.file, sizeof frame.file, f);
    if (!rc)
        rc = take_text(object, "module", frame.module, sizeof frame.module, f);
    if (!rc && line && !json_is_null(line)) {
        json_int_t number = json_is_integer(line) ? json_integer_value(line) : -1;
        if (number < 0 || number > INT32_MAX)
            return fail(f, ERR_INVALID, "'line' of a frame must be a number of a line");
        frame.line = (uint32_t)number;
    }
    struct os_frame *place = rc ? NULL : next_frame(e);
    if (place)
        *place = frame;
    return rc;
}

static int take_stack(struct os_exception *e, json_t *stack, struct failure *f)
{
    size_t i;
    json_t *value;
    if (!stack || json_is_null(stack))
        return 0;
    if (json_is_string(stack)) {
        add_lines(e, json_string_value(stack));
        return 0;
    }
    if (!json_is_array(stack))
        return fail(f, ERR_INVALID, "'stack' must be a text or a list");
    json_array_foreach(stack, i, value)
    {
        int rc = 0;
        if (json_is_string(value))
            add_line(e, span_str(json_string_value(value)));
        else if (json_is_object(value))
            rc = add_frame(e, value, f);
        else
            rc = fail(f, ERR_INVALID, "'stack' must be a list of texts or of objects");
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- tags ---- */

static int tag_value(json_t *value, char *out, size_t size_bytes)
{
    if (json_is_string(value))
        (void)text_copy(out, size_bytes, json_string_value(value));
    else if (json_is_integer(value))
        (void)text_format(out, size_bytes, "%" PRId64, (int64_t)json_integer_value(value));
    else if (json_is_real(value))
        (void)text_format(out, size_bytes, "%.15g", json_real_value(value));
    else if (json_is_boolean(value))
        (void)text_copy(out, size_bytes, json_is_true(value) ? "true" : "false");
    else
        return ERR_INVALID;
    text_clean(out);
    return 0;
}

static void add_tag(struct os_exception *e, const char *key, const char *value)
{
    if (e->tag_count == OS_EXCEPTION_TAGS) {
        if (!strstr(e->missing, "tags"))
            miss(e, "some tags: more than fit");
        return;
    }
    struct os_tag *tag = &e->tags[e->tag_count++];
    (void)text_copy(tag->key, sizeof tag->key, key);
    (void)text_copy(tag->value, sizeof tag->value, value);
    text_clean(tag->key);
    text_clean(tag->value);
}

static int take_tags(struct os_exception *e, json_t *tags, struct failure *f)
{
    const char *key;
    json_t *value;
    char text[96];
    if (!tags || json_is_null(tags))
        return 0;
    if (!json_is_object(tags))
        return fail(f, ERR_INVALID, "'tags' must be an object");
    json_object_foreach(tags, key, value)
    {
        if (tag_value(value, text, sizeof text))
            return fail(f, ERR_INVALID, "tag '%.32s' must be a text, a number or a boolean", key);
        add_tag(e, key, text);
    }
    return 0;
}

static int take_level(struct os_exception *e, json_t *root, struct failure *f)
{
    char level[32] = "";
    int rc = take_text(root, "level", level, sizeof level, f);
    if (!rc && level[0])
        add_tag(e, "level", level);
    return rc;
}

/* ---- the whole ---- */

static int take_all(struct os_exception *e, json_t *root, struct failure *f)
{
    if (!json_is_object(root))
        return fail(f, ERR_INVALID, "not an object: {\"type\": ..., \"message\": ...} is expected");
    int rc = take_text(root, "type", e->type, sizeof e->type, f);
    if (!rc && !e->type[0])
        return fail(f, ERR_INVALID, "'type' is missing");
    if (!rc)
        rc = take_text(root, "message", e->message, sizeof e->message, f);
    if (!rc)
        rc = take_text(root, "language", e->language, sizeof e->language, f);
    if (!rc)
        rc = take_level(e, root, f);
    if (!rc)
        rc = take_tags(e, json_object_get(root, "tags"), f);
    return rc ? rc : take_stack(e, json_object_get(root, "stack"), f);
}

int intake_parse(struct span json, struct os_exception *out, struct failure *f)
{
    json_error_t error;
    if (json.size_bytes > INTAKE_BYTES_MAX)
        return fail(f, ERR_INVALID, "longer than %d bytes", INTAKE_BYTES_MAX);
    json_t *root =
        json_loadb((const char *)json.data, json.size_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return fail(f, ERR_INVALID, "no JSON: %.120s at byte %d", error.text, error.position);
    struct os_exception *e = calloc(1, sizeof *e);
    int rc = e ? 0 : fail(f, ERR_NOMEM, "out of memory");
    if (!rc) {
        e->source = OS_REPORTED;
        rc = take_all(e, root, f);
    }
    if (!rc)
        *out = *e;
    free(e);
    json_decref(root);
    return rc;
}
