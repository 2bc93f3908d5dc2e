/* SPDX-License-Identifier: Apache-2.0 */
/* Who is watched, and how they end. See watch_process.h. */
#include "agent/watch_process.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/watch_private.h"
#include "common/text.h"

#define REAPED_WAIT_US UINT64_C(5000000) /* a parent that has not asked by then may never do */
#define RESCAN_US UINT64_C(120000000)

/* ---- rules ---- */

static const char *const signals[] = {
    "0",         "SIGHUP",  "SIGINT",    "SIGQUIT", "SIGILL",   "SIGTRAP", "SIGABRT", "SIGBUS",
    "SIGFPE",    "SIGKILL", "SIGUSR1",   "SIGSEGV", "SIGUSR2",  "SIGPIPE", "SIGALRM", "SIGTERM",
    "SIGSTKFLT", "SIGCHLD", "SIGCONT",   "SIGSTOP", "SIGTSTP",  "SIGTTIN", "SIGTTOU", "SIGURG",
    "SIGXCPU",   "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO",   "SIGPWR",  "SIGSYS"};
#define SIGNALS (int)(sizeof signals / sizeof signals[0])

enum { HANG_UP = 1, INTERRUPT = 2, TERMINATE = 15, SHELL_BASE = 128 };

static bool is_asked_to_end(int signal)
{
    return signal == HANG_UP || signal == INTERRUPT || signal == TERMINATE;
}

bool watch_is_bad_exit(const struct os_exit *exit)
{
    if (exit->by_signal)
        return !is_asked_to_end(exit->code);
    return exit->code != 0 && !is_asked_to_end(exit->code - SHELL_BASE);
}

void watch_exit_text(const struct os_exit *exit, char *out, size_t size_bytes)
{
    if (!exit->by_signal)
        (void)text_format(out, size_bytes, "exit %d", exit->code);
    else if (exit->code > 0 && exit->code < SIGNALS)
        (void)text_format(out, size_bytes, "killed by %s", signals[exit->code]);
    else
        (void)text_format(out, size_bytes, "killed by signal %d", exit->code);
}

/* ---- words ---- */

uint64_t watch_now(const struct watch_process *w)
{
    return w->context.clock->mono_us(w->context.clock);
}

void watch_tag(struct os_exception *e, const char *key, const char *format, ...)
{
    va_list args;
    if (e->tag_count == OS_EXCEPTION_TAGS)
        return;
    struct os_tag *tag = &e->tags[e->tag_count++];
    (void)text_copy(tag->key, sizeof tag->key, key);
    va_start(args, format);
    (void)vsnprintf(tag->value, sizeof tag->value, format, args);
    va_end(args);
}

void watch_describe(const struct watched *one, struct os_exception *e)
{
    (void)text_copy(e->process, sizeof e->process, one->process.name);
    (void)text_copy(e->executable, sizeof e->executable, one->executable);
    (void)text_copy(e->unit, sizeof e->unit, one->who.unit);
    e->pid = one->process.pid;
    e->start_ticks = one->process.start_ticks;
    e->uid = one->process.uid;
}

/* ---- the end of one ---- */

static void on_closed(uv_handle_t *handle)
{
    struct watched *one = handle->data;
    struct watch_process *w = one->owner;
    os_watch_close(one->fd);
    os_watch_close(one->runs_fd);
    free(one);
    if (--w->handles == 0)
        free(w);
}

static void drop(struct watched *one)
{
    struct watch_process *w = one->owner;
    for (size_t i = 0; i < WATCH_PROCESSES; i++)
        if (w->list[i] == one)
            w->list[i] = NULL;
    if (!one->is_closing)
        uv_close((uv_handle_t *)&one->poll, on_closed);
    one->is_closing = true;
}

static void tell_bad(const struct watched *one, const struct os_exit *exit, const char *how)
{
    struct os_exception e = {.source = OS_PROCESS_EXIT};
    struct watch_process *w = one->owner;
    char lived[32];
    watch_describe(one, &e);
    text_put_duration((int64_t)(one->ended_us - one->began_us), lived, sizeof lived);
    (void)text_copy(e.type, sizeof e.type, how);
    (void)text_format(e.message, sizeof e.message, "%s (%u) ended after %s: %s%s",
                      one->process.name, one->process.pid, lived, how,
                      exit->dumped_core ? ", core dumped" : "");
    (void)text_format(e.template_text, sizeof e.template_text, "ended: %s", how);
    if (exit->by_signal)
        e.signal = (uint32_t)exit->code;
    else
        watch_tag(&e, "exit_code", "%d", exit->code);
    e.mono_us = one->ended_us;
    e.wall_us =
        w->context.clock->wall_us(w->context.clock) - (int64_t)(watch_now(w) - one->ended_us);
    watch_tag(&e, "uptime", "%s", lived);
    watch_tag(&e, "parent", "%u", one->who.parent);
    if (one->restarts)
        watch_tag(&e, "restarts", "%u", one->restarts);
    watcher_report(w->context.watcher, &e);
}

static void conclude(struct watched *one, const struct os_exit *exit, const char *unknown)
{
    struct watch_process *w = one->owner;
    char how[64];
    if (exit)
        watch_exit_text(exit, how, sizeof how);
    else
        (void)text_copy(how, sizeof how, unknown);
    if (exit && watch_is_bad_exit(exit))
        tell_bad(one, exit, how);
    else
        events_add(w->context.events, trawl_v1_EventType_PROCESS_EXITED, one->process.name,
                   one->process.pid, "%s (%u) ended: %s", one->process.name, one->process.pid, how);
    restart_note_gone(w, one, how);
    drop(one);
}

