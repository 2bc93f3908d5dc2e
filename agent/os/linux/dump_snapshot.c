/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A core from a copy-on-write twin: the process stands still while its page tables are copied, and
 * what forks leave out (MADV_DONTFORK, MADV_WIPEONFORK) by hand. Invariant: the twin is ended
 * whatever happens, and what is written of private memory is of one instant. Called by dump.c.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/os/linux/dump_linux.h"
#include "agent/os/linux/snapshot.h"
#include "common/text.h"

#define SEPARATE_BYTES_MAX (256ull << 20)
#define MAP_US 1 /* of copying one mapping */
/* Of a range of which little exists, only what does is copied, and so much around it. */
#define AROUND_BYTES 65536ull
/* For mappings that come to be between now and the hold: 4 MiB. */
#define FRESH_PAGES 1024

struct twin {
    struct dump *d;
    struct snapshot snapshot;
    struct dump_fresh fresh;
    struct maps maps; /* of the twin, and what is only in the process */
    struct failure cause;
    struct dump_watch watch;
    bool refused; /* by snapshot_make() */
    uint64_t end_us;
    struct failure ending;
};

/* ---- before ---- */

static bool is_separate(const struct dump *d, const struct map *map)
{
    const struct area *area = areas_find(&d->areas, map->start);
    return area && (area->flags & (AREA_DONT_FORK | AREA_WIPE_ON_FORK)) && map->readable &&
           segment_content(&d->maps, map, area) != SEGMENT_NOTHING;
}

struct range {
    uint64_t start, end;
};

struct ranges {
    struct range *list;
    size_t count, capacity;
    uint64_t pages;
};

static int add_range(struct ranges *ranges, uint64_t start, uint64_t end)
{
    struct range *last = ranges->count ? &ranges->list[ranges->count - 1] : NULL;
    if (last && start <= last->end) {
        if (end > last->end)
            ranges->pages += (end - last->end) / SEGMENTS_PAGE;
        last->end = end > last->end ? end : last->end;
        return 0;
    }
    if (BUF_GROW(ranges->list, ranges->count, &ranges->capacity, 64))
        return ERR_NOMEM;
    ranges->list[ranges->count++] = (struct range){start, end};
    ranges->pages += (end - start) / SEGMENTS_PAGE;
    return 0;
}

/* Pages may come to be between now and the hold: mostly beside those that are there. */
static int list_map(struct ranges *ranges, struct pages *pages, const struct map *map,
                    const struct area *area)
{
    struct segment_run run;
    if (area->resident_bytes >= (area->end - area->start) / 2)
        return add_range(ranges, map->start, map->end);
    for (uint64_t from = map->start; from < map->end; from = run.end) {
        int rc = pages_next(pages, map, SEGMENT_ANONYMOUS, from, map->end, &run);
        if (rc)
            return rc == ERR_NOTFOUND ? 0 : rc;
        uint64_t before =
            run.start - map->start < AROUND_BYTES ? run.start - map->start : AROUND_BYTES;
        uint64_t behind = map->end - run.end < AROUND_BYTES ? map->end - run.end : AROUND_BYTES;
        rc = add_range(ranges, run.start - before, run.end + behind);
        if (rc)
            return rc;
    }
    return 0;
}

static int list_separate(const struct dump *d, struct ranges *ranges, struct failure *f)
{
    struct pages *pages = malloc(sizeof *pages);
    if (!pages)
        return fail(f, ERR_NOMEM, "no memory to look up pages");
    int rc = pages_open(pages, d->process.pid, d->process.pid, false, f);
    for (size_t i = 0; rc == 0 && i < d->maps.count; i++) {
        const struct map *map = &d->maps.list[i];
        if (!is_separate(d, map))
            continue;
        rc = list_map(ranges, pages, map, areas_find(&d->areas, map->start));
        if (rc)
            fail(f, rc, "cannot look up the pages of the process: %s", err_text(rc));
    }
    pages_close(pages);
    free(pages);
    return rc;
}

