/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a core file strictly forward: headers, notes, memory, in pieces of at most 1 MiB from one
 * buffer, so that neither the size of the process nor the slowness of the reader costs memory.
 * Invariant: what is written is exactly as long as the headers say, whatever the process does
 * meanwhile. Called by dump.c and dump_mini.c.
 */
#include "agent/os/linux/dump_linux.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/port.h"
#include "common/text.h"

#define PIECE_BYTES (1u << 20)
#define CHECK_US 50000
#define SPARE_US 500000 /* to end a twin before the deadline */
#define NOTES_MAX (64u << 20)

struct writer {
    struct dump *dump;
    const struct dump_source *source;
    struct pages *pages;
    struct segments segments;
    struct core_layout layout;
    struct buf process_notes, buffer;
    uint64_t offset; /* bytes written or in the buffer */
    uint64_t unreadable_bytes, shared_bytes, dont_dump_bytes;
    uint64_t checked_us;
    bool gone; /* the memory has no owner any more */
};

/* ---- the stream ---- */

/* Before we are killed: a twin that is ended in time leaves nothing behind. */
static int check_deadline(const struct writer *w, uint64_t now_us, struct failure *f)
{
    uint64_t deadline_us = w->dump->take->deadline_mono_us;
    char size[32];
    if (deadline_us == 0 || now_us + SPARE_US < deadline_us)
        return 0;
    text_put_size(w->offset, size, sizeof size);
    return fail(f, ERR_TIMEOUT, "no time left after %s of the core: what takes it is too slow",
                size);
}

static int flush(struct writer *w, struct failure *f)
{
    int rc = 0;
    if (w->buffer.size_bytes > 0)
        rc = w->dump->out->write(w->dump->out->context, buf_span(&w->buffer), f);
    buf_clear(&w->buffer);
    uint64_t now_us = port_mono_us();
    if (rc == 0)
        rc = check_deadline(w, now_us, f);
    if (rc == 0 && w->source->check && now_us >= w->checked_us + CHECK_US) {
        rc = w->source->check(w->source->context, f);
        w->checked_us = now_us;
    }
    return rc;
}

static int put(struct writer *w, const void *data, size_t bytes, struct failure *f)
{
    const uint8_t *at = data;
    w->offset += bytes;
    while (bytes > 0) {
        size_t room = PIECE_BYTES - w->buffer.size_bytes, some = bytes < room ? bytes : room;
        int rc = buf_append(&w->buffer, at, some);
        if (rc == 0 && w->buffer.size_bytes == PIECE_BYTES)
            rc = flush(w, f);
        if (rc)
            return f && f->code ? rc : fail(f, rc, "cannot write the core");
        at += some;
        bytes -= some;
    }
    return 0;
}

static int pad_to(struct writer *w, uint64_t offset, struct failure *f)
{
    static const uint8_t zeros[CORE_PAGE];
    assert(offset >= w->offset && offset - w->offset <= sizeof zeros);
    return put(w, zeros, (size_t)(offset - w->offset), f);
}

/* ---- what goes in ---- */

static int fail_pages(int rc, struct failure *f)
{
    return rc == ERR_GONE
               ? fail(f, rc, "process ended while its memory was read")
               : fail(f, rc, "cannot look up the pages of the process: %s", err_text(rc));
}

/* Pages that exist and pages that were copied, together. */
static int next_run(void *context, const struct map *map, enum segment_content content,
                    uint64_t from, uint64_t to, struct segment_run *run)
{
    struct writer *w = context;
    struct segment_run copied;
    int rc = w->pages ? pages_next(w->pages, map, content, from, to, run) : ERR_NOTFOUND;
    if (rc && rc != ERR_NOTFOUND)
        return rc;
    if (copies_next(&w->dump->copies, from, to, &copied) == 0 &&
        (rc == ERR_NOTFOUND || copied.start < run->start)) {
        *run = copied;
        rc = 0;
    }
    return rc;
}

static bool has_magic(const struct writer *w, uint64_t address)
{
    char magic[SELFMAG];
    return w->source->mem_fd >= 0 &&
           pread(w->source->mem_fd, magic, sizeof magic, (off_t)address) == (ssize_t)sizeof magic &&
           memcmp(magic, ELFMAG, SELFMAG) == 0;
}

static int plan_map(struct writer *w, size_t index)
{
    const struct maps *maps = w->source->maps;
    const struct map *map = &maps->list[index];
    const struct area *area = areas_find(&w->dump->areas, map->start);
    enum segment_content content = segment_content(maps, map, area);
    if (content == SEGMENT_NOTHING && area && (area->flags & AREA_DONT_DUMP) &&
        !(area->flags & AREA_DEVICE))
        w->dont_dump_bytes += area->resident_bytes + area->swapped_bytes;
    if (content == SEGMENT_WHOLE && !w->pages)
        content = SEGMENT_FILE; /* of a mini: what was copied */
    bool head =
        content == SEGMENT_FILE && map->readable && map->offset == 0 && has_magic(w, map->start);
    return segments_add(&w->segments, maps, index, content, head, next_run, w);
}