/* True: it is known, or will not be any more. */
static bool try_conclude(struct watched *one)
{
    struct os_exit exit;
    int e = os_watch_exit(one->fd, &exit);
    bool is_late = watch_now(one->owner) - one->ended_us > REAPED_WAIT_US;
    if (e == 0)
        conclude(one, &exit, NULL);
    else if (e == ERR_UNSUPPORTED)
        conclude(one, NULL, "how is not known: this kernel tells only the parent (before 6.15)");
    else if (is_late)
        conclude(one, NULL, "how is not known: its parent has not asked yet");
    else
        return false;
    return true;
}

static void on_ended(uv_poll_t *poll, int status, int events)
{
    struct watched *one = poll->data;
    (void)status;
    (void)events;
    if (one->is_closing || one->owner->is_closed)
        return;
    if (!one->ended_us)
        one->ended_us = watch_now(one->owner);
    /* It stays readable while it waits to be reaped: from now on only that is waited for. */
    if (!try_conclude(one))
        (void)uv_poll_start(poll, UV_DISCONNECT, on_ended);
}

/* ---- taking one up ---- */

struct watched *watch_find(struct watch_process *w, uint32_t pid, uint64_t start_ticks)
{
    for (size_t i = 0; i < WATCH_PROCESSES; i++)
        if (w->list[i] && w->list[i]->process.pid == pid &&
            (!start_ticks || w->list[i]->process.start_ticks == start_ticks))
            return w->list[i];
    return NULL;
}

static struct watched *make(struct watch_process *w, const struct os_process *process)
{
    struct watched *one = calloc(1, sizeof *one);
    if (!one)
        return NULL;
    one->owner = w;
    one->process = *process;
    one->poll.data = one;
    one->added_us = watch_now(w);
    one->began_us = os_watch_began_us(process->start_ticks);
    one->runs_fd = -1;
    if (os_watch_open(process->pid, process->start_ticks, &one->fd, NULL)) {
        free(one);
        return NULL;
    }
    if (uv_poll_init(w->context.loop, &one->poll, one->fd)) {
        os_watch_close(one->fd);
        free(one);
        return NULL;
    }
    w->handles++;
    return one;
}

struct watched *watch_add(struct watch_process *w, const struct os_process *process)
{
    size_t i = 0;
    if (watch_find(w, process->pid, process->start_ticks))
        return NULL;
    while (i < WATCH_PROCESSES && w->list[i])
        i++;
    struct watched *one = i < WATCH_PROCESSES ? make(w, process) : NULL;
    if (!one)
        return NULL;
    w->list[i] = one;
    (void)os_watch_who(process->pid, &one->who);
    one->runs_fd = os_watch_runs_open(process->pid);
    (void)uv_poll_start(&one->poll, UV_READABLE, on_ended);
    restart_note_new(w, one);
    return one;
}

static int add_found(void *context, const struct os_process *process)
{
    (void)watch_add(context, process);
    return 0;
}

static int stop_at_first(void *context, const struct os_process *process)
{
    (void)context;
    (void)process;
    return 1;
}

bool watch_is_followed(const struct watch_process *w, uint32_t pid)
{
    struct os_process_filter filter = {.pid = pid};
    for (const char *const *name = w->context.followed; *name; name++) {
        filter.name = *name;
        if (os_process_each("", &filter, stop_at_first, NULL, NULL) > 0)
            return true;
    }
    return false;
}

static void scan(struct watch_process *w)
{
    struct os_process_filter filter = {.pid = 0};
    for (const char *const *name = w->context.followed; *name; name++) {
        filter.name = *name;
        (void)os_process_each("", &filter, add_found, w, NULL);
    }
    w->rescan_us = watch_now(w) + RESCAN_US;
}

static void on_process(void *context, const struct os_process_change *change)
{
    struct watch_process *w = context;
    struct os_process process;
    if (change->started && change->named && os_process_get("", change->pid, &process, NULL) == 0 &&
        process.start_ticks == change->start_ticks)
        (void)watch_add(w, &process);
}

/* ---- the source ---- */

int watch_process_open(void **out, const struct source_context *context, struct failure *f)
{
    if (!context->followed || !context->followed[0])
        return 0;
    struct watch_process *w = calloc(1, sizeof *w);
    if (!w)
        return fail(f, ERR_NOMEM, "out of memory");
    w->context = *context;
    w->listener = (struct events_listener){.process = on_process, .context = w};
    if (events_listen(context->events, &w->listener)) {
        free(w);
        return fail(f, ERR_LIMIT, "too many listen to processes");
    }
    w->finder.data = w;
    (void)uv_timer_init(context->loop, &w->finder);
    w->handles = 1;
    scan(w);
    *out = w;
    return 0;
}

void watch_process_second(void *source)
{
    struct watch_process *w = source;
    for (size_t i = 0; i < WATCH_PROCESSES; i++)
        if (w->list[i] && w->list[i]->ended_us)
            (void)try_conclude(w->list[i]);
    if (watch_now(w) >= w->rescan_us)
        scan(w);
    restart_second(w);
    look_second(w);
    w->seconds++;
}

static void on_finder_closed(uv_handle_t *handle)
{
    struct watch_process *w = handle->data;
    if (--w->handles == 0)
        free(w);
}

void watch_process_close(void *source)
{
    struct watch_process *w = source;
    if (!w)
        return;
    w->is_closed = true;
    look_close(w);
    events_forget(w->context.events, &w->listener);
    for (size_t i = 0; i < WATCH_PROCESSES; i++)
        if (w->list[i])
            drop(w->list[i]);
    uv_close((uv_handle_t *)&w->finder, on_finder_closed);
}
