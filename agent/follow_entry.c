/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's export format (systemd: docs/JOURNAL_EXPORT_FORMATS.md): "FIELD=value\n", or
 * "FIELD\n", eight bytes of length (little-endian), that many bytes, "\n"; an empty line ends an
 * entry. Pure. Invariant: nothing in it is trusted; of a value that is too long its beginning is
 * taken, but for those that would then mean something else. Called by follow_journal.c.
 */
#include <string.h>

#include "agent/follow_private.h"
#include "common/text.h"

static uint64_t number_of(struct span value, uint64_t most)
{
    uint64_t number;
    return text_take_u64(&value, &number) == 0 && number <= most ? number : 0;
}

static void take_text(struct follow_entry *entry, struct span name, struct span value)
{
    struct os_unit_record *r = &entry->unit_record;
    const struct {
        const char *name;
        char *out;
        size_t size_bytes;
    } fields[] = {
        {"MESSAGE", r->message, sizeof r->message},
        {"_PID", r->pid, sizeof r->pid},
        {"_COMM", entry->comm, sizeof entry->comm},
        {"_SYSTEMD_UNIT", entry->unit, sizeof entry->unit},
        {"MESSAGE_ID", r->message_id, sizeof r->message_id},
        {"UNIT", r->unit, sizeof r->unit},
        {"USER_UNIT", r->unit, sizeof r->unit},
        {"UNIT_RESULT", r->result, sizeof r->result},
        {"EXIT_CODE", r->exit_code, sizeof r->exit_code},
        {"EXIT_STATUS", r->exit_status, sizeof r->exit_status},
        {"N_RESTARTS", r->restarts, sizeof r->restarts},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (span_equal(name, span_str(fields[i].name)))
            (void)text_copy_span(fields[i].out, fields[i].size_bytes, value);
}

static void take_field(struct follow_entry *entry, struct span name, struct span value)
{
    take_text(entry, name, value);
    if (span_equal(name, span_str("MESSAGE"))) {
        entry->message = value;
    } else if (span_equal(name, span_str("_PID"))) {
        entry->pid = (uint32_t)number_of(value, INT32_MAX);
    } else if (span_equal(name, span_str("__REALTIME_TIMESTAMP"))) {
        entry->unit_record.wall_us = number_of(value, INT64_MAX);
    } else if (span_equal(name, span_str("__CURSOR"))) {
        if (text_copy_span(entry->cursor, sizeof entry->cursor, value))
            entry->cursor[0] = '\0';
    }
}

/* "FIELD\n" was taken: length, value, "\n". */
static int take_binary(struct span *s, struct span *value)
{
    struct span rest = *s;
    uint64_t length;
    if (span_take_u64(&rest, &length))
        return ERR_AGAIN;
    if (length > FOLLOW_ENTRY_MAX)
        return ERR_CORRUPT;
    if (span_take(&rest, (size_t)length, value) || rest.size_bytes == 0)
        return ERR_AGAIN;
    *s = span_of(rest.data + 1, rest.size_bytes - 1);
    return 0;
}

int follow_entry_take(struct span *s, struct follow_entry *entry, bool *is_whole)
{
    const uint8_t *end = s->size_bytes ? memchr(s->data, '\n', s->size_bytes) : NULL;
    if (!end)
        return ERR_AGAIN;
    struct span line = span_of(s->data, (size_t)(end - s->data)), rest = *s, value;
    (void)span_take(&rest, line.size_bytes + 1, &value);
    const uint8_t *equals = line.size_bytes ? memchr(line.data, '=', line.size_bytes) : NULL;
    *is_whole = line.size_bytes == 0;
    if (equals) {
        size_t name = (size_t)(equals - line.data);
        take_field(entry, span_of(line.data, name),
                   span_of(equals + 1, line.size_bytes - name - 1));
    } else if (!*is_whole) {
        int e = take_binary(&rest, &value);
        if (e)
            return e;
        take_field(entry, line, value);
    }
    *s = rest;
    return 0;
}
