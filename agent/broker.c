/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker's loop: receive, do, reply; look after the worker in between. Invariants: a process is
 * only touched when pid and start time are those of the request and the policy, read anew each
 * time, allows it; the loop never waits for a worker. Runs in its own process.
 */
#include "agent/broker.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "agent/broker_watch.h"
#include "agent/broker_logs.h"
#include "agent/broker_wire.h"
#include "agent/crash_command.h"
#include "agent/os/dump.h"
#include "agent/os/io.h"
#include "agent/os/privilege.h"
#include "agent/policy.h"
#include "agent/worker.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define WORKER_LOOK_MS 2
#define WORKER_LOOK_LATER_MS 20
#define WORKER_IS_LONG_US UINT64_C(1000000)
#define TIDY_LIMIT_US UINT64_C(3000000)

struct broker {
    int fd;
    const char *policy_path;
    const struct broker_settings *settings;
    struct broker_logs logs;
    struct policy policy;
    struct policy_hour hour;
    struct broker_request request;
    struct broker_reply reply;
    /* The worker, when one runs. */
    struct os_worker worker;
    bool is_running, is_stopped;
    uint64_t run_id, started_mono_us;
    struct worker_job job;
    uint64_t born_ticks; /* when the worker started; os_process.start_ticks */
    int result_fd;
    int base_fd; /* for the next run; -1: none */
    /* The second worker, when the first may have left something behind. */
    struct os_worker tidier;
    bool is_tidying;
    struct worker_outcome outcome; /* what is told of the first */
    struct broker_watches watches;
};

static struct broker_reply *begin_reply(struct broker *b, uint32_t op, uint64_t id)
{
    memset(&b->reply, 0, sizeof b->reply);
    b->reply.magic = BROKER_MAGIC;
    b->reply.op = op;
    b->reply.id = id;
    return &b->reply;
}

/* A reply that cannot be sent means that the agent has gone, which the next receive will tell. */
static void send_reply(struct broker *b, int error, const struct failure *f)
{
    b->reply.error = error;
    if (error)
        text_copy(b->reply.text, sizeof b->reply.text, f->text);
    (void)os_message_send(b->fd, &b->reply, sizeof b->reply, -1, NULL);
}

/* ---- RESOLVE ---- */

static int add_found(void *context, const struct os_process *process)
{
    struct broker_found *found = context;
    if (found->count < BROKER_PROCESSES_MAX)
        found->list[found->count++] = *process;
    found->matched++;
    return 0;
}

static void resolve(struct broker *b)
{
    struct broker_selector *s = &b->request.body.resolve;
    struct failure f = {0};
    s->name[sizeof s->name - 1] = '\0';
    s->unit[sizeof s->unit - 1] = '\0';
    s->container[sizeof s->container - 1] = '\0';
    s->command[sizeof s->command - 1] = '\0';
    struct os_process_filter filter = {.name = s->name,
                                       .pid = s->pid,
                                       .unit = s->unit,
                                       .port = s->port,
                                       .container = s->container,
                                       .command = s->command};
    struct broker_reply *reply = begin_reply(b, BROKER_RESOLVE, b->request.id);
    int e = os_process_each("", &filter, add_found, &reply->body.found, &f);
    send_reply(b, e, &f);
}

/* ---- RUN ---- */

/* What the owner says, read anew, so that a change counts at once. */
static int check_policy(struct broker *b, const struct broker_run *run,
                        const struct os_process *process, struct failure *f)
{
    int e = policy_load(&b->policy, b->policy_path, f);
    if (!e)
        e = policy_allows_kind(&b->policy, run->kind, f);
    if (!e)
        e = policy_allows_process(&b->policy, process->name, f);
    if (!e)
        e = policy_allows_pause(&b->policy, run->pause_max_us, run->allow_pause, f);
    if (!e)
        e = policy_hour_take(&b->hour, &b->policy, run->order, port_mono_us(), f);
    return e;
}

