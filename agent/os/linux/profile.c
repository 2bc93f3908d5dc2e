/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profiling a process: perf events for its time on the CPU, looks from outside for its time off it
 * (and for both, where perf events are not permitted), then names, then files. Invariant: the
 * process is never stopped and nothing of it is written. Called by agent/worker.c, in the worker.
 */
#include "agent/os/profile.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/os/linux/perf_record.h"
#include "agent/os/linux/procfs.h"
#include "agent/os/linux/profile_kernel.h"
#include "agent/os/linux/profile_perf.h"
#include "agent/os/linux/profile_wait.h"
#include "agent/os/linux/profile_write.h"
#include "common/port.h"
#include "common/text.h"

#define TICK_MS 12 /* and up to TICK_SPREAD_MS more: no step with what the process does */
#define TICK_SPREAD_MS 15
#define WRITE_RESERVE_US 4000000 /* before the deadline: for names and files */
#define FOR_MIN_US 100000
#define SEEN_PERCENT_MIN 80
#define SEEN_FROM_NS UINT64_C(300000000) /* less CPU time than this is not judged */
/* Samples between two instructions of a function's beginning or end may lack the tables. */
#define BROKEN_PERCENT_MIN 2

struct profile {
    const struct os_take *take;
    struct os_result *result;
    int pid_fd;
    struct profile_set set;
    struct profile_code code;
    struct profile_perf perf;
    struct profile_wait wait;
    bool has_perf, ended, cut;
    char without_perf[OS_MISSING_SIZE];
    int64_t wall_us;
    uint64_t began_us, took_us;
    uint64_t ticks_before, ticks_after; /* CPU time of the whole process, as the kernel counts it */
    uint32_t jitter;
};

/* ---- the process ---- */

static int read_ticks(const struct profile *p, uint64_t *ticks, uint64_t *start_ticks)
{
    char data[PROC_STAT_SIZE];
    struct span text;
    struct proc_stat stat;
    int e = proc_read_pid("", p->take->process.pid, "stat", data, sizeof data, &text, NULL);
    if (!e)
        e = proc_parse_stat(text, &stat);
    if (e)
        return e;
    *ticks = stat.user_ticks + stat.system_ticks;
    *start_ticks = stat.start_ticks;
    return proc_has_ended(&stat) ? ERR_GONE : 0;
}

/* Pins the process first, then makes sure that it is the one that was found. */
static int pin(struct profile *p, struct failure *f)
{
    const struct os_process *process = &p->take->process;
    uint64_t start_ticks;
    p->pid_fd = (int)syscall(SYS_pidfd_open, (pid_t)process->pid, 0);
    if (p->pid_fd < 0 && errno != ENOSYS)
        return fail(f, errno == ESRCH ? ERR_GONE : err_from_errno(errno), "process ended");
    int e = read_ticks(p, &p->ticks_before, &start_ticks);
    if (e || start_ticks != process->start_ticks)
        return fail(f, ERR_GONE, "process ended");
    return 0;
}

static void nap(struct profile *p)
{
    struct pollfd end = {p->pid_fd, POLLIN, 0};
    p->jitter = p->jitter * 1103515245u + 12345u;
    int ms = TICK_MS + (int)(p->jitter >> 16) % TICK_SPREAD_MS;
    if (poll(&end, p->pid_fd >= 0 ? 1 : 0, ms) > 0)
        p->ended = true;
}

/* ---- looking ---- */

static int choose_time(struct profile *p, uint64_t *for_us, struct failure *f)
{
    const struct os_take *take = p->take;
    char would[32], limit[32];
    *for_us = take->for_us ? take->for_us : OS_PROFILE_FOR_DEFAULT_US;
    if (*for_us > OS_PROFILE_FOR_MAX_US) {
        text_put_duration((int64_t)*for_us, would, sizeof would);
        text_put_duration((int64_t)OS_PROFILE_FOR_MAX_US, limit, sizeof limit);
        return fail(f, ERR_REFUSED, "profile would last %s, limit %s (--for)", would, limit);
    }
    if (take->deadline_mono_us) {
        uint64_t now = port_mono_us(), reserve = WRITE_RESERVE_US;
        uint64_t left = take->deadline_mono_us > now ? take->deadline_mono_us - now : 0;
        if (left / 2 < reserve)
            reserve = left / 2;
        p->cut = *for_us > left - reserve;
        if (p->cut)
            *for_us = left - reserve;
    }
    if (*for_us < FOR_MIN_US)
        *for_us = FOR_MIN_US;
    return 0;
}

