/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kind "core": which of the three ways is taken, and the two that need no snapshot. Live: what
 * a debugger cannot do without is copied under a short pause, the rest is read while the process
 * runs. Held: the process stands still until all is written, and only when that was allowed.
 * Invariant: whatever the way, the pause was predicted and not above the limit. Called by the
 * worker.
 */
#include "agent/os/dump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/os/linux/dump_linux.h"
#include "agent/os/linux/procfs.h"
#include "common/port.h"
#include "common/text.h"

#define LIVE_PAGES 2560 /* 10 MiB: stacks, loader data */
#define LIVE_LOADER_PAGES 1024
#define LIVE_STACK_BYTES (64u << 10)
#define LIVE_STACK_USED (8u << 10)
/* Handing over a MiB: it may be compressed behind our output, at 350 MB/s. */
#define OUTPUT_MIB_US 3000
#define MIB (1u << 20)

static int refuse_pause(const struct dump *d, const char *options, struct failure *f)
{
    char would[32], limit[32];
    text_put_duration((int64_t)d->result->expected_us, would, sizeof would);
    text_put_duration((int64_t)d->take->pause_max_us, limit, sizeof limit);
    return fail(f, ERR_REFUSED, "pause would be %s, limit %s: %s", would, limit, options);
}

/* ---- live ---- */

static int copy_live(void *context, struct stop *stop)
{
    struct dump *d = context;
    thread_states_take(&d->states, stop, thread_states_first(stop));
    dump_want_threads(d, LIVE_STACK_BYTES, LIVE_PAGES);
    return copies_fetch(&d->copies, d->process.pid, stop);
}

static int prepare_live(struct dump *d, struct failure *f)
{
    int rc = copies_init(&d->copies, LIVE_PAGES, f);
    if (rc)
        return rc;
    dump_want_loader(d, LIVE_LOADER_PAGES);
    uint64_t bytes =
        d->copies.count * (uint64_t)SEGMENTS_PAGE + d->stop.count * (uint64_t)LIVE_STACK_USED;
    d->result->expected_us = dump_predict_us(d, bytes);
    if (d->result->expected_us > d->take->pause_max_us)
        return refuse_pause(d, "--pause-max allows more", f);
    return 0;
}

/* The mappings as they are now: what the process has taken since then belongs to what is read. */
static int write_live(struct dump *d, struct failure *f)
{
    struct maps maps;
    uint64_t began_us = port_mono_us();
    struct dump_source source = {.maps = &maps,
                                 .pid = d->process.pid,
                                 .shared_pid = d->process.pid,
                                 .mem_fd = proc_open_pid((uint32_t)d->process.pid, "mem", f)};
    if (source.mem_fd < 0)
        return source.mem_fd;
    maps_init(&maps);
    copies_sort(&d->copies);
    int rc = maps_read(&maps, d->take->process.pid, f);
    if (rc == 0)
        rc = dump_write(d, &source, f);
    if (rc == 0) {
        char took[32];
        text_put_duration((int64_t)(port_mono_us() - began_us), took, sizeof took);
        os_result_miss(d->result,
                       "one instant: the heap was read while the process ran, over %s; only "
                       "registers, stacks and loader data are of one instant",
                       took);
    }
    maps_done(&maps);
    close(source.mem_fd);
    return rc;
}

static int core_live(struct dump *d, struct failure *f)
{
    struct failure cause = {0, ""};
    int rc = prepare_live(d, f);
    if (rc)
        return rc;
    rc = stop_run(&d->stop, d->take->pause_max_us, copy_live, NULL, d, &cause);
    dump_note_threads(d);
    rc = dump_fail_held(d, rc, &cause, f);
    if (rc)
        return rc;
    if (d->stacks_cut + d->stacks_missed > 0)
        os_result_miss(d->result, "the outer part of %zu stacks was read while they ran",
                       d->stacks_cut + d->stacks_missed);
    return write_live(d, f);
}

/* ---- held ---- */

struct held {
    struct dump *d;
    struct dump_source source;
    struct dump_relay relay;
    struct failure cause;
};

static int check_time(void *context, struct failure *f)
{
    const struct held *held = context;
    return stop_time_left(&held->d->stop) ? 0 : fail(f, ERR_TIMEOUT, "pause limit reached");
}