/* Makes room for what forks leave out. */
static int want_separate(struct dump *d, struct failure *f)
{
    struct ranges ranges = {NULL, 0, 0, 0};
    int rc = list_separate(d, &ranges, f);
    if (rc == 0 && ranges.pages * SEGMENTS_PAGE > SEPARATE_BYTES_MAX) {
        char size[32], limit[32];
        text_put_size(ranges.pages * SEGMENTS_PAGE, size, sizeof size);
        text_put_size(SEPARATE_BYTES_MAX, limit, sizeof limit);
        rc = fail(f, ERR_REFUSED,
                  "%s of its memory is kept out of snapshots by the process and would be copied "
                  "while it stands still, limit %s: --live takes a core without a snapshot",
                  size, limit);
    }
    if (rc == 0)
        rc = copies_init(&d->copies, ranges.pages ? (size_t)ranges.pages + FRESH_PAGES : 0, f);
    for (size_t i = 0; rc == 0 && i < ranges.count; i++)
        copies_want_range(&d->copies, ranges.list[i].start, ranges.list[i].end, SIZE_MAX);
    free(ranges.list);
    return rc;
}

/* What of the process has page tables that are copied. */
static void sum_tables(const struct dump *d, uint64_t *small_bytes, uint64_t *huge_bytes)
{
    *small_bytes = *huge_bytes = 0;
    for (size_t i = 0; i < d->areas.count; i++) {
        const struct area *area = &d->areas.list[i];
        /* Page tables of mappings without a page of their own are not copied. */
        if (area->own_bytes + area->swapped_bytes == 0 || (area->flags & AREA_DONT_FORK))
            continue;
        *huge_bytes += area->huge_bytes;
        if (area->resident_bytes > area->huge_bytes)
            *small_bytes += area->resident_bytes - area->huge_bytes;
        *small_bytes += area->swapped_bytes;
    }
}

static uint64_t predict_us(const struct dump *d)
{
    uint64_t small_bytes, huge_bytes;
    sum_tables(d, &small_bytes, &huge_bytes);
    uint64_t tables_us = snapshot_predict_us(d->take->costs, small_bytes, huge_bytes, 0);
    return tables_us - d->take->costs->stop_us + d->areas.count * MAP_US +
           dump_predict_us(d, d->copies.count * (uint64_t)SEGMENTS_PAGE);
}

/* An entry of 8 bytes for each page, and what was allocated already is not counted again. */
static int check_memory(const struct dump *d, struct failure *f)
{
    uint64_t small_bytes, huge_bytes;
    sum_tables(d, &small_bytes, &huge_bytes);
    return dump_check_headroom("", d->process.pid, small_bytes / SEGMENTS_PAGE * 8, f);
}

static int check_pause(const struct dump *d, struct failure *f)
{
    char would[32], limit[32];
    uint64_t would_us = d->result->expected_us;
    if (would_us <= d->take->pause_max_us)
        return 0;
    text_put_duration((int64_t)would_us, would, sizeof would);
    text_put_duration((int64_t)d->take->pause_max_us, limit, sizeof limit);
    return fail(f, ERR_REFUSED,
                "pause would be %s, limit %s: --pause-max%s allows more, --live takes a core "
                "without a snapshot",
                would, limit, would_us > OS_PAUSE_HARD_US ? " with --allow-pause" : "");
}

/* ---- while it is held ---- */

static int make(void *context, struct stop *stop)
{
    struct twin *twin = context;
    struct dump *d = twin->d;
    thread_states_take(&d->states, stop, thread_states_first(stop));
    int rc = snapshot_make(&twin->snapshot, stop, &twin->cause);
    twin->refused = rc == ERR_REFUSED || rc == ERR_UNSUPPORTED;
    if (rc)
        return rc;
    /* Who keeps memory out of forks may have made more of it. */
    if (d->copies.capacity > 0)
        dump_fresh_want(d, &twin->fresh, stop);
    return copies_fetch(&d->copies, d->process.pid, stop);
}

/* ---- after ---- */

static int by_address(const void *a, const void *b)
{
    const struct map *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static int add_map(struct maps *to, const struct maps *from, const struct map *map)
{
    if (BUF_GROW(to->list, to->count, &to->capacity, 64))
        return ERR_NOMEM;
    const char *path = maps_path(from, map);
    struct map copy = *map;
    copy.path = (uint32_t)to->paths.size_bytes;
    int rc = buf_append(&to->paths, path, strlen(path) + 1);
    if (rc == 0)
        to->list[to->count++] = copy;
    return rc;
}

static bool is_known(const struct maps *maps, size_t count, uint64_t start, uint64_t end)
{
    struct maps known = *maps;
    known.count = count;
    return maps_find(&known, start) || maps_find(&known, end - 1);
}

/* What came to be shortly before. `own`: how many mappings the twin has. */
static int add_fresh(struct twin *twin, size_t own)
{
    static const struct map plain = {.readable = true, .writable = true};
    struct maps none = {.paths = {.data = (uint8_t *)"", .size_bytes = 1}};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < twin->fresh.count; i++) {
        const struct segment_run *run = &twin->fresh.list[i];
        struct map map = plain;
        map.start = run->start;
        map.end = run->end;
        if (!is_known(&twin->maps, own, run->start, run->end))
            rc = add_map(&twin->maps, &none, &map);
    }
    if (twin->fresh.lost_bytes > 0)
        dump_note_bytes(twin->d, twin->fresh.lost_bytes,
                        "mapped shortly before, if the process keeps it out of snapshots");
    return rc;
}

