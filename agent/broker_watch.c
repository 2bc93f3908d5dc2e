/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and looking after watches. See broker_watch.h. */
#include "agent/broker_watch.h"

#include <signal.h>
#include <string.h>
#include <uv.h>

#include "agent/worker.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define END_LIMIT_MS 1000
#define END_STEP_MS 5
#define POLICY_AGAIN_US UINT64_C(4000000)

static int check_policy(const char *policy_path, const char *kind, const char *name,
                        struct failure *f)
{
    struct policy policy;
    int e = policy_load(&policy, policy_path, f);
    if (!e)
        e = policy_allows_kind(&policy, kind, f);
    return e ? e : policy_allows_process(&policy, name, f);
}

static int find_free(const struct broker_watches *w, const struct os_process *process, size_t *out,
                     struct failure *f)
{
    *out = BROKER_WATCHES_MAX;
    for (size_t i = 0; i < BROKER_WATCHES_MAX; i++) {
        if (w->list[i].worker.pid <= 0)
            *out = i;
        else if (w->list[i].process.pid == process->pid &&
                 w->list[i].process.start_ticks == process->start_ticks)
            return fail(f, ERR_BUSY, "process %u is watched already", process->pid);
    }
    if (*out == BROKER_WATCHES_MAX)
        return fail(f, ERR_LIMIT, "%d processes are watched already, and no more can be",
                    BROKER_WATCHES_MAX);
    return 0;
}

int broker_watch_start(struct broker_watches *w, const char *policy_path, struct broker_run *run,
                       int output_fd, int close_fd, struct failure *f)
{
    struct watch_job job = {.output_fd = output_fd, .close_fd = close_fd};
    struct os_process asked = {.pid = run->pid,
                               .start_ticks = run->start_ticks,
                               .exe_device = run->exe_device,
                               .exe_inode = run->exe_inode};
    size_t place;
    run->kind[sizeof run->kind - 1] = '\0';
    text_copy(asked.name, sizeof asked.name, "what was found");
    if (strcmp(run->kind, WATCH_KIND) != 0)
        return fail(f, ERR_UNSUPPORTED, "kind '%s' cannot be watched by this agent (%s)", run->kind,
                    TRAWL_VERSION);
    int e = output_fd < 0 ? fail(f, ERR_PROTOCOL, "no descriptor for what is seen") : 0;
    if (!e)
        e = worker_check_process(&asked, &job.process, f);
    if (!e)
        e = check_policy(policy_path, run->kind, job.process.name, f);
    if (!e)
        e = find_free(w, &job.process, &place, f);
    if (!e)
        e = os_worker_start(&w->list[place].worker, OS_WORKER_NO_DEADLINE_US, watch_main, &job, f);
    if (!e)
        w->list[place].process = job.process;
    return e;
}

static bool has_ended(struct os_worker *worker)
{
    int status;
    return worker->pid <= 0 || os_worker_poll(worker, &status) != ERR_AGAIN;
}

void broker_watch_end(struct os_worker *worker)
{
    if (worker->pid <= 0)
        return;
    (void)uv_kill(worker->pid, SIGTERM);
    for (int i = 0; i < END_LIMIT_MS / END_STEP_MS && !has_ended(worker); i++)
        uv_sleep(END_STEP_MS);
    os_worker_kill(worker);
}

void broker_watch_look(struct broker_watches *w, const char *policy_path)
{
    bool ask = port_mono_us() - w->policy_us >= POLICY_AGAIN_US;
    if (ask)
        w->policy_us = port_mono_us();
    for (size_t i = 0; i < BROKER_WATCHES_MAX; i++) {
        struct failure f = {0};
        int status;
        if (w->list[i].worker.pid <= 0 || os_worker_poll(&w->list[i].worker, &status) != ERR_AGAIN)
            continue;
        if (!ask || !check_policy(policy_path, WATCH_KIND, w->list[i].process.name, &f))
            continue;
        log_warn("process %u is watched no longer: %s", w->list[i].process.pid, f.text);
        broker_watch_end(&w->list[i].worker);
    }
}

bool broker_watch_any(const struct broker_watches *w)
{
    for (size_t i = 0; i < BROKER_WATCHES_MAX; i++)
        if (w->list[i].worker.pid > 0)
            return true;
    return false;
}

void broker_watch_stop(struct broker_watches *w)
{
    for (size_t i = 0; i < BROKER_WATCHES_MAX; i++)
        broker_watch_end(&w->list[i].worker);
}
