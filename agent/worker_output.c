/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks, packing and the share of the processor. Called by worker.c.
 */
#include "agent/worker_output.h"

#include <string.h>
#include <uv.h>

#include "common/port.h"
#include "common/text.h"

#define LEVEL 1
#define PACKED_ENDING "core"
#define REST_MAX_MS 100 /* at a time, so that an end is noticed */

int worker_output_write_all(int fd, struct span head, struct span bytes)
{
    while (head.size_bytes + bytes.size_bytes > 0) {
        uv_fs_t request;
        uv_buf_t parts[2] = {uv_buf_init((char *)head.data, (unsigned)head.size_bytes),
                             uv_buf_init((char *)bytes.data, (unsigned)bytes.size_bytes)};
        bool has_head = head.size_bytes > 0;
        int n = uv_fs_write(NULL, &request, fd, has_head ? parts : parts + 1, has_head ? 2 : 1, -1,
                            NULL);
        uv_fs_req_cleanup(&request);
        if (n == UV_EINTR)
            continue;
        if (n <= 0)
            return ERR_IO;
        size_t of_head = (size_t)n < head.size_bytes ? (size_t)n : head.size_bytes;
        size_t of_bytes = (size_t)n - of_head;
        head = span_of(head.data + of_head, head.size_bytes - of_head);
        bytes = span_of(bytes.data + of_bytes, bytes.size_bytes - of_bytes);
    }
    return 0;
}

static int write_chunk(const struct worker_output *o, enum broker_chunk_type type,
                       struct span bytes, struct failure *f)
{
    struct broker_chunk chunk = {BROKER_MAGIC, type, (uint32_t)bytes.size_bytes};
    if (worker_output_write_all(o->fd, span_of(&chunk, sizeof chunk), bytes))
        return fail(f, ERR_CLOSED, "cannot hand over the evidence: nobody reads it any more");
    return 0;
}

static int write_plain(const struct worker_output *o, struct span bytes, struct failure *f)
{
    while (bytes.size_bytes > 0) {
        size_t some =
            bytes.size_bytes < BROKER_CHUNK_MAX ? bytes.size_bytes : (size_t)BROKER_CHUNK_MAX;
        int e = write_chunk(o, BROKER_CHUNK_DATA, span_of(bytes.data, some), f);
        if (e)
            return e;
        bytes = span_of(bytes.data + some, bytes.size_bytes - some);
    }
    return 0;
}

/* ---- the share of the processor ---- */

static uint64_t cpu_us(void)
{
    uv_rusage_t usage;
    if (uv_getrusage(&usage))
        return 0;
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Rests until what was used is the allowed part of what has passed. */
static void rest(const struct worker_output *o)
{
    uint64_t used_us = cpu_us() - o->began_cpu_us;
    while (o->cpu_percent) {
        uint64_t passed_us = port_mono_us() - o->began_mono_us;
        uint64_t due_us = used_us * 100 / o->cpu_percent;
        if (passed_us + 1000 >= due_us)
            return;
        uint64_t left_ms = (due_us - passed_us) / 1000;
        uv_sleep(left_ms < REST_MAX_MS ? (unsigned)left_ms : REST_MAX_MS);
    }
}

/* ---- packing ---- */

static int write_packed(void *context, struct span packed)
{
    struct worker_output *o = context;
    rest(o);
    return write_plain(o, packed, &o->why);
}

static int say_why(struct worker_output *o, int e, struct failure *f)
{
    if (!e)
        return 0;
    return o->why.code ? fail(f, o->why.code, "%s", o->why.text)
                       : fail(f, e, "cannot pack the evidence: %s", err_text(e));
}

static int feed_zip(void *context, struct span bytes, struct failure *f)
{
    struct worker_output *o = context;
    return say_why(o, zip_stream_feed(o->zip, bytes), f);
}

static int write_list_bytes(void *context, struct span bytes, struct failure *f)
{
    return write_plain(context, bytes, f);
}

/* The list follows its core: the agent keeps it, the collector never sees it. */
static int write_list(struct worker_output *o, struct failure *f)
{
    struct broker_file file = {BROKER_PAGES, BROKER_PAGES};
    if (!delta_has_list(o->delta))
        return 0;
    int e = write_chunk(o, BROKER_CHUNK_FILE, span_of(&file, sizeof file), f);
    return e ? e : delta_write_list(o->delta, write_list_bytes, o, f);
}

static int end_file(struct worker_output *o, struct failure *f)
{
    bool was_packing = o->is_packing;
    o->is_packing = false;
    int e = o->delta && was_packing ? delta_end(o->delta, f) : 0;
    if (!e && was_packing)
        e = say_why(o, zip_stream_end(o->zip), f);
    if (!e && o->delta)
        e = write_list(o, f);
    delta_close(o->delta);
    o->delta = NULL;
    return e;
}

/* A list that is not of this process is as good as none. */
static int begin_delta(struct worker_output *o, struct failure *f)
{
    struct span none = span_of(NULL, 0);
    if (delta_open(&o->delta, &o->process, o->base, feed_zip, o, NULL) == 0)
        return 0;
    return delta_open(&o->delta, &o->process, none, feed_zip, o, f);
}

static int begin_file(void *context, const char *ending, struct failure *f)
{
    struct worker_output *o = context;
    struct broker_file file = {{0}, {0}};
    int e = end_file(o, f);
    if (e)
        return e;
    o->is_packing = strcmp(ending, PACKED_ENDING) == 0;
    o->began_mono_us = port_mono_us();
    o->began_cpu_us = cpu_us();
    text_copy(file.ending, sizeof file.ending, ending);
    if (o->is_packing && o->uses_delta)
        e = begin_delta(o, f);
    if (e)
        return e;
    if (o->is_packing)
        text_copy(file.encoding, sizeof file.encoding,
                  o->delta && delta_is_patch(o->delta) ? BROKER_ZSTD_DELTA : BROKER_ZSTD);
    return write_chunk(o, BROKER_CHUNK_FILE, span_of(&file, sizeof file), f);
}

static int write_bytes(void *context, struct span bytes, struct failure *f)
{
    struct worker_output *o = context;
    if (o->is_packing)
        o->plain_bytes += bytes.size_bytes;
    if (o->delta)
        return delta_feed(o->delta, bytes, f);
    return o->is_packing ? feed_zip(o, bytes, f) : write_plain(o, bytes, f);
}

/* ---- opening ---- */

int worker_output_open(struct worker_output *o, int fd, uint32_t cpu_percent, struct failure *f)
{
    *o = (struct worker_output){.fd = fd, .cpu_percent = cpu_percent};
    int e = zip_stream_open(&o->zip, LEVEL, write_packed, o);
    return e ? fail(f, e, "cannot prepare the packing: %s", err_text(e)) : 0;
}

void worker_output_use_delta(struct worker_output *o, const struct os_process *process,
                             struct span base)
{
    o->uses_delta = true;
    o->process = *process;
    o->base = base;
}

struct os_output worker_output_of(struct worker_output *o)
{
    return (struct os_output){begin_file, write_bytes, o};
}

int worker_output_end(struct worker_output *o, struct failure *f)
{
    return end_file(o, f);
}

void worker_output_close(struct worker_output *o)
{
    delta_close(o->delta);
    o->delta = NULL;
    zip_stream_close(o->zip);
    o->zip = NULL;
}
