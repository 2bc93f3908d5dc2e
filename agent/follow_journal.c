/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's export format (systemd: docs/JOURNAL_EXPORT_FORMATS.md): "FIELD=value\n", or
 * "FIELD\n", eight bytes of length (little-endian), that many bytes, "\n"; an empty line ends an
 * entry. Each process's lines go to an assembler of their own. Invariant: nothing in it is trusted;
 * what is too long is passed over.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/follow_private.h"
#include "common/text.h"

#define WRITERS 32
#define ENTRY_MAX ((size_t)256 * 1024)
#define READ_BYTES 65536

struct writer {
    struct trace *trace; /* NULL: free */
    struct follow_journal *journal;
    uint32_t pid;
    char comm[64], unit[128];
    uint64_t used;
};

struct entry {
    struct span message;
    char comm[64], unit[128], cursor[OS_JOURNAL_CURSOR_SIZE];
    uint64_t pid;
    uint64_t wall_us;
};

struct follow_journal {
    int fd;
    char *cursor; /* where a later reader goes on */
    const struct source_context *context;
    struct writer writers[WRITERS];
    struct entry entry;
    uint64_t entries;
    struct buf held;
};

int follow_journal_open(struct follow_journal **out, int fd, char *cursor,
                        const struct source_context *context)
{
    struct follow_journal *j = calloc(1, sizeof *j);
    if (!j) {
        os_log_close(fd);
        return ERR_NOMEM;
    }
    j->fd = fd;
    j->cursor = cursor;
    j->context = context;
    buf_init(&j->held, ENTRY_MAX + READ_BYTES);
    *out = j;
    return 0;
}

void follow_journal_close(struct follow_journal *j)
{
    if (!j)
        return;
    for (size_t i = 0; i < WRITERS; i++) {
        if (j->writers[i].trace)
            trace_flush(j->writers[i].trace);
        trace_close(j->writers[i].trace);
    }
    os_log_close(j->fd);
    buf_done(&j->held);
    free(j);
}

/* ---- traces ---- */

static void on_trace(void *context, const struct os_exception *exception, uint64_t begin)
{
    struct writer *w = context;
    struct os_exception *e = malloc(sizeof *e);
    if (!e) {
        watcher_report(w->journal->context->watcher, exception);
        return;
    }
    *e = *exception;
    text_copy(e->process, sizeof e->process, w->comm);
    text_copy(e->unit, sizeof e->unit, w->unit);
    e->pid = w->pid;
    const uint64_t where[] = {w->pid, (uint64_t)e->wall_us, begin};
    follow_report(w->journal->context, e, where, sizeof where / sizeof where[0]);
    free(e);
}

/* That of the process, or the one that has been quiet for longest. */
static struct writer *writer_of(struct follow_journal *j, const struct entry *entry)
{
    struct writer *best = &j->writers[0];
    for (size_t i = 0; i < WRITERS; i++) {
        struct writer *w = &j->writers[i];
        if (w->trace && w->pid == entry->pid && strcmp(w->comm, entry->comm) == 0)
            return w;
        if (w->used < best->used)
            best = w;
    }
    if (best->trace)
        trace_end(best->trace);
    trace_close(best->trace);
    *best = (struct writer){.journal = j, .pid = (uint32_t)entry->pid};
    text_copy(best->comm, sizeof best->comm, entry->comm);
    return trace_open(&best->trace, on_trace, best) ? NULL : best;
}

/* An entry is dealt with when no trace is waited for. */
static void keep_cursor(struct follow_journal *j)
{
    for (size_t i = 0; i < WRITERS; i++)
        if (j->writers[i].trace && trace_waits(j->writers[i].trace))
            return;
    if (j->entry.cursor[0])
        (void)text_copy(j->cursor, OS_JOURNAL_CURSOR_SIZE, j->entry.cursor);
}

static void end_entry(struct follow_journal *j)
{
    struct entry *entry = &j->entry;
    struct clock *clock = j->context->clock;
    struct writer *w = entry->message.data ? writer_of(j, entry) : NULL;
    if (w) {
        uint64_t mono_us = clock->mono_us(clock);
        text_copy(w->unit, sizeof w->unit, entry->unit);
        w->used = ++j->entries;
        trace_feed(w->trace, entry->message, (int64_t)entry->wall_us, mono_us);
        trace_feed(w->trace, span_str("\n"), (int64_t)entry->wall_us, mono_us);
    }
    keep_cursor(j);
    *entry = (struct entry){0};
}

