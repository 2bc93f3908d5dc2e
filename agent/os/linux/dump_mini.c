/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kind "mini": everything that it holds is copied under one short pause into memory that was
 * there before, and written after the release. Invariant: at most OS_MINI_BYTES_MAX are copied, and
 * what was not copied is not in the file: never zeros in its place. Called by the worker.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/os/linux/dump_linux.h"
#include "common/port.h"
#include "common/text.h"

#define POOL_PAGES (OS_MINI_BYTES_MAX / SEGMENTS_PAGE - 512) /* notes and headers need some */
#define LOADER_PAGES (POOL_PAGES / 4)
#define STACK_PAGES (POOL_PAGES * 7 / 8) /* with the loader's */
#define THREADS_FEW 16
#define STACK_BYTES_MIN (4u << 10)
#define STACK_BYTES_MANY (64u << 10) /* each, of many threads */
#define STACK_BYTES_FEW (1u << 20)   /* each, of a few */
#define STACK_USED (8u << 10)        /* what a stack holds mostly, for the prediction */
#define POINTED_US 5000              /* given at most to what pointers lead to */
#define POINTED_BYTES (16u << 10)    /* what they lead to mostly, of one thread */

struct mini {
    struct dump d;
    uint64_t stack_bytes;
};

/* The more threads, the less of each. A thread has a page of thread-local storage besides. */
static uint64_t stack_share(size_t threads, size_t pages_used)
{
    uint64_t share = (STACK_PAGES - pages_used) / (threads ? threads : 1) * SEGMENTS_PAGE;
    share = share > 2 * SEGMENTS_PAGE ? share - 2 * SEGMENTS_PAGE : 0;
    if (share > STACK_BYTES_MANY && threads > THREADS_FEW)
        share = STACK_BYTES_MANY;
    if (share > STACK_BYTES_FEW)
        share = STACK_BYTES_FEW;
    return share < STACK_BYTES_MIN ? STACK_BYTES_MIN : share;
}

static int prepare(struct mini *m, struct failure *f)
{
    struct dump *d = &m->d;
    int rc = copies_init(&d->copies, POOL_PAGES, f);
    if (rc)
        return rc;
    dump_want_loader(d, LOADER_PAGES);
    m->stack_bytes = stack_share(d->stop.count, d->copies.count);
    uint64_t used = d->stop.count * (uint64_t)(STACK_USED + POINTED_BYTES);
    uint64_t limit_us = d->take->pause_max_us;
    used += d->copies.count * (uint64_t)SEGMENTS_PAGE;
    if (used > (uint64_t)POOL_PAGES * SEGMENTS_PAGE)
        used = (uint64_t)POOL_PAGES * SEGMENTS_PAGE;
    d->result->expected_us = dump_predict_us(d, used) + dump_predict_pointed_us(d);
    if (d->result->expected_us > limit_us) {
        char would[32], limit[32];
        text_put_duration((int64_t)d->result->expected_us, would, sizeof would);
        text_put_duration((int64_t)limit_us, limit, sizeof limit);
        return fail(f, ERR_REFUSED, "pause would be %s, limit %s: --pause-max allows more", would,
                    limit);
    }
    return 0;
}

static int copy_held(void *context, struct stop *stop)
{
    struct mini *m = context;
    struct dump *d = &m->d;
    uint64_t began_us = port_mono_us(), share_us = d->take->pause_max_us / 4;
    thread_states_take(&d->states, stop, thread_states_first(stop));
    dump_want_threads(d, m->stack_bytes, STACK_PAGES);
    int rc = copies_fetch(&d->copies, d->process.pid, stop);
    if (rc == 0)
        rc = dump_fetch_pointed(d, began_us + (share_us < POINTED_US ? share_us : POINTED_US));
    return rc;
}

/* The first pages of files do not change: they may be read after the release. */
static int write_file(struct mini *m, struct failure *f)
{
    struct dump *d = &m->d;
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/mem", d->process.pid);
    struct dump_source source = {.maps = &d->maps, .mem_fd = open(path, O_RDONLY | O_CLOEXEC)};
    copies_sort(&d->copies);
    int rc = dump_write(d, &source, f);
    if (source.mem_fd >= 0)
        close(source.mem_fd);
    return rc;
}

static int capture(struct mini *m, struct failure *f)
{
    struct dump *d = &m->d;
    struct failure cause = {0, ""};
    int rc = prepare(m, f);
    if (rc)
        return rc;
    rc = stop_run(&d->stop, d->take->pause_max_us, copy_held, NULL, m, &cause);
    dump_note_threads(d);
    rc = dump_fail_held(d, rc, &cause, f);
    if (rc)
        return rc;
    if (d->stacks_missed > 0)
        os_result_miss(d->result, "stacks of %zu threads: more than fits", d->stacks_missed);
    if (d->stacks_cut > 0)
        os_result_miss(d->result, "the outer part of %zu stacks: %llu KiB each were copied",
                       d->stacks_cut, (unsigned long long)m->stack_bytes >> 10);
    os_result_miss(d->result, "memory that no pointer on a stack leads to");
    return write_file(m, f);
}

int os_mini_capture(const struct os_take *take, const struct os_output *out,
                    struct os_result *result, struct failure *f)
{
    struct mini *m = calloc(1, sizeof *m);
    if (!m)
        return fail(f, ERR_NOMEM, "no memory to capture");
    int rc = dump_open(&m->d, take, out, result, f);
    /* What its owner excludes from dumps is known from there only. */
    if (rc == 0)
        rc = areas_read(&m->d.areas, m->d.process.pid, f);
    if (rc == 0)
        rc = capture(m, f);
    dump_close(&m->d);
    free(m);
    return rc;
}
