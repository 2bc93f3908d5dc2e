/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching a process's throws for as long as it lives (agent/os/throws.h). Invariant: what is told
 * adds up to what met the probe; what did not meet it, because of the cut-off, is told as cut off.
 * Called by agent/watch.c, in a child of the broker.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/linux/procfs.h"
#include "agent/os/linux/throws_look.h"
#include "agent/os/throws.h"
#include "common/port.h"
#include "common/text.h"

#define SECOND_US UINT64_C(1000000)
#define LOAD_AGAIN_US (2 * SECOND_US) /* nothing that throws is loaded yet */

struct watch {
    struct throws_look look;
    struct os_exception *out;
    os_throws_tell_fn tell;
    void *context;
    char executable[256];
    uint64_t told_us;
    uint64_t unnamed; /* told so far */
    uint64_t off_us;  /* told so far */
};

/* Of CLOCK_MONOTONIC, as the kernel's program stamps. */
static uint64_t now_ns(void)
{
    struct timespec mono;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    return (uint64_t)mono.tv_sec * 1000000000 + (uint64_t)mono.tv_nsec;
}

static int64_t wall_of(uint64_t mono_ns)
{
    return port_wall_us() - (int64_t)(now_ns() - mono_ns) / 1000;
}

static void read_executable(struct watch *w)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, "", w->look.process.pid, "exe");
    ssize_t got = readlink(path, w->executable, sizeof w->executable - 1);
    w->executable[got > 0 ? got : 0] = '\0';
    text_clean(w->executable);
}

static void begin(struct watch *w, const char *type, uint64_t first_ns, uint64_t last_ns,
                  uint64_t count)
{
    struct os_exception *e = w->out;
    const struct os_process *p = &w->look.process;
    memset(e, 0, sizeof *e);
    e->source = OS_CPP_THROW;
    (void)text_copy(e->type, sizeof e->type, type);
    (void)text_copy(e->language, sizeof e->language, "c++");
    (void)text_copy(e->process, sizeof e->process, p->name);
    (void)text_copy(e->executable, sizeof e->executable, w->executable);
    e->pid = p->pid;
    e->start_ticks = p->start_ticks;
    e->uid = p->uid;
    e->count = count;
    e->mono_us = first_ns / 1000;
    e->wall_us = wall_of(first_ns);
    e->last_us = wall_of(last_ns);
    text_clean(e->type);
}

static void put_frames(struct os_exception *e, const struct throws_sample *sample)
{
    const uint32_t most = OS_EXCEPTION_FRAMES;
    e->frame_count = sample->frame_count < most ? sample->frame_count : most;
    e->frames_left_out = sample->frame_count - e->frame_count;
    memcpy(e->frames, sample->frames, e->frame_count * sizeof e->frames[0]);
    if (sample->why)
        (void)text_format(e->missing, sizeof e->missing, "frames: %s", sample->why);
}

/* ---- one that was looked at ---- */

static void read_thread(struct watch *w, uint32_t tid)
{
    char path[PROC_PATH_SIZE], data[64];
    struct span text;
    w->out->tid = tid;
    (void)snprintf(path, sizeof path, "/proc/%u/task/%u/comm", w->look.process.pid, tid);
    if (proc_read(path, data, sizeof data, &text, NULL))
        return;
    while (text.size_bytes > 0 && text.data[text.size_bytes - 1] == '\n')
        text.size_bytes--;
    (void)text_copy_span(w->out->thread, sizeof w->out->thread, text);
    text_clean(w->out->thread);
}

static int on_sample(void *context, struct throws_group *group, const struct throws_sample *sample,
                     uint64_t mono_ns)
{
    struct watch *w = context;
    if (group->waiting == 0)
        return 0; /* told with the others already */
    group->waiting--;
    begin(w, group->name, mono_ns, mono_ns, 1);
    put_frames(w->out, sample);
    read_thread(w, sample->tid);
    return w->tell(w->context, w->out);
}

/* ---- the others, once a second ---- */

