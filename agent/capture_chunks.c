/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chunks of a worker's pipe, one state per part: head, description of a file, bytes. Called by
 * capture_worker.c.
 */
#include "agent/capture_chunks.h"

#include <string.h>

/* Gathers up to `wanted` bytes of the head; true when they are all there. */
static bool gather(struct capture_chunks *c, struct span *in, size_t wanted)
{
    size_t some = wanted - c->head_used;
    if (some > in->size_bytes)
        some = in->size_bytes;
    memcpy(c->head.bytes + c->head_used, in->data, some);
    *in = span_of(in->data + some, in->size_bytes - some);
    c->head_used += some;
    if (c->head_used < wanted)
        return false;
    c->head_used = 0;
    return true;
}

static bool is_terminated(const char *text, size_t size_bytes)
{
    return memchr(text, '\0', size_bytes) != NULL;
}

/* "txt", "pb.gz": it becomes part of a file's name here, on the collector and on somebody's desk.
 */
static bool is_ending(const char *ending)
{
    size_t size = strlen(ending);
    if (size == 0 || ending[0] == '.' || ending[size - 1] == '.' || strstr(ending, ".."))
        return false;
    for (size_t i = 0; i < size; i++) {
        char ch = ending[i];
        if (!((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '.'))
            return false;
    }
    return true;
}

static bool is_encoding(const char *encoding)
{
    static const char *const known[] = {"", BROKER_ZSTD, BROKER_ZSTD_DELTA, BROKER_PAGES};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i], encoding) == 0)
            return true;
    return false;
}

static int check_file(struct capture_chunks *c, const struct broker_file *file, struct failure *f)
{
    if (!is_terminated(file->ending, sizeof file->ending) || !is_ending(file->ending))
        return fail(f, ERR_PROTOCOL, "the worker began a file without a proper ending");
    if (!is_terminated(file->encoding, sizeof file->encoding) || !is_encoding(file->encoding))
        return fail(f, ERR_PROTOCOL, "the worker began a file in an unknown encoding");
    if (c->file_count == BROKER_FILES_MAX)
        return fail(f, ERR_PROTOCOL, "the worker began more than %d files", BROKER_FILES_MAX);
    for (uint32_t i = 0; i < c->file_count; i++)
        if (strcmp(c->endings[i], file->ending) == 0)
            return fail(f, ERR_PROTOCOL, "the worker began two files '.%s'", file->ending);
    memcpy(c->endings[c->file_count++], file->ending, sizeof file->ending);
    return 0;
}

static int begin_chunk(struct capture_chunks *c, struct failure *f)
{
    const struct broker_chunk *chunk = &c->head.chunk;
    if (chunk->magic != BROKER_MAGIC || chunk->size == 0 || chunk->size > BROKER_CHUNK_MAX)
        return fail(f, ERR_PROTOCOL, "the worker wrote something that is no chunk");
    if (chunk->type == BROKER_CHUNK_FILE && chunk->size == sizeof(struct broker_file)) {
        c->in_file = true;
        return 0;
    }
    if (chunk->type != BROKER_CHUNK_DATA || c->file_count == 0)
        return fail(f, ERR_PROTOCOL, "the worker wrote a chunk out of order");
    c->in_data = true;
    c->left = chunk->size;
    return 0;
}

/* One part, or what there is of it. */
static int step(struct capture_chunks *c, struct span *in,
                const struct capture_chunks_events *events, void *context, struct failure *f)
{
    if (c->in_data) {
        size_t some = in->size_bytes < c->left ? in->size_bytes : c->left;
        struct span bytes = span_of(in->data, some);
        *in = span_of(in->data + some, in->size_bytes - some);
        c->left -= some;
        c->in_data = c->left > 0;
        return events->data(context, bytes, f);
    }
    if (c->in_file) {
        if (!gather(c, in, sizeof(struct broker_file)))
            return 0;
        struct broker_file file = c->head.file;
        c->in_file = false;
        int e = check_file(c, &file, f);
        return e ? e : events->file(context, &file, f);
    }
    return gather(c, in, sizeof(struct broker_chunk)) ? begin_chunk(c, f) : 0;
}

int capture_chunks_feed(struct capture_chunks *c, struct span bytes,
                        const struct capture_chunks_events *events, void *context,
                        struct failure *f)
{
    int e = 0;
    while (!e && bytes.size_bytes > 0)
        e = step(c, &bytes, events, context, f);
    return e;
}

int capture_chunks_end(const struct capture_chunks *c, struct failure *f)
{
    if (c->in_file || c->in_data || c->head_used > 0)
        return fail(f, ERR_PROTOCOL, "the worker's bytes ended in the middle");
    return 0;
}
