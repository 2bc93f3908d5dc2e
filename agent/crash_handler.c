/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens at a crash, in this order: a marker, so that it is counted whatever becomes of us;
 * taking what is needed; letting the process go; giving up privileges; and only then describing,
 * writing and telling. Invariant: from the marker on the crash is counted once. Called by main and
 * crash_listen.
 */
#include "agent/crash_handler.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/crash_private.h"
#include "agent/os/crash_socket.h"
#include "agent/os/privilege.h"
#include "agent/policy.h"
#include "agent/watcher_private.h"
#include "common/port.h"
#include "common/text.h"
#include "proto/codec.h"

#define STACK_BYTES (256u << 10)
#define POOL_BYTES (16u << 20)
#define PIECE_BYTES (256u << 10)
#define NUMBERS 10 /* behind the file's name */
/* fs/coredump.c, umh_coredump_setup(): who has it was started for a crash. By pipe the kernel lets
 * it die; by socket it comes to us, and who was there before is not asked again. */
#define LIMIT_OF_HANDLERS 1

/* ---- beginnings ---- */

/* What we print would go into the first file that we open. */
static void fill_outputs(void)
{
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2)
        fd = open("/dev/null", O_RDWR);
    if (fd > 2)
        close(fd);
}

/* Only when there is something to say, or before it is forbidden: opening it takes as long as
 * everything else before the process is looked at. */
static void open_kernel_log(struct crash_job *job)
{
    if (job->kernel < 0)
        job->kernel = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
}

/* The kernel's log is the only one there is. */
static void say(struct crash_job *job, const char *text)
{
    char line[400];
    open_kernel_log(job);
    (void)text_format(line, sizeof line, "<4>trawl-agent: crash of pid %u: %s\n",
                      job->arguments.pid, text);
    if (job->kernel >= 0)
        (void)!write(job->kernel, line, strlen(line));
}

static int read_arguments(struct os_crash_arguments *a, int argc, char **argv)
{
    uint64_t n[NUMBERS], pidfd;
    if (argc < 3 + NUMBERS)
        return ERR_INVALID;
    for (int i = 0; i < NUMBERS; i++)
        if (text_u64_in(argv[3 + i], 0, i < 8 ? UINT32_MAX : UINT64_MAX, &n[i]))
            return ERR_INVALID;
    *a = (struct os_crash_arguments){
        .pid = (uint32_t)n[0],
        .inner_pid = (uint32_t)n[1],
        .tid = (uint32_t)n[2],
        .inner_tid = (uint32_t)n[3],
        .uid = (uint32_t)n[4],
        .gid = (uint32_t)n[5],
        .dumpable = (uint32_t)n[6],
        .signal = (uint32_t)n[7],
        .time_s = (int64_t)n[8],
        .core_limit = n[9],
        .pidfd = -1,
    };
    if (argc > 3 + NUMBERS && text_u64_in(argv[3 + NUMBERS], 3, 1023, &pidfd) == 0)
        a->pidfd = (int)pidfd;
    return 0;
}

/* ---- the marker ---- */

static void head_of_arguments(const struct os_crash_arguments *a, struct os_exception *e)
{
    memset(e, 0, sizeof *e);
    memcpy(e->id, a->id, sizeof e->id);
    e->source = OS_CRASH;
    e->wall_us = port_wall_us();
    e->pid = a->pid;
    e->tid = a->tid;
    e->uid = a->uid;
    e->start_ticks = a->start_ticks;
    e->signal = a->signal;
    text_copy(e->process, sizeof e->process, a->name);
    os_signal_name(a->signal, e->type, sizeof e->type);
    text_copy(e->message, sizeof e->message, e->type);
}

static int encode(const struct os_exception *e, struct buf *out)
{
    trawl_v1_Exception *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NOMEM;
    watcher_fill(m, e, port_wall_us(), port_mono_us());
    int rc = codec_put_exception(out, m);
    free(m);
    return rc;
}

static void put_marker(struct crash_job *job)
{
    struct failure f = {0};
    struct buf data;
    buf_init(&data, trawl_v1_Exception_size);
    head_of_arguments(&job->arguments, job->exception);
    (void)encode(job->exception, &data);
    if (crash_spool_begin(&job->spool, job->arguments.id, buf_span(&data), &job->marker, &f))
        say(job, f.text);
    buf_done(&data);
}