/* Without pages to look up there are only copies: what lies between them is not known, so that it
 * is neither filled nor said to be zeros. */
static void keep_copied(struct segments *segments)
{
    size_t kept = 0;
    for (size_t i = 0; i < segments->count; i++) {
        if (segments->list[i].filled)
            segments->list[kept++] = segments->list[i];
    }
    segments->count = kept;
}

static int plan(struct writer *w, struct failure *f)
{
    segments_init(&w->segments, w->pages ? SEGMENTS_LIMIT : SIZE_MAX);
    if (!w->pages)
        w->segments.hole_bytes = SEGMENTS_PAGE;
    for (size_t i = 0; i < w->source->maps->count; i++) {
        int rc = plan_map(w, i);
        if (rc)
            return fail_pages(rc, f);
    }
    if (!w->pages)
        keep_copied(&w->segments);
    segments_finish(&w->segments);
    return 0;
}

/* ---- headers and notes ---- */

static void fill_thread(const struct dump *d, size_t index, struct core_thread *out)
{
    const struct stop_thread *thread = &d->stop.threads[index];
    const struct thread_state *state = &d->states.list[index];
    *out = (struct core_thread){.tid = thread->tid,
                                .process = &d->process,
                                .signal = state->info.si_signo,
                                .pending = state->pending,
                                .blocked = state->blocked,
                                .regs = &thread->regs,
                                .info = &state->info,
                                .fp = state->has_fp ? &state->fp : NULL,
                                .xstate = span_of(state->wide, state->wide_bytes)};
}

static uint64_t notes_bytes(const struct writer *w, size_t first)
{
    const struct stop *stop = &w->dump->stop;
    struct core_thread thread;
    uint64_t bytes = 0;
    if (w->source->notes.size_bytes > 0)
        return w->source->notes.size_bytes;
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state != STOP_HELD)
            continue;
        fill_thread(w->dump, i, &thread);
        bytes += core_thread_notes_bytes(&thread, i == first ? buf_span(&w->process_notes)
                                                             : span_of(NULL, 0));
    }
    return bytes;
}

static int put_thread(struct writer *w, size_t index, struct span process, struct buf *room,
                      struct failure *f)
{
    struct core_thread thread;
    fill_thread(w->dump, index, &thread);
    buf_clear(room);
    int rc = core_thread_notes(room, &thread, process);
    return rc ? fail(f, rc, "no memory for notes") : put(w, room->data, room->size_bytes, f);
}

static int put_notes(struct writer *w, size_t first, struct failure *f)
{
    const struct stop *stop = &w->dump->stop;
    const struct span given = w->source->notes;
    struct buf room;
    if (given.size_bytes > 0)
        return put(w, given.data, given.size_bytes, f);
    buf_init(&room, NOTES_MAX);
    int rc = put_thread(w, first, buf_span(&w->process_notes), &room, f);
    for (size_t i = 0; rc == 0 && i < stop->count; i++) {
        if (stop->threads[i].state == STOP_HELD && i != first)
            rc = put_thread(w, i, span_of(NULL, 0), &room, f);
    }
    buf_done(&room);
    return rc;
}

static int put_headers(struct writer *w, struct failure *f)
{
    struct buf head;
    buf_init(&head, CORE_PAGE);
    int rc = core_put_headers(&w->layout, &head);
    rc = rc ? fail(f, rc, "no memory for headers") : put(w, head.data, head.size_bytes, f);
    buf_done(&head);
    for (size_t i = 0; rc == 0 && i < w->segments.count; i++) {
        const struct segment *s = &w->segments.list[i];
        Elf64_Phdr header;
        core_put_segment(&w->layout, &w->source->maps->list[s->map], s->start, s->end, s->filled,
                         &header);
        rc = put(w, &header, sizeof header, f);
    }
    return rc;
}

/* ---- memory ---- */

/* What cannot be read is zeros, and counted. */
static void read_memory(struct writer *w, uint64_t start, uint8_t *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = w->source->mem_fd < 0 ? -1
                                            : pread(w->source->mem_fd, bytes + done, size - done,
                                                    (off_t)(start + done));
        if (got > 0) {
            done += (size_t)got;
            continue;
        }
        if (got < 0 && errno == EINTR)
            continue;
        w->gone |= got == 0;
        size_t page = SEGMENTS_PAGE - (start + done) % SEGMENTS_PAGE;
        page = page < size - done ? page : size - done;
        memset(bytes + done, 0, page);
        struct segment_run run;
        if (copies_next(&w->dump->copies, start + done, start + done + page, &run) != 0)
            w->unreadable_bytes += page;
        done += page;
    }
}

