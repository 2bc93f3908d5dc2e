/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No zombie is left: the process is made to call wait4(2) for a twin that has ended. Invariant:
 * only a child that cannot be anything but a twin is reaped, and never waited for (WNOHANG). Called
 * by snapshot.c and by a worker of its own that tidies up after one that was killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/os/linux/inject.h"
#include "agent/os/linux/procfs.h"
#include "agent/os/linux/snapshot.h"
#include "common/text.h"

#define HOLD_MAX_US 200000 /* of one thread, on a very busy machine; 100 us are usual */
#define REAP_WAIT_US 2000000
#define NAP_US 20000
#define LOOK_US 300000 /* for what may not be there at all */
#define TIDY_MAX 256
#define PROCESSES_MAX 100000
#define FORKED_NOT_EXECUTED 0x40 /* PF_FORKNOEXEC, include/linux/sched.h */
#define FIELD_EXIT_SIGNAL 38     /* proc(5), /proc/PID/stat */
#define NAMESPACES_MAX 32        /* the kernel's own limit of nested pid namespaces */

static void nap_us(long us)
{
    struct timespec t = {0, us * 1000};
    nanosleep(&t, NULL);
}

/* ---- reaping ---- */

struct reap {
    struct inject *inject;
    pid_t child;
    struct failure *f;
};

static int reap_held(void *context, struct stop *stop, struct stop_thread *thread)
{
    struct reap *reap = context;
    const char *why = "";
    struct inject_call call = {
        SYS_wait4, {(uint64_t)reap->child, 0, __WALL | WNOHANG, 0, 0, 0}, false};
    if (inject_fitness(reap->inject, thread->tid, &thread->regs, &why) == 0)
        return fail(reap->f, ERR_AGAIN, "%s", why);
    int rc = inject_call(reap->inject, thread->tid, &call, stop_until_us(stop), reap->f);
    if (rc && reap->inject->begun)
        thread->state = STOP_MISSED;
    if (rc)
        return rc;
    /* ECHILD: somebody else has reaped it. */
    if (reap->inject->result == reap->child || reap->inject->result == -ECHILD)
        return 0;
    return fail(reap->f, ERR_AGAIN, "child %d has not ended yet", reap->child);
}

/* Thread after thread, until one can do it. Threads asleep are likeliest. */
static int reap_one(struct stop *stop, struct reap *reap, uint64_t *pause_us)
{
    uint64_t until_us = stop_now_us() + REAP_WAIT_US;
    int rc = ERR_AGAIN;
    for (size_t i = 0; stop_now_us() < until_us; i++) {
        struct stop_thread *thread = &stop->threads[i % stop->count];
        if (i > 0 && i % stop->count == 0)
            nap_us(NAP_US);
        rc = stop_hold_one(stop, thread, HOLD_MAX_US, reap_held, reap, pause_us, reap->f);
        if (rc == 0)
            *reap->f = (struct failure){0, ""}; /* what others could not do */
        if (rc != ERR_AGAIN && rc != ERR_UNSUPPORTED && rc != ERR_TIMEOUT)
            return rc;
    }
    char text[FAILURE_TEXT_SIZE];
    snprintf(text, sizeof text, "%s", reap->f->text);
    return fail(reap->f, ERR_TIMEOUT, "a zombie is left in the process (pid %d of its own): %s",
                reap->child, text);
}

static int reap_all(struct stop *stop, const struct maps *maps, const pid_t *inner_pids,
                    size_t count, const struct inject_controls *controls, size_t *reaped,
                    uint64_t *pause_us, struct failure *f)
{
    struct inject *inject = calloc(1, sizeof *inject);
    if (!inject)
        return fail(f, ERR_NOMEM, "no memory to reap the snapshot");
    inject->controls = *controls;
    int rc = inject_find_code(inject, (pid_t)stop->process.pid, maps, f);
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct failure cause = {0, ""};
        struct reap reap = {inject, inner_pids[i], &cause};
        rc = reap_one(stop, &reap, pause_us);
        if (rc)
            fail(f, rc, "%s", cause.text);
        *reaped += rc == 0;
    }
    free(inject);
    return rc;
}

int snapshot_reap(const struct os_process *process, const pid_t *inner_pids, size_t count,
                  const struct inject_controls *controls, size_t *reaped, uint64_t *pause_us,
                  struct failure *f)
{
    struct stop stop;
    struct maps maps;
    int rc = stop_open(&stop, process, f);
    if (rc)
        return rc;
    maps_init(&maps);
    rc = snapshot_check(&stop, f);
    if (rc == 0)
        rc = maps_read(&maps, process->pid, f);
    if (rc == 0)
        rc = reap_all(&stop, &maps, inner_pids, count, controls, reaped, pause_us, f);
    maps_done(&maps);
    stop_close(&stop);
    return rc;
}

