/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who came in the place of a watched process that has ended, and how long it took until its ports
 * answered again. For a while after an end the children of its parent, the supervisor, are looked
 * at often; later the scan of all processes tells. Invariant: an end is chained to one successor at
 * most. Part of the source "processes".
 */
#include <stdlib.h>
#include <string.h>

#include "agent/watch_private.h"
#include "common/text.h"

#define FIND_MS 50
#define FIND_LATER_MS 500
#define FIND_OFTEN_US UINT64_C(3000000)
#define FIND_US UINT64_C(60000000)
#define PORTS_US UINT64_C(300000000)
#define CHILDREN_MAX 256

/* ---- who may come ---- */

static struct gone *free_place(struct watch_process *w)
{
    struct gone *oldest = &w->gone[0];
    for (size_t i = 0; i < GONE_MAX; i++) {
        if (!w->gone[i].is_used)
            return &w->gone[i];
        if (w->gone[i].ended_us < oldest->ended_us)
            oldest = &w->gone[i];
    }
    return oldest;
}

static void on_find(uv_timer_t *timer);

static void find_often(struct watch_process *w)
{
    w->finder_until_us = watch_now(w) + FIND_US;
    (void)uv_timer_start(&w->finder, on_find, FIND_MS, 0);
}

void restart_note_gone(struct watch_process *w, const struct watched *one, const char *how)
{
    struct gone *g = free_place(w);
    *g = (struct gone){.is_used = true,
                       .process = one->process,
                       .who = one->who,
                       .port_count = one->port_count,
                       .restarts = one->restarts,
                       .began_us = one->began_us,
                       .ended_us = one->ended_us};
    (void)text_copy(g->executable, sizeof g->executable, one->executable);
    (void)text_copy(g->how, sizeof g->how, how);
    memcpy(g->ports, one->ports, sizeof g->ports);
    if (!one->port_count) { /* it ended before its ports were back: those are still to come */
        memcpy(g->ports, one->awaited, sizeof g->ports);
        g->port_count = one->awaited_count;
    }
    g->knows_children =
        os_watch_children(one->who.parent, g->children, GONE_CHILDREN, &g->child_count) == 0 &&
        g->child_count < GONE_CHILDREN;
    find_often(w);
}

/* The same program: of the same name, and of the same parent, unit or file. */
static bool is_same_program(const struct gone *g, const struct watched *one)
{
    if (strcmp(g->process.name, one->process.name) != 0)
        return false;
    bool same_file = g->process.exe_inode && g->process.exe_inode == one->process.exe_inode &&
                     g->process.exe_device == one->process.exe_device;
    bool same_unit = g->who.unit[0] && strcmp(g->who.unit, one->who.unit) == 0;
    return same_file || same_unit || g->who.parent == one->who.parent;
}

static struct gone *find_before(struct watch_process *w, const struct watched *one)
{
    struct gone *best = NULL;
    for (size_t i = 0; i < GONE_MAX; i++) {
        struct gone *g = &w->gone[i];
        /* Start times are told in hundredths of a second. */
        bool is_later = g->is_used && one->began_us + 20000 >= g->ended_us;
        if (is_later && is_same_program(g, one) && (!best || g->ended_us < best->ended_us))
            best = g;
    }
    return best;
}

void restart_note_new(struct watch_process *w, struct watched *one)
{
    struct gone *g = find_before(w, one);
    char after[32];
    if (!g)
        return;
    uint64_t after_us = one->began_us > g->ended_us ? one->began_us - g->ended_us : 0;
    one->restarts = g->ended_us - g->began_us < RESTARTS_US ? g->restarts + 1 : 1;
    one->before_pid = g->process.pid;
    one->before_ended_us = g->ended_us;
    memcpy(one->awaited, g->ports, sizeof one->awaited);
    one->awaited_count = g->port_count;
    if (!one->executable[0])
        (void)text_copy(one->executable, sizeof one->executable, g->executable);
    text_put_duration((int64_t)after_us, after, sizeof after);
    events_add(w->context.events, trawl_v1_EventType_PROCESS_STARTED, one->process.name,
               one->process.pid, "%s (%u) restarted as %u after %s; it had ended: %s",
               one->process.name, g->process.pid, one->process.pid, after, g->how);
    g->is_used = false;
}

