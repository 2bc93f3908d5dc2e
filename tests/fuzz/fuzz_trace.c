/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a log: the same traces whether fed at once or in pieces, whole records, counts that
 * add up, a place to go on from that never lies ahead of what was fed. The first byte chooses the
 * size of the pieces.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/trace.h"
#include "common/xxh64.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
    uint64_t hash, records, count;
};

static void on_trace(void *context, const struct os_exception *e, uint64_t begin)
{
    struct sum *sum = context;
    assert(e->source == OS_LOG_TRACE && e->type[0] && e->language[0] && e->count > 0);
    assert(e->frame_count <= OS_EXCEPTION_FRAMES && e->tag_count <= OS_EXCEPTION_TAGS);
    assert(memchr(e->type, 0, sizeof e->type) && memchr(e->message, 0, sizeof e->message));
    uint64_t hash = xxh64(span_str(e->type), sum->hash + begin);
    hash = xxh64(span_str(e->message), xxh64(span_str(e->thread), hash));
    for (uint32_t i = 0; i < e->frame_count; i++) {
        const struct os_frame *frame = &e->frames[i];
        assert(memchr(frame->function, 0, sizeof frame->function));
        assert(memchr(frame->file, 0, sizeof frame->file));
        assert(memchr(frame->module, 0, sizeof frame->module));
        hash = xxh64(span_str(frame->function), hash + frame->line);
        hash = xxh64(span_str(frame->file), xxh64(span_str(frame->module), hash));
    }
    sum->hash = xxh64(span_of(&e->count, sizeof e->count), hash);
    sum->records++;
    sum->count += e->count;
}

static struct sum run(struct span log, size_t piece)
{
    struct sum sum = {0};
    struct trace *trace;
    assert(trace_open(&trace, on_trace, &sum) == 0);
    for (size_t at = 0; at < log.size_bytes; at += piece) {
        size_t left = log.size_bytes - at;
        trace_feed(trace, span_of(log.data + at, left < piece ? left : piece), 1, 1000000);
        assert(trace_safe(trace) <= trace_fed(trace));
    }
    trace_end(trace);
    assert(!trace_waits(trace));
    assert(trace_counts(trace).traces == sum.count);
    trace_close(trace);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct span log = span_of(data + 1, size - 1);
    struct sum whole = run(log, log.size_bytes), pieces = run(log, (size_t)data[0] + 1);
    assert(whole.hash == pieces.hash && whole.records == pieces.records);
    assert(whole.count == pieces.count);
    return 0;
}
