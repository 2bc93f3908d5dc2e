/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing profile.proto by hand: varints and length-delimited fields (protobuf encoding guide).
 * Numbers of texts are places in the string table, other numbers + 1 are ids, for 0 is none.
 * Invariant: every id that is referred to is written. Called by profile.c.
 */
#include "agent/os/linux/pprof.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define MESSAGE_MAX (1u << 20) /* one sample with its stack, one location */

enum wire { WIRE_VARINT = 0, WIRE_BYTES = 2 };

/* Field numbers of profile.proto. */
enum { PROFILE_SAMPLE_TYPE = 1, PROFILE_SAMPLE, PROFILE_MAPPING, PROFILE_LOCATION };
enum { PROFILE_FUNCTION = 5, PROFILE_STRING, PROFILE_TIME = 9, PROFILE_DURATION };
enum { PROFILE_PERIOD_TYPE = 11, PROFILE_PERIOD, PROFILE_COMMENT, PROFILE_DEFAULT_TYPE };
enum { TYPE_TYPE = 1, TYPE_UNIT };
enum { SAMPLE_LOCATION = 1, SAMPLE_VALUE, SAMPLE_LABEL };
enum { LABEL_KEY = 1, LABEL_TEXT, LABEL_NUMBER };
enum { MAPPING_ID = 1, MAPPING_START, MAPPING_LIMIT, MAPPING_FILE = 5, MAPPING_BUILD_ID };
enum { MAPPING_HAS_FUNCTIONS = 7, MAPPING_HAS_FILES, MAPPING_HAS_LINES, MAPPING_HAS_INLINED };
enum { LOCATION_ID = 1, LOCATION_MAPPING, LOCATION_ADDRESS, LOCATION_LINE };
enum { LINE_FUNCTION = 1, LINE_LINE };
enum { FUNCTION_ID = 1, FUNCTION_NAME, FUNCTION_SYSTEM_NAME, FUNCTION_FILE };

/* Texts of our own, by number. */
struct words {
    uint32_t samples, count, cpu, off, nanoseconds, thread, tid, comment;
};

/* A function is a name in a file. */
struct function {
    uint32_t name, file;
};

struct writer {
    struct profile_set *set;
    struct buf *out;
    struct buf message, inner;  /* one being put together, one inside it */
    struct function *functions; /* sorted, each once: the number + 1 is the id */
    size_t function_count;
    struct words words;
    int error; /* the first; later calls do nothing */
};

/* ---- fields ---- */

static void note(struct writer *w, int e)
{
    if (!w->error)
        w->error = e;
}

/* A field of value 0 is not written: that is its default. */
static void put_number(struct writer *w, struct buf *to, uint32_t field, uint64_t value)
{
    if (value == 0)
        return;
    note(w, buf_append_varint(to, (uint64_t)field << 3 | WIRE_VARINT));
    note(w, buf_append_varint(to, value));
}

static void put_bytes(struct writer *w, struct buf *to, uint32_t field, struct span bytes)
{
    note(w, buf_append_varint(to, (uint64_t)field << 3 | WIRE_BYTES));
    note(w, buf_append_varint(to, bytes.size_bytes));
    note(w, buf_append_span(to, bytes));
}

/* The message that was put together, as a field of the profile. */
static void put_message(struct writer *w, uint32_t field)
{
    put_bytes(w, w->out, field, buf_span(&w->message));
    buf_clear(&w->message);
}

static void put_inner(struct writer *w, uint32_t field)
{
    put_bytes(w, &w->message, field, buf_span(&w->inner));
    buf_clear(&w->inner);
}

static void put_type(struct writer *w, uint32_t field, uint32_t type, uint32_t unit)
{
    put_number(w, &w->message, TYPE_TYPE, type);
    put_number(w, &w->message, TYPE_UNIT, unit);
    put_message(w, field);
}

/* ---- samples ---- */

static void put_labels(struct writer *w, uint32_t thread)
{
    const struct profile_thread *t = &w->set->threads[thread];
    uint32_t comm = 0;
    note(w, profile_text(w->set, t->comm, &comm));
    put_number(w, &w->inner, LABEL_KEY, w->words.thread);
    put_number(w, &w->inner, LABEL_TEXT, comm);
    put_inner(w, SAMPLE_LABEL);
    put_number(w, &w->inner, LABEL_KEY, w->words.tid);
    put_number(w, &w->inner, LABEL_NUMBER, (uint64_t)t->tid);
    put_inner(w, SAMPLE_LABEL);
}

static void put_sample(struct writer *w, const struct profile_stack *stack)
{
    const uint64_t values[] = {stack->samples, stack->cpu_ns, stack->off_ns};
    for (uint32_t i = 0; i < stack->count; i++)
        note(w, buf_append_varint(&w->inner, (uint64_t)w->set->places[stack->first + i] + 1));
    put_inner(w, SAMPLE_LOCATION);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        note(w, buf_append_varint(&w->inner, values[i]));
    put_inner(w, SAMPLE_VALUE);
    put_labels(w, stack->thread);
    put_message(w, PROFILE_SAMPLE);
}

static void put_samples(struct writer *w)
{
    for (size_t i = 0; i < w->set->stack_count && !w->error; i++) {
        const struct profile_stack *s = &w->set->stacks[i];
        if (s->samples || s->cpu_ns || s->off_ns)
            put_sample(w, s);
    }
}

/* ---- where ---- */

