/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the head of a core: either refused, or every thread, file and span that came out of
 * it lies within the bytes that went in.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/os/linux/crash_notes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_within(struct span s, const uint8_t *data, size_t size)
{
    assert(s.size_bytes == 0 || (s.data >= data && s.data + s.size_bytes <= data + size));
}

static void check_files(const struct crash_notes *n, uint64_t address)
{
    struct crash_file file;
    if (crash_file_at(n, address, &file))
        return;
    assert(address >= file.start && address < file.end);
    assert((const uint8_t *)file.path + strlen(file.path) < n->files.data + n->files.size_bytes);
    (void)crash_file_base(n, &file);
}

static void parse(const uint8_t *data, size_t size)
{
    struct crash_notes n;
    if (crash_notes_parse(&n, span_of(data, size)))
        return;
    assert(n.count > 0 && n.count <= CRASH_THREADS_MAX);
    check_within(n.auxv, data, size);
    check_within(n.files, data, size);
    for (size_t i = 0; i < n.count; i++) {
        check_within(n.threads[i].fp, data, size);
        check_within(n.threads[i].xstate, data, size);
        check_files(&n, n.threads[i].regs.rip);
    }
    check_files(&n, 0);
    crash_notes_done(&n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct crash_extent e;
    parse(data, size);
    if (crash_head_extent(span_of(data, size), &e) == 0) {
        assert(e.head_bytes <= CRASH_HEAD_MAX && e.notes_bytes <= e.head_bytes);
        if (e.notes_bytes && e.head_bytes <= size)
            parse(data + e.notes_offset, (size_t)e.notes_bytes);
    }
    return 0;
}