/* ---- the process is held ---- */

static void relay(struct crash_job *job, struct span head, struct os_chain *chain)
{
    struct crash_core core;
    uint8_t *piece = malloc(PIECE_BYTES);
    bool fed = chain && os_chain_feed(chain, head) == 0;
    (void)crash_core_open(&core, job);
    crash_core_feed(&core, head);
    while (piece && (fed || core.rc == 0)) {
        ssize_t got = read(job->core_fd, piece, PIECE_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        crash_core_feed(&core, span_of(piece, (size_t)got));
        fed = fed && os_chain_feed(chain, span_of(piece, (size_t)got)) == 0;
    }
    free(piece);
    if (crash_core_close(&core))
        text_copy(job->exception->saved[job->exception->saved_count++],
                  sizeof job->exception->saved[0], "core");
    else
        crash_table_give_back(&job->spool, job->arguments.id);
}

/* The process stays until whoever was there before has its core, as it did before us. */
static void pass_on(struct crash_job *job, struct span head)
{
    struct os_chain *chain = NULL;
    struct failure f = {0};
    if (os_chain_open(&chain, job->crash, job->config.previous, &f))
        say(job, f.text);
    if (job->want_core)
        relay(job, head, chain);
    else if (chain && os_chain_feed(chain, head) == 0)
        (void)os_chain_splice(chain, job->core_fd);
    if (chain)
        os_chain_close(chain, job->core_fd);
    else
        close(job->core_fd);
    job->core_fd = -1;
}

static bool has_previous(const struct crash_job *job)
{
    const char *previous = job->config.previous;
    return previous[0] == '|' ||
           (previous[0] && job->arguments.dumpable == 1 && job->arguments.core_limit > 0);
}

static int take(struct crash_job *job)
{
    struct policy policy;
    struct failure f = {0};
    struct span head;
    (void)policy_load(&policy, job->config.policy, &f);
    struct os_crash_limits limits = {
        .memory = policy_allows_crash_memory(&policy, job->arguments.dumpable),
        .stack_bytes = STACK_BYTES,
        .pool_bytes = POOL_BYTES,
    };
    bool keep = (job->may_want_core && limits.memory) || has_previous(job);
    int rc = os_crash_take(&job->arguments, &limits, job->core_fd, keep, &job->crash, &head, &f);
    os_be_urgent(false); /* not whoever was there before, which is started next */
    if (rc)
        say(job, f.text);
    if (!job->crash) {
        free(job->wants);
        job->wants = NULL;
        close(job->core_fd);
        job->core_fd = -1;
        return rc;
    }
    struct os_exception *e = job->exception;
    os_crash_head(job->crash, e);
    crash_wants_decide(job, limits.memory);
    if (job->want_core || has_previous(job))
        pass_on(job, head);
    else if (keep)
        close(job->core_fd);
    job->core_fd = -1;
    return 0;
}

/* ---- the process is gone ---- */

static int give_up_privileges(const struct crash_job *job, struct failure *f)
{
    char user[16];
    if (geteuid() != 0 || job->spool.uid == 0)
        return 0;
    (void)text_format(user, sizeof user, "%u", job->spool.uid);
    return os_drop_privileges(user, f);
}

static int only_count(struct crash_job *job, uint64_t site, enum crash_why why)
{
    const struct os_exception *e = job->exception;
    struct crash_record r = {
        .site = site,
        .wall_us = e->wall_us,
        .last_us = e->wall_us,
        .count = 1,
        .start_ticks = e->start_ticks,
        .pid = e->pid,
        .tid = e->tid,
        .uid = e->uid,
        .signal = e->signal,
        .signal_code = e->signal_code,
        .why = why,
    };
    memcpy(r.id, e->id, sizeof r.id);
    text_copy(r.process, sizeof r.process, e->process);
    text_copy(r.thread, sizeof r.thread, e->thread);
    text_copy(r.type, sizeof r.type, e->type);
    return crash_table_count(&job->spool, &r);
}

/* What later ones at this place will be told with. */
static void put_site(struct crash_job *job, uint64_t site, struct span told)
{
    char name[CRASH_NAME_SIZE];
    (void)text_format(name, sizeof name, "%016llx.site", (unsigned long long)site);
    (void)crash_spool_put(&job->spool, name, told, NULL);
}

static void tell(struct crash_job *job, uint64_t site)
{
    char name[CRASH_NAME_SIZE];
    struct failure f = {0};
    struct buf data;
    buf_init(&data, trawl_v1_Exception_size);
    crash_spool_name(job->arguments.id, "pb", name);
    int rc = encode(job->exception, &data);
    if (rc == 0)
        rc = crash_spool_put(&job->spool, name, buf_span(&data), &f);
    if (rc == 0 && site)
        put_site(job, site, buf_span(&data));
    if (rc) {
        say(job, f.code ? f.text : err_text(rc));
        job->lacks_room = true;
        crash_spool_drop(&job->spool, job->arguments.id); /* nobody would be told of it */
        crash_table_give_back(&job->spool, job->arguments.id);
        rc = only_count(job, 0, CRASH_DISK_FULL);
    }
    /* Not even there: the marker stays, and is told when we are gone. */
    if (rc == 0)
        crash_spool_remove(&job->spool, job->arguments.id, "begun");
    buf_done(&data);
}

static void describe(struct crash_job *job)
{
    uint64_t weak = 0, strong = 0, site = 0;
    bool whole = true;
    if (job->crash) {
        os_crash_site(job->crash, &weak, &strong);
        (void)crash_table_claim(&job->spool, weak, strong, port_wall_us(), &whole, &site);
    }
    if (!whole && !job->want_whole && job->exception->saved_count == 0 &&
        only_count(job, site, CRASH_BY_SITE) == 0) {
        crash_spool_remove(&job->spool, job->arguments.id, "begun");
        return;
    }
    if (job->crash && os_crash_has_memory(job->crash))
        crash_describe(job);
    if (job->lacks_room)
        say(job, "no space is left for its evidence");
    tell(job, whole ? site : 0);
    if (whole && job->lacks_room)
        crash_table_unclaim(&job->spool, site, port_wall_us());
}

static int handle(struct crash_job *job)
{
    struct failure f = {0};
    put_marker(job);
    if (job->by_socket && os_crash_socket_answer(job->core_fd, &f))
        say(job, f.text); /* there will be no core, and who it was is told */
    crash_wants_read(job);
    (void)take(job);
    open_kernel_log(job);
    int rc = give_up_privileges(job, &f);
    if (rc) {
        say(job, f.text);
        return rc; /* the marker tells of it */
    }
    os_be_nice();
    describe(job);
    os_crash_close(job->crash);
    return 0;
}

/* From here on all ways in are one. */
static int run(struct crash_job *job, const char *config_path)
{
    static struct os_exception exception;
    struct failure f = {0};
    job->exception = &exception;
    os_crash_identify(&job->arguments);
    int rc = crash_config_read(&job->config, config_path, &f);
    if (rc == 0)
        rc = crash_spool_open(&job->spool, job->config.spool, &f);
    if (rc) {
        say(job, f.text);
        return rc;
    }
    job->spool.size_bytes = job->config.size_bytes;
    if (job->arguments.core_limit == LIMIT_OF_HANDLERS)
        job->config.previous[0] = '\0';
    return handle(job);
}

int crash_handler_serve(const struct os_crash_arguments *arguments, int connection,
                        const char *config_path)
{
    struct crash_job job = {.arguments = *arguments,
                            .marker = -1,
                            .kernel = -1,
                            .core_fd = STDIN_FILENO,
                            .by_socket = true};
    os_be_urgent(true);
    /* Where the kernel's pipe would be: nothing of ours keeps another copy. */
    if (dup2(connection, STDIN_FILENO) < 0)
        return err_exit_code(ERR_IO);
    close(connection);
    int rc = run(&job, config_path);
    return rc ? err_exit_code(rc) : 0;
}

int crash_handler_main(int argc, char **argv)
{
    struct crash_job job = {.marker = -1, .kernel = -1, .core_fd = STDIN_FILENO};
    os_be_urgent(true); /* a process is held until we let it go, on a busy machine too */
    fill_outputs();
    if (read_arguments(&job.arguments, argc, argv)) {
        say(&job, "arguments are not those of a core pattern: it is put there by 'trawl-agent "
                  "crash-handler install'");
        return err_exit_code(ERR_INVALID);
    }
    int rc = run(&job, argv[2]);
    return rc ? err_exit_code(rc) : 0;
}