static void put_mappings(struct writer *w)
{
    for (size_t i = 0; i < w->set->module_count; i++) {
        const struct profile_module *m = &w->set->modules[i];
        put_number(w, &w->message, MAPPING_ID, i + 1);
        put_number(w, &w->message, MAPPING_START, m->start);
        put_number(w, &w->message, MAPPING_LIMIT, m->end);
        put_number(w, &w->message, MAPPING_FILE, m->path);
        put_number(w, &w->message, MAPPING_BUILD_ID, m->build_id);
        /* Names are in it: a viewer need not look for the files. */
        for (uint32_t field = MAPPING_HAS_FUNCTIONS; field <= MAPPING_HAS_INLINED; field++)
            put_number(w, &w->message, field, 1);
        put_message(w, PROFILE_MAPPING);
    }
}

static int compare_functions(const void *a, const void *b)
{
    const struct function *left = a, *right = b;
    if (left->name != right->name)
        return left->name < right->name ? -1 : 1;
    return left->file < right->file ? -1 : left->file > right->file;
}

static int gather_functions(struct writer *w)
{
    size_t count = w->set->frame_count, kept = 0;
    w->functions = calloc(count + 1, sizeof *w->functions);
    if (!w->functions)
        return ERR_NOMEM;
    for (size_t i = 0; i < count; i++)
        w->functions[i] = (struct function){w->set->frames[i].function, w->set->frames[i].file};
    qsort(w->functions, count, sizeof *w->functions, compare_functions);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || compare_functions(&w->functions[kept - 1], &w->functions[i]) != 0)
            w->functions[kept++] = w->functions[i];
    w->function_count = kept;
    return 0;
}

static uint64_t function_id(const struct writer *w, const struct profile_frame *frame)
{
    struct function key = {frame->function, frame->file};
    const struct function *found =
        bsearch(&key, w->functions, w->function_count, sizeof *w->functions, compare_functions);
    return found ? (uint64_t)(found - w->functions) + 1 : 0;
}

static void put_functions(struct writer *w)
{
    for (size_t i = 0; i < w->function_count; i++) {
        put_number(w, &w->message, FUNCTION_ID, i + 1);
        put_number(w, &w->message, FUNCTION_NAME, w->functions[i].name);
        put_number(w, &w->message, FUNCTION_SYSTEM_NAME, w->functions[i].name);
        put_number(w, &w->message, FUNCTION_FILE, w->functions[i].file);
        put_message(w, PROFILE_FUNCTION);
    }
}

/* The address of a call, not the one behind it, so that it lies in the right line. */
static uint64_t address_of(const struct profile_location *location)
{
    if (location->place == PROFILE_WORDS)
        return 0;
    return location->place == PROFILE_RETURN ? location->pc - 1 : location->pc;
}

static void put_locations(struct writer *w)
{
    for (size_t i = 0; i < w->set->location_count && !w->error; i++) {
        const struct profile_location *l = &w->set->locations[i];
        put_number(w, &w->message, LOCATION_ID, i + 1);
        put_number(w, &w->message, LOCATION_MAPPING, l->module);
        put_number(w, &w->message, LOCATION_ADDRESS, address_of(l));
        for (uint32_t k = 0; k < l->count; k++) {
            const struct profile_frame *frame = &w->set->frames[l->first + k];
            put_number(w, &w->inner, LINE_FUNCTION, function_id(w, frame));
            put_number(w, &w->inner, LINE_LINE, frame->line);
            put_inner(w, LOCATION_LINE);
        }
        put_message(w, PROFILE_LOCATION);
    }
}

static void put_texts(struct writer *w)
{
    for (size_t i = 0; i < w->set->texts.count && !w->error; i++)
        put_bytes(w, w->out, PROFILE_STRING, span_str(profile_text_of(w->set, (uint32_t)i)));
}

/* ---- the whole ---- */

static int find_words(struct writer *w, const char *comment)
{
    const struct {
        const char *text;
        uint32_t *out;
    } all[] = {{"samples", &w->words.samples}, {"count", &w->words.count},
               {"cpu", &w->words.cpu},         {"off", &w->words.off},
               {"thread", &w->words.thread},   {"nanoseconds", &w->words.nanoseconds},
               {"tid", &w->words.tid},         {comment, &w->words.comment}};
    int e = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && !e; i++)
        e = profile_text(w->set, all[i].text, all[i].out);
    return e;
}

static void put_head(struct writer *w, const struct pprof_head *head)
{
    const struct words *words = &w->words;
    put_type(w, PROFILE_SAMPLE_TYPE, words->samples, words->count);
    put_type(w, PROFILE_SAMPLE_TYPE, words->cpu, words->nanoseconds);
    put_type(w, PROFILE_SAMPLE_TYPE, words->off, words->nanoseconds);
    put_number(w, w->out, PROFILE_TIME, (uint64_t)head->wall_us * 1000);
    put_number(w, w->out, PROFILE_DURATION, head->duration_ns);
    put_type(w, PROFILE_PERIOD_TYPE, words->cpu, words->nanoseconds);
    put_number(w, w->out, PROFILE_PERIOD, head->period_ns);
    put_number(w, w->out, PROFILE_COMMENT, words->comment);
    put_number(w, w->out, PROFILE_DEFAULT_TYPE, words->cpu);
}

int pprof_put(struct profile_set *set, const struct pprof_head *head, struct buf *out)
{
    struct writer w = {.set = set, .out = out};
    buf_init(&w.message, MESSAGE_MAX);
    buf_init(&w.inner, MESSAGE_MAX);
    note(&w, find_words(&w, head->comment));
    if (!w.error)
        note(&w, gather_functions(&w));
    if (!w.error) {
        put_head(&w, head);
        put_samples(&w);
        put_mappings(&w);
        put_locations(&w);
        put_functions(&w);
        put_texts(&w);
    }
    buf_done(&w.message);
    buf_done(&w.inner);
    free(w.functions);
    return w.error;
}
