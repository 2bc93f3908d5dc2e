/* SPDX-License-Identifier: Apache-2.0 */
/* Finding processes, asking the broker to watch them, taking in what they throw. See
 * source_throws.h. */
#include "agent/source_throws.h"

#include <stdlib.h>
#include <string.h>

#include "agent/broker_watch.h"
#include "agent/watch.h"
#include "common/log.h"
#include "common/port.h"
#include "common/text.h"

#define RESOLVE_SECONDS 3
#define NAMES_MAX 16
#define NAME_SIZE 64
#define FAILED_MAX 32
#define AGAIN_US UINT64_C(60000000) /* a process that could not be watched is tried again */
#define NOTICES_US UINT64_C(600000000)

enum slot_state { SLOT_FREE, SLOT_OPEN, SLOT_CLOSING };

struct throws;
struct slot {
    struct throws *owner;
    enum slot_state state;
    uv_pipe_t pipe;
    struct os_process process;
    size_t got; /* bytes of `message` */
    struct watch_message message;
};

struct failed {
    uint32_t pid;
    uint64_t start_ticks, until_us;
};

struct throws {
    struct source_context context;
    char names[NAMES_MAX][NAME_SIZE];
    size_t name_count, next_name;
    uint32_t seconds;
    bool is_resolving, is_closing;
    uint64_t noticed_us; /* when it was said that there are too many */
    struct slot slots[BROKER_WATCHES_MAX];
    struct failed failed[FAILED_MAX];
    size_t next_failed;
};

/*
 * Requests that wait for the broker. Static: when the broker's client closes it drops them without
 * a call, and they must not be lost then.
 */
static struct request {
    struct throws *owner; /* NULL: free, or nobody waits any more */
    struct slot *slot;
    bool is_used;
} requests[BROKER_WATCHES_MAX + 1];

static struct request *take_request(struct throws *t, struct slot *slot)
{
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        if (!requests[i].is_used) {
            requests[i] = (struct request){t, slot, true};
            return &requests[i];
        }
    return NULL;
}

static uint64_t now_us(const struct throws *t)
{
    return t->context.clock->mono_us(t->context.clock);
}

/* ---- ends ---- */

static bool has_slots(const struct throws *t)
{
    for (size_t i = 0; i < BROKER_WATCHES_MAX; i++)
        if (t->slots[i].state != SLOT_FREE)
            return true;
    return false;
}

static void on_pipe_closed(uv_handle_t *handle)
{
    struct slot *slot = handle->data;
    struct throws *t = slot->owner;
    slot->state = SLOT_FREE;
    if (t->is_closing && !has_slots(t))
        free(t);
}

static void close_slot(struct slot *slot)
{
    if (slot->state != SLOT_OPEN)
        return;
    slot->state = SLOT_CLOSING;
    uv_close((uv_handle_t *)&slot->pipe, on_pipe_closed);
}

static void note_failed(struct throws *t, const struct os_process *process, const char *why)
{
    struct failed *failed = &t->failed[t->next_failed++ % FAILED_MAX];
    *failed = (struct failed){process->pid, process->start_ticks, now_us(t) + AGAIN_US};
    log_warn("throws of %s (%u) are not watched: %s", process->name, process->pid, why);
    events_add(t->context.events, trawl_v1_EventType_DATA_GAP, process->name, process->pid,
               "its C++ throws are not watched: %s", why);
}

/* ---- what the child says ---- */

static void take_message(struct slot *slot)
{
    struct throws *t = slot->owner;
    struct watch_message *m = &slot->message;
    if (watch_check(m, &slot->process)) {
        note_failed(t, &slot->process, "what its watch says makes no sense");
        close_slot(slot);
    } else if (m->type == WATCH_ENDED) {
        if (m->error)
            note_failed(t, &slot->process, m->text);
        close_slot(slot);
    } else {
        text_copy(m->exception.process, sizeof m->exception.process, slot->process.name);
        watcher_report(t->context.watcher, &m->exception);
    }
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct slot *slot = handle->data;
    (void)suggested;
    *out = uv_buf_init((char *)&slot->message + slot->got,
                       (unsigned)(sizeof slot->message - slot->got));
}

static void on_bytes(uv_stream_t *stream, ssize_t count, const uv_buf_t *room)
{
    struct slot *slot = stream->data;
    (void)room;
    if (count < 0) { /* the child was killed, or the broker refused: that is told elsewhere */
        close_slot(slot);
        return;
    }
    slot->got += (size_t)count;
    if (slot->got < sizeof slot->message)
        return;
    slot->got = 0;
    take_message(slot);
}

/* ---- starting ---- */

static void on_started(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct request *request = context;
    struct throws *t = request->owner;
    struct slot *slot = request->slot;
    (void)reply;
    request->is_used = false;
    if (!t)
        return;
    if (f->code == ERR_GONE)
        close_slot(slot);
    else if (f->code) {
        note_failed(t, &slot->process, f->text);
        close_slot(slot);
    } else {
        log_info("throws of %s (%u) are watched", slot->process.name, slot->process.pid);
    }
}

/* Takes the reading end. */
static int read_pipe(struct throws *t, struct slot *slot, uv_file fd)
{
    if (uv_pipe_init(t->context.loop, &slot->pipe, 0)) {
        port_close(fd);
        return ERR_IO;
    }
    slot->pipe.data = slot;
    slot->state = SLOT_OPEN;
    if (uv_pipe_open(&slot->pipe, fd)) {
        port_close(fd);
        return ERR_IO;
    }
    return uv_read_start((uv_stream_t *)&slot->pipe, on_room, on_bytes) ? ERR_IO : 0;
}

