/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker writes into its pipe, when the worker was taken over by what it parsed. Checked:
 * the same comes out however the bytes are cut, and nothing that is passed on breaks a rule.
 */
#include <assert.h>
#include <string.h>

#include "agent/capture_chunks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct got {
    uint32_t files, sum;
    size_t bytes;
};

static int on_file(void *context, const struct broker_file *file, struct failure *f)
{
    struct got *got = context;
    (void)f;
    assert(memchr(file->ending, '\0', sizeof file->ending) && file->ending[0]);
    assert(!strchr(file->ending, '/') && !strstr(file->ending, ".."));
    assert(file->encoding[0] == '\0' || strcmp(file->encoding, BROKER_ZSTD) == 0 ||
           strcmp(file->encoding, BROKER_ZSTD_DELTA) == 0 ||
           strcmp(file->encoding, BROKER_PAGES) == 0);
    assert(++got->files <= BROKER_FILES_MAX);
    return 0;
}

static int on_data(void *context, struct span bytes, struct failure *f)
{
    struct got *got = context;
    (void)f;
    assert(got->files > 0 && bytes.size_bytes > 0 && bytes.size_bytes <= BROKER_CHUNK_MAX);
    got->bytes += bytes.size_bytes;
    for (size_t i = 0; i < bytes.size_bytes; i++)
        got->sum = got->sum * 31 + bytes.data[i];
    return 0;
}

static int feed(const uint8_t *data, size_t size, size_t step, struct got *got)
{
    static const struct capture_chunks_events events = {on_file, on_data};
    struct capture_chunks chunks;
    memset(&chunks, 0, sizeof chunks);
    for (size_t at = 0; at < size; at += step) {
        size_t some = size - at < step ? size - at : step;
        int e = capture_chunks_feed(&chunks, (struct span){data + at, some}, &events, got, NULL);
        if (e)
            return e;
    }
    return capture_chunks_end(&chunks, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct got whole = {0}, cut = {0};
    int e = feed(data, size, size ? size : 1, &whole);
    assert(feed(data, size, 7, &cut) == e);
    assert(e || (whole.bytes == cut.bytes && whole.sum == cut.sum && whole.files == cut.files));
    return 0;
}
