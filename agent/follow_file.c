/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One log file, by its descriptor: renamed or removed it is still the same; made shorter, or other
 * bytes before the place where we were, and it begins anew. Called by follow.c.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/follow_private.h"
#include "common/text.h"
#include "common/xxh64.h"

void follow_report(const struct source_context *context, struct os_exception *e,
                   const uint64_t *where, size_t count)
{
    if (e->count <= 1) {
        uint64_t id[2] = {xxh64(span_of(where, count * sizeof *where), 1),
                          xxh64(span_of(where, count * sizeof *where), 2)};
        memcpy(e->id, id, sizeof e->id);
    }
    watcher_report(context->watcher, e);
}

/* "/var/log/shop/cart.log" -> "cart" */
static void name_after(char *out, size_t size_bytes, const char *path)
{
    const char *slash = strrchr(path, '/');
    struct span name = span_str(slash ? slash + 1 : path);
    const char *end = strstr((const char *)name.data, ".log");
    if (end && end != (const char *)name.data)
        name.size_bytes = (size_t)(end - (const char *)name.data);
    text_copy_span(out, size_bytes, name);
}

static void on_trace(void *context, const struct os_exception *exception, uint64_t begin)
{
    struct follow_file *file = context;
    const uint64_t where[] = {file->log.device, file->log.inode, (uint64_t)file->log.born_us,
                              file->base + begin, file->place->emptied};
    struct os_exception *e = malloc(sizeof *e);
    if (!e) {
        watcher_report(file->context->watcher, exception);
        return;
    }
    *e = *exception;
    if (!e->process[0] && file->process[0]) {
        text_copy(e->process, sizeof e->process, file->process);
        e->pid = file->pid;
        e->start_ticks = file->start_ticks;
    } else if (!e->process[0]) {
        name_after(e->process, sizeof e->process, file->log.path);
    }
    follow_report(file->context, e, where, sizeof where / sizeof where[0]);
    free(e);
}

/* ---- places ---- */

static int begin_at(struct follow_file *file, uint64_t offset)
{
    struct trace *trace;
    if (trace_open(&trace, on_trace, file))
        return ERR_NOMEM;
    trace_close(file->trace);
    file->trace = trace;
    file->base = file->offset = offset;
    file->tail_bytes = 0;
    file->place->offset = offset;
    return 0;
}

static void keep_place(struct follow_file *file)
{
    file->place->offset = file->base + trace_safe(file->trace);
}

static void keep_tail(struct follow_file *file, struct span bytes)
{
    struct span end = bytes.size_bytes > FOLLOW_TAIL
                          ? span_of(bytes.data + bytes.size_bytes - FOLLOW_TAIL, FOLLOW_TAIL)
                          : bytes;
    size_t old = FOLLOW_TAIL - end.size_bytes;
    if (old > file->tail_bytes)
        old = file->tail_bytes;
    memmove(file->tail, file->tail + file->tail_bytes - old, old);
    memcpy(file->tail + old, end.data, end.size_bytes);
    file->tail_bytes = old + end.size_bytes;
}

/* What stands before the place: headings are looked for in it. */
static void look_before(struct follow_file *file)
{
    size_t size = file->offset < TRACE_BACK_BYTES ? (size_t)file->offset : TRACE_BACK_BYTES, got;
    uint8_t *bytes = malloc(size ? size : 1);
    if (bytes && size && os_log_read(file->fd, bytes, size, file->offset - size, &got) == 0 &&
        got == size) {
        trace_before(file->trace, span_of(bytes, size));
        keep_tail(file, span_of(bytes, size));
    }
    free(bytes);
}

int follow_file_open(struct follow_file *file, int fd, const struct os_log *log,
                     struct follow_places *places, bool from_end,
                     const struct source_context *context)
{
    struct clock *clock = context->clock;
    *file = (struct follow_file){
        .log = *log, .fd = fd, .context = context, .grew_mono_us = clock->mono_us(clock)};
    file->place = follow_places_get(places, log, clock->wall_us(clock));
    uint64_t offset = file->place->offset;
    if (offset > log->size_bytes)
        offset = offset == UINT64_MAX && from_end ? log->size_bytes : 0;
    if (begin_at(file, offset)) {
        os_log_close(fd);
        *file = (struct follow_file){0};
        return ERR_NOMEM;
    }
    look_before(file);
    return 0;
}

void follow_file_close(struct follow_file *file)
{
    if (!file->log.inode)
        return;
    trace_flush(file->trace);
    keep_place(file);
    os_log_close(file->fd);
    trace_close(file->trace);
    *file = (struct follow_file){0};
}

/* ---- reading ---- */

static void begin_anew(struct follow_file *file)
{
    trace_end(file->trace);
    file->place->emptied++;
    (void)begin_at(file, 0);
}

static void pass_over(struct follow_file *file, uint64_t size_bytes)
{
    uint64_t to = size_bytes - FOLLOW_LAG_KEEP;
    events_add(file->context->events, trawl_v1_EventType_DATA_GAP, file->process, file->pid,
               "log '%s': %llu bytes were passed over, more is written than may be read",
               file->log.path, (unsigned long long)(to - file->offset));
    trace_end(file->trace);
    (void)begin_at(file, to);
}

/* At the end, or too far from it. */
static bool is_other_size(struct follow_file *file)
{
    struct os_log now;
    if (os_log_look(file->fd, &now))
        return false;
    if (now.size_bytes < file->offset)
        begin_anew(file);
    else if (now.size_bytes - file->offset > FOLLOW_LAG_MAX)
        pass_over(file, now.size_bytes);
    else
        return false;
    return true;
}

/* One piece, with what stood before it last time. 0: nothing more now. */
static size_t read_piece(struct follow_file *file, uint8_t *piece)
{
    struct clock *clock = file->context->clock;
    size_t tail = file->tail_bytes, got;
    if (os_log_read(file->fd, piece, FOLLOW_TAIL + FOLLOW_PIECE, file->offset - tail, &got))
        return 0;
    if (got < tail || memcmp(piece, file->tail, tail) != 0) {
        begin_anew(file); /* shorter, or written anew */
        return os_log_read(file->fd, piece, 1, 0, &got) == 0 ? got : 0;
    }
    if (got == tail)
        return 0;
    struct span bytes = span_of(piece + tail, got - tail);
    file->grew_mono_us = clock->mono_us(clock);
    file->offset += bytes.size_bytes;
    keep_tail(file, bytes);
    trace_feed(file->trace, bytes, clock->wall_us(clock), file->grew_mono_us);
    return bytes.size_bytes;
}

bool follow_file_read(struct follow_file *file, uint64_t deadline_mono_us)
{
    static uint8_t piece[FOLLOW_TAIL + FOLLOW_PIECE];
    struct clock *clock = file->context->clock;
    size_t got = 0;
    bool is_late = false;
    for (bool go_on = true; go_on && !is_late;) {
        got = read_piece(file, piece);
        if (got)
            keep_place(file);
        go_on = got > 0;
        is_late = clock->mono_us(clock) >= deadline_mono_us;
    }
    if (is_late && got)
        (void)is_other_size(file);
    return is_late && got > 0;
}

void follow_file_tick(struct follow_file *file)
{
    trace_tick(file->trace, file->context->clock->mono_us(file->context->clock));
    keep_place(file);
}