static int ask(struct throws *t, struct slot *slot, uv_file pass_fd, struct failure *f)
{
    struct broker_request *request = calloc(1, sizeof *request);
    struct request *waiting = take_request(t, slot);
    if (!request || !waiting) {
        free(request);
        if (waiting)
            waiting->is_used = false;
        return fail(f, ERR_LIMIT, "too many requests wait for the broker");
    }
    struct broker_run *run = &request->body.run;
    text_copy(run->kind, sizeof run->kind, WATCH_KIND);
    run->pid = slot->process.pid;
    run->start_ticks = slot->process.start_ticks;
    run->exe_device = slot->process.exe_device;
    run->exe_inode = slot->process.exe_inode;
    int e = broker_client_send(t->context.broker, BROKER_WATCH, request, pass_fd, on_started,
                               waiting, f);
    if (e)
        waiting->is_used = false;
    free(request);
    return e;
}

static void start(struct throws *t, struct slot *slot, const struct os_process *process)
{
    struct failure f = {0};
    uv_file ends[2];
    slot->owner = t;
    slot->process = *process;
    slot->got = 0;
    if (uv_pipe(ends, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE)) {
        note_failed(t, process, "cannot make a pipe");
        return;
    }
    int e = read_pipe(t, slot, ends[0]);
    if (e)
        fail(&f, e, "cannot read from a pipe");
    else
        e = ask(t, slot, ends[1], &f);
    port_close(ends[1]);
    if (e) {
        note_failed(t, process, f.text);
        close_slot(slot);
    }
}

/* ---- finding ---- */

static bool is_known(const struct throws *t, const struct os_process *process)
{
    for (size_t i = 0; i < BROKER_WATCHES_MAX; i++)
        if (t->slots[i].state != SLOT_FREE && t->slots[i].process.pid == process->pid &&
            t->slots[i].process.start_ticks == process->start_ticks)
            return true;
    for (size_t i = 0; i < FAILED_MAX; i++)
        if (t->failed[i].pid == process->pid && t->failed[i].start_ticks == process->start_ticks &&
            t->failed[i].until_us > now_us(t))
            return true;
    return false;
}

static void say_too_many(struct throws *t, const struct os_process *process)
{
    if (t->noticed_us && now_us(t) - t->noticed_us < NOTICES_US)
        return;
    t->noticed_us = now_us(t);
    log_warn("throws of %s (%u) are not watched: %d processes are already, and no more can be",
             process->name, process->pid, BROKER_WATCHES_MAX);
    events_add(t->context.events, trawl_v1_EventType_DATA_GAP, process->name, process->pid,
               "its C++ throws are not watched: %d processes are already, and no more can be",
               BROKER_WATCHES_MAX);
}

static void consider(struct throws *t, const struct os_process *process)
{
    if (is_known(t, process))
        return;
    for (size_t i = 0; i < BROKER_WATCHES_MAX; i++)
        if (t->slots[i].state == SLOT_FREE) {
            start(t, &t->slots[i], process);
            return;
        }
    say_too_many(t, process);
}

static void on_resolved(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct request *request = context;
    struct throws *t = request->owner;
    request->is_used = false;
    if (!t)
        return;
    t->is_resolving = false;
    if (f->code || !reply)
        return;
    for (uint32_t i = 0; i < reply->body.found.count && i < BROKER_PROCESSES_MAX; i++)
        consider(t, &reply->body.found.list[i]);
}

static void resolve(struct throws *t)
{
    struct broker_request *request = calloc(1, sizeof *request);
    struct request *waiting = request ? take_request(t, NULL) : NULL;
    if (waiting) {
        text_copy(request->body.resolve.name, sizeof request->body.resolve.name,
                  t->names[t->next_name++ % t->name_count]);
        t->is_resolving = broker_client_send(t->context.broker, BROKER_RESOLVE, request, -1,
                                             on_resolved, waiting, NULL) == 0;
        waiting->is_used = t->is_resolving;
    }
    free(request);
}

/* ---- the source ---- */

static void take_names(struct throws *t, const char *list)
{
    struct span rest = span_str(list), name;
    while (t->name_count < NAMES_MAX && text_take_until(&rest, ',', &name) == 0)
        if (name.size_bytes > 0)
            text_copy_span(t->names[t->name_count++], NAME_SIZE, name);
}

int source_throws_open(void **out, const struct source_context *context, struct failure *f)
{
    if (!context->settings->throws[0])
        return 0;
    struct throws *t = calloc(1, sizeof *t);
    if (!t)
        return fail(f, ERR_NOMEM, "out of memory");
    t->context = *context;
    take_names(t, context->settings->throws);
    if (t->name_count == 0) {
        free(t);
        return 0;
    }
    *out = t;
    return 0;
}

void source_throws_second(void *source)
{
    struct throws *t = source;
    uint32_t every = t->name_count < RESOLVE_SECONDS
                         ? RESOLVE_SECONDS / (uint32_t)t->name_count
                         : 1; /* each name about every RESOLVE_SECONDS */
    if (!t->is_resolving && t->seconds++ % every == 0)
        resolve(t);
}

void source_throws_close(void *source)
{
    struct throws *t = source;
    t->is_closing = true;
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        if (requests[i].owner == t)
            requests[i].owner = NULL;
    for (size_t i = 0; i < BROKER_WATCHES_MAX; i++)
        close_slot(&t->slots[i]);
    if (!has_slots(t))
        free(t);
}