static int check_run(struct broker *b, struct broker_run *run, struct os_process *process,
                     struct failure *f)
{
    run->kind[sizeof run->kind - 1] = '\0';
    if (b->is_running || b->is_tidying)
        return fail(f, ERR_BUSY, "another capture runs on this host");
    if (!worker_knows(run->kind))
        return fail(f, ERR_UNSUPPORTED, "kind '%s' is not known to this agent (%s)", run->kind,
                    TRAWL_VERSION);
    if (run->deadline_us < BROKER_DEADLINE_MIN_US || run->deadline_us > BROKER_DEADLINE_MAX_US)
        return fail(f, ERR_INVALID, "deadline out of range");
    struct os_process asked = {.pid = run->pid,
                               .start_ticks = run->start_ticks,
                               .exe_device = run->exe_device,
                               .exe_inode = run->exe_inode};
    text_copy(asked.name, sizeof asked.name, "what was found");
    int e = worker_check_process(&asked, process, f);
    if (!e)
        e = check_policy(b, run, process, f);
    if (!e)
        run->pause_max_us = policy_pause_max_us(&b->policy, run->pause_max_us);
    return e;
}

static int start_worker(struct broker *b, int output_fd, struct failure *f)
{
    uv_file pipe[2];
    int e = uv_pipe(pipe, 0, 0);
    if (e)
        return fail(f, ERR_IO, "cannot make a pipe: %s", uv_strerror(e));
    b->job.run = b->request.body.run;
    b->job.output_fd = output_fd;
    b->job.base_fd = b->base_fd;
    b->job.result_fd = pipe[1];
    e = os_worker_start(&b->worker, b->job.run.deadline_us, worker_main, &b->job, f);
    port_close(pipe[1]);
    if (e) {
        port_close(pipe[0]);
        return e;
    }
    struct os_process self;
    b->born_ticks = os_process_get("", (uint32_t)b->worker.pid, &self, NULL) ? 0 : self.start_ticks;
    b->result_fd = pipe[0];
    b->is_running = true;
    b->is_stopped = false;
    b->run_id = b->request.id;
    b->started_mono_us = port_mono_us();
    return 0;
}

static void run(struct broker *b, int output_fd)
{
    struct failure f = {0};
    int e = output_fd < 0 ? fail(&f, ERR_PROTOCOL, "no descriptor for the evidence") : 0;
    if (!e)
        e = check_run(b, &b->request.body.run, &b->job.process, &f);
    if (!e)
        e = start_worker(b, output_fd, &f);
    port_close(b->base_fd);
    b->base_fd = -1;
    if (!e)
        return; /* the reply comes when the worker has ended */
    begin_reply(b, BROKER_RUN, b->request.id);
    send_reply(b, e, &f);
}

/* ---- the worker's end ---- */