/* ---- the format ---- */

static bool is_field(struct span name, const char *wanted)
{
    return span_equal(name, span_str(wanted));
}

static void take_field(struct entry *entry, struct span name, struct span value)
{
    if (is_field(name, "MESSAGE")) {
        entry->message = value;
    } else if (is_field(name, "_COMM")) {
        text_copy_span(entry->comm, sizeof entry->comm, value);
    } else if (is_field(name, "_SYSTEMD_UNIT")) {
        text_copy_span(entry->unit, sizeof entry->unit, value);
    } else if (is_field(name, "__CURSOR")) {
        if (text_copy_span(entry->cursor, sizeof entry->cursor, value))
            entry->cursor[0] = '\0';
    } else if (is_field(name, "_PID")) {
        uint64_t pid;
        entry->pid = text_take_u64(&value, &pid) == 0 && pid <= INT32_MAX ? pid : 0;
    } else if (is_field(name, "__REALTIME_TIMESTAMP")) {
        uint64_t us;
        entry->wall_us = text_take_u64(&value, &us) == 0 && us <= INT64_MAX ? us : 0;
    }
}

/* One field, or the end of the entry. 0, ERR_AGAIN (not whole yet), ERR_CORRUPT. */
static int take(struct follow_journal *j, struct span *s)
{
    const uint8_t *end = s->size_bytes ? memchr(s->data, '\n', s->size_bytes) : NULL;
    if (!end)
        return ERR_AGAIN;
    struct span line = span_of(s->data, (size_t)(end - s->data)), rest = *s, value;
    (void)span_take(&rest, line.size_bytes + 1, &value);
    const uint8_t *equals = line.size_bytes ? memchr(line.data, '=', line.size_bytes) : NULL;
    uint64_t length;
    if (line.size_bytes == 0) {
        end_entry(j);
    } else if (equals) {
        size_t name = (size_t)(equals - line.data);
        take_field(&j->entry, span_of(line.data, name),
                   span_of(equals + 1, line.size_bytes - name - 1));
    } else {
        if (span_take_u64(&rest, &length))
            return ERR_AGAIN;
        if (length > ENTRY_MAX)
            return ERR_CORRUPT;
        if (span_take(&rest, (size_t)length, &value) || rest.size_bytes == 0)
            return ERR_AGAIN;
        rest = span_of(rest.data + 1, rest.size_bytes - 1);
        take_field(&j->entry, line, value);
    }
    *s = rest;
    return 0;
}

/* A whole entry at a time: what is found of it points into what is held. */
static int take_entries(struct follow_journal *j)
{
    struct span all = buf_span(&j->held), s = all;
    size_t done = 0;
    int e = 0;
    while (!e) {
        bool is_end = s.size_bytes > 0 && s.data[0] == '\n';
        e = take(j, &s);
        if (!e && is_end)
            done = all.size_bytes - s.size_bytes;
    }
    j->entry = (struct entry){0};
    buf_consume(&j->held, e == ERR_CORRUPT ? all.size_bytes : done);
    return e;
}

int follow_journal_read(struct follow_journal *j, uint64_t deadline_mono_us)
{
    struct clock *clock = j->context->clock;
    int e = 0;
    while (!e && clock->mono_us(clock) < deadline_mono_us) {
        uint8_t *room;
        size_t got = 0;
        if (buf_reserve(&j->held, READ_BYTES, &room)) {
            buf_clear(&j->held); /* longer than any entry: it is passed over */
            continue;
        }
        e = os_journal_read(j->fd, room, READ_BYTES, &got);
        if (!e) {
            buf_commit(&j->held, got);
            (void)take_entries(j);
        }
    }
    return e == ERR_AGAIN ? 0 : e;
}

void follow_journal_tick(struct follow_journal *j)
{
    uint64_t mono_us = j->context->clock->mono_us(j->context->clock);
    for (size_t i = 0; i < WRITERS; i++)
        if (j->writers[i].trace)
            trace_tick(j->writers[i].trace, mono_us);
}
