/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From systemd's own journal records to exceptions: the end of the main process comes first, then
 * the unit's result, then the restart that is scheduled. See agent/os/unit_result.h.
 */
#include "agent/os/unit_result.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"

/* systemd: src/systemd/sd-messages.h */
#define UNIT_FAILED "d9b373ed55a64feb8242e02dbe79a49c"
#define PROCESS_EXITED "98e322203f7a4ed290d09fe03c09fe15"
#define RESTART_SCHEDULED "5eb03494b6584870a536b337290809b3"

struct unit {
    char name[128]; /* empty: free */
    char exit_code[16], exit_status[16];
    uint64_t restarts;
    uint64_t used; /* order of use */
};

struct os_unit_results {
    struct unit units[OS_UNITS];
    uint64_t uses;
};

int os_unit_results_open(struct os_unit_results **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : ERR_NOMEM;
}

void os_unit_results_close(struct os_unit_results *results)
{
    free(results);
}

static struct unit *unit_of(struct os_unit_results *r, const char *name)
{
    struct unit *best = &r->units[0];
    for (size_t i = 0; i < OS_UNITS; i++) {
        struct unit *u = &r->units[i];
        if (strcmp(u->name, name) == 0) {
            u->used = ++r->uses;
            return u;
        }
        if (u->used < best->used)
            best = u;
    }
    *best = (struct unit){.used = ++r->uses};
    (void)text_copy(best->name, sizeof best->name, name);
    return best;
}

static void tag(struct os_exception *e, const char *key, const char *value)
{
    struct os_tag *t = &e->tags[e->tag_count++];
    (void)text_copy(t->key, sizeof t->key, key);
    (void)text_copy(t->value, sizeof t->value, value);
}

static void add_exit(struct os_exception *e, const struct unit *u)
{
    uint64_t number;
    size_t used = strlen(e->message);
    if (!u->exit_code[0] || text_u64_in(u->exit_status, 0, 255, &number))
        return;
    bool by_signal = strcmp(u->exit_code, "exited") != 0;
    if (by_signal)
        e->signal = (uint32_t)number;
    else
        tag(e, "exit_code", u->exit_status);
    (void)text_format(e->message + used, sizeof e->message - used, "; its main process: %s, %s %u",
                      u->exit_code, by_signal ? "signal" : "status", (unsigned)number);
}

static void describe(struct os_exception *e, const struct os_unit_record *record,
                     const struct unit *u)
{
    char restarts[24];
    *e = (struct os_exception){
        .source = OS_UNIT_RESULT, .uid = UINT32_MAX, .wall_us = (int64_t)record->wall_us};
    (void)text_copy(e->type, sizeof e->type, record->result);
    (void)text_copy(e->message, sizeof e->message, record->message);
    (void)text_copy(e->unit, sizeof e->unit, record->unit);
    (void)text_format(e->template_text, sizeof e->template_text, "failed: %s", record->result);
    add_exit(e, u);
    (void)text_format(restarts, sizeof restarts, "%llu", (unsigned long long)u->restarts);
    if (u->restarts)
        tag(e, "restarts", restarts);
}

bool os_unit_result_feed(struct os_unit_results *results, const struct os_unit_record *record,
                         struct os_exception *out)
{
    if (strcmp(record->pid, "1") != 0 || !record->unit[0])
        return false;
    if (strcmp(record->message_id, PROCESS_EXITED) == 0) {
        struct unit *u = unit_of(results, record->unit);
        (void)text_copy(u->exit_code, sizeof u->exit_code, record->exit_code);
        (void)text_copy(u->exit_status, sizeof u->exit_status, record->exit_status);
    } else if (strcmp(record->message_id, RESTART_SCHEDULED) == 0) {
        uint64_t count;
        if (text_u64(record->restarts, &count) == 0)
            unit_of(results, record->unit)->restarts = count;
    } else if (strcmp(record->message_id, UNIT_FAILED) == 0 && record->result[0]) {
        struct unit *u = unit_of(results, record->unit);
        describe(out, record, u);
        u->exit_code[0] = '\0';
        return true;
    }
    return false;
}

/* ---- the stream ---- */

#define STREAM_LINE 1024

