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