static bool read_outcome(int fd, struct worker_outcome *out)
{
    size_t got = 0;
    while (got < sizeof *out) {
        uv_fs_t request;
        uv_buf_t piece = uv_buf_init((char *)out + got, (unsigned)(sizeof *out - got));
        int n = uv_fs_read(NULL, &request, fd, &piece, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        if (n == UV_EINTR)
            continue;
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    out->text[sizeof out->text - 1] = '\0';
    return true;
}

/* Why there is no outcome. */
static int name_death(const struct broker *b, int status, struct failure *f)
{
    if (b->is_stopped)
        return fail(f, ERR_CANCELLED, "the capture was cancelled");
    if (status < 0 && port_mono_us() >= b->worker.deadline_mono_us)
        return fail(f, ERR_TIMEOUT, "worker stopped at its deadline of %llu s",
                    (unsigned long long)(b->job.run.deadline_us / 1000000));
    if (status < 0)
        return fail(f, ERR_IO, "worker died: signal %d", -status);
    return fail(f, ERR_IO, "worker ended without a result: exit status %d", status);
}

static void tell_outcome(struct broker *b)
{
    struct failure f = {0};
    struct broker_reply *reply = begin_reply(b, BROKER_RUN, b->run_id);
    reply->body.result = b->outcome.result;
    text_copy(f.text, sizeof f.text, b->outcome.text);
    send_reply(b, b->outcome.error, &f);
}

/* ---- tidying ---- */

static int tidy_main(void *context)
{
    const struct broker *b = context;
    struct failure f = {0};
    int e = os_tidy(&b->job.process, b->born_ticks, &f);
    if (!e || e == ERR_GONE)
        return 0;
    log_warn("after a core of process %u was stopped: %s", b->job.process.pid, f.text);
    return 1;
}

/* Only a core puts anything into a process. What was refused beforehand put nothing there; one that
 * was stopped, or that gave up in the middle, may have. */
static bool may_leave_something(const struct broker *b, int error)
{
    return strcmp(b->job.run.kind, "core") == 0 && b->born_ticks != 0 && error &&
           error != ERR_REFUSED && error != ERR_UNSUPPORTED && error != ERR_DENIED &&
           error != ERR_GONE;
}

static bool start_tidying(struct broker *b)
{
    b->is_tidying = os_worker_start(&b->tidier, TIDY_LIMIT_US, tidy_main, b, NULL) == 0;
    return b->is_tidying;
}

static void look_after_tidier(struct broker *b)
{
    int status;
    if (!b->is_tidying || os_worker_poll(&b->tidier, &status) == ERR_AGAIN)
        return;
    size_t used = strlen(b->outcome.text);
    b->is_tidying = false;
    if (status != 0)
        (void)text_format(b->outcome.text + used, sizeof b->outcome.text - used,
                          "; a copy of the process that has ended may stay as its zombie until "
                          "the process ends, too");
    tell_outcome(b);
}

/* At the end: nobody hears of it any more. */
static void tidy_now(struct broker *b)
{
    int status;
    while (b->is_tidying && os_worker_poll(&b->tidier, &status) == ERR_AGAIN)
        uv_sleep(WORKER_LOOK_MS);
    b->is_tidying = false;
}

static void look_after_worker(struct broker *b)
{
    int status;
    if (!b->is_running || os_worker_poll(&b->worker, &status) == ERR_AGAIN)
        return;
    struct failure f = {0};
    struct worker_outcome *outcome = &b->outcome;
    b->is_running = false;
    memset(outcome, 0, sizeof *outcome);
    bool is_told = !b->is_stopped && read_outcome(b->result_fd, outcome);
    port_close(b->result_fd);
    if (!is_told) {
        memset(outcome, 0, sizeof *outcome);
        outcome->error = name_death(b, status, &f);
        text_copy(outcome->text, sizeof outcome->text, f.text);
    }
    if (!may_leave_something(b, outcome->error) || !start_tidying(b))
        tell_outcome(b);
}

/* One that has a probe set is asked; it ends within moments, and is reaped as others are. */
static void kill_worker(struct broker *b)
{
    if (strcmp(b->job.run.kind, WATCH_KIND) == 0 && b->worker.pid > 0)
        (void)uv_kill(b->worker.pid, SIGTERM);
    else
        os_worker_kill(&b->worker);
}

static void stop(struct broker *b)
{
    if (b->is_running) { /* it is reaped by look_after_worker() */
        b->is_stopped = true;
        kill_worker(b);
    }
    begin_reply(b, BROKER_STOP, b->request.id);
    send_reply(b, 0, NULL);
}

/* ---- WATCH ---- */

static void watch(struct broker *b, int output_fd)
{
    struct failure f = {0};
    int e =
        broker_watch_start(&b->watches, b->policy_path, &b->request.body.run, output_fd, b->fd, &f);
    begin_reply(b, BROKER_WATCH, b->request.id);
    send_reply(b, e, &f);
}

/* ---- the rest ---- */

/* Takes the descriptor; the worker only reads it, and believes nothing of it (delta.h). */
static void take_base(struct broker *b, int *passed_fd)
{
    port_close(b->base_fd);
    b->base_fd = *passed_fd;
    *passed_fd = -1;
    begin_reply(b, BROKER_BASE, b->request.id);
    send_reply(b, 0, NULL);
}

static void read_io(struct broker *b)
{
    struct broker_reply *reply = begin_reply(b, BROKER_READ_IO, b->request.id);
    uint32_t count = b->request.body.io.count;
    if (count > BROKER_IO_MAX)
        count = BROKER_IO_MAX;
    for (uint32_t i = 0; i < count; i++)
        (void)os_process_read_io("", b->request.body.io.pids[i], &reply->body.io.list[i]);
    reply->body.io.count = count;
    send_reply(b, 0, NULL);
}

/* The owner who forbids triage of a process forbids this, too: it is a part of it. */
static bool may_peek(struct broker *b, uint32_t pid)
{
    struct os_process process;
    return os_process_get("", pid, &process, NULL) == 0 &&
           policy_allows_kind(&b->policy, "triage", NULL) == 0 &&
           policy_allows_process(&b->policy, process.name, NULL) == 0;
}

static void peek(struct broker *b)
{
    struct broker_reply *reply = begin_reply(b, BROKER_PEEK, b->request.id);
    const uint32_t *pids = b->request.body.peek.pids, *tids = b->request.body.peek.tids;
    uint32_t count = b->request.body.peek.count;
    struct failure f = {0};
    if (count > BROKER_PEEK_MAX)
        count = BROKER_PEEK_MAX;
    int e = policy_load(&b->policy, b->policy_path, &f);
    for (uint32_t i = 0; !e && i < count; i++) {
        struct os_peek *out = &reply->body.peek.list[i];
        if (may_peek(b, pids[i]))
            os_peek(pids[i], tids[i], b->request.body.peek.ports, out);
        else
            *out = (struct os_peek){.pid = pids[i], .tid = tids[i], .error = ERR_REFUSED};
    }
    reply->body.peek.count = e ? 0 : count;
    send_reply(b, e, &f);
}

/* The policy is read anew, as for a capture. */
static void open_log(struct broker *b)
{
    struct failure f = {0};
    int fd = -1;
    struct broker_log *out = &begin_reply(b, BROKER_OPEN_LOG, b->request.id)->body.log;
    int e = policy_load(&b->policy, b->policy_path, &f);
    if (!e)
        e = broker_logs_open(&b->logs, b->settings, &b->policy, &b->request.body.log, out, &fd, &f);
    b->reply.error = e;
    if (e)
        text_copy(b->reply.text, sizeof b->reply.text, f.text);
    (void)os_message_send(b->fd, &b->reply, sizeof b->reply, fd, NULL);
    port_close(fd);
}

static void remove_crash_handler(struct broker *b)
{
    struct failure f = {0};
    int e = crash_remove(b->settings->crash_file, false, true, &f);
    begin_reply(b, BROKER_CRASH_REMOVE, b->request.id);
    send_reply(b, e, &f);
}

static void usage(struct broker *b)
{
    struct broker_usage *u = &begin_reply(b, BROKER_USAGE, b->request.id)->body.usage;
    os_self_usage(&u->cpu_us, &u->private_bytes, &u->resident_bytes);
    send_reply(b, 0, NULL);
}

static void serve(struct broker *b, int passed_fd)
{
    switch (b->request.magic == BROKER_MAGIC ? b->request.op : 0) {
    case BROKER_RESOLVE:
        resolve(b);
        break;
    case BROKER_RUN:
        run(b, passed_fd);
        break;
    case BROKER_STOP:
        stop(b);
        break;
    case BROKER_READ_IO:
        read_io(b);
        break;
    case BROKER_PEEK:
        peek(b);
        break;
    case BROKER_USAGE:
        usage(b);
        break;
    case BROKER_CRASH_REMOVE:
        remove_crash_handler(b);
        break;
    case BROKER_BASE:
        take_base(b, &passed_fd);
        break;
    case BROKER_WATCH:
        watch(b, passed_fd);
        break;
    case BROKER_OPEN_LOG:
        open_log(b);
        break;
    default:
        break;
    }
    port_close(passed_fd);
}

/* How long to wait for a request; a worker that has run for long may be found late. */
static int patience_ms(const struct broker *b)
{
    if (!b->is_running && !b->is_tidying)
        return broker_watch_any(&b->watches) ? BROKER_WATCH_LOOK_MS : -1;
    bool is_long = b->is_running && port_mono_us() - b->started_mono_us > WORKER_IS_LONG_US;
    return is_long ? WORKER_LOOK_LATER_MS : WORKER_LOOK_MS;
}

static void stop_for_good(struct broker *b)
{
    if (b->is_running && strcmp(b->job.run.kind, WATCH_KIND) == 0) {
        broker_watch_end(&b->worker);
        b->is_running = false;
    }
    broker_watch_stop(&b->watches);
    if (b->is_running) {
        kill_worker(b);
        if (may_leave_something(b, ERR_CANCELLED))
            (void)start_tidying(b);
    }
    tidy_now(b);
}

int broker_run(int fd, void *context)
{
    const struct broker_settings *settings = context;
    struct broker *b = calloc(1, sizeof *b);
    if (!b)
        return 1;
    b->fd = fd;
    b->base_fd = -1;
    b->policy_path = settings->policy_path;
    b->settings = settings;
    b->job.cpu_percent = settings->capture_cpu_percent;
    os_costs_measure(&b->job.costs);
    int e = 0;
    while (e == 0 || e == ERR_TIMEOUT || e == ERR_PROTOCOL) {
        int passed_fd = -1;
        e = os_message_receive(fd, &b->request, sizeof b->request, &passed_fd, patience_ms(b),
                               NULL);
        if (e == 0)
            serve(b, passed_fd);
        look_after_worker(b);
        look_after_tidier(b);
        broker_watch_look(&b->watches, b->policy_path);
    }
    stop_for_good(b);
    broker_logs_done(&b->logs);
    free(b);
    return 0;
}