/* perf events when permitted, else the reason why not. */
static int choose_way(struct profile *p, struct failure *f)
{
    pid_t pid = (pid_t)p->take->process.pid;
    struct failure why = {0, ""};
    int e = profile_code_open(&p->code, &p->set, pid, f);
    if (e)
        return e;
    e = profile_perf_open(&p->perf, &p->set, &p->code, pid, OS_PROFILE_HZ, &why);
    if (e == ERR_GONE || e == ERR_NOMEM)
        return fail(f, e, "%s", why.text);
    p->has_perf = e == 0;
    if (e)
        text_copy(p->without_perf, sizeof p->without_perf, why.text);
    return profile_wait_open(&p->wait, &p->set, &p->code, pid, !p->has_perf, f);
}

static int gather(struct profile *p)
{
    int e = p->has_perf ? profile_perf_drain(&p->perf) : 0;
    if (!e)
        e = profile_wait_tick(&p->wait);
    if (!p->ended)
        profile_code_refresh(&p->code, port_mono_us());
    return e == ERR_LIMIT ? 0 : e;
}

static int observe(struct profile *p, uint64_t for_us, struct failure *f)
{
    uint64_t ignored;
    int e = 0;
    p->wall_us = port_wall_us();
    p->began_us = port_mono_us();
    while (!e && !p->ended && !p->perf.executed && port_mono_us() - p->began_us < for_us) {
        e = gather(p);
        nap(p);
    }
    p->took_us = port_mono_us() - p->began_us;
    if (!e && read_ticks(p, &p->ticks_after, &ignored))
        p->ended = true;
    if (!e && p->has_perf)
        e = profile_perf_drain(&p->perf);
    profile_perf_close(&p->perf);
    if (!e && !p->ended)
        e = profile_wait_finish(&p->wait);
    if (e == ERR_LIMIT)
        e = 0;
    return e ? fail(f, e, "cannot keep what was seen: %s", err_text(e)) : 0;
}

/* ---- what is missing ---- */

/* Of all threads, also of those that have ended. */
static uint64_t true_cpu_ns(const struct profile *p)
{
    long hz = sysconf(_SC_CLK_TCK);
    if (hz <= 0 || p->ticks_after < p->ticks_before)
        return 0;
    return (p->ticks_after - p->ticks_before) * (UINT64_C(1000000000) / (uint64_t)hz);
}

static void note_unseen(struct profile *p, uint64_t cpu_ns)
{
    uint64_t true_ns = true_cpu_ns(p);
    if (p->ended)
        return;
    if (true_ns > SEEN_FROM_NS && cpu_ns / SEEN_PERCENT_MIN < true_ns / 100)
        os_result_miss(p->result,
                       "only %llu %% of its CPU time was seen: threads that live shorter than "
                       "%d ms are not%s",
                       (unsigned long long)(cpu_ns * 100 / true_ns), 1000 / OS_PROFILE_HZ,
                       p->has_perf && p->perf.no_kernel ? ", nor the kernel's part" : "");
}

static void note_way(struct profile *p)
{
    struct os_result *r = p->result;
    if (!p->has_perf)
        os_result_miss(
            r, "sampled without stopping from /proc: %s: of running threads only that they ran",
            p->without_perf);
    else if (p->perf.no_kernel)
        os_result_miss(r, "kernel frames: not permitted (needs CAP_PERFMON)");
    if (p->wait.denied)
        os_result_miss(r, "where sleeping threads wait: not permitted (needs CAP_SYS_PTRACE)");
    if (p->perf.executed)
        os_result_miss(r, "it executed another program after %.1f s: ends there",
                       (double)p->took_us / 1e6);
    else if (p->ended)
        os_result_miss(r, "process ended after %.1f s", (double)p->took_us / 1e6);
    if (p->cut)
        os_result_miss(r, "looked %.1f s only: the worker's deadline", (double)p->took_us / 1e6);
}

static void note_stacks(struct profile *p)
{
    struct os_result *r = p->result;
    if (p->perf.lost > 0)
        os_result_miss(r, "%llu samples lost: the worker got no processor in time",
                       (unsigned long long)p->perf.lost);
    if (p->perf.damaged > 0)
        os_result_miss(r, "%llu records were unreadable", (unsigned long long)p->perf.damaged);
    if (p->code.deep > 0)
        os_result_miss(r, "%llu of %llu stacks go on beyond the %u KiB that are copied",
                       (unsigned long long)p->code.deep, (unsigned long long)p->code.walked,
                       PERF_STACK_BYTES >> 10);
    if (p->code.broken * 100 > p->code.walked * BROKEN_PERCENT_MIN)
        os_result_miss(r, "%llu of %llu stacks could not be followed to their end",
                       (unsigned long long)p->code.broken, (unsigned long long)p->code.walked);
    if (p->set.left_out > 0 || p->wait.error == ERR_LIMIT)
        os_result_miss(r, "%llu samples of rare stacks: more than %u different ones",
                       (unsigned long long)p->set.left_out, PROFILE_STACKS_MAX);
    if (p->code.changed_unseen)
        os_result_miss(r, "names of code that was mapped late");
    if (p->code.lines_cut)
        os_result_miss(r, "source lines of some frames: time limit");
    if (p->code.names_cut)
        os_result_miss(r, "names of some code made at run time: the process's list of them is too "
                          "long");
    if (p->code.modules_left > 0)
        os_result_miss(r, "names from %zu of the files: more than %d", p->code.modules_left,
                       UNWIND_MODULES_MAX);
    if (p->wait.overflow > 0)
        os_result_miss(r, "waits of %zu threads: more than %d", p->wait.overflow,
                       PROFILE_WAIT_THREADS_MAX);
}

