/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which logs are followed, and the wheel that reads them. Looking goes in rounds, one request to
 * the broker after the other: those that the settings name, the followed processes (which they are
 * only every PROCESSES_EVERY seconds), their log files. See follow.h.
 */
#include "agent/follow.h"

#include <stdlib.h>
#include <string.h>

#include "agent/follow_private.h"
#include "common/log.h"
#include "common/text.h"
#include "common/xxh64.h"

#define PIDS_MAX 32
#define LOGS_OF_ONE 8
#define OWN_EVERY 2 /* seconds */
#define PROCESSES_EVERY 10
#define JOURNAL_AGAIN 60
#define TOLD_MAX 64 /* refusals that were logged */

enum stage { REST, JOURNAL, LISTED, NAMES, OWN };

struct file_id {
    uint64_t device, inode;
};

struct followed {
    struct os_process process;
    struct file_id known[LOGS_OF_ONE];
};

struct follow {
    struct source_context context;
    struct follow_places places;
    struct follow_file files[FOLLOW_FILES_MAX];
    struct follow_journal *journal;
    uv_timer_t timer;
    enum stage stage;
    bool is_waiting; /* for the broker */
    bool is_closing, is_closed, has_looked, was_full, was_ended;
    uint32_t index; /* within the stage */
    uint32_t pid_at, name_at, first_file;
    uint64_t seconds, journal_again;
    int64_t began_us;
    struct file_id listed[OS_LOG_LIST_MAX];
    struct followed pids[PIDS_MAX];
    uint32_t pid_count;
    uint64_t told[TOLD_MAX];
    uint32_t told_count;
};

/* ---- files ---- */

static struct follow_file *find_file(struct follow *w, const struct os_log *log)
{
    for (size_t i = 0; i < FOLLOW_FILES_MAX; i++)
        if (w->files[i].log.inode == log->inode && w->files[i].log.device == log->device &&
            log->inode)
            return &w->files[i];
    return NULL;
}

static struct follow_file *free_file(struct follow *w)
{
    for (size_t i = 0; i < FOLLOW_FILES_MAX; i++)
        if (!w->files[i].log.inode)
            return &w->files[i];
    if (!w->was_full)
        log_warn("only the first %d log files are followed", FOLLOW_FILES_MAX);
    w->was_full = true;
    return NULL;
}

static void set_process(struct follow_file *file, const struct os_process *process)
{
    if (!process)
        return;
    file->is_many |= file->process[0] && file->pid != process->pid;
    text_copy(file->process, sizeof file->process, process->name);
    file->pid = file->is_many ? 0 : process->pid;
    file->start_ticks = file->is_many ? 0 : process->start_ticks;
}

/* Takes fd, which is -1 for one that is followed already. */
static void take_log(struct follow *w, const struct os_log *log, int fd,
                     const struct os_process *process)
{
    struct follow_file *file = find_file(w, log);
    if (file) {
        os_log_close(fd);
    } else if (fd >= 0 && (file = free_file(w)) != NULL) {
        bool is_old = log->born_us ? log->born_us < w->began_us : !w->has_looked;
        if (follow_file_open(file, fd, log, &w->places, is_old, &w->context))
            return;
    } else {
        os_log_close(fd);
        return;
    }
    text_copy(file->log.path, sizeof file->log.path, log->path);
    file->is_seen = true;
    set_process(file, process);
}

/* Nobody knows its name any more: its writer may still write for a while. */
static void drop_gone(struct follow *w)
{
    uint64_t now_us = w->context.clock->mono_us(w->context.clock);
    for (size_t i = 0; i < FOLLOW_FILES_MAX; i++) {
        struct follow_file *file = &w->files[i];
        if (file->log.inode && !file->is_seen && now_us - file->grew_mono_us > FOLLOW_GONE_US) {
            trace_end(file->trace);
            follow_file_close(file);
        }
        if (file->is_many && !file->is_seen)
            file->is_many = false;
    }
}

/* ---- asking the broker ---- */

static void go_on(struct follow *w);

static void say_once(struct follow *w, const char *what, const struct failure *why)
{
    uint64_t hash = xxh64(span_str(why->text), 0);
    for (uint32_t i = 0; i < w->told_count; i++)
        if (w->told[i] == hash)
            return;
    if (w->told_count == TOLD_MAX)
        return;
    w->told[w->told_count++] = hash;
    log_warn("a log is not followed (%s): %s", what, why->text);
}

/* Closed while it waits for the broker, which may answer, or be closed first and never answer: then
 * it is kept until the next is opened, or the program ends. */
static struct follow *orphan;

static void on_timer_closed(uv_handle_t *handle)
{
    struct follow *w = handle->data;
    w->is_closed = true;
    if (w->is_waiting)
        orphan = w;
    else
        free(w);
}