static int write_held(void *context, struct stop *stop)
{
    struct held *held = context;
    thread_states_take(&held->d->states, stop, thread_states_first(stop));
    return dump_write(held->d, &held->source, &held->cause);
}

static uint64_t bytes_to_write(const struct dump *d)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < d->maps.count; i++) {
        const struct area *area = areas_find(&d->areas, d->maps.list[i].start);
        enum segment_content content = segment_content(&d->maps, &d->maps.list[i], area);
        if (area && content == SEGMENT_FILE)
            bytes += area->own_bytes + area->swapped_bytes;
        else if (area && content != SEGMENT_NOTHING)
            bytes += area->resident_bytes + area->swapped_bytes;
    }
    return bytes;
}

static int hold_and_write(struct dump *d, struct held *held, struct failure *f)
{
    struct failure cause = {0, ""};
    d->out = &held->relay.out;
    int rc = stop_run(&d->stop, d->take->pause_max_us, write_held, NULL, held, &cause);
    d->out = held->relay.to;
    if (rc && cause.code == 0)
        cause = held->cause;
    struct failure late = {0, ""};
    int written = dump_relay_stop(&held->relay, &late);
    if (rc == 0 && written) {
        rc = written;
        cause = late;
    }
    dump_note_threads(d);
    return dump_fail_held(d, rc, &cause, f);
}

static int core_held(struct dump *d, struct failure *f)
{
    uint64_t bytes = bytes_to_write(d);
    struct held held = {.d = d};
    d->result->expected_us = dump_predict_us(d, bytes) + bytes / MIB * OUTPUT_MIB_US;
    if (d->result->expected_us > d->take->pause_max_us)
        return refuse_pause(d, "--pause-max allows more, --live takes a core without a pause", f);
    held.source = (struct dump_source){.maps = &d->maps,
                                       .pid = d->process.pid,
                                       .shared_pid = d->process.pid,
                                       .mem_fd = proc_open_pid((uint32_t)d->process.pid, "mem", f),
                                       .check = check_time,
                                       .context = &held};
    if (held.source.mem_fd < 0)
        return held.source.mem_fd;
    int rc = dump_relay_start(&held.relay, d->out, &d->stop, f);
    if (rc == 0)
        rc = hold_and_write(d, &held, f);
    close(held.source.mem_fd);
    return rc;
}

/* ---- the choice ---- */

/* As if nothing had been: the process may have been held, and a stop is for one hold. */
static int open_again(struct dump *d, struct failure *f)
{
    const struct os_take *take = d->take;
    const struct os_output *out = d->out;
    struct os_result *result = d->result;
    dump_close(d);
    int rc = dump_open(d, take, out, result, f);
    return rc ? rc : areas_read(&d->areas, d->process.pid, f);
}

static int core_frozen(struct dump *d, struct failure *f)
{
    bool impossible = false;
    struct failure cause = {0, ""};
    int rc = dump_core_snapshot(d, &impossible, &cause);
    if (rc && impossible && d->take->allow_pause) {
        rc = open_again(d, f);
        os_result_miss(d->result, "nothing, but the process was held: %s", cause.text);
        return rc ? rc : core_held(d, f);
    }
    if (rc && impossible)
        return fail(f, rc, "%s%s, --allow-pause one while the process stands still", cause.text,
                    strstr(cause.text, "--live") ? "" : "; --live takes a core without a snapshot");
    if (rc && f)
        *f = cause;
    return rc;
}

int os_core_capture(const struct os_take *take, const struct os_output *out,
                    struct os_result *result, struct failure *f)
{
    struct os_take order = *take;
    struct dump *d = calloc(1, sizeof *d);
    if (!d)
        return fail(f, ERR_NOMEM, "no memory to capture");
    if (!take->allow_pause && order.pause_max_us > OS_PAUSE_HARD_US)
        order.pause_max_us = OS_PAUSE_HARD_US;
    int rc = dump_open(d, &order, out, result, f);
    if (rc == 0) {
        rc = areas_read(&d->areas, d->process.pid, f);
        if (rc == 0)
            rc = order.live ? core_live(d, f) : core_frozen(d, f);
    }
    dump_close(d);
    free(d);
    return rc;
}