/* ---- the whole ---- */

/* Threads that ended between two looks have run as well: the kernel has counted it for the whole.
 */
static void add_unseen(struct profile *p)
{
    uint64_t samples, seen_ns, off_ns, true_ns = true_cpu_ns(p);
    uint32_t thread, words, stack;
    profile_total(&p->set, &samples, &seen_ns, &off_ns);
    if (p->has_perf || p->ended || true_ns < SEEN_FROM_NS || seen_ns >= true_ns)
        return;
    if (profile_thread(&p->set, (pid_t)p->take->process.pid, NULL, &thread) == 0 &&
        profile_words(&p->set, "[running, ended unseen]", &words) == 0 &&
        profile_stack(&p->set, thread, &words, 1, &stack) == 0)
        p->set.stacks[stack].cpu_ns += true_ns - seen_ns;
}

/* Without perf events the samples are worked out from the time. */
static void count_samples(struct profile *p)
{
    uint64_t period_ns = UINT64_C(1000000000) / OS_PROFILE_HZ;
    for (size_t i = 0; i < p->set.stack_count; i++) {
        struct profile_stack *s = &p->set.stacks[i];
        if (s->cpu_ns > 0 && s->samples == 0)
            s->samples = s->cpu_ns < period_ns ? 1 : s->cpu_ns / period_ns;
    }
}

static int name_all(struct profile *p, struct failure *f)
{
    size_t named = 0, all = 0;
    int e = profile_code_name(&p->code);
    p->code.lines_cut |= p->code.unwind && unwind_lines_cut(p->code.unwind);
    if (!e)
        e = profile_kernel_name(&p->set, "", &named, &all);
    if (!e && all > 0 && named == 0)
        os_result_miss(p->result, "names of kernel functions: /proc/kallsyms hides addresses");
    if (e == ERR_LIMIT) {
        os_result_miss(p->result, "names of some functions: more than fit");
        e = 0;
    }
    return e ? fail(f, e, "no memory to name what was seen") : 0;
}

static int finish(struct profile *p, const struct os_output *out, struct failure *f)
{
    uint64_t samples, cpu_ns, off_ns;
    add_unseen(p);
    count_samples(p);
    profile_total(&p->set, &samples, &cpu_ns, &off_ns);
    p->result->threads = (uint32_t)p->set.thread_count;
    if (samples == 0 && off_ns < 1000)
        return fail(f, ERR_NOTFOUND,
                    p->ended ? "process ended before anything was seen"
                             : "no thread ran in that time and none waited");
    note_way(p);
    note_unseen(p, cpu_ns);
    int e = name_all(p, f);
    if (e)
        return e;
    note_stacks(p);
    struct profile_about about = {.process = p->take->process.name,
                                  .pid = p->take->process.pid,
                                  .wall_us = p->wall_us,
                                  .took_us = p->took_us,
                                  .hz = OS_PROFILE_HZ};
    return profile_write(&p->set, &about, out, p->result, f);
}

static void profile_done(struct profile *p)
{
    profile_wait_close(&p->wait);
    profile_perf_close(&p->perf);
    profile_code_close(&p->code);
    profile_set_done(&p->set);
    if (p->pid_fd >= 0)
        close(p->pid_fd);
}

int os_profile_capture(const struct os_take *take, const struct os_output *out,
                       struct os_result *result, struct failure *f)
{
    struct profile p = {.take = take, .result = result, .pid_fd = -1};
    uint64_t for_us;
    memset(result, 0, sizeof *result);
    profile_set_init(&p.set);
    port_random(&p.jitter, sizeof p.jitter);
    int e = choose_time(&p, &for_us, f);
    if (!e)
        e = pin(&p, f);
    if (!e)
        e = choose_way(&p, f);
    if (!e)
        e = observe(&p, for_us, f);
    if (!e)
        e = finish(&p, out, f);
    profile_done(&p);
    return e;
}
