/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the memory of a Python interpreter of any known version: chains end, nothing is read
 * or written outside, names are terminated. The first byte chooses the version; the memory is the
 * rest, again and again from address 4096 on, so that pointers in it are easily valid.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/os/linux/python_frames.h"

#define BASE 4096
#define REPEATED 64 /* the memory is this many times the input */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool read_input(void *context, uint64_t address, void *out, size_t size_bytes)
{
    const struct span *memory = context;
    if (memory->size_bytes == 0 || address < BASE ||
        address - BASE >= memory->size_bytes * REPEATED || size_bytes > (64u << 10) + 1)
        return false;
    for (size_t i = 0; i < size_bytes; i++)
        ((uint8_t *)out)[i] = memory->data[(address - BASE + i) % memory->size_bytes];
    return true;
}

static void check_frames(const struct python *p)
{
    for (size_t i = 0; i < p->thread_count; i++) {
        const struct python_thread *thread = &p->threads[i];
        assert(thread->count <= PYTHON_FRAMES_MAX);
        assert(thread->first + thread->count <= p->frame_capacity);
    }
    for (size_t i = 0; i < p->frame_count && i < 16; i++) {
        struct python_name name;
        if (!python_name(p, p->frames[i].code, p->frames[i].instruction, &name))
            continue;
        assert(memchr(name.function, 0, sizeof name.function));
        assert(memchr(name.file, 0, sizeof name.file));
        assert(name.line >= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct python_thread threads[4];
    static struct python_frame frames[4 * PYTHON_FRAMES_MAX];
    if (size < 2)
        return 0;
    struct span memory = span_of(data + 1, size - 1);
    struct python p = {.minor = 8 + data[0] % 5,
                       .runtime = BASE,
                       .code_type = BASE + 8,
                       .text_type = BASE + 8,
                       .bytes_type = BASE + 8,
                       .read = read_input,
                       .context = &memory,
                       .threads = threads,
                       .thread_capacity = 4,
                       .frames = frames,
                       .frame_capacity = 4 * PYTHON_FRAMES_MAX};
    python_copy_all(&p, UINT64_MAX);
    check_frames(&p);
    if (p.thread_count > 0)
        python_copy(&p, &p.threads[p.thread_count - 1]);
    check_frames(&p);
    for (int minor = 8; minor <= 12; minor++)
        assert(python_line(minor, memory, 1, data[0] * 2u) >= 0);
    return 0;
}
