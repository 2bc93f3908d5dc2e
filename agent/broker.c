/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The broker's loop: receive, do, reply; look after the worker in between. Invariants: a process is
 * only touched when pid and start time are those of the request and the policy, read anew each
 * time, allows it; the loop never waits for a worker. Runs in its own process.
 */
#include "agent/broker.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "agent/broker_wire.h"
#include "agent/os/io.h"
#include "agent/os/privilege.h"
#include "agent/policy.h"
#include "agent/worker.h"
#include "common/port.h"
#include "common/text.h"

#define WORKER_LOOK_MS 2
#define DEADLINE_MAX_US UINT64_C(120000000)
#define DEADLINE_MIN_US UINT64_C(100000)

struct broker {
    int fd;
    const char *policy_path;
    struct policy policy;
    struct policy_hour hour;
    struct broker_request request;
    struct broker_reply reply;
    /* The worker, when one runs. */
    struct os_worker worker;
    bool is_running, is_stopped;
    uint64_t run_id;
    struct worker_job job;
    int result_fd;
};

static void close_fd(int fd)
{
    uv_fs_t request;
    if (fd < 0)
        return;
    uv_fs_close(NULL, &request, fd, NULL);
    uv_fs_req_cleanup(&request);
}

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
    struct os_process_filter filter = {s->name[0] ? s->name : NULL, s->pid,
                                       s->unit[0] ? s->unit : NULL, s->port};
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
        e = policy_hour_take(&b->hour, &b->policy, run->order, port_mono_us(), f);
    return e;
}

static int check_run(struct broker *b, struct broker_run *run, struct os_process *process,
                     struct failure *f)
{
    run->kind[sizeof run->kind - 1] = '\0';
    if (b->is_running)
        return fail(f, ERR_BUSY, "another capture runs on this host");
    if (!worker_knows(run->kind))
        return fail(f, ERR_UNSUPPORTED, "kind '%s' is not known to this agent (%s)", run->kind,
                    TRAWL_VERSION);
    if (run->deadline_us < DEADLINE_MIN_US || run->deadline_us > DEADLINE_MAX_US)
        return fail(f, ERR_INVALID, "deadline out of range");
    if (run->pause_max_us == 0)
        return fail(f, ERR_REFUSED, "the order allows no pause at all");
    int e = os_process_get("", run->pid, process, f);
    if (e)
        return e;
    if (process->start_ticks != run->start_ticks)
        return fail(f, ERR_GONE, "process %u has ended", run->pid);
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
    b->job.result_fd = pipe[1];
    e = os_worker_start(&b->worker, b->job.run.deadline_us, worker_main, &b->job, f);
    close_fd(pipe[1]);
    if (e) {
        close_fd(pipe[0]);
        return e;
    }
    b->result_fd = pipe[0];
    b->is_running = true;
    b->is_stopped = false;
    b->run_id = b->request.id;
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

static void look_after_worker(struct broker *b)
{
    int status;
    if (!b->is_running || os_worker_poll(&b->worker, &status) == ERR_AGAIN)
        return;
    b->is_running = false;
    struct worker_outcome *outcome = calloc(1, sizeof *outcome);
    struct failure f = {0};
    int e = ERR_NOMEM;
    struct broker_reply *reply = begin_reply(b, BROKER_RUN, b->run_id);
    if (outcome && !b->is_stopped && read_outcome(b->result_fd, outcome)) {
        e = outcome->error;
        reply->body.result = outcome->result;
        text_copy(f.text, sizeof f.text, outcome->text);
    } else {
        e = name_death(b, status, &f);
    }
    close_fd(b->result_fd);
    free(outcome);
    send_reply(b, e, &f);
}

static void stop(struct broker *b)
{
    if (b->is_running) {
        b->is_stopped = true;
        os_worker_kill(&b->worker);
    }
    begin_reply(b, BROKER_STOP, b->request.id);
    send_reply(b, 0, NULL);
}

/* ---- the rest ---- */

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
    case BROKER_USAGE:
        usage(b);
        break;
    default:
        break;
    }
    close_fd(passed_fd);
}

int broker_run(int fd, void *context)
{
    const struct broker_settings *settings = context;
    struct broker *b = calloc(1, sizeof *b);
    if (!b)
        return 1;
    b->fd = fd;
    b->policy_path = settings->policy_path;
    int e = 0;
    while (e == 0 || e == ERR_TIMEOUT || e == ERR_PROTOCOL) {
        int passed_fd = -1;
        e = os_message_receive(fd, &b->request, sizeof b->request, &passed_fd,
                               b->is_running ? WORKER_LOOK_MS : -1, NULL);
        if (e == 0)
            serve(b, passed_fd);
        look_after_worker(b);
    }
    if (b->is_running)
        os_worker_kill(&b->worker);
    free(b);
    return 0;
}