/* After the call of the broker that was waited for. */
static bool ends_here(struct follow *w)
{
    w->is_waiting = false;
    if (w->is_closed) {
        orphan = NULL;
        free(w);
        return true;
    }
    return w->is_closing;
}

static void next_stage(struct follow *w)
{
    w->stage = w->stage == OWN ? REST : w->stage + 1;
    w->index = w->pid_at = w->name_at = 0;
    if (w->stage == REST) {
        w->has_looked = true;
        drop_gone(w);
    }
}

static struct file_id *known_at(struct follow *w)
{
    if (w->stage == LISTED)
        return &w->listed[w->index];
    return &w->pids[w->pid_at].known[w->index];
}

static bool is_last(const struct follow *w, int error)
{
    uint32_t most = w->stage == LISTED ? OS_LOG_LIST_MAX : LOGS_OF_ONE;
    return error == ERR_NOTFOUND || error == ERR_GONE || error == ERR_CLOSED ||
           error == ERR_REFUSED || w->index == most;
}

static void on_log(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct follow *w = context;
    int fd = reply ? broker_client_take_fd(w->context.broker) : -1;
    if (w->is_closing)
        os_log_close(fd);
    if (ends_here(w))
        return;
    int error = reply ? reply->error : ERR_CLOSED;
    if (!error) {
        const struct broker_log *log = &reply->body.log;
        *known_at(w) = (struct file_id){log->log.device, log->log.inode};
        take_log(w, &log->log, fd, w->stage == OWN ? &w->pids[w->pid_at].process : NULL);
    } else {
        os_log_close(fd);
        if (error != ERR_NOTFOUND && error != ERR_GONE)
            say_once(w, w->stage == LISTED ? "follow-logs" : w->pids[w->pid_at].process.name, f);
    }
    w->index++;
    if (is_last(w, error)) {
        w->index = 0;
        if (w->stage == LISTED || ++w->pid_at >= w->pid_count)
            next_stage(w);
    }
    go_on(w);
}

static void on_names(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct follow *w = context;
    (void)f;
    if (ends_here(w))
        return;
    const struct broker_found *found = reply && !reply->error ? &reply->body.found : NULL;
    for (uint32_t i = 0; found && i < found->count && w->pid_count < PIDS_MAX; i++)
        if (!policy_allows_process(w->context.policy, found->list[i].name, NULL))
            w->pids[w->pid_count++] = (struct followed){.process = found->list[i]};
    w->name_at++;
    go_on(w);
}

static void on_journal(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct follow *w = context;
    int fd = reply ? broker_client_take_fd(w->context.broker) : -1;
    if (w->is_closing)
        os_log_close(fd);
    if (ends_here(w))
        return;
    if (reply && !reply->error && fd >= 0)
        (void)follow_journal_open(&w->journal, fd, follow_places_cursor(&w->places), &w->context);
    else if (reply && reply->error != ERR_NOTFOUND)
        say_once(w, "journal", f);
    w->journal_again = w->seconds + JOURNAL_AGAIN;
    next_stage(w);
    go_on(w);
}

static void ask(struct follow *w, enum broker_op op, struct broker_request *request,
                broker_done_fn done)
{
    struct failure f = {0};
    w->is_waiting = broker_client_send(w->context.broker, op, request, -1, done, w, &f) == 0;
    if (!w->is_waiting)
        w->stage = REST; /* too much for it now; in a second again */
}

static void ask_log(struct follow *w, enum broker_log_what what)
{
    struct broker_request request;
    memset(&request, 0, sizeof request);
    struct broker_open_log *log = &request.body.log;
    const struct file_id *known = known_at(w);
    log->what = what;
    log->index = w->index;
    if (what == BROKER_LOG_OF_PROCESS) {
        log->pid = w->pids[w->pid_at].process.pid;
        log->start_ticks = w->pids[w->pid_at].process.start_ticks;
    }
    log->known.device = known->device;
    log->known.inode = known->inode;
    if (!find_file(w, &log->known)) /* one that was let go meanwhile is opened again */
        log->known.inode = 0;
    ask(w, BROKER_OPEN_LOG, &request, on_log);
}

static void ask_journal(struct follow *w)
{
    struct broker_request request;
    memset(&request, 0, sizeof request);
    request.body.log.what = BROKER_LOG_JOURNAL;
    text_copy(request.body.log.cursor, sizeof request.body.log.cursor,
              follow_places_cursor(&w->places));
    ask(w, BROKER_OPEN_LOG, &request, on_journal);
}