/* ---- finding what was left ---- */

/* Field `number` (from 3 on) of /proc/PID/stat. */
static int stat_field(struct span text, unsigned number, uint64_t *out)
{
    struct span field = {NULL, 0};
    const uint8_t *paren = memrchr(text.data, ')', text.size_bytes);
    if (!paren)
        return ERR_CORRUPT;
    size_t used = (size_t)(paren + 1 - text.data);
    struct span rest = span_of(text.data + used, text.size_bytes - used);
    for (unsigned i = 3; i <= number; i++) {
        if (proc_take_field(&rest, &field))
            return ERR_CORRUPT;
    }
    return text_take_u64(&field, out);
}

/* The numbers behind NSpid: outermost namespace first. */
static size_t read_pids(uint32_t pid, uint64_t *out, size_t limit)
{
    char data[PROC_TEXT_SIZE];
    struct span text, value;
    size_t count = 0;
    if (proc_read_pid("", pid, "status", data, sizeof data, &text, NULL) != 0 ||
        proc_find_key(text, "NSpid:", &value) != 0)
        return 0;
    while (count < limit && proc_take_number(&value, &out[count]) == 0)
        count++;
    return count;
}

enum kind { KIND_OTHER, KIND_ALIVE, KIND_ZOMBIE };

static enum kind kind_of(const struct os_process *parent, uint64_t born_after_ticks, uint32_t pid)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat;
    uint64_t exit_signal;
    if (proc_read_pid("", pid, "stat", data, sizeof data, &text, NULL) != 0 ||
        proc_parse_stat(text, &stat) != 0 || stat.parent != parent->pid ||
        stat.start_ticks < born_after_ticks || !(stat.flags & FORKED_NOT_EXECUTED) ||
        stat_field(text, FIELD_EXIT_SIGNAL, &exit_signal) != 0 || exit_signal != 0)
        return KIND_OTHER;
    return stat.state == 'Z' ? KIND_ZOMBIE : KIND_ALIVE;
}

/* One look. *alive counts those that may be about to become such. */
static size_t look_for_twins(const struct os_process *process, uint64_t born_after_ticks,
                             pid_t *inner_pids, size_t limit, size_t *alive)
{
    uint64_t own[NAMESPACES_MAX + 1], pids[NAMESPACES_MAX + 1];
    uint32_t *all = NULL;
    size_t count = 0, found = 0;
    size_t level = read_pids(process->pid, own, NAMESPACES_MAX + 1);
    *alive = 0;
    if (level == 0)
        return 0;
    if (proc_numbers("/proc", &all, &count, PROCESSES_MAX, NULL) != 0 && !all)
        return 0;
    for (size_t i = 0; i < count && found < limit; i++) {
        enum kind kind = kind_of(process, born_after_ticks, all[i]);
        *alive += kind == KIND_ALIVE;
        if (kind == KIND_ZOMBIE && read_pids(all[i], pids, NAMESPACES_MAX + 1) >= level)
            inner_pids[found++] = (pid_t)pids[level - 1];
    }
    free(all);
    return found;
}

/* A thread that was let go in front of clone(2) has yet to run, and its twin to end. */
size_t snapshot_find_twins(const struct os_process *process, uint64_t born_after_ticks,
                           pid_t *inner_pids, size_t limit)
{
    uint64_t began_us = stop_now_us();
    for (;;) {
        size_t alive = 0;
        size_t count = look_for_twins(process, born_after_ticks, inner_pids, limit, &alive);
        uint64_t passed_us = stop_now_us() - began_us;
        if ((count > 0 && alive == 0) || passed_us > (alive > 0 ? REAP_WAIT_US : LOOK_US))
            return count;
        nap_us(NAP_US);
    }
}

int snapshot_tidy(const struct os_process *process, uint64_t born_after_ticks, struct failure *f)
{
    pid_t twins[TIDY_MAX];
    size_t reaped = 0;
    uint64_t pause_us = 0;
    struct inject_controls as_shipped = {.die_at = 0};
    size_t count = snapshot_find_twins(process, born_after_ticks, twins, TIDY_MAX);
    if (count == 0)
        return 0;
    int rc = snapshot_reap(process, twins, count, &as_shipped, &reaped, &pause_us, f);
    return rc ? rc : (int)reaped;
}
