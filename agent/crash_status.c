/* SPDX-License-Identifier: Apache-2.0 */
/* What the crash handler is doing, for people and for programs. See crash_status.h. */
#include "agent/crash_status.h"

#include <stdio.h>
#include <string.h>

#include "agent/crash_spool.h"
#include "agent/os/privilege.h"
#include "common/text.h"

/* ---- what waits ---- */

struct waiting {
    uint32_t to_tell, begun, told, counted;
};

static int add_one(void *context, const char *name)
{
    (void)name;
    ++*(uint32_t *)context;
    return 0;
}

static void count_waiting(const char *directory, struct waiting *w)
{
    struct crash_spool spool;
    memset(w, 0, sizeof *w);
    if (crash_spool_open(&spool, directory, NULL))
        return;
    (void)crash_spool_each(&spool, ".pb", add_one, &w->to_tell);
    (void)crash_spool_each(&spool, ".begun", add_one, &w->begun);
    (void)crash_spool_each(&spool, ".told", add_one, &w->told);
    w->counted = crash_table_waiting(&spool);
    crash_spool_close(&spool);
}

/* ---- the listener ---- */

enum listening {
    LISTENS,  /* a listener serves the socket */
    WAITING,  /* the init system holds it: crashes wait until a listener starts */
    SILENT,   /* crashes leave nothing */
    STOPPED,  /* in order: the pattern is as it was before */
    NO_SOCKET /* the kernel runs a program */
};

static const char *const listening_words[] = {"alive", "waiting", "dead", "stopped", ""};

struct mode {
    enum listening listening;
    const char *socket; /* "" */
    uint32_t pid;       /* of the listener; 0: none, or only root may know */
};

/* Who is not root does not come by the lock: then whoever listens is taken for a listener. */
static struct mode mode_of(const char *root, const char *now, const struct crash_config *c)
{
    const char *path = crash_is_ours(now, c) ? crash_socket_of(now) : NULL;
    struct mode m = {.listening = NO_SOCKET, .socket = path ? path : c->socket};
    if (!path && (!c->socket[0] || strcmp(now, c->previous) != 0))
        return m;
    m.pid = os_crash_socket_holder(m.socket);
    if (!path)
        m.listening = STOPPED;
    else if (!os_crash_socket_is_served(root, path))
        m.listening = SILENT;
    else
        m.listening = m.pid || !os_is_privileged() ? LISTENS : WAITING;
    return m;
}

static void put_listener(struct buf *out, const struct mode *m)
{
    (void)buf_printf(out, "listener      ");
    switch (m->listening) {
    case LISTENS:
        (void)buf_append_str(out, "alive");
        if (m->pid)
            (void)buf_printf(out, ", pid %u", m->pid);
        (void)buf_printf(out, ", at %s\n", m->socket);
        break;
    case WAITING:
        (void)buf_printf(out, "not running: crashes wait at %s, which the init system holds\n",
                         m->socket);
        break;
    case SILENT:
        (void)buf_printf(out,
                         "DEAD: nobody listens at %s, crashes leave no evidence; start "
                         "'trawl-agent crash-listen', or 'crash-handler remove'\n",
                         m->socket);
        break;
    default:
        (void)buf_printf(out,
                         "stopped: crashes go where they went before; they come to %s again when "
                         "'trawl-agent crash-listen' starts\n",
                         m->socket);
        break;
    }
}

/* ---- the whole ---- */

static void put_json(struct buf *out, const char *now, const struct crash_config *c,
                     const struct mode *m, const struct waiting *w)
{
    (void)buf_printf(out,
                     "{\"installed\":%s,\"pattern\":", crash_is_ours(now, c) ? "true" : "false");
    (void)text_append_json(out, span_str(now));
    (void)buf_printf(out, ",\"mode\":\"%s\"", m->listening == NO_SOCKET ? "pipe" : "socket");
    if (m->listening != NO_SOCKET) {
        (void)buf_append_str(out, ",\"socket\":");
        (void)text_append_json(out, span_str(m->socket));
        (void)buf_printf(out, ",\"listener\":\"%s\",\"listener_pid\":%u",
                         listening_words[m->listening], m->pid);
    }
    (void)buf_append_str(out, ",\"previous\":");
    (void)text_append_json(out, span_str(c->previous));
    (void)buf_append_str(out, ",\"spool\":");
    (void)text_append_json(out, span_str(c->spool));
    (void)buf_printf(out,
                     ",\"by_agent\":%s,\"to_tell\":%u,\"counted\":%u,\"begun\":%u,\"told\":%u}\n",
                     c->by_agent ? "true" : "false", w->to_tell, w->counted, w->begun, w->told);
}

static void put_text(struct buf *out, const char *now, const struct crash_config *c,
                     const struct mode *m, const struct waiting *w)
{
    (void)buf_printf(out, "installed     %s\n", crash_is_ours(now, c) ? "yes" : "no");
    (void)buf_printf(out, "core pattern  %s\n", now);
    if (crash_is_ours(now, c))
        (void)buf_printf(out, "before        %s\n", c->previous);
    if (m->listening != NO_SOCKET)
        put_listener(out, m);
    (void)buf_printf(out, "spool         %s\n", c->spool);
    (void)buf_printf(out, "waiting       %u to be told, %u only counted, %u begun\n", w->to_tell,
                     w->counted, w->begun);
}

int crash_status(const struct settings *s, struct failure *f)
{
    struct crash_config c = {.by_agent = false};
    struct waiting w;
    struct buf out;
    char now[OS_CORE_PATTERN_SIZE];
    int rc = os_core_pattern_read(s->root, now, f);
    if (rc)
        return rc;
    if (crash_config_read(&c, s->crash_file, NULL)) {
        memset(&c, 0, sizeof c);
        (void)text_format(c.spool, sizeof c.spool, "%s/crash", s->state_dir);
    }
    count_waiting(c.spool, &w);
    struct mode m = mode_of(s->root, now, &c);
    buf_init(&out, 8192);
    if (strcmp(s->format, "json") == 0)
        put_json(&out, now, &c, &m, &w);
    else
        put_text(&out, now, &c, &m, &w);
    fputs(buf_str(&out), stdout);
    buf_done(&out);
    return 0;
}