static int tell_group(struct watch *w, struct throws_group *group)
{
    if (group->waiting == 0)
        return 0;
    begin(w, group->name, group->waiting_first_ns, group->last_ns, group->waiting);
    w->out->by_site = true;
    w->out->tid = group->tid;
    if (group->sample_count > 0)
        put_frames(w->out, &group->samples[group->newest_sample]);
    group->waiting = 0;
    return w->tell(w->context, w->out);
}

/* Those of which only the number is known, and those that nobody counted. */
static int tell_unknown(struct watch *w)
{
    const struct throws_look *look = &w->look;
    uint64_t now = now_ns(), unnamed = throws_probe_lost(&look->probe) + look->set.others;
    uint64_t off_us = throws_rate_off_us(&look->rate, port_mono_us());
    int e = 0;
    if (unnamed > w->unnamed) {
        begin(w, "[type not known]", now, now, unnamed - w->unnamed);
        (void)text_copy(w->out->missing, sizeof w->out->missing,
                        "type and frames: too many throws at a time");
        w->out->by_site = true;
        w->unnamed = unnamed;
        e = w->tell(w->context, w->out);
    }
    if (!e && look->rate.cuts && off_us - w->off_us >= SECOND_US) {
        begin(w, "[cut off]", now, now, 1);
        w->out->cut_off = true;
        (void)text_format(w->out->message, sizeof w->out->message,
                          "more than %d throws a second: for %.1f s they were not counted but in "
                          "peeks of 10 ms",
                          OS_THROWS_PER_SECOND, (double)(off_us - w->off_us) / 1e6);
        w->off_us = off_us;
        e = w->tell(w->context, w->out);
    }
    return e;
}

static int tell_second(struct watch *w)
{
    int e = 0;
    w->told_us = port_mono_us();
    for (size_t i = 0; i < w->look.set.count && !e; i++)
        e = tell_group(w, &w->look.set.list[i]);
    if (!e && w->look.has_probe)
        e = tell_unknown(w);
    return e;
}

static bool has_waiting(const struct watch *w)
{
    for (size_t i = 0; i < w->look.set.count; i++)
        if (w->look.set.list[i].waiting)
            return true;
    return false;
}

/* ---- the whole ---- */

/* Rests for long while nothing is thrown: no second to tell of, no decision to take. */
static uint64_t next_us(const struct watch *w)
{
    uint64_t now = port_mono_us();
    if (!w->look.has_probe)
        return now + LOAD_AGAIN_US;
    if (has_waiting(w) || w->look.rate.cuts)
        return w->told_us + SECOND_US;
    return now + 60 * SECOND_US;
}

static int look_on(struct watch *w, int reader_fd, struct failure *f)
{
    int e = 0;
    while (!e && !w->look.ended) {
        uint64_t until_us = next_us(w);
        e = throws_look_step(&w->look, until_us, reader_fd, f);
        if (!e && !w->look.has_probe && port_mono_us() >= until_us && !w->look.ended) {
            e = throws_look_load(&w->look, f);
            e = e == ERR_NOTFOUND ? 0 : e;
        }
        if (!e && port_mono_us() - w->told_us >= SECOND_US)
            e = tell_second(w);
    }
    if (!e)
        e = throws_look_finish(&w->look);
    return e ? e : tell_second(w);
}

int os_throws_watch(const struct os_process *process, int reader_fd, os_throws_tell_fn tell,
                    void *context, struct failure *f)
{
    struct watch *w = calloc(1, sizeof *w);
    struct os_exception *out = calloc(1, sizeof *out);
    int e = w && out ? 0 : fail(f, ERR_NOMEM, "no memory to watch a process");
    bool open = false;
    if (!e) {
        w->out = out;
        w->tell = tell;
        w->context = context;
        e = throws_look_open(&w->look, process, f);
        open = e == 0 || e == ERR_NOTFOUND;
        w->look.sampled = on_sample;
        w->look.context = w;
    }
    if (open) {
        read_executable(w);
        e = look_on(w, reader_fd, f);
        throws_look_close(&w->look);
    }
    free(w);
    free(out);
    return e == ERR_CLOSED || (open && e == ERR_GONE) ? 0 : e;
}
