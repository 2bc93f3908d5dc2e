/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes snapshots of a process, and says what they cost it: `bench_snapshot PID [TIMES [live]]`.
 * With "live" the memory of each twin is read as well. One line for each snapshot: pause of the
 * snapshot, pause of reaping it, in milliseconds, and bytes read.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/os/linux/snapshot.h"
#include "common/text.h"

#define PAUSE_MAX_US 2000000

struct work {
    struct snapshot snapshot;
    struct maps maps;
    bool read;
    uint64_t bytes, end_us;
    struct failure *f;
};

static int make(void *context, struct stop *stop)
{
    struct work *work = context;
    return snapshot_make(&work->snapshot, stop, work->f);
}

static void read_all(struct work *work)
{
    static char piece[1 << 20];
    for (size_t i = 0; i < work->maps.count; i++) {
        const struct map *map = &work->maps.list[i];
        for (uint64_t at = map->start; map->readable && !map->shared && at < map->end;) {
            size_t size = map->end - at < sizeof piece ? (size_t)(map->end - at) : sizeof piece;
            ssize_t got = pread(work->snapshot.mem_fd, piece, size, (off_t)at);
            if (got <= 0)
                break;
            work->bytes += (uint64_t)got;
            at += (uint64_t)got;
        }
    }
}

static int after(void *context, struct stop *stop, struct failure *f)
{
    struct work *work = context;
    (void)stop;
    int rc = snapshot_open(&work->snapshot, f);
    if (rc == 0 && work->read)
        read_all(work);
    int ended = snapshot_end(&work->snapshot, &work->end_us, f);
    return rc ? rc : ended;
}

static int once(const struct os_process *process, bool read, struct failure *f)
{
    struct work work = {.read = read, .f = f};
    struct stop stop;
    int rc = stop_open(&stop, process, f);
    if (rc)
        return rc;
    maps_init(&work.maps);
    rc = maps_read(&work.maps, process->pid, f);
    if (rc == 0)
        rc = snapshot_prepare(&work.snapshot, &stop, &work.maps, f);
    if (rc == 0)
        rc = stop_run(&stop, PAUSE_MAX_US, make, after, &work, f);
    if (rc && work.snapshot.begun)
        snapshot_end(&work.snapshot, &work.end_us, NULL);
    if (rc == 0)
        printf("%zu threads, pause %.3f ms, reaped in %.3f ms, %llu MiB read\n", stop.count,
               (double)stop.pause_us / 1000, (double)work.end_us / 1000,
               (unsigned long long)(work.bytes >> 20));
    snapshot_done(&work.snapshot);
    maps_done(&work.maps);
    stop_close(&stop);
    return rc;
}

int main(int argc, char **argv)
{
    struct os_process process;
    struct failure f = {0, ""};
    uint64_t pid = 0, times = 1;
    if (argc < 2 || text_u64_in(argv[1], 1, INT32_MAX, &pid) ||
        (argc > 2 && text_u64_in(argv[2], 1, 1000000, &times))) {
        fprintf(stderr, "usage: bench_snapshot PID [TIMES [live]]\n");
        return 2;
    }
    bool read = argc > 3;
    int rc = os_process_get("", (uint32_t)pid, &process, &f);
    for (uint64_t i = 0; i < times && rc == 0; i++)
        rc = once(&process, read, &f);
    if (rc)
        fprintf(stderr, "%s: %s\n", err_name(rc), f.text);
    return rc ? 1 : 0;
}
