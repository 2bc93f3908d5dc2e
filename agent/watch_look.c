/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what watch_stall.h decides by, and asking the broker for what only privilege sees. One
 * request is under way at a time, for at most BROKER_PEEK_MAX threads. Part of the source
 * "processes".
 */
#include <string.h>

#include "agent/watch_private.h"
#include "common/text.h"

#define BLOCKED_EVERY 10  /* seconds between looks at all threads of a process */
#define PORT_ASKS_EARLY 1 /* the kernel takes milliseconds to list its sockets */
#define PORT_ASKS_EARLY_US UINT64_C(5000000)
#define PORT_ASKS_LATER_US UINT64_C(300000000)

/* ---- telling ---- */

static void tell(struct watched *one, const struct os_peek *peek, const char *type,
                 uint64_t since_us, const char *text)
{
    struct watch_process *w = one->owner;
    struct os_exception e = {.source = OS_HANG};
    char lasted[32];
    watch_describe(one, &e);
    text_put_duration((int64_t)(watch_now(w) - since_us), lasted, sizeof lasted);
    (void)text_copy(e.type, sizeof e.type, type);
    (void)text_format(e.message, sizeof e.message, "%s (%u): %s", one->process.name,
                      one->process.pid, text);
    (void)text_format(e.template_text, sizeof e.template_text, "%s", text);
    e.tid = peek ? peek->tid : one->process.pid;
    watch_tag(&e, "lasts", "%s", lasted);
    if (peek && peek->has_syscall && peek->syscall_name[0])
        watch_tag(&e, "syscall", "%s", peek->syscall_name);
    else if (peek && peek->has_syscall)
        watch_tag(&e, "syscall", "%d", peek->syscall);
    if (peek && peek->wait[0])
        watch_tag(&e, "wait", "%s", peek->wait);
    if (peek && peek->error)
        (void)text_copy(e.missing, sizeof e.missing,
                        "what it waits in: that needs the agent's privileged part");
    watcher_report(w->context.watcher, &e);
}

static void call_text(const struct os_peek *peek, char *out, size_t size_bytes)
{
    if (peek->error || !peek->has_syscall)
        (void)text_copy(out, size_bytes, "");
    else if (peek->syscall_name[0])
        (void)text_format(out, size_bytes, " in %s()", peek->syscall_name);
    else
        (void)text_format(out, size_bytes, " in system call %d", peek->syscall);
}

static void tell_loop(struct watched *one, const struct os_peek *peek)
{
    char text[128], call[48] = "";
    if (peek)
        call_text(peek, call, sizeof call);
    if (peek)
        (void)text_format(text, sizeof text, "the event loop has stopped: the main thread sleeps%s",
                          call);
    else
        (void)text_copy(text, sizeof text,
                        "the event loop has stopped: the main thread computes without end");
    tell(one, peek, "event-loop", one->stall.stuck_since_us, text);
}

static void tell_goes(struct watched *one)
{
    char lasted[32];
    text_put_duration((int64_t)(watch_now(one->owner) - one->stall.stuck_since_us), lasted,
                      sizeof lasted);
    events_add(one->owner->context.events, trawl_v1_EventType_PROCESS_STARTED, one->process.name,
               one->process.pid, "%s (%u): the event loop goes on after %s", one->process.name,
               one->process.pid, lasted);
}

/* ---- the broker ---- */

static struct watch_process *asking; /* who waits for an answer; NULL: nobody any more */

static void on_answer(void *context, const struct broker_reply *reply, const struct failure *f)
{
    struct watch_process *w = asking;
    if (!w || context != w)
        return;
    asking = NULL;
    w->is_asking = false;
    if (!reply || f->code || w->is_closed)
        return;
    for (uint32_t i = 0; i < reply->body.peek.count && i < BROKER_PEEK_MAX; i++)
        look_answer(w, &reply->body.peek.list[i], true);
}

static uint32_t gather(struct watch_process *w, struct broker_request *request)
{
    uint32_t count = 0;
    for (size_t i = 0; i < WATCH_PROCESSES && count < BROKER_PEEK_MAX; i++) {
        struct watched *one = w->list[i];
        if (!one || (!one->wants_peek && !one->wants_ports && !one->blocked_asked))
            continue;
        request->body.peek.pids[count] = one->process.pid;
        /* A thread that is blocked first; the main one has its turn with the next request. */
        request->body.peek.tids[count++] = one->blocked_asked;
        request->body.peek.ports |= one->wants_ports;
        if (!one->blocked_asked)
            one->wants_peek = false;
        one->wants_ports = false;
    }
    request->body.peek.count = count;
    return count;
}

/* Without a privileged part only our own user's processes can be looked at. */
static void ask_ourselves(struct watch_process *w, const struct broker_request *request)
{
    struct os_peek peek;
    for (uint32_t i = 0; i < request->body.peek.count; i++) {
        os_peek(request->body.peek.pids[i], request->body.peek.tids[i], request->body.peek.ports,
                &peek);
        look_answer(w, &peek, request->body.peek.ports);
    }
}