/* ---- looking ---- */

static bool was_there(const struct gone *g, uint32_t pid)
{
    for (size_t i = 0; i < g->child_count; i++)
        if (g->children[i] == pid)
            return true;
    return false;
}

static void look_at_children(struct watch_process *w, struct gone *g)
{
    uint32_t children[CHILDREN_MAX];
    struct os_process process;
    size_t count = 0;
    if (!g->knows_children || os_watch_children(g->who.parent, children, CHILDREN_MAX, &count))
        return;
    for (size_t i = 0; i < count && g->is_used; i++)
        if (!was_there(g, children[i]) && !watch_find(w, children[i], 0) &&
            os_process_get("", children[i], &process, NULL) == 0 &&
            strcmp(process.name, g->process.name) == 0 && watch_is_followed(w, children[i]))
            (void)watch_add(w, &process);
}

static void tell_recovered(struct watch_process *w, struct watched *one)
{
    char after[32], ports[64] = "";
    for (uint32_t i = 0; i < one->awaited_count; i++) {
        size_t used = strlen(ports);
        (void)text_format(ports + used, sizeof ports - used, "%s%u", used ? ", " : "",
                          one->awaited[i]);
    }
    text_put_duration((int64_t)(watch_now(w) - one->before_ended_us), after, sizeof after);
    events_add(w->context.events, trawl_v1_EventType_PROCESS_STARTED, one->process.name,
               one->process.pid, "%s (%u) listens on port %s again, %s after %u had ended",
               one->process.name, one->process.pid, ports, after, one->before_pid);
    memcpy(one->ports, one->awaited, sizeof one->ports);
    one->port_count = one->awaited_count;
    one->awaited_count = 0;
}

static void look_at_ports(struct watch_process *w, struct watched *one)
{
    for (uint32_t i = 0; i < one->awaited_count; i++)
        if (!os_watch_listens(one->awaited[i]))
            return;
    tell_recovered(w, one);
}

/* Whether somebody is still waited for, and the youngest cause for it. */
static bool look(struct watch_process *w, uint64_t *youngest_us)
{
    uint64_t now = watch_now(w);
    bool is_waiting = false;
    *youngest_us = UINT64_MAX;
    for (size_t i = 0; i < GONE_MAX; i++) {
        struct gone *g = &w->gone[i];
        if (!g->is_used || now - g->ended_us > FIND_US)
            continue;
        look_at_children(w, g);
        is_waiting |= g->is_used;
        if (now - g->ended_us < *youngest_us)
            *youngest_us = now - g->ended_us;
    }
    for (size_t i = 0; i < WATCH_PROCESSES; i++) {
        struct watched *one = w->list[i];
        if (!one || !one->awaited_count)
            continue;
        look_at_ports(w, one);
        is_waiting |= one->awaited_count > 0;
        if (now - one->added_us < *youngest_us)
            *youngest_us = now - one->added_us;
    }
    return is_waiting;
}

static void on_find(uv_timer_t *timer)
{
    struct watch_process *w = timer->data;
    uint64_t youngest_us;
    if (w->is_closed || !look(w, &youngest_us) || watch_now(w) > w->finder_until_us)
        return;
    (void)uv_timer_start(timer, on_find, youngest_us < FIND_OFTEN_US ? FIND_MS : FIND_LATER_MS, 0);
}

void restart_second(struct watch_process *w)
{
    uint64_t now = watch_now(w);
    for (size_t i = 0; i < GONE_MAX; i++)
        if (w->gone[i].is_used && now - w->gone[i].ended_us > GONE_US)
            w->gone[i].is_used = false;
    for (size_t i = 0; i < WATCH_PROCESSES; i++) {
        struct watched *one = w->list[i];
        if (one && one->awaited_count && now - one->added_us > PORTS_US)
            one->awaited_count = 0;
        else if (one && one->awaited_count && !uv_is_active((uv_handle_t *)&w->finder))
            look_at_ports(w, one);
    }
}