enum stream_state { IN_LINE, IN_SIZE, IN_VALUE, AFTER_VALUE };

struct os_unit_stream {
    os_unit_record_fn each;
    void *context;
    enum stream_state state;
    char line[STREAM_LINE]; /* "FIELD=value", or "FIELD" before a binary value */
    size_t used;
    bool is_cut;
    uint8_t size[8];
    size_t size_bytes;
    uint64_t left; /* of a binary value */
    struct os_unit_record record;
    bool has_fields;
};

int os_unit_stream_open(struct os_unit_stream **out, os_unit_record_fn each, void *context)
{
    struct os_unit_stream *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    s->each = each;
    s->context = context;
    *out = s;
    return 0;
}

void os_unit_stream_close(struct os_unit_stream *stream)
{
    free(stream);
}

static void set_field(struct os_unit_record *r, const char *name, const char *value)
{
    const struct {
        const char *name;
        char *out;
        size_t size_bytes;
    } fields[] = {
        {"MESSAGE_ID", r->message_id, sizeof r->message_id},
        {"UNIT", r->unit, sizeof r->unit},
        {"USER_UNIT", r->unit, sizeof r->unit},
        {"UNIT_RESULT", r->result, sizeof r->result},
        {"EXIT_CODE", r->exit_code, sizeof r->exit_code},
        {"EXIT_STATUS", r->exit_status, sizeof r->exit_status},
        {"N_RESTARTS", r->restarts, sizeof r->restarts},
        {"MESSAGE", r->message, sizeof r->message},
        {"_PID", r->pid, sizeof r->pid},
    };
    if (strcmp(name, "__REALTIME_TIMESTAMP") == 0)
        (void)text_u64(value, &r->wall_us);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strcmp(name, fields[i].name) == 0)
            (void)text_copy(fields[i].out, fields[i].size_bytes, value);
}

static void end_line(struct os_unit_stream *s)
{
    s->line[s->used] = '\0';
    char *equals = strchr(s->line, '=');
    bool is_blank = s->used == 0;
    if (is_blank && s->has_fields)
        s->each(s->context, &s->record);
    if (is_blank) {
        s->record = (struct os_unit_record){.wall_us = 0};
        s->has_fields = false;
        return;
    }
    s->has_fields = true;
    if (equals) {
        *equals = '\0';
        set_field(&s->record, s->line, equals + 1);
        s->used = 0;
    } else if (s->is_cut) {
        s->used = 0; /* too long for any name */
    } else {
        s->state = IN_SIZE;
        s->size_bytes = 0;
    }
    s->is_cut = false;
}

/* What comes before a binary value is its name; it stays in the line, and the value behind it. */
static void end_size(struct os_unit_stream *s)
{
    s->left = 0;
    for (size_t i = 8; i > 0; i--)
        s->left = s->left << 8 | s->size[i - 1];
    s->state = s->left ? IN_VALUE : AFTER_VALUE;
    if (s->used + 1 < sizeof s->line)
        s->line[s->used++] = '=';
}

static void end_value(struct os_unit_stream *s)
{
    s->state = IN_LINE;
    s->line[s->used] = '\0';
    char *equals = strchr(s->line, '=');
    if (equals) {
        *equals = '\0';
        set_field(&s->record, s->line, equals + 1);
    }
    s->used = 0;
    s->is_cut = false;
}

static void keep(struct os_unit_stream *s, char c)
{
    if (s->used + 1 < sizeof s->line)
        s->line[s->used++] = c;
    else
        s->is_cut = true;
}

void os_unit_stream_feed(struct os_unit_stream *s, struct span bytes)
{
    for (size_t i = 0; i < bytes.size_bytes; i++) {
        char c = (char)bytes.data[i];
        switch (s->state) {
        case IN_LINE:
            if (c == '\n')
                end_line(s);
            else
                keep(s, c);
            break;
        case IN_SIZE:
            s->size[s->size_bytes++] = bytes.data[i];
            if (s->size_bytes == sizeof s->size)
                end_size(s);
            break;
        case IN_VALUE:
            keep(s, c ? c : ' ');
            if (--s->left == 0)
                s->state = AFTER_VALUE;
            break;
        case AFTER_VALUE:
            end_value(s);
            break;
        }
    }
}