static void ask(struct watch_process *w)
{
    struct broker_request request = {0};
    if (w->is_asking || !gather(w, &request))
        return;
    if (!w->context.broker || !broker_client_is_alive(w->context.broker)) {
        ask_ourselves(w, &request);
        return;
    }
    asking = w;
    w->is_asking =
        broker_client_send(w->context.broker, BROKER_PEEK, &request, -1, on_answer, w, NULL) == 0;
}

void look_answer(struct watch_process *w, const struct os_peek *peek, bool had_ports)
{
    struct watched *one = watch_find(w, peek->pid, 0);
    if (!one || one->ended_us)
        return;
    if (one->blocked_asked && peek->tid == one->blocked_asked) {
        char text[128], call[48];
        one->blocked_asked = 0;
        call_text(peek, call, sizeof call);
        (void)text_format(text, sizeof text, "a thread is in uninterruptible sleep%s", call);
        tell(one, peek, "uninterruptible", watch_now(w) - STALL_US, text);
        return;
    }
    if (!peek->error && peek->executable[0])
        (void)text_copy(one->executable, sizeof one->executable, peek->executable);
    if (!peek->error && had_ports && peek->port_count) {
        memcpy(one->ports, peek->ports, sizeof one->ports);
        one->port_count = peek->port_count;
    }
    if (stall_answer(&one->stall, peek, watch_now(w)) == STALL_STUCK)
        tell_loop(one, peek);
}

/* ---- each second ---- */

static void look_at_main(struct watched *one, uint64_t now)
{
    struct os_watch_runs runs;
    struct os_watch_thread thread;
    if (one->runs_fd < 0 || os_watch_runs(one->runs_fd, &runs))
        return;
    switch (stall_feed(&one->stall, &runs, now)) {
    case STALL_ASK:
        one->wants_peek = true;
        break;
    case STALL_LOOK:
        if (os_watch_thread(one->process.pid, one->process.pid, &thread) == 0 &&
            stall_looked(&one->stall, &thread, now) == STALL_STUCK)
            tell_loop(one, NULL);
        break;
    case STALL_GOES:
        tell_goes(one);
        break;
    default:
        break;
    }
}

static void note_blocked(struct watched *one, uint32_t tid, uint64_t now)
{
    struct stall_blocked *place = NULL;
    struct os_watch_thread thread;
    for (size_t i = 0; i < STALL_BLOCKED; i++) {
        if (one->blocked[i].tid == tid)
            return;
        if (!one->blocked[i].tid)
            place = &one->blocked[i];
    }
    if (place && os_watch_thread(one->process.pid, tid, &thread) == 0 && thread.state == 'D')
        *place = (struct stall_blocked){.tid = tid, .switches = thread.switches, .since_us = now};
}

static void look_at_blocked(struct watched *one, uint64_t now)
{
    uint64_t over_us;
    char lasted[32];
    for (size_t i = 0; i < STALL_BLOCKED; i++) {
        struct stall_blocked *b = &one->blocked[i];
        struct os_watch_thread thread;
        uint32_t tid = b->tid;
        if (!tid)
            continue;
        if (os_watch_thread(one->process.pid, tid, &thread))
            thread = (struct os_watch_thread){.state = 'X'};
        if (stall_blocked_feed(b, &thread, now, &over_us))
            one->blocked_asked = tid;
        text_put_duration((int64_t)over_us, lasted, sizeof lasted);
        if (over_us)
            events_add(one->owner->context.events, trawl_v1_EventType_PROCESS_STARTED,
                       one->process.name, one->process.pid,
                       "%s (%u): thread %u is out of uninterruptible sleep after %s",
                       one->process.name, one->process.pid, tid, lasted);
    }
}

static void look_for_ports(struct watched *one, uint64_t now)
{
    uint64_t every_us = one->port_asks < PORT_ASKS_EARLY ? PORT_ASKS_EARLY_US : PORT_ASKS_LATER_US;
    uint64_t last_us = one->ports_asked_us ? one->ports_asked_us : one->added_us - 3000000;
    if (now - last_us < every_us)
        return;
    one->port_asks++;
    one->ports_asked_us = now;
    one->wants_ports = true;
}

void look_second(struct watch_process *w)
{
    uint64_t now = watch_now(w);
    uint32_t tids[STALL_BLOCKED];
    for (size_t i = 0; i < WATCH_PROCESSES; i++) {
        struct watched *one = w->list[i];
        size_t count = 0;
        if (!one || one->ended_us)
            continue;
        look_at_main(one, now);
        look_at_blocked(one, now);
        if ((w->seconds + i) % BLOCKED_EVERY == 0 &&
            os_watch_blocked(one->process.pid, tids, STALL_BLOCKED, &count) == 0)
            for (size_t t = 0; t < count; t++)
                note_blocked(one, tids[t], now);
        look_for_ports(one, now);
    }
    ask(w);
}

void look_close(struct watch_process *w)
{
    if (asking == w)
        asking = NULL;
}