/* The twin's mappings are those of the instant, but for what forks leave out. */
static int read_maps(struct twin *twin, struct failure *f)
{
    struct dump *d = twin->d;
    int rc = maps_read(&twin->maps, (uint32_t)twin->snapshot.pid, f);
    if (rc)
        return rc;
    size_t own = twin->maps.count;
    for (size_t i = 0; rc == 0 && i < d->maps.count; i++) {
        const struct map *map = &d->maps.list[i];
        if (is_separate(d, map) && !is_known(&twin->maps, own, map->start, map->end))
            rc = add_map(&twin->maps, &d->maps, map);
    }
    if (rc == 0)
        rc = add_fresh(twin, own);
    if (rc)
        return fail(f, rc, "no memory for the map of the process");
    if (twin->maps.count > own)
        qsort(twin->maps.list, twin->maps.count, sizeof *twin->maps.list, by_address);
    return 0;
}

static int write_twin(void *context, struct stop *stop, struct failure *f)
{
    struct twin *twin = context;
    int rc = snapshot_open(&twin->snapshot, f);
    if (rc == 0)
        rc = dump_watch_start(&twin->watch, "", twin->snapshot.pid, stop->pid_fd, f);
    bool watched = rc == 0;
    if (rc == 0)
        rc = read_maps(twin, f);
    if (rc == 0) {
        struct dump_source source = {.maps = &twin->maps,
                                     .pid = twin->snapshot.pid,
                                     .shared_pid = twin->d->process.pid,
                                     .mem_fd = twin->snapshot.mem_fd};
        copies_sort(&twin->d->copies);
        rc = dump_write(twin->d, &source, f);
    }
    if (watched) {
        int killed = dump_watch_stop(&twin->watch, f);
        rc = killed ? killed : rc;
    }
    snapshot_end(&twin->snapshot, &twin->end_us, &twin->ending);
    return rc;
}

/* ---- the whole ---- */

static int run(struct twin *twin, bool *impossible, struct failure *f)
{
    struct dump *d = twin->d;
    struct failure cause = {0, ""};
    int rc = stop_run(&d->stop, d->take->pause_max_us, make, write_twin, twin, &cause);
    if (twin->snapshot.begun)
        snapshot_end(&twin->snapshot, &twin->end_us, &twin->ending);
    if (rc && cause.code == 0)
        cause = twin->cause;
    *impossible = twin->refused;
    dump_note_threads(d);
    d->result->pause_us += twin->end_us;
    if (twin->ending.code)
        os_result_miss(d->result, "nothing, but the process has a zombie: %s", twin->ending.text);
    return dump_fail_held(d, rc, &cause, f);
}

int dump_core_snapshot(struct dump *d, bool *impossible, struct failure *f)
{
    struct twin *twin = calloc(1, sizeof *twin);
    if (!twin)
        return fail(f, ERR_NOMEM, "no memory for a snapshot");
    twin->d = d;
    maps_init(&twin->maps);
    int rc = snapshot_prepare(&twin->snapshot, &d->stop, &d->maps, f);
    *impossible = rc == ERR_REFUSED || rc == ERR_UNSUPPORTED;
    if (rc == 0)
        rc = want_separate(d, f);
    if (rc == 0) {
        d->result->expected_us = predict_us(d);
        rc = check_pause(d, f);
    }
    if (rc == 0)
        rc = check_memory(d, f);
    if (rc == 0) {
        (void)dump_fresh_open(&twin->fresh, d->process.pid);
        rc = run(twin, impossible, f);
        dump_fresh_close(&twin->fresh);
    }
    snapshot_done(&twin->snapshot);
    maps_done(&twin->maps);
    free(twin);
    return rc;
}
