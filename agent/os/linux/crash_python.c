/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which memory of a Python program tells its functions: what following the interpreter's frames
 * looks at is copied on the way, so that they can be followed again when the process is gone.
 * Invariant: bounded in time and in pages; a program that is no Python costs the look at the names
 * of its files. Called by crash_take.c while the process waits.
 */
#include <string.h>

#include "agent/os/linux/crash_describe.h"
#include "agent/os/linux/python_frames.h"
#include "common/port.h"

#define PYTHON_US 20000

struct looking {
    struct os_crash *crash;
    uint64_t until_us;
};

static bool fetch(struct looking *l, uint64_t address)
{
    struct dump *d = &l->crash->dump;
    if (copies_find(&d->copies, address))
        return true;
    const struct map *map = maps_find(&d->maps, address);
    return port_mono_us() < l->until_us && map && dump_may_copy(d, map) &&
           copies_want(&d->copies, address) &&
           copies_fetch(&d->copies, (pid_t)l->crash->arguments.pid, NULL) == 0 &&
           copies_find(&d->copies, address) != NULL;
}

static bool read_through(void *context, uint64_t address, void *out, size_t size_bytes)
{
    struct looking *l = context;
    if (size_bytes == 0 || address > UINT64_MAX - size_bytes)
        return false;
    for (uint64_t at = address & ~(uint64_t)(SEGMENTS_PAGE - 1); at < address + size_bytes;
         at += SEGMENTS_PAGE)
        if (!fetch(l, at))
            return false;
    return crash_read_copy(l->crash, address, out, size_bytes);
}

static void look_at_frames(struct python *p, const struct python_thread *thread)
{
    struct python_name unused;
    for (size_t i = 0; i < thread->count; i++) {
        const struct python_frame *frame = &p->frames[thread->first + i];
        (void)python_name(p, frame->code, frame->instruction, &unused);
    }
}

void crash_copy_python(struct os_crash *c)
{
    struct looking l = {.crash = c, .until_us = port_mono_us() + PYTHON_US};
    struct python *p = NULL;
    if (c->dump.stop.count == 0 ||
        python_open_copy(&p, c->unwind, read_through, &l, c->dump.stop.count, NULL) || !p)
        return;
    python_list(p);
    struct python_thread *failed = python_find(p, c->dump.stop.threads[0].regs.fs_base, 0);
    if (failed) {
        python_copy(p, failed);
        look_at_frames(p, failed);
    }
    /* The others' functions are told when there is time for them. */
    for (size_t i = 0; i < p->thread_count && port_mono_us() < l.until_us; i++) {
        if (&p->threads[i] != failed) {
            python_copy(p, &p->threads[i]);
            look_at_frames(p, &p->threads[i]);
        }
    }
    python_close(p);
}