static void ask_names(struct follow *w, const char *name)
{
    struct broker_request request;
    memset(&request, 0, sizeof request);
    text_copy(request.body.resolve.name, sizeof request.body.resolve.name, name);
    ask(w, BROKER_RESOLVE, &request, on_names);
}

/* ---- rounds ---- */

static bool wants_own(const struct follow *w)
{
    return w->context.settings->follow_own_logs && w->context.followed && w->context.followed[0];
}

/* Whether something was asked for. */
static bool run_stage(struct follow *w)
{
    const struct settings *settings = w->context.settings;
    switch (w->stage) {
    case JOURNAL:
        if (!settings->journal || w->journal || w->seconds < w->journal_again)
            return false;
        ask_journal(w);
        return true;
    case LISTED:
        if (!settings->follow_logs[0])
            return false;
        ask_log(w, BROKER_LOG_LISTED);
        return true;
    case NAMES:
        if (!wants_own(w) || w->seconds % PROCESSES_EVERY != 1 || !w->context.followed[w->name_at])
            return false;
        if (w->name_at == 0)
            w->pid_count = 0;
        ask_names(w, w->context.followed[w->name_at]);
        return true;
    case OWN:
        if (w->pid_at >= w->pid_count || w->seconds % OWN_EVERY != 1)
            return false;
        ask_log(w, BROKER_LOG_OF_PROCESS);
        return true;
    default:
        return true;
    }
}

static void go_on(struct follow *w)
{
    while (w->stage != REST && !w->is_waiting && !run_stage(w))
        next_stage(w);
}

void follow_second(void *source)
{
    struct follow *w = source;
    w->seconds++;
    if (w->stage != REST || w->is_waiting)
        return;
    bool is_own_turn = w->seconds % OWN_EVERY == 1;
    for (size_t i = 0; i < FOLLOW_FILES_MAX; i++) /* those of processes are seen in their turn */
        if (is_own_turn || !w->files[i].process[0])
            w->files[i].is_seen = false;
    w->stage = JOURNAL;
    go_on(w);
}

/* ---- the wheel ---- */

/* One after the other, each time beginning with the next, so that a busy one starves nobody. */
static void on_timer(uv_timer_t *timer)
{
    struct follow *w = timer->data;
    uint64_t deadline_us = w->context.clock->mono_us(w->context.clock) + FOLLOW_CYCLE_US;
    for (uint32_t i = 0; i < FOLLOW_FILES_MAX; i++) {
        struct follow_file *file = &w->files[(w->first_file + i) % FOLLOW_FILES_MAX];
        if (!file->log.inode)
            continue;
        bool is_more = follow_file_read(file, deadline_us);
        follow_file_tick(file);
        if (is_more) {
            w->first_file = (w->first_file + i + 1) % FOLLOW_FILES_MAX;
            break;
        }
    }
    if (!w->journal)
        return;
    if (follow_journal_read(w->journal, deadline_us + FOLLOW_CYCLE_US / 4)) {
        if (!w->was_ended)
            log_warn("the journal is not followed for %d s: journalctl has ended", JOURNAL_AGAIN);
        w->was_ended = true;
        follow_journal_close(w->journal);
        w->journal = NULL;
    } else {
        follow_journal_tick(w->journal);
    }
}

static bool has_work(const struct source_context *context)
{
    const struct settings *s = context->settings;
    bool has_own = s->follow_own_logs && context->followed && context->followed[0];
    return s->follow_logs[0] || has_own || (s->journal && os_journal_exists(""));
}

int follow_open(void **out, const struct source_context *context, struct failure *f)
{
    *out = NULL;
    if (!has_work(context))
        return 0;
    free(orphan);
    orphan = NULL;
    struct follow *w = calloc(1, sizeof *w);
    if (!w)
        return fail(f, ERR_NOMEM, "out of memory");
    w->context = *context;
    w->began_us = context->clock->wall_us(context->clock);
    w->timer.data = w;
    int e = follow_places_open(&w->places, context->settings->state_dir, f);
    if (!e && uv_timer_init(context->loop, &w->timer))
        e = fail(f, ERR_IO, "cannot make a timer");
    if (e) {
        follow_places_close(&w->places);
        free(w);
        return e;
    }
    uv_timer_start(&w->timer, on_timer, FOLLOW_PERIOD_MS, FOLLOW_PERIOD_MS);
    *out = w;
    return 0;
}

/* What waits stays remembered as not told: the next agent tells it. */
void follow_close(void *source)
{
    struct follow *w = source;
    for (size_t i = 0; i < FOLLOW_FILES_MAX; i++)
        follow_file_close(&w->files[i]);
    follow_journal_close(w->journal);
    w->journal = NULL;
    follow_places_close(&w->places);
    w->is_closing = true;
    uv_close((uv_handle_t *)&w->timer, on_timer_closed);
}
