/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands before and after the hold of every dump: who the process is, room for its threads,
 * the prediction, and what is said of the outcome. Invariant: nothing here touches the process.
 * Called by dump.c and dump_mini.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/os/linux/dump_linux.h"
#include "agent/os/linux/procfs.h"
#include "common/text.h"

#define MIB (1u << 20)
#define NAMED_MAX 5 /* missed threads that are named one by one */
/* Signals and floating point registers of a thread, besides what os_costs knows of it. */
#define STATE_US 4

static void read_arguments(uint32_t pid, char *out, size_t size_bytes)
{
    struct span text;
    char data[CORE_ARGUMENTS_SIZE];
    out[0] = '\0';
    if (proc_read_pid("", pid, "cmdline", data, sizeof data, &text, NULL) != 0)
        return;
    size_t length = text.size_bytes < size_bytes - 1 ? text.size_bytes : size_bytes - 1;
    while (length > 0 && text.data[length - 1] == '\0')
        length--;
    for (size_t i = 0; i < length; i++)
        out[i] = (char)(text.data[i] ? text.data[i] : ' ');
    out[length] = '\0';
}

static int read_process(struct dump *d, struct failure *f)
{
    uint32_t pid = d->take->process.pid;
    char data[PROC_STAT_SIZE], path[PROC_PATH_SIZE];
    struct span text;
    struct proc_stat stat_line;
    struct stat owner;
    struct core_process *p = &d->process;
    int rc = proc_read_pid("", pid, "stat", data, sizeof data, &text, f);
    if (rc)
        return rc;
    if (proc_parse_stat(text, &stat_line))
        return fail(f, ERR_CORRUPT, "cannot read the state of pid %u", pid);
    p->pid = (pid_t)pid;
    p->parent = (pid_t)stat_line.parent;
    p->group = getpgid(p->pid);
    p->session = getsid(p->pid);
    p->uid = d->take->process.uid;
    p->state = stat_line.state;
    proc_path(path, "", pid, "stat");
    if (stat(path, &owner) == 0)
        p->gid = owner.st_gid;
    text_copy(p->name, sizeof p->name, stat_line.name);
    read_arguments(pid, p->arguments, sizeof p->arguments);
    return 0;
}

static void read_auxv(struct dump *d)
{
    char path[PROC_PATH_SIZE];
    proc_path(path, "", d->take->process.pid, "auxv");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, d->auxv, sizeof d->auxv);
    d->auxv_bytes = got > 0 ? (size_t)got : 0;
    close(fd);
}

int dump_open(struct dump *d, const struct os_take *take, const struct os_output *out,
              struct os_result *result, struct failure *f)
{
    memset(d, 0, sizeof *d);
    memset(result, 0, sizeof *result);
    d->take = take;
    d->out = out;
    d->result = result;
    d->stop.pid_fd = -1;
    maps_init(&d->maps);
    areas_init(&d->areas);
    int rc = stop_open(&d->stop, &take->process, f);
    if (rc == 0)
        rc = maps_read(&d->maps, take->process.pid, f);
    if (rc == 0)
        rc = read_process(d, f);
    if (rc == 0)
        rc = thread_states_init(&d->states, &d->stop, f);
    if (rc == 0)
        read_auxv(d);
    return rc;
}

void dump_close(struct dump *d)
{
    maps_done(&d->maps);
    areas_done(&d->areas);
    thread_states_done(&d->states);
    copies_done(&d->copies);
    stop_close(&d->stop);
}

uint64_t dump_predict_us(const struct dump *d, uint64_t copy_bytes)
{
    const struct os_costs *costs = d->take->costs;
    bool hard = false;
    for (size_t i = 0; i < d->stop.count; i++)
        hard |= d->stop.threads[i].sleeps_hard;
    return costs->stop_us + d->stop.count * ((uint64_t)costs->thread_us + STATE_US) +
           copy_bytes / SEGMENTS_PAGE * costs->copy_mib_us / (MIB / SEGMENTS_PAGE) +
           (hard ? STOP_HARD_US : 0);
}

bool dump_may_copy(const struct dump *d, const struct map *map)
{
    return map->readable &&
           segment_content(&d->maps, map, areas_find(&d->areas, map->start)) != SEGMENT_NOTHING;
}

void dump_note_bytes(struct dump *d, uint64_t bytes, const char *what)
{
    char size[32];
    text_put_size(bytes, size, sizeof size);
    os_result_miss(d->result, "%s %s", size, what);
}

/* Where a thread is that would not stop. */
static void note_missed(struct dump *d, pid_t tid)
{
    char leaf[64], data[128], state = '?';
    struct span where;
    pid_t tracer;
    snprintf(leaf, sizeof leaf, "task/%d/wchan", tid);
    stop_thread_status((pid_t)d->stop.process.pid, tid, &tracer, &state);
    if (proc_read_pid("", d->stop.process.pid, leaf, data, sizeof data, &where, NULL) != 0)
        where = span_str("?");
    os_result_miss(d->result, "thread %d did not stop in time: state %c in %.*s", tid, state,
                   (int)where.size_bytes, (const char *)where.data);
}

void dump_note_threads(struct dump *d)
{
    struct os_result *result = d->result;
    const struct stop *stop = &d->stop;
    result->pause_us = stop->pause_us;
    result->paused = stop->pause_us > 0;
    result->threads = result->threads_missed = 0;
    for (size_t i = 0; i < stop->count; i++) {
        if (stop->threads[i].state == STOP_HELD)
            result->threads++;
        if (stop->threads[i].state == STOP_MISSED && ++result->threads_missed <= NAMED_MAX)
            note_missed(d, stop->threads[i].tid);
    }
    if (result->threads_missed > NAMED_MAX)
        os_result_miss(result, "%u more threads did not stop in time",
                       result->threads_missed - NAMED_MAX);
    if (stop->overflow > 0)
        os_result_miss(result, "%zu threads more than expected", stop->overflow);
    result->threads_missed += (uint32_t)stop->overflow;
    if (d->states.without > 0)
        os_result_miss(result, "vector registers of %zu running threads", d->states.without);
}

int dump_fail_held(const struct dump *d, int rc, struct failure *cause, struct failure *f)
{
    if (rc == 0 && d->result->threads == 0)
        rc = fail(cause, d->result->threads_missed ? ERR_TIMEOUT : ERR_GONE,
                  d->result->threads_missed ? "no thread stopped in time" : "process ended");
    if (rc && cause->code == 0)
        fail(cause, rc, rc == ERR_GONE ? "process ended" : "cannot capture: %s", err_text(rc));
    if (rc && f)
        *f = *cause;
    return rc;
}
