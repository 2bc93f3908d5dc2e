/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal, read from the journalctl(1) that the broker started. Each process's lines go to an
 * assembler of their own; what the init system (PID 1) says of its units becomes their results.
 * Invariant: the place that is remembered is one behind which nothing was told. Called by follow.c.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/follow_private.h"
#include "common/text.h"
#include "common/xxh64.h"

#define WRITERS 32
#define INIT_PID 1
#define READ_BYTES 65536

struct writer {
    struct trace *trace; /* NULL: free */
    struct follow_journal *journal;
    uint32_t pid;
    char comm[64], unit[128];
    uint64_t used;
};

struct follow_journal {
    int fd;
    char *cursor; /* where a later reader goes on */
    const struct source_context *context;
    struct writer writers[WRITERS];
    struct os_unit_results *units;
    struct follow_entry entry;
    uint64_t entries;
    struct buf held;
};

int follow_journal_open(struct follow_journal **out, int fd, char *cursor,
                        const struct source_context *context)
{
    struct follow_journal *j = calloc(1, sizeof *j);
    if (!j || os_unit_results_open(&j->units)) {
        os_log_close(fd);
        free(j);
        return ERR_NOMEM;
    }
    j->fd = fd;
    j->cursor = cursor;
    j->context = context;
    buf_init(&j->held, FOLLOW_ENTRY_MAX + READ_BYTES);
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
    os_unit_results_close(j->units);
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
static struct writer *writer_of(struct follow_journal *j, const struct follow_entry *entry)
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
    *best = (struct writer){.journal = j, .pid = entry->pid};
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

static void feed_writer(struct follow_journal *j, const struct follow_entry *entry)
{
    struct writer *w = writer_of(j, entry);
    int64_t wall_us = (int64_t)entry->unit_record.wall_us;
    uint64_t mono_us = j->context->clock->mono_us(j->context->clock);
    if (!w)
        return;
    text_copy(w->unit, sizeof w->unit, entry->unit);
    w->used = ++j->entries;
    trace_feed(w->trace, entry->message, wall_us, mono_us);
    trace_feed(w->trace, span_str("\n"), wall_us, mono_us);
}

static void feed_units(struct follow_journal *j, const struct follow_entry *entry)
{
    struct os_exception e;
    if (entry->pid != INIT_PID || !os_unit_result_feed(j->units, &entry->unit_record, &e))
        return;
    /* A later reader may see the entry again. */
    const uint64_t where[] = {xxh64(span_str(entry->cursor), 0), entry->unit_record.wall_us};
    follow_report(j->context, &e, where, sizeof where / sizeof where[0]);
}

static void end_entry(struct follow_journal *j)
{
    if (j->entry.message.data)
        feed_writer(j, &j->entry);
    feed_units(j, &j->entry);
    keep_cursor(j);
    j->entry = (struct follow_entry){.pid = 0};
}

/* A whole entry at a time: what is found of it points into what is held. */
static int take_entries(struct follow_journal *j)
{
    struct span all = buf_span(&j->held), s = all;
    size_t done = 0;
    int e = 0;
    while (!e) {
        bool is_whole = false;
        e = follow_entry_take(&s, &j->entry, &is_whole);
        if (e || !is_whole)
            continue;
        end_entry(j);
        done = all.size_bytes - s.size_bytes;
    }
    j->entry = (struct follow_entry){.pid = 0};
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