/* Reads the pages that exist and nothing else: to read others would make them. */
static int read_runs(struct writer *w, const struct segment *s, uint64_t start, uint8_t *bytes,
                     size_t size)
{
    const struct map *map = &w->source->maps->list[s->map];
    uint64_t from = start, end = start + size;
    struct segment_run run;
    int rc = 0;
    while (w->pages && from < end) {
        rc = pages_next(w->pages, map, (enum segment_content)s->content, from, end, &run);
        if (rc)
            break;
        memset(bytes + (from - start), 0, (size_t)(run.start - from));
        read_memory(w, run.start, bytes + (run.start - start), (size_t)(run.end - run.start));
        if (s->content == SEGMENT_SHARED)
            w->shared_bytes += run.end - run.start;
        from = run.end;
    }
    memset(bytes + (from - start), 0, (size_t)(end - from));
    return rc == ERR_NOTFOUND ? 0 : rc;
}

static int put_memory(struct writer *w, const struct segment *s, struct failure *f)
{
    for (uint64_t at = s->start; at < s->end;) {
        size_t room = PIECE_BYTES - w->buffer.size_bytes;
        size_t some = s->end - at < room ? (size_t)(s->end - at) : room;
        uint8_t *bytes;
        int rc = buf_reserve(&w->buffer, some, &bytes);
        if (rc == 0 && (s->content == SEGMENT_ANONYMOUS || s->content == SEGMENT_SHARED))
            rc = read_runs(w, s, at, bytes, some);
        else if (rc == 0)
            read_memory(w, at, bytes, some);
        if (rc || (w->gone && w->pages))
            return fail_pages(rc ? rc : ERR_GONE, f);
        copies_overlay(&w->dump->copies, at, bytes, some);
        buf_commit(&w->buffer, some);
        w->offset += some;
        at += some;
        if (w->buffer.size_bytes == PIECE_BYTES)
            rc = flush(w, f);
        if (rc)
            return rc;
    }
    return 0;
}

static int put_segments(struct writer *w, struct failure *f)
{
    int rc = pad_to(w, w->layout.data_offset, f);
    for (size_t i = 0; rc == 0 && i < w->segments.count; i++) {
        if (w->segments.list[i].filled)
            rc = put_memory(w, &w->segments.list[i], f);
    }
    return rc ? rc : flush(w, f);
}

/* ---- the whole ---- */

static int prepare(struct writer *w, struct failure *f)
{
    struct dump *d = w->dump;
    buf_init(&w->process_notes, NOTES_MAX);
    buf_init(&w->buffer, PIECE_BYTES);
    uint8_t *room;
    if (buf_reserve(&w->buffer, PIECE_BYTES, &room))
        return fail(f, ERR_NOMEM, "no memory to write");
    int rc = core_process_notes(&w->process_notes, &d->process, span_of(d->auxv, d->auxv_bytes),
                                w->source->maps);
    if (rc)
        return fail(f, rc, "no memory for notes");
    if (w->source->pid == 0)
        return 0;
    w->pages = malloc(sizeof *w->pages);
    if (!w->pages)
        return fail(f, ERR_NOMEM, "no memory to look up pages");
    rc = pages_open(w->pages, w->source->pid, w->source->shared_pid, false, f);
    if (rc) {
        free(w->pages);
        w->pages = NULL;
    }
    return rc;
}

static void note_missing(struct writer *w)
{
    struct dump *d = w->dump;
    if (w->dont_dump_bytes > 0)
        dump_note_bytes(d, w->dont_dump_bytes, "that the process excludes from dumps");
    if (w->unreadable_bytes > 0)
        dump_note_bytes(d, w->unreadable_bytes, "that could not be read (zeros instead)");
    if (w->pages && w->pages->skipped_bytes > 0)
        dump_note_bytes(d, w->pages->skipped_bytes,
                        "of address space that could not be looked through");
    if (w->shared_bytes > 0 && w->source->pid != w->source->shared_pid) {
        char size[32];
        text_put_size(w->shared_bytes, size, sizeof size);
        os_result_miss(d->result, "%s of shared memory was read after the instant of the rest",
                       size);
    }
}

int dump_write(struct dump *d, const struct dump_source *source, struct failure *f)
{
    struct writer w = {.dump = d, .source = source, .checked_us = port_mono_us()};
    size_t first = thread_states_first(&d->stop);
    int rc = first == d->stop.count ? fail(f, ERR_GONE, "process ended") : prepare(&w, f);
    if (rc == 0)
        rc = plan(&w, f);
    if (rc == 0) {
        core_layout_init(&w.layout, w.segments.count, notes_bytes(&w, first));
        rc = d->out->begin(d->out->context, "core", f);
    }
    if (rc == 0)
        rc = put_headers(&w, f);
    if (rc == 0)
        rc = put_notes(&w, first, f);
    if (rc == 0)
        rc = put_segments(&w, f);
    assert(rc || w.offset == w.layout.next_offset);
    if (rc == 0)
        note_missing(&w);
    segments_done(&w.segments);
    if (w.pages)
        pages_close(w.pages);
    free(w.pages);
    buf_done(&w.process_notes);
    buf_done(&w.buffer);
    return rc;
}
